"""Opens the hospital's store where its configuration says: in LMDB, or in a database with a copy in LMDB."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.hospital.transaction import RowStore, store_layout
from mdmfs.rows.copied import Copied

STORE: Final = "store"


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
