"""Merges: a hospital makes two of its patients one, and nothing of anybody shows under somebody else."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from mdmfs.hospital import tables
from mdmfs.hospital.assembly import read_policy
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.registration.merge import merge_subjects, take_up_merges
from mdmfs.hospital.registration.rerender import Rerendering
from mdmfs.hospital.rows import digest_key
from mdmfs.hospital.store import Store, Transaction
from mdmfs.hospital.uidmap.records import SubjectRow
from mdmfs.hospital.uidmap.subjects import keep_merges_by_subject
from mdmfs.model.errors import AccessDeniedError, ConfigurationError, StoreError, UnknownNameError
from mdmfs.wire.messages.administration import Merged
from tests.twins.clinic import PATIENT, PROJECT, Clinic, OpenClinic, including, slice_of, slices, until
from tests.twins.cutting import CuttingStore, PowerCutError
from tests.twins.records import counting_random, subject_of, subject_row
from tests.twins.store import MemoryRows, Table
from tests.unit.registration.test_reconcile import OTHER, reconcile, rename

T = TypeVar("T")


async def test_a_merge_shows_the_images_again_under_their_pseudonym(tmp_path: Path) -> None:
    """Both are one: the same names, GUIDs and bytes; nobody is included by that, and nobody let out."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        files = hospital.files()
        rename(clinic.pacs.held, OTHER)
        await reconcile(hospital)
        assert not hospital.names()
        with pytest.raises(ConfigurationError, match="inclusion list"):
            await merged(hospital, PATIENT, OTHER)
        with pytest.raises(UnknownNameError, match="nothing to merge"):
            await merged(hospital, OTHER, PATIENT)
    clinic.inclusion = including(PATIENT, OTHER)
    for listed in (OTHER, PatientKey("", PATIENT.patient_id)):
        clinic.opted_out = including(listed)
        async with clinic.open() as hospital:
            with pytest.raises(AccessDeniedError, match="opted out"):
                await merged(hospital, PATIENT, OTHER)
    clinic.opted_out = including()
    async with clinic.open() as hospital:
        assert (await merged(hospital, PATIENT, OTHER, is_dry=True)).series == 1
        assert not hospital.names()
        done = await merged(hospital, PATIENT, OTHER)
        assert (done.series, done.subject) == (1, done.continues)
        assert hospital.files() == files
        for guid in files.values():
            await hospital.read(guid)
        found = await reconcile(hospital)
        assert (found.moved, found.restored) == (0, 0)
        clinic.pacs.held += slices((3,))
        rename(clinic.pacs.held, OTHER)
        await hospital.harvest()
        assert len({name.split("/")[0] for name in hospital.names()}) == 1
        assert len(hospital.names()) == 3
        assert [it["event"] for it in hospital.audited()].count("merge") == 1


async def test_what_was_destroyed_before_a_merge_was_told_is_registered_anew(tmp_path: Path) -> None:
    """Under new rules a merged patient's images are refused, and the old ones destroyed; nobody has withdrawn them."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    clinic.inclusion = including(PATIENT, OTHER)
    async with clinic.open() as hospital:
        await hospital.harvest()
        names = hospital.names()
    rename(clinic.pacs.held, OTHER)
    clinic.policy = read_policy("strict")
    async with clinic.open() as hospital:
        project = hospital.hospital.projects[PROJECT]
        run = Rerendering(project, patience=1.0)
        await run.run(hospital.hospital)
        assert (run.refused, run.destroyed, hospital.names()) == (2, 2, [])
        await merge_subjects(hospital.hospital, project, PATIENT, OTHER)
        await Rerendering(project, patience=1.0).run(hospital.hospital)
        await hospital.deliver()
        assert hospital.names() == names


async def test_a_merge_into_a_known_patient_leaves_both_pseudonyms(tmp_path: Path) -> None:
    """What is registered keeps its names; new images come under the one who goes on."""
    clinic = Clinic(tmp_path, [*slices((1,)), slice_of(1, patient_id="TEST-2", study=2, series=2)])
    clinic.inclusion = including(PATIENT, OTHER)
    async with clinic.open() as hospital:
        await hospital.harvest()
        names = hospital.names()
        rename(clinic.pacs.held, OTHER)
        assert (await reconcile(hospital)).moved == 1
        done = await merged(hospital, PATIENT, OTHER)
        assert done.subject != done.continues
        assert hospital.names() == names
        for guid in hospital.files().values():
            await hospital.read(guid)
        clinic.pacs.held.append(slice_of(1, patient_id="TEST-2", study=3, series=3))
        await hospital.harvest()
        (new,) = set(hospital.names()) - set(names)
        assert new.startswith(f"sub-{done.continues}/")


async def test_a_merge_shows_nothing_of_anybody_else(tmp_path: Path) -> None:
    """A third patient's series was put away, too, and nobody has said why."""
    clinic = Clinic(tmp_path, [*slices((1,)), slice_of(1, patient_id="TEST-3", study=3, series=3)])
    clinic.inclusion = including(PATIENT, OTHER, PatientKey(PATIENT.issuer, "TEST-3"))
    async with clinic.open() as hospital:
        await hospital.harvest()
        names = hospital.names()
        rename(clinic.pacs.held[:1], OTHER)
        rename(clinic.pacs.held[1:], PatientKey(PATIENT.issuer, "TEST-9"))
        assert (await reconcile(hospital)).moved == 2
        for is_dry in (True, False):
            assert (await merged(hospital, PATIENT, OTHER, is_dry=is_dry)).series == 1
        (name,) = hospital.names()
        assert name in names


@pytest.mark.parametrize("is_kept", [False, True])
async def test_a_merge_that_is_cut_off_anywhere_goes_on_by_itself(tmp_path: Path, *, is_kept: bool) -> None:
    """Series by series; and at no instant does an image show under a subject who is another patient than its own."""
    at, is_cut = 1, True
    while is_cut:
        folder = tmp_path / str(at)
        folder.mkdir()
        clinic = Clinic(folder, [slice_of(1, study=number, series=number) for number in (1, 2, 3)])
        clinic.inclusion = including(PATIENT, OTHER)
        async with clinic.open() as hospital:
            await hospital.harvest()
            names = hospital.names()
            rename(clinic.pacs.held, OTHER)
            assert (await reconcile(hospital)).moved == 3
            store = hospital.hospital.store
            cutting = CuttingStore(store, at, is_kept=is_kept)
            half = hospital.over(cutting)
            with contextlib.suppress(PowerCutError):
                await merged(half, PATIENT, OTHER)
            is_cut = cutting.is_cut
            rows = store.read(
                lambda tx: [tx.subjects.find(PROJECT, one.issuer, one.patient_id) for one in (PATIENT, OTHER)]
            )
            (row,) = filter(None, rows)
            assert not hospital.names() or row.patient_id == OTHER.patient_id
            await take_up(hospital)
            with contextlib.suppress(UnknownNameError):  # where the cut came behind its first write
                assert (await merged(hospital, PATIENT, OTHER)).subject == row.id.text
            assert hospital.names() == names
            with pytest.raises(UnknownNameError):
                await merged(hospital, PATIENT, OTHER)
        at += 1
    assert at == 7  # handed over, three series, ended; and uncut


async def test_a_merge_that_was_cut_off_is_ended_by_no_other_one(tmp_path: Path) -> None:
    """The patient is one with the second by then: who is told to be one with a third has no images here any more."""
    clinic = Clinic(tmp_path, slices((1,)))
    third = PatientKey(PATIENT.issuer, "TEST-3")
    clinic.inclusion = including(PATIENT, OTHER, third)
    async with clinic.open() as hospital:
        await hospital.harvest()
        names = hospital.names()
        rename(clinic.pacs.held, OTHER)
        assert (await reconcile(hospital)).moved == 1
        cutting = CuttingStore(hospital.hospital.store, 2, is_kept=False)  # handed over, and not shown
        half = hospital.over(cutting)
        with pytest.raises(PowerCutError):
            await merged(half, PATIENT, OTHER)
        with pytest.raises(UnknownNameError, match="nothing to merge"):
            await merged(hospital, PATIENT, third)
        assert hospital.names() == []
        await take_up(hospital)
        assert hospital.names() == names


async def test_all_who_became_one_patient_go_along_when_he_is_merged(tmp_path: Path) -> None:
    """He has two pseudonyms by then, and the images of none are left behind."""
    clinic, third = Clinic(tmp_path, slices((1,))), PatientKey(PATIENT.issuer, "TEST-3")
    clinic.pacs.held.append(slice_of(1, patient_id=OTHER.patient_id, study=2, series=2))
    clinic.inclusion = including(PATIENT, OTHER, third)
    async with clinic.open() as hospital:
        await hospital.harvest()
        names = hospital.names()
        rename(clinic.pacs.held, OTHER)
        await merged(hospital, PATIENT, OTHER)
        rename(clinic.pacs.held, third)
        assert (await reconcile(hospital)).moved == 2
        done = await merged(hospital, OTHER, third)
        assert (done.series, hospital.names()) == (2, names)
        for guid in hospital.files().values():
            await hospital.read(guid)


async def test_of_two_merges_at_once_of_one_patient_one_is_made(tmp_path: Path) -> None:
    """The other finds nobody, and nothing is on record of it."""
    clinic, third = Clinic(tmp_path, slices((1,))), PatientKey(PATIENT.issuer, "TEST-3")
    clinic.inclusion = including(PATIENT, OTHER, third)
    made: list[PatientKey] = []
    async with clinic.open() as hospital:
        await hospital.harvest()

        async def try_merge(into: PatientKey) -> None:
            with contextlib.suppress(UnknownNameError):
                await merged(hospital, PATIENT, into)
                made.append(into)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(try_merge, OTHER)
            nursery.start_soon(try_merge, third)
        (into,) = made
        (row,) = clinic.store.read(lambda tx: tx.subjects.page(2))
        assert (row.issuer, row.patient_id) == (into.issuer, into.patient_id)
        assert [it["event"] for it in hospital.audited()].count("merge") == 1


async def test_what_is_registered_while_a_merge_is_looked_at_is_included_like_all_else(tmp_path: Path) -> None:
    """Of the second patient one study only is on the list: another one of the first does not show as his."""
    clinic = Clinic(tmp_path, slices((1,)))
    study = str(clinic.pacs.held[0].StudyInstanceUID)
    clinic.inclusion = including(PATIENT, studies=[study])
    async with clinic.open() as hospital:
        await hospital.harvest()
        names = hospital.names()

        async def register() -> None:
            clinic.pacs.held.append(slice_of(1, study=2, series=2))
            await hospital.harvest()
            assert len(hospital.names()) == 2

        await merged(hospital.over(HookedStore(clinic.store, register)), PATIENT, OTHER)
        assert hospital.names() == names


async def test_a_merge_that_cannot_be_ended_keeps_no_other_from_it(tmp_path: Path) -> None:
    """They are tried one by one: the first one's fault may be for ever."""
    clinic = Clinic(tmp_path, slices((1,)))
    rows = [subject_row(number, str(number), project=PROJECT) for number in (1, 2)]
    async with clinic.open() as hospital:
        for row in rows:
            await clinic.store.write(functools.partial(_begin_merge, row=row))

        failures = ["the disk is full"]

        async def fail_once() -> None:
            if failures:
                raise StoreError(failures.pop())

        first, second = clinic.store.read(lambda tx: tx.subjects.merging())
        failing = hospital.over(HookedStore(clinic.store, fail_once))
        hospital.nursery.start_soon(take_up_merges, failing.hospital)
        await until(lambda: clinic.store.read(lambda tx: tx.subjects.merging()) == [first])
        assert second != first


def _begin_merge(tx: Transaction, *, row: SubjectRow) -> None:
    tx.subjects.admit(row.project, row.issuer, row.patient_id, lambda: row)
    tx.subjects.begin_merge(row.id)


class HookedStore(CuttingStore):
    """A store before whose first write something happens."""

    def __init__(self, store: Store, before_first: Callable[[], Awaitable[object]]) -> None:
        super().__init__(store, sys.maxsize, is_kept=True)
        self._before_first = before_first

    async def write(self, act: Callable[[Transaction], T]) -> T:
        """Write, behind that."""
        if not self.writes:
            await self._before_first()
        return await super().write(act)


async def take_up(hospital: OpenClinic) -> None:
    """Wait until no merge is left that was broken off."""
    hospital.nursery.start_soon(take_up_merges, hospital.hospital)
    await until(lambda: not hospital.hospital.store.read(lambda tx: tx.subjects.merging()))


async def merged(hospital: OpenClinic, patient: PatientKey, into: PatientKey, *, is_dry: bool = False) -> Merged:
    """Merge two patients of the project."""
    return await merge_subjects(hospital.hospital, hospital.hospital.projects[PROJECT], patient, into, is_dry=is_dry)


def test_a_merge_of_an_older_store_that_has_not_ended_is_kept_by_its_subject() -> None:
    """And the digest of the patient that he was is gone."""
    rows = MemoryRows(Table(), is_writing=True)
    tx = Transaction(rows, random=counting_random())
    tx.subjects.admit(PROJECT, "AMC", "1", lambda: subject_row(1, "1"))
    tx.subjects.admit(PROJECT, "AMC", "2", lambda: subject_row(2, "2"))
    patients = dict(rows.scan(tables.PATIENTS))
    octets = patients[digest_key(PROJECT, "AMC", "2")]
    rows.put(tables.PATIENTS + digest_key("merging", PROJECT, "AMC", "3"), octets)
    keep_merges_by_subject(rows)
    assert (tx.subjects.merging(), dict(rows.scan(tables.PATIENTS))) == ([subject_of(2)], patients)
