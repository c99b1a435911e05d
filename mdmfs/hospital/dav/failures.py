"""Failures as programs that know nothing of us understand them: the status, when to come again, and a sentence."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from mdmfs.model.errors import MdmfsError
from mdmfs.wire.service import STATUS_BY_CODE, Answer, Document, Request

RETRY_SECONDS: Final = 30
_LATER: Final = {503, 504, 507}
_FIRST_OF_SERVER: Final = 500
_UNAVAILABLE: Final = 503
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
"""Never told: gfal-copy tries again for ever after it."""


def telling_failures(respond: Callable[[Request], Awaitable[Answer]]) -> Callable[[Request], Awaitable[Answer]]:
    """Answer every ``MdmfsError`` of a route with a problem document (RFC 9457)."""

    @functools.wraps(respond)
    async def respond_or_tell(request: Request) -> Answer:
        try:
            return await respond(request)
        except MdmfsError as error:
            return failure(error)

    return respond_or_tell


def failure(error: MdmfsError) -> Document:
    """Write the answer that tells of an error."""
    return problem(status_of(error), str(error), error.code)


def status_of(error: MdmfsError) -> int:
    """Give the HTTP status of an error; what passes is 503."""
    status = STATUS_BY_CODE[error.code]
    if status in _LATER:
        return _UNAVAILABLE
    return _NOT_FOUND if status == _CONFLICT else status


def is_passing(error: MdmfsError) -> bool:
    """Whether it may be over by itself: an outage, or a lack of room."""
    return status_of(error) == _UNAVAILABLE


def is_for_ever(error: MdmfsError) -> bool:
    """Whether asking again would give the same."""
    return status_of(error) < _FIRST_OF_SERVER


def problem(status: int, detail: str, code: str, **headers: str) -> Document:
    """Write a problem document."""
    told = {"content-type": "application/problem+json", **headers}
    if status == _UNAVAILABLE:
        told["retry-after"] = str(RETRY_SECONDS)
    body = {"title": code.replace("-", " "), "status": status, "detail": detail, "code": code}
    return Document(msgspec.json.encode(body), status, told)
