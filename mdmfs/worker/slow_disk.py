"""Have the ciphertext of the next files of a directory read from the disk before they are opened, where it is slow.

The kernel reads ahead within a file, and knows nothing of the next one; who opens file by file would wait for each.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Protocol

import trio

from mdmfs.model.names import Guid
from mdmfs.sealing.layout import CHUNK_SIZE, sealed_offset, sealed_range
from mdmfs.wire.messages.files import Node, NodeKind
from mdmfs.worker.cache.extents import PLAIN, Extent, Extents, extent_range

SLOW_SECONDS: Final = 5.0
"""For so long a disk that had to be waited for is taken to be one that has to."""
STUCK_SECONDS: Final = 1.0
"""Who waits longer is told by the ways that have a deadline."""
AHEAD: Final = 32
STEP: Final = 8
"""So many are asked for at once, as often as so many were opened: meanwhile the disk has the others to read."""
AHEAD_BYTES: Final = 16 * 2**20
"""Of plaintext; a disk that has less to do at once gives less, and what is not opened was read for nothing."""
LARGEST: Final = PLAIN
"""Larger files are long enough to be read ahead within, where they are read in order."""
WITHIN: Final = 6
"""So many extents ahead of a reader: the kernel's window is 128 KiB on many hosts, and keeps no disk busy."""
BEHIND_BYTES: Final = 4 * 2**20
"""So much behind him is kept: READs come out of order."""
NEARLY_BYTES: Final = 2 * 2**20
"""So far from where the last read ended the next may begin, and the order is still that of the file."""
STREAMS: Final = 64
THREADS: Final = 3
"""With fewer the disk rests while the next extent is asked for."""

WAITERS: Final = 4
"""A thread that a stuck disk holds is not to be had back."""


class Disk(Protocol):
    """What is needed of ``mdmfs.worker.cache.store.CiphertextCache``."""

    def read_ahead(self, guids: Sequence[Guid]) -> None:
        """Have objects read into memory, where they are on the disk; in a worker thread."""

    def open_direct(self, guid: Guid, offset: int) -> int:
        """Open an object to read it from an offset on, past the page cache; -1 if it is not on the disk alone."""

    def read_in(self, guid: Guid, offset: int, length: int) -> None:
        """Have a part of an object read into memory and wait until it is there, in a worker thread."""


class _Stream:
    """Where somebody is who reads a long file in order."""

    __slots__ = ("asked", "end")

    def __init__(self, end: int) -> None:
        self.end = end
        """By its plaintext."""
        self.asked = 0
        """The first extent, by number, that was not asked for."""


class SlowDisk:
    """What was had read from the disk, for one file after the other, and within long ones."""

    def __init__(self, disk: Disk, extents: Extents, nursery: trio.Nursery) -> None:
        """Ask a disk, in tasks of a nursery that outlives all opens."""
        self._disk = disk
        self._extents = extents
        self._nursery = nursery
        self._slow_until = float("-inf")
        self._asked: set[bytes] = set()
        """The GUIDs of what was asked for last."""
        self._streams: OrderedDict[Guid, _Stream] = OrderedDict()
        self._turn = trio.CapacityLimiter(1)
        self._threads = trio.CapacityLimiter(THREADS)
        self._waiters = trio.CapacityLimiter(WAITERS)

    def note_slow(self) -> None:
        """Know that an object was not in memory."""
        self._slow_until = trio.current_time() + SLOW_SECONDS

    def note_open(self, following: Sequence[Node]) -> None:
        """Hear of an open, and what is probably opened next: some of it is asked for, and more when that is opened."""
        if not following or trio.current_time() >= self._slow_until or self._turn.borrowed_tokens:
            return
        if following[: AHEAD - STEP][-1].guid in self._asked:
            return
        ahead = _within_bounds(following[:AHEAD])
        wanted = [guid for guid in ahead if guid not in self._asked]
        self._asked = set(ahead)
        if wanted:
            self._nursery.start_soon(self._ask, [Guid(guid) for guid in wanted])

    def note_read(self, guid: Guid, size: int, offset: int, length: int) -> None:
        """Hear of a read of a long file of ``size`` bytes: what follows is asked for, where it is read in order."""
        end, stream = offset + length, self._streams.get(guid)
        if stream is None or abs(offset - stream.end) > NEARLY_BYTES:
            self._extents.let_go(guid)
            self._streams[guid] = _Stream(end)
            if len(self._streams) > STREAMS:
                self._streams.popitem(last=False)
            return
        stream.end = max(stream.end, end)
        if self._extents.at(guid, sealed_offset(offset // CHUNK_SIZE)) is not None:
            self.note_slow()
        if trio.current_time() >= self._slow_until:
            return
        self._extents.let_go(guid, before=sealed_offset(max(0, end - BEHIND_BYTES) // CHUNK_SIZE))
        first = stream.end // PLAIN
        stream.asked = max(stream.asked, first)
        while stream.asked <= min(size // PLAIN, first + WITHIN - 1) and not self._extents.is_full:
            self._ask_within(guid, *extent_range(size, stream.asked))
            stream.asked += 1

    async def wait_for(self, guid: Guid, size: int, offset: int, length: int) -> None:
        """Wait until a part of a file of ``size`` bytes is in memory, sealed, if it is on the disk.

        Not for ever, nor where the caller is killed.
        """
        piece = sealed_range(size, offset, length)
        if not piece.length:
            return
        with trio.move_on_after(STUCK_SECONDS):
            coming = self._extents.coming(guid, piece.offset, piece.offset + piece.length)
            for extent in coming:
                await extent.done.wait()
            if coming and all(extent.is_there for extent in coming):
                return
            if guid in self._streams:
                self._streams[guid].asked = 0  # what was asked for has gone
            if self._waiters.available_tokens:
                await trio.to_thread.run_sync(
                    self._disk.read_in, guid, piece.offset, piece.length, abandon_on_cancel=True, limiter=self._waiters
                )

    async def _ask(self, guids: Sequence[Guid]) -> None:
        await trio.to_thread.run_sync(self._disk.read_ahead, guids, limiter=self._turn)

    def _ask_within(self, guid: Guid, begin: int, end: int) -> None:
        descriptor = self._disk.open_direct(guid, begin)
        if descriptor >= 0:
            self._nursery.start_soon(self._fill, guid, self._extents.reserve(guid, descriptor, begin, end))

    async def _fill(self, guid: Guid, extent: Extent) -> None:
        try:
            await trio.to_thread.run_sync(extent.fill, limiter=self._threads)
        finally:
            self._extents.settle(guid, extent)


def _within_bounds(nodes: Sequence[Node]) -> list[bytes]:
    """Give the GUIDs of the files that are not too long, as far as all together are not."""
    guids, size = [], 0
    for node in nodes:
        if node.kind is not NodeKind.FILE or node.size > LARGEST:
            continue
        size += node.size
        if size > AHEAD_BYTES:
            break
        guids.append(node.guid)
    return guids
