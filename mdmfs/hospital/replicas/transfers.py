"""Release by reference: the hospital decides and records as ever, and answers with where a replica can be fetched."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.audit import Event
from mdmfs.hospital.ledger.replicas import Replica
from mdmfs.hospital.release.decision import Standing, decide, decide_in, hold_still
from mdmfs.hospital.release.release import about, record_of
from mdmfs.hospital.replicas.placement import is_usable, lacking
from mdmfs.hospital.storage.port import StorageError
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

    def read(tx: Transaction) -> dict[int, tuple[Standing, list[Replica]]]:
        decided = enumerate(decide_in(tx, principal, guids, hospital))
        standing = {place: it for place, it in decided if isinstance(it, Standing) and not it.is_lost}
        return {place: (it, _replicas_of(tx, guids[place], hospital)) for place, it in standing.items()}

    found = hospital.store.read(read)
    usable = _Usable(hospital, asked.avoid)
    begun = record_of(principal, hospital, address, Event.RELEASE, purpose=asked.purpose)
    transfers, records = [Transfer()] * len(guids), []
    for place, (decision, known) in found.items():
        transfer = usable.transfer_of(decision, known)
        if transfer is None:
            if (
                lacking(decision.project.replicas, known)
                and not hospital.is_beside
                and hospital.staging.find(guids[place], decision.source.file.generation)
            ):
                hospital.replicas.want(guids[place])
            continue
        transfers[place] = transfer
        records.append(about(begun, guids[place], decision, ahead=asked.ahead))
    if records:
        await hospital.audit.record(*records)
    if hold_still([decision for decision, _ in found.values()], hospital):
        return transfers
    now = decide(principal, guids, hospital)
    return [
        one
        if isinstance(it, Standing) and not it.is_lost and it.source.file.generation == one.generation
        else Transfer()
        for one, it in zip(transfers, now, strict=True)
    ]


def _replicas_of(tx: Transaction, guid: Guid, hospital: Hospital) -> list[Replica]:
    """Give the replicas of a file, looked up once a commit."""
    return hospital.read.of(tx.version, ("replicas", guid.octets), lambda: tx.replicas.of(guid))


class _Usable:
    """Which replicas may be named now."""

    def __init__(self, hospital: Hospital, avoid: Collection[str]) -> None:
        self._replicas = hospital.replicas
        self._avoid = avoid
        self._now = hospital.clock()

    def transfer_of(self, decision: Standing, known: Iterable[Replica]) -> Transfer | None:
        """Name the first replica that is whole, of its key and not to be avoided; None where there is none."""
        file, placement = decision.source.file, decision.project.replicas
        for element in () if placement is None else placement.at:
            if element in self._avoid or element not in self._replicas.elements:
                continue
            for it in known:
                if it.element == element and is_usable(it, file, self._now):
                    return self._named(it, file.threshold)
        return None

    def _named(self, replica: Replica, threshold: int) -> Transfer | None:
        try:
            turl = self._replicas.turl(replica.element, replica.name, self._now)
        except StorageError:
            return None
        return Transfer(turl, replica.element, replica.size, replica.generation, threshold, replica.header)
