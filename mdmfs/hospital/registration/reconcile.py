"""Reconciliation: compare what is registered with what the PACSs say now: losses, growth, other patients, other bytes.

A daily run compares patients and counts, which costs a PACS two short queries for a study. A deep one fetches every
image again and compares it with the digests of its registration. Nothing is taken from a PACS's silence: where it
cannot be asked, or fails, everything stays as it was.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Final

import structlog
import trio

from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.deid.deidentify import ENGINE_GENERATION
from mdmfs.hospital.deid.header import IdentifiedHeader
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.dicom.pacs import SeriesFound
from mdmfs.hospital.hospital import Hospital, KnownPacs, subject_of
from mdmfs.hospital.incident import note_incident
from mdmfs.hospital.ledger.records import LossCause, SeriesRecord
from mdmfs.hospital.pages import pages_of_series
from mdmfs.hospital.projects import Project
from mdmfs.hospital.registration.moved import put_away_moved, restore
from mdmfs.hospital.registration.series import is_of, is_of_another
from mdmfs.hospital.release.loss import note_found, note_lost
from mdmfs.hospital.release.recall import PUT_AWAY, key_of
from mdmfs.hospital.release.release import quarantine
from mdmfs.hospital.release.render import Admission, Rendering, Verification
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import InstanceRecord, SubjectRow
from mdmfs.model.errors import (
    BusyError,
    InstanceChangedError,
    MdmfsError,
    PacsUnreachableError,
    UnknownNameError,
)
from mdmfs.model.names import Guid
from mdmfs.wire.messages.administration import ReconciliationProgress

log = structlog.get_logger()

FRUITLESS: Final = 3
"""Times in a row that a PACS is out of reach before the rest of its studies is left for another day."""
LOOK_SECONDS: Final = 600.0
"""How often it is looked whether a run is due."""
_COMPARED: Final = {FileState.PENDING, FileState.VISIBLE, FileState.QUARANTINED, FileState.SUPERSEDED}

COUNTS: Final = ("lost", "found", "changed", "moved", "restored", "new")

Registered = dict[Guid, InstanceRecord]
"""The files of a series, of which there may be tens of thousands: what is large of them is read when it is needed."""


@dataclasses.dataclass(slots=True)
class Reconciliation:
    """One run for one project, and what it found."""

    project: Project
    is_deep: bool = False
    begun: float = 0.0
    series: int = 0
    series_done: int = 0
    lost: int = 0
    found: int = 0
    changed: int = 0
    moved: int = 0
    restored: int = 0
    new: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    is_over: bool = False

    def progress(self) -> ReconciliationProgress:
        """Tell how far it is."""
        return ReconciliationProgress(
            series=self.series,
            series_done=self.series_done,
            lost=self.lost,
            found=self.found,
            changed=self.changed,
            moved=self.moved,
            restored=self.restored,
            new=self.new,
            failures=self.failures[:20],
            is_over=self.is_over,
        )

    async def run(self, hospital: Hospital) -> None:
        """Compare everything; what fails is told and does not stop the rest."""
        try:
            await self._run(hospital)
            if not self.failures:
                now, name = hospital.clock(), self.project.name
                await hospital.store.write(lambda tx: tx.losses.note_reconciled(name, now))
        finally:
            self.is_over = True
        found = {name: count for name in COUNTS if (count := getattr(self, name))}
        log.info("reconciled", project=self.project.name, series=self.series_done, **found)

    async def _run(self, hospital: Hospital) -> None:
        name = self.project.name
        by_study: dict[tuple[str, str], list[SeriesRecord]] = collections.defaultdict(list)
        for page in pages_of_series(hospital.store):
            for series in page:
                if series.project == name:
                    by_study[series.pacs, series.study_uid].append(series)
                    self.series += 1
            await trio.lowlevel.checkpoint()
        fruitless: collections.Counter[str] = collections.Counter()
        for (pacs, _), of_study in by_study.items():
            if fruitless[pacs] < FRUITLESS:
                await self._reconcile_study(pacs, of_study, hospital, fruitless)
            self.series_done += len(of_study)

    async def _reconcile_study(
        self, pacs: str, series: Sequence[SeriesRecord], hospital: Hospital, fruitless: collections.Counter[str]
    ) -> None:
        known = hospital.pacs.get(pacs)
        if known is None:
            self._note(f"PACS {pacs} is not configured any more: {len(series)} series cannot be compared")
            return
        before = fruitless.pop(pacs, 0)
        try:
            found = await known.pacs.find_series(study_uid=series[0].study_uid)
            for record in series:
                here = [it for it in found if it.series_uid == record.series_uid]
                await _Comparison(self, record, known, hospital).run(here)
        except MdmfsError as error:
            fruitless[pacs] = before + 1 if isinstance(error, PacsUnreachableError) else 0
            self._note(f"a study of PACS {pacs}: {error}", error.place)
        except Exception as error:  # noqa: BLE001 the service loop: one study must not end the run
            self._note(note_incident(f"a study of PACS {pacs}", error))

    def _note(self, failure: str, place: str = "") -> None:
        log.warning("reconcile", project=self.project.name, failure=failure, place=place or None)
        self.failures.append(failure)


class _Comparison:
    """One series as it is registered, beside what the PACS has."""

    def __init__(self, run: Reconciliation, series: SeriesRecord, known: KnownPacs, hospital: Hospital) -> None:
        self._run = run
        self._series = series
        self._known = known
        self._hospital = hospital

    async def run(self, here: Sequence[SeriesFound]) -> None:
        """Compare; ``here`` is how the PACS has the series: not at all, or under one patient, or several."""
        row, registered, settled, is_lossy = self._hospital.store.read(self._read)
        if row is None or not registered:
            return
        if not here:
            self._run.lost += await note_lost(self._hospital, list(registered), LossCause.GONE)
            return
        if is_of_another(here, row):
            await self._put_away()
            return
        if any(is_of(it, row) for it in here):
            await self._restore()
        if is_lossy or self._run.is_deep or here[0].instance_count != settled:
            registered = await self._compare_instances(registered)
        if self._run.is_deep:
            await self._compare_bytes(row, registered)

    def _read(self, tx: Transaction) -> tuple[SubjectRow | None, Registered, int, bool]:
        """Give the patient, the files, how many instances are registered or refused, and whether any file is lost."""
        key = self._series.key
        registered: Registered = {}
        for guid, instance in tx.uidmap.of_series(key):
            file = tx.catalogue.file(guid)
            if file is not None and file.state in _COMPARED:
                registered[guid] = instance
        instances = {instance.instance_uid for instance in registered.values()}
        instances |= {record.instance_uid for record in tx.quarantine.of_series(key)}
        is_lossy = any(tx.losses.get(guid) for guid in registered)
        return tx.subjects.by_id(self._series.subject), registered, len(instances), is_lossy

    async def _put_away(self) -> None:
        if await put_away_moved(self._hospital, self._series.key):
            self._run.moved += 1

    async def _restore(self) -> None:
        if await restore(self._hospital, self._series.key, self._run.project, {Reason.MOVED_PATIENT}):
            self._run.restored += 1

    async def _compare_instances(self, registered: Registered) -> Registered:
        """Find out which images are gone, there again, and new; gives those that are there."""
        series = self._series
        listed = await self._known.pacs.find_instances(
            study_uid=series.study_uid, series_uid=series.series_uid, are_described=False
        )
        there = {it.instance_uid for it in listed}
        here = {guid: instance for guid, instance in registered.items() if instance.instance_uid in there}
        gone = [guid for guid in registered if guid not in here]
        self._run.lost += await note_lost(self._hospital, gone, LossCause.GONE)
        self._run.found += await self._note_found(here)
        self._run.new += len(there - self._hospital.store.read(self._settled_uids))
        return here

    def _settled_uids(self, tx: Transaction) -> set[str]:
        key = self._series.key
        return {instance.instance_uid for _, instance in tx.uidmap.of_series(key)} | {
            record.instance_uid for record in tx.quarantine.of_series(key)
        }

    async def _note_found(self, here: Registered) -> int:
        """Those that were gone are found by being listed; those that were changed only by their bytes."""
        gone = self._hospital.store.read(
            lambda tx: [guid for guid in here if (loss := tx.losses.get(guid)) and loss.cause is LossCause.GONE]
        )
        return await note_found(self._hospital, gone)

    # Bytes

    async def _compare_bytes(self, row: SubjectRow, registered: Registered) -> None:
        """Fetch what was registered under today's rules, and compare it with what it was."""
        policy = self._run.project.policy
        rules = policy.digest, ENGINE_GENERATION
        under_rules = self._hospital.store.read(lambda tx: [guid for guid in registered if _rules(tx, guid) == rules])
        compared = {registered[guid].instance_uid: guid for guid in under_rules}
        wanted = [key_of(registered[guid]) for guid in under_rules]
        admission = Admission(policy, subject_of(row))

        async def admit(header: IdentifiedHeader) -> Admission:
            if self._known.patient_of(header) != PatientKey(row.issuer, row.patient_id):
                raise RefusedError(Reason.OTHER_PATIENT)
            return admission

        async with self._known.pacs.retrieve(wanted) as arriving:
            async for incoming in arriving:
                guid = compared[incoming.instance_uid]
                if not await self._compare_one(guid, Rendering(incoming, admit)):
                    return

    async def _compare_one(self, guid: Guid, rendering: Rendering) -> bool:
        """Compare one image; False when its header names another patient: then the whole series has been put away."""
        file = self._hospital.store.read(lambda tx: tx.catalogue.file(guid))
        if file is None or file.state not in _COMPARED:
            return True  # withdrawn since
        try:
            verification = Verification(guid, file.rendition)
            async with contextlib.aclosing(rendering.segments()) as segments:
                async for segment in segments:
                    verification.verify(segment)
            verification.finish()
        except RefusedError as refused:
            if refused.reason in PUT_AWAY:
                await quarantine(self._hospital, guid, refused)
                self._run.moved += 1
                return False
            self._run.changed += await note_lost(self._hospital, [guid], LossCause.CHANGED)
        except InstanceChangedError:
            self._run.changed += await note_lost(self._hospital, [guid], LossCause.CHANGED)
        else:
            self._run.found += await note_found(self._hospital, [guid])
        return True


def _rules(tx: Transaction, guid: Guid) -> tuple[bytes, int] | None:
    file = tx.catalogue.file(guid)
    return None if file is None else (file.rendition.policy, file.rendition.engine_generation)


class Reconciliations:
    """The reconciliations of a hospital: one at a time for each project, by command and once a day by itself."""

    def __init__(
        self, hospital: Hospital, nursery: trio.Nursery, interval: float, *, look: float = LOOK_SECONDS
    ) -> None:
        """Compare every project each ``interval`` seconds, or never if it is 0; run in a nursery that outlives this.

        Whether a run is due is looked at every ``look`` seconds.
        """
        self._hospital = hospital
        self._nursery = nursery
        self._interval = interval
        self._look = look
        self._latest: dict[str, Reconciliation] = {}

    def start(self, project: str, *, is_deep: bool = False) -> ReconciliationProgress:
        """Start a run, or find the one under way; raises ``UnknownNameError`` for an unknown project."""
        found = self._hospital.projects.get(project)
        if found is None:
            message = f"there is no project {project}; this hospital has {', '.join(sorted(self._hospital.projects))}"
            raise UnknownNameError(message)
        latest = self._latest.get(project)
        if latest is None or latest.is_over:
            latest = self._latest[project] = Reconciliation(found, is_deep)
            self._nursery.start_soon(self._run, latest)
        elif latest.is_deep != is_deep:
            message = f"another reconciliation of {project} is under way"
            raise BusyError(message, what_to_do="wait for its end")
        return latest.progress()

    def progress(self, project: str) -> ReconciliationProgress:
        """Tell how far the latest run of a project is; raises ``UnknownNameError`` where there was none."""
        latest = self._latest.get(project)
        if latest is None:
            message = f"no reconciliation of {project} has been started since the hospital's daemon was"
            raise UnknownNameError(message, what_to_do="start it again: nothing is lost")
        return latest.progress()

    async def run_daily(self) -> None:
        """Start what is due, outside of clinical hours, until cancelled."""
        while self._interval:
            try:
                for name, project in self._hospital.projects.items():
                    if self._is_due(name) and all(self._may_ask(pacs) for pacs in project.pacs):
                        self.start(name)
            except MdmfsError as error:
                log.error("whether a reconciliation is due cannot be told", reason=error.told_here)  # noqa: TRY400 as it says
            await trio.sleep(self._look)
        await trio.sleep_forever()

    def _is_due(self, project: str) -> bool:
        latest = self._latest.get(project)
        if latest is not None and not latest.is_over:
            return False
        begun = 0.0 if latest is None else latest.begun
        last = self._hospital.store.read(lambda tx: tx.losses.last_reconciled(project))
        now = self._hospital.clock()
        # What a clock wrote that was ahead counts for nothing: it would put off all runs until then.
        return max((when for when in (last, begun) if when <= now), default=0.0) + self._interval <= now

    def _may_ask(self, pacs: str) -> bool:
        known = self._hospital.pacs.get(pacs)
        return known is None or known.pacs.may_look_ahead

    async def _run(self, run: Reconciliation) -> None:
        run.begun = self._hospital.clock()
        try:
            await run.run(self._hospital)
        except MdmfsError as error:
            run.failures.append(str(error))
            log.warning("a reconciliation failed", reason=error.told_here)
        except Exception as error:  # noqa: BLE001 the service loop: one run must not end the daemon
            run.failures.append(note_incident("the reconciliation", error))
