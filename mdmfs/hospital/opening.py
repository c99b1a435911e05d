"""Opens the hospital's store where its configuration says: in LMDB, or in a database with a copy in LMDB."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.hospital.store import Store
from mdmfs.hospital.transaction import RowStore, store_layout
from mdmfs.model.errors import ConfigurationError
from mdmfs.rows.copied import Copied

STORE: Final = "store"
KEYS: Final = ("outbox.key", "signing.key")
"""What belongs to a store and lies beside it."""


def store_path(configuration: HospitalConfiguration) -> Path:
    """Say where the store or its copy lies."""
    return configuration.path(configuration.hospital.directory) / STORE


def open_store(configuration: HospitalConfiguration) -> RowStore:
    """Open the store; blocks where it is a database.

    Raises ``ConfigurationError`` and ``StoreError``, see ``Embedded.open`` and ``Copied.open_url``.
    """
    path = store_path(configuration)
    if not configuration.hospital.store:
        return LmdbStore.open(path)
    return RowStore(Copied.open_url(path, store_layout(), configuration.hospital.store))


def refuse_lost_keys(store: Store, directory: Path) -> None:
    """Raise ``ConfigurationError`` where a store has files and a key beside it is missing: a new one is another."""
    missing = [directory / name for name in KEYS if not (directory / name).exists()]
    has_files = store.read(lambda tx: bool(tx.catalogue.files(limit=1)))
    if missing and has_files:
        told = " and ".join(map(str, missing))
        message = f"{told} cannot be found, but the store has files that were registered with it"
        what_to_do = (
            "copy it from the machine whose hospitald worked on this store, or from its backup, mode 0600; where it is"
            f" lost for good (docs/drills.md): head -c 32 /dev/urandom > {missing[0]}"
        )
        raise ConfigurationError(message, what_to_do=what_to_do)
