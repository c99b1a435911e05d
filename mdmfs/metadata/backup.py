"""The backup of a metadata service that keeps SQLite; PostgreSQL has its own ways, and its administrators know them."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from mdmfs.daemon.backup import MOVE_AWAY, NOTHING_THERE, Header, Part, restore
from mdmfs.journal.durable import make_directory, sync_directory
from mdmfs.metadata.configuration import MetadataConfiguration
from mdmfs.metadata.store.database import open_database
from mdmfs.model.errors import ConfigurationError, NameTakenError, StoreError
from mdmfs.pki.recovery import PrivateKey

ZONE: Final = "metadata"
DATABASE: Final = "metadata.sqlite"


def parts_of(configuration: MetadataConfiguration) -> list[Part]:
    """Give what a backup holds; raises ``ConfigurationError`` where there is no such file."""
    path = _path(configuration)
    if not path.exists():
        message = f"there is no database {path}"
        raise ConfigurationError(message, what_to_do=NOTHING_THERE)
    return [Part(DATABASE, lambda: _copy(path))]


def restore_metadata(configuration: MetadataConfiguration, source: Path, private: PrivateKey) -> Header:
    """Put a backup where the configuration says, where there is no database; it is there whole or not at all.

    Raises ``ConfigurationError`` and what ``mdmfs.daemon.backup.restore`` raises; ``StoreError`` for a newer format.
    """
    path = _path(configuration)
    if path.exists():
        message = f"there is a database {path}"
        raise NameTakenError(message, what_to_do=MOVE_AWAY)
    arriving = path.with_name(path.name + ".restoring")
    shutil.rmtree(arriving, ignore_errors=True)
    make_directory(path.parent)
    try:
        header = restore(source, ZONE, arriving, private)
        open_database(str(arriving / DATABASE)).close()  # raises for one that this program cannot read
        (arriving / DATABASE).rename(path)
        sync_directory(path.parent)
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
    return header


def _path(configuration: MetadataConfiguration) -> Path:
    if "://" in configuration.database:
        message = f"a database in {configuration.database.partition(':')[0]} is not backed up by mdmfs"
        raise ConfigurationError(message, what_to_do="use its own programs: pg_dump and pg_restore")
    return Path(configuration.database)


@contextlib.contextmanager
def _copy(path: Path) -> Iterator[IO[bytes]]:
    """Give the database as it is at one instant; the copy lies beside it, as private, for as long as it is read."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="backup-") as folder:
        copy = Path(folder) / DATABASE
        try:
            with contextlib.closing(sqlite3.connect(path)) as database:
                database.execute("VACUUM INTO ?", (str(copy),))
        except sqlite3.Error as error:
            message = f"the database {path} cannot be copied ({type(error).__name__})"
            raise StoreError(message, what_to_do="see to its disk: the copy needs as much room again") from error
        with copy.open("rb") as stream:
            yield stream
