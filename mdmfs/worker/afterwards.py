"""What is left to do of requests that were answered: nobody waits for it; it is done before long, in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from mdmfs.worker.reading.pages import Pages

MANY: Final = 64
"""Closes that nobody follows with an open. A thousand at a time take 16 ms, for which everybody else would wait."""

log = structlog.get_logger(__name__)


class Afterwards:
    """Of one hospital's tree.

    Never left to this is what decides about a request, or what goes on record of it.
    """

    def __init__(self, pages: Pages) -> None:
        """``pages`` knows when no request waits."""
        self._pages = pages
        self._left: deque[Callable[[], None]] = deque()

    @property
    def is_any_left(self) -> bool:
        """Whether there is something to catch up with."""
        return bool(self._left)

    def add(self, work: Callable[[], None]) -> None:
        """Leave something until something is added that is not to wait, until there are many, or until ``catch_up``."""
        self._left.append(work)
        if len(self._left) >= MANY:
            self._pages.meanwhile(self.catch_up)

    def add_soon(self, work: Callable[[], None]) -> None:
        """Do something, and all that was left before it, as soon as no request waits."""
        self._left.append(work)
        self._pages.meanwhile(self.catch_up)

    def catch_up(self) -> None:
        """Do all that is left, here and now; what fails is logged, since nobody could be told."""
        while self._left:
            work = self._left.popleft()
            try:
                work()
            except Exception:  # of this request: the others are not to stay undone for it
                log.exception("what was left of a request failed unexpectedly")
