"""One question over one connection, up to the head of its answer; plain ones at a glance, all others by h11."""

from __future__ import annotations

import contextlib
import ssl
from typing import Final, NamedTuple

import h11
import trio

from mdmfs.model.errors import (
    CredentialExpiredError,
    CredentialRefusedError,
    MalformedMessageError,
    MdmfsError,
    PeerUnreachableError,
)
from mdmfs.wire.download import Download
from mdmfs.wire.glance import read_head, write_get
from mdmfs.wire.plain import read_answer, write_request
from mdmfs.wire.stream import Address, Stream

HEAD_BYTES: Final = 32 * 2**10
MAX_INTERIM: Final = 8
"""So many answers of status 1xx may come before the one that counts: nobody asks for any (RFC 9110 section 15.2)."""
ONE_PIECE_SECONDS: Final = 0.1
"""How long an answer is waited for in one piece: a refusal is shorter, and comes no sooner."""
_ZEROS: Final = memoryview(bytes(HEAD_BYTES))
"""An answer may be shares: where it came in, they are not to stay."""
_REFUSALS: Final = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "DECRYPT_ERROR")
"""Parts of the names of the alerts that speak of our certificate (RFC 8446 section 6.2)."""


class NoAnswerError(Exception):
    """The connection ended before the first byte of an answer."""


class Question(NamedTuple):
    """A request, ready to be sent again over another connection."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    is_idempotent: bool
    host: str = ""
    """Whom to ask for it, where that is not the peer."""
    room: memoryview | None = None
    """Where the answer is received, so that its body is gathered there, if it is to be; at least ``HEAD_BYTES``."""
    hoped: int = 1
    """So many bytes the answer has, unless it is a refusal: they are waited for, for a moment."""


class Exchange:
    """What a client asks of one peer, one question at a time over each connection."""

    def __init__(self, peer: Address) -> None:
        self._peer = peer
        self._host = str(peer)
        self._buffer = memoryview(bytearray(HEAD_BYTES))
        """What arrives in it is copied before anybody else runs."""

    async def ask(self, stream: Stream, question: Question) -> Download:
        """Send a question and wait for the head of the answer. After an error the stream can only be aborted.

        Raises ``NoAnswerError``, else an ``MdmfsError``.
        """
        protocol: h11.Connection | None = None
        octets = self._write_plain(question)
        if octets is None:
            protocol, octets = self._begin(question)
        with contextlib.suppress(OSError):
            # A peer that refuses a request or its sender may close while we send: its answer still says why.
            if not stream.send_at_once(octets):
                await stream.send_all(octets)
        if question.method == "GET":
            return await self._take_long(stream, question)
        first = await self._receive(stream, has_begun=False)
        if protocol is None:
            plain = read_answer(first)
            if plain is not None:
                return Download(stream, 200, plain.headers, plain.body, self._peer)
            protocol, _ = self._begin(question)
        return await self._take_any(stream, protocol, first)

    async def _take_long(self, stream: Stream, question: Question) -> Download:
        """Take the head of an answer to a GET, and of its body what comes with it."""
        room = self._buffer if question.room is None else question.room
        count = await self._receive_into(stream, room, question.hoped)
        head = read_head(room[: min(count, HEAD_BYTES)])
        if head is None:
            protocol, _ = self._begin(question)
            return await self._take_any(stream, protocol, bytes(room[:count]), question.room)
        if question.room is None:
            return Download(stream, head.status, head.headers, bytes(room[head.end : count]), self._peer)
        return Download(stream, head.status, head.headers, room[head.end : count], self._peer, room[head.end :])

    async def _take_any(
        self, stream: Stream, protocol: h11.Connection, first: bytes, room: memoryview | None = None
    ) -> Download:
        """Take the head of any answer, of which some is here."""
        protocol.receive_data(first)
        response = await self._receive_head(stream, protocol)
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in response.headers}
        body = protocol.trailing_data[0]
        if room is None:
            return Download(stream, response.status_code, headers, body, self._peer)
        room[: len(body)] = body
        return Download(stream, response.status_code, headers, room[: len(body)], self._peer, room)

    def _write_plain(self, question: Question) -> bytes | None:
        if question.method == "GET":
            return write_get(question.path, question.host or self._host, question.headers)
        if question.method != "POST":
            return None
        return write_request(question.path, self._host, question.headers, question.body)

    def _begin(self, question: Question) -> tuple[h11.Connection, bytes]:
        """Give a protocol that has sent the question, and what it sent."""
        protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
        headers = [("host", question.host or self._host), *question.headers]
        if question.method == "POST":
            headers.append(("content-length", str(len(question.body))))
        request = h11.Request(method=question.method, target=question.path, headers=headers)
        body = protocol.send(request), protocol.send(h11.Data(question.body)), protocol.send(h11.EndOfMessage())
        return protocol, b"".join(part for part in body if part)

    async def _receive_head(self, stream: Stream, protocol: h11.Connection) -> h11.Response:
        interim = 0
        while interim <= MAX_INTERIM:
            try:
                event = protocol.next_event()
            except h11.RemoteProtocolError as error:
                message = f"{self._peer} answered with something that is no HTTP"
                raise MalformedMessageError(message) from error
            if isinstance(event, h11.Response):
                return event
            if event is h11.NEED_DATA:
                protocol.receive_data(await self._receive(stream, has_begun=True))
            else:
                interim += 1
        message = f"{self._peer} says again and again that it is about to answer"
        raise MalformedMessageError(message)

    async def _receive(self, stream: Stream, *, has_begun: bool) -> bytes:
        """Receive some bytes, never none."""
        count = await self._receive_into(stream, self._buffer, has_begun=has_begun)
        octets = bytes(self._buffer[:count])
        self._buffer[:count] = _ZEROS[:count]
        return octets

    async def _receive_into(
        self, stream: Stream, buffer: memoryview, hoped: int = 1, *, has_begun: bool = False
    ) -> int:
        """Receive at least one byte; for a moment it waits for as many as are hoped for."""
        count = 0
        cause: OSError | None = None
        try:
            with trio.move_on_after(ONE_PIECE_SECONDS) if hoped > 1 else contextlib.nullcontext():
                count = await stream.receive_into(buffer, hoped)
            if not count and hoped > 1:
                count = await stream.receive_into(buffer)
        except ssl.SSLError as error:
            if not isinstance(error, ssl.SSLEOFError):
                raise refusal(self._peer, error) from error
            cause = error
        except OSError as error:  # reset, or given up by the kernel
            cause = error
        if count:
            return count
        if not has_begun:
            raise NoAnswerError from cause
        message = f"{self._peer} closed the connection in the middle of an answer"
        raise PeerUnreachableError(message) from cause


def refusal(peer: Address, error: OSError) -> MdmfsError:
    """Tell what a failed handshake or first read means; in TLS 1.3 a refusal arrives with either."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return PeerUnreachableError(f"{peer} shows a certificate that is not accepted: {error.verify_message}")
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    if "ALERT" in reason and "EXPIRED" in reason:
        return CredentialExpiredError(f"{peer} says that the certificate or proxy has expired")
    if "ALERT" in reason and any(word in reason for word in _REFUSALS):
        return CredentialRefusedError(f"{peer} does not accept this certificate, or wants one: {reason}")
    return PeerUnreachableError(f"{peer} broke the connection off{': ' if reason else ''}{reason}")
