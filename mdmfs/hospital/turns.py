"""Turns: whoever works on a thing waits until another has finished with the same thing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Hashable

import trio


class Turns:
    """A lock for each thing that somebody works on or waits for, and for no other."""

    def __init__(self) -> None:
        """Begin with nobody at work."""
        self._locks: dict[Hashable, trio.Lock] = {}

    @contextlib.asynccontextmanager
    async def of(self, thing: Hashable) -> AsyncIterator[None]:
        """Hold a thing for a block."""
        lock = self._locks.setdefault(thing, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            statistics = lock.statistics()
            if not statistics.locked and not statistics.tasks_waiting and self._locks.get(thing) is lock:
                del self._locks[thing]
