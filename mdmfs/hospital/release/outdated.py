"""Headers of files that are gone, or have another key: another daemon may have taken them away meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
import trio

from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.headers import KeptHeader
from mdmfs.hospital.pages import PAGE
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import MdmfsError
from mdmfs.model.names import Guid

log = structlog.get_logger()


async def forget_outdated_headers(hospital: Hospital) -> None:
    """Delete them, once, when a daemon begins: sealed headers, and digests of what they were before."""
    after: Guid | None = None
    try:
        while page := await trio.to_thread.run_sync(hospital.headers.page, PAGE, after):
            if gone := _outdated(hospital, page):
                await hospital.headers.forget(gone)
            after = page[-1][0]
            await trio.lowlevel.checkpoint()
    except MdmfsError as error:
        log.error("headers of files that are gone cannot be looked for", reason=error.told_here)  # noqa: TRY400 it says it


async def keep_headers(hospital: Hospital, headers: Sequence[KeptHeader]) -> None:
    """Keep headers of files, but for those that have gone before they were written, or have another key."""
    await hospital.headers.put(headers)
    for guid in _outdated(hospital, [(one.guid, one.generation) for one in headers]):
        hospital.headers.discard(guid)


def _outdated(hospital: Hospital, kept: Sequence[tuple[Guid, int]]) -> list[Guid]:
    return hospital.store.read(lambda tx: [guid for guid, number in kept if not _is_of(tx, guid, number)])


def _is_of(tx: Transaction, guid: Guid, generation: int) -> bool:
    file = tx.catalogue.file(guid)
    return file is not None and file.state is not FileState.WITHDRAWN and file.generation == generation
