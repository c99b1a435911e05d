"""Lost files: what the PACS no longer has, or has otherwise than it was registered, as last found out.

A lost file keeps its name and its key, and every open asks the PACS again: what comes back is found again.
"""

from __future__ import annotations

from collections.abc import Sequence

from mdmfs.hospital.catalogue.records import FileRecord
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.audit import AuditRecord, Event
from mdmfs.hospital.ledger.records import LossCause, LossRecord
from mdmfs.hospital.store import Transaction
from mdmfs.model.locality import Locality
from mdmfs.model.names import Guid


async def note_lost(hospital: Hospital, guids: Sequence[Guid], cause: LossCause) -> int:
    """Remember that files are lost, and let go what is staged of them; gives how many were not known to be.

    An image that was taken out of a PACS may have been one that never should have been there: no copy of it is given.
    So they go before it is remembered, after which nobody looks again, and once more what came meanwhile.
    """
    known = hospital.store.read(lambda tx: [tx.losses.get(guid) for guid in guids])
    news = [guid for guid, record in zip(guids, known, strict=True) if record is None or record.cause is not cause]
    if not news:
        return 0
    record = LossRecord(cause, hospital.clock())
    _discard(hospital, news)

    def put(tx: Transaction) -> None:
        for guid in news:
            tx.losses.put(guid, record)

    await hospital.store.write(put)
    _discard(hospital, news)
    told = (AuditRecord(time=record.when, event=Event.LOSS, guid=str(guid), outcome=cause.value) for guid in news)
    await hospital.audit.record(*told)
    return len(news)


def _discard(hospital: Hospital, guids: Sequence[Guid]) -> None:
    for guid in guids:
        hospital.discard(guid)


async def note_found(hospital: Hospital, guids: Sequence[Guid]) -> int:
    """Remember that files are not lost; gives how many were thought to be."""
    lost = hospital.store.read(lambda tx: [guid for guid in guids if tx.losses.get(guid)])
    if lost:
        await hospital.store.write(lambda tx: [tx.losses.remove(guid) for guid in lost])
    return len(lost)


def locality_of(tx: Transaction, hospital: Hospital, file: FileRecord) -> Locality:
    """Say where the bytes of a file are now, at the hospital and in its PACS.

    So the Tape REST API tells it. Replicas do not count there: what is called online is then asked of hospitald, which
    would recall it. Who fetches replicas himself is told by ``locality_anywhere``.
    """
    staged = hospital.staging.find(file.guid, file.generation)
    if staged is not None and staged.is_complete:
        return Locality.ONLINE_AND_NEARLINE
    return Locality.NEARLINE if tx.losses.get(file.guid) is None else Locality.LOST
