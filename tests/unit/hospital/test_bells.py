"""Bells wake who waits; the paced one lets others pass in between. And what many ask in one moment is answered once."""

from __future__ import annotations

import msgspec
import trio
import trio.testing

from mdmfs.hospital.bell import LONGEST, PAUSE, TOGETHER, PacedBell
from mdmfs.hospital.hospital import MAX_READ, weight_of
from mdmfs.hospital.moment import MAX_KNOWN, Answers
from mdmfs.hospital.release.decision import Bar, _Known
from tests.twins.records import file_record, rendition_of

MANY = 100


async def _wait(bell: PacedBell, woken: list[int], number: int) -> None:
    await bell.next().wait()
    woken.append(number)


async def test_nobody_is_woken_while_there_is_something_else_to_do(mock_clock: trio.testing.MockClock) -> None:
    """A task that never rests is not held up by those who wait; but now and then one of them has his turn."""
    bell, woken = PacedBell(), list[int]()
    async with trio.open_nursery() as nursery:
        for number in range(MANY):
            nursery.start_soon(_wait, bell, woken, number)
        await trio.testing.wait_all_tasks_blocked()
        bell.ring()
        await _be_busy()
        assert len(woken) == TOGETHER - 1
        for turn in range(3):
            mock_clock.jump(PAUSE)
            await _be_busy()
            assert len(woken) == turn * TOGETHER + TOGETHER - 1
            mock_clock.jump(LONGEST)
            await _be_busy()
            assert len(woken) == turn * TOGETHER + 2 * TOGETHER - 1
        mock_clock.autojump_threshold = 0  # from here on all is quiet
    assert sorted(woken) == list(range(MANY))


async def test_what_is_done_on_waking_comes_before_the_next_is_woken(autojump_clock: trio.testing.MockClock) -> None:
    """The few who were woken have finished with what they wanted when others begin."""
    begun = trio.current_time()
    bell, at_work, finished, most = PacedBell(), set[int](), list[int](), 0

    async def work(number: int) -> None:
        nonlocal most
        await bell.next().wait()
        at_work.add(number)
        most = max(most, len(at_work))
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        at_work.remove(number)
        finished.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(MANY):
            nursery.start_soon(work, number)
        await trio.testing.wait_all_tasks_blocked()
        bell.ring()
    assert sorted(finished) == list(range(MANY))
    assert most == TOGETHER
    assert trio.current_time() - begun <= MANY * LONGEST / TOGETHER


async def _be_busy() -> None:
    for _ in range(20):
        await trio.lowlevel.checkpoint()


async def test_whoever_gives_up_breaks_no_chain_and_whoever_comes_later_is_not_woken(
    autojump_clock: trio.testing.MockClock,
) -> None:
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
        await trio.sleep(MANY * LONGEST)
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


def test_long_answers_count_for_more() -> None:
    """By a weight that is given, few long ones fill what many short ones would."""
    answers = Answers(10, len)
    for number in range(100):
        assert answers.of(0, number, lambda: "four") == "four"
        assert len(answers._known) <= 3  # noqa: SLF001 what it is about


def test_what_is_read_of_long_files_counts_for_their_digests() -> None:
    """Those of 2 GiB are 16 KiB each, so a few hundred of them are remembered where 4096 slices are."""
    held: list[int] = []
    for segments in (1, 512):
        file = msgspec.structs.replace(file_record(1), rendition=rendition_of(1, segments=segments))
        answers = Answers(MAX_READ, weight_of)
        for number in range(MAX_READ):
            answers.of(0, number, lambda file=file: _Known(file, Bar.GONE))  # type: ignore[misc]
        known = answers._known.values()  # noqa: SLF001 what it is about
        held.append(sum(len(one.file.rendition.segment_sha256) for one in known))
    assert held[0] == 32 * MAX_READ
    assert held[1] < 12 * 2**20
