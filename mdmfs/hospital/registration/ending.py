"""Ending: what a project's last day and a patient's opt-out take away, names, keys and copies (design decision 7)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import structlog
import trio

from mdmfs.hospital.catalogue.records import FileRecord, FileState
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.keys import amends
from mdmfs.hospital.release.audit import AuditRecord, Event
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import MdmfsError
from mdmfs.model.names import Guid

log = structlog.get_logger()

BATCH: Final = 500
INTERVAL: Final = 600.0
"""Seconds between two looks: a last day ends at midnight, UTC."""


async def end_what_is_over(hospital: Hospital) -> None:
    """Look now and every ten minutes, until cancelled."""
    while True:
        try:
            while await end_some(hospital):
                pass
        except MdmfsError as error:
            log.error("what is over cannot be ended", reason=str(error))  # noqa: TRY400 the reason says it
        await trio.sleep(INTERVAL)


async def end_some(hospital: Hospital) -> int:
    """End some of the files that are over, and tell how many they were.

    Each is in the audit log before it goes. A line of the opt-out list that does not name the issuer withholds files
    and destroys none: it may mean another patient.
    """
    guids = hospital.store.read(lambda tx: _over(tx, hospital))
    if not guids:
        return 0
    now = hospital.clock()
    for guid in guids:
        await hospital.audit.record(AuditRecord(time=now, event=Event.DESTRUCTION, guid=str(guid)))
    await hospital.store.write(lambda tx: amends.destroy(tx, guids, now))
    for guid in guids:
        hospital.discard(guid)
    hospital.outbox.ring()
    hospital.feed.bell.ring()
    log.info("ended", files=len(guids))
    return len(guids)


def _over(tx: Transaction, hospital: Hospital) -> list[Guid]:
    found: list[Guid] = []
    now = hospital.clock()
    for project in hospital.projects.values():
        if project.is_over(now):
            found += left_of(tx, (file.guid for file in _all_files(tx, project.name)))
    if hospital.opted_out.patients or hospital.opted_out.studies:
        for series in tx.series.all():
            row = tx.subjects.by_id(series.subject)
            if row and hospital.opted_out.holds(PatientKey(row.issuer, row.patient_id), series.study_uid):
                found += left_of(tx, (guid for guid, _ in tx.uidmap.of_series(series.key)))
    return list(dict.fromkeys(found))[:BATCH]


def _all_files(tx: Transaction, project: str) -> Iterable[FileRecord]:
    after = 0
    while page := tx.catalogue.project_files(project, after=after):
        yield from page
        after = page[-1].inode


def left_of(tx: Transaction, guids: Iterable[Guid]) -> list[Guid]:
    """Give those that have not been taken away yet."""
    files = (tx.catalogue.file(guid) for guid in guids)
    return [file.guid for file in files if file is not None and file.state is not FileState.WITHDRAWN]
