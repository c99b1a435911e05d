"""One sealed object on the hospital's disk: written front to back by one, followed by whoever reads it.

What is read is never beyond what was verified and sealed. What was sealed last stays in memory for a while: whoever
waits for it need not read it back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Final

import trio

from mdmfs.model.errors import IntegrityError, MdmfsError, OutOfSpaceError, StoreError, again
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import HEADER_SIZE, SALT_SIZE, Buffer

READ_BYTES: Final = 2**20
SMALL_BYTES: Final = 2**20 + 2**16
"""What is no larger holds up nobody while it is digested, sealed and written: half a millisecond for a CT slice."""
MOMENT_SECONDS: Final = 0.02
"""For which a small object waits until it was sent, before it goes to the disk."""
PART: Final = ".part"
"""Ends the name of a file that is not whole yet."""


class StagedObject:
    """One sealed object: how much of it is there, and whether it will ever be whole."""

    def __init__(self, place: str, guid: Guid, generation: int, size: int) -> None:
        """Name an object of ``size`` sealed bytes, of which nothing is there yet; ``place`` is the path of its file."""
        self.place = place
        self.guid = guid
        self.generation = generation
        self.size = size
        self.header = b""
        self.hot: tuple[int, memoryview] | None = None
        """Where what was sealed last begins, and its bytes; None once it is only on disk."""
        self.unwritten: memoryview | None = None
        """All of a small object, until it is on disk; for ever, where the disk has refused it."""
        self._written = 0
        self.is_discarded = False
        self.taken = trio.Event()
        """Set when somebody who follows it has been sent a piece."""
        self.settled = trio.Event()
        """Set when it is whole and durable, or will never be."""
        self._failure: MdmfsError | None = None
        self._change = trio.Event()

    @property
    def path(self) -> pathlib.Path:
        """Where its file is, or will be."""
        return pathlib.Path(self.place)

    @property
    def salt(self) -> bytes:
        """The first bytes of the sealed object, by which this sealing is told from all others."""
        return self.header[:SALT_SIZE]

    @property
    def is_complete(self) -> bool:
        """Whether every byte is there."""
        return self._failure is None and self._written == self.size

    @property
    def written(self) -> int:
        """How many bytes are there."""
        return self._written

    @property
    def has_begun(self) -> bool:
        """Whether verified bytes are there: before, nobody knows whether there will ever be any."""
        return self._written > HEADER_SIZE

    @property
    def has_failed(self) -> bool:
        """Whether it will never be whole."""
        return self._failure is not None

    def has(self, octets: int) -> bool:
        """Whether that many bytes are there."""
        return self._failure is None and self._written >= octets

    async def wait_for(self, octets: int) -> int:
        """Wait until that many bytes are there and give how many are; raises the failure of what writes them."""
        while self._failure is None and self._written < min(octets, self.size):
            await self._change.wait()
        if self._failure is not None:
            raise again(self._failure) from self._failure
        return self._written

    def open(self) -> StagedReader:
        """Open it for reading, at once: from then on nothing that happens to its name matters.

        Of what is in memory from end to end no file is opened.
        """
        if self.unwritten is not None:
            return StagedReader(self, whole=self.unwritten)
        if self._failure is not None:
            raise again(self._failure) from self._failure
        if self.hot is not None and len(self.hot[1]) == self.size:
            return StagedReader(self, whole=self.hot[1])
        try:
            return StagedReader(self, os.open(self.place, os.O_RDONLY | os.O_CLOEXEC))
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

    def __init__(self, staged: StagedObject, file: int = -1, *, whole: memoryview | None = None) -> None:
        """Take over an open file, or hold what is in memory."""
        self._staged = staged
        self._file = file
        self._whole = whole

    async def octets(self, start: int, stop: int) -> AsyncGenerator[Buffer]:
        """Give a range in pieces as it becomes available; raises ``IntegrityError`` if the file is not what it was.

        An empty piece, which is never the first, says that it may take a while until the next.
        """
        begin = start
        while start < stop:
            if start > begin and not self._staged.has(start + 1):
                yield b""
            is_there = self._staged.unwritten is not None  # and stays, whatever the disk says of it
            available = self._staged.size if is_there else await self._staged.wait_for(start + 1)
            piece = self._at_hand(start, stop) or await self._read(start, min(stop, available, start + READ_BYTES))
            start += len(piece)
            yield piece
            self._staged.taken.set()

    def _at_hand(self, start: int, stop: int) -> Buffer | None:
        """Give what is in memory from there on; None where that must be read."""
        staged = self._staged
        if self._whole is not None:
            return self._whole[start:stop]
        if staged.hot is not None and 0 <= (within := start - staged.hot[0]) < len(staged.hot[1]):
            return staged.hot[1][within : within + stop - start]
        return None

    async def _read(self, start: int, stop: int) -> bytes:
        piece = await trio.to_thread.run_sync(os.pread, self._file, stop - start, start)
        if not piece:
            message = f"the staged object {self._staged.guid} is shorter than it was written"
            raise IntegrityError(message)
        return piece

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
        self._file, self._whole = -1, None


class StagingWriter:
    """Writes one object front to back; readers follow."""

    def __init__(
        self, staged: StagedObject, on_written: Callable[[StagedObject, int, memoryview], None], *, is_awaited: bool
    ) -> None:
        """Make the file, unless it is written at the end; ``on_written`` hears of each piece, and where it begins."""
        self.staged = staged
        self._is_awaited = is_awaited
        self._on_written = on_written
        self._end = 0
        self._file = -1
        if not (is_awaited and staged.size <= SMALL_BYTES):
            self._open()

    async def write(self, seal: Callable[[], Buffer]) -> None:
        """Append what ``seal`` gives; the first time it begins with the object's header.

        Small objects are sealed and written at once: to hand one to a thread and back takes longer than that. One that
        somebody waits for goes to the disk in ``complete``.

        Raises what ``seal`` raises, and ``OutOfSpaceError`` on a full disk; then nothing of it counts as written.
        """
        if self.staged.size <= SMALL_BYTES:
            await trio.lowlevel.checkpoint()
            octets = memoryview(seal())
            if self._is_awaited and len(octets) == self.staged.size:
                self.staged.unwritten = octets
            else:
                self._append(octets)
        else:
            octets = memoryview(await trio.to_thread.run_sync(self._sealed, seal))
        self.staged.header = self.staged.header or bytes(octets[:HEADER_SIZE])
        self._on_written(self.staged, self._end, octets)
        self._end += len(octets)
        self.staged.advance(len(octets))

    async def give_way(self, *, until_sent: bool) -> None:
        """Let the answer that waits begin to leave before anything else is done.

        ``until_sent``: all of a small object, but not for long; where others come behind it they would be held up.
        """
        if until_sent and self.staged.unwritten is not None:
            with trio.move_on_after(MOMENT_SECONDS):
                await self.staged.taken.wait()
        for _ in range(2):
            await trio.lowlevel.checkpoint()

    def refuse_unfinished(self) -> None:
        """Raise ``IntegrityError`` if it is not whole.

        ``StoreError`` where it was discarded meanwhile: a withdrawn file does not come back by being finished.
        """
        if not self.staged.is_complete:
            message = f"the staged object {self.staged.guid} ended early"
            raise IntegrityError(message)
        if self.staged.is_discarded:
            message = f"the staged object {self.staged.guid} was discarded while it was written"
            raise StoreError(message)

    def complete(self) -> None:
        """Give the whole object its own name; ``OutOfSpaceError`` where a small one does not fit on the disk."""
        if self.staged.unwritten is not None:
            self._append(self.staged.unwritten)
        whole = self.staged.place.removesuffix(PART)
        with _telling_full_disks(self.staged):
            os.rename(self.staged.place, whole)  # noqa: PTH104 once for each file, with no time for a path's parts
        self.staged.place = whole
        self.staged.unwritten = None

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with _telling_full_disks(self.staged):
            self._file = os.open(self.staged.place, flags, 0o600)

    def _sealed(self, seal: Callable[[], Buffer]) -> Buffer:
        sealed = seal()
        self._append(memoryview(sealed))
        return sealed

    def _append(self, octets: memoryview) -> None:
        if self._file < 0:
            self._open()
        with _telling_full_disks(self.staged):
            while octets:
                octets = octets[os.write(self._file, octets) :]


@contextlib.contextmanager
def _telling_full_disks(staged: StagedObject) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = OutOfSpaceError if error.errno in {errno.ENOSPC, errno.EDQUOT} else StoreError
        failure = kind(f"staging {staged.guid}: {error.strerror}")
        failure.place = staged.place
        raise failure from error
