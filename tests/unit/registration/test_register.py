"""Registration over twins: once, whole, of one patient, whatever breaks off in between."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from pydicom import Dataset

from mdmfs.hospital.dicom.pacs import IncomingInstance, InstanceFound, InstanceKey, SeriesFound
from mdmfs.hospital.ledger.records import DEPOSIT, SeriesState
from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.hospital.projects import Partial
from mdmfs.hospital.registration.harvest import Harvest
from mdmfs.hospital.registration.register import Registration
from mdmfs.hospital.store import Store, Transaction
from mdmfs.model.errors import OutOfSpaceError
from mdmfs.sharing.shamir import Share, combine
from mdmfs.wire.messages.keystores import KeyEntry, Outcome
from tests.twins.clinic import KEYSTORES, OWNER, PATIENT, PROJECT, Clinic, OpenClinic, including, slice_of, slices
from tests.twins.cutting import CuttingStore, PowerCutError
from tests.twins.disk import no_room_behind
from tests.twins.images import ROOT
from tests.twins.keystores import shares_of, unreachable
from tests.twins.pacs import TwinInstance, TwinPacs
from tests.twins.store import MemoryStore

T = TypeVar("T")


class HookedStore(CuttingStore):
    """A store that does something before the second write from when it is told to: that of the first instances."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, sys.maxsize, is_kept=True)
        self._writes = 0
        self.before_second: Callable[[], Awaitable[None]] | None = None

    async def write(self, act: Callable[[Transaction], T]) -> T:
        """Write, after what is to come before it."""
        self._writes += self.before_second is not None
        if self.before_second is not None and self._writes == 2:
            await self.before_second()
        return await super().write(act)


class GrowingPacs(TwinPacs):
    """A PACS to which a modality is still sending: an instance more at every count, until none is left."""

    def __init__(self, held: list[Dataset], coming: list[Dataset]) -> None:
        super().__init__(held)
        self._coming = coming

    async def find_series(self, *, patient_id: str | None = None, study_uid: str | None = None) -> list[SeriesFound]:
        """Count, and grow once the instances were fetched."""
        if self.recalls and self._coming:
            self.held.append(self._coming.pop(0))
        return await super().find_series(patient_id=patient_id, study_uid=study_uid)


class DyingPacs(TwinPacs):
    """A PACS that cannot be reached when the instances of its n-th series are asked for, and of some after it."""

    def __init__(self, held: list[Dataset], fails_at: int, fails: int) -> None:
        super().__init__(held)
        self.fails_at = fails_at
        self._fails = fails

    async def find_instances(
        self, *, study_uid: str, series_uid: str, are_described: bool = True
    ) -> list[InstanceFound]:
        """List, or fail."""
        self.is_stopped = self.fails_at <= self.listings + 1 < self.fails_at + self._fails
        try:
            return await super().find_instances(study_uid=study_uid, series_uid=series_uid, are_described=are_described)
        finally:
            self.is_stopped = False


class ForgetfulPacs(TwinPacs):
    """A PACS that counts an instance which it does not deliver the first time, and says nothing of it."""

    async def _retrieve(
        self, keys: Sequence[InstanceKey], series_uid: str = ""
    ) -> AsyncGenerator[IncomingInstance, None]:
        is_left_out = not self.recalls
        async with contextlib.aclosing(super()._retrieve(keys, series_uid)) as arriving:
            async for incoming in arriving:
                if not is_left_out:
                    yield incoming
                is_left_out = False


class AnnouncingPacs(TwinPacs):
    """A PACS that says when it has come to its last instance."""

    def __init__(self, held: list[Dataset]) -> None:
        super().__init__(held)
        self.has_begun_the_last = trio.Event()

    async def _begin(self, held: Dataset) -> TwinInstance:
        if held is self.held[-1]:
            self.has_begun_the_last.set()
        return await super()._begin(held)


class SlowPacs(TwinPacs):
    """A PACS whose next instance comes when the batches before it are remembered."""

    def __init__(self, held: list[Dataset], monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(held)
        self._flush = Registration.flush
        self._remembering = trio.Lock()
        pacs = self

        async def flush(series: Registration, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            async with pacs._remembering:
                await pacs._flush(series, task_status=task_status)

        monkeypatch.setattr(Registration, "flush", flush)

    async def _begin(self, held: Dataset) -> TwinInstance:
        async with self._remembering:
            return await super()._begin(held)


class QuotingInstance(TwinInstance):
    """An instance on which a library stumbles, and says on what."""

    async def __anext__(self) -> memoryview:
        """Fail in a way that nobody foresaw."""
        await trio.lowlevel.checkpoint()
        message = "Smith^John is no number"
        raise ValueError(message)


class StumblingPacs(TwinPacs):
    """A PACS with one instance that brings the unforeseen."""

    def __init__(self, held: list[Dataset], stumbles_at: str) -> None:
        super().__init__(held)
        self._stumbles_at = stumbles_at

    async def _retrieve(
        self, keys: Sequence[InstanceKey], series_uid: str = ""
    ) -> AsyncGenerator[IncomingInstance, None]:
        async with contextlib.aclosing(super()._retrieve(keys, series_uid)) as instances:
            async for instance in instances:
                if instance.instance_uid == self._stumbles_at:
                    held = next(it for it in self.held if it.SOPInstanceUID == self._stumbles_at)
                    yield QuotingInstance(held, lambda: False, is_cut=False)
                else:
                    yield instance


def only_series(hospital: OpenClinic) -> SeriesState:
    """Give the state of the one series."""
    (series,) = hospital.series()
    return series.state


def reasons(hospital: OpenClinic) -> list[str]:
    """Give the reasons of all that is quarantined."""
    return [it.reason for it in hospital.hospital.store.read(lambda tx: tx.quarantine.all(PROJECT))]


async def read_all(hospital: OpenClinic) -> int:
    """Read every visible file as a worker does; give how many there are."""
    files = hospital.files()
    for guid in files.values():
        assert await hospital.read(guid)
    return len(files)


# Two commits


async def test_a_series_appears_whole_once_enough_keystores_have_acknowledged(tmp_path: Path) -> None:
    """Three files, w = 2: no name with no keystore, none with one, all with two, in one version of the feed."""
    clinic = Clinic(tmp_path, slices(range(1, 4)))
    for twin in clinic.keystores.values():
        twin.failure = unreachable
    async with clinic.open() as hospital:
        assert (await hospital.harvest()).depositing == 1
        assert (hospital.names(), only_series(hospital)) == ([], SeriesState.DEPOSITING)
        before = clinic.store.read(lambda tx: tx.feed.version())
    clinic.keystores["k3"].failure = None
    async with clinic.open() as hospital:
        await hospital.deliver()
        assert hospital.names() == []
    clinic.keystores["k1"].failure = None
    async with clinic.open() as hospital:
        await hospital.deliver()
        assert [name[-8:] for name in hospital.names()] == ["0001.dcm", "0002.dcm", "0003.dcm"]
        assert clinic.store.read(lambda tx: tx.feed.version()) == before + 1
        assert await read_all(hospital) == 3


async def test_a_series_of_which_an_instance_did_not_come_waits_for_it(tmp_path: Path) -> None:
    """Although the PACS counts as many as before: half a volume is worse than none."""
    clinic = Clinic(tmp_path, slices(range(1, 4)))
    clinic.pacs = ForgetfulPacs(clinic.pacs.held)
    async with clinic.open() as hospital:
        assert (await hospital.harvest()).registered == 2
        assert (hospital.names(), only_series(hospital)) == ([], SeriesState.REGISTERING)
        assert (await hospital.harvest()).registered == 1
        assert len(hospital.names()) == 3


async def test_a_series_that_two_register_at_once_is_registered_once(tmp_path: Path) -> None:
    """A harvest while a PACS tells of it: the second finds what the first has done, and asks for no image."""
    clinic = Clinic(tmp_path, slices(range(1, 4)))
    async with clinic.open() as hospital:
        runs = [Harvest(hospital.hospital.projects[PROJECT], ("main",)) for _ in range(2)]
        async with trio.open_nursery() as nursery:
            for run in runs:
                nursery.start_soon(run.run, hospital.hospital)
        await hospital.deliver()
        assert sorted((run.registered, run.known) for run in runs) == [(0, 3), (3, 0)]
        assert len(clinic.store.read(lambda tx: tx.catalogue.files())) == len(hospital.names()) == 3
        assert clinic.pacs.recalls == 1
        assert await read_all(hospital) == 3


@pytest.mark.parametrize("is_kept", [False, True])
async def test_a_power_cut_at_any_write_loses_nothing_and_doubles_nothing(tmp_path: Path, *, is_kept: bool) -> None:
    """After each, the next harvest ends with every file once, with shares of one split at every keystore."""
    at, is_cut = 1, True
    while is_cut:
        folder = tmp_path / str(at)
        folder.mkdir()
        clinic = Clinic(folder, [*slices((1, 2)), refused_slice(3)])
        clinic.partial = Partial.SHOW
        store = clinic.store
        cutting = clinic.store = CuttingStore(store, at, is_kept=is_kept)
        others: BaseException | None = None
        try:
            async with clinic.open() as hospital:
                await hospital.harvest()
        except BaseExceptionGroup as group:
            others = group.split(PowerCutError)[1]
        assert others is None, others
        is_cut, clinic.store = cutting.is_cut, store
        async with clinic.open() as hospital:
            progress = await hospital.harvest()
            assert (len(hospital.names()), progress.failures, reasons(hospital)) == (2, [], ["image-type"]), at
            for held in clinic.pacs.held[:2]:
                uid = str(held.SOPInstanceUID)
                (guid,) = store.read(lambda tx, uid=uid: tx.uidmap.guids_of(PROJECT, uid))
                assert await hospital.read(guid)
            (series,) = hospital.series()
            assert set(series.acknowledged.values()) == {2}, at
            assert len(store.read(lambda tx: tx.catalogue.files())) == 2
        at += 1
    assert at > 6


async def test_a_restart_sends_the_same_shares_again(tmp_path: Path) -> None:
    """What a keystore already keeps is no conflict: it is the same share."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with clinic.open(deposits=False) as hospital:
        await hospital.harvest()
        deposits = deposits_of(hospital)
        for name, entries in deposits.items():
            await hospital.hospital.keystores.register(name, entries, deadline=trio.current_time() + 5)
    async with clinic.open() as hospital:
        await hospital.deliver()
        assert only_series(hospital) is SeriesState.VISIBLE
        assert set(hospital.series()[0].acknowledged.values()) == {1}
        assert await read_all(hospital) == 1


async def test_nothing_is_deposited_from_a_store_that_may_not_be_the_latest(
    tmp_path: Path, autojump_clock: object
) -> None:
    """Another daemon may have deposited it, and destroyed its keys since; once the store is, all arrives."""
    assert autojump_clock is not None
    clinic = Clinic(tmp_path, slices([1]))
    store = clinic.store
    assert isinstance(store, MemoryStore)
    async with clinic.open(deposits=False) as hospital:
        await hospital.harvest()
    store.is_stale = True
    async with clinic.open() as hospital:
        await trio.sleep(60)
        assert [len(items) for items in deposits_of(hospital).values()] == [1] * len(KEYSTORES)
        assert hospital.names() == []
        store.is_stale = False
        await trio.sleep(60)
        assert len(hospital.names()) == 1


def deposits_of(hospital: OpenClinic) -> dict[str, list[KeyEntry]]:
    """Open what waits in the outbox for each keystore."""
    found: dict[str, list[KeyEntry]] = {}
    for name in hospital.hospital.keystores.names:
        for item in hospital.hospital.store.read(lambda tx, name=name: tx.outbox.peek(name, limit=100)):
            assert item.kind == DEPOSIT
            found.setdefault(name, []).extend(hospital.hospital.seal.open(name, item.payload).entries)
    return found


async def test_a_keystore_that_keeps_another_share_does_not_count(tmp_path: Path) -> None:
    """CONFLICT at two of three: the series stays hidden, because one share is no key."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open(deposits=False) as hospital:
        await hospital.harvest()
        for name in ("k1", "k2"):
            guid = Share.parse(deposits_of(hospital)[name][0].share).guid
            other = KeyEntry(shares_of(guid, b"\7" * 32, generation=1)[0].encode(), [])
            outcomes = await hospital.hospital.keystores.register(name, [other], deadline=trio.current_time() + 5)
            assert outcomes == [Outcome.DONE]
    async with clinic.open() as hospital:
        await hospital.deliver()
        assert (hospital.names(), only_series(hospital)) == ([], SeriesState.DEPOSITING)
        assert hospital.series()[0].acknowledged == {"k1": 1, "k2": 1, "k3": 2}


async def test_a_keystore_no_longer_configured_does_not_count(tmp_path: Path) -> None:
    """Shares at a keystore that nobody asks any more make no key."""
    clinic = Clinic(tmp_path, slices((1,)))
    clinic.keystores["k2"].failure = clinic.keystores["k3"].failure = unreachable
    async with clinic.open() as hospital:
        await hospital.harvest()
    del clinic.keystores["k1"]
    clinic.keystores["k3"].failure = None
    async with clinic.open() as hospital:
        await hospital.deliver()
        assert hospital.names() == []


async def test_the_outbox_on_disk_holds_no_share(tmp_path: Path) -> None:
    """Whoever copies the store finds GUIDs, but of no share a single byte pattern; outbox.key is another file."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    clinic.store = LmdbStore.open(tmp_path / "store", map_size=2**28)
    async with clinic.open(deposits=False) as hospital:
        await hospital.harvest()
        shares = [Share.parse(entry.share) for entries in deposits_of(hospital).values() for entry in entries]
        files = hospital.hospital.store.read(lambda tx: tx.catalogue.files())
    await clinic.store.aclose()
    disk = b"".join(path.read_bytes() for path in (tmp_path / "store").iterdir())
    assert len(shares) == 6
    assert all(share.guid.octets in disk for share in shares)
    assert not any(share.y in disk or share.split_id in disk for share in shares)
    for file in files:
        secret = combine([share for share in shares if share.guid == file.guid][:2])
        assert secret not in disk
        assert file.key_check in disk
    assert (tmp_path / "outbox.key").stat().st_mode & 0o777 == 0o600


# What the PACS does


async def test_a_series_that_grows_stays_hidden_until_two_counts_agree(tmp_path: Path) -> None:
    """The second count finds one more: nothing is shown; the next harvest fetches that one alone, and shows all."""
    clinic = Clinic(tmp_path)
    pacs = clinic.pacs = GrowingPacs(slices((1, 2)), slices((3,)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        assert (hospital.names(), only_series(hospital)) == ([], SeriesState.REGISTERING)
        progress = await hospital.harvest()
        assert (progress.registered, progress.known, len(hospital.names())) == (1, 2, 3)
        assert set(pacs.sent.values()) == {1}


async def test_late_instances_join_a_visible_series(tmp_path: Path) -> None:
    """What was visible stays so, under the same GUIDs; the new ones appear together in the same directory."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        before = hospital.files()
        clinic.pacs.held += slices((3, 4))
        for twin in clinic.keystores.values():
            twin.failure = unreachable
        await hospital.harvest()
        assert hospital.files() == before
    for twin in clinic.keystores.values():
        twin.failure = None
    async with clinic.open() as hospital:
        await hospital.harvest()
        after = hospital.files()
        assert len(after) == 4
        assert before.items() <= after.items()
        assert len({name.rpartition("/")[0] for name in after}) == 1
        assert await read_all(hospital) == 4


@pytest.mark.parametrize("fault", ["withheld", "cut"])
async def test_what_came_whole_before_the_pacs_failed_is_not_asked_for_again(tmp_path: Path, fault: str) -> None:
    """One of four does not come: nothing is shown; the next harvest fetches what is missing, and no more."""
    clinic = Clinic(tmp_path, slices(range(1, 5)))
    getattr(clinic.pacs, fault).add(f"{ROOT}.1.1.4")
    async with clinic.open() as hospital:
        progress = await hospital.harvest()
        assert (len(progress.failures), hospital.names()) == (1, [])
        assert not any(ROOT in failure for failure in progress.failures)
        getattr(clinic.pacs, fault).clear()
        progress = await hospital.harvest()
        assert (progress.registered, progress.known, len(hospital.names())) == (1, 3, 4)
        assert [clinic.pacs.sent[f"{ROOT}.1.1.{number}"] for number in (1, 2, 3)] == [1, 1, 1]


async def test_a_series_longer_than_a_transaction_is_whole_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several transactions, none too long and shorter ones towards the end, are one series."""
    clinic = Clinic(tmp_path, [slice_of(number, size=8) for number in range(1, 171)])
    clinic.pacs = SlowPacs(clinic.pacs.held, monkeypatch)
    async with clinic.open() as hospital:
        assert (await hospital.harvest()).registered == 170
        assert len(hospital.names()) == 170
        found = [record for record in hospital.audited() if record["event"] == "registration"]
        assert [record["count"] for record in found] == [64, 35, 32, 32, 7]


async def test_a_pacs_need_not_wait_until_what_came_is_remembered(tmp_path: Path) -> None:
    """The first transaction is held up until the last instance comes."""
    clinic = Clinic(tmp_path, [slice_of(number, size=8) for number in range(1, 71)])
    store = clinic.store = HookedStore(clinic.store)
    pacs = clinic.pacs = AnnouncingPacs(clinic.pacs.held)
    async with clinic.open() as hospital:
        store.before_second = pacs.has_begun_the_last.wait
        with trio.fail_after(60):
            assert (await hospital.harvest()).registered == 70
        counts = [record["count"] for record in hospital.audited() if record["event"] == "registration"]
        assert counts == [64, 6]


async def test_a_batch_that_cannot_be_remembered_ends_the_series_and_is_told(tmp_path: Path) -> None:
    """The disk is full for the first of two transactions: nothing is shown, and the next harvest has all of it."""
    clinic = Clinic(tmp_path, [slice_of(number, size=8) for number in range(1, 71)])
    store = clinic.store = HookedStore(clinic.store)

    async def refuse() -> None:
        await trio.lowlevel.checkpoint()
        message = "no room is left"
        raise OutOfSpaceError(message)

    async with clinic.open() as hospital:
        store.before_second = refuse
        progress = await hospital.harvest()
        assert ["no room is left" in failure for failure in progress.failures] == [True]
        assert hospital.names() == []
        assert (await hospital.harvest()).failures == []
        assert len(hospital.names()) == 70


async def test_the_unforeseen_in_one_series_spares_the_others_and_is_not_quoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], faults: list[str]
) -> None:
    """An incident number is told; neither progress nor log repeats what the failing library said."""
    clinic = Clinic(tmp_path)
    clinic.pacs = StumblingPacs([*slices((1,), series=1), *slices((1,), series=2)], f"{ROOT}.1.1.1")
    async with clinic.open() as hospital:
        progress = await hospital.harvest()
        (failure,) = progress.failures
        assert "incident" in failure
        assert "Smith" not in failure
        assert [name.split("/")[2] for name in hospital.names()] == ["002-CT"]
    printed = capsys.readouterr()
    assert "Smith" not in printed.out + printed.err
    faults.clear()


async def test_a_pacs_that_is_down_is_told_and_the_next_harvest_goes_on(tmp_path: Path) -> None:
    """No exception ends the daemon."""
    clinic = Clinic(tmp_path, slices((1,)))
    clinic.pacs.is_stopped = True
    async with clinic.open() as hospital:
        assert len((await hospital.harvest()).failures) == 1
        clinic.pacs.is_stopped = False
        assert (await hospital.harvest()).registered == 1


@pytest.mark.parametrize("fails_at", [1, 5])
async def test_a_pacs_that_dies_ends_the_harvest_with_one_error_that_tells_what_is_left(
    tmp_path: Path, fails_at: int
) -> None:
    """Not with one for each of thousands of series; and the next harvest goes on."""
    clinic = Clinic(tmp_path, [it for series in range(1, 9) for it in slices((1,), series=series)])
    pacs = clinic.pacs = DyingPacs(clinic.pacs.held, fails_at, sys.maxsize)
    async with clinic.open() as hospital:
        progress = await hospital.harvest()
        (failure,) = progress.failures
        done = fails_at - 1
        assert f"{done} of its 8 series were gone through, {8 - done} are left: run the harvest again" in failure
        assert (progress.series_done, progress.registered, len(hospital.names())) == (done, done, done)
        pacs.fails_at = sys.maxsize
        again = await hospital.harvest()
        assert (again.series_done, again.registered, again.known, again.failures) == (8, 8 - done, done, [])


class FullStore(CuttingStore):
    """A store on a disk that is full while it is told so."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, sys.maxsize, is_kept=True)
        self.is_full = False

    async def write(self, act: Callable[[Transaction], T]) -> T:
        """Write, or not."""
        if self.is_full:
            message = "no room is left"
            raise OutOfSpaceError(message)
        return await super().write(act)


@pytest.mark.parametrize("what", ["store", "audit log"])
async def test_a_harvest_on_a_full_disk_is_given_up_and_fetches_no_more(tmp_path: Path, what: str) -> None:
    """It would fetch a whole archive in vain, or register it without a line in the log."""
    clinic = Clinic(tmp_path, [it for series in range(1, 9) for it in slices((1,), series=series)])
    store = clinic.store = FullStore(clinic.store)
    async with clinic.open() as hospital:
        with contextlib.ExitStack() as full:
            if what == "store":
                store.is_full = True
            else:
                full.enter_context(no_room_behind(tmp_path / "audit.jsonl"))
            progress = await hospital.harvest()
        store.is_full = False
        (failure,) = progress.failures
        assert "0 of its 8 series were gone through, 8 are left" in failure
        assert (progress.series_done, clinic.pacs.recalls, hospital.names()) == (0, 3, [])
        assert (await hospital.harvest()).failures == []
        assert len(hospital.names()) == 8


async def test_a_pacs_that_is_away_for_a_moment_costs_the_series_of_that_moment(tmp_path: Path) -> None:
    """It may have been restarted: the rest of the harvest is registered."""
    clinic = Clinic(tmp_path, [it for series in range(1, 9) for it in slices((1,), series=series)])
    clinic.pacs = DyingPacs(clinic.pacs.held, 3, 2)
    async with clinic.open() as hospital:
        progress = await hospital.harvest()
        assert (progress.series_done, progress.registered, len(progress.failures)) == (8, 6, 2)


# Refusals


def refused_slice(number: int, *, series: int = 1) -> Dataset:
    """Make a slice that somebody has drawn on, for all that the header says."""
    instance = slice_of(number, series=series)
    instance.ImageType = ["DERIVED", "SECONDARY"]
    return instance


@pytest.mark.parametrize(("partial", "shown"), [(Partial.HIDE, 0), (Partial.SHOW, 2)])
async def test_a_refused_instance_hides_its_series_unless_the_project_says_otherwise(
    tmp_path: Path, partial: Partial, shown: int
) -> None:
    """Half a volume is worse than none; the refusal has a reason and stays, and is asked for once."""
    clinic = Clinic(tmp_path, [slice_of(1), refused_slice(2), slice_of(3)])
    clinic.partial = partial
    async with clinic.open() as hospital:
        assert (await hospital.harvest()).refused == 1
        assert (len(hospital.names()), reasons(hospital)) == (shown, ["image-type"])
        progress = await hospital.harvest()
        assert (progress.registered, progress.refused, len(hospital.names())) == (0, 0, shown)
        assert set(clinic.pacs.sent.values()) == {1}
        (quarantined,) = [record for record in hospital.audited() if record["event"] == "quarantine"]
        assert quarantined["outcome"] == "image-type"


async def test_refused_images_are_remembered_in_batches_too(tmp_path: Path) -> None:
    """Each would else cost a commit and a line of the log, each of them synced: a whole archive may be refused."""
    clinic = Clinic(tmp_path, [refused_slice(number) for number in range(1, 71)])
    store = clinic.store = CuttingStore(clinic.store, sys.maxsize, is_kept=True)
    async with clinic.open() as hospital:
        before = store.writes
        assert (await hospital.harvest()).refused == 70
        assert store.writes - before == 4  # the patient, two batches, the end of the series
        assert reasons(hospital) == ["image-type"] * 70
        told = [record["count"] for record in hospital.audited() if record["event"] == "quarantine"]
        assert told == [64, 6]


async def test_a_patient_who_is_on_no_list_is_not_registered(tmp_path: Path) -> None:
    """The PACS finds by Patient ID alone; the issuer in the header decides, and nothing is remembered."""
    other = slice_of(1)
    other.IssuerOfPatientID = "ELSEWHERE"
    clinic = Clinic(tmp_path, [other])
    async with clinic.open() as hospital:
        progress = await hospital.harvest()
        assert (progress.registered, progress.refused, hospital.series()) == (0, 0, [])
        find = clinic.store.read(lambda tx: tx.subjects.find(PROJECT, "ELSEWHERE", "TEST-1"))
        assert find is None


@pytest.mark.parametrize("opted_out", [including(PATIENT), including(type(PATIENT)("", "TEST-1"))])
async def test_an_opt_out_overrides_the_inclusion(tmp_path: Path, opted_out: object) -> None:
    """With the issuer, and without one, where any is meant."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    clinic.opted_out = opted_out  # type: ignore[assignment]
    async with clinic.open() as hospital:
        assert (await hospital.harvest()).registered == 0
        assert hospital.series() == []


async def test_a_study_can_be_included_and_opted_out_by_its_uid(tmp_path: Path) -> None:
    """One list names the study, the other outdoes it."""
    clinic = Clinic(tmp_path, slices((1,)))
    clinic.inclusion = including(studies=[f"{ROOT}.1"])
    clinic.opted_out = including(studies=[f"{ROOT}.1"])
    async with clinic.open() as hospital:
        assert (await hospital.harvest()).registered == 0
    clinic.opted_out = including()
    async with clinic.open() as hospital:
        assert (await hospital.harvest()).registered == 1


async def test_the_pacs_lends_its_issuer_to_images_that_name_none(tmp_path: Path) -> None:
    """The same list includes them with the right default, and not with another."""
    bare = slices((1,))
    del bare[0].IssuerOfPatientID
    clinic = Clinic(tmp_path, bare)
    clinic.issuer = "ELSEWHERE"
    async with clinic.open() as hospital:
        assert (await hospital.harvest()).registered == 0
    clinic.issuer = "AMC"
    async with clinic.open() as hospital:
        assert (await hospital.harvest()).registered == 1


@pytest.mark.parametrize(("patient_id", "reason"), [("TEST-2", "other-patient"), ("", "no-patient")])
async def test_one_header_of_another_patient_hides_the_series(tmp_path: Path, patient_id: str, reason: str) -> None:
    """Even where the other one is included as well."""
    held = slices((1, 2))
    held.insert(1, slice_of(9, patient_id=patient_id))
    clinic = Clinic(tmp_path, held)
    clinic.inclusion = including(PATIENT, type(PATIENT)("AMC", "TEST-2"), studies=[f"{ROOT}.1"])
    async with clinic.open() as hospital:
        await hospital.harvest()
        assert (hospital.names(), reasons(hospital)) == ([], [reason])


async def test_a_later_run_takes_no_other_patient_into_a_series(tmp_path: Path) -> None:
    """The series was begun with one patient: an instance of another, though included, never joins it."""
    clinic = Clinic(tmp_path, slices((1,)))
    clinic.inclusion = including(PATIENT, type(PATIENT)("AMC", "TEST-2"))
    clinic.partial = Partial.SHOW
    async with clinic.open() as hospital:
        await hospital.harvest()
        (before,) = hospital.names()
        clinic.pacs.held.append(slice_of(2, patient_id="TEST-2"))
        await hospital.harvest()
        assert (hospital.names(), reasons(hospital)) == ([before], ["other-patient"])


async def test_an_instance_that_says_it_is_of_another_series_is_refused(tmp_path: Path) -> None:
    """The PACS sends under one series what its header places in another."""

    class LyingPacs(TwinPacs):
        async def _retrieve(self, *_: object) -> AsyncGenerator[IncomingInstance, None]:
            for instance in self.held:
                instance.SeriesInstanceUID = f"{ROOT}.1.77"
                yield TwinInstance(instance, lambda: False, is_cut=False)
                instance.SeriesInstanceUID = f"{ROOT}.1.1"

    clinic = Clinic(tmp_path)
    clinic.pacs = LyingPacs(slices((1,)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        assert (hospital.names(), reasons(hospital)) == ([], ["other-instance"])


async def test_only_the_owner_registers_at_the_keystores(tmp_path: Path) -> None:
    """Every entry lies there as the hospital's own, under the ACLs of all directories above it."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        (guid,) = hospital.files().values()
        page = clinic.keystores["k1"].shelf
        record = await page.read(lambda page: page.key(guid))
        assert record is not None
        assert record.owner == str(OWNER.dn)
        assert [list(chain) for chain in record.aliases] == clinic.store.read(lambda tx: tx.acls.chains_of(guid))
