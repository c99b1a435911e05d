"""The trigger: a C-STORE from a listed PACS is a notice, kept durably; when it has settled, its series is registered.

The wait is there for corrections: most wrong-patient errors are mended in the first hours. What is registered is what
the PACS then says, never what was stored to us.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog
import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.hospital.bell import Bell
from mdmfs.hospital.deid.refusal import Reason
from mdmfs.hospital.dicom.pacs import SeriesFound
from mdmfs.hospital.dicom.receive import StoredInstance
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.incident import note_incident
from mdmfs.hospital.kept.audit import AuditRecord, Event
from mdmfs.hospital.ledger.records import Notice, NoticedSeries, SeriesState
from mdmfs.hospital.projects import Project
from mdmfs.hospital.registration.not_included import NO_PROJECT, remember_not_included
from mdmfs.hospital.registration.register import register_series
from mdmfs.hospital.uidmap.records import SeriesKey
from mdmfs.model.errors import MdmfsError, RecallFailedError
from mdmfs.model.pauses import pause_after

log = structlog.get_logger()

QUIET_SECONDS: Final = 0.5
"""Without news of a series, before it is looked at, however short ``settle`` is: its instances come one by one."""
FIRST_PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 3600.0
GIVEN_UP_AFTER: Final = 30 * 86_400.0
"""Seconds after which a series that the PACS does not name any more is forgotten."""
_LONGEST_SLEEP: Final = 60.0


class Trigger:
    """Takes notices and works on them; ``run`` is its task."""

    def __init__(self, hospital: Hospital, settle: float, *, keep_not_included: bool = True) -> None:
        """Wait ``settle`` seconds after the latest notice of a series; keep which no project includes, or do not."""
        self._hospital = hospital
        self._keep_not_included = keep_not_included
        self._settle = max(settle, QUIET_SECONDS)
        self._failures: dict[SeriesKey, int] = {}
        self._not_before: dict[SeriesKey, float] = {}
        """By trio's clock, which nobody sets."""
        self._disbelieved: dict[SeriesKey, float] = {}
        """Series whose latest notice was written by a clock that was ahead, and since when that is known."""
        self._busy: set[str] = set()
        """PACSs whose series are worked on: one that is slow or does not answer holds up no other."""
        self._bell = Bell()
        """Rings when there is something to look at before it is time."""
        self._looks_at = float("-inf")
        """When it is time, by trio's clock."""

    async def note(self, instance: StoredInstance) -> None:
        """Remember an instance; returns when it is on disk. Raises ``StoreError`` or ``OutOfSpaceError``."""
        notice = Notice(*instance, self._hospital.clock())
        await self._hospital.store.write(lambda tx: tx.notices.put(notice))
        if trio.current_time() + self._settle < self._looks_at:
            self._bell.ring()

    async def run(self) -> None:
        """Work on what has settled, until cancelled; what an earlier run has left too."""
        async with open_plain_nursery() as nursery:
            while True:
                rung = self._bell.next()
                try:
                    wait = self._look(nursery)
                except MdmfsError as error:
                    log.error("what PACSs told of cannot be read", reason=error.told_here)  # noqa: TRY400 the reason says it
                    wait = FIRST_PAUSE
                self._looks_at = trio.current_time() + min(max(wait, 0.0), _LONGEST_SLEEP)  # clocks on walls are set
                with trio.move_on_at(self._looks_at):
                    await rung.wait()

    def _look(self, nursery: trio.Nursery) -> float:
        """Begin to work on what is due, and give the seconds until something will be, of PACSs that nobody works on.

        All that waits is looked through, a day's series; so nobody looks at each instance that a PACS tells of.
        """
        due: dict[str, list[NoticedSeries]] = {}
        wait = _LONGEST_SLEEP
        told_of = self._hospital.store.read(lambda tx: tx.notices.all())
        for series in told_of:
            left = _LONGEST_SLEEP if series.pacs in self._busy else self._wait_of(series)
            if left <= 0:
                due.setdefault(series.pacs, []).append(series)
            else:
                wait = min(wait, left)
        for pacs, of_pacs in due.items():
            self._busy.add(pacs)
            nursery.start_soon(self._work_through, pacs, of_pacs)
        # where something waits a look comes soon enough, and what comes meanwhile asks for none
        return min(wait, self._settle) if told_of else wait

    async def _work_through(self, pacs: str, of_pacs: Sequence[NoticedSeries]) -> None:
        for series in of_pacs:
            await self._work_on(series)
        self._busy.discard(pacs)
        self._bell.ring()

    def _wait_of(self, series: NoticedSeries) -> float:
        """Give the seconds until a series is looked at; a notice from the future is as old as we have known of it."""
        key, now = _key(series), self._hospital.clock()
        latest = series.latest if series.latest <= now else min(now, self._disbelieved.setdefault(key, now))
        return max(latest + self._settle - now, self._not_before.get(key, 0.0) - trio.current_time())

    async def _work_on(self, series: NoticedSeries) -> None:
        """Deal with one series; what fails is tried again later, ever less often."""
        try:
            if await self._register(series):
                await self._hospital.store.write(lambda tx: tx.notices.remove(series))
                for known in (self._failures, self._not_before, self._disbelieved):
                    known.pop(_key(series), None)
        except MdmfsError as error:
            self._postpone(series, str(error))
        except Exception as error:  # noqa: BLE001 the service loop: one series must not end the trigger
            self._postpone(series, note_incident("a series that a PACS told of", error))

    def _postpone(self, series: NoticedSeries, reason: str) -> None:
        key = _key(series)
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause = pause_after(failures - 1, FIRST_PAUSE, LONGEST_PAUSE)
        self._not_before[key] = trio.current_time() + pause
        log.warning("a series that a PACS told of is not registered yet", pacs=series.pacs, reason=reason, pause=pause)

    async def _register(self, series: NoticedSeries) -> bool:
        """Offer a series to every project that it may belong to; True when nothing is left to do."""
        known = self._hospital.pacs.get(series.pacs)
        found = None if known is None else await self._find(series)
        if found is None:
            if self._hospital.clock() - series.latest > GIVEN_UP_AFTER:
                log.warning("a series that a PACS told of was never found there", pacs=series.pacs)
                return True
            message = f"PACS {series.pacs} does not name the series, or is not configured any more"
            raise RecallFailedError(message)
        was_taken = False
        for project in self._projects(series, found):
            outcome = await register_series(found, series.pacs, project, self._hospital, on_instance=_ignore)
            was_taken = was_taken or outcome is not None
            if outcome is not None and self._is_unfinished(project, series):
                message = f"PACS {series.pacs} still adds to the series"
                raise RecallFailedError(message)
        if not was_taken:
            await self._remember_not_included(series)
        return True

    async def _find(self, series: NoticedSeries) -> SeriesFound | None:
        pacs = self._hospital.pacs[series.pacs].pacs
        found = await pacs.find_series(study_uid=series.study_uid)
        return next((it for it in found if it.series_uid == series.series_uid), None)

    def _projects(self, series: NoticedSeries, found: SeriesFound) -> list[Project]:
        """Choose the projects whose list may mean the series; the headers of its instances then decide.

        So they do of a patient whom the PACS does not name.
        """
        now = self._hospital.clock()
        return [
            project
            for project in self._hospital.projects.values()
            if not project.is_over(now)
            and series.pacs in project.pacs
            and (
                series.study_uid in project.inclusion.studies
                or any(found.patient_id in {"", it.patient_id} for it in project.inclusion.patients)
            )
        ]

    def _is_unfinished(self, project: Project, series: NoticedSeries) -> bool:
        key = SeriesKey(project.name, series.study_uid, series.series_uid)
        record = self._hospital.store.read(lambda tx: tx.series.get(key))
        return record is not None and record.state is SeriesState.REGISTERING

    async def _remember_not_included(self, series: NoticedSeries) -> None:
        """Remember for a while that no project includes what was told of."""
        now, study, it = self._hospital.clock(), series.study_uid, series.series_uid
        images = len(self._hospital.store.read(lambda tx: tx.notices.of_series(series)))
        if self._keep_not_included:
            await self._hospital.store.write(lambda tx: remember_not_included(tx, study, it, images=images, now=now))
        outcome = Reason.NOT_INCLUDED.value
        await self._hospital.audit.record(AuditRecord(time=now, event=Event.QUARANTINE, outcome=outcome, count=images))


def _key(series: NoticedSeries) -> SeriesKey:
    """Name a series outside all projects."""
    return SeriesKey(NO_PROJECT, series.study_uid, series.series_uid)


def _ignore(_octets: int) -> None:
    """Show nobody the progress."""
