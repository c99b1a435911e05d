"""A breaker: whoever asks a PACS that is down gets a no at once, and the PACS is tried again less and less often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from mdmfs.model.pauses import pause_after

TOLERATED: Final = 3
"""Failures in a row before the breaker opens."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 300.0


class Breaker:
    """Closed while all is well; open for a pause that doubles; then half open: one attempt decides."""

    def __init__(self, random: Callable[[], float]) -> None:
        """Begin closed; ``random`` gives numbers from 0 to 1, so that not everybody comes back at once."""
        self._random: Final = random
        self._failures = 0
        self._until = 0.0
        self._is_trying = False

    @property
    def is_open(self) -> bool:
        """Whether nobody is let through at the moment."""
        return self._failures >= TOLERATED and (self._is_trying or trio.current_time() < self._until)

    def remaining(self) -> float:
        """Give the seconds until the next attempt."""
        return max(self._until - trio.current_time(), 0.0)

    def let_through(self) -> bool:
        """Ask to attempt something; every yes is followed by ``succeeded``, ``failed`` or ``abandoned``."""
        if self.is_open:
            return False
        self._is_trying = self._failures >= TOLERATED
        return True

    def succeeded(self) -> None:
        """Say that the PACS answers."""
        self._failures, self._is_trying = 0, False

    def abandoned(self) -> None:
        """Say that an attempt told nothing."""
        self._is_trying = False

    def failed(self) -> None:
        """Say that the PACS did not answer, or refused."""
        self._failures += 1
        self._is_trying = False
        if self._failures >= TOLERATED:
            pause = pause_after(self._failures - TOLERATED, FIRST_PAUSE, LONGEST_PAUSE)
            self._until = trio.current_time() + pause * (1 + self._random()) / 2
