"""Have the ciphertext of the next files of a directory read from the disk before they are opened, where it is slow.

The kernel reads ahead within a file, and knows nothing of the next one; who opens file by file would wait for each.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Protocol

import trio

from mdmfs.model.names import Guid
from mdmfs.sealing.layout import sealed_range
from mdmfs.wire.messages.files import Node, NodeKind

SLOW_SECONDS: Final = 5.0
"""For so long a disk that had to be waited for is taken to be one that has to."""
STUCK_SECONDS: Final = 1.0
"""Who waits longer is told by the ways that have a deadline."""
AHEAD: Final = 32
STEP: Final = 8
"""So many are asked for at once, as often as so many were opened: meanwhile the disk has the others to read."""
AHEAD_BYTES: Final = 16 * 2**20
"""Of plaintext; a disk that has less to do at once gives less, and what is not opened was read for nothing."""
LARGEST: Final = 4 * 2**20
"""Larger files are long enough to be read ahead within, where they are read in order."""
WITHIN_BYTES: Final = 32 * 2**20
"""So far ahead of a reader: the kernel's own window is 128 KiB on many hosts, and keeps no disk busy."""
NEARLY_BYTES: Final = 2 * 2**20
"""So far from where the last read ended the next may begin, and the order is still that of the file."""
STREAMS: Final = 64

WAITERS: Final = 4
"""A thread that a stuck disk holds is not to be had back."""


class Disk(Protocol):
    """What is needed of ``mdmfs.worker.cache.store.CiphertextCache``."""

    def read_ahead(self, guids: Sequence[Guid]) -> None:
        """Have objects read into memory, where they are on the disk; in a worker thread."""

    def read_ahead_within(self, guid: Guid, offset: int, length: int) -> None:
        """Have a part of an object read into memory, in a worker thread."""

    def read_in(self, guid: Guid, offset: int, length: int) -> None:
        """Have a part of an object read into memory and wait until it is there, in a worker thread."""


class _Stream:
    """Where somebody is who reads a long file in order, by its plaintext."""

    __slots__ = ("asked", "end")

    def __init__(self, end: int) -> None:
        self.end = self.asked = end


class SlowDisk:
    """What was had read from the disk, for one file after the other."""

    def __init__(self, disk: Disk, nursery: trio.Nursery) -> None:
        """Ask a disk, in tasks of a nursery that outlives all opens."""
        self._disk = disk
        self._nursery = nursery
        self._slow_until = float("-inf")
        self._asked: set[bytes] = set()
        """The GUIDs of what was asked for last."""
        self._streams: OrderedDict[Guid, _Stream] = OrderedDict()
        self._turn = trio.CapacityLimiter(1)
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
            self._streams[guid] = _Stream(end)
            if len(self._streams) > STREAMS:
                self._streams.popitem(last=False)
            return
        stream.end = max(stream.end, end)
        if trio.current_time() >= self._slow_until or stream.asked >= min(size, end + WITHIN_BYTES // 2):
            return
        begin, stream.asked = max(stream.asked, end), min(size, end + WITHIN_BYTES)
        piece = sealed_range(size, begin, stream.asked - begin)
        self._nursery.start_soon(self._ask_within, guid, piece.offset, piece.length)

    async def wait_for(self, guid: Guid, size: int, offset: int, length: int) -> None:
        """Wait until a part of a file of ``size`` bytes is in memory, sealed, if it is on the disk.

        Not for ever, nor where the caller is killed.
        """
        piece = sealed_range(size, offset, length)
        if not piece.length or not self._waiters.available_tokens:
            return
        with trio.move_on_after(STUCK_SECONDS):
            await trio.to_thread.run_sync(
                self._disk.read_in, guid, piece.offset, piece.length, abandon_on_cancel=True, limiter=self._waiters
            )

    async def _ask(self, guids: Sequence[Guid]) -> None:
        await trio.to_thread.run_sync(self._disk.read_ahead, guids, limiter=self._turn)

    async def _ask_within(self, guid: Guid, offset: int, length: int) -> None:
        await trio.to_thread.run_sync(self._disk.read_ahead_within, guid, offset, length, limiter=self._turn)


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
