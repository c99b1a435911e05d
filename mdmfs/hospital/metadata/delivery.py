"""Delivery: bring what lies in the outbox to the metadata service, in order, again and again until it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

import msgspec
import structlog
import trio

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.ledger.records import METADATA, OutboxItem
from mdmfs.hospital.metadata.outgoing import Parcel, Wrapped
from mdmfs.hospital.registration.deposit import serve_queue
from mdmfs.wire.keystores import Caller, Keystores
from mdmfs.wire.messages import Message, Outcome
from mdmfs.wire.metadata_messages import (
    DEFINE_COLLECTION_PATH,
    PUT_IMAGES_PATH,
    PUT_RECORDS_PATH,
    SHOW_SERIES_PATH,
    DefineCollection,
    Done,
    PutImages,
    PutRecords,
    ShowSeries,
)

log = structlog.get_logger()

DEADLINE: Final = 60.0
"""Seconds for one message."""
_KINDS: Final[Mapping[Parcel, tuple[str, type[Message]]]] = {
    Parcel.IMAGES: (PUT_IMAGES_PATH, PutImages),
    Parcel.SHOW: (SHOW_SERIES_PATH, ShowSeries),
    Parcel.COLLECTION: (DEFINE_COLLECTION_PATH, DefineCollection),
    Parcel.RECORDS: (PUT_RECORDS_PATH, PutRecords),
}


@dataclasses.dataclass(frozen=True, slots=True)
class MetadataService:
    """The hospital's way to its metadata service."""

    client: Caller
    peer: Keystores
    """The same service as one that must hear of ACLs and tombstones: it alone, under ``METADATA``."""

    @classmethod
    def of(cls, client: Caller, nursery: trio.Nursery) -> MetadataService:
        """Reach it by one client; its calls run in ``nursery``."""
        return cls(client, Keystores({METADATA: client}, nursery))


async def deliver_metadata(hospital: Hospital, service: MetadataService) -> None:
    """Serve the queue, until cancelled."""

    async def deliver(item: OutboxItem) -> None:
        await _deliver(item, hospital, service)

    await serve_queue(METADATA, hospital, deliver)


async def _deliver(item: OutboxItem, hospital: Hospital, service: MetadataService) -> None:
    wrapped = msgspec.msgpack.decode(item.payload, type=Wrapped)
    path, kind = _KINDS[Parcel(item.kind)]
    deadline = trio.current_time() + DEADLINE
    if wrapped.acls:
        outcomes = await service.peer.set_acls(METADATA, wrapped.acls, deadline=deadline)
        if set(outcomes) - {Outcome.DONE, Outcome.CONFLICT}:
            log.error("the metadata service goes by other ACLs than ours")
    message = msgspec.msgpack.decode(wrapped.message, type=kind)
    await service.client.call(path, message, Done, deadline=deadline)
    await hospital.store.write(lambda tx: tx.outbox.drop(METADATA, [item.number]))
