"""A service: what a zone answers on which path, without any socket."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final, TypeVar

import msgspec

from mdmfs.model.errors import MalformedMessageError
from mdmfs.model.identity import Principal
from mdmfs.wire.messages.message import Failure, Message
from mdmfs.wire.stream import Address

T = TypeVar("T", bound=Message)
Octets = bytes | bytearray | memoryview


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What a principal asks: the path is as sent, without a query; the names of headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    principal: Principal
    peer: Address
    body: Callable[[], Awaitable[Octets]]
    """Waits for the whole body, at most ``MAX_MESSAGE_BYTES``; raises ``MalformedMessageError``."""
    has_hung_up: Callable[[], bool] = lambda: False
    """Tells whether the peer no longer waits for the answer; for whoever would work for nothing."""

    async def read(self, kind: type[T]) -> T:
        """Wait for the message that the request carries; raises ``MalformedMessageError``."""
        return self.decode(await self.body(), kind)

    def decode(self, body: Octets, kind: type[T]) -> T:
        """Give the message in a body that has been read; raises ``MalformedMessageError``."""
        try:
            return msgspec.msgpack.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            message = f"the body of {self.method} {self.path} is no {kind.__name__}"
            raise MalformedMessageError(message) from error


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """An answer of one message."""

    message: Message
    status: int = 200
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether it is a success that says nothing but the message."""
        return self.status == 200 and not self.headers  # noqa: PLR2004 RFC 9110 section 15.3.1


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """An answer to programs that are not ours: any body, any headers."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    length: int | None = None
    """To HEAD: how long the body would be that GET gives; None for that of ``body``."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class StreamReply:
    """An answer of many bytes: ``chunks`` give exactly ``length`` of them, or raise, which the peer sees as a cut.

    Chunks of any size are fine; an empty one has what came before it sent at once. The iterator is closed (``aclose``)
    when the answer ends, however it does.
    """

    length: int | None
    """None where nobody knows it before the end: then it goes out chunked (RFC 9112 section 7.1)."""
    etag: str
    """Empty: none."""
    chunks: AsyncIterator[Octets]
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    status: int = 200
    content_type: str = "application/octet-stream"

    async def aclose(self) -> None:
        """Close the iterator, if it is one that can be closed."""
        close = getattr(self.chunks, "aclose", None)
        if close is not None:
            await close()


Answer = Reply | Document | StreamReply
Respond = Callable[[Request], Awaitable[Answer]]


def responding(kind: type[T], answer: Callable[[Principal, T], Awaitable[Message]]) -> Respond:
    """Make what responds to messages of one kind with messages, for the principal that sends them."""

    async def respond(request: Request) -> Reply:
        return Reply(await answer(request.principal, await request.read(kind)))

    return respond


@dataclasses.dataclass(slots=True, eq=False)
class Service:
    """The routes of a zone: (method, path) to what responds; a path that ends with ``/`` stands for all below it.

    What responds raises ``MdmfsError`` for every answer that is no success. A stream may go on for as long as its peer
    takes it; before that, waiting is bounded by whoever responds.
    """

    name: str
    routes: Mapping[tuple[str, str], Respond]
    _above: list[tuple[str, str]] = dataclasses.field(init=False, repr=False)
    """Those that stand for all below them, the longest first: there are few, and a path may have any depth."""

    def __post_init__(self) -> None:
        """Find them."""
        self._above = sorted((route for route in self.routes if route[1].endswith("/")), key=_length, reverse=True)

    async def answer(self, request: Request) -> Answer:
        """Answer a request; raises what its route raises."""
        route = self.route(request.method, request.path)
        if route:
            return await self.routes[request.method, route](request)
        allowed = {method for method, _ in self.routes if self.route(method, request.path)}
        if allowed:
            failure = Failure(MalformedMessageError.code, f"{request.method} is not for this path")
            return Reply(failure, 405, {"allow": ", ".join(sorted(allowed))})
        return Reply(Failure(MalformedMessageError.code, f"the {self.name} has no such path: {request.path}"), 404)

    def route(self, method: str, path: str) -> str:
        """Name the route of a path, as it stands in ``routes``; empty where there is none."""
        if (method, path) in self.routes:
            return path
        for by, above in self._above:
            if by == method and path.startswith(above):
                return above
        return ""


def _length(route: tuple[str, str]) -> int:
    return len(route[1])


STATUS_BY_CODE: Final[Mapping[str, int]] = {
    "internal": 500,
    "malformed-name": 400,
    "malformed-query": 400,
    "malformed-message": 400,
    "configuration": 500,
    "no-such-file": 404,
    "stale-number": 404,
    "not-a-directory": 409,
    "is-a-directory": 409,
    "no-such-attribute": 404,
    "read-only": 403,
    "name-taken": 409,
    "not-empty": 409,
    "refused-name": 400,
    "other-hospital": 409,
    "quota": 507,
    "access-denied": 403,
    "credential-refused": 401,
    "credential-expired": 401,
    "peer-unreachable": 503,
    "peer-timed-out": 504,
    "pacs-unreachable": 503,
    "recall-timed-out": 504,
    "recall-failed": 502,
    "instance-refused": 403,
    "instance-changed": 410,
    "instance-lost": 410,
    "integrity": 500,
    "wrong-key": 500,
    "too-few-shares": 503,
    "out-of-space": 507,
    "busy": 503,
    "interrupted": 503,
    "unknown-name": 404,
    "unusable-file": 500,
    "store": 500,
}
"""The HTTP status of each error; the class is told by the code in the body, the status is for other programs."""
