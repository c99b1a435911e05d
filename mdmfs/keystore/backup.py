"""Backups of a shelf: a copy of LMDB as it was at one instant, sealed for a recovery certificate while it is made.

A backup is ``MAGIC``, one line of JSON (``Header``), and the copy as a Cobblestone-256 stream (C2SP chunked-encryption)
under a key of its own that the header holds wrapped; the stream's context is the SHA-256 of what comes before it, so a
header cannot be changed. Nothing of the copy ever lies on a disk unsealed.

Only the shelf comes back: what was decided since, the hospital tells, tombstones first, before any share is given
(docs/adr/0007).
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import IO, Final

import msgspec
from cryptography import x509
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from mdmfs.keystore.lmdb_shelf import LmdbShelf, open_environment
from mdmfs.model.errors import ConfigurationError, IntegrityError
from mdmfs.pki.recovery import PrivateKey, WrappedKey
from mdmfs.wire.backup import appearing, copying, failure, sync_directory

MAGIC: Final = b"mdmfs shelf backup 1\n"
SECONDS_A_DAY: Final = 86_400
MAX_HEADER: Final = 65_536
_PIECE: Final = 2**20
_SHELF_FILE: Final = "data.mdb"


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
    if not (directory / _SHELF_FILE).exists():
        message = f"there is no shelf in {directory}"
        raise ConfigurationError(message)
    name, days = header
    made = time.time() if now is None else now
    secret = Cobblestone256Encryptor.generate_key()
    told = Header(name, made, made + days * SECONDS_A_DAY, WrappedKey.wrap(secret, recovery))
    head = MAGIC + msgspec.json.encode(told) + b"\n"
    with appearing(output) as file:
        file.write(head)
        encryptor = Cobblestone256Encryptor(secret, hashlib.sha256(head).digest())
        with copying(open_environment(directory, is_read_only=True), "shelf") as copy:
            while piece := copy.read(_PIECE):
                file.write(encryptor.update(piece))
        file.write(encryptor.finalize())
    return told


def read_header(source: IO[bytes]) -> tuple[Header, bytes]:
    """Read the head of a backup, and give its octets too; raises ``IntegrityError``."""
    magic = source.read(len(MAGIC))
    line = source.readline(MAX_HEADER)
    try:
        if magic == MAGIC and line.endswith(b"\n"):
            return msgspec.json.decode(line, type=Header), magic + line
    except msgspec.DecodeError as error:
        message = "the head of the backup is damaged"
        raise IntegrityError(message) from error
    message = "this is no backup of a shelf, or one of another format"
    raise IntegrityError(message)


def restore(source: Path, directory: Path, private: PrivateKey, *, now: float, is_expired_ok: bool = False) -> Header:
    """Put the shelf of a backup into ``directory``, where there is none; it is there whole or not at all.

    Raises ``ConfigurationError`` where there is one, or the backup has expired, ``WrongKeyError`` for another key,
    ``IntegrityError`` for a damaged backup, ``StoreError`` and ``OutOfSpaceError``.
    """
    if (directory / _SHELF_FILE).exists():
        message = f"{directory} holds a shelf: move it away first, it may know what the backup does not"
        raise ConfigurationError(message)
    try:
        with source.open("rb") as file:
            header, head = read_header(file)
            if now >= header.expires and not is_expired_ok:
                message = "the backup has expired: a certificate of destruction may say that it is gone"
                raise ConfigurationError(message)
            secret = header.key.unwrap(private)
            _unseal(file, Cobblestone256Decryptor(secret, hashlib.sha256(head).digest()), directory)
    except OSError as error:
        raise failure(source, error) from error
    return header


def _unseal(file: IO[bytes], decryptor: Cobblestone256Decryptor, directory: Path) -> None:
    arriving = directory / "restoring"
    arriving.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    try:
        with appearing(arriving / _SHELF_FILE, may_replace=True) as shelf:
            while piece := file.read(_PIECE):
                shelf.write(decryptor.update(piece))
            shelf.write(decryptor.finalize())
    except InvalidTag as error:
        message = "the backup is damaged or was cut: nothing of it is restored"
        raise IntegrityError(message) from error
    LmdbShelf(arriving).close()  # raises for one that this program cannot read
    (arriving / _SHELF_FILE).rename(directory / _SHELF_FILE)
    for left in arriving.iterdir():
        left.unlink()
    arriving.rmdir()
    sync_directory(directory)
