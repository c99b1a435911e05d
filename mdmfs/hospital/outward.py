"""What the grid is told when something inside the hospital failed: addresses and AE titles stay in, in the log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import structlog

from mdmfs.model.errors import (
    ERRORS_BY_CODE,
    IntegrityError,
    MdmfsError,
    OutOfSpaceError,
    PacsUnreachableError,
    RecallFailedError,
    StoreError,
)
from mdmfs.model.names import Guid

log = structlog.get_logger()

_OUTWARD: Final[dict[type[MdmfsError], str]] = {
    PacsUnreachableError: "the hospital cannot reach its PACS at the moment; open it again later",
    RecallFailedError: "the PACS did not deliver it; open it again later, or tell the hospital",
    OutOfSpaceError: "the hospital has no room to stage it at the moment; open it again later",
    StoreError: "a store of the hospital does not work; the hospital has to look at its log",
    IntegrityError: "a copy at the hospital is damaged; open it again",
}


def outward(guid: Guid, error: MdmfsError) -> MdmfsError:
    """Give an error about a file in the words that the grid may read; what was inside goes to the log."""
    text = next((text for kind, text in _OUTWARD.items() if isinstance(error, kind)), None)
    if text is None:
        return error
    log.warning("not released", guid=str(guid), code=error.code, reason=str(error))
    return ERRORS_BY_CODE[error.code](f"{guid}: {text}")


@contextlib.contextmanager
def speaking_for_the_inside(guid: Guid) -> Iterator[None]:
    """Give errors that may name what is inside the words that the grid may read."""
    try:
        yield
    except tuple(_OUTWARD) as error:
        raise outward(guid, error) from error
