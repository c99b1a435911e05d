"""Allowances: who asks too much becomes slow, then is refused; nobody else notices."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from mdmfs.model.errors import BusyError
from mdmfs.model.identity import Dn
from mdmfs.wire.allowances import MAX_REMEMBERED, Allowances, Limits

JANE, JOHN = Dn.parse("/O=grid/CN=jane"), Dn.parse("/O=grid/CN=john")

AT_ONCE = pytest.approx(0, abs=1e-3)


def of(rate: float = 8.0, *, connections: int = 3) -> Allowances:
    """Allow 8 a second, 5 at once, and 2 s of waiting."""
    limits = Limits(
        requests_a_second=rate,
        burst=5,
        patience_seconds=2.0,
        connections_of_a_principal=connections,
        long_messages_of_a_principal=2,
    )
    return Allowances(limits)


async def seconds_for(allowances: Allowances, dn: Dn, count: int) -> float:
    """Ask so often, one after the other."""
    begun = trio.current_time()
    for _ in range(count):
        await allowances.wait(dn)
    return trio.current_time() - begun


async def test_what_comes_at_once_is_let_through_and_then_evenly(autojump_clock: trio.testing.MockClock) -> None:
    """A burst, then the rate, and after a pause the burst again."""
    assert autojump_clock.rate == 0
    allowances = of()
    assert await seconds_for(allowances, JANE, 6) == AT_ONCE
    assert await seconds_for(allowances, JANE, 20) == pytest.approx(2.5)
    await trio.sleep(10)
    assert await seconds_for(allowances, JANE, 6) == AT_ONCE


async def test_one_who_asks_too_much_holds_up_nobody_else(autojump_clock: trio.testing.MockClock) -> None:
    """Turns are each principal's own."""
    assert autojump_clock.rate == 0
    allowances = of()
    await seconds_for(allowances, JANE, 30)
    assert await seconds_for(allowances, JOHN, 6) == AT_ONCE


async def test_whoever_is_far_ahead_of_his_turn_is_told_when_to_come(autojump_clock: trio.testing.MockClock) -> None:
    """Of 100 at once 6 pass, 16 wait for up to two seconds, and the rest is refused at once."""
    assert autojump_clock.rate == 0
    allowances = of()
    passed: list[float] = []
    refused: list[float] = []
    told: set[str] = set()

    async def ask() -> None:
        begun = trio.current_time()
        try:
            await allowances.wait(JANE)
            passed.append(trio.current_time() - begun)
        except BusyError as error:
            told.add(str(error))
            refused.append(trio.current_time() - begun)

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask)
    assert (len(passed), max(passed)) == (22, pytest.approx(2.0))
    assert (len(refused), max(refused)) == (78, AT_ONCE)
    assert told == {f"{JANE} asks more than 8 requests a second: ask again in 2 s"}


async def test_no_rate_is_no_limit(autojump_clock: trio.testing.MockClock) -> None:
    """As the configuration says it."""
    assert autojump_clock.rate == 0
    assert await seconds_for(of(0.0), JANE, 1000) == AT_ONCE


async def test_principals_without_end_take_no_memory_without_end(autojump_clock: trio.testing.MockClock) -> None:
    """Who may ask at once anyway is forgotten."""
    assert autojump_clock.rate == 0
    allowances = of(1e-3)
    for number in range(MAX_REMEMBERED + 100):
        await allowances.wait(Dn.parse(f"/CN={number}"))
    assert allowances.remembered == MAX_REMEMBERED


async def test_connections_are_counted_for_each_principal(autojump_clock: trio.testing.MockClock) -> None:
    """One more than allowed is refused, until one has left."""
    assert autojump_clock.rate == 0
    allowances = of(connections=2)
    assert [allowances.enter(JANE) for _ in range(3)] == [True, True, False]
    assert allowances.enter(JOHN)
    allowances.leave(JANE)
    assert allowances.enter(JANE)


async def test_long_messages_of_a_principal_wait_for_one_another(autojump_clock: trio.testing.MockClock) -> None:
    """And for nobody else's; who waits too long is refused, and holds up nobody."""
    assert autojump_clock.rate == 0
    allowances = of()
    begun = trio.current_time()
    for dn in (JANE, JANE, JOHN):
        await allowances.begin_long(dn)
    assert trio.current_time() == begun
    with pytest.raises(BusyError, match=f"{JANE} sends more than 2 long messages"):
        await allowances.begin_long(JANE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(allowances.begin_long, JANE)
        await trio.sleep(1)
        allowances.end_long(JANE)
    for dn in (JANE, JANE, JOHN):
        allowances.end_long(dn)
    for dn in (JANE, JANE, JOHN, JOHN):
        with trio.fail_after(0.1):
            await allowances.begin_long(dn)


async def test_who_asks_most_is_not_forgotten_for_others(autojump_clock: trio.testing.MockClock) -> None:
    """Where all are busy, the one whose turn is next goes: else many DNs would give him his burst anew."""
    assert autojump_clock.rate == 0
    allowances = of()
    await seconds_for(allowances, JANE, 30)
    for number in range(MAX_REMEMBERED):
        await allowances.wait(Dn.parse(f"/O=grid/CN={number}"))
    assert allowances.remembered == MAX_REMEMBERED
    assert await seconds_for(allowances, JANE, 10) > 1
