"""Look-aheads at the hospital: after those who wait, bounded, forgotten with their reader, none in clinical hours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from mdmfs.hospital.deid.header import IdentifiedHeader
from mdmfs.hospital.release.queue import MAX_AHEAD, MAX_BATCH, PendingRecall, RecallQueue, Source
from mdmfs.hospital.release.render import Admission
from mdmfs.model.errors import BusyError
from mdmfs.model.names import Guid
from mdmfs.wire.messages.files import BUNDLE_PATH, AskBundle
from mdmfs.wire.service import Request, StreamReply
from mdmfs.wire.stream import Address
from tests.twins.clinic import READER, Clinic, OpenClinic, slices, until
from tests.twins.records import file_record, guid_of, instance_of


async def admit(_: IdentifiedHeader) -> Admission:
    """Admit nobody: nothing arrives here."""
    raise NotImplementedError


def pending(number: int, *, series: int = 1, is_ahead: bool = False) -> PendingRecall:
    """Make a recall of an instance of a series."""
    source = Source(file_record(number), instance_of(number, series=series), admit, lambda: True)
    return PendingRecall(source, is_ahead=is_ahead)


def guids(recalls: list[PendingRecall]) -> list[Guid]:
    """Name them."""
    return [recall.guid for recall in recalls]


async def test_who_waits_comes_before_what_is_looked_ahead_for() -> None:
    """Whatever came first."""
    queue = RecallQueue(associations=2)
    queue.put(pending(1, is_ahead=True))
    queue.put(pending(2, series=2))
    first, second = await queue.take(), await queue.take()
    assert (guids(first.recalls), first.is_ahead) == ([guid_of(2)], False)
    assert (guids(second.recalls), second.is_ahead) == ([guid_of(1)], True)


async def test_one_association_of_several_is_left_for_those_who_wait(autojump_clock: trio.testing.MockClock) -> None:
    """A second batch of look-aheads waits until the first has ended; a waiter does not."""
    queue = RecallQueue(associations=2)
    queue.put(pending(1, is_ahead=True))
    ahead = await queue.take()
    queue.put(pending(2, series=2, is_ahead=True))
    with trio.move_on_after(10) as scope:
        await queue.take()
    assert scope.cancelled_caught
    queue.put(pending(3, series=3))
    assert guids((await queue.take()).recalls) == [guid_of(3)]
    queue.done(ahead)
    assert guids((await queue.take()).recalls) == [guid_of(2)]
    assert autojump_clock.current_time() >= 10


async def test_a_file_that_somebody_opens_meanwhile_is_waited_for() -> None:
    """It overtakes the other look-aheads."""
    queue = RecallQueue()
    first, second = pending(1, is_ahead=True), pending(2, series=2, is_ahead=True)
    queue.put(first)
    queue.put(second)
    queue.promote(second)
    assert guids((await queue.take()).recalls) == [second.guid]
    assert not queue.withdraw(second)
    assert queue.withdraw(first)
    assert not queue.withdraw(first)


async def test_what_is_under_way_is_not_taken_again_when_somebody_opens_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """He waits for what comes anyway."""
    queue = RecallQueue()
    recall = pending(1, is_ahead=True)
    queue.put(recall)
    await queue.take()
    queue.promote(recall)
    assert not recall.is_ahead
    with trio.move_on_after(10):
        pytest.fail(str(await queue.take()))
    assert autojump_clock.current_time() >= 10


async def test_a_batch_is_bounded_and_what_is_left_of_a_series_comes_behind_the_others() -> None:
    """A large series keeps nobody waiting for all of it."""
    queue = RecallQueue()
    long = [pending(number) for number in range(MAX_BATCH + 8)]
    for recall in [*long, pending(99, series=2)]:
        queue.put(recall)
    with trio.fail_after(5):
        batches = [(await queue.take()).recalls for _ in range(3)]
    assert batches[0] == long[:MAX_BATCH]
    assert guids(batches[1]) == [guid_of(99)]
    assert batches[2] == long[MAX_BATCH:]


@pytest.mark.parametrize(("associations", "places"), [(1, 1), (2, 1), (4, 3)])
async def test_look_aheads_have_all_associations_but_one(
    associations: int, places: int, autojump_clock: trio.testing.MockClock
) -> None:
    """And where there is one only, that; a batch of those who wait takes none of their places, and gives none back."""
    queue = RecallQueue(associations)
    for number in range(places + 1):
        queue.put(pending(number, series=number, is_ahead=True))
    queue.put(pending(9, series=9))
    queue.done(await queue.take())
    with trio.fail_after(5):
        for number in range(places):
            assert guids((await queue.take()).recalls) == [guid_of(number)]
    with trio.move_on_after(10) as scope:
        await queue.take()
    assert scope.cancelled_caught
    assert autojump_clock.current_time() >= 10


async def test_a_look_ahead_begins_as_soon_as_another_has_ended() -> None:
    """Whoever waits for one is woken."""
    queue = RecallQueue()
    for number in (1, 2):
        queue.put(pending(number, series=number, is_ahead=True))
    first = await queue.take()
    async with trio.open_nursery() as nursery:
        with trio.fail_after(5):

            async def take() -> None:
                assert guids((await queue.take()).recalls) == [guid_of(2)]

            nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked()
            queue.done(first)


async def test_a_series_of_which_nothing_waits_any_more_has_no_turn() -> None:
    """The next one has."""
    queue = RecallQueue()
    first, second, third = (pending(number, series=number, is_ahead=True) for number in (1, 2, 3))
    for recall in (first, second, third):
        queue.put(recall)
    assert queue.withdraw(first)
    assert not queue.withdraw(pending(4, series=2, is_ahead=True))  # another one of a series that waits
    assert (await queue.take()).recalls == [second]


def test_who_asks_when_it_has_begun_is_told_at_once_and_each_once() -> None:
    """Also where it has ended by then."""
    recall, told = pending(1), list[str]()
    recall.tell(lambda: told.append("before"))
    recall.begin()
    recall.tell(lambda: told.append("after"))
    assert told == ["before", "after"]
    recall.begin()
    assert told == ["before", "after"]


def test_what_fails_behind_its_beginning_keeps_its_first_fault() -> None:
    """Who reads is told by what he reads, and who asks now by the fault."""
    recall = pending(1)
    assert (recall.failure, recall.fault) == (None, None)
    recall.begin()
    recall.fail(BusyError("first"))
    recall.fail(BusyError("second"))
    assert recall.failure is None
    assert str(recall.fault) == "first"


async def test_look_aheads_are_bounded() -> None:
    """One more is told to come later; waiters are never refused."""
    queue = RecallQueue()
    for number in range(MAX_AHEAD):
        queue.put(pending(number, is_ahead=True))
    with pytest.raises(BusyError):
        queue.put(pending(MAX_AHEAD, is_ahead=True))
    queue.put(pending(MAX_AHEAD))


async def test_clinical_hours_give_up_what_waits(autojump_clock: trio.testing.MockClock) -> None:
    """Those that were queued before the hours began fail with a reason, and new ones are refused."""
    is_polite = True
    queue = RecallQueue(may_look_ahead=lambda: is_polite)
    ahead = pending(1, is_ahead=True)
    queue.put(ahead)
    is_polite = False
    with trio.move_on_after(1):
        await queue.take()
    assert isinstance(ahead.failure, BusyError)
    assert autojump_clock.current_time() >= 1
    with pytest.raises(BusyError, match="clinical hours"):
        queue.put(pending(2, is_ahead=True))


async def look(hospital: OpenClinic, guids: Sequence[Guid], has_hung_up: Callable[[], bool] = lambda: False) -> bytes:
    """Ask for files ahead, as a mount does."""
    asked = msgspec.msgpack.encode(AskBundle([guid.octets for guid in guids]))

    async def body() -> bytes:
        await trio.lowlevel.checkpoint()
        return asked

    request = Request("POST", BUNDLE_PATH, {}, READER, Address("192.0.2.7", 1), body, has_hung_up)
    answer = await hospital.face.answer(request)
    assert isinstance(answer, StreamReply)
    return b"".join([bytes(piece) async for piece in answer.chunks])


async def test_clinical_hours_are_heeded(tmp_path: Path) -> None:
    """An open is served at any hour, what is staged too; a look-ahead is refused before it is in the audit log."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        first, second = hospital.files().values()
        clinic.pacs.sent.clear()
        clinic.pacs.may_look_ahead = False
        before = len(hospital.audited())
        assert BusyError.code.encode() in await look(hospital, [first])
        assert len(hospital.audited()) == before
        assert not clinic.pacs.sent
        await hospital.read(first)
        assert BusyError.code.encode() not in await look(hospital, [first])
        assert clinic.pacs.sent.total() == 1
        clinic.pacs.may_look_ahead = True
        assert BusyError.code.encode() not in await look(hospital, [second])
        assert clinic.pacs.sent.total() == 2


async def test_a_mount_that_hangs_up_is_not_worked_for(tmp_path: Path) -> None:
    """What somebody has opened is brought online all the same: a second open then succeeds."""
    clinic = Clinic(tmp_path, slices(range(1, 4)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        clinic.pacs.sent.clear()
        clinic.pacs.delay = 2.0
        opened, *ahead = hospital.files().values()
        gone = trio.Event()
        hospital.recalls._queues["main"]._places_ahead = 0  # noqa: SLF001 as if others were under way
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hospital.read, opened)
            nursery.start_soon(look, hospital, ahead, gone.is_set)
            await trio.sleep(0.5)
            gone.set()
        assert clinic.pacs.sent.total() == 1
        queue = hospital.recalls._queues["main"]  # noqa: SLF001 what is left to do
        assert not queue._ahead.count  # noqa: SLF001 as above


async def test_a_look_ahead_that_nobody_wants_any_more_is_not_fetched(tmp_path: Path) -> None:
    """A mount whose reader has stopped cancels; the PACS, slow as it is, is not asked for what had not begun."""
    clinic = Clinic(tmp_path, slices(range(1, 4)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        clinic.pacs.sent.clear()
        clinic.pacs.delay = 0.2
        files = list(hospital.files().values())
        async with trio.open_nursery() as nursery:
            for guid in files:
                nursery.start_soon(look, hospital, [guid])
                await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
        await until(lambda: clinic.pacs.sent.total() >= 1)
        await trio.sleep(0.5)
        assert clinic.pacs.sent.total() == 1
        clinic.pacs.delay = 0.0
        await hospital.read(files[2])


async def test_who_opens_what_was_looked_ahead_for_waits_for_no_other_look_ahead(tmp_path: Path) -> None:
    """The file goes to those who wait, while the mount's question for it stays as it was."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        (guid,) = hospital.files().values()
        queue = hospital.recalls._queues["main"]  # noqa: SLF001 as if others were under way
        queue._places_ahead = 0  # noqa: SLF001 as above
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look, hospital, [guid])
            await until(lambda: queue._ahead.count == 1)  # noqa: SLF001 as above
            assert await hospital.read(guid)
