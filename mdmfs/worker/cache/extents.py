"""Extents of one long sealed object, read from the disk ahead of who reads it in order, past the page cache.

What goes through the page cache is copied into pages that nobody wants afterwards: the kernel keeps the plaintext in
pages of the mount. Where a file system takes O_DIRECT (open(2)), the disk writes where we read.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

import structlog
import trio

from mdmfs.sealing.layout import CHUNK_SIZE, HEADER_SIZE, SEALED_CHUNK_SIZE, sealed_offset, sealed_size
from mdmfs.worker.memory import Memory

PLAIN: Final = 4 * 2**20
"""Bytes of plaintext in an extent: after each system call a thread waits for the interpreter, so few long ones."""
WITHIN: Final = 6
"""So many extents ahead: the kernel's own window is 128 KiB on many hosts, and keeps no disk busy."""
LEAST: Final = 3
"""So many at first: one behind, one that is read, one ahead. With fewer the kernel's window is better."""
BEHIND: Final = 1
"""So many behind the reader are kept: READs come out of order."""
_CHUNKS: Final = PLAIN // CHUNK_SIZE
_ALIGNMENT: Final = 4096
"""Of offsets and lengths that a disk is asked for: the largest sector of one."""
_BUFFER: Final = HEADER_SIZE + _CHUNKS * SEALED_CHUNK_SIZE + 2 * _ALIGNMENT
"""With what is read at both ends because a sector is there."""

log = structlog.get_logger(__name__)


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

    __slots__ = ("begin", "buffer", "done", "end", "is_dropped", "is_filling", "is_there")

    def __init__(self, buffer: memoryview, begin: int, end: int) -> None:
        """Bytes ``begin`` to ``end`` of the object."""
        self.begin = begin
        self.end = end
        self.is_there = False
        """Whether its bytes are; the loop says so."""
        self.is_filling = True
        """Whether the buffer is a thread's."""
        self.is_dropped = False
        """Whether nobody wants it any more; the thread looks at it, too."""
        self.done = trio.Event()
        """Set when its bytes are there, or are not waited for any more."""
        self.buffer = buffer

    def fill(self, direct: _Direct) -> bool:
        """Read it, in a worker thread; False where the disk gives nothing, or only a part, or nobody wants it."""
        if self.is_dropped:
            return False
        skip = self.begin % _ALIGNMENT
        length = -(-(skip + self.end - self.begin) // _ALIGNMENT) * _ALIGNMENT
        try:
            count = os.preadv(direct.descriptor, [self.buffer[:length]], self.begin - skip)
        except OSError:
            return False
        return count >= skip + self.end - self.begin

    def view(self, begin: int, end: int) -> memoryview:
        """Give bytes by their places in the object; good until the next step of the loop."""
        first = self.begin - self.begin % _ALIGNMENT
        return self.buffer[begin - first : end - first]


class Extents:
    """Those of one object; used from the loop alone. Who closes it lets go of all."""

    def __init__(
        self, descriptor: int, size: int, memory: Memory, nursery: trio.Nursery, threads: trio.CapacityLimiter
    ) -> None:
        """Read an object that is open, of a file of ``size`` bytes, in tasks of a nursery that outlives it.

        Raises ``OSError`` where its file system cannot be read so. Each extent counts as a window of the memory, until
        no thread has it any more. ``threads`` are shared with other objects.
        """
        self._direct: _Direct | None = _Direct(descriptor)
        self._size = size
        self._memory = memory
        self._nursery = nursery
        self._threads = threads
        self.has_failed = False
        """Whether the disk did not give what it was asked for; then nothing more comes."""
        self.advanced = trio.current_time()
        """When it was last heard of a READ."""
        self._extents: dict[int, Extent] = {}
        self._spare: list[memoryview] = []
        """Buffers to use again: fresh ones are cleared page by page. Nobody counts them, so they stay for a moment."""

    def advance(self, begin: int, end: int, run: int) -> bool:
        """Hear what is read now, by its plaintext: let go what lies behind, and ask for what comes.

        ``run`` is how many bytes were read in order until now: with it grows how much that is. False where the budget
        leaves less than is of use.
        """
        self.advanced = trio.current_time()
        within = min(WITHIN, LEAST + run // (4 * PLAIN))
        first, behind = begin // PLAIN, end // PLAIN - BEHIND
        for number in [it for it in self._extents if it < min(first, behind)]:
            self._drop(number)
        wanted = range(first, min(self._size // PLAIN, end // PLAIN + within - 1) + 1)
        direct = self._direct
        if direct is None:
            return True
        has_room = all(self._ask(direct, number) for number in wanted if number not in self._extents)
        self._spare.clear()
        return has_room or len(self._extents) >= LEAST

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
        self._nursery.start_soon(self._fill, direct, extent)
        return True

    async def _fill(self, direct: _Direct, extent: Extent) -> None:
        is_there = False
        try:
            is_there = await trio.to_thread.run_sync(extent.fill, direct, abandon_on_cancel=True, limiter=self._threads)
        except Exception:  # such as no thread to be had
            log.exception("reading ahead failed unexpectedly")
        finally:
            extent.is_filling = False
            if extent.is_dropped:
                self._give(extent)
            else:
                extent.is_there = is_there
            extent.done.set()
        if not is_there and not extent.is_dropped:
            self.has_failed = True
            self.close()

    def _drop(self, number: int) -> None:
        extent = self._extents.pop(number)
        extent.is_dropped, extent.is_there = True, False
        extent.done.set()
        if not extent.is_filling:
            self._give(extent)

    def _give(self, extent: Extent) -> None:
        """Count one less, and have its buffer used again; where a thread was abandoned, nothing is asked any more."""
        self._memory.give(PLAIN)
        if self._direct is not None:
            self._spare.append(extent.buffer)


def _number_at(offset: int) -> int:
    """Tell in which extent a byte of the object is."""
    return max(0, offset - HEADER_SIZE) // (_CHUNKS * SEALED_CHUNK_SIZE)


def _new_buffer() -> memoryview:
    """Make one that begins with a page."""
    return memoryview(mmap.mmap(-1, _BUFFER, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
