"""Headers of files that are gone, or have another key: another daemon may have taken them away meanwhile."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import structlog
import trio

from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.hospital import Hospital
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
            if gone := hospital.store.read(functools.partial(_outdated, kept=page)):
                await hospital.headers.forget(gone)
            after = page[-1][0]
            await trio.lowlevel.checkpoint()
    except MdmfsError as error:
        log.error("headers of files that are gone cannot be looked for", reason=str(error))  # noqa: TRY400 it says it


def _outdated(tx: Transaction, *, kept: Sequence[tuple[Guid, int]]) -> list[Guid]:
    return [guid for guid, generation in kept if not _is_of(tx, guid, generation)]


def _is_of(tx: Transaction, guid: Guid, generation: int) -> bool:
    file = tx.catalogue.file(guid)
    return file is not None and file.state is not FileState.WITHDRAWN and file.generation == generation
