"""Backups of a shelf: a copy of LMDB as it was at one instant, sealed for a recovery certificate while it is made.

A backup is ``MAGIC``, one line of JSON (``Header``), and the copy as a Cobblestone-256 stream (C2SP chunked-encryption)
under a key of its own that the header holds wrapped; the stream's context is the SHA-256 of what comes before it, so a
header cannot be changed. Nothing of the copy ever lies on a disk unsealed.

Only the shelf comes back: what was decided since, the hospital tells, tombstones first, before any share is given
(docs/adr/0007).
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import IO, Final

import msgspec
from cryptography import x509
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from mdmfs.daemon.backup import (
    ANOTHER,
    MOVE_AWAY,
    NOTHING_THERE,
    PIECE,
    appearing,
    begin,
    copying,
    read_head,
)
from mdmfs.journal.durable import make_directory, sync_directory
from mdmfs.keystore.row_shelf import shelf_layout
from mdmfs.model.errors import ConfigurationError, IntegrityError, NameTakenError, WrongKeyError, unusable
from mdmfs.pki.recovery import PrivateKey, WrappedKey
from mdmfs.rows.embedded import Embedded
from mdmfs.rows.environment import STORE_FILE, forget_copied, open_environment

MAGIC: Final = b"mdmfs shelf backup 1\n"
SECONDS_A_DAY: Final = 86_400
_ARRIVING: Final = "restoring"


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be read of a backup without its key; times in seconds since the epoch."""

    keystore: str
    made: float
    expires: float
    """Certificates of destruction name this day: from then on the backup is to be deleted, and is not restored."""
    key: WrappedKey


def back_up(
    directory: Path, output: Path, header: tuple[str, int], recovery: x509.Certificate, *, now: float | None = None
) -> Header:
    """Write a backup of the shelf in ``directory`` to a new file, also while a keystore works on it.

    ``header`` is the keystore's name and for how many days the backup may be kept. The file appears whole or not at
    all. Raises ``ConfigurationError``, ``StoreError`` and ``OutOfSpaceError``.
    """
    if not (directory / STORE_FILE).exists():
        message = f"there is no shelf in {directory}"
        raise ConfigurationError(message, what_to_do=NOTHING_THERE)
    name, days = header
    made = time.time() if now is None else now
    secret = Cobblestone256Encryptor.generate_key()
    told = Header(name, made, made + days * SECONDS_A_DAY, WrappedKey.wrap(secret, recovery))
    with appearing(output) as file:
        encryptor = begin(file, MAGIC, told, secret)
        with copying(open_environment(directory, is_read_only=True), "shelf") as copy:
            while piece := copy.read(PIECE):
                file.write(encryptor.update(piece))
        file.write(encryptor.finalize())
    return told


def restore(source: Path, directory: Path, private: PrivateKey, *, now: float, is_expired_ok: bool = False) -> Header:
    """Put the shelf of a backup into ``directory``, where there is none; it is there whole or not at all.

    Raises ``ConfigurationError`` where there is one, or the backup has expired, ``WrongKeyError`` for another key,
    ``IntegrityError`` for a damaged backup, ``StoreError`` and ``OutOfSpaceError``.
    """
    if (directory / STORE_FILE).exists():
        message = f"{directory} holds a shelf"
        raise NameTakenError(message, what_to_do=MOVE_AWAY)
    try:
        with source.open("rb") as file:
            header, context = read_head(file, MAGIC, Header, "a shelf")
            if now >= header.expires and not is_expired_ok:
                message = f"the backup {source} has expired: a certificate of destruction may say that it is gone"
                raise ConfigurationError(message, what_to_do="take a later backup; --expired restores this one")
            secret = header.key.unwrap(private)
            _unseal(file, Cobblestone256Decryptor(secret, context), directory)
    except WrongKeyError as error:
        raise error.about(source) from error
    except OSError as error:
        raise unusable(error.filename or source, error) from error
    finally:
        shutil.rmtree(directory / _ARRIVING, ignore_errors=True)
    return header


def _unseal(file: IO[bytes], decryptor: Cobblestone256Decryptor, directory: Path) -> None:
    arriving = directory / _ARRIVING
    make_directory(arriving)
    directory.chmod(0o700)
    try:
        with appearing(arriving / STORE_FILE, may_replace=True) as shelf:
            while piece := file.read(PIECE):
                shelf.write(decryptor.update(piece))
            shelf.write(decryptor.finalize())
    except InvalidTag as error:
        message = f"{file.name} is damaged or was cut: nothing of it is restored"
        raise IntegrityError(message, what_to_do=ANOTHER) from error
    forget_copied(arriving, shelf_layout())
    Embedded.open(arriving, shelf_layout()).close()  # raises for one that this program cannot read
    (arriving / STORE_FILE).rename(directory / STORE_FILE)
    sync_directory(directory)
