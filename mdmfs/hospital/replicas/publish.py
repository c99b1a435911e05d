"""Put replicas on storage elements and take them away again, each step in the store before it is done."""

from __future__ import annotations

import collections
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

import msgspec
import structlog
import trio

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.incident import note_incident
from mdmfs.hospital.projects import Placement, Project
from mdmfs.hospital.release.audit import AuditRecord, Event
from mdmfs.hospital.release.decision import is_open_under
from mdmfs.hospital.replicas.port import Content, StorageElement, StorageError
from mdmfs.hospital.replicas.records import PAGE, Replica, ReplicaState
from mdmfs.hospital.replicas.replicas import PUTTERS
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import AccessDeniedError, BusyError, MdmfsError, PeerUnreachableError
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import Buffer

PIECE: Final = 2**20
INTERVAL: Final = 600.0
"""Seconds between two looks for replicas whose time is over."""
PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 600.0
MAX_FAILURES: Final = 3
"""Of one storage element in one round: what does not answer is not asked for each replica."""

BATCH: Final = 64
"""Taken away with one record on disk and one commit."""

T = TypeVar("T")

log = structlog.get_logger()


async def keep_replicas(hospital: Hospital) -> None:
    """Put what is wanted and take away what is to go, until cancelled."""
    if not hospital.replicas.elements and not hospital.store.read(lambda tx: tx.replicas.page(1)):
        return
    hospital.staging.on_whole = hospital.replicas.want
    await _condemn(hospital)
    async with trio.open_nursery() as nursery:
        for _ in range(PUTTERS):
            nursery.start_soon(_put_wanted, hospital)
        nursery.start_soon(_remove_leaving, hospital)


def lacking(placement: Placement | None, known: Iterable[Replica]) -> list[str]:
    """Name the storage elements at which a project wants a replica of what is let out, and none of those known is."""
    there = {it.element for it in known}
    wanted = () if placement is None or not placement.on_release else placement.at[: placement.copies]
    return [it for it in wanted if it not in there]


def is_kept(hospital: Hospital, guid: Guid, element: str) -> bool:
    """Tell whether a replica of a file, of its key of now, is at a storage element."""
    return hospital.store.read(lambda tx: _kept(tx, hospital, guid, element)) is not None


async def is_kept_on(hospital: Hospital, guid: Guid, element: str) -> bool:
    """Tell as ``is_kept``; the time for which the replica is there begins anew."""

    def prolong(tx: Transaction) -> bool:
        replica, file = _kept(tx, hospital, guid, element), tx.catalogue.file(guid)
        project = None if file is None else hospital.projects.get(file.project)
        placement = None if project is None else project.replicas
        if replica is None or placement is None or element not in placement.at:
            return False
        until = hospital.clock() + placement.seconds
        tx.replicas.put(msgspec.structs.replace(replica, until=max(until, replica.until)))
        return True

    return is_kept(hospital, guid, element) and await hospital.store.write(prolong)


async def keep_at(hospital: Hospital, guid: Guid, element: str) -> None:
    """Put a staged file at a storage element ahead of its readers; returns when it is there.

    Raises ``AccessDeniedError`` where no such element is configured, or the file's project does not let replicas be
    kept there, ``PeerUnreachableError`` where it does not take it, and ``BusyError`` while it is being put, or taken
    away, by somebody else.
    """
    place = hospital.replicas.elements.get(element)
    if place is None:
        message = f"the hospital has no storage element {element!r} any more"
        raise AccessDeniedError(message)
    file = hospital.store.read(lambda tx: tx.catalogue.file(guid))
    project = None if file is None else hospital.projects.get(file.project)
    if project is not None and (error := misplaced(project, element)) is not None:
        raise error
    try:
        await _put(hospital, guid, place)
    except StorageError as error:
        raise PeerUnreachableError(str(error)) from error
    if not is_kept(hospital, guid, element):
        message = f"the replica of {guid} at {element} is just being put, or taken away"
        raise BusyError(message)


def misplaced(project: Project, element: str) -> AccessDeniedError | None:
    """Say why no replica of a project's files may be put somewhere: only where the project lets them be kept."""
    allowed = () if project.replicas is None else project.replicas.at
    if element in allowed:
        return None
    known = f"they may be at {', '.join(allowed)}" if allowed else "the hospital has to say where they may be"
    return AccessDeniedError(f"the project {project.name} keeps no replicas at {element!r}: {known}")


def _kept(tx: Transaction, hospital: Hospital, guid: Guid, element: str) -> Replica | None:
    found = [it for it in tx.replicas.of(guid) if it.element == element and it.state is ReplicaState.THERE]
    return next((it for it in found if _is_wanted(tx, hospital, it)), None)


# Putting


async def _put_wanted(hospital: Hospital) -> None:
    replicas = hospital.replicas
    while True:
        heard = replicas.arrivals.next()
        if not replicas.wanted:
            await heard.wait()
            continue
        guid = next(iter(replicas.wanted))
        del replicas.wanted[guid]
        try:
            await _put_lacking(hospital, guid)
        except MdmfsError as error:
            log.warning("replicas are not put", guid=str(guid), reason=str(error))
        except Exception as error:  # noqa: BLE001 the service loop: one file must not end it
            note_incident("putting replicas", error)
        await trio.lowlevel.checkpoint()


async def _put_lacking(hospital: Hospital, guid: Guid) -> None:
    """Put what is lacking of a file, whatever one storage element does with its own."""

    def read(tx: Transaction) -> list[str]:
        file = tx.catalogue.file(guid)
        project = None if file is None else hospital.projects.get(file.project)
        return [] if project is None else lacking(project.replicas, tx.replicas.of(guid))

    for name in hospital.store.read(read):
        element = hospital.replicas.elements.get(name)
        try:
            if element is not None:
                await _put(hospital, guid, element)
        except StorageError as error:
            log.warning("a replica is not put", guid=str(guid), storage=name, reason=str(error))


async def _put(hospital: Hospital, guid: Guid, element: StorageElement) -> None:
    """Put a staged file; it may be on its way. What the store no longer wants by then goes again."""
    file = hospital.store.read(lambda tx: tx.catalogue.file(guid))
    staged = None if file is None else hospital.staging.find(guid, file.generation)
    project = None if file is None else hospital.projects.get(file.project)
    if staged is None or project is None or project.replicas is None:
        return
    await staged.settled.wait()
    await staged.wait_for(staged.size)
    name = hospital.replicas.name_of(guid, staged.generation, staged.salt)
    until = hospital.clock() + project.replicas.seconds
    coming = Replica(
        guid.octets, element.name, name, staged.generation, staged.header, staged.size, until, ReplicaState.COMING
    )
    length, key = padded(staged.size, element.padding), (element.name, name)
    content = functools.partial(_content, staged.path, staged.size, length)
    act = functools.partial(_put_whole, element, name, content, length)
    if (other := hospital.replicas.under_way.get(key)) is not None:
        await other.wait()
        return
    ended = hospital.replicas.under_way[key] = trio.Event()
    try:
        if await hospital.store.write(lambda tx: _is_begun(tx, hospital, coming)):
            await _carry_through(hospital, coming, act, project.name)
    finally:
        del hospital.replicas.under_way[key]
        ended.set()


async def _carry_through(hospital: Hospital, coming: Replica, act: Callable[[], None], project: str) -> None:
    """Put what is begun and say that it is there; where any of that fails, it is to go again."""
    try:
        await _in_thread(hospital, act)
        record = AuditRecord(
            time=hospital.clock(),
            event=Event.REPLICA,
            guid=str(Guid(coming.guid)),
            project=project,
            outcome=coming.element,
        )
        await hospital.audit.record(record)
        if not await hospital.store.write(lambda tx: _settle(tx, hospital, coming)):
            hospital.replicas.departures.ring()
    except BaseException:
        with trio.CancelScope(shield=True):
            await hospital.store.write(lambda tx: tx.replicas.put(_leaving(coming)))
        hospital.replicas.departures.ring()
        raise


def padded(size: int, padding: int) -> int:
    """Round a size up to a multiple of ``padding`` bytes."""
    return -(-size // padding) * padding if padding > 1 else size


def _content(path: pathlib.Path, size: int, length: int) -> Iterator[Buffer]:
    with path.open("rb") as file:
        left = size
        while left:
            piece = file.read(min(PIECE, left))
            if not piece:
                message = "the staged object has gone"
                raise StorageError(message)
            left -= len(piece)
            yield piece
    for start in itertools.count(size, PIECE):
        if start >= length:
            return
        yield bytes(min(PIECE, length - start))


def _is_begun(tx: Transaction, hospital: Hospital, coming: Replica) -> bool:
    """Write down what is about to be put, unless it is there, or nobody may have it any more."""
    known = any(it.element == coming.element and it.name == coming.name for it in tx.replicas.of(Guid(coming.guid)))
    if known or not _is_wanted(tx, hospital, coming):
        return False
    tx.replicas.put(coming)
    return True


def _settle(tx: Transaction, hospital: Hospital, coming: Replica) -> bool:
    """Say that a replica is there; False where something is to go: it, as its file was taken away, or an older one."""
    same = [it for it in tx.replicas.of(Guid(coming.guid)) if (it.element, it.name) == (coming.element, coming.name)]
    is_standing = same == [coming] and _is_wanted(tx, hospital, coming)
    tx.replicas.put(msgspec.structs.replace(coming, state=ReplicaState.THERE) if is_standing else _leaving(coming))
    older = [it for it in tx.replicas.of(Guid(coming.guid)) if it.element == coming.element and it.name != coming.name]
    for old in older:
        tx.replicas.put(_leaving(old))
    return is_standing and not older


def _leaving(replica: Replica) -> Replica:
    return msgspec.structs.replace(replica, state=ReplicaState.LEAVING)


# Taking away


def _is_wanted(tx: Transaction, hospital: Hospital, replica: Replica) -> bool:
    guid = Guid(replica.guid)
    file = tx.catalogue.file(guid)
    is_open = file is not None and is_open_under(file, replica.generation)
    return is_open and replica.until > hospital.clock() and tx.losses.get(guid) is None


async def _condemn(hospital: Hospital) -> None:
    """Mark the replicas that are to go: whose file or time is over, and those begun that nobody is putting any more."""
    last: Replica | None = None

    def look(tx: Transaction) -> tuple[list[Replica], list[Replica]]:
        page = tx.replicas.page(PAGE, last)
        return page, [it for it in page if _is_to_go(tx, hospital, it)]

    def mark(tx: Transaction) -> None:
        for replica in look(tx)[1]:
            tx.replicas.put(_leaving(replica))

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
    return is_cut or not _is_wanted(tx, hospital, replica)


def _condemn_of(tx: Transaction, guids: list[Guid]) -> None:
    for guid in guids:
        for replica in tx.replicas.of(guid):
            tx.replicas.put(_leaving(replica))


async def _remove_leaving(hospital: Hospital) -> None:
    """Take away what is to go; where a storage element does not let us, again and again, ever more seldom."""
    replicas, pause, look_at = hospital.replicas, PAUSE, trio.current_time() + INTERVAL
    while True:
        heard, left = replicas.departures.next(), 0
        try:
            if replicas.doubtful:
                guids = list(replicas.doubtful)
                await hospital.store.write(lambda tx, guids=guids: _condemn_of(tx, guids))  # type: ignore[misc]
                replicas.doubtful.difference_update(guids)
            if trio.current_time() >= look_at:
                await _condemn(hospital)
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
        await forget(hospital, gone)
        left += len(page) - len(gone)
        last = page[-1]
        await trio.lowlevel.checkpoint()
    return left


async def _is_gone(hospital: Hospital, replica: Replica, failures: collections.Counter[str]) -> bool:
    """Take one away; False where that does not go just now, and then it is known why."""
    element, key = hospital.replicas.elements.get(replica.element), (replica.element, replica.name)
    if key in hospital.replicas.under_way or failures[replica.element] >= MAX_FAILURES:
        return False
    try:
        await _in_thread(hospital, functools.partial(_delete_wholly, element, replica))
    except (MdmfsError, StorageError) as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 the thread boundary: one replica must not hold up those behind it
        reason = note_incident("taking a replica away", error)
    else:
        hospital.replicas.reasons.pop(key, None)
        return True
    failures[replica.element] += 1
    hospital.replicas.reasons[key] = reason
    return False


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
            tx.replicas.remove(replica)

    await hospital.store.write(act)


def _put_whole(element: StorageElement, name: str, content: Content, length: int) -> None:
    """Put, and look whether it is there."""
    element.put(name, content, length)
    found = element.size(name)
    if found != length:
        message = f"storage {element.name} has {found} bytes of {length}"
        raise StorageError(message)


def _delete_wholly(element: StorageElement | None, replica: Replica) -> None:
    """Delete, and look whether it is gone."""
    if element is None:
        message = f"storage {replica.element} is not configured: put it back, or delete and mdmfs replicas --forget"
        raise StorageError(message)
    element.delete(replica.name)
    if element.size(replica.name) is not None:
        message = f"storage {replica.element} still has what it was told to delete"
        raise StorageError(message)


async def _in_thread(hospital: Hospital, act: Callable[[], T]) -> T:
    """Run what blocks; it has deadlines of its own, and is not waited for when we end."""
    return await trio.to_thread.run_sync(act, limiter=hospital.replicas.threads, abandon_on_cancel=True)
