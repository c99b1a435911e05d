"""Bells: ring for everyone who waits at the moment, all at once or one after the other."""

from __future__ import annotations

from typing import Final

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


TOGETHER: Final = 3
"""Who are woken in one quiet moment: where the machine is busy, each pause is longer than it was meant to be."""
PAUSE: Final = 0.001
"""Seconds in which whoever was woken can come back with what he then wants."""
LONGEST: Final = 0.004
"""Seconds between two such moments where none is quiet: so a thousand still hear within two."""


class PacedBell:
    """A bell for many, who are woken a few at a time, with a pause, when there is nothing else to do.

    So nobody who wants something else waits for them. What they want when they wake comes before the next of them, too.
    """

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
        self._woken = 0

    async def wait(self) -> None:
        """Wait for one's turn; the last of each few waits for a quiet moment besides, and wakes the next few."""
        if self._has_begun:
            await trio.lowlevel.checkpoint()
            return
        await self._lot.park()
        self._woken += 1
        if self._woken % TOGETHER:
            return
        from trio.testing import wait_all_tasks_blocked  # noqa: PLC0415 it brings all of pytest, where that is installed

        try:
            with trio.move_on_after(LONGEST):
                await trio.sleep(PAUSE)
                # trio's own word for a quiet moment: no task could run, and nothing has arrived that one waits for
                await wait_all_tasks_blocked()
        finally:
            self._lot.unpark(count=TOGETHER)

    def begin(self) -> None:
        """Wake the first few."""
        self._has_begun = True
        self._lot.unpark(count=TOGETHER)
