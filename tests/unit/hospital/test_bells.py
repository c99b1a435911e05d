"""Bells wake who waits; the paced one lets others pass in between. And what many ask in one moment is answered once."""

from __future__ import annotations

import trio
import trio.testing

from mdmfs.hospital.bell import PacedBell
from mdmfs.hospital.moment import MAX_KNOWN, Answers

MANY = 100


async def _wait(bell: PacedBell, woken: list[int], number: int) -> None:
    await bell.next().wait()
    woken.append(number)


async def test_a_paced_bell_wakes_everyone_but_one_in_each_round_of_the_loop() -> None:
    """So whoever asks for something else waits for one of them, not for all."""
    bell, woken = PacedBell(), list[int]()
    async with trio.open_nursery() as nursery:
        for number in range(MANY):
            nursery.start_soon(_wait, bell, woken, number)
        await trio.testing.wait_all_tasks_blocked()
        bell.ring()
        most = 0
        while len(woken) < MANY:
            before = len(woken)
            await trio.lowlevel.checkpoint()
            most = max(most, len(woken) - before)
    assert sorted(woken) == list(range(MANY))
    assert most <= 2  # one before and one after this task, in the two rounds that it saw a part of


async def test_whoever_gives_up_breaks_no_chain_and_whoever_comes_later_is_not_woken() -> None:
    """Neither those who were cancelled before the ring nor in the middle of it keep it from the others."""
    bell, woken, scopes = PacedBell(), list[int](), list[trio.CancelScope]()

    async def impatient(number: int) -> None:
        with trio.CancelScope() as scope:
            scopes.append(scope)
            await _wait(bell, woken, number)

    async with trio.open_nursery() as nursery:
        for number in range(MANY):
            nursery.start_soon(impatient, number)
        await trio.testing.wait_all_tasks_blocked()
        for scope in scopes[::3]:
            scope.cancel()
        bell.ring()
        for scope in scopes[1::3]:
            scope.cancel()
        nursery.start_soon(_wait, bell, woken, MANY)
        await trio.testing.wait_all_tasks_blocked()
        assert len(woken) >= len(scopes[2::3])
        assert MANY not in woken
        bell.ring()
    assert woken[-1] == MANY


async def test_a_ring_that_has_begun_is_not_waited_for() -> None:
    """Who took it before it rang, and waits only then, goes on at once."""
    bell = PacedBell()
    ring = bell.next()
    bell.ring()
    await ring.wait()


def test_an_answer_holds_for_its_moment() -> None:
    """The same question is worked out once in each, and nothing is remembered into the next."""
    answers, asked = Answers(), list[str]()

    def answer(question: str, moment: int) -> str:
        return answers.of(moment, question, lambda: (asked.append(question), f"{question} at {moment}")[1])

    assert [answer("a", 1), answer("b", 1), answer("a", 1)] == ["a at 1", "b at 1", "a at 1"]
    assert asked == ["a", "b"]
    assert [answer("a", 2), answer("a", 1)] == ["a at 2", "a at 1"]
    assert asked == ["a", "b", "a", "a"]


def test_many_different_questions_fill_no_memory() -> None:
    """Of one moment, too, only so many answers are remembered."""
    answers = Answers()
    for number in range(10 * MAX_KNOWN):
        assert answers.of(0, number, lambda number=number: -number) == -number  # type: ignore[misc]
        assert len(answers._known) <= MAX_KNOWN  # noqa: SLF001 what it is about
