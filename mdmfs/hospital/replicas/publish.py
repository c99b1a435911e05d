"""Put replicas on storage elements, each step in the store before it is done."""

from __future__ import annotations

import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
import structlog
import trio

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.incident import note_incident
from mdmfs.hospital.kept.audit import AuditRecord, Event
from mdmfs.hospital.ledger.replicas import Replica, ReplicaState, leaving
from mdmfs.hospital.replicas.placement import is_wanted, lacking, misplaced
from mdmfs.hospital.replicas.removal import remove_leaving
from mdmfs.hospital.storage.port import BrokenOffError, Content, StorageElement, StorageError
from mdmfs.hospital.storage.replicas import PUTTERS
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import AccessDeniedError, BusyError, MdmfsError, PeerUnreachableError, StoreError
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import Buffer

PIECE: Final = 2**20

log = structlog.get_logger()


async def keep_replicas(hospital: Hospital) -> None:
    """Put what is wanted and take away what is to go, until cancelled."""
    hospital.staging.on_whole = hospital.replicas.want
    async with trio.open_nursery() as nursery:
        for _ in range(PUTTERS):
            nursery.start_soon(_put_wanted, hospital)
        nursery.start_soon(remove_leaving, hospital)


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


def _kept(tx: Transaction, hospital: Hospital, guid: Guid, element: str) -> Replica | None:
    found = [it for it in tx.replicas.of(guid) if it.element == element and it.state is ReplicaState.THERE]
    return next((it for it in found if is_wanted(tx, hospital, it)), None)


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
            log.warning("replicas are not put", guid=str(guid), reason=error.told_here)
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
        if element is None or hospital.replicas.is_resting(name):
            continue
        try:
            await _put(hospital, guid, element)
        except StorageError as error:
            log.warning("a replica is not put", guid=str(guid), storage=name, reason=str(error))
            hospital.replicas.let_rest(name)


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
    while (other := hospital.replicas.under_way.get(key)) is not None:
        await other.wait()
    with hospital.replicas.alone(*key):
        if await hospital.store.write(lambda tx: _is_begun(tx, hospital, coming)):
            await _carry_through(hospital, coming, act, project.name)


async def _carry_through(hospital: Hospital, coming: Replica, act: Callable[[], None], project: str) -> None:
    """Put what is begun and say that it is there; where any of that fails, it is to go again."""
    ended = msgspec.structs.replace(coming, state=ReplicaState.THERE)
    try:
        await hospital.replicas.in_thread(act)
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
    except BaseException as error:
        has_ended = isinstance(error, MdmfsError | StorageError) and not isinstance(error, BrokenOffError)
        with trio.CancelScope(shield=True):
            await hospital.store.write(lambda tx: tx.replicas.put(leaving(ended if has_ended else coming)))
        hospital.replicas.departures.ring()
        raise


def padded(size: int, padding: int) -> int:
    """Round a size up to a multiple of ``padding`` bytes."""
    return -(-size // padding) * padding if padding > 1 else size


def _content(path: pathlib.Path, size: int, length: int) -> Iterator[Buffer]:
    yield from _staged(path, size)
    for start in itertools.count(size, PIECE):
        if start >= length:
            return
        yield bytes(min(PIECE, length - start))


def _staged(path: pathlib.Path, size: int) -> Iterator[bytes]:
    """Read what is staged; raises ``StoreError``, so that no storage element is blamed for it."""
    left = size
    try:
        with path.open("rb") as file:
            while left and (piece := file.read(min(PIECE, left))):
                left -= len(piece)
                yield piece
    except OSError as error:
        message = f"{path.name} cannot be read in staging, to be put elsewhere: {error.strerror}"
        raise StoreError(message) from error
    if left:
        message = f"{path.name}, which is to be put elsewhere, is not whole in staging"
        raise StoreError(message)


def _is_begun(tx: Transaction, hospital: Hospital, coming: Replica) -> bool:
    """Write down what is about to be put, unless it is there, or nobody may have it any more.

    What is to go may come again: whatever yet appears under its name are the same bytes.
    """
    same = [it for it in tx.replicas.of(Guid(coming.guid)) if (it.element, it.name) == (coming.element, coming.name)]
    if any(it.state is not ReplicaState.LEAVING for it in same) or not is_wanted(tx, hospital, coming):
        return False
    tx.replicas.put(coming)
    return True


def _settle(tx: Transaction, hospital: Hospital, coming: Replica) -> bool:
    """Say that a replica is there; False where something is to go: it, as its file was taken away, or an older one."""
    same = [it for it in tx.replicas.of(Guid(coming.guid)) if (it.element, it.name) == (coming.element, coming.name)]
    is_standing = same == [coming] and is_wanted(tx, hospital, coming)
    there = msgspec.structs.replace(coming, state=ReplicaState.THERE)
    tx.replicas.put(there if is_standing else leaving(there))
    older = [it for it in tx.replicas.of(Guid(coming.guid)) if it.element == coming.element and it.name != coming.name]
    for old in older:
        tx.replicas.put(leaving(old))
    return is_standing and not older


def _put_whole(element: StorageElement, name: str, content: Content, length: int) -> None:
    """Put, and look whether it is there."""
    element.put(name, content, length)
    found = element.size(name)
    if found != length:
        message = f"storage {element.name} has {found or 0} bytes of {length}, though it took them all"
        raise StorageError(message)
