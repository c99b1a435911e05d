"""How pyfuse3's tasks wait for the kernel: several requests in one step of the loop, where several are there.

pyfuse3 takes what it needs of trio by a name that can be set, as its own ``pyfuse3.asyncio`` does. Its tasks hand a
lock on and go back to the loop for each request, which takes as long as answering two.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import pyfuse3
import trio

IN_A_ROW_SECONDS: Final = 1e-3
"""So long requests may be answered one after the other before every other task has its turn."""
SPIN_SECONDS: Final = 80e-6
"""Who has an answer sends his next request 45 to 70 us later, seen on two virtual processors: he wakes up first."""
LOOP_SECONDS: Final = 150e-6
"""A wait of the loop takes so much longer than a look at the device; one that was no longer ended within a spin."""
MOST_CREDIT: Final = 8
"""So many spins in vain end the spinning."""


def wait_eagerly(do_meanwhile: Callable[[], bool]) -> None:
    """Have the tasks of the next mount wait by ``EagerTrio``."""
    pyfuse3.trio = EagerTrio(do_meanwhile)  # type: ignore[attr-defined] # the stubs do not tell of it


class Baton:
    """A lock for one task at a time that whoever let go of it may take again before those who wait.

    Who waits is woken all the same: the other may come to wait for something else.
    """

    def __init__(self) -> None:
        self._is_held = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> None:
        while self._is_held:
            await self._waiting.park()
        self._is_held = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_held = False
        if self._waiting:
            self._waiting.unpark()


class EagerTrio:
    """trio, but for what pyfuse3 waits with for its device."""

    Lock = Baton

    def __init__(
        self, do_meanwhile: Callable[[], bool] = lambda: False, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """``do_meanwhile`` does something for which it was time when no request is there, and tells whether it did."""
        self.lowlevel = _EagerLowlevel(do_meanwhile, clock)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 all of trio
        return getattr(trio, name)


class Spin:
    """Whether to look at the device for a moment more before the loop is asked: as long as that has paid lately.

    Who sends request after request sends the next one sooner than a virtual processor falls asleep and wakes up again.
    A wait of the loop that was as short as that says that looking would have paid; so this begins again by itself.
    """

    __slots__ = ("_credit",)

    def __init__(self) -> None:
        self._credit = 0

    @property
    def pays(self) -> bool:
        """Whether to look now."""
        return self._credit > 0

    def note(self, *, was_soon: bool) -> None:
        """Know whether a request came as soon as one looks for it."""
        self._credit = min(self._credit + 1, MOST_CREDIT) if was_soon else max(self._credit - 1, 0)


class _EagerLowlevel:
    """``trio.lowlevel``, but for a device that is looked at before the loop is asked."""

    def __init__(self, do_meanwhile: Callable[[], bool], clock: Callable[[], float]) -> None:
        self._do_meanwhile = do_meanwhile
        self._clock = clock
        self._polled: tuple[int, select.poll] | None = None
        self._until = float("-inf")
        self._spin = Spin()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 all of trio.lowlevel
        return getattr(trio.lowlevel, name)

    async def wait_readable(self, descriptor: int) -> None:
        """Wait for a request; where one is there already it is taken at once, for a while."""
        if self._polled is None or self._polled[0] != descriptor:
            self._polled = descriptor, select.poll()
            self._polled[1].register(descriptor, select.POLLIN)
        begun = self._clock()
        if begun < self._until and self._is_there(self._polled[1], begun):
            return
        while self._do_meanwhile() and self._clock() < self._until:
            if self._polled[1].poll(0):
                return
        await trio.lowlevel.wait_readable(descriptor)
        now = self._clock()
        if not self._spin.pays:
            self._spin.note(was_soon=now < begun + LOOP_SECONDS)
        self._until = now + IN_A_ROW_SECONDS

    def _is_there(self, device: select.poll, begun: float) -> bool:
        """Look whether there is a request, and for a moment more where that pays."""
        if device.poll(0):
            return True
        if not self._spin.pays:
            return False
        until = begun + SPIN_SECONDS
        while self._clock() < until:
            os.sched_yield()  # whoever sends the next one may have no other processor
            if device.poll(0):
                self._spin.note(was_soon=True)
                return True
        self._spin.note(was_soon=False)
        return False
