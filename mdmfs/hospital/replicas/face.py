"""What is told of replicas: SURLs to readers, and to the hospital's own people what is where and what cannot go."""

from __future__ import annotations

import functools
from collections import Counter

import trio

from mdmfs.hospital.catalogue.records import FileRecord
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.ledger.replicas import PAGE, Replica, ReplicaState
from mdmfs.hospital.own_people import for_own_people
from mdmfs.hospital.release.loss import locality_of
from mdmfs.hospital.replicas.placement import is_usable, misplaced
from mdmfs.hospital.replicas.removal import forget
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import UnknownNameError
from mdmfs.model.locality import Locality
from mdmfs.wire.messages.administration import REPLICAS_PATH, AskReplicas, ReplicaLeft, ReplicaUse, StorageUse
from mdmfs.wire.messages.message import MAX_BATCH
from mdmfs.wire.service import Reply, Request, Respond


def replica_routes(hospital: Hospital) -> dict[tuple[str, str], Respond]:
    """Give the route; the hospital's own certificate is let in, and nobody else."""

    async def use(request: Request) -> Reply:
        asked = await request.read(AskReplicas)
        if asked.forget:
            await forget_element(hospital, asked.forget)
        return Reply(await use_of(hospital))

    return {("POST", REPLICAS_PATH): for_own_people(hospital, use)}


def surls_of(tx: Transaction, hospital: Hospital, file: FileRecord) -> list[str]:
    """Give the SURLs of a file's replicas, of those that may be named to readers."""
    project, now = hospital.projects.get(file.project), hospital.clock()
    named = [it for it in tx.replicas.of(file.guid) if is_usable(it, file, now)]
    return [_surl(hospital, it) for it in named if project is not None and misplaced(project, it.element) is None]


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
                if len(left) < MAX_BATCH:
                    left.append(ReplicaLeft(replica.guid, _surl(hospital, replica), _reason(hospital, replica)))
        last = page[-1]
        await trio.lowlevel.checkpoint()
    names = sorted({*hospital.replicas.elements, *there, *leaving})
    return ReplicaUse([StorageUse(name, there[name], octets[name], leaving[name]) for name in names], left)


async def forget_element(hospital: Hospital, element: str) -> None:
    """Forget what a storage element keeps that is no longer configured: it is gone, or was emptied by hand.

    Raises ``UnknownNameError`` for one that is configured, or of which nothing is known.
    """
    if element in hospital.replicas.elements:
        message = f"the storage element {element} is configured, and what is to go there is deleted there"
        raise UnknownNameError(message, what_to_do="take its [[storage]] out of the configuration, restart hospitald")
    count, last = 0, None
    while page := hospital.store.read(functools.partial(_page_after, last=last)):
        gone = [it for it in page if it.element == element]
        await forget(hospital, gone, f"{element}, forgotten by hand")
        count, last = count + len(gone), page[-1]
        await trio.lowlevel.checkpoint()
    if not count:
        message = f"nothing is known of a storage element {element}"
        raise UnknownNameError(message, what_to_do="mdmfs replicas names those of which something is known")


def _reason(hospital: Hospital, replica: Replica) -> str:
    if replica.element not in hospital.replicas.elements:
        return f"storage {replica.element} is not configured: put it back, or delete and mdmfs replicas --forget"
    return hospital.replicas.reasons.get((replica.element, replica.name), "its turn has not come")


def _page_after(tx: Transaction, *, last: Replica | None) -> list[Replica]:
    return tx.replicas.page(PAGE, last)


def _surl(hospital: Hospital, replica: Replica) -> str:
    element = hospital.replicas.elements.get(replica.element)
    return f"{replica.element}: {replica.name}" if element is None else element.surl(replica.name)
