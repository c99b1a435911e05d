"""Harvest: go through a project's inclusion list, find its series in the PACSs and register what is new."""

from __future__ import annotations

import dataclasses

import structlog
import trio

from mdmfs.hospital.dicom.pacs import Pacs, SeriesFound
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.incident import note_incident
from mdmfs.hospital.ledger.records import SeriesState
from mdmfs.hospital.projects import Project
from mdmfs.hospital.registration.register import register_series
from mdmfs.hospital.store import Store
from mdmfs.model.errors import ConfigurationError, MdmfsError
from mdmfs.wire.messages import HarvestProgress

log = structlog.get_logger()


@dataclasses.dataclass(slots=True)
class Harvest:
    """One run for one project, and how far it is."""

    project: Project
    series_found: int = 0
    series_done: int = 0
    instances_found: int = 0
    instances_done: int = 0
    registered: int = 0
    known: int = 0
    refused: int = 0
    octets: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    is_over: bool = False

    def progress(self, store: Store) -> HarvestProgress:
        """Tell how far it is."""
        waiting = store.read(lambda tx: tx.series.all(SeriesState.DEPOSITING))
        return HarvestProgress(
            series_found=self.series_found,
            series_done=self.series_done,
            instances_found=self.instances_found,
            instances_done=self.instances_done,
            registered=self.registered,
            known=self.known,
            refused=self.refused,
            octets=self.octets,
            depositing=sum(series.project == self.project.name for series in waiting),
            failures=self.failures[:20],
            is_over=self.is_over,
        )

    async def run(self, hospital: Hospital) -> None:
        """Find and register. What fails is told and does not stop the rest; the next run goes on from there."""
        try:
            for name in self.project.pacs:
                await self._harvest_pacs(name, hospital)
        finally:
            self.is_over = True

    async def _harvest_pacs(self, name: str, hospital: Hospital) -> None:
        try:
            found = await self._find(hospital.pacs[name].pacs)
        except MdmfsError as error:
            self._note(f"PACS {name}: {error}")
            return
        self.series_found += len(found)
        self.instances_found += sum(series.instance_count or 0 for series in found)
        for series in found:
            before = self.instances_done
            try:
                await self._register(series, name, hospital)
            except MdmfsError as error:
                self._note(f"a series of PACS {name} ({series.modality or 'no modality'}): {error}")
            except Exception as error:  # noqa: BLE001 the service loop: one series must not end the harvest
                self._note(note_incident(f"a series of PACS {name} ({series.modality or 'no modality'})", error))
            self.series_done += 1
            self.instances_done = max(self.instances_done, before + (series.instance_count or 0))

    async def _register(self, series: SeriesFound, name: str, hospital: Hospital) -> None:
        def count(octets: int) -> None:
            self.instances_done += 1
            self.octets += octets

        outcome = await register_series(series, name, self.project, hospital, on_instance=count)
        if outcome is not None:
            self.registered += outcome.registered
            self.known += outcome.known
            self.refused += outcome.refused

    async def _find(self, pacs: Pacs) -> list[SeriesFound]:
        """Find the series of every patient and study of the list, each once."""
        found: dict[tuple[str, str], SeriesFound] = {}
        for patient in sorted({patient.patient_id for patient in self.project.inclusion.patients}):
            for series in await pacs.find_series(patient_id=patient):
                found[series.study_uid, series.series_uid] = series
        for study in sorted(self.project.inclusion.studies):
            for series in await pacs.find_series(study_uid=study):
                found[series.study_uid, series.series_uid] = series
        return list(found.values())

    def _note(self, failure: str) -> None:
        log.warning("harvest", project=self.project.name, failure=failure)
        self.failures.append(failure)


class Harvests:
    """The harvests of a hospital: one at a time for each project."""

    def __init__(self, hospital: Hospital, nursery: trio.Nursery) -> None:
        """Run harvests in a nursery that outlives them."""
        self._hospital = hospital
        self._nursery = nursery
        self._latest: dict[str, Harvest] = {}

    def start(self, project: str) -> HarvestProgress:
        """Start a harvest, or find the one that runs; raises ``ConfigurationError`` for an unknown or ended project."""
        found = self._hospital.projects.get(project)
        if found is None or found.is_over(self._hospital.clock()):
            known = sorted(self._hospital.projects)
            message = f"there is no project {project}, or its last day is past; this hospital has {known}"
            raise ConfigurationError(message)
        latest = self._latest.get(project)
        if latest is None or latest.is_over:
            latest = self._latest[project] = Harvest(found)
            self._nursery.start_soon(self._run, latest)
        return latest.progress(self._hospital.store)

    def progress(self, project: str) -> HarvestProgress:
        """Tell how far the latest harvest of a project is; raises ``ConfigurationError`` where there was none."""
        latest = self._latest.get(project)
        if latest is None:
            message = f"no harvest of {project} has been started since the hospital's daemon was"
            raise ConfigurationError(message)
        return latest.progress(self._hospital.store)

    async def _run(self, harvest: Harvest) -> None:
        try:
            await harvest.run(self._hospital)
        except Exception as error:  # noqa: BLE001 the service loop: one harvest must not end the daemon
            harvest.failures.append(note_incident("the harvest", error))
