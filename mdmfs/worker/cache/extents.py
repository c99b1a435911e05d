"""Extents of one long sealed object, read from the disk ahead of who reads it in order, past the page cache.

What goes through the page cache is copied into pages that nobody wants afterwards: the kernel keeps the plaintext in
pages of the mount. Where a file system takes O_DIRECT (open(2)), the disk writes where we read.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

import trio

from mdmfs.sealing.layout import CHUNK_SIZE, HEADER_SIZE, SEALED_CHUNK_SIZE, sealed_offset, sealed_size
from mdmfs.worker.memory import Memory

PLAIN: Final = 4 * 2**20
"""Bytes of plaintext in an extent: after each system call a thread waits for the interpreter, so few long ones."""
WITHIN: Final = 6
"""So many extents ahead: the kernel's own window is 128 KiB on many hosts, and keeps no disk busy."""
LEAST: Final = 2
"""With fewer the kernel's is better."""
BEHIND: Final = 1
"""So many behind the reader are kept: READs come out of order."""
THREADS: Final = 3
"""With fewer the disk rests while the next extent is asked for. Of one object: a disk may be stuck at one alone."""
_CHUNKS: Final = PLAIN // CHUNK_SIZE
_ALIGNMENT: Final = 4096
"""Of offsets and lengths that a disk is asked for: the largest sector of one."""
_BUFFER: Final = HEADER_SIZE + _CHUNKS * SEALED_CHUNK_SIZE + 2 * _ALIGNMENT
"""With what is read at both ends because a sector is there."""


class _Direct:
    """A descriptor that is closed when nobody has it any more: a thread that a disk holds may be the last one."""

    def __init__(self, descriptor: int) -> None:
        """Open what is open there once more: the same object, whatever lies under its name by now."""
        self.descriptor = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class Extent:
    """Some whole chunks, the first ones with the header: filled by a thread, read by the loop."""

    __slots__ = ("_buffer", "begin", "done", "end", "is_there")

    def __init__(self, buffer: memoryview, begin: int, end: int) -> None:
        """Bytes ``begin`` to ``end`` of the object."""
        self.begin = begin
        self.end = end
        self.is_there = False
        """Whether its bytes are; the loop says so."""
        self.done = trio.Event()
        """Set when they are, or do not come."""
        self._buffer = buffer

    @property
    def buffer(self) -> memoryview:
        """What others may have once this is done and dropped."""
        return self._buffer

    def fill(self, direct: _Direct) -> bool:
        """Read it, in a worker thread; False where the disk gives nothing, or only a part."""
        skip = self.begin % _ALIGNMENT
        length = -(-(skip + self.end - self.begin) // _ALIGNMENT) * _ALIGNMENT
        try:
            count = os.preadv(direct.descriptor, [self._buffer[:length]], self.begin - skip)
        except OSError:
            return False
        return count >= skip + self.end - self.begin

    def view(self, begin: int, end: int) -> memoryview:
        """Give bytes by their places in the object; good until the next step of the loop."""
        first = self.begin - self.begin % _ALIGNMENT
        return self._buffer[begin - first : end - first]


class Extents:
    """Those of one object; used from the loop alone. Who closes it lets go of all."""

    def __init__(self, descriptor: int, size: int, memory: Memory, nursery: trio.Nursery) -> None:
        """Read an object that is open, of a file of ``size`` bytes, in tasks of a nursery that outlives it.

        Raises ``OSError`` where its file system cannot be read so. Each extent counts as a window of the memory.
        """
        self._direct: _Direct | None = _Direct(descriptor)
        self._size = size
        self._memory = memory
        self._nursery = nursery
        self._threads = trio.CapacityLimiter(THREADS)
        self._extents: dict[int, Extent] = {}
        self._spare: list[memoryview] = []
        """Buffers to use again: fresh ones are cleared page by page."""

    @property
    def is_closed(self) -> bool:
        """Whether nothing comes any more: the disk did not give what it was asked for, or nobody wants it."""
        return self._direct is None

    @property
    def is_worth_it(self) -> bool:
        """Whether there are enough of them, or all that are left of the file."""
        return len(self._extents) >= LEAST or self._size // PLAIN in self._extents

    def advance(self, begin: int, end: int) -> None:
        """Hear what is read now, by its plaintext: let go what lies behind, and ask for what comes."""
        first, behind = begin // PLAIN, end // PLAIN - BEHIND
        for number in [it for it in self._extents if it < min(first, behind)]:
            self._drop(number)
        for number in range(first, min(self._size // PLAIN, end // PLAIN + WITHIN - 1) + 1):
            if self._direct is not None and number not in self._extents and not self._ask(self._direct, number):
                return

    def at(self, offset: int) -> Extent | None:
        """Find the extent that has the byte of the object at an offset."""
        extent = self._extents.get(_number_at(offset))
        return extent if extent is not None and extent.is_there else None

    async def wait(self, begin: int, end: int) -> bool:
        """Wait for those of the bytes ``begin`` to ``end`` of the object; whether all are there then."""
        for number in range(_number_at(begin), _number_at(end - 1) + 1):
            extent = self._extents.get(number)
            if extent is None:
                return False
            await extent.done.wait()
            if not extent.is_there:
                return False
        return True

    def close(self) -> None:
        """Let go of all; a thread that still reads has its buffer to itself."""
        for number in tuple(self._extents):
            self._drop(number)
        self._spare.clear()
        self._direct = None

    def _ask(self, direct: _Direct, number: int) -> bool:
        if not self._memory.take(PLAIN):
            return False
        try:
            buffer = self._spare.pop() if self._spare else _new_buffer()
        except OSError:
            self._memory.give(PLAIN)
            return False
        begin = sealed_offset(number * _CHUNKS) if number else 0
        end = min(sealed_size(self._size), sealed_offset((number + 1) * _CHUNKS))
        extent = self._extents[number] = Extent(buffer, begin, end)
        self._nursery.start_soon(self._fill, direct, number, extent)
        return True

    async def _fill(self, direct: _Direct, number: int, extent: Extent) -> None:
        try:
            is_there = await trio.to_thread.run_sync(extent.fill, direct, abandon_on_cancel=True, limiter=self._threads)
        except trio.Cancelled:
            self.close()
            raise
        finally:
            extent.done.set()
        if self._extents.get(number) is not extent:
            self._recycle(extent)
        elif is_there:
            extent.is_there = True
        else:
            self.close()

    def _drop(self, number: int) -> None:
        extent = self._extents.pop(number)
        self._memory.give(PLAIN)
        if extent.is_there:
            extent.is_there = False
            self._recycle(extent)

    def _recycle(self, extent: Extent) -> None:
        if self._direct is not None and len(self._spare) < WITHIN:
            self._spare.append(extent.buffer)


def _number_at(offset: int) -> int:
    """Tell in which extent a byte of the object is."""
    return max(0, offset - HEADER_SIZE) // (_CHUNKS * SEALED_CHUNK_SIZE)


def _new_buffer() -> memoryview:
    """Make one that begins with a page."""
    return memoryview(mmap.mmap(-1, _BUFFER, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
