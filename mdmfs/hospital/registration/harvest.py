"""Harvest: go through a project's inclusion list, find its series in the PACSs and register what is new."""

from __future__ import annotations

import dataclasses
from typing import Final

import structlog
import trio

from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.dicom.pacs import Pacs, SeriesFound
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.incident import note_incident
from mdmfs.hospital.ledger.records import SeriesState
from mdmfs.hospital.pages import pages_of_series
from mdmfs.hospital.projects import Project
from mdmfs.hospital.registration.register import register_series
from mdmfs.hospital.store import Store
from mdmfs.hospital.uidmap.records import SeriesKey
from mdmfs.model.errors import (
    AccessDeniedError,
    BusyError,
    MdmfsError,
    OutOfSpaceError,
    PacsUnreachableError,
    StoreError,
    UnknownNameError,
)
from mdmfs.wire.messages.administration import HarvestProgress

LONGEST_WAIT: Final = 10.0
FRUITLESS: Final = 3
"""Series in a row that fail through no fault of theirs before all that are left of a PACS are left for another run."""
LOOK_SECONDS: Final = 0.25
COUNTED_A_SECOND: Final = 10_000
"""How many series that wait for keystores are counted in a second, on average, to see whether there are any left."""

NO_FAULT_OF_THEIRS: Final = (PacsUnreachableError, OutOfSpaceError, StoreError)
"""The PACS is down, or a disk is full: without a line in the log nothing more should be fetched and registered."""

log = structlog.get_logger()


@dataclasses.dataclass(slots=True)
class Harvest:
    """One run for one project, and how far it is."""

    project: Project
    pacs: tuple[str, ...]
    """Where it looks."""
    is_dry: bool = False
    series_found: int = 0
    series_done: int = 0
    instances_found: int = 0
    instances_done: int = 0
    registered: int = 0
    known: int = 0
    refused: int = 0
    octets: int = 0
    new: int = 0
    foreign: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    is_over: bool = False

    async def progress(self, store: Store) -> HarvestProgress:
        """Tell how far it is; others have their turn while the series that wait for keystores are counted."""
        depositing = 0
        for page in pages_of_series(store, state=SeriesState.DEPOSITING):
            depositing += sum(series.project == self.project.name for series in page)
            await trio.lowlevel.checkpoint()
        return HarvestProgress(
            series_found=self.series_found,
            series_done=self.series_done,
            instances_found=self.instances_found,
            instances_done=self.instances_done,
            registered=self.registered,
            known=self.known,
            refused=self.refused,
            octets=self.octets,
            depositing=depositing,
            failures=self.failures[:20],
            is_over=self.is_over,
            new=self.new,
            foreign=self.foreign,
        )

    async def run(self, hospital: Hospital) -> None:
        """Find and register, until the project's last day is past.

        What else fails is told and does not stop the rest; the next run goes on from there.
        """
        try:
            for name in self.pacs:
                await self._harvest_pacs(name, hospital)
        except AccessDeniedError as error:  # its last day is past
            self._note(str(error), error.place)
        finally:
            self.is_over = True
            hospital.feed.bell.ring()

    async def _harvest_pacs(self, name: str, hospital: Hospital) -> None:
        try:
            found = await self._find(hospital.pacs[name].pacs)
        except MdmfsError as error:
            self._note(f"PACS {name}: {error}", error.place)
            return
        self.series_found += len(found)
        self.instances_found += sum(series.instance_count or 0 for series in found)
        in_a_row: list[str] = []
        for place, series in enumerate(found):
            before, which = self.instances_done, f"a series of PACS {name} ({series.modality or 'no modality'})"
            try:
                await self._register(series, name, hospital)
            except NO_FAULT_OF_THEIRS as error:
                in_a_row.append(f"{which}: {error}")
                if len(in_a_row) == FRUITLESS:
                    self._give_up(name, place + 1 - FRUITLESS, len(found), error)
                    return
                continue
            except AccessDeniedError:
                raise
            except MdmfsError as error:
                self._note(f"{which}: {error}", error.place)
            except Exception as error:  # noqa: BLE001 the service loop: one series must not end the harvest
                self._note(note_incident(which, error))
            self._pass_by(in_a_row)
            self.series_done += 1
            self.instances_done = max(self.instances_done, before + (series.instance_count or 0))
        self._pass_by(in_a_row)

    def _pass_by(self, failures: list[str]) -> None:
        """Tell of the series that were left out while what failed did so for a moment only."""
        for failure in failures:
            self._note(failure)
            self.series_done += 1
        failures.clear()

    def _give_up(self, name: str, done: int, found: int, error: MdmfsError) -> None:
        """Tell once what is left where a PACS is down or a disk is full, not once for each series."""
        self._note(
            f"PACS {name}: {error}; {done} of its {found} series were gone through, {found - done} are left: "
            "run the harvest again when that is mended, it goes on from there"
        )

    async def _register(self, series: SeriesFound, name: str, hospital: Hospital) -> None:
        if self.is_dry:
            await self._count(series, name, hospital)
            return

        def count(octets: int) -> None:
            self.instances_done += 1
            self.octets += octets

        outcome = await register_series(series, name, self.project, hospital, on_instance=count)
        if outcome is not None:
            self.registered += outcome.registered
            self.known += outcome.known
            self.refused += outcome.refused
        else:
            self.foreign += 1

    async def _count(self, series: SeriesFound, name: str, hospital: Hospital) -> None:
        """Count what is new of a series, by the PACS's own count where it keeps one."""
        known = hospital.pacs[name]
        patient = PatientKey(series.issuer or known.issuer, series.patient_id)
        is_included = self.project.inclusion.holds(patient, series.study_uid)
        if not is_included or hospital.opted_out.may_mean(patient, series.study_uid):
            self.foreign += 1
            return
        key = SeriesKey(self.project.name, series.study_uid, series.series_uid)
        settled = hospital.store.read(lambda tx: tx.uidmap.count_of_series(key) + len(tx.quarantine.of_series(key)))
        count = series.instance_count
        if count is None:
            found = await known.pacs.find_instances(
                study_uid=series.study_uid, series_uid=series.series_uid, are_described=False
            )
            count = len(found)
            self.instances_found += count
        self.known += min(settled, count)
        self.new += max(count - settled, 0)

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

    def _note(self, failure: str, place: str = "") -> None:
        log.warning("harvest", project=self.project.name, failure=failure, place=place or None)
        self.failures.append(failure)


class Harvests:
    """The harvests of a hospital: one at a time for each project."""

    def __init__(self, hospital: Hospital, nursery: trio.Nursery) -> None:
        """Run harvests in a nursery that outlives them."""
        self._hospital = hospital
        self._nursery = nursery
        self._latest: dict[str, Harvest] = {}

    async def start(self, project: str, *, pacs: str = "", is_dry: bool = False) -> HarvestProgress:
        """Start a harvest, or find the one that runs.

        Raises ``UnknownNameError`` for an unknown or ended project and for a PACS that is none of its own, and
        ``BusyError`` where another kind of run is under way.
        """
        found = self._hospital.projects.get(project)
        if found is None or found.is_over(self._hospital.clock()):
            known = ", ".join(sorted(self._hospital.projects))
            message = f"there is no project {project}, or its last day is past; this hospital has {known}"
            raise UnknownNameError(message)
        if pacs and pacs not in found.pacs:
            message = f"the project {project} does not look in a PACS {pacs}; it names {', '.join(sorted(found.pacs))}"
            raise UnknownNameError(message)
        wanted = (pacs,) if pacs else found.pacs
        latest = self._latest.get(project)
        if latest is None or latest.is_over:
            latest = self._latest[project] = Harvest(found, wanted, is_dry)
            self._nursery.start_soon(self._run, latest)
        elif (latest.pacs, latest.is_dry) != (wanted, is_dry):
            message = f"another harvest of {project} is under way, over other PACSs or dry"
            raise BusyError(message, what_to_do="wait for its end")
        return await latest.progress(self._hospital.store)

    async def progress(self, project: str) -> HarvestProgress:
        """Tell how far the latest harvest of a project is; raises ``UnknownNameError`` where there was none."""
        return await self._latest_of(project).progress(self._hospital.store)

    async def end(self, project: str, *, within: float) -> HarvestProgress:
        """Wait so many seconds until the latest harvest has ended and all it registered is deposited.

        Tells how far it is then; raises ``UnknownNameError`` as ``progress``.
        """
        with trio.move_on_after(min(max(0.0, within), LONGEST_WAIT)):
            while True:
                news = self._hospital.feed.bell.next()
                if self._latest_of(project).is_over:
                    depositing = (await self.progress(project)).depositing
                    if not depositing:
                        break
                    # it rings for each series and keystore, and a look counts all
                    await trio.sleep(max(LOOK_SECONDS, depositing / COUNTED_A_SECOND))
                await news.wait()
        return await self.progress(project)

    def _latest_of(self, project: str) -> Harvest:
        latest = self._latest.get(project)
        if latest is None:
            message = f"no harvest of {project} has been started since the hospital's daemon was"
            raise UnknownNameError(message, what_to_do="start it again: it goes on where it was")
        return latest

    async def _run(self, harvest: Harvest) -> None:
        try:
            await harvest.run(self._hospital)
        except Exception as error:  # noqa: BLE001 the service loop: one harvest must not end the daemon
            harvest.failures.append(note_incident("the harvest", error))
