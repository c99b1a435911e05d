"""The feed: answers what has changed in the namespace, and waits a while for something to tell."""

from __future__ import annotations

from typing import Final

import trio

from mdmfs.hospital.bell import Bell
from mdmfs.hospital.store import Store
from mdmfs.wire.messages import Changes

LONGEST_WAIT: Final = 30.0
"""Seconds for which a question about changes is held open."""
AT_ONCE: Final = 3
"""Waiters that are answered in one round of the loop: who asks for something else does not wait for a thousand."""


class Feed:
    """The changes of a store's catalogue; whoever commits one rings ``bell``."""

    def __init__(self, store: Store) -> None:
        """Speak for the catalogue of a store."""
        self._store = store
        self.bell = Bell()
        self._door = trio.CapacityLimiter(AT_ONCE)

    async def changes(self, since: int, wait: float) -> Changes:
        """Give the changes after a version, waiting up to ``wait`` seconds for the first."""
        with trio.move_on_after(min(wait, LONGEST_WAIT) if wait > 0 else 0):
            while True:
                ring = self.bell.next()
                changes = await self._look(since)
                if changes.version != since or changes.is_reset:
                    return changes
                await ring.wait()
        return await self._look(since)

    async def _look(self, since: int) -> Changes:
        async with self._door:
            return self._store.read(lambda tx: tx.catalogue.changes(since))
