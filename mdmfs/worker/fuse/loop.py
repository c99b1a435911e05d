"""How pyfuse3's tasks wait for the kernel: without trio's loop, as long as nobody but the kernel wants anything.

pyfuse3 takes what it needs of trio by a name that can be set, as its own ``pyfuse3.asyncio`` does. Its tasks hand a
lock on and go back to the loop for each request, which takes several times as long as answering it.
"""

from __future__ import annotations

import math
import operator
import select
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import pyfuse3
import trio

IN_A_ROW_SECONDS: Final = 1e-3
"""So long requests may be answered one after the other before every other task has its turn."""
LONGEST_SLEEP: Final = 3600.0
"""Seconds; ``poll`` cannot count those of a month."""
_EPOLL: Final = operator.attrgetter("_core._run.GLOBAL_RUN_CONTEXT.runner.io_manager._epoll")
"""trio tells nobody officially."""


def wait_eagerly(do_meanwhile: Callable[[], bool]) -> None:
    """Have the tasks of the next mount wait by ``EagerTrio``."""
    pyfuse3.trio = EagerTrio(do_meanwhile)  # type: ignore[attr-defined] # the stubs do not tell of it


class Baton(trio.abc.Instrument):
    """A lock for one task at a time that whoever let go of it may take again before those who wait.

    Who waits is woken when the step has ended in which it was let go of, and not taken again.
    """

    def __init__(self) -> None:
        self._is_held = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> None:
        while self._is_held:
            trio.lowlevel.add_instrument(self)
            await self._waiting.park()
        self._is_held = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_held = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 the signature is that of trio
        """See trio: some task has gone as far as it can."""
        if not self._is_held and self._waiting:
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


class _EagerLowlevel:
    """``trio.lowlevel``, but for a device that is looked at before the loop is asked."""

    def __init__(self, do_meanwhile: Callable[[], bool], clock: Callable[[], float]) -> None:
        self._do_meanwhile = do_meanwhile
        self._clock = clock
        self._descriptor: int | None = None
        self._until = float("-inf")
        self._runnable = Runnable()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 all of trio.lowlevel
        return getattr(trio.lowlevel, name)

    async def wait_readable(self, descriptor: int) -> None:
        """Wait for a request; where one is there already it is taken at once, for a while.

        Nobody sleeps before all is done for which it was time.
        """
        if descriptor != self._descriptor:
            self._watch(descriptor)
        if self._clock() < self._until and self._device.poll(0):
            return
        while self._do_meanwhile():
            if self._clock() >= self._until:
                await trio.lowlevel.checkpoint()
                self._until = self._clock() + IN_A_ROW_SECONDS
            if self._device.poll(0):
                return
        if not await self._sleep():
            await trio.lowlevel.wait_readable(descriptor)
        self._until = self._clock() + IN_A_ROW_SECONDS

    def _watch(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._device, self._all = select.poll(), select.poll()
        loop = descriptor_of_loop()
        self._device.register(descriptor, select.POLLIN)
        self._all.register(descriptor, select.POLLIN)
        if loop is not None:
            self._all.register(loop, select.POLLIN)
            trio.lowlevel.add_instrument(self._runnable)

    async def _sleep(self) -> bool:
        """Sleep in this step, where no other task could run in the next; tells whether a request alone ended it.

        What wakes the loop ends it, too: a socket, a thread, a signal, the next deadline.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._runnable.is_one:
            return False
        seconds = trio.lowlevel.current_statistics().seconds_to_next_deadline
        if seconds <= 0:
            return False
        ready = self._all.poll(min(seconds, LONGEST_SLEEP) * 1000)
        return len(ready) == 1 and ready[0][0] == self._descriptor


class Runnable(trio.abc.Instrument):
    """Knows of a task that runs whether it is the only one that can: none but it since the loop last had nothing to do.

    What trio tells of its tasks leaves out those that have their turn in the same pass of the loop.
    """

    def __init__(self) -> None:
        self._count = math.inf

    @property
    def is_one(self) -> bool:
        """Tell."""
        return self._count == 1

    def before_io_wait(self, timeout: float) -> None:
        """See trio: the loop is about to wait, for no time at all where tasks can run."""
        if timeout > 0:
            self._count = 0

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 the signature is that of trio
        """See trio: one more can run."""
        self._count += 1


def descriptor_of_loop() -> int | None:
    """Give what can be read from when trio's loop has something to do; None of a trio that keeps it elsewhere."""
    try:
        epoll: select.epoll = _EPOLL(trio)
    except AttributeError:
        return None
    return epoll.fileno()
