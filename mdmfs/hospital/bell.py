"""Bells: ring for everyone who waits at the moment, all at once or one after the other."""

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


class PacedBell:
    """A bell for many: whoever wakes wakes the next one, so that nobody who wants something else waits for them all."""

    def __init__(self) -> None:
        """Hang a bell that has not rung."""
        self._ring = Ring()

    def next(self) -> Ring:
        """Give the ring that the next one is; see ``Bell``."""
        return self._ring

    def ring(self) -> None:
        """Begin to wake those who wait; who comes from now on waits for the next ring."""
        ring, self._ring = self._ring, Ring()
        ring.begin()


class Ring:
    """One ring of a paced bell."""

    def __init__(self) -> None:
        self._lot = trio.lowlevel.ParkingLot()
        self._has_begun = False

    async def wait(self) -> None:
        """Wait for one's turn."""
        if self._has_begun:
            await trio.lowlevel.checkpoint()
            return
        await self._lot.park()
        self._lot.unpark()

    def begin(self) -> None:
        """Wake the first."""
        self._has_begun = True
        self._lot.unpark()
