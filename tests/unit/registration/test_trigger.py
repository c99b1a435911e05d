"""What a PACS tells of is registered when it has settled, once, whatever breaks in between, or quarantined by name."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import TypeVar

import msgspec
import trio
import trio.testing
from pydicom import Dataset

from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.dicom.pacs import SeriesFound
from mdmfs.hospital.dicom.receive import StoredInstance
from mdmfs.hospital.hospital import KnownPacs
from mdmfs.hospital.ledger.records import NoticedSeries, QuarantineRecord
from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.hospital.pages import PAGE
from mdmfs.hospital.registration.not_included import forget_old, remember_not_included
from mdmfs.hospital.registration.trigger import GIVEN_UP_AFTER, QUIET_SECONDS, Trigger
from mdmfs.hospital.store import Store, Transaction
from mdmfs.model.errors import OutOfSpaceError
from tests.twins.clinic import NOW, Clinic, OpenClinic, including, slice_of, slices, until
from tests.twins.pacs import TwinPacs
from tests.twins.records import quarantined
from tests.unit.registration.test_ending import CountingStore
from tests.unit.registration.test_register import CuttingStore

T = TypeVar("T")

DAY = 86_400.0
HOUR = 3600.0


def stored(instance: Dataset, pacs: str = "main") -> StoredInstance:
    """Say what is noted of an instance."""
    return StoredInstance(
        pacs,
        str(instance.StudyInstanceUID),
        str(instance.SeriesInstanceUID),
        str(instance.SOPInstanceUID),
        str(instance.SOPClassUID),
    )


def waiting(opened: OpenClinic) -> list[NoticedSeries]:
    """Give what is not dealt with."""
    return opened.hospital.store.read(lambda tx: tx.notices.all())


def not_included(opened: OpenClinic) -> list[QuarantineRecord]:
    """Give what no project includes."""
    return opened.hospital.store.read(lambda tx: tx.quarantine.all(""))


class TickingClinic(Clinic):
    """A hospital whose clock on the wall goes as trio's does, and can be set."""

    @property
    def now(self) -> float:
        """Read the clock."""
        return self._set_to + trio.current_time() - self._set_at

    @now.setter
    def now(self, seconds: float) -> None:
        self._set_to, self._set_at = seconds, trio.current_time()


@contextlib.asynccontextmanager
async def triggered(clinic: Clinic, *, settle: float = 0.0) -> AsyncIterator[tuple[OpenClinic, Trigger]]:
    """Run a hospital with its trigger."""
    async with clinic.open() as opened:
        trigger = Trigger(opened.hospital, settle)
        opened.nursery.start_soon(trigger.run)
        yield opened, trigger


async def tell(trigger: Trigger, instances: Iterable[Dataset]) -> None:
    """Store instances as a PACS does."""
    for instance in instances:
        await trigger.note(stored(instance))


async def until_nothing_waits(opened: OpenClinic, seconds: float = 30) -> None:
    """Wait until every notice is dealt with."""
    with trio.fail_after(seconds):
        while waiting(opened):  # noqa: ASYNC110 nothing tells
            await trio.sleep(0.05)
    await opened.deliver()


async def until_visible(opened: OpenClinic, count: int, seconds: float = 30) -> None:
    """Wait until so many files are seen."""
    with trio.fail_after(seconds):
        while len(opened.names()) < count:  # noqa: ASYNC110 nothing tells
            await trio.sleep(0.02)
    assert len(opened.names()) == count


async def test_a_series_told_of_appears_whole_within_two_seconds(tmp_path: Path) -> None:
    """With a settling time of nothing, in real time."""
    clinic = TickingClinic(tmp_path, slices(range(1, 6)))
    async with triggered(clinic) as (opened, trigger):
        await tell(trigger, clinic.pacs.held[:2])  # whatever of it was stored, the series is what the PACS names
        await until_visible(opened, 5, seconds=2)


class NamelessPacs(TwinPacs):
    """Leaves Patient ID empty."""

    async def find_series(self, *, patient_id: str | None = None, study_uid: str | None = None) -> list[SeriesFound]:
        """List, and say of nobody who it is."""
        found = await super().find_series(patient_id=patient_id, study_uid=study_uid)
        return [dataclasses.replace(it, patient_id="", issuer="") for it in found]


async def test_a_series_of_a_patient_whom_the_pacs_does_not_name_is_offered_to_every_project(tmp_path: Path) -> None:
    """Its headers say whose it is: it appears, and one of somebody else does not."""
    clinic = TickingClinic(tmp_path, [*slices((1, 2)), *slices((1,), series=2)])
    clinic.pacs = NamelessPacs(clinic.pacs.held)
    clinic.pacs.held[2].PatientID = "OTHER-9"
    async with triggered(clinic) as (opened, trigger):
        await tell(trigger, clinic.pacs.held)
        await until(lambda: not waiting(opened))
        await until_visible(opened, 2)


class HangingPacs(TwinPacs):
    """Takes a question and never answers it."""

    async def find_series(self, *, patient_id: str | None = None, study_uid: str | None = None) -> list[SeriesFound]:
        """Wait for ever."""
        del patient_id, study_uid
        await trio.sleep_forever()
        raise AssertionError


async def test_a_pacs_that_does_not_answer_holds_up_no_series_of_another(tmp_path: Path) -> None:
    """Neither what had settled with its own, nor what comes while it is waited for."""
    clinic = TickingClinic(tmp_path, [*slices(range(1, 4)), *slices((1, 2), series=2)])
    async with clinic.open() as opened:
        hanging = KnownPacs(HangingPacs([]), "AMC")
        hospital = dataclasses.replace(opened.hospital, pacs={"hanging": hanging, **opened.hospital.pacs})
        trigger = Trigger(hospital, 0)
        for pacs, instance in (("hanging", clinic.pacs.held[-1]), ("main", clinic.pacs.held[0])):
            await trigger.note(stored(instance, pacs))
        opened.nursery.start_soon(trigger.run)
        await until_visible(opened, 3)
        await tell(trigger, clinic.pacs.held[3:])
        await until_visible(opened, 5)
        await until(lambda: [series.pacs for series in waiting(opened)] == ["hanging"])


class SlowPacs(TwinPacs):
    """Takes a minute for each question, and counts how many are under way."""

    under_way = most = asked = 0

    async def find_series(self, *, patient_id: str | None = None, study_uid: str | None = None) -> list[SeriesFound]:
        """List, late."""
        self.asked += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await trio.sleep(60)
        self.under_way -= 1
        return await super().find_series(patient_id=patient_id, study_uid=study_uid)


async def test_a_pacs_is_asked_about_one_series_at_a_time(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Whatever it tells of meanwhile; that comes then."""
    assert autojump_clock.rate == 0
    clinic = TickingClinic(tmp_path, [slice_of(1, study=study, series=study) for study in (1, 2, 3)])
    pacs = clinic.pacs = SlowPacs(clinic.pacs.held)
    async with triggered(clinic) as (opened, trigger):
        for instance in pacs.held:
            await tell(trigger, [instance])
            await trio.sleep(10)
        with trio.fail_after(HOUR):
            while waiting(opened):  # noqa: ASYNC110 nothing tells
                await trio.sleep(30)
        assert (pacs.most, pacs.asked) == (1, 6)
        assert len(opened.names()) == 3


async def test_nothing_is_asked_before_it_has_settled(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A correction within that time costs nothing; each new arrival begins the wait anew."""
    assert autojump_clock.rate == 0
    clinic = TickingClinic(tmp_path, slices(range(1, 4)))
    async with triggered(clinic, settle=HOUR) as (opened, trigger):
        await tell(trigger, clinic.pacs.held[:1])
        await trio.sleep(HOUR / 2)
        await tell(trigger, clinic.pacs.held[1:])
        await trio.sleep(HOUR * 0.9)
        assert clinic.pacs.recalls == 0
        assert opened.names() == []
        await trio.sleep(HOUR * 0.2)
        await until_nothing_waits(opened, HOUR)
        assert [series.expected for series in opened.series()] == [3]


async def test_not_all_that_waits_is_looked_through_at_each_instance(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """In a day a large hospital tells of thousands of series, of each image by itself."""
    assert autojump_clock.rate == 0
    clinic = TickingClinic(tmp_path, slices((1,)))
    reads: list[int] = []
    async with clinic.open() as opened:
        hospital = dataclasses.replace(opened.hospital, store=CountingStore(clinic.store, reads))
        trigger = Trigger(hospital, DAY)
        opened.nursery.start_soon(trigger.run)
        for _ in range(100):
            await tell(trigger, clinic.pacs.held)
            await trio.sleep(0.01)
        assert len(reads) <= 2


async def test_a_trigger_that_is_told_nothing_sleeps_and_hears_of_what_comes_in_time(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A hospital that does nothing takes no time, however short ``settle`` is."""
    assert autojump_clock.rate == 0
    clinic = TickingClinic(tmp_path, slices((1,)))
    reads: list[int] = []
    async with clinic.open() as opened:
        hospital = dataclasses.replace(opened.hospital, store=CountingStore(clinic.store, reads))
        trigger = Trigger(hospital, 0.0)
        opened.nursery.start_soon(trigger.run)
        await trio.sleep(HOUR + 1)
        assert len(reads) <= HOUR / 60 + 1
        reads.clear()
        await tell(trigger, clinic.pacs.held)
        await trio.sleep(QUIET_SECONDS + 0.1)
        assert reads
        await until_nothing_waits(opened, HOUR)


async def test_what_no_project_includes_is_quarantined_as_a_series(tmp_path: Path) -> None:
    """Without having been retrieved, without a word of it in the audit log, and without a row for each image."""
    clinic = TickingClinic(tmp_path, [slice_of(number, patient_id="TEST-2") for number in (1, 2)])
    async with triggered(clinic) as (opened, trigger):
        await tell(trigger, clinic.pacs.held)
        await until_nothing_waits(opened)
        assert opened.names() == []
        (row,) = not_included(opened)
        assert (row.reason, row.images, row.instance_uid) == ("not-included", 2, "")
        assert row.series_uid == clinic.pacs.held[0].SeriesInstanceUID
        assert clinic.pacs.recalls == 0
        (record,) = [it for it in opened.audited() if it["event"] == "quarantine"]
        assert (record["outcome"], record["count"]) == ("not-included", 2)
        assert "TEST-2" not in (tmp_path / "audit.jsonl").read_text()


async def test_a_study_on_the_list_is_included_whoever_it_is_of(tmp_path: Path) -> None:
    """Then what was quarantined before it was listed is not any more."""
    clinic = TickingClinic(tmp_path, [slice_of(number, patient_id="TEST-2") for number in (1, 2)])
    async with triggered(clinic) as (opened, trigger):
        await tell(trigger, clinic.pacs.held)
        await until_nothing_waits(opened)
        assert not_included(opened)
    clinic.inclusion = including(studies=[str(clinic.pacs.held[0].StudyInstanceUID)])
    async with triggered(clinic) as (opened, trigger):
        await tell(trigger, clinic.pacs.held)
        await until_nothing_waits(opened)
        assert len(opened.names()) == 2
        assert not_included(opened) == []


async def test_what_a_harvest_registers_is_not_told_as_not_included(tmp_path: Path) -> None:
    """Its line came later than its notice; with the rows that an older version kept of each image."""
    clinic = TickingClinic(tmp_path, [slice_of(number, patient_id="TEST-2") for number in (1, 2)])
    async with triggered(clinic) as (opened, trigger):
        await tell(trigger, clinic.pacs.held)
        await until_nothing_waits(opened)
        (row,) = not_included(opened)
        older = [msgspec.structs.replace(row, instance_uid=str(it.SOPInstanceUID), images=1) for it in clinic.pacs.held]
        await opened.hospital.store.write(lambda tx: [tx.quarantine.put(one) for one in older])
    clinic.inclusion = including(PatientKey(issuer="AMC", patient_id="TEST-2"))
    async with clinic.open() as opened:
        assert len(not_included(opened)) == 3
        await opened.harvest()
        await opened.deliver()
        assert len(opened.names()) == 2
        assert not_included(opened) == []


async def test_a_series_told_of_in_parts_stays_one_row(tmp_path: Path) -> None:
    """Its images are counted once: which ones they were is not kept."""
    clinic = TickingClinic(tmp_path, [slice_of(number, patient_id="TEST-2") for number in (1, 2, 3)])
    async with triggered(clinic) as (opened, trigger):
        await tell(trigger, clinic.pacs.held)
        await until_nothing_waits(opened)
        before = not_included(opened)
        await tell(trigger, clinic.pacs.held[2:])
        await until_nothing_waits(opened)
        (row,) = not_included(opened)
        assert row.images == 3
        assert row.when > before[0].when


async def test_nothing_is_kept_of_what_no_project_includes_where_so_it_is_configured(tmp_path: Path) -> None:
    """But that there was something stands in the audit log, as ever."""
    clinic = TickingClinic(tmp_path, [slice_of(1, patient_id="TEST-2")])
    async with clinic.open() as opened:
        trigger = Trigger(opened.hospital, 0, keep_not_included=False)
        opened.nursery.start_soon(trigger.run)
        await tell(trigger, clinic.pacs.held)
        await until_nothing_waits(opened)
        assert not_included(opened) == []
        assert [it["outcome"] for it in opened.audited() if it["event"] == "quarantine"] == ["not-included"]


async def test_what_no_project_includes_is_forgotten_in_the_end(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """All of it page by page, also what a clock that was years ahead has dated; nothing of a project is touched."""
    assert autojump_clock.rate == 0
    clinic = TickingClinic(tmp_path)
    async with clinic.open() as opened:
        store, days = opened.hospital.store, [*range(10), 3000]
        refused = quarantined(1)

        def fill(tx: Transaction) -> None:
            tx.quarantine.put(refused)
            for number in range(len(days) * PAGE):
                when = NOW + DAY * days[number % len(days)]
                remember_not_included(tx, "1.2", f"1.2.{number}", images=1, now=when)

        await store.write(fill)
        clinic.now = NOW + 9 * DAY + HOUR / 2
        opened.nursery.start_soon(forget_old, opened.hospital, 4 * DAY)
        await trio.sleep(1)
        assert {round((it.when - NOW) / DAY) for it in not_included(opened)} == {6, 7, 8, 9}
        assert len(not_included(opened)) == 4 * PAGE
        await trio.sleep(2 * DAY)
        assert {round((it.when - NOW) / DAY) for it in not_included(opened)} == {8, 9}
        assert store.read(lambda tx: tx.quarantine.all(refused.project)) == [refused]


async def test_the_header_decides_where_the_list_names_another_issuer(tmp_path: Path) -> None:
    """The same number at another hospital is another patient."""
    clinic = TickingClinic(tmp_path, slices([1]))
    clinic.inclusion = including(PatientKey(issuer="ELSEWHERE", patient_id="TEST-1"))
    async with triggered(clinic) as (opened, trigger):
        await tell(trigger, clinic.pacs.held)
        await until_nothing_waits(opened)
        assert opened.names() == []
        assert len(not_included(opened)) == 1


async def test_a_kill_after_the_answer_loses_nothing(tmp_path: Path) -> None:
    """The notice is in the store before the status is sent; the next start works on it."""
    clinic = Clinic(tmp_path, slices(range(1, 4)))
    clinic.store = LmdbStore.open(tmp_path / "store", map_size=2**28)
    async with clinic.open() as opened:
        await tell(Trigger(opened.hospital, 0), clinic.pacs.held[:1])  # its task never runs
    await clinic.store.aclose()
    clinic.store = LmdbStore.open(tmp_path / "store", map_size=2**28)
    clinic.now += 10
    async with triggered(clinic) as (opened, _):
        await until_nothing_waits(opened)
        await until_visible(opened, 3)
    await clinic.store.aclose()


async def test_a_pacs_that_is_down_is_asked_again(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Less and less often, and the notice waits."""
    assert autojump_clock.rate == 0
    clinic = TickingClinic(tmp_path, slices(range(1, 4)))
    clinic.pacs.is_stopped = True
    clinic.until += dt.timedelta(days=1)
    async with triggered(clinic) as (opened, trigger):
        await tell(trigger, clinic.pacs.held)
        await trio.sleep(HOUR)
        assert len(waiting(opened)) == 1
        clinic.pacs.is_stopped = False
        await until_nothing_waits(opened, 2 * HOUR)
        assert [series.expected for series in opened.series()] == [3]


async def test_a_series_that_the_pacs_never_names_is_forgotten_in_the_end(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """After a month, not before."""
    assert autojump_clock.rate == 0
    clinic = TickingClinic(tmp_path)
    async with triggered(clinic) as (opened, trigger):
        await tell(trigger, slices([1]))
        clinic.now = NOW + GIVEN_UP_AFTER - DAY
        await trio.sleep(2 * HOUR)
        assert len(waiting(opened)) == 1
        clinic.now = NOW + GIVEN_UP_AFTER + DAY
        await trio.sleep(2 * HOUR)
        assert waiting(opened) == []


async def test_a_notice_from_a_clock_that_was_ahead_is_heeded(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A machine came up in another year, was told of a series, and was put right: it does not wait for that year."""
    assert autojump_clock.rate == 0
    clinic = TickingClinic(tmp_path, slices((1, 2)))
    clinic.until = dt.date.max
    async with triggered(clinic, settle=HOUR) as (opened, trigger):
        clinic.now += 1000 * DAY
        await tell(trigger, clinic.pacs.held)
        await trio.sleep(1)
        clinic.now -= 1000 * DAY
        await trio.sleep(HOUR / 2)
        assert opened.names() == []
        await until_nothing_waits(opened, seconds=HOUR)
        assert len(opened.names()) == 2


async def test_a_pause_does_not_grow_by_a_clock_that_is_set_back(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A PACS that was down is asked again as soon as it would have been."""
    assert autojump_clock.rate == 0
    clinic = TickingClinic(tmp_path, slices((1,)))
    clinic.pacs.is_stopped = True
    async with triggered(clinic) as (opened, trigger):
        await tell(trigger, clinic.pacs.held)
        await trio.sleep(2)
        clinic.now -= DAY
        clinic.pacs.is_stopped = False
        await until_nothing_waits(opened, seconds=HOUR)


class FullStore(CuttingStore):
    """A store whose disk is full whenever notices are to go, until it is given room."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, sys.maxsize, is_kept=True)
        self.is_full = True

    async def write(self, act: Callable[[Transaction], T]) -> T:
        """Write, but for that."""
        before = len(self.read(lambda tx: tx.notices.all()))

        def look(tx: Transaction) -> T:
            result = act(tx)
            if self.is_full and len(tx.notices.all()) < before:
                message = "the disk is full"
                raise OutOfSpaceError(message)
            return result

        return await super().write(look)


async def test_a_full_disk_does_not_end_the_trigger(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Where a notice cannot be forgotten, its series is looked at again later."""
    assert autojump_clock.rate == 0
    clinic = TickingClinic(tmp_path, slices((1, 2)))
    clinic.until = dt.date.max
    store = clinic.store = FullStore(clinic.store)
    async with triggered(clinic) as (opened, trigger):
        await tell(trigger, clinic.pacs.held)
        await until_visible(opened, 2, HOUR)
        await trio.sleep(HOUR)
        assert len(waiting(opened)) == 1
        store.is_full = False
        await until_nothing_waits(opened, seconds=2 * HOUR)


async def test_a_series_that_grows_is_looked_at_again(tmp_path: Path) -> None:
    """An instance that comes after it was registered makes it grow, and is registered once."""
    clinic = TickingClinic(tmp_path, slices(range(1, 4)))
    async with triggered(clinic) as (opened, trigger):
        await tell(trigger, clinic.pacs.held)
        await until_nothing_waits(opened)
        clinic.pacs.held.append(slice_of(4))
        await tell(trigger, clinic.pacs.held[3:])
        await until_nothing_waits(opened)
        assert len(opened.names()) == 4
        assert set(clinic.pacs.sent.values()) == {1}


async def test_harvest_and_trigger_do_not_register_twice(tmp_path: Path) -> None:
    """They may come upon a series at the same moment; one waits for the other."""
    clinic = TickingClinic(tmp_path, slices(range(1, 6)))
    clinic.pacs.delay = 0.02
    async with triggered(clinic) as (opened, trigger):
        await tell(trigger, clinic.pacs.held)
        await trio.sleep(0.45)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(opened.harvest)
        await until_nothing_waits(opened)
        assert len(opened.names()) == 5
        assert set(clinic.pacs.sent.values()) == {1}
