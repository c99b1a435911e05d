"""Staging: sealed objects on the hospital's disk, while they are written and afterwards; ciphertext only, bounded.

A whole object is the file ``GUID.GENERATION``; one under way ends in ``.part`` and is dropped at the next start. What
is read is never beyond what was verified and sealed. Nothing is synced: it can be recalled again, and after a restart
of the machine, which may have lost what was not on disk, staging begins empty.

What was sealed last stays in memory for a while, within bounds: whoever waits for it need not read it back.
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
from mdmfs.wire.formats import MARK, Format, bring_up_folder

log = structlog.get_logger()

STAGING_FORMAT: Final[Format[pathlib.Path]] = Format(
    "staging directory", remedy=", or delete it: what it holds is recalled again"
)
READ_BYTES: Final = 2**20
HOT_BYTES: Final = 16 * 2**20
"""Of what was sealed last, in memory, of all objects together."""
SMALL_BYTES: Final = 2**20 + 2**16
"""What is no larger holds up nobody while it is digested, sealed and written: half a millisecond for a CT slice."""
MOMENT_SECONDS: Final = 0.02
"""For which a small object waits until it was sent, before it goes to the disk."""
_PART: Final = ".part"
"""Ends the name of a file that is not whole yet."""
_BOOT: Final = ".boot"
"""Ends the name of the file beside the directory which tells in which run of the machine the objects were written."""
_BOOT_ID: Final = pathlib.Path("/proc/sys/kernel/random/boot_id")
_NAME = re.compile(r"(?P<guid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(?P<generation>\d{1,10})", re.ASCII)


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
        """All of a small object, until it is on disk."""
        self._written = 0
        self.is_being_written = False
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
        if self._failure is not None:
            raise again(self._failure) from self._failure
        if self.unwritten is not None:
            return StagedReader(self, whole=self.unwritten)
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
            available = await self._staged.wait_for(start + 1)
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


class Staging:
    """The directory of staged objects; the least recently used whole ones make room for new ones."""

    def __init__(
        self,
        directory: pathlib.Path,
        limit: int,
        *,
        boot: str | None = None,
        staging_format: Format[pathlib.Path] = STAGING_FORMAT,
    ) -> None:
        """Open a directory, mode 0700, bounded to ``limit`` bytes; takes over what an earlier run completed.

        ``boot`` names the run of the machine; None asks Linux. Raises ``StoreError``, also for one of a newer format.
        """
        self._directory = directory
        self._limit = limit
        self._objects: collections.OrderedDict[Guid, StagedObject] = collections.OrderedDict()
        self._octets = 0
        """Of all objects."""
        self._in_use = 0
        """Of those that are being written."""
        self._hot: collections.OrderedDict[StagedObject, int] = collections.OrderedDict()
        """Objects of which something is in memory, those sealed last behind, and how many bytes."""
        self._hot_octets = 0
        self.is_pinned: Callable[[Guid], bool] = _nothing_is_pinned
        """Asked of a whole object before it makes room for another."""
        self.on_whole: Callable[[Guid], None] = _nobody_hears
        """Hears of each object once it is whole, whatever comes of that."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
            bring_up_folder(staging_format, directory)
            self._take_over(boot or _BOOT_ID.read_text(encoding="ascii"))
        except OSError as error:
            message = f"the staging directory {directory} cannot be used: {error.strerror}"
            raise StoreError(message) from error

    @property
    def limit(self) -> int:
        """How many bytes it may hold."""
        return self._limit

    @property
    def octets(self) -> int:
        """How many bytes it holds."""
        return self._octets

    def find(self, guid: Guid, generation: int) -> StagedObject | None:
        """Give the object of this key generation, whole or on its way; None where nothing verified of it is there."""
        staged = self._objects.get(guid)
        if staged is None or staged.generation != generation or staged.has_failed or not staged.has_begun:
            return None
        self._objects.move_to_end(guid)
        return staged

    @contextlib.asynccontextmanager
    async def writing(
        self, guid: Guid, generation: int, size: int, *, is_awaited: bool = False
    ) -> AsyncIterator[StagingWriter]:
        """Stage a new object; leaving the context early or with an error drops it and fails its readers.

        A small one that ``is_awaited`` is read from memory, and written to the disk at the end of the context.

        It takes the place of an older one of the same file. Raises ``OutOfSpaceError`` where there is no room for it.
        """
        self.discard(guid)
        self._make_room(size)
        staged = StagedObject(f"{self._directory}/{guid}.{generation}{_PART}", guid, generation, size)
        writer = StagingWriter(staged, self._heat, is_awaited=is_awaited)
        self._keep(staged)
        self._in_use += size
        staged.is_being_written = True
        try:
            yield writer
            writer.complete()
        except BaseException as error:
            self._drop(staged)
            reason = error if isinstance(error, MdmfsError) else IntegrityError(f"the staging of {guid} was broken off")
            staged.fail(reason)
            raise
        finally:
            self._in_use -= size
            staged.is_being_written = False
            staged.settled.set()
            writer.close()
        self.on_whole(guid)

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
        self._cool(staged)
        staged.is_discarded = True
        staged.path.unlink(missing_ok=True)

    def _heat(self, staged: StagedObject, begin: int, octets: memoryview) -> None:
        """Keep what was just sealed in memory, in place of what was there of this object or of those before."""
        self._cool(staged)
        while self._hot and self._hot_octets + len(octets) > HOT_BYTES:
            self._cool(next(iter(self._hot)))
        staged.hot = begin, octets
        self._hot[staged] = len(octets)
        self._hot_octets += len(octets)

    def _cool(self, staged: StagedObject) -> None:
        self._hot_octets -= self._hot.pop(staged, 0)
        staged.hot = None

    def known(self) -> list[tuple[Guid, int]]:
        """Name what it holds, by GUID and key generation."""
        return [(staged.guid, staged.generation) for staged in self._objects.values()]

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
        for staged in list(self._objects.values()):
            if self._octets + size <= self._limit:
                return
            if not staged.is_being_written and not self.is_pinned(staged.guid):
                self._drop(staged)
        if self._octets + size > self._limit:
            message = f"staging holds at most {self._limit} bytes and all of it is in use or pinned; allow it more"
            raise OutOfSpaceError(message)

    def _take_over(self, boot: str) -> None:
        """Find whole objects of this run of the machine, oldest first; drop everything else."""
        found = []
        mark = self._directory.with_name(self._directory.name + _BOOT)
        is_trusted = mark.exists() and mark.read_text(encoding="ascii", errors="replace") == boot
        for path in self._directory.iterdir():
            if path.name == MARK:
                continue
            match = _NAME.fullmatch(path.name)
            size = path.stat().st_size
            if match is None or size < HEADER_SIZE or not is_trusted:
                path.unlink()
                continue
            staged = StagedObject(str(path), Guid.parse(match["guid"]), int(match["generation"]), size)
            with path.open("rb") as file:
                staged.header = file.read(HEADER_SIZE)
            staged.advance(size)
            staged.settled.set()
            found.append((path.stat().st_mtime, staged))
        mark.write_text(boot, encoding="ascii")
        for _, staged in sorted(found, key=lambda pair: pair[0]):
            self._keep(staged)


def _nothing_is_pinned(_: Guid) -> bool:
    return False


def _nobody_hears(_: Guid) -> None:
    pass


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

    def complete(self) -> None:
        """Give the whole object its own name; raises ``IntegrityError`` if it is not whole.

        ``StoreError`` where it was discarded meanwhile: a withdrawn file does not come back by being finished.
        ``OutOfSpaceError`` where a small one does not fit on the disk.
        """
        if not self.staged.is_complete:
            message = f"the staged object {self.staged.guid} ended early"
            raise IntegrityError(message)
        if self.staged.is_discarded:
            message = f"the staged object {self.staged.guid} was discarded while it was written"
            raise StoreError(message)
        if self.staged.unwritten is not None:
            self._append(self.staged.unwritten)
        whole = self.staged.place.removesuffix(_PART)
        with _telling_full_disks(self.staged.guid):
            os.rename(self.staged.place, whole)  # noqa: PTH104 once for each file, with no time for a path's parts
        self.staged.place = whole
        self.staged.unwritten = None

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with _telling_full_disks(self.staged.guid):
            self._file = os.open(self.staged.place, flags, 0o600)

    def _sealed(self, seal: Callable[[], Buffer]) -> Buffer:
        sealed = seal()
        self._append(memoryview(sealed))
        return sealed

    def _append(self, octets: memoryview) -> None:
        if self._file < 0:
            self._open()
        with _telling_full_disks(self.staged.guid):
            while octets:
                octets = octets[os.write(self._file, octets) :]


@contextlib.contextmanager
def _telling_full_disks(guid: Guid) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = OutOfSpaceError if error.errno in {errno.ENOSPC, errno.EDQUOT} else StoreError
        message = f"staging {guid}: {error.strerror}"
        raise kind(message) from error
