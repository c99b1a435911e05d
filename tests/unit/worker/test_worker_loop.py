"""How the tasks of a mount wait for the kernel: one after the other, several requests in a row, nobody forgotten."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from mdmfs.worker.fuse.loop import Baton, EagerTrio


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
