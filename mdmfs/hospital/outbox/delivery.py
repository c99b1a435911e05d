"""Delivery: bring what lies in the outbox to the metadata service, in order, again and again until it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import trio

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.ledger.records import METADATA, OutboxItem
from mdmfs.hospital.metadata.outgoing import Wrapped
from mdmfs.hospital.outbox.deposit import serve_queue
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.messages.keystores import VersionedAcl
from mdmfs.wire.messages.message import MAX_BATCH
from mdmfs.wire.messages.metadata import TELL_PATH, Done, Parcel, Tell
from mdmfs.wire.peer import Peer

DEADLINE: Final = 60.0
"""Seconds for one message."""
MOST: Final = 16
"""Items of one message; all of them are in memory, and one with attachments has several MiB."""
MOST_OCTETS: Final = 2 * 2**20
"""After so many a message ends; one item may be larger."""


@dataclasses.dataclass(frozen=True, slots=True)
class MetadataService:
    """The hospital's way to its metadata service."""

    client: Peer
    peer: Keystores
    """The same service as one that must hear of ACLs and tombstones: it alone, under ``METADATA``."""

    @classmethod
    def of(cls, client: Peer, nursery: trio.Nursery) -> MetadataService:
        """Reach it by one client; its calls run in ``nursery``."""
        return cls(client, Keystores({METADATA: client}, nursery))


async def deliver_metadata(hospital: Hospital, service: MetadataService) -> None:
    """Serve the queue, until cancelled."""

    async def deliver(items: Sequence[OutboxItem]) -> None:
        for some in parted(items):
            hospital.store.refuse_stale()
            await _deliver(some, hospital, service)

    await serve_queue(METADATA, hospital, deliver, read_ahead=MOST)


def parted(items: Sequence[OutboxItem]) -> Iterator[list[OutboxItem]]:
    """Part items into what one message holds, in order; what defines a collection is a message by itself.

    A message whose answer is lost is told again: what comes before a definition may be refused after it.
    """
    some: list[OutboxItem] = []
    octets = 0
    for item in items:
        is_apart = bool(some) and Parcel.COLLECTION in {some[-1].kind, item.kind}
        if is_apart or (some and octets + len(item.payload) > MOST_OCTETS):
            yield some
            some, octets = [], 0
        some.append(item)
        octets += len(item.payload)
    if some:
        yield some


async def _deliver(items: Sequence[OutboxItem], hospital: Hospital, service: MetadataService) -> None:
    wrapped = [msgspec.msgpack.decode(item.payload, type=Wrapped) for item in items]
    latest: dict[bytes, VersionedAcl] = {}
    for acl in (acl for one in wrapped for acl in one.acls):
        held = latest.get(acl.id)
        if held is None or held.version < acl.version:
            latest[acl.id] = acl
    parcels = [(Parcel(item.kind), one.message) for item, one in zip(items, wrapped, strict=True)]
    acls = list(latest.values())
    while len(acls) > MAX_BATCH:
        await _tell(service, Tell(acls[:MAX_BATCH], []))
        acls = acls[MAX_BATCH:]
    await _tell(service, Tell(acls, parcels))
    await hospital.store.write(lambda tx: tx.outbox.drop(METADATA, [item.number for item in items]))


async def _tell(service: MetadataService, message: Tell) -> None:
    await service.client.call(TELL_PATH, message, Done, deadline=trio.current_time() + DEADLINE)
