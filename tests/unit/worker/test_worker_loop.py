"""How the tasks of a mount wait for the kernel: one after the other, several requests in a row, nobody forgotten."""

from __future__ import annotations

import functools
import itertools
import operator
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from mdmfs.worker.fuse import loop
from mdmfs.worker.fuse.kernel import KernelCaches
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
            assert trio.lowlevel.current_statistics().tasks_runnable == 0, "nobody is woken for nothing"
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
    kernel, done, ticks = KernelCaches(reading), list[str](), itertools.count()

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


def test_what_has_time_gives_way_once_to_what_a_program_asks_at_once(device: tuple[int, int]) -> None:
    """Who has opened a file asks something about it a moment later, and would wait for the next file to be pushed."""
    reading, writing = device
    kernel, done = KernelCaches(reading), list[str]()
    assert not kernel.do_meanwhile()
    kernel.meanwhile(lambda: done.append("header"), gives_way=True)
    kernel.meanwhile(lambda: done.append("file"))
    os.write(writing, b"a request")
    assert kernel.do_meanwhile()
    assert not done
    assert kernel.do_meanwhile()
    assert done == ["header"]
    assert kernel.do_meanwhile()
    assert done == ["header", "file"]
    assert not kernel.do_meanwhile()


def test_what_there_is_to_do_is_done_at_once_where_nobody_tells_of_moments_without_requests() -> None:
    """As with a pyfuse3 that looks for trio elsewhere: closed files would stay open."""
    done = list[str]()
    KernelCaches(0).meanwhile(lambda: done.append("close"), gives_way=True)
    assert done == ["close"]


async def test_all_there_is_to_do_is_done_before_anybody_sleeps_and_others_have_their_turn(
    device: tuple[int, int],
) -> None:
    """However long it takes."""
    reading, _ = device
    kernel, done, turns, ticks = KernelCaches(reading), list[int](), list[None](), itertools.count()
    assert not kernel.do_meanwhile()
    for number in range(3):
        kernel.meanwhile(functools.partial(done.append, number))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_note_turn, turns)
        kernel.meanwhile(lambda: done.append(len(turns)))
        with trio.move_on_after(0.01):
            await EagerTrio(kernel.do_meanwhile, lambda: next(ticks) * 1.0).lowlevel.wait_readable(reading)
    assert done == [0, 1, 2, 1]


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


class Turns(trio.abc.Instrument):
    """Counts how often the loop turns."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 the signature is that of trio.abc.Instrument
        """Count; see trio."""
        self.count += 1


async def test_a_request_is_waited_for_without_the_loop_where_nobody_else_can_run(device: tuple[int, int]) -> None:
    """However late it comes; for the first one the loop is asked, which tells that nobody can."""
    reading, writing = device
    lowlevel, turns = EagerTrio().lowlevel, Turns()
    trio.lowlevel.add_instrument(turns)
    for _ in range(2):
        turns.count = 0
        asking = threading.Timer(0.02, os.write, (writing, b"1"))
        asking.start()
        await lowlevel.wait_readable(reading)
        assert os.read(reading, 1) == b"1"
        asking.join()
    assert turns.count == 0
    trio.lowlevel.remove_instrument(turns)


async def test_who_can_run_does_so_before_a_request_is_waited_for(device: tuple[int, int]) -> None:
    """Else he would wait until somebody asks."""
    reading, writing = device
    lowlevel = await _alone(device)

    async def ask() -> None:
        os.write(writing, b"1")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await lowlevel.wait_readable(reading)
    assert os.read(reading, 1) == b"1"


async def _alone(device: tuple[int, int]) -> Any:  # noqa: ANN401 stands in for a module
    """Give what waits for a device without the loop, since nobody else can run."""
    reading, writing = device
    lowlevel = EagerTrio().lowlevel
    threading.Timer(0.01, os.write, (writing, b"1")).start()
    await lowlevel.wait_readable(reading)
    os.read(reading, 1)
    return lowlevel


async def _hear_of_a_thread() -> None:
    await trio.to_thread.run_sync(time.sleep, 0.01)


async def _hear_of_a_thread_that_nobody_waits_for() -> None:
    heard, token = trio.Event(), trio.lowlevel.current_trio_token()
    threading.Timer(0.01, token.run_sync_soon, (heard.set,)).start()
    await heard.wait()


async def _hear_of_a_socket() -> None:
    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        threading.Timer(0.01, os.write, (theirs.fileno(), b"1")).start()
        await ours.recv(1)


async def _hear_of_a_signal() -> None:
    with trio.open_signal_receiver(signal.SIGUSR1) as told:
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        await anext(told)


async def _hear_of_a_deadline() -> None:
    await trio.sleep(0.01)


@pytest.mark.parametrize(
    "hear",
    [
        _hear_of_a_thread,
        _hear_of_a_thread_that_nobody_waits_for,
        _hear_of_a_socket,
        _hear_of_a_signal,
        _hear_of_a_deadline,
    ],
)
async def test_what_wakes_the_loop_is_heard_while_a_request_is_waited_for(
    device: tuple[int, int], hear: Callable[[], Awaitable[None]]
) -> None:
    """No request comes before it has been."""
    reading, writing = device
    lowlevel = EagerTrio().lowlevel
    begin = trio.Event()

    async def ask_then() -> None:
        await begin.wait()
        os.write(writing, b"1")
        await hear()
        os.write(writing, b"2")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_then)
        await trio.testing.wait_all_tasks_blocked()
        begin.set()
        for request in (b"1", b"2"):
            await lowlevel.wait_readable(reading)
            assert os.read(reading, 1) == request


async def test_a_deadline_may_be_months_away(device: tuple[int, int]) -> None:
    """The kernel's ``poll`` counts milliseconds in 32 bits."""
    reading, writing = device
    lowlevel = await _alone(device)
    threading.Timer(0.01, os.write, (writing, b"1")).start()
    with trio.move_on_after(1e7):
        await lowlevel.wait_readable(reading)
    assert os.read(reading, 1) == b"1"


async def test_who_is_cancelled_waits_for_no_request(device: tuple[int, int]) -> None:
    """The loop has told him before, and would not wake him again."""
    reading, _ = device
    lowlevel = await _alone(device)
    with trio.CancelScope() as scope:
        scope.cancel()
        await lowlevel.wait_readable(reading)
    assert scope.cancelled_caught


async def test_of_a_trio_that_hides_its_loop_requests_are_waited_for_by_the_loop(
    device: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the one that is pinned they are not: so much the tests above say."""
    reading, writing = device
    monkeypatch.setattr(loop, "_EPOLL", operator.attrgetter("_core.elsewhere"))
    lowlevel = await _alone(device)
    asking = threading.Timer(0.01, os.write, (writing, b"1"))
    asking.start()
    await lowlevel.wait_readable(reading)
    assert os.read(reading, 1) == b"1"
    asking.join()
