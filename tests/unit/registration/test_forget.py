"""Forgetting: what leads to a patient is gone with his last row, and nobody is forgotten who could come back."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
import trio
import trio.testing
from pydicom import Dataset

from mdmfs.hospital import tables
from mdmfs.hospital.audit.export import subject_of
from mdmfs.hospital.audit.questions import files_of_patient, subjects_of_patient
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.kept.audit import AuditRecord, Event
from mdmfs.hospital.ledger.records import TextKeyRecord
from mdmfs.hospital.registration.ending import Ending
from mdmfs.hospital.registration.forget import FILES_LEFT, MAY_COME_AGAIN, NOT_KNOWN, forget_subjects
from mdmfs.hospital.registration.merge import who_is_who
from mdmfs.hospital.registration.remember import BEING_FORGOTTEN
from mdmfs.hospital.registration.rerender import Rerendering
from mdmfs.hospital.rows import digest_key
from mdmfs.hospital.store import Store, Transaction
from mdmfs.hospital.uidmap.instances import pack_uid
from mdmfs.hospital.uidmap.records import SeriesKey, SubjectRow
from mdmfs.model.errors import AccessDeniedError, MalformedMessageError, UnknownNameError
from mdmfs.wire.messages.administration import FORGET_PATH, ForgetSubjects, Forgotten
from tests.twins.clinic import NOW, PATIENT, PROJECT, Clinic, including, slice_of, slices
from tests.twins.cutting import CuttingStore, PowerCutError
from tests.twins.keystores import unreachable
from tests.twins.pacs import TwinInstance, TwinPacs
from tests.twins.records import CHECK, guid_of, quarantined, subject_row
from tests.twins.store import MemoryStore
from tests.unit.hospital.test_own_people import answer, routes_of
from tests.unit.registration.test_merge import HookedStore
from tests.unit.registration.test_reconcile import OTHER

T = TypeVar("T")
DAY = 86_400.0


async def registered(tmp_path: Path) -> tuple[Clinic, SubjectRow]:
    """Register a patient while a keystore is away; two of his images are refused, one of them all of a series."""
    clinic = Clinic(tmp_path, [*slices((1, 2, 3)), *slices((1,), series=2), *slices((1,), series=3)])
    clinic.keystores["k3"].failure = unreachable
    for refused in (clinic.pacs.held[2], clinic.pacs.held[-1]):
        refused.BurnedInAnnotation = "YES"
    async with clinic.open() as hospital:
        await hospital.harvest()
    (row,) = clinic.store.read(lambda tx: tx.subjects.page(2))
    return clinic, row


async def destroyed(tmp_path: Path) -> tuple[Clinic, SubjectRow]:
    """Let him opt out, and destroy what there is of him."""
    clinic, row = await registered(tmp_path)
    clinic.opted_out = including(PATIENT)
    async with clinic.open() as hospital:
        assert await Ending(hospital.hospital).look() == 3
        await hospital.deliver()
    return clinic, row


def made(folder: Path) -> Path:
    """Make a folder."""
    folder.mkdir()
    return folder


def traces(clinic: Clinic, row: SubjectRow) -> set[bytes]:
    """Give the tables in which something leads to a patient: numbers, UIDs, digests of them, what made pseudonyms."""
    assert isinstance(clinic.store, MemoryStore)
    leading = {row.patient_id.encode(), row.uid_key, digest_key(PROJECT, row.issuer, row.patient_id)}
    leading |= set(_of_images(clinic.pacs.held))
    values = clinic.store.table.values.items()
    return {key[:1] for key, value in values for octets in leading if octets in key + value}


def _of_images(held: list[Dataset]) -> Iterator[bytes]:
    for image in held:
        study, series, uid = str(image.StudyInstanceUID), str(image.SeriesInstanceUID), str(image.SOPInstanceUID)
        yield from (study.encode(), series.encode(), uid.encode(), pack_uid(uid))
        yield from (SeriesKey(PROJECT, study, series).octets(), digest_key(PROJECT, uid))


async def test_nothing_leads_from_a_forgotten_subject_to_its_patient(tmp_path: Path) -> None:
    """Nor back; what was destroyed stays so, and nothing of him comes again."""
    clinic, row = await destroyed(tmp_path)
    text_key = TextKeyRecord(row.id, "notes", guid_of(1).octets, CHECK, 2)
    await clinic.store.write(lambda tx: tx.records.put_key(text_key))
    epoch = clinic.store.read(lambda tx: tx.epochs.latest().number)
    assert traces(clinic, row) > {tables.SUBJECTS, tables.INSTANCES, tables.SERIES, tables.QUARANTINE, tables.OUTBOX}
    files = clinic.store.read(lambda tx: tx.catalogue.files())
    released = AuditRecord(time=NOW, event=Event.RELEASE, guid=str(files[0].guid))
    assert clinic.store.read(lambda tx: subject_of(tx, released)) is not None
    assert clinic.store.read(lambda tx: subjects_of_patient(tx, PATIENT)) == [row]
    async with clinic.open() as hospital:
        assert (await forget_subjects(hospital.hospital, [row.id], is_dry=True)).files == {row.id.text: 3}
        assert clinic.store.read(lambda tx: tx.subjects.by_id(row.id)) == row
        assert await forget_subjects(hospital.hospital, [row.id]) == Forgotten({row.id.text: 3}, {})
        assert traces(clinic, row) == set()
        assert clinic.store.read(lambda tx: tx.catalogue.files()) == files
        assert clinic.store.read(lambda tx: subject_of(tx, released)) is None
        assert clinic.store.read(lambda tx: files_of_patient(tx, PATIENT)) == []
        assert clinic.store.read(lambda tx: tx.records.keys_of(row.id)) == []
        assert clinic.store.read(lambda tx: tx.epochs.latest().number) == epoch + 1
        assert hospital.audited()[-1] == {
            "time": NOW,
            "event": "forgetting",
            "project": PROJECT,
            "path": f"sub-{row.id}",
            "count": 3,
        }
        await hospital.harvest()
        assert await forget_subjects(hospital.hospital, [row.id]) == Forgotten({}, {row.id.text: NOT_KNOWN})
    assert clinic.store.read(lambda tx: tx.subjects.page(1)) == []


async def test_nobody_is_forgotten_of_whom_a_file_is_left(tmp_path: Path) -> None:
    """Nor who would be registered again, under another pseudonym: what was withdrawn would show once more."""
    clinic, row = await registered(tmp_path)
    async with clinic.open() as hospital:
        assert (await forget_subjects(hospital.hospital, [row.id])).kept == {row.id.text: FILES_LEFT}
    clinic, row = await destroyed(made(tmp_path / "destroyed"))
    clinic.opted_out = including()
    async with clinic.open() as hospital:
        for is_dry in (True, False):
            told = await forget_subjects(hospital.hospital, [row.id], is_dry=is_dry)
            assert told == Forgotten({}, {row.id.text: MAY_COME_AGAIN})
        assert clinic.store.read(lambda tx: tx.subjects.by_id(row.id)) == row
    clinic.inclusion = including(OTHER)
    async with clinic.open() as hospital:
        assert (await forget_subjects(hospital.hospital, [row.id])).files == {row.id.text: 3}


async def test_what_fails_with_one_subject_is_told_of_that_one(tmp_path: Path) -> None:
    """One that is not known, or that somebody else forgets at the same time, keeps none of the others."""
    clinic, row = await destroyed(tmp_path)
    nobody = subject_row(9, "9")
    asked, answers = [nobody.id, row.id], list[Forgotten]()
    async with clinic.open() as hospital:

        async def forget() -> None:
            answers.append(await forget_subjects(hospital.hospital, asked))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(forget)
            nursery.start_soon(forget)
        assert [line["event"] for line in hospital.audited()].count("forgetting") == 1
    first, second = sorted(answers, key=lambda told: len(told.kept))
    assert first == Forgotten({row.id.text: 3}, {nobody.id.text: NOT_KNOWN})
    assert second == Forgotten({}, dict.fromkeys([nobody.id.text, row.id.text], NOT_KNOWN))


async def test_a_series_whose_transaction_was_under_way_is_forgotten_too(tmp_path: Path) -> None:
    """It did not know that its subject is being forgotten: traces are looked for behind it."""
    clinic, row = await destroyed(tmp_path)
    first = clinic.store.read(lambda tx: tx.series.all())[0]
    other = msgspec.structs.replace(first, series_uid=first.series_uid + ".9", lfn=first.lfn.parent / "009-MR")

    async def come() -> None:
        await clinic.store.write(lambda tx: tx.series.put(other))

    async with clinic.open() as hospital:
        late = hospital.over(HookedStore(clinic.store, come))
        assert (await forget_subjects(late.hospital, [row.id])).files == {row.id.text: 3}
    assert clinic.store.read(lambda tx: tx.series.all()) == []


async def test_nothing_is_refused_of_a_subject_while_it_is_forgotten(tmp_path: Path) -> None:
    """A study of his that is included comes under another subject afterwards; a refusal would stay with this one."""
    clinic, row = await destroyed(tmp_path)
    image = slice_of(1, study=2, series=9)
    image.BurnedInAnnotation = "YES"
    clinic.pacs.held.append(image)
    clinic.inclusion, clinic.opted_out = including(studies=[str(image.StudyInstanceUID)]), including()
    failures: list[str] = []
    async with clinic.open() as hospital:

        async def harvest() -> None:
            failures.extend((await hospital.harvest()).failures)

        disturbed = hospital.over(DisturbedStore(clinic.store, harvest))
        assert (await forget_subjects(disturbed.hospital, [row.id])).files == {row.id.text: 3}
        assert all(BEING_FORGOTTEN in failure for failure in failures)
        assert failures
        assert traces(clinic, row) == set()
        assert (await hospital.harvest()).failures == []
        (refusal,) = clinic.store.read(lambda tx: tx.quarantine.all(PROJECT))
        (other,) = clinic.store.read(lambda tx: tx.subjects.page(2))
        assert refusal.subject == other.id.text != row.id.text


async def test_a_refusal_that_does_not_tell_whose_it_is_goes_with_its_series(tmp_path: Path) -> None:
    """The first image of a series may be refused before a header tells its patient."""
    clinic, row = await destroyed(tmp_path)
    refusals = clinic.store.read(lambda tx: tx.quarantine.all(PROJECT))
    (alone,) = (it for it in refusals if it.series_uid == clinic.pacs.held[-1].SeriesInstanceUID)
    unread = msgspec.structs.replace(alone, instance_uid=alone.instance_uid + ".9", subject="")
    await clinic.store.write(lambda tx: tx.quarantine.put(unread))
    async with clinic.open() as hospital:
        await forget_subjects(hospital.hospital, [row.id])
    assert clinic.store.read(lambda tx: tx.quarantine.all(PROJECT)) == []


async def test_nobody_waits_for_who_waits_for_a_series(tmp_path: Path) -> None:
    """A series may be registered for an hour: merges go on meanwhile."""
    clinic, row = await destroyed(tmp_path)
    key = clinic.store.read(lambda tx: tx.series.all())[0].key
    async with clinic.open() as hospital, trio.open_nursery() as nursery, hospital.hospital.turns.of(key.octets()):
        nursery.start_soon(forget_subjects, hospital.hospital, [row.id])
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(1):
            async with hospital.hospital.turns.of(who_is_who(PROJECT)):
                assert clinic.store.read(lambda tx: tx.subjects.by_id(row.id)) == row
    assert traces(clinic, row) == set()


@pytest.mark.parametrize("is_merged", [False, True])
async def test_what_changes_while_forgetting_waits_for_its_turn_counts(tmp_path: Path, *, is_merged: bool) -> None:
    """A merge made him a patient who may come again; or the last day has passed, and what came since was not seen."""
    clinic, row = await destroyed(tmp_path)
    clinic.inclusion = including(PATIENT, OTHER)
    clinic.opted_out = including(PATIENT) if is_merged else including()
    answers: list[Forgotten] = []
    async with clinic.open() as hospital, trio.open_nursery() as nursery:

        async def forget() -> None:
            answers.append(await forget_subjects(hospital.hospital, [row.id]))

        async with hospital.hospital.turns.of(who_is_who(PROJECT)):
            nursery.start_soon(forget)
            await trio.testing.wait_all_tasks_blocked()
            if is_merged:
                await clinic.store.write(lambda tx: tx.subjects.hand_over(row.id, OTHER.issuer, OTHER.patient_id))
            else:
                clinic.now += 2 * DAY
    assert answers == [Forgotten({}, {row.id.text: MAY_COME_AGAIN})]


@pytest.mark.parametrize("is_kept", [False, True])
async def test_what_is_cut_off_of_forgetting_the_same_call_ends(tmp_path: Path, *, is_kept: bool) -> None:
    """At every instant the subject is known until nothing else leads to the patient."""
    at, is_cut = 1, True
    while is_cut:
        clinic, row = await destroyed(made(tmp_path / str(at)))
        async with clinic.open() as hospital:
            cutting = CuttingStore(clinic.store, at, is_kept=is_kept)
            with contextlib.suppress(PowerCutError):
                await forget_subjects(hospital.over(cutting).hospital, [row.id])
            is_cut = cutting.is_cut
            is_known = clinic.store.read(lambda tx: bool(tx.subjects.page(1)))
            assert bool(traces(clinic, row)) == is_known
            told = await forget_subjects(hospital.hospital, [row.id])
            assert told.kept == ({} if is_known else {row.id.text: NOT_KNOWN})
            assert not traces(clinic, row)
        at += 1
    assert at == 6  # that nothing is under way, two series, the subject; and uncut


async def test_a_project_that_has_ended_is_forgotten_with_all_its_subjects(tmp_path: Path) -> None:
    """Some at a time, and whoever asks goes on; subjects of others stay."""
    patients = [PatientKey(PATIENT.issuer, f"TEST-{number}") for number in range(3)]
    held = [slice_of(1, study=it, series=it, patient_id=one.patient_id) for it, one in enumerate(patients)]
    clinic = Clinic(tmp_path, held)
    clinic.inclusion = including(*patients)
    other = subject_row(1, "1", project="other")
    await clinic.store.write(lambda tx: tx.subjects.admit("other", "AMC", "1", lambda: other))
    async with clinic.open() as hospital:
        await hospital.harvest()
    clinic.now += 2 * DAY
    async with clinic.open() as hospital:
        ending = Ending(hospital.hospital)
        assert [await ending.look() for _ in range(2)] == [0, 3]
        told = await forget_subjects(hospital.hospital, project=PROJECT, at_once=1)
        assert (len(told.files), told.kept, told.after) == (1, {}, *told.files)
        assert len(clinic.store.read(lambda tx: tx.subjects.page(9))) == 3
        for question in (ForgetSubjects(), ForgetSubjects([other.id.text], PROJECT), ForgetSubjects(["?"])):
            with pytest.raises(MalformedMessageError):
                await answer(routes_of(hospital), FORGET_PATH, question)
        rest = await answer(routes_of(hospital), FORGET_PATH, ForgetSubjects(project=PROJECT, after=told.after))
        assert isinstance(rest, Forgotten)
        assert (len(rest.files), rest.kept, rest.after) == (2, {}, "")
        with pytest.raises(UnknownNameError, match="no subject"):
            await answer(routes_of(hospital), FORGET_PATH, ForgetSubjects(project=PROJECT))
    assert clinic.store.read(lambda tx: tx.subjects.page(9)) == [other]


async def test_what_is_on_its_way_when_its_patient_is_forgotten_is_not_registered(tmp_path: Path) -> None:
    """A harvest may have begun before the last day of its project: no image is kept that leads to nobody."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    pacs = clinic.pacs = HookedPacs(clinic.pacs.held)
    async with clinic.open() as hospital:

        async def forget_him() -> None:
            (row,) = clinic.store.read(lambda tx: tx.subjects.page(2))
            clinic.now += 2 * DAY
            assert (await forget_subjects(hospital.hospital, [row.id])).files == {row.id.text: 0}

        pacs.before_second = forget_him
        await hospital.harvest()
        assert not clinic.store.read(lambda tx: tx.subjects.page(1))
        assert not clinic.store.read(lambda tx: tx.catalogue.files() or tx.series.all())


async def test_a_harvest_under_way_ends_with_the_last_day_of_its_project(tmp_path: Path) -> None:
    """It would take the forgotten patient for a new one, and register anew what was destroyed."""
    clinic = Clinic(tmp_path, [slice_of(1, series=number) for number in (1, 2, 3)])
    pacs = clinic.pacs = HookedPacs(clinic.pacs.held)
    async with clinic.open() as hospital:

        async def end_and_forget() -> None:
            (row,) = clinic.store.read(lambda tx: tx.subjects.page(2))
            clinic.now += 2 * DAY
            ending = Ending(hospital.hospital)
            assert [await ending.look() for _ in range(2)] == [0, 1]
            assert (await forget_subjects(hospital.hospital, [row.id])).files == {row.id.text: 1}

        pacs.before_second = end_and_forget
        progress = await hospital.harvest()
        assert (progress.registered, progress.series_done, progress.is_over) == (1, 1, True)
        (failure,) = progress.failures
        assert failure.startswith(f"the last day of project {PROJECT} is past")
        run = Rerendering(hospital.hospital.projects[PROJECT])
        await clinic.store.write(lambda tx: tx.quarantine.put(quarantined(1, project=PROJECT)))
        with pytest.raises(AccessDeniedError, match="is past"):
            await run.run(hospital.hospital)
        assert run.is_over
    assert clinic.store.read(lambda tx: tx.subjects.page(1)) == []


@pytest.mark.parametrize("known", [0, 1])
async def test_a_transaction_of_registration_keeps_nothing_past_the_last_day(tmp_path: Path, known: int) -> None:
    """It may have waited for its turn since the day was looked at, with a patient who is new, or is known."""
    clinic = Clinic(tmp_path, slices((1,))[:known])
    async with clinic.open() as hospital:
        await hospital.harvest()
        before = clinic.store.read(lambda tx: (tx.subjects.page(2), tx.catalogue.files(), tx.series.all()))
        clinic.pacs.held[:] = slices((1, 2))

        async def end() -> None:
            clinic.now += 2 * DAY

        late = hospital.over(DisturbedStore(clinic.store, end))
        assert (await late.harvest()).failures
        assert clinic.store.read(lambda tx: (tx.subjects.page(2), tx.catalogue.files(), tx.series.all())) == before


class HookedPacs(TwinPacs):
    """A PACS that lets something happen before its second instance."""

    before_second: Callable[[], Awaitable[object]] | None = None

    async def _begin(self, held: Dataset) -> TwinInstance:
        if held is self.held[1] and self.before_second is not None:
            await self.before_second()
        return await super()._begin(held)


class DisturbedStore(CuttingStore):
    """A store before each of whose writes something happens."""

    def __init__(self, store: Store, happen: Callable[[], Awaitable[object]]) -> None:
        super().__init__(store, sys.maxsize, is_kept=True)
        self._happen = happen

    async def write(self, act: Callable[[Transaction], T]) -> T:
        """Write, afterwards."""
        await self._happen()
        return await super().write(act)
