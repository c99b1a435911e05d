"""The backup of a hospital: its store as it is at one instant, its keys, its audit log.

Staging and sealed headers are left out: they come back by themselves. The audit log is copied after the store, so that
nothing is in the store whose record is missing.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import lmdb

from mdmfs.daemon.backup import MOVE_AWAY, NOTHING_THERE, Header, Part, copying, restore
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.hospital.opening import KEYS, STORE, store_path
from mdmfs.hospital.store import store_layout
from mdmfs.journal.durable import make_directory, sync_directory
from mdmfs.model.errors import ConfigurationError, NameTakenError, StoreError
from mdmfs.pki.recovery import PrivateKey
from mdmfs.rows.environment import STORE_FILE, forget_copied, open_environment, pack

ZONE: Final = "hospital"
AUDIT: Final = "audit*.jsonl"


def parts_of(configuration: HospitalConfiguration) -> Iterator[Part]:
    """Give what a backup holds; raises ``ConfigurationError`` where there is no store."""
    directory, store = configuration.path(configuration.hospital.directory), store_path(configuration)
    if not (store / STORE_FILE).exists():
        message = f"there is no store of a hospital in {directory}"
        raise ConfigurationError(message, what_to_do=NOTHING_THERE)
    yield Part(f"{STORE}/{STORE_FILE}", lambda: _copy(store))
    for path in (*(directory / name for name in KEYS), *sorted(directory.glob(AUDIT))):
        if path.exists():
            yield Part.of(directory, path)


async def restore_hospital(configuration: HospitalConfiguration, source: Path, private: PrivateKey) -> Header:
    """Put a backup where the configuration says, where there is no store; it is there whole or not at all.

    The store is written anew, each page full: that is what compacts it.

    Records of the audit log that are there already stay: they are the later ones. Raises ``ConfigurationError`` and
    what ``mdmfs.daemon.backup.restore`` raises; ``StoreError`` for a store of a newer format.
    """
    directory, there = configuration.path(configuration.hospital.directory), store_path(configuration)
    if (there / STORE_FILE).exists():
        message = f"{directory} holds a store"
        raise NameTakenError(message, what_to_do=MOVE_AWAY)
    arriving = directory / "restoring"
    shutil.rmtree(arriving, ignore_errors=True)
    make_directory(directory)
    try:
        header = restore(source, ZONE, arriving, private)
        forget_copied(arriving / STORE, store_layout())
        await LmdbStore.open(arriving / STORE).aclose()  # raises for one that this program cannot read
        pack(arriving / STORE, arriving / "packed", store_layout())
        _refuse_other_keys(arriving, directory)
        for path in sorted(arriving.glob("*")):
            if path.is_file() and not (directory / path.name).exists():
                path.rename(directory / path.name)
        there.mkdir(mode=0o700, exist_ok=True)
        (arriving / "packed" / STORE_FILE).rename(there / STORE_FILE)
        sync_directory(directory)
        sync_directory(there)
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
    return header


def _refuse_other_keys(arriving: Path, directory: Path) -> None:
    """Refuse to bring a store back beside keys that it was not written with."""
    for name in KEYS:
        there, restored = directory / name, arriving / name
        if there.exists() and restored.exists() and there.read_bytes() != restored.read_bytes():
            message = f"{there} is another key than that of the backup"
            raise NameTakenError(message, what_to_do=MOVE_AWAY)


@contextlib.contextmanager
def _copy(store: Path) -> Iterator[IO[bytes]]:
    try:
        environment = open_environment(store, is_read_only=True)
    except lmdb.Error as error:
        message = f"the store in {store} cannot be opened ({type(error).__name__})"
        raise StoreError(message) from error
    with copying(environment, STORE) as stream:
        yield stream
