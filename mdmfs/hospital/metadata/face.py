"""The paths on which records come in, and on which one learns who a subject is; inside the hospital's network."""

from __future__ import annotations

from collections.abc import Sequence

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.ledger.records import METADATA
from mdmfs.hospital.metadata.defining import define_records
from mdmfs.hospital.metadata.identify import Identification
from mdmfs.hospital.metadata.importing import import_records, known_collection
from mdmfs.hospital.own_people import for_own_people
from mdmfs.wire.messages.records import (
    COLLECTION_PATH,
    DEFINE_RECORDS_PATH,
    IDENTIFY_PATH,
    IMPORT_RECORDS_PATH,
    RECORDS_WAITING_PATH,
    AskCollection,
    AskRecordsWaiting,
    CollectionTold,
    DefineRecords,
    Identify,
    ImportRecords,
    RecordsWaiting,
)
from mdmfs.wire.service import Reply, Request, Respond


def record_routes(hospital: Hospital, networks: Sequence[str]) -> dict[tuple[str, str], Respond]:
    """Give the routes: all but the last are for the hospital's own certificate, that is for the given networks."""
    identification = Identification(hospital, networks)

    async def define(request: Request) -> Reply:
        return Reply(await define_records(hospital, await request.read(DefineRecords)))

    async def collection(request: Request) -> Reply:
        asked = await request.read(AskCollection)
        found = known_collection(hospital, asked.project, asked.collection)
        return Reply(CollectionTold({one.column: one.name for one in found.attributes}))

    async def take(request: Request) -> Reply:
        return Reply(await import_records(hospital, await request.read(ImportRecords)))

    async def waiting(request: Request) -> Reply:
        await request.read(AskRecordsWaiting)
        is_empty = not hospital.store.read(lambda tx: tx.outbox.peek(METADATA, limit=1))
        return Reply(RecordsWaiting(is_empty))

    async def identify(request: Request) -> Reply:
        asked = await request.read(Identify)
        return Reply(await identification.identify(request.principal, asked, request.peer.host))

    return {
        ("POST", DEFINE_RECORDS_PATH): for_own_people(hospital, define),
        ("POST", COLLECTION_PATH): for_own_people(hospital, collection),
        ("POST", IMPORT_RECORDS_PATH): for_own_people(hospital, take),
        ("POST", RECORDS_WAITING_PATH): for_own_people(hospital, waiting),
        ("POST", IDENTIFY_PATH): identify,
    }
