"""Staging: sealed objects on the hospital's disk, while they are written and afterwards; ciphertext only, bounded.

A whole object is the file ``GUID.GENERATION``; one under way ends in ``.part`` and is dropped at the next start. What
is read is never beyond what was verified and sealed.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import pathlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Final

import structlog
import trio

from mdmfs.model.errors import IntegrityError, MdmfsError, OutOfSpaceError, StoreError, again
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import HEADER_SIZE, SALT_SIZE, Buffer

log = structlog.get_logger()

READ_BYTES: Final = 2**20
_NAME = re.compile(r"(?P<guid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(?P<generation>\d{1,10})", re.ASCII)


class StagedObject:
    """One sealed object: how much of it is there, and whether it will ever be whole."""

    def __init__(self, path: pathlib.Path, guid: Guid, generation: int, size: int) -> None:
        """Name an object of ``size`` sealed bytes, of which nothing is there yet."""
        self.path = path
        self.guid = guid
        self.generation = generation
        self.size = size
        self.salt = b""
        self._written = 0
        self.is_being_written = False
        self.is_discarded = False
        self._failure: MdmfsError | None = None
        self._change = trio.Event()

    @property
    def is_complete(self) -> bool:
        """Whether every byte is there."""
        return self._failure is None and self._written == self.size

    @property
    def has_begun(self) -> bool:
        """Whether verified bytes are there: before, nobody knows whether there will ever be any."""
        return self._written > HEADER_SIZE

    @property
    def has_failed(self) -> bool:
        """Whether it will never be whole."""
        return self._failure is not None

    async def wait_for(self, octets: int) -> int:
        """Wait until that many bytes are there and give how many are; raises the failure of what writes them."""
        while self._failure is None and self._written < min(octets, self.size):
            await self._change.wait()
        if self._failure is not None:
            raise again(self._failure) from self._failure
        return self._written

    def open(self) -> StagedReader:
        """Open it for reading, at once: from then on nothing that happens to its name matters."""
        if self._failure is not None:
            raise again(self._failure) from self._failure
        try:
            return StagedReader(self, os.open(self.path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            message = f"the staged object {self.guid} cannot be opened: {error.strerror}"
            raise StoreError(message) from error

    def advance(self, octets: int) -> None:
        """Say that more bytes are there, for the writer."""
        self._written += octets
        self._wake()

    def fail(self, error: MdmfsError) -> None:
        """Say that it will never be whole, and why, for the writer."""
        self._failure = error
        self._wake()

    def _wake(self) -> None:
        self._change.set()
        self._change = trio.Event()


class StagedReader:
    """Reads one staged object, following its writer; whoever opens it closes it."""

    def __init__(self, staged: StagedObject, file: int) -> None:
        """Take over an open file."""
        self._staged = staged
        self._file = file

    async def octets(self, start: int, stop: int) -> AsyncGenerator[bytes]:
        """Give a range in pieces as it becomes available; raises ``IntegrityError`` if the file is not what it was."""
        while start < stop:
            available = await self._staged.wait_for(start + 1)
            length = min(stop, available, start + READ_BYTES) - start
            piece = await trio.to_thread.run_sync(os.pread, self._file, length, start)
            if not piece:
                message = f"the staged object {self._staged.guid} is shorter than it was written"
                raise IntegrityError(message)
            start += len(piece)
            yield piece

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Staging:
    """The directory of staged objects; the least recently used whole ones make room for new ones."""

    def __init__(self, directory: pathlib.Path, limit: int) -> None:
        """Open a directory, mode 0700, bounded to ``limit`` bytes; takes over what an earlier run completed."""
        self._directory = directory
        self._limit = limit
        self._objects: collections.OrderedDict[Guid, StagedObject] = collections.OrderedDict()
        self._octets = 0
        """Of all objects."""
        self._in_use = 0
        """Of those that are being written."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
            self._take_over()
        except OSError as error:
            message = f"the staging directory {directory} cannot be used: {error.strerror}"
            raise StoreError(message) from error

    def find(self, guid: Guid, generation: int) -> StagedObject | None:
        """Give the object of this key generation, whole or on its way; None where nothing verified of it is there."""
        staged = self._objects.get(guid)
        if staged is None or staged.generation != generation or staged.has_failed or not staged.has_begun:
            return None
        self._objects.move_to_end(guid)
        return staged

    @contextlib.asynccontextmanager
    async def writing(self, guid: Guid, generation: int, size: int) -> AsyncIterator[StagingWriter]:
        """Stage a new object; leaving the context early or with an error drops it and fails its readers.

        It takes the place of an older one of the same file. Raises ``OutOfSpaceError`` where there is no room for it.
        """
        self.discard(guid)
        self._make_room(size)
        staged = StagedObject(self._directory / f"{guid}.{generation}.part", guid, generation, size)
        writer = StagingWriter(staged)
        self._keep(staged)
        self._in_use += size
        staged.is_being_written = True
        try:
            yield writer
            await writer.complete()
        except BaseException as error:
            self._drop(staged)
            reason = error if isinstance(error, MdmfsError) else IntegrityError(f"the staging of {guid} was broken off")
            staged.fail(reason)
            raise
        finally:
            self._in_use -= size
            staged.is_being_written = False
            writer.close()

    def discard(self, guid: Guid) -> None:
        """Delete an object; whoever reads it finishes from the open file, or fails."""
        staged = self._objects.get(guid)
        if staged is not None:
            self._drop(staged)

    def _keep(self, staged: StagedObject) -> None:
        self.discard(staged.guid)
        self._objects[staged.guid] = staged
        self._octets += staged.size

    def _drop(self, staged: StagedObject) -> None:
        if self._objects.get(staged.guid) is staged:
            del self._objects[staged.guid]
            self._octets -= staged.size
        staged.is_discarded = True
        staged.path.unlink(missing_ok=True)

    def retain(self, is_wanted: Callable[[Guid, int], bool]) -> None:
        """Drop the objects of which ``is_wanted`` says no, by GUID and key generation."""
        for staged in list(self._objects.values()):
            if not is_wanted(staged.guid, staged.generation):
                self._drop(staged)

    def _make_room(self, size: int) -> None:
        if self._octets + size <= self._limit:
            return
        if self._in_use + size > self._limit:
            message = f"staging holds at most {self._limit} bytes and all of it is in use; allow it more or try again"
            raise OutOfSpaceError(message)
        while self._octets + size > self._limit:
            self._drop(next(staged for staged in self._objects.values() if not staged.is_being_written))

    def _take_over(self) -> None:
        """Find whole objects, oldest first; drop everything else."""
        found = []
        for path in self._directory.iterdir():
            match = _NAME.fullmatch(path.name)
            size = path.stat().st_size
            if match is None or size < HEADER_SIZE:
                path.unlink()
                continue
            staged = StagedObject(path, Guid.parse(match["guid"]), int(match["generation"]), size)
            with path.open("rb") as file:
                staged.salt = file.read(SALT_SIZE)
            staged.advance(size)
            found.append((path.stat().st_mtime, staged))
        for _, staged in sorted(found, key=lambda pair: pair[0]):
            self._keep(staged)


class StagingWriter:
    """Writes one object front to back; readers follow."""

    def __init__(self, staged: StagedObject) -> None:
        """Make the file."""
        self.staged = staged
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with _telling_full_disks(staged.guid):
            self._file = os.open(staged.path, flags, 0o600)

    async def begin(self, header: bytes, salt: bytes) -> None:
        """Write the sealed object's header."""
        self.staged.salt = salt
        await self.write(lambda: header)

    async def write(self, seal: Callable[[], Buffer]) -> None:
        """Append what ``seal`` gives, off the event loop; raises ``OutOfSpaceError`` on a full disk."""
        self.staged.advance(await trio.to_thread.run_sync(self._write, seal))

    async def complete(self) -> None:
        """Make the whole object durable under its own name; raises ``IntegrityError`` if it is not whole.

        ``StoreError`` where it was discarded meanwhile: a withdrawn file does not come back by being finished.

        For a moment it has both names, so that a reader finds it under whichever he knows.
        """
        if not self.staged.is_complete:
            message = f"the staged object {self.staged.guid} ended early"
            raise IntegrityError(message)
        part, whole = self.staged.path, self.staged.path.with_suffix("")
        await trio.to_thread.run_sync(self._settle, part, whole)
        self.staged.path = whole
        part.unlink(missing_ok=True)
        if self.staged.is_discarded:
            whole.unlink(missing_ok=True)
            message = f"the staged object {self.staged.guid} was discarded while it was written"
            raise StoreError(message)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _write(self, seal: Callable[[], Buffer]) -> int:
        sealed = memoryview(seal())
        left = sealed
        with _telling_full_disks(self.staged.guid):
            while left:
                left = left[os.write(self._file, left) :]
        return len(sealed)

    def _settle(self, part: pathlib.Path, whole: pathlib.Path) -> None:
        with _telling_full_disks(self.staged.guid):
            os.fdatasync(self._file)
            whole.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):  # discarded meanwhile
                whole.hardlink_to(part)


@contextlib.contextmanager
def _telling_full_disks(guid: Guid) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = OutOfSpaceError if error.errno in {errno.ENOSPC, errno.EDQUOT} else StoreError
        message = f"staging {guid}: {error.strerror}"
        raise kind(message) from error
