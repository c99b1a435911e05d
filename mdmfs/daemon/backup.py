"""Backups of a zone's stores: what is handed in, sealed for a recovery certificate while it is made.

A backup is ``MAGIC``, one line of JSON (``Header``), and a tar as a Cobblestone-256 stream (C2SP chunked-encryption)
under a key of its own that the header holds wrapped. The stream's context is the SHA-256 of what comes before it, so a
header cannot be changed, and an end is only taken for one where the stream says so. A store of unknown length is many
members of one name, one behind the other.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Final, NamedTuple, TypeVar

import lmdb
import msgspec
from cryptography import x509
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from mdmfs.journal.durable import make_directory, sync_directory
from mdmfs.model.errors import ConfigurationError, IntegrityError, StoreError, WrongKeyError, unusable, using
from mdmfs.pki.recovery import PrivateKey, WrappedKey

MOVE_AWAY: Final = "move it away first: it may know what the backup does not"
NOTHING_THERE: Final = "name the configuration of a service that has run: nothing is kept there yet"
ANOTHER: Final = "take another copy of it, or an older backup"
MAGIC: Final = b"mdmfs backup 1\n"
"""Its last word is the number of the format; what is in a backup is of the format of the store that it was made of."""
MAX_HEADER: Final = 65_536
MAX_NUMBER: Final = 8
"""Digits of a format's number that are looked at, where it is longer than ours."""
PIECE: Final = 2**20
T = TypeVar("T", bound=msgspec.Struct)


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be read of a backup without its key; ``made`` in seconds since the epoch."""

    zone: str
    """``hospital`` or ``metadata``."""
    name: str
    made: float
    key: WrappedKey


class Part(NamedTuple):
    """One file of a zone: its name below the zone's directory, and what opens it for reading."""

    name: str
    open: Callable[[], contextlib.AbstractContextManager[IO[bytes]]]

    @classmethod
    def of(cls, directory: Path, path: Path) -> Part:
        """Take a file as it is."""
        return cls(path.relative_to(directory).as_posix(), lambda: path.open("rb"))


def back_up(
    output: Path, whose: tuple[str, str], parts: Iterable[Part], recovery: x509.Certificate, *, now: float | None = None
) -> Header:
    """Write a backup to a new file, which appears whole or not at all; ``whose`` is the zone and its name.

    Raises ``ConfigurationError``, ``StoreError`` and ``OutOfSpaceError``.
    """
    secret = Cobblestone256Encryptor.generate_key()
    told = Header(*whose, time.time() if now is None else now, WrappedKey.wrap(secret, recovery))
    with appearing(output) as file:
        sealing = _Sealing(file, begin(file, MAGIC, told, secret))
        with tarfile.open(fileobj=sealing, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload] # it writes only
            for part in parts:
                _add(tar, part)
        sealing.finish()
    return told


def begin(file: IO[bytes], magic: bytes, header: msgspec.Struct, secret: bytes) -> Cobblestone256Encryptor:
    """Write the head of a backup, and give what seals the rest of it."""
    head = magic + msgspec.json.encode(header) + b"\n"
    file.write(head)
    return Cobblestone256Encryptor(secret, hashlib.sha256(head).digest())


def read_head(source: IO[bytes], magic: bytes, header: type[T], whose: str) -> tuple[T, bytes]:
    """Read the head of a backup, and give the context of the rest.

    Raises ``IntegrityError``, and ``StoreError`` for one of a newer format.
    """
    name, found = getattr(source, "name", "this"), source.readline(len(magic) + MAX_NUMBER)
    _refuse_newer(name, found, magic, whose)
    line = source.readline(MAX_HEADER)
    try:
        if found == magic and line.endswith(b"\n"):
            return msgspec.json.decode(line, type=header), hashlib.sha256(found + line).digest()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"{name}: the head of the backup is damaged"
        raise IntegrityError(message, what_to_do=ANOTHER) from error
    message = f"{name} is no backup of {whose}"
    raise IntegrityError(message, what_to_do="name a file that mdmfs backup wrote for this service")


def _refuse_newer(name: str, found: bytes, magic: bytes, whose: str) -> None:
    kind, _, known = magic.rstrip().rpartition(b" ")
    told, _, number = found.rstrip().rpartition(b" ")
    if told == kind and number.isdigit() and int(number) > int(known):
        message = f"{name} is a backup of {whose} of format {int(number)}, this program knows none after {int(known)}"
        raise StoreError(message, what_to_do="restore it with the mdmfs that made it, or a newer one")


def restore(source: Path, zone: str, arriving: Path, private: PrivateKey) -> Header:
    """Unseal a backup of a zone into a new directory, mode 0700; whole, or the directory is not there.

    Raises ``ConfigurationError``, ``WrongKeyError`` for another key, ``IntegrityError`` for a damaged backup and
    ``OutOfSpaceError``.
    """
    try:
        with source.open("rb") as file:
            header, context = read_head(file, MAGIC, Header, "a hospital or a metadata service")
            if header.zone != zone:
                message = f"{source} is a backup of a {header.zone}, not of a {zone}"
                raise ConfigurationError(message, what_to_do="name the configuration of the service that it is of")
            secret = header.key.unwrap(private)
            make_directory(arriving)
            _unpack(_Unsealing(file, Cobblestone256Decryptor(secret, context)), arriving)
    except InvalidTag as error:
        message = f"{source} is damaged or was cut: nothing of it is restored"
        raise IntegrityError(message, what_to_do=ANOTHER) from error
    except WrongKeyError as error:
        raise error.about(source) from error
    except OSError as error:
        raise unusable(error.filename or source, error) from error
    return header


@contextlib.contextmanager
def copying(environment: lmdb.Environment, what: str) -> Iterator[IO[bytes]]:
    """Give a compact copy of an LMDB as it is now, as a stream; raises ``StoreError`` at the end if it is not whole.

    LMDB writes into a pipe, from a thread, in a transaction of its own: whoever writes goes on meanwhile. The
    environment is closed at the end.
    """
    read_end, write_end = os.pipe()
    failures: list[lmdb.Error] = []

    def copy() -> None:
        try:
            environment.copyfd(write_end, compact=True)
        except lmdb.Error as error:
            failures.append(error)
        finally:
            os.close(write_end)

    thread = threading.Thread(target=copy, name=f"copy of the {what}")
    thread.start()
    try:
        with os.fdopen(read_end, "rb", buffering=0) as stream:
            yield stream
    finally:
        thread.join()
        environment.close()
    if failures:
        message = f"the {what} cannot be copied ({type(failures[0]).__name__})"
        raise StoreError(message, what_to_do="see to its disk, and to that of the backup") from failures[0]


@contextlib.contextmanager
def appearing(path: Path, *, may_replace: bool = False) -> Iterator[IO[bytes]]:
    """Write a file, mode 0600, that has its name only once it is whole and durable."""
    draft = path.with_name(path.name + ".part")
    with using(path):
        if path.exists() and not may_replace:
            raise FileExistsError
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            draft.rename(path)
            sync_directory(path.parent)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def _add(tar: tarfile.TarFile, part: Part) -> None:
    """Add a part, piece by piece: nobody knows how long a copy that is being made will be."""
    is_first = True
    with part.open() as stream:
        while piece := _read(stream):
            _add_piece(tar, part.name, piece)
            is_first = False
    if is_first:
        _add_piece(tar, part.name, b"")


def _read(stream: IO[bytes]) -> bytes:
    pieces, left = [], PIECE
    while left and (piece := stream.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _add_piece(tar: tarfile.TarFile, name: str, piece: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(piece), 0o600
    tar.addfile(member, io.BytesIO(piece))


def _unpack(stream: _Unsealing, directory: Path) -> None:
    written: set[Path] = set()
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload] # it reads only
            for member in tar:
                written.add(_take(tar, member, directory, stream.name))
    except tarfile.TarError as error:
        message = f"{stream.name} holds what is none of ours"
        raise IntegrityError(message, what_to_do=ANOTHER) from error
    stream.finish()
    for path in written:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.fsync(descriptor)
        os.close(descriptor)


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, directory: Path, source: str) -> Path:
    name = PurePosixPath(member.name)
    content = tar.extractfile(member)
    if content is None or name.is_absolute() or ".." in name.parts:
        message = f"{source} holds {member.name!r}, which is none of ours"
        raise IntegrityError(message, what_to_do=ANOTHER)
    path = directory / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "ab") as file:
        file.write(content.read())
    return path


class _Sealing:
    """Seals what is written to it."""

    def __init__(self, file: IO[bytes], encryptor: Cobblestone256Encryptor) -> None:
        self._file = file
        self._encryptor = encryptor

    def write(self, octets: bytes) -> int:
        self._file.write(self._encryptor.update(octets))
        return len(octets)

    def finish(self) -> None:
        self._file.write(self._encryptor.finalize())


class _Unsealing:
    """Unseals what is read from it."""

    def __init__(self, file: IO[bytes], decryptor: Cobblestone256Decryptor) -> None:
        self.name = file.name
        self._file = file
        self._decryptor = decryptor
        self._left = bytearray()
        self._is_over = False

    def read(self, count: int) -> bytes:
        while len(self._left) < count and not self._is_over:
            piece = self._file.read(PIECE)
            self._left += self._decryptor.update(piece) if piece else self._decryptor.finalize()
            self._is_over = not piece
        taken = bytes(self._left[:count])
        del self._left[:count]
        return taken

    def finish(self) -> None:
        """Read to the end, which alone says that nothing was cut."""
        while self.read(PIECE):
            pass
