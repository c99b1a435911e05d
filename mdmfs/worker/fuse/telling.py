"""How often failures of one kind are told in the log: what fails for a program that asks all day fills no disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

PERIOD_SECONDS: Final = 60.0
MOST: Final = 100
"""Lines of one kind in a period."""


class Telling:
    """Counts the failures of each kind; the kinds are few, as those of errors are."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing told."""
        self._clock = clock
        self._begun: dict[str, float] = {}
        self._told: dict[str, int] = {}

    def untold(self, kind: str) -> int | None:
        """Give how many of a kind were passed over before this one is told; None where this one is passed over, too."""
        now = self._clock()
        if now >= self._begun.get(kind, float("-inf")) + PERIOD_SECONDS:
            untold = max(self._told.get(kind, 0) - MOST, 0)
            self._begun[kind], self._told[kind] = now, 1
            return untold
        self._told[kind] += 1
        return 0 if self._told[kind] <= MOST else None
