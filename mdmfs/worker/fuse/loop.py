"""How pyfuse3's tasks wait for the kernel: several requests in one step of the loop, where several are there.

pyfuse3 takes what it needs of trio by a name that can be set, as its own ``pyfuse3.asyncio`` does. Its tasks hand a
lock on and go back to the loop for each request, which takes as long as answering two.
"""

from __future__ import annotations

import select
import time
from types import TracebackType
from typing import Any, Final

import pyfuse3
import trio

IN_A_ROW_SECONDS: Final = 1e-3
"""So long requests may be answered one after the other before every other task has its turn."""


def wait_eagerly() -> None:
    """Have the tasks of the next mount wait by ``EagerTrio``."""
    pyfuse3.trio = EagerTrio()  # type: ignore[attr-defined] # the stubs do not tell of it


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
        self._waiting.unpark()


class EagerTrio:
    """trio, but for what pyfuse3 waits with for its device."""

    Lock = Baton

    def __init__(self) -> None:
        self.lowlevel = _EagerLowlevel()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 all of trio
        return getattr(trio, name)


class _EagerLowlevel:
    """``trio.lowlevel``, but for a device that is looked at before the loop is asked."""

    def __init__(self) -> None:
        self._polled: tuple[int, select.poll] | None = None
        self._until = float("-inf")

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 all of trio.lowlevel
        return getattr(trio.lowlevel, name)

    async def wait_readable(self, descriptor: int) -> None:
        """Wait for a request; where one is there already it is taken at once, for a while."""
        if self._polled is None or self._polled[0] != descriptor:
            self._polled = descriptor, select.poll()
            self._polled[1].register(descriptor, select.POLLIN)
        if time.perf_counter() < self._until and self._polled[1].poll(0):
            return
        await trio.lowlevel.wait_readable(descriptor)
        self._until = time.perf_counter() + IN_A_ROW_SECONDS
