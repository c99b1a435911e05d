"""The feed: answers what has changed in the namespace, and waits a while for something to tell."""

from __future__ import annotations

from typing import Final

import trio

from mdmfs.hospital.bell import PacedBell
from mdmfs.hospital.moment import Answers
from mdmfs.hospital.store import Store
from mdmfs.wire.messages.files import Changes

LONGEST_WAIT: Final = 30.0
"""Seconds for which a question about changes is held open."""


class Feed:
    """The changes of a store's catalogue; whoever commits one rings ``bell``."""

    def __init__(self, store: Store) -> None:
        """Speak for the catalogue of a store."""
        self._store = store
        self.bell = PacedBell()
        self._answers = Answers()

    async def changes(self, since: int, wait: float) -> Changes:
        """Give the changes after a version, waiting up to ``wait`` seconds for the first."""
        with trio.move_on_after(min(wait, LONGEST_WAIT) if wait > 0 else 0):
            while True:
                ring = self.bell.next()
                changes = self._look(since)
                if changes.version != since or changes.is_reset:
                    return changes
                await ring.wait()
        return self._look(since)

    def _look(self, since: int) -> Changes:
        # only what was asked last is remembered: that is what all ask whom a ring wakes
        moment = self._store.version(), since
        return self._answers.of(moment, None, lambda: self._store.read(lambda tx: tx.feed.since(since)))
