"""An event loop that hangs, on a thread's clock: the log says where, once, and holds no value."""

from __future__ import annotations

import time

import trio
import trio.testing
from structlog.testing import capture_logs

from mdmfs.daemon.stalls import telling_stalls
from mdmfs.daemon.supervision import Pulse

SECONDS = 20.0
PATIENCE, LOOK = 0.2, 0.02


async def stand_at_a_gate(secret: str) -> None:
    """Wait for ever."""
    await trio.sleep_forever()
    del secret


def hold_the_loop(logs: list[dict[str, object]], count: int) -> None:
    """Block until so many lines are in the log."""
    deadline = time.monotonic() + SECONDS
    while len(logs) < count and time.monotonic() < deadline:
        time.sleep(LOOK)


async def test_where_a_loop_hangs_and_who_waits_is_told_without_a_value() -> None:
    """Of many tasks that stand at one place it is told once, with their number."""
    pulse = Pulse()
    with capture_logs() as logs:  # type: ignore[assignment]
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(stand_at_a_gate, "WINTER^ANNA")
            with telling_stalls(lambda: pulse.silence, patience=PATIENCE, look=LOOK):
                await trio.testing.wait_all_tasks_blocked()
                pulse.beat()
                hold_the_loop(logs, 3)  # type: ignore[arg-type]
            nursery.cancel_scope.cancel()
    hanging, *waiting = logs
    assert hanging["event"] == "the event loop hangs"
    assert "hold_the_loop (test_stalls.py:" in hanging["at"]
    assert [one["count"] for one in waiting if "stand_at_a_gate" in one["at"]] == [30]
    assert "WINTER" not in str(logs)


class Told:
    """A loop's silence in seconds, as one says, and how often it was asked for."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.asked = 0

    def __call__(self) -> float:
        """Tell it."""
        self.asked += 1
        return self.seconds

    def let_look(self) -> None:
        """Wait until it has been asked for some times more."""
        wanted, deadline = self.asked + 5, time.monotonic() + SECONDS
        while self.asked < wanted and time.monotonic() < deadline:
            time.sleep(LOOK)


async def test_each_time_is_told_once_and_a_loop_that_turns_is_not() -> None:
    """However long it hangs."""
    silence, long = Told(), 1000.0  # so late that no machine's own pauses count
    with capture_logs() as logs, telling_stalls(silence, patience=long, look=LOOK):
        for times in (1, 2):
            silence.seconds = long / 2
            silence.let_look()
            assert [one["event"] for one in logs].count("the event loop hangs") == times - 1
            silence.seconds = long
            silence.let_look()
    assert [one["event"] for one in logs].count("the event loop hangs") == 2
