"""One connection at the server: requests in, answers out, until one side has had enough."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from email.utils import formatdate
from typing import Final, NamedTuple

import h11
import msgspec
import trio
from prometheus_client import Counter, Histogram

from mdmfs.daemon.outline import outline
from mdmfs.model.errors import BusyError, MalformedMessageError, MdmfsError
from mdmfs.model.identity import Dn
from mdmfs.wire.allowances import Allowances, Limits
from mdmfs.wire.caller import Caller, Stranger
from mdmfs.wire.messages.message import MAX_MESSAGE_BYTES, MEDIA_TYPE, Failure
from mdmfs.wire.plain import PlainRequest, read_request, write_answer
from mdmfs.wire.service import STATUS_BY_CODE, Document, Octets, Reply, Request, Service, StreamReply
from mdmfs.wire.stream import SEND_BYTES, Address, TlsStream

log = logging.getLogger(__name__)

RECEIVE_BYTES: Final = 64 * 2**10
LONG_BYTES: Final = 64 * 2**10
"""A longer message takes one of the few places that its principal has for such, until it is answered."""
MAX_CHUNKS: Final = 256
"""Of a body, and one more for each KiB of it: h11 takes 30 us for each, however short it is."""
_SLASHES: Final = re.compile(r"/{2,}")
"""Programs of the grid join paths carelessly."""


REQUESTS: Final = Counter("mdmfs_requests", "Requests that were answered.", ["route", "status"])
SECONDS: Final = Histogram(
    "mdmfs_request_seconds",
    "Seconds to an answer, of a stream to its first bytes; questions that wait for changes count for as long.",
    ["route"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
)
RETRY_SECONDS: Final = "5"
"""When whoever was too busy may be asked again."""


class _CutError(Exception):
    """The answer cannot be finished: the peer must see that it is cut."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """What all conversations of a server have in common."""

    service: Service
    limits: Limits
    allowances: Allowances
    buffer: bytearray = dataclasses.field(default_factory=lambda: bytearray(RECEIVE_BYTES))
    """What arrives in it is copied before anybody else runs: a thousand idle connections need no thousand of them."""


class Conversation:
    """The requests of one connection, one after the other, all by the same principal."""

    def __init__(self, stream: TlsStream, peer: Address, caller: Caller | Stranger, server: Terms) -> None:
        """Begin with whom the handshake has shown."""
        self._stream = stream
        self._peer = peer
        self._caller = caller
        self._service = server.service
        self._limits = server.limits
        self._allowances = server.allowances
        self._buffer = server.buffer
        self._sends_long: Dn | None = None
        """Who has taken a place for the long message that is under way."""
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=server.limits.head_bytes)

    async def run(self) -> None:
        """Answer until the peer ends it, breaks a limit, or is no longer who it was; then close the connection.

        Where it is left open, what was said is not whole: whoever has the stream aborts it.
        """
        try:
            while await self._answer_next():
                pass
            if self._protocol.their_state is h11.SEND_BODY or self._protocol.their_state is h11.ERROR:
                await self._stream.close_when_heard()
            else:
                self._stream.close()
        except (OSError, _CutError) as error:
            log.debug("%s: connection of %s ended: %s", self._service.name, self._peer, type(error).__name__)

    async def _answer_next(self) -> bool:
        """Answer one request and tell whether there can be another."""
        try:
            asked = await self._next()
            if asked is None:
                return False
            answer = await self._counted(asked)
            if asked.plain is not None:
                if isinstance(answer, Reply) and answer.is_plain and not self._caller.is_over():
                    octets = write_answer(answer.message, _date(int(time.time())))
                    if not self._stream.send_at_once(octets):
                        await self._send_octets(octets)
                    return True
                self._protocol.receive_data(asked.plain.octets)
                self._protocol.next_event()
            await self._send(answer, is_head=asked.method == "HEAD")
            self._skip_body()
        except h11.RemoteProtocolError as error:
            log.info("%s: %s does not speak HTTP/1.1", self._service.name, self._peer)
            if self._protocol.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                failure = Failure(MalformedMessageError.code, "this is no HTTP/1.1 request")
                await self._send_reply(Reply(failure, error.error_status_hint))
            return False
        if self._protocol.our_state is not h11.DONE or self._protocol.their_state is not h11.DONE:
            return False
        self._protocol.start_next_cycle()
        return True

    def _skip_body(self) -> None:
        """Pass over a body that nobody read, as far as it has arrived: a refusal costs no new connection."""
        for _ in range(MAX_CHUNKS):
            if self._protocol.their_state is not h11.SEND_BODY or self._protocol.next_event() is h11.NEED_DATA:
                return

    async def _next(self) -> _Asked | None:
        """Wait for a request; the idle time ends with its first byte, then its head must be there soon."""
        is_idle = not self._protocol.trailing_data[0]
        with trio.move_on_after(self._limits.idle_seconds if is_idle else self._limits.head_seconds) as scope:
            if is_idle:
                octets = await self._receive_octets()
                plain = read_request(octets)
                if plain is not None:
                    return _Asked("POST", _path(plain.target), plain.headers, plain)
                self._protocol.receive_data(octets)
                scope.deadline = trio.current_time() + self._limits.head_seconds
            else:
                await trio.lowlevel.checkpoint()  # who sends many requests at once holds up nobody
            while True:
                event = self._protocol.next_event()
                if isinstance(event, h11.Request):
                    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
                    if "transfer-encoding" in headers and "content-length" in headers:
                        message = "a body has one end"  # who passes it on may see the other: RFC 9112 section 6.1
                        raise h11.RemoteProtocolError(message)
                    return _Asked(event.method.decode("ascii"), _path(event.target), headers)
                if event is not h11.NEED_DATA or not await self._receive():
                    return None
        return None

    async def _receive(self) -> int:
        octets = await self._receive_octets()
        self._protocol.receive_data(octets)
        return len(octets)

    async def _receive_octets(self) -> bytes:
        count = await self._stream.receive_into(memoryview(self._buffer))
        return bytes(memoryview(self._buffer)[:count])

    async def _counted(self, asked: _Asked) -> Reply | Document | _Begun:
        begun = trio.current_time()
        answer = await self._answer(asked)
        route = self._service.route(asked.method, asked.path)
        status = answer.stream.status if isinstance(answer, _Begun) else answer.status
        requests, seconds = _metrics(route, status)
        requests.inc()
        seconds.observe(trio.current_time() - begun)
        return answer

    async def _answer(self, asked: _Asked) -> Reply | Document | _Begun:
        """Answer a request; whatever goes wrong, up to the first chunk of a stream, becomes a failure that is told."""
        try:
            answer = await self._service.answer(await self._request(asked))
            return await _begin(answer) if isinstance(answer, StreamReply) else answer
        except _CutError:
            raise
        except MdmfsError as error:
            if error.place:
                log.warning("%s: %s", self._service.name, error.told_here)
            later = {"retry-after": RETRY_SECONDS} if isinstance(error, BusyError) else {}
            return Reply(Failure.of(error), STATUS_BY_CODE[error.code], later)
        except Exception as error:  # noqa: BLE001 the service loop: one request must not end the others
            incident = secrets.token_hex(4)
            log.error("%s: incident %s: %s", self._service.name, incident, outline(error))  # noqa: TRY400 see outline
            failure = Failure(MdmfsError.code, f"the {self._service.name} failed; its log tells more", incident)
            return Reply(failure, STATUS_BY_CODE[MdmfsError.code])
        finally:
            if self._sends_long is not None:
                self._allowances.end_long(self._sends_long)
                self._sends_long = None

    async def _request(self, asked: _Asked) -> Request:
        """Take the principal as it is now: a kept connection outlives a proxy, an AC, and a CA's trust in it."""
        principal = await self._caller.principal()
        await self._allowances.wait(principal.dn)
        read = functools.partial(self._read_body, principal.dn) if asked.plain is None else asked.plain.read
        return Request(asked.method, asked.path, asked.headers, principal, self._peer, read, self._stream.is_readable)

    async def _read_body(self, dn: Dn) -> bytearray:
        body, chunks = bytearray(), 0
        try:
            if self._protocol.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                await self._send_octets(self._protocol.send(go_on) or b"")
            with trio.fail_after(self._limits.message_seconds):
                while (event := await self._next_event()) and not isinstance(event, h11.EndOfMessage):
                    body += event.data
                    chunks += event.chunk_start
                    if chunks > MAX_CHUNKS + len(body) // 1024:
                        message = "the body of the request comes in crumbs"
                        raise MalformedMessageError(message)
                    if len(body) > MAX_MESSAGE_BYTES:
                        message = f"a message has at most {MAX_MESSAGE_BYTES} bytes"
                        raise MalformedMessageError(message)
                    if len(body) > LONG_BYTES and self._sends_long is None:
                        await self._allowances.begin_long(dn)
                        self._sends_long = dn
        except h11.RemoteProtocolError as error:
            message = "the body of the request is no HTTP/1.1"
            raise MalformedMessageError(message) from error
        except trio.TooSlowError as error:
            message = f"the body of the request did not come within {self._limits.message_seconds:g} s"
            raise MalformedMessageError(message) from error
        except OSError as error:
            raise _CutError from error
        return body

    async def _next_event(self) -> h11.Data | h11.EndOfMessage:
        while True:
            event = self._protocol.next_event()
            if isinstance(event, h11.Data | h11.EndOfMessage):
                return event
            if event is not h11.NEED_DATA:
                message = "the body of the request has been read already"
                raise MalformedMessageError(message)
            await self._receive()

    async def _send(self, answer: Reply | Document | _Begun, *, is_head: bool) -> None:
        if isinstance(answer, _Begun):
            await self._send_stream(answer.stream, answer.first)
        elif isinstance(answer, Document):
            await self._send_document(answer, is_head=is_head)
        else:
            await self._send_reply(answer, is_head=is_head)

    async def _send_reply(self, reply: Reply, *, is_head: bool = False) -> None:
        headers = {"content-type": MEDIA_TYPE, **reply.headers}
        await self._send_document(
            Document(msgspec.msgpack.encode(reply.message), reply.status, headers), is_head=is_head
        )

    async def _send_document(self, document: Document, *, is_head: bool) -> None:
        length = len(document.body) if document.length is None else document.length
        head = self._head(document.status, length, document.headers.items())
        body = [] if is_head else self._pass(h11.Data(document.body))  # RFC 9110 section 9.3.2
        await self._send_octets(b"".join((head, *body, *self._pass(h11.EndOfMessage()))))

    async def _send_stream(self, answer: StreamReply, first: Octets) -> None:
        """Send a stream in large writes; a chunk too many or too few, or a failure, is a cut.

        What is there is sent before the cut: an answer of which nothing comes would look like a refused connection.
        """
        etag = (("etag", f'"{answer.etag}"'),) if answer.etag else ()
        headers = (("content-type", answer.content_type), *etag, *answer.headers.items())
        pending = bytearray(self._head(answer.status, answer.length, headers))
        try:
            async with contextlib.aclosing(answer):
                pending = await self._gather_chunk(pending, first)
                async for chunk in answer.chunks:
                    pending = await self._gather_chunk(pending, chunk)
            await self._send_octets(b"".join((pending, *self._pass(h11.EndOfMessage()))))
        except (_CutError, OSError):
            raise
        except Exception as error:
            told = error.told_here if isinstance(error, MdmfsError) else outline(error)
            log.error("%s: an answer was cut short: %s", self._service.name, told)  # noqa: TRY400 see outline
            await self._send_octets(pending)
            raise _CutError from error

    async def _gather_chunk(self, pending: bytearray, chunk: Octets) -> bytearray:
        if not len(chunk):
            await self._send_octets(pending)
            return bytearray()
        for octets in self._pass(h11.Data(memoryview(chunk).cast("B"))):  # type: ignore[arg-type] # any buffer
            pending = await self._gather(pending, octets)
        return pending

    async def _gather(self, pending: bytearray, octets: Octets) -> bytearray:
        """Send as much as makes whole writes; the rest waits for what follows, or for an empty chunk.

        A small write costs as much as a large one, here and where it is received: more than to copy what fills it.
        """
        view = memoryview(octets)
        if len(pending) + len(view) >= SEND_BYTES:
            await trio.lowlevel.checkpoint()  # not behind the write: the peer waits for the rest, which may follow now
        if pending:
            missing = SEND_BYTES - len(pending)
            pending += view[:missing]
            view = view[missing:]
            if len(pending) < SEND_BYTES:
                return pending
            await self._send_octets(pending)
        whole = len(view) // SEND_BYTES * SEND_BYTES
        await self._send_octets(view[:whole])
        return bytearray(view[whole:])

    def _head(self, status: int, length: int | None, headers: Iterable[tuple[str, str]]) -> bytes:
        ending = (("connection", "close"),) if self._caller.is_over() else ()
        known = () if length is None else (("content-length", str(length)),)
        told = [("date", _date(int(time.time()))), *known, *headers, *ending]  # RFC 9110 6.6.1
        response = h11.Response(status_code=status, headers=told)
        return self._protocol.send(response) or b""

    def _pass(self, event: h11.Data | h11.EndOfMessage) -> Sequence[Octets]:
        """Let h11 count the bytes of a body without copying them."""
        return self._protocol.send_with_data_passthrough(event) or []

    async def _send_octets(self, octets: Octets) -> None:
        view = memoryview(octets).cast("B")
        for start in range(0, len(view), SEND_BYTES):
            piece = view[start : start + SEND_BYTES]
            if start:
                await trio.lowlevel.checkpoint()
            if self._stream.send_at_once(piece):  # mostly: to watch the time would cost more than that
                continue
            with trio.move_on_after(self._limits.stall_seconds) as scope:
                await self._stream.send_all(piece)
            if scope.cancelled_caught:
                raise _CutError


class _Asked(NamedTuple):
    """The head of a request, and all of it where it came in the plain form."""

    method: str
    path: str
    headers: Mapping[str, str]
    plain: PlainRequest | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Begun:
    """A stream whose first chunk is there."""

    stream: StreamReply
    first: Octets


async def _begin(answer: StreamReply) -> _Begun:
    """Wait for the first chunk; raises what the stream fails with before it."""
    try:
        return _Begun(answer, await anext(answer.chunks, b""))
    except BaseException:
        async with contextlib.aclosing(answer):
            raise


@functools.cache
def _metrics(route: str, status: int) -> tuple[Counter, Histogram]:
    """Remembered, as they are in the metrics themselves: to look them up costs more than to count."""
    return REQUESTS.labels(route, status), SECONDS.labels(route)


@functools.lru_cache(maxsize=1)
def _date(now: int) -> str:
    return formatdate(now, usegmt=True)


def _path(target: bytes) -> str:
    return _SLASHES.sub("/", target.decode("ascii").partition("?")[0])
