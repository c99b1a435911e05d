"""Recalls over twins: one for all who wait, siblings together, verified or refused by name, and gone on with alone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

import pytest
import structlog.testing
import trio
import trio.lowlevel
import trio.testing
from pydicom import Dataset

from mdmfs.access.acl import Acl
from mdmfs.daemon.formats import MARK
from mdmfs.hospital.deid.header import IdentifiedHeader
from mdmfs.hospital.dicom.pacs import IncomingInstance, InstanceKey
from mdmfs.hospital.ledger.records import LossCause, LossRecord, SeriesState
from mdmfs.hospital.projects import Partial
from mdmfs.hospital.release.arrivals import Released
from mdmfs.hospital.release.queue import MAX_BATCH, PendingRecall, RecallQueue, Source
from mdmfs.hospital.release.release import release_all
from mdmfs.hospital.release.render import Admission
from mdmfs.model.errors import (
    InstanceChangedError,
    InstanceLostError,
    InstanceRefusedError,
    MdmfsError,
    NoSuchFileError,
    OutOfSpaceError,
    PacsUnreachableError,
    RecallFailedError,
    RecallTimedOutError,
    TooFewSharesError,
)
from mdmfs.model.names import Guid
from mdmfs.wire.messages.files import SEALED_PATH
from mdmfs.wire.service import StreamReply
from tests.twins.clinic import (
    NOW,
    PROJECT,
    READER,
    STRANGER,
    Clinic,
    OpenClinic,
    sealed_octets,
    slice_of,
    slices,
    until,
)
from tests.twins.images import ROOT
from tests.twins.keystores import unreachable
from tests.twins.pacs import TwinInstance, TwinPacs
from tests.twins.records import file_record, guid_of, instance_of
from tests.unit.hospital.test_store_away import AwayStore

BIG = 2112
"""Rows of an image whose pixels fill more than two segments."""


@contextlib.asynccontextmanager
async def registered(clinic: Clinic) -> AsyncGenerator[tuple[OpenClinic, list[Guid]]]:
    """Register everything, and forget what the PACS was asked for it."""
    async with clinic.open() as hospital:
        progress = await hospital.harvest()
        assert not progress.failures
        clinic.pacs.recalls = 0
        clinic.pacs.sent.clear()
        yield hospital, list(hospital.files().values())


def held(clinic: Clinic, number: int) -> Dataset:
    """Find a slice in the PACS."""
    return next(it for it in clinic.pacs.held if it.InstanceNumber == number)


def loss_of(hospital: OpenClinic, guid: Guid) -> LossCause | None:
    """Tell why a file is lost, if it is."""
    record = hospital.hospital.store.read(lambda tx: tx.losses.get(guid))
    return None if record is None else record.cause


def staged_names(clinic: Clinic) -> list[str]:
    """List what is in staging."""
    return sorted(path.name for path in (clinic.folder / "staging").iterdir() if path.name != MARK)


async def outcomes(hospital: OpenClinic, guids: Sequence[Guid]) -> list[str]:
    """Read files at once; give the kind of each failure, empty for what was read."""
    found = [""] * len(guids)

    async def read(index: int, guid: Guid) -> None:
        try:
            await hospital.read(guid)
        except MdmfsError as error:
            found[index] = type(error).__name__

    async with trio.open_nursery() as nursery:
        for index, guid in enumerate(guids):
            nursery.start_soon(read, index, guid)
    return found


# Together


async def test_two_hundred_who_wait_for_one_file_cause_one_recall(tmp_path: Path) -> None:
    """All read the same sealing of it."""
    async with registered(Clinic(tmp_path, slices((1,)))) as (hospital, [guid]):
        salts = set()

        async def read() -> None:
            staged = await hospital.release(guid)
            assert len(await sealed_octets(staged)) == staged.size
            salts.add(staged.salt)

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(read)
        assert hospital.clinic.pacs.sent == {f"{ROOT}.1.1.1": 1}
        assert len(salts) == 1


async def test_siblings_come_in_one_retrieval(tmp_path: Path) -> None:
    """Those that wait while the first one is under way come together, some 32 at a time."""
    clinic = Clinic(tmp_path, [slice_of(number, size=8) for number in range(1, 41)])
    async with registered(clinic) as (hospital, guids):
        clinic.pacs.delay = 0.002
        assert set(await outcomes(hospital, guids)) == {""}
        assert clinic.pacs.recalls <= 3
        assert set(clinic.pacs.sent.values()) == {1}


async def test_what_is_staged_is_not_recalled_again_even_after_a_restart(tmp_path: Path) -> None:
    """The same sealing serves until it is evicted."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with registered(clinic) as (hospital, [guid]):
        assert await hospital.read(guid)
        assert await hospital.read(guid)
    async with clinic.open() as hospital:
        clinic.pacs.is_stopped = True
        assert await hospital.read(guid)
        assert clinic.pacs.recalls == 1


async def test_an_evicted_file_is_recalled_again_under_a_fresh_salt(tmp_path: Path) -> None:
    """Staging of one file, two files read in turn."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    clinic.staging_bytes = 12_000
    async with registered(clinic) as (hospital, [first, second]):
        salt = (await hospital.release(first)).salt
        for guid in (first, second, first):
            await hospital.read(guid)
            await until(lambda guid=guid: staged_names(clinic) == [f"{guid}.1"])
        assert (await hospital.release(first)).salt != salt
        assert clinic.pacs.recalls == 3
        assert len(staged_names(clinic)) == 1


async def test_ten_thousand_who_wait_are_served_in_turn_at_the_cost_of_a_few() -> None:
    """Picking a batch does not go through all that wait; a large series keeps nobody waiting."""
    queue = RecallQueue()

    async def admit(_: IdentifiedHeader) -> Admission:
        raise NotImplementedError

    for number in range(10_000):
        instance = instance_of(number, series=number % 5000)
        queue.put(PendingRecall(Source(file_record(number), instance, admit, lambda: True)))
    begun, taken, turns = trio.current_time(), 0, 0
    while taken < 10_000:
        batch = (await queue.take()).recalls
        assert len({recall.source.instance.series for recall in batch}) == 1
        taken, turns = taken + len(batch), turns + 1
    assert trio.current_time() - begun < 1
    assert turns == 5000
    for number in range(100):
        queue.put(PendingRecall(Source(file_record(number), instance_of(number, series=1), admit, lambda: True)))
    queue.put(PendingRecall(Source(file_record(100), instance_of(100, series=2), admit, lambda: True)))
    assert [len((await queue.take()).recalls) for _ in range(5)] == [MAX_BATCH, 1, MAX_BATCH, MAX_BATCH, 4]


async def test_two_files_of_one_instance_are_recalled_one_after_the_other() -> None:
    """An old rendition and its successor are asked for at once: a retrieval brings an instance once."""
    queue = RecallQueue()

    async def admit(_: IdentifiedHeader) -> Admission:
        raise NotImplementedError

    for number in (1, 2):
        queue.put(PendingRecall(Source(file_record(number), instance_of(7), admit, lambda: True)))
    assert [[recall.guid for recall in (await queue.take()).recalls] for _ in range(2)] == [[guid_of(1)], [guid_of(2)]]


# In time


async def test_who_has_waited_long_enough_is_told_and_the_recall_goes_on(tmp_path: Path) -> None:
    """The second open succeeds without asking the PACS again."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with registered(clinic) as (_, [guid]):
        pass
    clinic.deadline, clinic.pacs.delay = 0.05, 0.2
    clinic.pacs.recalls = 0
    async with clinic.open() as hospital:
        with pytest.raises(RecallTimedOutError, match="open it again later"):
            await hospital.read(guid)
        await until(lambda: [name[-2:] for name in staged_names(clinic)] == [".1"])
        assert await hospital.read(guid)
        assert clinic.pacs.recalls == 1


async def test_a_waiter_who_goes_away_stops_nothing(tmp_path: Path) -> None:
    """His signal frees him at once; the others get their file."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with registered(clinic) as (hospital, [guid]):
        clinic.pacs.delay = 0.05
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hospital.read, guid)
            with trio.move_on_after(0.01) as scope:
                await hospital.read(guid)
            assert scope.cancelled_caught
        assert clinic.pacs.recalls == 1


async def test_one_who_asks_while_nothing_is_verified_yet_waits_like_the_first(tmp_path: Path) -> None:
    """Both get the salt of the same sealing, not an empty one."""
    clinic = Clinic(tmp_path, [slice_of(1, size=512)])
    async with registered(clinic) as (hospital, [guid]):
        etags: list[str] = []

        async def ask() -> None:
            answer = await hospital.ask(f"{SEALED_PATH}{guid}")
            assert isinstance(answer, StreamReply)
            etags.append(answer.etag)
            async for _ in answer.chunks:
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            while not staged_names(clinic):
                await trio.lowlevel.checkpoint()
            nursery.start_soon(ask)
        assert len(set(etags)) == 1
        assert len(bytes.fromhex(etags[0])) == 24


# What a PACS does


async def test_a_pacs_that_is_down_is_named_and_heals(tmp_path: Path) -> None:
    """Files that are staged are read all the while."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with registered(clinic) as (hospital, [warm, cold]):
        await hospital.read(warm)
        clinic.pacs.is_stopped = True
        assert await outcomes(hospital, [warm, cold]) == ["", PacsUnreachableError.__name__]
        clinic.pacs.is_stopped = False
        assert await hospital.read(cold)


async def test_a_lost_instance_is_named_and_its_siblings_come(tmp_path: Path) -> None:
    """The PACS has deleted one of three."""
    clinic = Clinic(tmp_path, slices((1, 2, 3)))
    async with registered(clinic) as (hospital, guids):
        clinic.pacs.held.remove(held(clinic, 2))
        assert await outcomes(hospital, guids) == ["", InstanceLostError.__name__, ""]
        assert len(staged_names(clinic)) == 2


def change_header(instance: Dataset) -> None:
    """Change what a reader would see."""
    instance.KVP = "140"


def change_pixels(instance: Dataset) -> None:
    """Change one bit of one pixel."""
    pixels = bytearray(instance.PixelData)
    pixels[0] ^= 1
    instance.PixelData = bytes(pixels)


@pytest.mark.parametrize(("change", "part"), [(change_header, "header"), (change_pixels, "pixels")])
async def test_an_instance_changed_in_the_pacs_is_named_and_refused(
    tmp_path: Path, change: Callable[[Dataset], None], part: str
) -> None:
    """Header or pixels are told apart, nothing is staged, and the siblings come."""
    clinic = Clinic(tmp_path, slices((1, 2, 3)))
    async with registered(clinic) as (hospital, guids):
        change(held(clinic, 1))
        assert await outcomes(hospital, guids) == [InstanceChangedError.__name__, "", ""]
        with pytest.raises(InstanceChangedError, match=f"another {part}"):
            await hospital.read(guids[0])
        assert [name.split(".")[0] for name in staged_names(clinic)] == sorted(map(str, guids[1:]))


async def test_what_a_pacs_changes_without_changing_the_image_is_no_change(tmp_path: Path) -> None:
    """Padding, a group length and the patient's name leave the rendition as it is."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with registered(clinic) as (hospital, [guid]):
        held(clinic, 1).PatientName = "Other^Spelling"
        held(clinic, 1).add_new(0xFFFCFFFC, "OB", bytes(64))
        assert await hospital.read(guid)


async def test_a_change_in_a_later_segment_cuts_the_stream(tmp_path: Path) -> None:
    """The first segment is verified and out; then the reader gets an error, never an end, and nothing stays staged."""
    clinic = Clinic(tmp_path, [slice_of(1, size=BIG)])
    async with registered(clinic) as (hospital, [guid]):
        pixels = bytearray(held(clinic, 1).PixelData)
        pixels[5 * 2**20] ^= 1
        held(clinic, 1).PixelData = bytes(pixels)
        answer = await hospital.ask(f"{SEALED_PATH}{guid}")
        assert isinstance(answer, StreamReply)
        given = 0
        with pytest.raises(InstanceChangedError):  # noqa: PT012 what came before counts
            async for piece in answer.chunks:
                given += len(piece)
        assert 0 < given <= 4 * 2**20 + 56 + 256 * 16
        assert staged_names(clinic) == []
        with pytest.raises(InstanceChangedError):
            await hospital.read(guid)


async def test_another_patient_in_the_header_takes_the_file_away(tmp_path: Path) -> None:
    """The recall is refused, its name goes with those of its series, as mounts hear at once; the reason stays."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with registered(clinic) as (hospital, guids):
        held(clinic, 1).PatientID = "TEST-2"
        feed, heard = hospital.hospital.feed, trio.Event()
        version = hospital.hospital.store.read(lambda tx: tx.feed.version())

        async def listen() -> None:
            await feed.changes(version, wait=3600)
            heard.set()

        hospital.nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        assert await outcomes(hospital, guids[:1]) == [InstanceRefusedError.__name__]
        await until(lambda: not hospital.files())
        await until(heard.is_set)
        assert [series.state for series in hospital.series()] == [SeriesState.HIDDEN]
        assert await outcomes(hospital, guids[1:]) == [NoSuchFileError.__name__]
        (record,) = hospital.hospital.store.read(lambda tx: tx.quarantine.all(PROJECT))
        assert record.reason == "other-patient"
        await until(lambda: hospital.audited()[-1]["event"] == "quarantine")


async def test_a_project_that_shows_parts_loses_one_name(tmp_path: Path) -> None:
    """The siblings of a file that was put away stay."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    clinic.partial = Partial.SHOW
    async with registered(clinic) as (hospital, guids):
        held(clinic, 1).PatientID = "TEST-2"
        assert await outcomes(hospital, guids) == [InstanceRefusedError.__name__, ""]
        await until(lambda: list(hospital.files().values()) == guids[1:])


async def test_a_faulty_answer_takes_no_name_away(tmp_path: Path) -> None:
    """What the PACS breaks it may mend: the file is refused, and counts as lost until it comes as it was."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with registered(clinic) as (hospital, guids):
        rows = held(clinic, 1).Rows
        held(clinic, 1).Rows = rows + 1
        assert await outcomes(hospital, guids) == [InstanceChangedError.__name__, ""]
        assert list(hospital.files().values()) == guids
        assert not hospital.hospital.store.read(lambda tx: tx.quarantine.all(PROJECT))
        assert loss_of(hospital, guids[0]) is LossCause.CHANGED


async def test_what_a_pacs_gives_again_is_lost_no_more(tmp_path: Path) -> None:
    """Whoever opens it finds that out."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with registered(clinic) as (hospital, [guid]):
        await hospital.hospital.store.write(lambda tx: tx.losses.put(guid, LossRecord(LossCause.CHANGED, NOW)))
        assert await outcomes(hospital, [guid]) == [""]
        assert loss_of(hospital, guid) is None


async def test_what_a_recall_shows_and_cannot_be_kept_holds_up_no_sibling(tmp_path: Path) -> None:
    """On a full disk; the next recall shows it again."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    store = clinic.store = AwayStore(clinic.store)
    store.refuses_reads = store.refuses_writes = False
    async with registered(clinic) as (hospital, guids):
        await store.write(lambda tx: tx.losses.put(guids[1], LossRecord(LossCause.GONE, NOW)))
        rows, held(clinic, 1).Rows = held(clinic, 1).Rows, 1
        store.refuses_writes = True
        released = release_all(READER, guids, hospital.hospital, hospital.recalls, address="192.0.2.7")
        async with contextlib.aclosing(released):
            outcomes_by_place = dict([one async for one in released if one is not None])
        assert isinstance(outcomes_by_place[0], InstanceChangedError)
        assert isinstance(outcomes_by_place[1], Released)
        assert store.refused == 2
        assert [loss_of(hospital, guid) for guid in guids] == [None, LossCause.GONE]
        store.refuses_writes, held(clinic, 1).Rows = False, rows


async def test_a_file_withdrawn_during_its_recall_is_not_released(tmp_path: Path) -> None:
    """The decision is made again after the wait, and nothing of it stays in staging."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with registered(clinic) as (hospital, [guid]):
        clinic.pacs.delay = 0.3
        heard: list[str] = []

        async def ask() -> None:
            heard.extend(await outcomes(hospital, [guid]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.1)
            await hospital.hospital.store.write(lambda tx: tx.catalogue.withdraw([guid]))
        assert heard == [NoSuchFileError.__name__]
        assert staged_names(clinic) == []


async def test_who_loses_a_file_during_its_recall_is_refused_on_record(tmp_path: Path) -> None:
    """After the release that was on record before."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with registered(clinic) as (hospital, [guid]):
        clinic.pacs.delay = 0.3
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcomes, hospital, [guid])
            await until(lambda: hospital.audited()[-1]["event"] == "release")
            nobodys = Acl(str(STRANGER.dn), ())
            await hospital.hospital.store.write(lambda tx: tx.acls.set_of_file(guid, nobodys))
        last = hospital.audited()[-1]
        assert (last["event"], last["guid"], last["dn"]) == ("refusal", str(guid), str(READER.dn))


async def test_a_pacs_that_breaks_off_costs_the_rest_of_the_batch_one_try(tmp_path: Path) -> None:
    """A cut instance is an error; the next open of each sibling succeeds."""
    clinic = Clinic(tmp_path, slices((1, 2, 3)))
    async with registered(clinic) as (hospital, guids):
        clinic.pacs.cut.add(f"{ROOT}.1.1.1")
        assert (await outcomes(hospital, guids))[0] == RecallFailedError.__name__
        assert await outcomes(hospital, guids[1:]) == ["", ""]
        clinic.pacs.cut.clear()
        assert await outcomes(hospital, guids) == ["", "", ""]


class StumblingPacs(TwinPacs):
    """A PACS whose second instance makes a library stumble."""

    async def _retrieve(
        self, keys: Sequence[InstanceKey], series_uid: str = ""
    ) -> AsyncGenerator[IncomingInstance, None]:
        async with contextlib.aclosing(super()._retrieve(keys, series_uid)) as instances:
            async for instance in instances:
                if instance.instance_uid.endswith(".1.1.2"):
                    instance.__class__ = StumblingInstance
                yield instance


class StumblingInstance(TwinInstance):
    """Stumbles, and quotes what it stumbled on."""

    async def __anext__(self) -> memoryview:
        """Fail."""
        await trio.lowlevel.checkpoint()
        message = "Smith^John"
        raise ZeroDivisionError(message)


async def test_the_unforeseen_in_one_instance_spares_its_siblings_and_is_not_quoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], faults: list[str]
) -> None:
    """An incident number is told; recalls go on."""
    clinic = Clinic(tmp_path, slices((1, 2, 3)))
    async with registered(clinic) as (hospital, guids):
        pass
    clinic.pacs = StumblingPacs(clinic.pacs.held)
    async with clinic.open() as hospital:
        assert await outcomes(hospital, guids) == ["", MdmfsError.__name__, ""]
        with pytest.raises(MdmfsError, match="incident"):
            await hospital.read(guids[1])
    printed = capsys.readouterr()
    assert "Smith" not in printed.out + printed.err
    faults.clear()


class PassingPacs(TwinPacs):
    """A PACS that passes over an instance without a word."""

    async def _retrieve(
        self, keys: Sequence[InstanceKey], series_uid: str = ""
    ) -> AsyncGenerator[IncomingInstance, None]:
        told = [key for key in keys if not key.instance_uid.endswith(".1.1.2")]
        async with contextlib.aclosing(super()._retrieve(told, series_uid)) as instances:
            async for instance in instances:
                yield instance


async def test_what_a_pacs_passes_over_without_a_word_is_lost_and_nobody_waits_for_it(tmp_path: Path) -> None:
    """Its siblings come; it is told with them, and not when all patience is over."""
    clinic = Clinic(tmp_path, slices((1, 2, 3)))
    async with registered(clinic) as (hospital, guids):
        pass
    clinic.pacs = PassingPacs(clinic.pacs.held)
    async with clinic.open() as hospital:
        assert await outcomes(hospital, guids) == ["", InstanceLostError.__name__, ""]


async def test_a_refused_file_that_cannot_be_put_away_is_refused_all_the_same(tmp_path: Path) -> None:
    """On a full disk: its name stays until a recall can put it away, and its siblings come."""
    clinic = Clinic(tmp_path, slices((1, 2, 3)))
    store = clinic.store = AwayStore(clinic.store)
    store.refuses_reads = store.refuses_writes = False
    async with registered(clinic) as (hospital, guids):
        held(clinic, 1).PatientID = "TEST-2"
        store.refuses_writes = True
        released = release_all(READER, guids, hospital.hospital, hospital.recalls, address="192.0.2.7")
        async with contextlib.aclosing(released):
            told = dict([one async for one in released if one is not None])
        assert [type(told[place]) for place in range(3)] == [InstanceRefusedError, Released, Released]
        assert list(hospital.files().values()) == guids
        store.refuses_writes = False


# Keys and room


async def test_below_the_threshold_no_cold_file_is_released(tmp_path: Path) -> None:
    """One of three keystores answers: an error in time, and not a byte staged; two: it reads."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with registered(clinic) as (hospital, [guid]):
        for name in ("k1", "k2"):
            clinic.keystores[name].failure = unreachable
        with pytest.raises(TooFewSharesError):
            await hospital.release(guid)
        assert staged_names(clinic) == []
    clinic.keystores["k1"].failure = None
    async with clinic.open() as hospital:
        assert await hospital.read(guid)


async def test_a_lying_keystore_does_not_make_the_hospital_seal_under_a_wrong_key(tmp_path: Path) -> None:
    """The key check tells: the other two make the right one."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with registered(clinic) as (hospital, [guid]):
        twin = clinic.keystores["k1"]
        twin.lie = lambda told: type(told)(
            told.outcomes, [share[:-1] + bytes([share[-1] ^ 1]) for share in told.shares]
        )
        clinic.keystores["k2"].delay = clinic.keystores["k3"].delay = 0.02
        assert await hospital.read(guid)
        assert hospital.hospital.keystores.lies["k1"] == 1
        clinic.keystores["k2"].failure = unreachable
        hospital.hospital.staging.discard(guid)
        with pytest.raises(MdmfsError):
            await hospital.release(guid)
        assert staged_names(clinic) == []


async def test_staging_without_room_is_told_and_spares_smaller_siblings(tmp_path: Path) -> None:
    """One file is larger than all of staging."""
    clinic = Clinic(tmp_path, [slice_of(1), slice_of(2, size=512), slice_of(3)])
    clinic.staging_bytes = 100_000
    async with registered(clinic) as (hospital, guids):
        assert await outcomes(hospital, guids) == ["", OutOfSpaceError.__name__, ""]


async def test_a_crash_while_staging_leaves_nothing_that_counts(tmp_path: Path) -> None:
    """A part is dropped at the next start, and the file recalled anew."""
    clinic = Clinic(tmp_path, [slice_of(1, size=BIG)])
    async with registered(clinic) as (hospital, [guid]):
        staged = await hospital.release(guid)
        assert not staged.is_complete
        part = staged.path
        await sealed_octets(staged)
        sealed = staged.path.read_bytes()
    (tmp_path / "staging" / f"{guid}.1").unlink()
    part.write_bytes(sealed[: len(sealed) // 2])
    async with clinic.open() as hospital:
        assert staged_names(clinic) == []
        assert await hospital.read(guid)


async def test_a_full_disk_under_staging_takes_no_small_file_back_from_who_waited_for_it(tmp_path: Path) -> None:
    """It refuses them when they have come; who is slow reads them from memory, and no PACS is asked again."""
    clinic = Clinic(tmp_path, slices((1, 2, 3)))
    async with registered(clinic) as (hospital, guids):
        for guid in guids:
            (tmp_path / "staging" / f"{guid}.1.part").symlink_to("/dev/full")
        before, read = clinic.pacs.recalls, 0
        released = release_all(READER, guids, hospital.hospital, hospital.recalls, address="192.0.2.7")
        async with contextlib.aclosing(released):
            async for outcome in released:
                if outcome is not None:
                    await until(lambda: not list((tmp_path / "staging").glob("*.part")))  # all three were refused
                    assert isinstance(outcome[1], Released)
                    read += len(await sealed_octets(outcome[1].staged)) == outcome[1].staged.size
        assert (read, clinic.pacs.recalls) == (3, before + 1)
        assert hospital.hospital.staging.known() == []


@pytest.mark.parametrize("size", [64, BIG])
async def test_a_file_that_the_disk_refuses_is_logged_once(tmp_path: Path, size: int) -> None:
    """One that was let out is told of by its recall, and one that was not by the answer."""
    clinic = Clinic(tmp_path, [slice_of(1, size=size)])
    async with registered(clinic) as (hospital, [guid]):
        (tmp_path / "staging" / f"{guid}.1.part").symlink_to("/dev/full")
        with structlog.testing.capture_logs() as lines:
            with contextlib.suppress(OutOfSpaceError):
                answer = await hospital.ask(f"{SEALED_PATH}{guid}")
                assert isinstance(answer, StreamReply)
                await answer.aclose()
            await until(lambda: not list((tmp_path / "staging").glob("*.part")))
    assert [line["guid"] for line in lines if line["log_level"] == "warning"] == [str(guid)]
