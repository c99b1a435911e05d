"""A bell: rings for everyone who waits at the moment."""

from __future__ import annotations

import trio


class Bell:
    """Whoever waits takes ``next`` first, looks whether there is anything to do, and only then waits."""

    def __init__(self) -> None:
        """Hang a bell that has not rung."""
        self._event = trio.Event()

    def next(self) -> trio.Event:
        """Give the event that the next ring sets."""
        return self._event

    def ring(self) -> None:
        """Wake everyone who waits."""
        self._event.set()
        self._event = trio.Event()
