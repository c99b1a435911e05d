"""What is told of replicas: SURLs to readers, and to the hospital's own people what is where and what cannot go."""

from __future__ import annotations

from collections import Counter

import trio

from mdmfs.hospital.catalogue.records import FileRecord
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.own_people import for_own_people
from mdmfs.hospital.release.loss import locality_of
from mdmfs.hospital.replicas.records import PAGE, Replica, ReplicaState
from mdmfs.hospital.store import Transaction
from mdmfs.model.locality import Locality
from mdmfs.wire.messages.administration import REPLICAS_PATH, AskReplicas, ReplicaLeft, ReplicaUse, StorageUse
from mdmfs.wire.messages.base import MAX_BATCH
from mdmfs.wire.service import Reply, Request, Respond


def replica_routes(hospital: Hospital) -> dict[tuple[str, str], Respond]:
    """Give the route; the hospital's own certificate is let in, and nobody else."""

    async def use(request: Request) -> Reply:
        await request.read(AskReplicas)
        return Reply(await use_of(hospital))

    return {("POST", REPLICAS_PATH): for_own_people(hospital, use)}


def surls_of(tx: Transaction, hospital: Hospital, file: FileRecord) -> list[str]:
    """Give the SURLs of a file's replicas, of this generation of its key."""
    replicas = [it for it in tx.replicas.of(file.guid) if it.generation == file.generation]
    return [_surl(hospital, it) for it in replicas if it.state is ReplicaState.THERE]


def locality_anywhere(tx: Transaction, hospital: Hospital, file: FileRecord) -> Locality:
    """Say where the bytes of a file are for those who fetch them from storage elements, too, as mounts do."""
    found = locality_of(tx, hospital, file)
    return Locality.ONLINE_AND_NEARLINE if found is Locality.NEARLINE and surls_of(tx, hospital, file) else found


async def use_of(hospital: Hospital) -> ReplicaUse:
    """Count what every storage element keeps, and list what could not be taken away; page by page, as they are then."""
    there, octets, leaving = Counter[str](), Counter[str](), Counter[str]()
    left: list[ReplicaLeft] = []
    last: Replica | None = None
    while page := hospital.store.read(lambda tx, last=last: tx.replicas.page(PAGE, last)):  # type: ignore[misc]
        for replica in page:
            if replica.state is ReplicaState.THERE:
                there[replica.element] += 1
                octets[replica.element] += replica.size
            elif replica.state is ReplicaState.LEAVING:
                leaving[replica.element] += 1
                reason = hospital.replicas.reasons.get((replica.element, replica.name), "its turn has not come")
                if len(left) < MAX_BATCH:
                    left.append(ReplicaLeft(replica.guid, _surl(hospital, replica), reason))
        last = page[-1]
        await trio.lowlevel.checkpoint()
    names = sorted({*hospital.replicas.elements, *there, *leaving})
    return ReplicaUse([StorageUse(name, there[name], octets[name], leaving[name]) for name in names], left)


def _surl(hospital: Hospital, replica: Replica) -> str:
    element = hospital.replicas.elements.get(replica.element)
    return f"{replica.element}: {replica.name}" if element is None else element.surl(replica.name)
