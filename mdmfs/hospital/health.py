"""What the daemon alone knows of how the site does, for ``mdmfs doctor``."""

from __future__ import annotations

from collections.abc import Callable

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.keys.currency import behind
from mdmfs.hospital.own_people import for_own_people
from mdmfs.hospital.store import Transaction
from mdmfs.wire.messages.administration import HEALTH_PATH, AskHealth, Health, PacsHealth
from mdmfs.wire.service import Reply, Request, Respond


def health_routes(hospital: Hospital, look: Callable[[], Health]) -> dict[tuple[str, str], Respond]:
    """Give the route; the hospital's own certificate is let in, and nobody else."""

    async def respond(request: Request) -> Reply:
        await request.read(AskHealth)
        return Reply(look())

    return {("POST", HEALTH_PATH): for_own_people(hospital, respond)}


def health_of(hospital: Hospital) -> Health:
    """Look now."""
    pacs = [
        PacsHealth(name, known.pacs.retrieval or "", known.pacs.is_left_alone) for name, known in hospital.pacs.items()
    ]

    def read(tx: Transaction) -> Health:
        outbox, notices, files = tx.outbox.size().items, len(tx.notices.all()), tx.catalogue.totals().files
        untold = behind(tx, hospital, tx.epochs.latest().number)
        lies, headerless = dict(hospital.keystores.lies), max(0, files - hospital.headers.count())
        is_room = hospital.headers.has_room()
        return Health(pacs, lies, outbox, notices, files, untold, headerless=headerless, is_header_room=is_room)

    return hospital.store.read(read)
