"""How the tasks of a mount wait for the kernel: one after the other, several requests in a row, nobody forgotten."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import pytest
import trio
import trio.testing

from mdmfs.worker.fuse.kernel import KernelCaches
from mdmfs.worker.fuse.loop import MOST_CREDIT, SPIN_SECONDS, Baton, EagerTrio, Spin


@pytest.fixture
def device() -> Iterator[tuple[int, int]]:
    """Make something that is read from and something that is written to."""
    reading, writing = os.pipe2(os.O_NONBLOCK)
    yield reading, writing
    os.close(reading)
    os.close(writing)


async def test_one_holds_the_baton_and_takes_it_again_before_those_who_wait() -> None:
    """And when he has gone for long, the next one has it."""
    baton, order = Baton(), []

    async def wait(name: str) -> None:
        async with baton:
            order.append(name)

    async with trio.open_nursery() as nursery:
        async with baton:
            nursery.start_soon(wait, "second")
            await trio.testing.wait_all_tasks_blocked()
        async with baton:
            order.append("first again")
            await trio.testing.wait_all_tasks_blocked()
            assert order == ["first again"]
    assert order == ["first again", "second"]


async def test_a_waiter_that_is_cancelled_loses_nobody_s_turn() -> None:
    """The one behind him gets it."""
    baton, order = Baton(), []

    async def wait(name: str, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            async with baton:
                order.append(name)

    async with trio.open_nursery() as nursery:
        async with baton:
            scope = await nursery.start(wait, "cancelled")
            await nursery.start(wait, "next")
            await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
    assert order[-1] == "next"


async def test_a_request_that_is_there_is_taken_in_the_same_step_but_others_have_their_turn(
    device: tuple[int, int],
) -> None:
    """However many requests there are."""
    reading, writing = device
    lowlevel, turns = EagerTrio().lowlevel, 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        os.write(writing, b"a request")
        await lowlevel.wait_readable(reading)
        nursery.start_soon(others)
        waits = 0
        while turns < 3:
            waits += 1
            await lowlevel.wait_readable(reading)
        assert waits > 2 * turns, "several are taken in one step"
        nursery.cancel_scope.cancel()


async def test_where_nothing_is_there_it_is_waited_for(device: tuple[int, int]) -> None:
    """As ever, by the loop; and a wait can be cancelled."""
    reading, writing = device
    lowlevel = EagerTrio().lowlevel
    os.write(writing, b"1")
    await lowlevel.wait_readable(reading)
    os.read(reading, 1)
    with trio.move_on_after(0.01) as scope:
        await lowlevel.wait_readable(reading)
    assert scope.cancelled_caught


async def test_what_each_user_wants_done_between_two_requests_is_done_once_and_a_request_goes_first(
    device: tuple[int, int],
) -> None:
    """Who asked first is not forgotten for who asked last."""
    reading, writing = device
    kernel, done, ticks = KernelCaches(), list[str](), itertools.count()

    def first() -> None:
        done.append("first")

    def busy() -> None:
        done.append("busy")
        os.write(writing, b"a request")

    def last() -> None:
        done.append("last")

    lowlevel = EagerTrio(kernel.do_meanwhile, lambda: next(ticks) * 1e-5).lowlevel
    os.write(writing, b"a request")
    await lowlevel.wait_readable(reading)
    os.read(reading, 100)
    for work in (first, busy, last, first):
        kernel.meanwhile(work)
    with trio.move_on_after(0.01):
        await lowlevel.wait_readable(reading)
    assert done == ["first", "busy"]
    os.read(reading, 100)
    with trio.move_on_after(0.01):
        await lowlevel.wait_readable(reading)
    assert done == ["first", "busy", "last"]


def test_nobody_looks_longer_at_a_device_before_that_has_paid_once() -> None:
    """So an idle mount and one that is asked seldom never do."""
    spin = Spin()
    assert not spin.pays
    spin.note(was_soon=False)
    assert not spin.pays
    spin.note(was_soon=True)
    assert spin.pays


def test_looking_goes_on_while_it_pays_and_ends_after_a_few_times_in_vain() -> None:
    """However long it has paid; and it goes on where more requests come soon than do not."""
    spin = Spin()
    for _ in range(1000):
        spin.note(was_soon=True)
    for _ in range(MOST_CREDIT):
        assert spin.pays
        spin.note(was_soon=False)
    assert not spin.pays
    for was_soon in (True, True, False) * MOST_CREDIT:
        spin.note(was_soon=was_soon)
    assert spin.pays


class Ticking:
    """A clock that goes on by a microsecond with each look at it, at one of which something happens."""

    def __init__(self) -> None:
        self.looks = 0
        self.at: dict[int, Callable[[], object]] = {}

    def __call__(self) -> float:
        """Tell the time."""
        self.looks += 1
        self.at.pop(self.looks, lambda: None)()
        return self.looks * 1e-6


async def test_a_request_that_comes_while_the_device_is_looked_at_is_taken_in_the_same_step(
    device: tuple[int, int],
) -> None:
    """Since the one before came soon: nobody else has had a turn meanwhile."""
    reading, writing = device
    clock, turns = Ticking(), []
    lowlevel = EagerTrio(clock=clock).lowlevel

    async def other() -> None:
        turns.append(clock.looks)

    os.write(writing, b"1")
    await lowlevel.wait_readable(reading)
    os.read(reading, 1)
    clock.at[clock.looks + 5] = lambda: os.write(writing, b"2")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await lowlevel.wait_readable(reading)
        assert not turns
        assert os.read(reading, 1) == b"2"
    assert turns


async def test_what_there_is_to_do_is_done_when_no_request_is_there(device: tuple[int, int]) -> None:
    """A request goes before it; one that comes meanwhile is taken in the same step, before others have their turn."""
    reading, writing = device
    done, turns = [], []

    def work() -> bool:
        done.append(len(turns))
        os.write(writing, b"2")
        return True

    lowlevel = EagerTrio(work, Ticking()).lowlevel
    os.write(writing, b"1")
    done.clear()
    await lowlevel.wait_readable(reading)
    os.read(reading, 2)
    os.write(writing, b"1")
    done.clear()
    await lowlevel.wait_readable(reading)
    assert not done
    os.read(reading, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_note_turn, turns)
        await lowlevel.wait_readable(reading)
        assert done == [0]
        assert not turns
        assert os.read(reading, 1) == b"2"


async def _note_turn(turns: list[None]) -> None:
    turns.append(None)


async def test_where_nothing_comes_soon_the_others_have_their_turn(device: tuple[int, int]) -> None:
    """After some microseconds of looking, and at once where that has been in vain a few times."""
    reading, writing = device
    clock, looked = Ticking(), []
    lowlevel = EagerTrio(clock=clock).lowlevel

    async def ask_late() -> None:
        looked.append(clock.looks - begun)
        clock.looks += 1000
        os.write(writing, b"1")

    os.write(writing, b"1")
    await lowlevel.wait_readable(reading)
    for _ in range(2):
        os.read(reading, 1)
        begun = clock.looks
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_late)
            await lowlevel.wait_readable(reading)
    assert looked[0] >= SPIN_SECONDS / 1e-6
    assert looked[1] == 1
