"""A daemon that answers readers while another one works: it decides by itself, and recalls nothing by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing
from prometheus_client import REGISTRY

from mdmfs.access.acl import Right
from mdmfs.hospital.beside import CATCH_UP_SECONDS, Term, caught_up, health_beside, keep_term
from mdmfs.hospital.catalogue.records import FileRecord
from mdmfs.hospital.gauges import keep_gauges
from mdmfs.hospital.gauges import tell as tell_gauges
from mdmfs.hospital.health import health_of
from mdmfs.hospital.release.arrivals import Released
from mdmfs.hospital.release.decision import Standing, stand
from mdmfs.hospital.release.elsewhere import BUNDLES
from mdmfs.hospital.release.release import release_all
from mdmfs.model.errors import (
    AccessDeniedError,
    BusyError,
    InstanceLostError,
    MdmfsError,
    NoSuchFileError,
    PeerUnreachableError,
)
from mdmfs.model.names import Guid
from mdmfs.wire.messages.administration import CopyHealth, Health
from mdmfs.wire.messages.files import SINCE_HEADER, STAGED_PATH, AskBundle
from mdmfs.wire.service import Document, Request
from mdmfs.wire.stream import Address
from tests.twins.beside import Beside, beside
from tests.twins.clinic import (
    OWNER,
    READER,
    SECONDS,
    STRANGER,
    Clinic,
    OpenClinic,
    add_entry,
    sealed_octets,
    slices,
    until,
)
from tests.twins.store import MemoryStore


async def harvested(hospital: OpenClinic) -> list[Guid]:
    """Register everything, and forget what the PACS was asked for it."""
    await hospital.harvest()
    hospital.clinic.pacs.recalls = 0
    return list(hospital.files().values())


async def whole_of(
    releasing: AsyncGenerator[tuple[int, Released | MdmfsError] | None],
) -> AsyncGenerator[tuple[int, bytes | str]]:
    """Read files that are let out together; of one that fails give what is said of it."""
    async for outcome in releasing:
        if outcome is not None:
            place, one = outcome
            try:
                yield place, str(one) if isinstance(one, MdmfsError) else await sealed_octets(one.staged)
            except MdmfsError as error:
                yield place, str(error)


async def test_a_file_is_recalled_once_whichever_daemon_is_asked(tmp_path: Path) -> None:
    """And is the same sealing at both; each records what it lets out itself."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as hospital, beside(hospital, tmp_path / "second") as second:
        guids = await harvested(hospital)
        came: list[bytes] = []

        async def open_one(guid: Guid) -> None:
            came.append(await second.release(guid))

        async with trio.open_nursery() as nursery:
            for guid in guids * 20:
                nursery.start_soon(open_one, guid)
        assert clinic.pacs.recalls == 1
        assert set(came) == {await sealed_octets(await hospital.release(guid)) for guid in guids}
        assert clinic.pacs.recalls == 1
        assert second.let_out() == ["release"] * 40
        events = [it["event"] for it in hospital.audited() if it["event"] in {"release", "staging"}]
        assert sorted(events) == ["release"] * 2 + ["staging"] * 2


async def test_who_may_not_have_a_file_gets_it_nowhere(tmp_path: Path) -> None:
    """The second one decides before anything is asked of the first, who is asked by nobody else."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with clinic.open() as hospital, beside(hospital, tmp_path / "second") as second:
        (guid,) = await harvested(hospital)
        with pytest.raises(NoSuchFileError):
            await second.release(guid, STRANGER)
        for caller in (READER, STRANGER):
            with pytest.raises(AccessDeniedError):
                await hospital.ask(STAGED_PATH, AskBundle([guid.octets]), caller)
        await hospital.ask(STAGED_PATH, AskBundle([guid.octets]), OWNER)
        assert clinic.pacs.recalls == 0
        assert second.let_out() == ["refusal"]


async def test_what_does_not_come_whole_is_not_let_out(tmp_path: Path) -> None:
    """Nor is it staged; and the next open may have it."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with clinic.open() as hospital, beside(hospital, tmp_path / "second") as second:
        (guid,) = await harvested(hospital)
        second.other.cut_after = 1000
        with pytest.raises(MdmfsError):
            await second.release(guid)
        assert second.hospital.staging.known() == []
        second.other.failure = PeerUnreachableError("no daemon works on the store at the moment")
        with pytest.raises(PeerUnreachableError, match="no daemon works"):
            await second.release(guid)
        second.other.failure, second.other.cut_after = None, 2**40
        assert await second.release(guid) == await sealed_octets(await hospital.release(guid))


@pytest.mark.parametrize("count", [0, 1000])
async def test_a_file_that_fails_fails_alone(tmp_path: Path, count: int) -> None:
    """By what was said of it; the others of the same answer come, and a second open asks for it anew."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as hospital, beside(hospital, tmp_path / "second") as second:
        bad, good = await harvested(hospital)
        second.other.breaks[bad] = count, InstanceLostError("so it was said")
        outcomes: dict[Guid, object] = {}
        args = READER, [bad, good], second.hospital, second.recalls
        async for place, one in whole_of(release_all(*args, address="192.0.2.9")):
            outcomes[(bad, good)[place]] = one
        whole = {guid: await sealed_octets(await hospital.release(guid)) for guid in (bad, good)}
        assert outcomes[good] == whole[good]
        if not count:  # else it may be asked for again, until that was in vain too often
            assert (second.other.asked, outcomes[bad]) == ([False], "so it was said")
        assert isinstance(outcomes[bad], str)
        assert second.hospital.staging.known() == [(good, 1)]
        second.other.breaks.clear()
        assert await second.release(bad) == whole[bad]


async def test_a_question_that_fails_takes_no_place(tmp_path: Path) -> None:
    """However often; and who is told that the PACS is busy is not asked for again by himself."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with clinic.open() as hospital, beside(hospital, tmp_path / "second") as second:
        (guid,) = await harvested(hospital)
        second.other.failure = BusyError("no room")
        for _ in range(2 * BUNDLES):
            with pytest.raises(BusyError):
                await second.release(guid)
        second.other.failure = None
        assert await second.release(guid) == await sealed_octets(await hospital.release(guid))
        assert second.other.asked == [False]


async def test_what_may_not_be_looked_ahead_for_is_asked_for_once(tmp_path: Path) -> None:
    """Where nobody has opened it."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with clinic.open() as hospital, beside(hospital, tmp_path / "second") as second:
        guids = await harvested(hospital)
        second.other.is_impolite = True
        releasing = release_all(READER, guids, second.hospital, second.recalls, address="192.0.2.9", are_ahead=True)
        with trio.fail_after(SECONDS):
            told = [outcome[1] async for outcome in releasing if outcome is not None]
        assert [type(one) for one in told] == [BusyError]
        assert second.other.asked == [True]


@pytest.mark.parametrize(
    ("begun", "left", "asked"),
    [
        ([True, True], 2, []),
        ([True, True], 1, [True]),
        ([True, False], 2, [False]),
        ([False, True], 2, [False]),
        ([False], 1, [False]),
    ],
)
async def test_a_look_ahead_that_nobody_waits_for_any_more_is_not_asked_for(
    tmp_path: Path, begun: list[bool], left: int, asked: list[bool]
) -> None:
    """What somebody has opened is, also when he has given up: a second open succeeds."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as hospital, beside(hospital, tmp_path / "second") as second:
        standing = stand(await harvested(hospital), hospital.hospital)
        first, last = [one.source for one in standing if isinstance(one, Standing)]
        second.other.is_held = trio.Event()
        for number in range(BUNDLES - 1):
            file = msgspec.structs.replace(first.file, guid=Guid(number.to_bytes(16)))
            second.recalls.begin(first._replace(file=file), is_ahead=True)
            await trio.testing.wait_all_tasks_blocked()
        recalls = [second.recalls.begin(last, is_ahead=is_ahead) for is_ahead in begun]
        for recall in recalls[:left]:
            second.recalls.leave(recall)
        second.other.is_held.set()
        await until(lambda: len(second.other.asked) == BUNDLES - 1 + len(asked))
        await trio.testing.wait_all_tasks_blocked()
        assert second.other.asked == [True] * (BUNDLES - 1) + asked


async def test_who_opens_what_may_not_be_looked_ahead_for_gets_it(tmp_path: Path) -> None:
    """Though others look ahead for it: the refusal of that is none of his."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with clinic.open() as hospital, beside(hospital, tmp_path / "second") as second:
        (guid,) = await harvested(hospital)
        second.other.is_impolite, second.other.is_held = True, trio.Event()
        told: list[object] = []

        async def look_ahead() -> None:
            args = READER, [guid], second.hospital, second.recalls
            outcomes = release_all(*args, address="192.0.2.9", are_ahead=True)
            told.extend([outcome[1] async for outcome in outcomes if outcome is not None])

        async def open_it() -> None:
            told.append(await second.release(guid))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look_ahead)
            await until(lambda: second.other.asked == [True])
            nursery.start_soon(open_it)
            await trio.testing.wait_all_tasks_blocked()
            second.other.is_held.set()
        assert second.other.asked == [True, False]
        assert await sealed_octets(await hospital.release(guid)) in told


async def test_look_aheads_leave_a_place_for_who_waits(tmp_path: Path) -> None:
    """However many they are, and however long the other daemon takes for them."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as hospital, beside(hospital, tmp_path / "second") as second:
        first, last = await harvested(hospital)
        source = stand([first], hospital.hospital)[0]
        assert isinstance(source, Standing)
        second.other.is_held = trio.Event()
        for number in range(2 * BUNDLES):
            file = msgspec.structs.replace(source.source.file, guid=Guid(number.to_bytes(16)))
            second.recalls.begin(source.source._replace(file=file), is_ahead=True)
            await trio.testing.wait_all_tasks_blocked()
        assert second.other.asked == [True] * (BUNDLES - 1)
        assert await second.release(last) == await sealed_octets(await hospital.release(last))
        second.other.is_held.set()
        await until(lambda: second.other.asked == [*[True] * (BUNDLES - 1), False, True])


async def test_a_loss_is_remembered_by_the_one_that_works(tmp_path: Path) -> None:
    """The second one tells it, and writes nothing."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with clinic.open() as hospital, beside(hospital, tmp_path / "second") as second:
        (guid,) = await harvested(hospital)
        clinic.pacs.held.clear()
        with pytest.raises(MdmfsError):
            await second.release(guid)
        await until(lambda: hospital.hospital.store.read(lambda tx: tx.losses.get(guid)) is not None)


async def test_a_change_is_effective_once_the_second_daemon_has_applied_it(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Its copy may come later than the news of it; until it says so, or its lease has ended, the change is pending."""
    del autojump_clock
    clinic = Clinic(tmp_path, slices((1,)))
    async with clinic.open() as hospital, beside(hospital, tmp_path / "second") as second:
        (guid,) = await harvested(hospital)
        async with second.hospital.staging.writing(guid, 1, 100) as writer:
            await writer.write(lambda: bytes(100))
        copy, term, news = LateCopy(second), Term(trio.current_time), trio.Event()
        hospital.nursery.start_soon(keep_term, copy.hospital, lambda: second.other, term, lambda: news)
        await trio.sleep(1)
        term.refuse_stale()
        before = copy.version
        await add_entry(hospital, hospital.series()[0].lfn, READER, Right.TRAVERSE)
        after = hospital.hospital.store.read(lambda tx: tx.feed.version())
        assert after > before
        await trio.sleep(30)
        assert {one.applied for one in hospital.hospital.leases.behind(after)} == {before}
        told = health_beside(copy.hospital, term).copy
        assert told is not None
        assert (told.behind, told.lease > 0) == (after - before, True)
        copy.version = after
        await trio.sleep(30)
        assert hospital.hospital.leases.behind(after) == []
        await hospital.hospital.store.write(lambda tx: tx.catalogue.withdraw([guid]))
        hospital.hospital.feed.bell.ring()
        await trio.sleep(30)
        assert second.hospital.staging.known() == [(guid, 1)], "the copy does not know yet"
        copy.version = hospital.hospital.store.read(lambda tx: tx.feed.version())
        await trio.sleep(30)
        assert second.hospital.staging.known() == []
        second.other.failure = PeerUnreachableError("gone")
        await trio.sleep(100)
        with pytest.raises(PeerUnreachableError, match="not heard lately"):
            term.refuse_stale()
        told = health_beside(copy.hospital, term).copy
        assert told is not None
        assert (told.behind, told.lease, told.silence >= 100) == (0, 0, True)
        tell_gauges(health_beside(copy.hospital, term))
        assert roles() == {"works": 0, "beside": 1}
        assert gauges("copy_lease_seconds", "copy_behind_changes") == [0, 0]
        tell_gauges(health_of(hospital.hospital))
        assert roles() == {"works": 1, "beside": 0}
        assert gauges("copy_silence_seconds") == [0]


async def test_a_copy_that_is_made_anew_is_told_to_answer_nobody(tmp_path: Path) -> None:
    """What else was seen of it last stays."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with clinic.open() as hospital, beside(hospital, tmp_path / "second") as second:
        copied = CopyHealth(behind=3, silence=1.0, lease=30.0)
        tell_gauges(msgspec.structs.replace(health_of(hospital.hospital), copy=copied))
        assert gauges("copy_lease_seconds", "copy_behind_changes") == [30, 3]

        def look() -> Health:
            message = "made anew"
            raise PeerUnreachableError(message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_gauges, second.hospital, look)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert gauges("copy_lease_seconds", "copy_behind_changes") == [0, 3]
        tell_gauges(health_of(hospital.hospital))


def roles() -> dict[str, float | None]:
    """Read what Prometheus is told of who this is."""
    return {role: REGISTRY.get_sample_value("mdmfs_role", {"role": role}) for role in ("works", "beside")}


def gauges(*names: str) -> list[float | None]:
    """Read what Prometheus is told."""
    return [REGISTRY.get_sample_value(f"mdmfs_{name}") for name in names]


class LateCopy:
    """The store of the second daemon as its feed is asked, at a version that a test sets."""

    def __init__(self, second: Beside) -> None:
        store = second.hospital.store
        self.version = store.read(lambda tx: tx.feed.version())
        self._store = store
        self._file: FileRecord | None = None
        self.hospital = dataclasses.replace(second.hospital, store=self)  # type: ignore[arg-type]

    def read(self, act: object) -> object:
        """Give that version, a file as it was then, and all else as it is."""
        found = self._store.read(act)  # type: ignore[arg-type, var-annotated]
        if isinstance(found, int):
            return self.version
        if isinstance(found, FileRecord) and self.version == self._store.read(lambda tx: tx.feed.version()):
            self._file = found
        return self._file if isinstance(found, FileRecord) else found


async def test_an_answer_knows_at_least_what_its_question_knows(autojump_clock: trio.testing.MockClock) -> None:
    """It waits a moment for the copy, and is none where that does not come: the one that works is asked then."""
    del autojump_clock

    async def body() -> bytes:
        await trio.lowlevel.checkpoint()
        return b""

    async def respond(_: Request) -> Document:
        await trio.lowlevel.checkpoint()
        return Document()

    store = MemoryStore()
    answer = caught_up(store, trio.Event, respond)
    for told, knows in (("", True), ("0", True), ("rubbish", True), ("9" * 5000, True), ("7", False)):
        request = Request("POST", "/", {SINCE_HEADER: told}, READER, Address("h", 1), body)
        began = trio.current_time()
        if knows:
            assert await answer(request) == Document()
        else:
            with pytest.raises(PeerUnreachableError, match="yet to hear"):
                await answer(request)
            assert trio.current_time() - began == CATCH_UP_SECONDS
