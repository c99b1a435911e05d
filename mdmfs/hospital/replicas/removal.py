"""Take replicas away from storage elements by what the store says, and look whether they are gone."""

from __future__ import annotations

import collections
import functools
from typing import Final

import msgspec
import structlog
import trio

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.incident import note_incident
from mdmfs.hospital.release.audit import AuditRecord, Event
from mdmfs.hospital.replicas.placement import is_wanted
from mdmfs.hospital.replicas.port import StorageElement, StorageError
from mdmfs.hospital.replicas.records import PAGE, Replica, ReplicaState, leaving
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import MdmfsError
from mdmfs.model.names import Guid

INTERVAL: Final = 600.0
"""Seconds between two looks for replicas whose time is over."""
PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 600.0
MAX_FAILURES: Final = 3
"""Of one storage element in one round: what does not answer is not asked for each replica."""
LATE: Final = 600.0
"""Seconds for which an object may still appear after its put broke off: a slow storage element may have all of it."""
BATCH: Final = 64
"""Taken away with one record on disk and one commit."""

log = structlog.get_logger()


async def condemn(hospital: Hospital) -> None:
    """Mark the replicas that are to go: those that may not stay, and those begun that nobody is putting any more."""
    last: Replica | None = None

    def look(tx: Transaction) -> tuple[list[Replica], list[Replica]]:
        page = tx.replicas.page(PAGE, last)
        return page, [it for it in page if _is_to_go(tx, hospital, it)]

    def mark(tx: Transaction) -> None:
        for replica in look(tx)[1]:
            tx.replicas.put(leaving(replica))

    while True:
        page, over = hospital.store.read(look)
        if over:
            await hospital.store.write(mark)
        if not page:
            return
        last = page[-1]
        await trio.lowlevel.checkpoint()


def _is_to_go(tx: Transaction, hospital: Hospital, replica: Replica) -> bool:
    if replica.state is ReplicaState.LEAVING:
        return False
    is_cut = replica.state is ReplicaState.COMING and (replica.element, replica.name) not in hospital.replicas.under_way
    return is_cut or not is_wanted(tx, hospital, replica)


def _condemn_of(tx: Transaction, guids: list[Guid]) -> None:
    for guid in guids:
        for replica in tx.replicas.of(guid):
            tx.replicas.put(leaving(replica))


async def remove_leaving(hospital: Hospital) -> None:
    """Take away what is to go; where a storage element does not let us, again and again, ever more seldom.

    The first look is for what was left when we ended last. It ends where nothing is kept, and nothing will be.
    """
    replicas, pause, look_at = hospital.replicas, PAUSE, trio.current_time()
    while True:
        heard, left = replicas.departures.next(), 0
        try:
            if not replicas.elements and not hospital.store.read(lambda tx: tx.replicas.page(1)):
                return
            if replicas.doubtful:
                guids = list(replicas.doubtful)
                await hospital.store.write(lambda tx, guids=guids: _condemn_of(tx, guids))  # type: ignore[misc]
                replicas.doubtful.difference_update(guids)
            if trio.current_time() >= look_at:
                await condemn(hospital)
                look_at = trio.current_time() + INTERVAL
            left = await _remove_some(hospital)
        except MdmfsError as error:
            log.error("replicas cannot be taken away", reason=str(error))  # noqa: TRY400 the reason says it
            left = 1
        except Exception as error:  # noqa: BLE001 the service loop: one replica must not end it
            note_incident("taking replicas away", error)
            left = 1
        pause = min(2 * pause, LONGEST_PAUSE) if left else PAUSE
        with trio.move_on_after(pause if left else INTERVAL):
            await heard.wait()


async def _remove_some(hospital: Hospital) -> int:
    """Try all that is to go once; gives how much is left."""
    left, failures = 0, collections.Counter[str]()
    last: Replica | None = None
    while page := hospital.store.read(lambda tx, last=last: tx.replicas.leaving(BATCH, last)):  # type: ignore[misc]
        gone = [it for it in page if await _is_gone(hospital, it, failures)]
        for_good = [it for it in gone if it.until <= hospital.clock()]
        await forget(hospital, for_good)
        await _look_again(hospital, [it for it in gone if it not in for_good])
        left += len(page) - len(for_good)
        last = page[-1]
        await trio.lowlevel.checkpoint()
    return left


async def _is_gone(hospital: Hospital, replica: Replica, failures: collections.Counter[str]) -> bool:
    """Take one away; False where that does not go just now, and then it is known why."""
    element, key = hospital.replicas.elements.get(replica.element), (replica.element, replica.name)
    if key in hospital.replicas.under_way or failures[replica.element] >= MAX_FAILURES:
        return False
    with hospital.replicas.alone(*key):
        if not hospital.store.read(lambda tx: _is_as_it_was(tx, replica)):
            return False
        try:
            await hospital.replicas.in_thread(functools.partial(_delete_wholly, element, replica))
        except (MdmfsError, StorageError) as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 the thread boundary: one replica must not hold up those behind it
            reason = note_incident("taking a replica away", error)
        else:
            hospital.replicas.reasons.pop(key, None)
            hospital.replicas.let_work(replica.element)
            return True
    failures[replica.element] += 1
    hospital.replicas.reasons[key] = reason
    return False


def _is_as_it_was(tx: Transaction, replica: Replica) -> bool:
    """Tell whether it is to go still: it may have been put anew meanwhile."""
    return replica in tx.replicas.of(Guid(replica.guid))


async def _look_again(hospital: Hospital, gone: list[Replica]) -> None:
    """Keep in mind what is not there now, but may come: a put of it broke off, or we were killed meanwhile."""
    over = hospital.clock() + LATE
    for it in gone:
        reason = "it is not there, but may yet appear, since a put of it broke off: it is looked for again"
        hospital.replicas.reasons[it.element, it.name] = reason
    fresh = [it for it in gone if it.until > over]

    def act(tx: Transaction) -> None:
        for replica in fresh:
            if _is_as_it_was(tx, replica):
                tx.replicas.put(msgspec.structs.replace(replica, until=over))

    if fresh:
        await hospital.store.write(act)


async def forget(hospital: Hospital, gone: list[Replica], outcome: str = "") -> None:
    """Write down what was looked for in vain, or else what came of it, then forget it."""
    if not gone:
        return
    now = hospital.clock()
    records = [
        AuditRecord(time=now, event=Event.REPLICA_GONE, guid=str(Guid(it.guid)), outcome=outcome or it.element)
        for it in gone
    ]
    await hospital.audit.record(*records)

    def act(tx: Transaction) -> None:
        for replica in gone:
            if _is_as_it_was(tx, replica):
                tx.replicas.remove(replica)

    await hospital.store.write(act)


def _delete_wholly(element: StorageElement | None, replica: Replica) -> None:
    """Delete, and look whether it is gone."""
    if element is None:
        message = f"storage {replica.element} is not configured: put it back, or delete and mdmfs replicas --forget"
        raise StorageError(message)
    element.delete(replica.name)
    if element.size(replica.name) is not None:
        message = f"storage {replica.element} still has what it was told to delete"
        raise StorageError(message)
