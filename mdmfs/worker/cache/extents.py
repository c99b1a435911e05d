"""Extents of long sealed objects, read from the disk ahead of who reads them in order, past the page cache.

What goes through the page cache is copied into pages that nobody wants afterwards: the kernel keeps the plaintext in
pages of the mount. Where a file system takes O_DIRECT (open(2)), the disk writes where we read.
"""

from __future__ import annotations

import functools
import mmap
import os
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import trio

from mdmfs.model.names import Guid
from mdmfs.sealing.layout import CHUNK_SIZE, HEADER_SIZE, SEALED_CHUNK_SIZE, sealed_offset, sealed_size
from mdmfs.worker.memory import Held, Memory

PLAIN: Final = 4 * 2**20
"""Bytes of plaintext in an extent: after each system call a thread waits for the interpreter, so few long ones."""
MOST: Final = 16
"""Extents of one cache."""
IDLE_SECONDS: Final = 5.0
"""What was not wanted for so long makes room for others."""
SPARE: Final = 8
"""Buffers of a process that wait for use."""
_ALIGNMENT: Final = 4096
"""Of offsets and lengths that a disk is asked for: the largest sector of one."""
_BUFFER: Final = HEADER_SIZE + PLAIN // CHUNK_SIZE * SEALED_CHUNK_SIZE + 2 * _ALIGNMENT
"""With what is read at both ends because a sector is there."""

_spare: list[memoryview] = []
"""Buffers that nobody uses: fresh ones would be cleared page by page."""


class Extent:
    """Some whole chunks of one object, the first ones with its header: reserved by the loop, filled by a thread."""

    __slots__ = ("_buffer", "begin", "descriptor", "done", "end", "held", "is_there", "since")

    def __init__(self, descriptor: int, begin: int, end: int) -> None:
        """Bytes ``begin`` to ``end`` of an object that is open; the descriptor is closed when they are there."""
        self.descriptor = descriptor
        self.begin = begin
        self.end = end
        self.since = trio.current_time()
        self.is_there = False
        """Whether its bytes are."""
        self.done = trio.Event()
        """Set when they are, or do not come."""
        self.held: Held | None = None
        """As the budget of memory knows it."""
        self._buffer = _spare.pop() if _spare else _new_buffer()

    def fill(self) -> None:
        """Read it, in a worker thread. What the disk does not give, or only in part, is not there."""
        skip = self.begin % _ALIGNMENT
        length = -(-(skip + self.end - self.begin) // _ALIGNMENT) * _ALIGNMENT
        try:
            count = os.preadv(self.descriptor, [self._buffer[:length]], self.begin - skip)
        except OSError:
            return
        self.is_there = count >= skip + self.end - self.begin

    def view(self, begin: int, end: int) -> memoryview:
        """Give bytes by their places in the object; good until the next step of the loop."""
        first = self.begin - self.begin % _ALIGNMENT
        return self._buffer[begin - first : end - first]

    def close(self) -> None:
        """Let others have the buffer; nobody fills it or has a view."""
        if len(_spare) < SPARE:
            _spare.append(self._buffer)
        self.is_there = False


class Extents:
    """Those of one cache, by object; used from the loop alone."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._of: defaultdict[Guid, list[Extent]] = defaultdict(list)
        self._count = 0
        """With those that are being filled and nobody wants any more."""

    @property
    def is_full(self) -> bool:
        """Whether nothing can be reserved."""
        if self._count >= MOST:
            self._let_go_idle()
        return self._count >= MOST

    def reserve(self, guid: Guid, descriptor: int, begin: int, end: int) -> Extent:
        """Take a buffer for a part of an object, where they are not full.

        It is to be filled, and ``settle`` called then, which closes the descriptor.
        """
        extent = Extent(descriptor, begin, end)
        self._of[guid].append(extent)
        self._count += 1
        extent.held = self._memory.hold(PLAIN, functools.partial(self._drop, guid, extent))
        return extent

    def settle(self, guid: Guid, extent: Extent) -> None:
        """Know that it was filled, or cannot be."""
        os.close(extent.descriptor)
        extent.done.set()
        if extent not in self._of.get(guid, ()):
            self._close(extent)
        elif not extent.is_there:
            self._drop(guid, extent)

    def coming(self, guid: Guid, begin: int, end: int) -> Sequence[Extent]:
        """Give what is being filled of a part of an object."""
        found = self._of.get(guid, ())
        return [it for it in found if not it.done.is_set() and it.begin < end and begin < it.end]

    def at(self, guid: Guid, offset: int) -> Extent | None:
        """Find the extent that has the byte of an object at an offset."""
        for extent in self._of.get(guid, ()):
            if extent.begin <= offset < extent.end and extent.is_there:
                return extent
        return None

    def let_go(self, guid: Guid, before: int | None = None) -> None:
        """Drop those of an object, or those of the bytes before an offset."""
        for extent in tuple(self._of.get(guid, ())):
            if before is None or extent.end <= before:
                self._drop(guid, extent)

    def _let_go_idle(self) -> None:
        oldest = trio.current_time() - IDLE_SECONDS
        for guid in tuple(self._of):
            for extent in tuple(self._of[guid]):
                if extent.done.is_set() and extent.since <= oldest:
                    self._drop(guid, extent)

    def _drop(self, guid: Guid, extent: Extent) -> None:
        self._of[guid].remove(extent)
        if not self._of[guid]:
            del self._of[guid]
        if extent.held is not None:
            self._memory.release(extent.held)
        if extent.done.is_set():
            self._close(extent)

    def _close(self, extent: Extent) -> None:
        self._count -= 1
        extent.close()


def extent_range(size: int, number: int) -> tuple[int, int]:
    """Tell where an extent, by number, begins and ends in the sealed object of a file of ``size`` bytes."""
    chunks = PLAIN // CHUNK_SIZE
    begin = sealed_offset(number * chunks) if number else 0
    return begin, min(sealed_size(size), sealed_offset((number + 1) * chunks))


def _new_buffer() -> memoryview:
    """Make one that begins with a page."""
    return memoryview(mmap.mmap(-1, _BUFFER, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
