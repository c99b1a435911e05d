"""Have the ciphertext of the next files of a directory read from the disk before they are opened, where it is slow.

The kernel reads ahead within a file, and knows nothing of the next one; who opens file by file would wait for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import trio

from mdmfs.model.names import Guid
from mdmfs.sealing.layout import sealed_range
from mdmfs.wire.messages.files import Node, NodeKind
from mdmfs.worker.cache.ciphertext import Ciphertext
from mdmfs.worker.cache.extents import PLAIN, Extents
from mdmfs.worker.memory import Memory

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
NEARLY_BYTES: Final = 2 * 2**20
"""So far from where the last read ended the next may begin, and the order is still that of the file."""
WAITERS: Final = 4
"""A thread that a stuck disk holds is not to be had back."""


class Disk(Protocol):
    """What is needed of ``mdmfs.worker.cache.store.CiphertextCache``."""

    def read_ahead(self, guids: Sequence[Guid]) -> None:
        """Have objects read into memory, where they are on the disk; in a worker thread."""

    def read_in(self, guid: Guid, offset: int, length: int) -> None:
        """Have a part of an object read into memory and wait until it is there, in a worker thread."""


class SlowDisk:
    """What was had read from the disk, for one file after the other, and within long ones."""

    def __init__(self, disk: Disk, memory: Memory, nursery: trio.Nursery) -> None:
        """Ask a disk, in tasks of a nursery that outlives all opens."""
        self._disk = disk
        self._memory = memory
        self._nursery = nursery
        self._slow_until = float("-inf")
        self._asked: set[bytes] = set()
        """The GUIDs of what was asked for last."""
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

    def note_read(self, ciphertext: Ciphertext, offset: int, length: int) -> None:
        """Hear of a READ of a long file: what follows is asked for, where that has begun."""
        end, last = offset + length, ciphertext.read_to
        ciphertext.is_read_in_order = abs(offset - last) <= NEARLY_BYTES
        if not ciphertext.is_read_in_order:
            ciphertext.end_ahead()
            ciphertext.read_to = end
            return
        ciphertext.read_to = max(last, end)
        if ciphertext.ahead is not None:
            ciphertext.ahead.advance(offset, ciphertext.read_to)

    def note_missed(self, ciphertext: Ciphertext, size: int, offset: int, length: int) -> None:
        """Hear that a READ of a long file of ``size`` bytes has to wait: where it is read in order, we read ahead.

        Not at its begin: who wants but the header reads that.
        """
        is_wanted = offset > 0 and ciphertext.is_read_in_order and ciphertext.may_read_ahead
        if not is_wanted or ciphertext.ahead is not None:
            return
        try:
            extents = Extents(ciphertext.descriptor, size, self._memory, self._nursery)
        except OSError:  # a file system that is not read past the page cache
            ciphertext.may_read_ahead = False
            return
        extents.advance(offset, offset + length)
        if extents.is_worth_it:
            ciphertext.read_ahead(extents)
        else:
            extents.close()

    async def wait_for(
        self, guid: Guid, size: int, offset: int, length: int, ciphertext: Ciphertext | None = None
    ) -> None:
        """Wait until a part of a file of ``size`` bytes is in memory, sealed, if it is on the disk.

        Not for ever, nor where the caller is killed. Of an open one, what is read ahead is waited for.
        """
        piece = sealed_range(size, offset, length)
        if not piece.length:
            return
        ahead = None if ciphertext is None else ciphertext.ahead
        with trio.move_on_after(STUCK_SECONDS) as scope:
            if ahead is not None and await ahead.wait(piece.offset, piece.offset + piece.length):
                return
            if self._waiters.available_tokens:
                await trio.to_thread.run_sync(
                    self._disk.read_in, guid, piece.offset, piece.length, abandon_on_cancel=True, limiter=self._waiters
                )
        if ahead is not None and ciphertext is not None and (scope.cancelled_caught or ahead.is_closed):
            ciphertext.end_ahead()
            ciphertext.may_read_ahead = False

    async def _ask(self, guids: Sequence[Guid]) -> None:
        await trio.to_thread.run_sync(self._disk.read_ahead, guids, limiter=self._turn)


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
