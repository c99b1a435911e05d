"""What the grid is told when something inside the hospital failed: addresses and AE titles stay in, in the log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import structlog

from mdmfs.hospital.store import Store
from mdmfs.model.errors import (
    ERRORS_BY_CODE,
    IntegrityError,
    MdmfsError,
    OutOfSpaceError,
    PacsUnreachableError,
    PeerUnreachableError,
    RecallFailedError,
    StoreError,
)
from mdmfs.model.names import Guid
from mdmfs.wire.service import Answer, Request, Respond, StreamReply

log = structlog.get_logger()

_LATER: Final = "open it again later, and if it stays so, tell the hospital"
_OUTWARD: Final[dict[type[MdmfsError], tuple[str, str]]] = {
    PacsUnreachableError: ("the hospital cannot reach its PACS at the moment", _LATER),
    RecallFailedError: ("the PACS did not deliver it", _LATER),
    OutOfSpaceError: ("the hospital has no room to stage it at the moment", _LATER),
    StoreError: ("a store of the hospital does not work", "tell the hospital: its log says which"),
    IntegrityError: ("a copy at the hospital is damaged", "open it again"),
}


def outward(guid: Guid, error: MdmfsError) -> MdmfsError:
    """Give an error about a file in the words that the grid may read; what was inside goes to the log."""
    told = next((told for kind, told in _OUTWARD.items() if isinstance(error, kind)), None)
    if told is None:
        return error
    log.warning("not released", guid=str(guid), code=error.code, reason=error.told_here)
    text, what_to_do = told
    return ERRORS_BY_CODE[error.code](f"{guid}: {text}", what_to_do=what_to_do)


@contextlib.contextmanager
def speaking_for_the_inside(guid: Guid) -> Iterator[None]:
    """Give errors that may name what is inside the words that the grid may read."""
    try:
        yield
    except tuple(_OUTWARD) as error:
        raise outward(guid, error) from error


def current(store: Store, respond: Respond) -> Respond:
    """Answer nothing from a store that may no longer be true, whether it becomes so before the question or meanwhile.

    Raises ``PeerUnreachableError``: for who asks it is as if the hospital did not answer, which is waited for. A stream
    whose bytes are decided upon while it runs looks by itself, see ``release_all``.
    """

    async def respond_if_current(request: Request) -> Answer:
        store.refuse_stale()
        answer = await respond(request)
        try:
            store.refuse_stale()
        except PeerUnreachableError:
            if isinstance(answer, StreamReply):
                await answer.aclose()
            raise
        return answer

    return respond_if_current
