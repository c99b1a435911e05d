"""Release by reference: the hospital decides and records as ever, and answers with where a replica can be fetched."""

from __future__ import annotations

import functools

import msgspec

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.release.audit import Event
from mdmfs.hospital.release.decision import Standing, decide, deciding, hold_still
from mdmfs.hospital.release.release import record_of
from mdmfs.hospital.replicas.port import StorageError
from mdmfs.hospital.replicas.publish import lacking
from mdmfs.hospital.replicas.records import Replica, ReplicaState
from mdmfs.hospital.store import Transaction
from mdmfs.model.identity import Principal
from mdmfs.model.names import Guid
from mdmfs.wire.messages.files import AskTransfers, Transfer


async def release_transfers(
    principal: Principal, asked: AskTransfers, hospital: Hospital, *, address: str
) -> list[Transfer]:
    """Give the URLs of replicas, of the files that the principal may have; an empty answer for every other.

    Nothing is given before the decisions are on disk. Why there is none, he hears who asks for the bytes. Raises
    ``StoreError`` if the decisions cannot be recorded.
    """
    if not hospital.replicas.elements:
        return [Transfer()] * len(asked.guids)
    guids = [Guid(octets) for octets in asked.guids]
    decisions = decide(principal, guids, hospital)
    standing = {place: it for place, it in enumerate(decisions) if isinstance(it, Standing) and not it.is_lost}
    found = hospital.store.read(functools.partial(_replicas, hospital=hospital, standing=standing, avoid=asked.avoid))
    transfers, records = [Transfer()] * len(guids), []
    for place, decision in standing.items():
        replica, known = found[place]
        transfer = _transfer(replica, decision, hospital)
        if transfer is None:
            if (
                lacking(decision.project.replicas, known)
                and not hospital.is_beside
                and hospital.staging.find(guids[place], decision.source.file.generation)
            ):
                hospital.replicas.want(guids[place])
            continue
        transfers[place] = transfer
        record = record_of(principal, guids[place], hospital, address, Event.RELEASE, deciding(decision.granted))
        told = {"uid": decision.source.uid, "project": decision.project.name, "purpose": asked.purpose}
        records.append(msgspec.structs.replace(record, ahead=asked.ahead, **told))
    if records:
        await hospital.audit.record(*records)
    if hold_still(standing.values(), hospital):
        return transfers
    now = decide(principal, guids, hospital)
    return [
        one
        if isinstance(it, Standing) and not it.is_lost and it.source.file.generation == one.generation
        else Transfer()
        for one, it in zip(transfers, now, strict=True)
    ]


def _replicas(
    tx: Transaction, *, hospital: Hospital, standing: dict[int, Standing], avoid: list[str]
) -> dict[int, tuple[Replica | None, list[Replica]]]:
    """Find for each file the first replica that is whole, of its key and not to be avoided; and all that are known."""
    now, found = hospital.clock(), dict[int, tuple[Replica | None, list[Replica]]]()
    for place, decision in standing.items():
        file, placement = decision.source.file, decision.project.replicas
        known = tx.replicas.of(file.guid)
        preferred = () if placement is None else placement.at
        usable = [
            it
            for it in known
            if it.state is ReplicaState.THERE and it.generation == file.generation and it.until > now
            if it.element not in avoid and it.element in preferred and it.element in hospital.replicas.elements
        ]
        first = min(usable, key=lambda it: preferred.index(it.element), default=None)
        found[place] = first, known
    return found


def _transfer(replica: Replica | None, decision: Standing, hospital: Hospital) -> Transfer | None:
    if replica is None:
        return None
    try:
        turl = hospital.replicas.turl(replica.element, replica.name, hospital.clock())
    except StorageError:
        return None
    threshold = decision.source.file.threshold
    return Transfer(turl, replica.element, replica.size, replica.generation, threshold, replica.header)
