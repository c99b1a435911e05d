"""What a peer tells of its failure, as the error that it was: in our messages, or in a problem document (RFC 9457)."""

from __future__ import annotations

import contextlib
from typing import Final

import msgspec

from mdmfs.model.errors import MalformedMessageError, MdmfsError
from mdmfs.wire.messages.message import Failure
from mdmfs.wire.stream import Address

MAX_FAILURE_BYTES: Final = 64 * 2**10
"""No reason is longer: a storage element that refuses must not fill the memory of whom it refuses."""


class _Problem(msgspec.Struct, frozen=True):
    """A problem document (RFC 9457) with our code in it."""

    code: str
    detail: str


def failure_told(status: int, body: bytes, peer: Address) -> MdmfsError:
    """Make the error again that the peer told of."""
    told = _told(body)
    if told is None:
        return MalformedMessageError(f"{peer} answered with status {status} and no reason")
    return told.error()


def _told(body: bytes) -> Failure | None:
    """Read a failure, whether it is told to us or to programs that are not ours."""
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.msgpack.decode(body, type=Failure)
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        problem = msgspec.json.decode(body, type=_Problem)
        return Failure(problem.code, problem.detail)
    return None
