"""Take replicas away from storage elements by what the store says, and look whether they are gone."""

from __future__ import annotations

import functools
from typing import Final

import msgspec
import structlog
import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.incident import note_incident
from mdmfs.hospital.kept.audit import AuditRecord, Event
from mdmfs.hospital.ledger.replicas import PAGE, Replica, ReplicaState, leaving
from mdmfs.hospital.replicas.placement import is_wanted
from mdmfs.hospital.storage.port import StorageElement, StorageError
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import MdmfsError
from mdmfs.model.names import Guid

INTERVAL: Final = 600.0
"""Seconds between two looks for replicas whose time is over."""
PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 600.0
DELETERS: Final = 16
"""At once, at each storage element: one that takes a second for a deletion is rid of 57,000 replicas in an hour."""
MAX_FAILURES: Final = 3
"""One after the other, at one storage element, in one round."""
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
    """Take away what is to go, at each storage element by itself: none that is slow or dead holds up another."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_find_leaving, hospital)
        for element in hospital.replicas.elements.values():
            nursery.start_soon(_Removal(hospital, element).run)


async def _find_leaving(hospital: Hospital) -> None:
    """Mark what is to go, as soon as it is told, and now and every ten minutes whatever is.

    The first look is for what was left when we ended last. It ends where nothing is kept, and nothing will be.
    """
    replicas, pause, look_at = hospital.replicas, PAUSE, trio.current_time()
    while True:
        heard, wait = replicas.departures.next(), INTERVAL
        try:
            if not replicas.elements and not hospital.store.read(lambda tx: tx.replicas.page(1)):
                return
            if replicas.doubtful:
                guids = list(replicas.doubtful)
                await hospital.store.write(lambda tx, guids=guids: _condemn_of(tx, guids))  # type: ignore[misc]
                replicas.doubtful.difference_update(guids)
                replicas.departures.ring()
            if trio.current_time() >= look_at:
                await condemn(hospital)
                look_at = trio.current_time() + INTERVAL
                replicas.departures.ring()
            pause = PAUSE
        except MdmfsError as error:
            log.error("what is to be taken away cannot be marked", reason=error.told_here)  # noqa: TRY400 the reason says it
            wait, pause = pause, min(2 * pause, LONGEST_PAUSE)
        except Exception as error:  # noqa: BLE001 the service loop: one replica must not end it
            note_incident("looking for replicas that are to go", error)
            wait, pause = pause, min(2 * pause, LONGEST_PAUSE)
        with trio.move_on_after(wait):
            await heard.wait()


class _Removal:
    """Takes away from one storage element what is to go there, some of it at once."""

    def __init__(self, hospital: Hospital, element: StorageElement) -> None:
        self._hospital = hospital
        self._element = element
        self._threads = trio.CapacityLimiter(DELETERS)
        self._failures = 0
        """One after the other, in this round."""
        self._last: Replica | None = None
        """The last one that was tried: there may be some that the storage element refuses for ever."""

    async def run(self) -> None:
        """Try again and again, ever more seldom while the storage element does not let us."""
        pause = PAUSE
        while True:
            heard, is_left = self._hospital.replicas.departures.next(), True
            try:
                is_left = await self._remove_some()
            except MdmfsError as error:
                log.error("replicas cannot be taken away", reason=error.told_here)  # noqa: TRY400 the reason says it
            except Exception as error:  # noqa: BLE001 the service loop: one replica must not end it
                note_incident("taking replicas away", error)
            pause = min(2 * pause, LONGEST_PAUSE) if is_left else PAUSE
            with trio.move_on_after(pause if is_left else INTERVAL):
                await heard.wait()

    async def _remove_some(self) -> bool:
        """Try what is to go, to its end or until the storage element lets nothing go; tells whether any is left."""
        self._failures, begun_behind = 0, self._last
        while self._failures < MAX_FAILURES and (page := self._leaving(BATCH, self._last)):
            gone = await self._remove(page)
            for_good = [it for it in gone if it.until <= self._hospital.clock()]
            await forget(self._hospital, for_good)
            await _look_again(self._hospital, [it for it in gone if it not in for_good])
            await trio.lowlevel.checkpoint()
        if self._failures < MAX_FAILURES:
            self._last = None
            if begun_behind is not None:
                return await self._remove_some()
        return bool(self._leaving(1))

    def _leaving(self, limit: int, after: Replica | None = None) -> list[Replica]:
        return self._hospital.store.read(lambda tx: tx.replicas.leaving(self._element.name, limit, after))

    async def _remove(self, page: list[Replica]) -> list[Replica]:
        """Take away what goes, and give that; what does not answer is not asked for each replica."""
        gone: list[Replica] = []
        left = iter(page)

        async def work() -> None:
            while self._failures < MAX_FAILURES and (replica := next(left, None)) is not None:
                self._last = replica
                if await self._is_gone(replica):
                    gone.append(replica)

        async with open_plain_nursery() as nursery:
            for _ in range(DELETERS):
                nursery.start_soon(work)
        return gone

    async def _is_gone(self, replica: Replica) -> bool:
        """Take one away; False where that does not go just now, and then it is known why."""
        replicas, key = self._hospital.replicas, (replica.element, replica.name)
        if key in replicas.under_way:
            return False
        with replicas.alone(*key):
            if not self._hospital.store.read(lambda tx: _is_as_it_was(tx, replica)):
                return False
            try:
                await replicas.in_thread(functools.partial(_delete_wholly, self._element, replica.name), self._threads)
            except (MdmfsError, StorageError) as error:
                reason = str(error)
            except Exception as error:  # noqa: BLE001 the thread boundary: one replica must not hold up those behind it
                reason = note_incident("taking a replica away", error)
            else:
                self._failures = 0
                replicas.reasons.pop(key, None)
                replicas.let_work(replica.element)
                return True
        self._failures += 1
        replicas.reasons[key] = reason
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


def _delete_wholly(element: StorageElement, name: str) -> None:
    """Delete, and look whether it is gone."""
    element.delete(name)
    if element.size(name) is not None:
        message = f"storage {element.name} still has what it was told to delete"
        raise StorageError(message)
