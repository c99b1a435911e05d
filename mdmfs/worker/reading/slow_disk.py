"""Have ciphertext read from a slow disk before it is wanted: of the next files of a directory, and within long ones.

The kernel reads ahead within a file, and knows nothing of the next one: who opens file by file would wait for each. And
what it reads of a long one costs more than to read past its page cache (``mdmfs.worker.cache.extents``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import trio

from mdmfs.model.names import Guid
from mdmfs.sealing.layout import sealed_range
from mdmfs.wire.messages.files import Node, NodeKind
from mdmfs.worker.cache.ciphertext import Ciphertext
from mdmfs.worker.cache.extents import LEAST, PLAIN, Extents
from mdmfs.worker.cache.room import Turns
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
RUN_BYTES: Final = 4 * 2**20
"""After so many in order more are read ahead, and after twice as many each time that it was in vain: two who read one
file at two places have nothing of it."""
IDLE_SECONDS: Final = 5.0
"""Who pauses for so long has nothing read ahead any more."""
SHUN_SECONDS: Final = 60.0
"""For so long nothing is read ahead from a disk that was stuck: what it holds is not to be had back."""


class Disk(Protocol):
    """What is needed of ``mdmfs.worker.cache.store.CiphertextCache``."""

    turns: Turns
    """Of all principals of a mount: each of them reading ahead as if he were alone would be too much."""

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
        self._ahead: set[Ciphertext] = set()
        """Of what there may be something that was read ahead."""
        self._stuck_until = float("-inf")

    def note_slow(self) -> None:
        """Know that an object was not in memory."""
        self._slow_until = trio.current_time() + SLOW_SECONDS

    def note_open(self, following: Sequence[Node]) -> None:
        """Hear of an open, and what is probably opened next: some of it is asked for, and more when that is opened."""
        if not following or trio.current_time() >= self._slow_until or self._disk.turns.files.borrowed_tokens:
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
        ciphertext.run += length - max(0, offset - last)
        if abs(offset - last) > NEARLY_BYTES or ciphertext.run < 0:
            ciphertext.breaks += ciphertext.ahead is not None
            ciphertext.end_ahead()
            ciphertext.read_to, ciphertext.run = end, 0
            return
        ciphertext.read_to = max(last, end)
        if ciphertext.ahead is not None and not ciphertext.ahead.advance(offset, ciphertext.read_to, ciphertext.run):
            ciphertext.end_ahead()

    def note_missed(self, ciphertext: Ciphertext, size: int, offset: int, length: int) -> None:
        """Hear that a READ of a long file of ``size`` bytes has to wait: where it is read in order, we read ahead.

        That it is, is known after some bytes: who wants the header or single frames wants no more than that.
        """
        is_in_order = ciphertext.run >= RUN_BYTES << ciphertext.breaks
        is_wanted = is_in_order and ciphertext.may_read_ahead and ciphertext.ahead is None
        if not is_wanted or trio.current_time() < self._stuck_until:
            return
        if not self._memory.has_room(LEAST * PLAIN):
            self.expire()
            if not self._memory.has_room(LEAST * PLAIN):
                return
        try:
            extents = Extents(ciphertext.descriptor, size, self._memory, self._nursery, self._disk.turns.extents)
        except OSError:  # a file system that is not read past the page cache
            ciphertext.may_read_ahead = False
            return
        ciphertext.read_ahead(extents)
        self._ahead.add(ciphertext)
        if not extents.advance(offset, offset + length, ciphertext.run):
            ciphertext.end_ahead()

    def expire(self) -> None:
        """Let go what was read ahead of who has paused."""
        oldest = trio.current_time() - IDLE_SECONDS
        for ciphertext in tuple(self._ahead):
            if ciphertext.ahead is not None and ciphertext.ahead.advanced <= oldest:
                ciphertext.end_ahead()
            if ciphertext.ahead is None:
                self._ahead.discard(ciphertext)

    def let_go(self) -> None:
        """Let go all that was read ahead: nobody reads it any more."""
        while self._ahead:
            self._ahead.pop().end_ahead()

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
            turns = self._disk.turns.readers
            if turns.available_tokens:
                await trio.to_thread.run_sync(
                    self._disk.read_in, guid, piece.offset, piece.length, abandon_on_cancel=True, limiter=turns
                )
        if scope.cancelled_caught:
            self._stuck_until = trio.current_time() + SHUN_SECONDS
        if ciphertext is None or ahead is None:
            return
        if ahead.has_failed:
            ciphertext.may_read_ahead = False
        if ciphertext.ahead is ahead and (ahead.has_failed or scope.cancelled_caught):
            ciphertext.end_ahead()

    async def _ask(self, guids: Sequence[Guid]) -> None:
        await trio.to_thread.run_sync(self._disk.read_ahead, guids, limiter=self._disk.turns.files)


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
