"""Says where the hospital's store lies and which keys belong to it, and opens none where they are lost."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.store import Store
from mdmfs.model.errors import ConfigurationError

STORE: Final = "store"
KEYS: Final = ("outbox.key", "signing.key")
"""What belongs to a store and lies beside it."""


def store_path(configuration: HospitalConfiguration) -> Path:
    """Say where the store or its copy lies."""
    return configuration.path(configuration.hospital.directory) / STORE


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
