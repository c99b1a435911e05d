"""Reconciliation: what PACSs do to images after they were registered, found out and never guessed."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import trio
from pydicom import Dataset

from mdmfs.hospital.assembly import read_policy
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.dicom.pacs import SeriesFound
from mdmfs.hospital.keys import amends
from mdmfs.hospital.projects import Partial
from mdmfs.hospital.registration.reconcile import FRUITLESS, Reconciliation, Reconciliations
from mdmfs.hospital.registration.rerender import Rerendering
from mdmfs.hospital.release.release import quarantine
from mdmfs.model.errors import BusyError, InstanceLostError, NoSuchFileError, RecallFailedError, UnknownNameError
from mdmfs.model.names import Guid
from mdmfs.wire.messages.administration import ReconciliationProgress
from mdmfs.wire.messages.files import DESCRIBE_PATH, Describe, FileDescription
from tests.twins.clinic import PATIENT, PROJECT, Clinic, OpenClinic, including, slice_of, slices, until
from tests.twins.keystores import unreachable
from tests.twins.pacs import TwinInstance, TwinPacs

OTHER = PatientKey(issuer="AMC", patient_id="TEST-2")


async def reconcile(hospital: OpenClinic, *, is_deep: bool = False) -> ReconciliationProgress:
    """Compare once."""
    run = Reconciliation(hospital.hospital.projects[PROJECT], is_deep)
    await run.run(hospital.hospital)
    return run.progress()


async def locality(hospital: OpenClinic, guid: Guid) -> str:
    """Ask as a mount does."""
    found = await hospital.told(DESCRIBE_PATH, Describe(guid.octets))
    assert isinstance(found, FileDescription)
    return found.locality


async def test_what_is_as_it_was_costs_two_queries_and_changes_nothing(tmp_path: Path) -> None:
    """Nothing is listed or fetched where patient and count agree."""
    clinic = Clinic(tmp_path, [*slices((1, 2)), *slices((1,), series=2)])
    async with clinic.open() as hospital:
        await hospital.harvest()
        names, clinic.pacs.recalls, clinic.pacs.listings = hospital.names(), 0, 0
        found = await reconcile(hospital)
        assert (found.series, found.series_done, found.is_over) == (2, 2, True)
        assert not any((found.lost, found.found, found.changed, found.moved, found.restored, found.new))
        assert (clinic.pacs.recalls, clinic.pacs.listings) == (0, 0)
        assert hospital.names() == names


async def test_an_image_that_has_gone_is_lost_and_found_again(tmp_path: Path) -> None:
    """Its name stays, its locality says so, its copy goes, and an open is told: lost, not: no such file."""
    clinic = Clinic(tmp_path, slices((1, 2, 3)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        first, second, _ = hospital.files().values()
        await hospital.read(first)
        assert await locality(hospital, first) == "ONLINE_AND_NEARLINE"
        gone = clinic.pacs.held.pop(0)
        assert (await reconcile(hospital)).lost == 1
        assert (await locality(hospital, first), await locality(hospital, second)) == ("LOST", "NEARLINE")
        assert len(hospital.names()) == 3
        with pytest.raises(InstanceLostError):
            await hospital.read(first)
        assert (await reconcile(hospital)).lost == 0
        assert [it["outcome"] for it in hospital.audited() if it["event"] == "loss"] == ["gone"]
        clinic.pacs.held.append(gone)
        assert (await reconcile(hospital)).found == 1
        assert await locality(hospital, first) == "NEARLINE"
        await hospital.read(first)


async def test_a_series_that_has_gone_is_lost_whole(tmp_path: Path) -> None:
    """And no other."""
    clinic = Clinic(tmp_path, [*slices((1, 2)), *slices((1,), series=2)])
    async with clinic.open() as hospital:
        await hospital.harvest()
        del clinic.pacs.held[:2]
        assert (await reconcile(hospital)).lost == 2
        assert sorted([await locality(hospital, guid) for guid in hospital.files().values()]) == [
            "LOST",
            "LOST",
            "NEARLINE",
        ]


async def test_an_open_finds_out_by_itself(tmp_path: Path) -> None:
    """Whoever meets a loss first tells it, and whoever gets the bytes takes it back."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        (guid,) = hospital.files().values()
        gone = clinic.pacs.held.pop()
        with pytest.raises(InstanceLostError):
            await hospital.read(guid)
        assert await locality(hospital, guid) == "LOST"
        clinic.pacs.held.append(gone)
        await hospital.read(guid)
        hospital.hospital.staging.discard(guid)
        assert await locality(hospital, guid) == "NEARLINE"


async def test_silence_is_no_loss(tmp_path: Path) -> None:
    """A PACS that is down is told, asked a few times, and nothing is lost; the run does not count as one."""
    clinic = Clinic(tmp_path, [slice_of(1, study=study, series=study) for study in range(1, FRUITLESS + 3)])
    async with clinic.open() as hospital:
        await hospital.harvest()
        clinic.pacs.is_stopped = True
        found = await reconcile(hospital)
        assert len(found.failures) == FRUITLESS
        assert found.lost == 0
        assert clinic.store.read(lambda tx: (tx.losses.count(), tx.losses.last_reconciled(PROJECT))) == (0, 0.0)
        clinic.pacs.is_stopped = False
        await reconcile(hospital)
        assert clinic.store.read(lambda tx: tx.losses.last_reconciled(PROJECT)) == clinic.now


async def test_one_image_in_the_place_of_another_is_found_by_a_deep_run(tmp_path: Path) -> None:
    """The count is the same, and that is all that a daily run asks for."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        clinic.pacs.held[1:] = slices((3,))
        found = await reconcile(hospital)
        assert (found.lost, found.new) == (0, 0)
        found = await reconcile(hospital, is_deep=True)
        assert (found.lost, found.new, found.failures) == (1, 1, [])


async def test_what_was_made_under_another_policy_is_not_compared_with_what_today_s_makes(tmp_path: Path) -> None:
    """It would count as changed, all of it; it is for a run that renders anew, and the PACS is not asked for it."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as hospital:
        await hospital.harvest()
    clinic.policy = read_policy("strict")
    recalls = clinic.pacs.recalls
    async with clinic.open() as hospital:
        found = await reconcile(hospital, is_deep=True)
        assert (found.changed, found.lost, found.failures) == (0, 0, [])
    assert clinic.pacs.recalls == recalls


async def test_of_one_project_one_run_is_under_way(tmp_path: Path) -> None:
    """Who asks for the same is told of it, who asks for another kind waits, and then has his own."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        runs = Reconciliations(hospital.hospital, hospital.nursery, 0)
        with pytest.raises(UnknownNameError, match="no project other"):
            runs.start("other")
        with pytest.raises(UnknownNameError, match="no reconciliation"):
            runs.progress(PROJECT)
        runs.start(PROJECT)
        runs.start(PROJECT)
        with pytest.raises(BusyError):
            runs.start(PROJECT, is_deep=True)
        await until(lambda: runs.progress(PROJECT).is_over)
        recalls = clinic.pacs.recalls
        runs.start(PROJECT, is_deep=True)
        assert not runs.progress(PROJECT).is_over
        await until(lambda: runs.progress(PROJECT).is_over)
        assert clinic.pacs.recalls == recalls + 1
        assert runs.progress(PROJECT).failures == []


async def test_a_run_looks_at_the_series_of_its_own_project_alone(tmp_path: Path) -> None:
    """Another one may have other rules, and its own run."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        (series,) = hospital.series()
        other = msgspec.structs.replace(series, project="other", lfn=series.lfn.parent / "other")
        await hospital.hospital.store.write(lambda tx: tx.series.put(other))
        assert (await reconcile(hospital)).series == 1


class OddPacs(TwinPacs):
    """A PACS that breaks on one study."""

    odd = ""

    async def find_series(self, *, patient_id: str | None = None, study_uid: str | None = None) -> list[SeriesFound]:
        """List, or fail as nobody foresaw."""
        if study_uid == self.odd:
            raise ZeroDivisionError
        return await super().find_series(patient_id=patient_id, study_uid=study_uid)


async def test_a_fault_at_one_study_ends_no_run(tmp_path: Path, faults: list[str]) -> None:
    """It is told with an incident, and the others are compared."""
    clinic = Clinic(tmp_path, [slice_of(1, study=study, series=study) for study in (1, 2)])
    pacs = clinic.pacs = OddPacs(clinic.pacs.held)
    async with clinic.open() as hospital:
        await hospital.harvest()
        pacs.odd = pacs.held[0].StudyInstanceUID
        del pacs.held[1]
        found = await reconcile(hospital)
        assert (found.lost, found.series_done, len(found.failures)) == (1, 2, 1)
        assert "incident" in found.failures[0]
        assert clinic.store.read(lambda tx: tx.losses.last_reconciled(PROJECT)) == 0.0
    faults.clear()


class FlickeringPacs(TwinPacs):
    """A PACS that is out of reach every second time."""

    is_confused = False
    """Whether what it answers the other times is none."""

    async def find_series(self, *, patient_id: str | None = None, study_uid: str | None = None) -> list[SeriesFound]:
        """List, or not."""
        self.is_stopped = not self.is_stopped
        if self.is_confused and not self.is_stopped:
            message = "it answers what nobody asked"
            raise RecallFailedError(message)
        return await super().find_series(patient_id=patient_id, study_uid=study_uid)


@pytest.mark.parametrize("is_confused", [False, True])
async def test_a_pacs_that_is_away_now_and_then_is_asked_for_all_studies(tmp_path: Path, *, is_confused: bool) -> None:
    """Each time it was there again: the others are compared on the same day."""
    studies = range(1, 2 * FRUITLESS + 3)
    clinic = Clinic(tmp_path, [slice_of(1, study=study, series=study) for study in studies])
    async with clinic.open() as hospital:
        await hospital.harvest()
        clinic.pacs = pacs = FlickeringPacs(clinic.pacs.held)
        pacs.is_confused = is_confused
    async with clinic.open() as hospital:
        found = await reconcile(hospital)
        assert len(found.failures) == (len(studies) if is_confused else len(studies) // 2) > FRUITLESS


async def test_new_images_are_told_and_left_to_the_harvest(tmp_path: Path) -> None:
    """Also where one has gone and the count is the same as before, as long as something is known to be lost."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        clinic.pacs.held += slices((3,))
        assert (await reconcile(hospital)).new == 1
        await hospital.harvest()
        assert (await reconcile(hospital)).new == 0


async def test_a_changed_image_is_found_by_its_bytes(tmp_path: Path) -> None:
    """By a deep run only: it fetches all, and the file is LOST until the PACS has what was registered."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        first, second = hospital.files().values()
        pixels = clinic.pacs.held[0].PixelData
        clinic.pacs.held[0].PixelData = bytes([pixels[0] ^ 1]) + pixels[1:]
        assert (await reconcile(hospital)).changed == 0
        assert (await reconcile(hospital, is_deep=True)).changed == 1
        assert (await locality(hospital, first), await locality(hospital, second)) == ("LOST", "NEARLINE")
        assert (await reconcile(hospital)).found == 0
        clinic.pacs.held[0].PixelData = pixels
        assert (await reconcile(hospital, is_deep=True)).found == 1
        assert await locality(hospital, first) == "NEARLINE"


# Patients


def rename(held: list[Dataset], patient: PatientKey) -> None:
    """Merge or correct in the PACS: the images are another patient's now."""
    for instance in held:
        instance.PatientID = patient.patient_id


@pytest.mark.parametrize("is_deep", [False, True])
async def test_a_series_of_another_patient_is_put_away_until_it_is_back(tmp_path: Path, *, is_deep: bool) -> None:
    """No name is left, no copy and no byte; when the PACS takes the change back the names are there again."""
    clinic = Clinic(tmp_path, [*slices((1, 2)), *slices((1,), series=2)])
    async with clinic.open() as hospital:
        await hospital.harvest()
        names, files = hospital.names(), hospital.files()
        await hospital.read(next(iter(files.values())))
        rename(clinic.pacs.held[:2], OTHER)
        assert (await reconcile(hospital, is_deep=is_deep)).moved == 1
        assert hospital.names() == names[2:] or len(hospital.names()) == 1
        with pytest.raises(NoSuchFileError):
            await hospital.read(next(guid for name, guid in files.items() if name not in hospital.names()))
        assert (await reconcile(hospital)).moved == 0
        rename(clinic.pacs.held[:2], PATIENT)
        assert (await reconcile(hospital)).restored == 1
        assert hospital.files() == files
        for guid in files.values():
            await hospital.read(guid)


class NamelessPacs(TwinPacs):
    """A PACS that may leave Patient ID empty where it is not asked by it."""

    names_nobody = True

    async def find_series(self, *, patient_id: str | None = None, study_uid: str | None = None) -> list[SeriesFound]:
        """List, and say of nobody who it is."""
        found = await super().find_series(patient_id=patient_id, study_uid=study_uid)
        is_silent = self.names_nobody and patient_id is None
        return [dataclasses.replace(it, patient_id="", issuer="") for it in found] if is_silent else found


async def test_a_patient_whom_the_pacs_does_not_name_is_no_other_one(tmp_path: Path) -> None:
    """Nothing is put away by that, at the end of a registration or afterwards; nor is anything shown again by it."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    pacs = clinic.pacs = NamelessPacs(clinic.pacs.held)
    async with clinic.open() as hospital:
        await hospital.harvest()
        names = hospital.names()
        assert len(names) == 2
        found = await reconcile(hospital)
        assert (found.moved, found.lost, found.failures, hospital.names()) == (0, 0, [], names)
        rename(pacs.held, OTHER)
        pacs.names_nobody = False
        assert (await reconcile(hospital)).moved == 1
        pacs.names_nobody = True
        found = await reconcile(hospital)
        assert (found.restored, hospital.names()) == (0, [])
        rename(pacs.held, PATIENT)
        pacs.names_nobody = False
        assert (await reconcile(hospital)).restored == 1
        assert hospital.names() == names


async def test_what_is_put_away_leaves_no_copy_and_is_on_record(tmp_path: Path) -> None:
    """Staged objects go with the names, and mounts are told at once."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        guids = list(hospital.files().values())
        for guid in guids:
            await hospital.read(guid)
        rename(clinic.pacs.held, OTHER)
        news = hospital.hospital.feed.bell.next()
        assert (await reconcile(hospital)).moved == 1
        with trio.fail_after(5):
            await news.wait()
        assert [hospital.hospital.staging.find(guid, 1) for guid in guids] == [None, None]
        last = hospital.audited()[-1]
        assert (last["event"], last["outcome"], last["count"]) == ("quarantine", Reason.MOVED_PATIENT.value, 2)
        rename(clinic.pacs.held, PATIENT)
        news = hospital.hospital.feed.bell.next()
        assert (await reconcile(hospital)).restored == 1
        with trio.fail_after(5):
            await news.wait()


async def test_what_was_put_away_for_another_reason_does_not_come_back_with_its_series(tmp_path: Path) -> None:
    """A patient who is the one again makes no image harmless in which something was found."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    clinic.partial = Partial.SHOW
    async with clinic.open() as hospital:
        await hospital.harvest()
        (_, first), (name, second) = hospital.files().items()
        await quarantine(hospital.hospital, first, RefusedError(Reason.RESIDUE))
        assert hospital.files() == {name: second}
        rename(clinic.pacs.held, OTHER)
        await reconcile(hospital)
        assert hospital.files() == {}
        rename(clinic.pacs.held, PATIENT)
        await reconcile(hospital)
        assert hospital.files() == {name: second}
        (series,) = hospital.series()
        left = hospital.hospital.store.read(lambda tx: tx.quarantine.of_series(series.key))
        assert [record.reason for record in left] == [Reason.RESIDUE.value]


async def test_one_image_of_another_patient_takes_its_series_away(tmp_path: Path) -> None:
    """The PACS names the series under both patients, so only its header tells, in a deep run; none is let out then."""
    clinic = Clinic(tmp_path, slices((1, 2, 3)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        names, files = hospital.names(), hospital.files()
        rename(clinic.pacs.held[1:], OTHER)
        assert (await reconcile(hospital)).moved == 0
        assert hospital.names() == names
        found = await reconcile(hospital, is_deep=True)
        assert (found.moved, found.changed, found.failures) == (1, 0, [])
        assert hospital.names() == []
        for guid in files.values():
            with pytest.raises(NoSuchFileError):
                await hospital.read(guid)


async def test_what_would_be_refused_today_is_another_image_and_keeps_its_name(tmp_path: Path) -> None:
    """Somebody has written into it; that is the PACS's fault, and may be mended there."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        names, (first, second) = hospital.names(), hospital.files().values()
        clinic.pacs.held[0].BurnedInAnnotation = "YES"
        found = await reconcile(hospital, is_deep=True)
        assert (found.moved, found.changed, found.failures) == (0, 1, [])
        assert hospital.names() == names
        assert (await locality(hospital, first), await locality(hospital, second)) == ("LOST", "NEARLINE")


async def test_a_pacs_that_is_not_configured_any_more_is_told_and_loses_nothing(tmp_path: Path) -> None:
    """Its silence says nothing of its images."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        names = hospital.names()
        run = Reconciliation(hospital.hospital.projects[PROJECT])
        await run.run(dataclasses.replace(hospital.hospital, pacs={}))
        (failure,) = run.progress().failures
        assert "not configured any more" in failure
        assert (run.progress().lost, hospital.names()) == (0, names)


async def shows_when_it_is_put_right(clinic: Clinic, hospital: OpenClinic) -> None:
    """Nothing of two images shows before their PACS has the first patient again, and both do then."""
    assert hospital.names() == []
    rename(clinic.pacs.held, PATIENT)
    assert (await reconcile(hospital)).moved == 0
    await hospital.harvest()
    assert len(hospital.names()) == 2


@pytest.mark.parametrize("partial", list(Partial))
async def test_a_series_that_moves_while_its_keys_are_on_their_way_stays_away(tmp_path: Path, partial: Partial) -> None:
    """Most images of a wrong patient are mended within hours: none shows under him when its key arrives."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    clinic.partial, clinic.inclusion = partial, including(PATIENT, OTHER)
    for twin in clinic.keystores.values():
        twin.failure = unreachable
    async with clinic.open() as hospital:
        await hospital.harvest()
        rename(clinic.pacs.held, OTHER)
        assert [(await reconcile(hospital)).moved for _ in range(2)] == [1, 0]
    for twin in clinic.keystores.values():
        twin.failure = None
    async with clinic.open() as hospital:
        await hospital.deliver()
        await hospital.harvest()
        await shows_when_it_is_put_right(clinic, hospital)


class CorrectingPacs(TwinPacs):
    """A PACS in which the patient of an image is corrected once it was fetched, before it is counted again."""

    async def find_series(self, *, patient_id: str | None = None, study_uid: str | None = None) -> list[SeriesFound]:
        """List, behind the correction."""
        if self.recalls:
            rename(self.held, OTHER)
        return await super().find_series(patient_id=patient_id, study_uid=study_uid)


@pytest.mark.parametrize("partial", list(Partial))
async def test_a_series_that_moves_while_it_is_registered_never_shows_under_the_first_patient(
    tmp_path: Path, partial: Partial
) -> None:
    """Not even until the next reconciliation; it shows when it is put right."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    clinic.pacs = CorrectingPacs(clinic.pacs.held)
    clinic.partial, clinic.inclusion = partial, including(PATIENT, OTHER)
    async with clinic.open() as hospital:
        progress = await hospital.harvest()
        assert (progress.registered, progress.failures, hospital.names()) == (2, [], [])
        clinic.pacs = TwinPacs(clinic.pacs.held)
    async with clinic.open() as hospital:
        await shows_when_it_is_put_right(clinic, hospital)


async def test_a_series_that_is_held_back_stays_away_when_it_is_looked_at_again(tmp_path: Path) -> None:
    """A run that renders anew finds by each header that it is another patient's: none may show under the first one."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    clinic.partial, clinic.inclusion = Partial.SHOW, including(PATIENT, OTHER)
    for twin in clinic.keystores.values():
        twin.failure = unreachable
    async with clinic.open() as hospital:
        await hospital.harvest()
        rename(clinic.pacs.held, OTHER)
        assert (await reconcile(hospital)).moved == 1
    for twin in clinic.keystores.values():
        twin.failure = None
    async with clinic.open() as hospital:
        await hospital.deliver()
        await Rerendering(hospital.hospital.projects[PROJECT], patience=1.0).run(hospital.hospital)
        await hospital.harvest()
        await shows_when_it_is_put_right(clinic, hospital)


class HookedPacs(TwinPacs):
    """A PACS that lets something happen before its first instance."""

    before_first: Callable[[], Awaitable[object]] | None = None

    async def _begin(self, held: Dataset) -> TwinInstance:
        if held is self.held[0] and self.before_first is not None:
            await self.before_first()
        return await super()._begin(held)


async def test_what_is_withdrawn_while_its_bytes_are_compared_is_not_compared(tmp_path: Path) -> None:
    """It is neither changed nor found, whatever the PACS makes of it."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    pacs = clinic.pacs = HookedPacs(clinic.pacs.held)
    async with clinic.open() as hospital:
        await hospital.harvest()
        first = next(iter(hospital.files().values()))
        pacs.before_first = lambda: hospital.hospital.store.write(lambda tx: amends.destroy(tx, [first]))
        for instance in pacs.held:
            instance.Rows, instance.PixelData = 32, instance.PixelData[: len(instance.PixelData) // 2]
        found = await reconcile(hospital, is_deep=True)
        assert (found.changed, found.failures, lost(clinic)) == (1, [], 1)


# By itself


async def test_it_runs_once_a_day_and_not_in_clinical_hours(tmp_path: Path) -> None:
    """When it is due; a restart does not make it due, and a PACS at its busiest is left in peace."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        daily = Reconciliations(hospital.hospital, hospital.nursery, 86_400.0, look=0.001)
        clinic.pacs.may_look_ahead = False
        hospital.nursery.start_soon(daily.run_daily)
        await trio.sleep(0.02)
        with pytest.raises(UnknownNameError):
            daily.progress(PROJECT)
        clinic.pacs.held.pop()
        clinic.pacs.may_look_ahead = True
        await until(lambda: lost(clinic) == 1 and daily.progress(PROJECT).is_over)
        clinic.pacs.held.pop()
        again = Reconciliations(hospital.hospital, hospital.nursery, 86_400.0, look=0.001)
        hospital.nursery.start_soon(again.run_daily)
        await trio.sleep(0.02)
        assert lost(clinic) == 1
        clinic.now += 90_000
        await until(lambda: lost(clinic) == 2)


async def test_a_run_by_a_clock_that_was_ahead_does_not_put_off_the_next_ones(tmp_path: Path) -> None:
    """Once the clock is right again, the next run is due: else none would be until that day."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    clinic.until = dt.date.max
    async with clinic.open() as hospital:
        await hospital.harvest()
        clinic.now += 1000 * 86_400
        await reconcile(hospital)
        clinic.now -= 1000 * 86_400
        clinic.pacs.held.pop()
        daily = Reconciliations(hospital.hospital, hospital.nursery, 86_400.0, look=0.001)
        hospital.nursery.start_soon(daily.run_daily)
        await until(lambda: lost(clinic) == 1)


def lost(clinic: Clinic) -> int:
    """Count the files that are lost."""
    return clinic.store.read(lambda tx: tx.losses.count())
