"""Opens that a mount served from what it held: written down by its own word, before its lease is renewed."""

from __future__ import annotations

from collections.abc import Iterator

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.audit import AuditRecord, Event
from mdmfs.hospital.release.decision import pseudonymous_uid_of
from mdmfs.hospital.release.purpose import printable
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import MalformedMessageError
from mdmfs.model.identity import Principal
from mdmfs.model.names import Guid
from mdmfs.wire.messages.files import MAX_REPORTED, AskChanges, OpensReport

MAX_COUNT = 2**32


async def write_down(principal: Principal, address: str, asked: AskChanges, hospital: Hospital) -> None:
    """Record a report, once however often it comes; raises ``StoreError``, and then there is no lease.

    Files that were never registered here are left out: nobody fills the log with them. What he could read when he
    opened it counts, so it is not asked whether he still may.
    """
    report = asked.report
    if report is None or not asked.mount:
        return
    if len(report.opens) > MAX_REPORTED or any(not 0 < one.count < MAX_COUNT for one in report.opens):
        message = f"a report of opens names at most {MAX_REPORTED} files, each with a count above 0"
        raise MalformedMessageError(message)
    if not hospital.leases.reported(asked.mount, principal, report.number):
        return
    try:
        records = hospital.store.read(lambda tx: list(_records(tx, principal, address, asked, report, hospital)))
        if records:
            await hospital.audit.record(*records)
    except BaseException:
        hospital.leases.unreport(asked.mount, report.number)
        raise


def _records(
    tx: Transaction, principal: Principal, address: str, asked: AskChanges, report: OpensReport, hospital: Hospital
) -> Iterator[AuditRecord]:
    for one in report.opens:
        guid = Guid(one.guid)
        file = tx.catalogue.file(guid)
        if file is not None:
            yield AuditRecord(
                time=hospital.clock(),
                event=Event.CACHED_OPENS,
                dn=str(principal.dn),
                fqans=tuple(map(str, principal.fqans)),
                guid=str(guid),
                uid=pseudonymous_uid_of(tx, guid),
                project=file.project,
                address=address,
                purpose=printable(asked.purpose),
                count=one.count,
            )
