"""Ending: what a project's last day and a patient's opt-out take away, names, keys and copies.

Nothing is ended by a clock that is wrong for a moment: a project must be past its last day in two looks. A hospital may
have millions of files, and none is looked at twice.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Final

import structlog
import trio

from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.audit import AuditRecord, Event
from mdmfs.hospital.keys import amends
from mdmfs.hospital.ledger.records import SeriesRecord
from mdmfs.hospital.pages import PAGE, pages_of_files, pages_of_series
from mdmfs.hospital.projects import PatientList
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import SeriesKey
from mdmfs.model.errors import MdmfsError
from mdmfs.model.names import Guid

log = structlog.get_logger()

INTERVAL: Final = 600.0
"""Seconds between two looks: a last day ends at midnight, UTC."""


class Ending:
    """What a hospital ends by itself."""

    def __init__(self, hospital: Hospital, *, batch: int = PAGE) -> None:
        """Know of nothing that is over; look at ``batch`` files in one go."""
        self._hospital = hospital
        self._batch = batch
        self._over: frozenset[str] = frozenset()
        """The projects that were past their last day when it was looked last."""
        self._ended: frozenset[str] = frozenset()
        """Those of which all files up to one are ended, and its inode number; later ones have higher numbers."""
        self._up_to = 0

    async def run(self) -> None:
        """Look now and every ten minutes, until cancelled."""
        while True:
            try:
                await self.look()
            except MdmfsError as error:
                log.error("what is over cannot be ended", reason=error.told_here)  # noqa: TRY400 the reason says it
            await trio.sleep(INTERVAL)

    async def look(self) -> int:
        """End what is over by now, and tell how many files that was.

        Each is in the audit log before it goes. A line of the opt-out list that does not name the issuer withholds
        files and destroys none: it may mean another patient.
        """
        return await self._end_projects() + await self._end_opted_out()

    async def _end_projects(self) -> int:
        hospital, now = self._hospital, self._hospital.clock()
        over = frozenset(name for name, project in hospital.projects.items() if project.is_over(now))
        ended, self._over = over & self._over, over
        if ended != self._ended:
            self._ended, self._up_to = ended, 0
        count = 0
        for page in pages_of_files(hospital.store, self._batch, after=self._up_to) if ended else ():
            count += await self._end([file.guid for file in page if file.project in ended])
            self._up_to = page[-1].inode
            await trio.lowlevel.checkpoint()
        return count

    async def _end_opted_out(self) -> int:
        store, listed, count = self._hospital.store, self._hospital.opted_out, 0
        for page in pages_of_series(store, self._batch) if listed.patients or listed.studies else ():
            for key in store.read(functools.partial(_opted_out, page=page, listed=listed)):
                guids = store.read(lambda tx, key=key: [guid for guid, _ in tx.uidmap.of_series(key)])  # type: ignore[misc]
                for start in range(0, len(guids), self._batch):
                    count += await self._end(guids[start : start + self._batch])
                    await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        return count

    async def _end(self, guids: Iterable[Guid]) -> int:
        left = self._hospital.store.read(lambda tx: left_of(tx, guids))
        if left:
            await take_away(self._hospital, left)
            log.info("ended", files=len(left))
        return len(left)


async def take_away(hospital: Hospital, guids: Sequence[Guid], *, project: str = "") -> None:
    """Take files away for ever, names, keys and copies; each is in the audit log before it goes."""
    now = hospital.clock()
    records = [AuditRecord(time=now, event=Event.DESTRUCTION, guid=str(guid), project=project) for guid in guids]
    await hospital.audit.record(*records)
    await hospital.headers.forget(guids)
    await hospital.store.write(lambda tx: amends.destroy(tx, guids))
    for guid in guids:
        hospital.discard(guid)
    hospital.outbox.ring()
    hospital.feed.bell.ring()


def _opted_out(tx: Transaction, *, page: Sequence[SeriesRecord], listed: PatientList) -> list[SeriesKey]:
    rows = ((series, tx.subjects.by_id(series.subject)) for series in page)
    return [
        series.key
        for series, row in rows
        if row is not None and listed.holds(PatientKey(row.issuer, row.patient_id), series.study_uid)
    ]


def left_of(tx: Transaction, guids: Iterable[Guid]) -> list[Guid]:
    """Give those that have not been taken away yet."""
    files = (tx.catalogue.file(guid) for guid in guids)
    return [file.guid for file in files if file is not None and file.state is not FileState.WITHDRAWN]
