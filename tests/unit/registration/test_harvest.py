"""A harvest as it is asked for: dry, from one PACS, and told how far it is."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio

from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.ledger.records import SeriesState
from mdmfs.hospital.pages import PAGE
from mdmfs.hospital.registration.harvest import Harvest
from mdmfs.model.errors import BusyError, UnknownNameError
from mdmfs.wire.messages.administration import (
    HARVEST_PATH,
    HARVEST_PROGRESS_PATH,
    AskHarvest,
    HarvestProgress,
    StartHarvest,
)
from tests.twins.clinic import OWNER, PROJECT, PROJECT_LFN, Clinic, OpenClinic, including, slice_of, slices
from tests.twins.records import series_record


async def dry(hospital: OpenClinic) -> HarvestProgress:
    """Count only."""
    harvest = Harvest(hospital.hospital.projects[PROJECT], ("main",), is_dry=True)
    await harvest.run(hospital.hospital)
    return await harvest.progress(hospital.hospital.store)


async def test_a_dry_run_counts_and_changes_nothing(tmp_path: Path) -> None:
    """Nothing is fetched, written or logged; what is known, new and not included is told apart."""
    clinic = Clinic(tmp_path, [*slices((1, 2)), slice_of(1, patient_id="OTHER", study=2, series=9)])
    clinic.inclusion = including(*clinic.inclusion.patients, studies=[str(clinic.pacs.held[-1].StudyInstanceUID)])
    async with clinic.open() as hospital:
        await hospital.harvest()
        clinic.pacs.held += [*slices((3,)), *slices((1, 2, 3), series=2)]
        clinic.pacs.recalls = 0
        before = hospital.audited()
        found = await dry(hospital)
        assert (found.known, found.new, found.foreign, found.registered) == (3, 4, 0, 0)
        assert found.instances_found == found.instances_done == 7
        assert clinic.pacs.recalls == 0
        assert hospital.audited() == before
        progress = await hospital.harvest()
        assert progress.registered == found.new
        assert (await dry(hospital)).new == 0


async def test_a_dry_run_tells_what_is_not_meant(tmp_path: Path) -> None:
    """Another issuer than the list names, and who has opted out."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    meant, clinic.inclusion = clinic.inclusion, including(PatientKey("ELSEWHERE", "TEST-1"))
    async with clinic.open() as hospital:
        assert ((await dry(hospital)).new, (await dry(hospital)).foreign) == (0, 1)
    clinic.inclusion = clinic.opted_out = meant
    async with clinic.open() as hospital:
        assert (await dry(hospital)).foreign == 1
        assert (await hospital.harvest()).foreign == 1


async def test_a_dry_run_lists_where_the_pacs_does_not_count(tmp_path: Path) -> None:
    """Number of Series Related Instances is optional."""
    clinic = Clinic(tmp_path, slices((1, 2, 3)))
    clinic.pacs.counts = False
    async with clinic.open() as hospital:
        found = await dry(hospital)
        assert (found.new, found.instances_found) == (3, 3)


async def test_who_asks_how_far_it_is_may_wait_for_the_end(tmp_path: Path) -> None:
    """He hears of it when it has ended, or how far it is after as long as he wants to wait."""
    clinic = Clinic(tmp_path, slices((1,)))
    clinic.pacs.delay = 1.0
    async with clinic.open() as hospital:
        await hospital.told(HARVEST_PATH, StartHarvest(PROJECT), OWNER)
        early = await hospital.told(HARVEST_PROGRESS_PATH, AskHarvest(PROJECT, wait=0.001), OWNER)
        assert isinstance(early, HarvestProgress)
        assert not early.is_over
        late = await hospital.told(HARVEST_PROGRESS_PATH, AskHarvest(PROJECT, wait=1e9), OWNER)
        assert isinstance(late, HarvestProgress)
        assert (late.is_over, late.depositing, late.registered) == (True, 0, 1)
        again = await hospital.told(HARVEST_PROGRESS_PATH, AskHarvest(PROJECT, wait=float("nan")), OWNER)
        assert again == late


async def test_others_have_their_turn_while_the_series_that_wait_for_keystores_are_counted(tmp_path: Path) -> None:
    """With too few keystores there may be as many as a project has; of another project none is counted."""
    async with Clinic(tmp_path).open() as hospital:
        store, pages, turns = hospital.hospital.store, 8, 0
        waiting = [
            msgspec.structs.replace(
                series_record(number, SeriesState.DEPOSITING),
                project="other" if number % 2 else PROJECT,
                lfn=PROJECT_LFN / f"series-{number}",
            )
            for number in range(pages * PAGE)
        ]
        await store.write(lambda tx: [tx.series.put(series) for series in waiting])
        harvest = Harvest(hospital.hospital.projects[PROJECT], ("main",))
        async with trio.open_nursery() as nursery:

            async def take_turns() -> None:
                nonlocal turns
                while True:
                    await trio.lowlevel.checkpoint()
                    turns += 1

            nursery.start_soon(take_turns)
            assert (await harvest.progress(store)).depositing == len(waiting) // 2
            assert turns >= pages // 2  # whose turn it is first is left to chance
            nursery.cancel_scope.cancel()


async def test_one_pacs_of_a_project_can_be_harvested(tmp_path: Path) -> None:
    """One that the project does not name is an error, and so is another run beside it."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    clinic.pacs.delay = 0.05
    async with clinic.open() as hospital:
        with pytest.raises(UnknownNameError, match="does not look in a PACS attic"):
            await hospital.ask(HARVEST_PATH, StartHarvest(PROJECT, "attic"), OWNER)
        progress = await hospital.told(HARVEST_PATH, StartHarvest(PROJECT, "main"), OWNER)
        await hospital.ask(HARVEST_PATH, StartHarvest(PROJECT), OWNER)
        with pytest.raises(BusyError):
            await hospital.ask(HARVEST_PATH, StartHarvest(PROJECT, is_dry=True), OWNER)
        while not (isinstance(progress, HarvestProgress) and progress.is_over):
            await trio.sleep(0.01)
            progress = await hospital.told(HARVEST_PROGRESS_PATH, AskHarvest(PROJECT), OWNER)
        assert progress.registered == 2
