"""Have the ciphertext of the next files of a directory read from the disk before they are opened, where it is slow.

The kernel reads ahead within a file, and knows nothing of the next one; who opens file by file would wait for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import trio

from mdmfs.model.names import Guid
from mdmfs.wire.messages.files import Node, NodeKind

SLOW_SECONDS: Final = 5.0
"""For so long a disk that had to be waited for is taken to be one that has to."""
AHEAD: Final = 16
LARGEST: Final = 4 * 2**20
"""Larger files are long enough for the kernel's own reading ahead."""


class Disk(Protocol):
    """What is needed of ``mdmfs.worker.cache.store.CiphertextCache``."""

    def read_ahead(self, guids: Sequence[Guid]) -> None:
        """Have objects read into memory, where they are on the disk; in a worker thread."""


class SlowDisk:
    """What was had read from the disk, for one file after the other."""

    def __init__(self, disk: Disk, nursery: trio.Nursery) -> None:
        """Ask a disk, in tasks of a nursery that outlives all opens."""
        self._disk = disk
        self._nursery = nursery
        self._slow_until = float("-inf")
        self._asked: set[bytes] = set()
        """The GUIDs of what was asked for last."""
        self._turn = trio.CapacityLimiter(1)

    def note_slow(self) -> None:
        """Know that an object was not in memory."""
        self._slow_until = trio.current_time() + SLOW_SECONDS

    def note_open(self, following: Sequence[Node]) -> None:
        """Hear of an open, and what is probably opened next: it is asked for when half of what was has been opened."""
        if not following or trio.current_time() >= self._slow_until:
            return
        soon = following[: AHEAD // 2]
        if all(node.guid in self._asked for node in soon) or self._turn.borrowed_tokens:
            return
        wanted = [
            node
            for node in following[:AHEAD]
            if node.kind is NodeKind.FILE and node.size <= LARGEST and node.guid not in self._asked
        ]
        self._asked = {node.guid for node in following[:AHEAD]}
        if wanted:
            self._nursery.start_soon(self._ask, [Guid(node.guid) for node in wanted])

    async def _ask(self, guids: Sequence[Guid]) -> None:
        await trio.to_thread.run_sync(self._disk.read_ahead, guids, limiter=self._turn)
