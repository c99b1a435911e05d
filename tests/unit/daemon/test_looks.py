"""Who looks again and again looks together with all others."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from mdmfs.daemon.looks import next_look


async def test_those_who_look_equally_often_look_at_the_same_moments(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Whenever each of them began, and however long a look takes."""
    moments: list[float] = []

    async def look(takes: float) -> None:
        for _ in range(4):
            await next_look(0.5)
            moments.append(trio.current_time())
            await trio.sleep(takes)

    for takes in (0.0, 0.1, 0.3):
        await trio.sleep(0.07)
        nursery.start_soon(look, takes)
    begun = trio.current_time()
    await trio.sleep(10)
    assert len(moments) == 12
    assert len(set(moments)) == 4
    assert [after - before for before, after in zip(sorted(set(moments)), sorted(set(moments))[1:], strict=False)] == (
        pytest.approx([0.5] * 3)
    )
    assert begun < min(moments) <= begun + 0.5
    assert autojump_clock.current_time() >= max(moments)
