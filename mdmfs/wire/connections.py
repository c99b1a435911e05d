"""The connections to one peer: made for one credential, kept while they are used, and the peer recognised on each."""

from __future__ import annotations

import dataclasses
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Final

import trio

from mdmfs.model.errors import (
    ConfigurationError,
    CredentialExpiredError,
    CredentialRefusedError,
    PeerUnreachableError,
)
from mdmfs.model.identity import Dn, Principal
from mdmfs.pki.tls import verified_chain
from mdmfs.wire.connecting import Places
from mdmfs.wire.exchange import refusal
from mdmfs.wire.stream import HANDSHAKES, Address, PlainStream, Stream, TlsStream

IDLE_SECONDS: Final = 45.0
"""Less than the server's, so that it is seldom the server who ends a connection."""


@dataclasses.dataclass(slots=True, eq=False)
class Connection:
    """One to a peer that was recognised."""

    stream: Stream
    not_after: float
    """When the peer's certificate ends, in seconds since the epoch."""
    idle_since: float
    is_new: bool = True
    """Whether nothing was asked over it: the peer may have sent tickets of its session (RFC 8446 section 4.6.1)."""

    def is_usable(self) -> bool:
        """Ask whether an idle connection can serve again; a byte that nobody asked for ends it."""
        is_young = trio.current_time() < self.idle_since + IDLE_SECONDS and time.time() < self.not_after
        return is_young and (self.is_new or not self.stream.is_readable())


class Connections:
    """Those to one peer, in use or idle."""

    def __init__(
        self,
        address: Address,
        context: ssl.SSLContext | Callable[[], ssl.SSLContext] | None,
        expected: Dn | None,
        judge: Callable[[Sequence[bytes]], Principal],
    ) -> None:
        """See ``Client``."""
        self._address = address
        self._context = context
        self._expected = expected
        self._judge = judge
        self._places = Places(address)
        self._idle: list[Connection] = []
        self.open = 0
        """How many there are, in use or not."""
        self.closed = trio.Event()

    def take_idle(self) -> Connection | None:
        """Give an idle one that can serve again; None where there is none."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable():
                return connection
            self.open -= 1
            connection.stream.close()
        return None

    def put_back(self, connection: Connection, *, is_reusable: bool) -> None:
        """End the use of one, which is kept or ended."""
        if is_reusable and not self.closed.is_set():
            connection.idle_since = trio.current_time()
            self._idle.append(connection)
        else:
            self.abort(connection)

    def abort(self, connection: Connection) -> None:
        """End one at once, whatever is on its way."""
        self.open -= 1
        connection.stream.abort()

    def close(self) -> None:
        """Close the idle ones now, and those in use when they are put back."""
        self.closed.set()
        while self._idle:
            self._idle.pop().stream.close()

    async def connect(self) -> Connection:
        """Make a new one; raises ``PeerUnreachableError`` and ``CredentialRefusedError``."""
        connection = await self._connected()
        self.open += 1
        return connection

    async def _connected(self) -> Connection:
        if self.closed.is_set():
            message = f"the client of {self._address} has been closed"
            raise PeerUnreachableError(message)
        context = self._context
        if context is not None and not isinstance(context, ssl.SSLContext):
            try:
                context = await trio.to_thread.run_sync(context, limiter=HANDSHAKES)
            except ConfigurationError as error:
                message = f"{self._address} cannot be asked: {error}"
                raise PeerUnreachableError(message) from error
        connected = await self._places.connect()
        if context is None:
            return Connection(PlainStream(connected), float("inf"), trio.current_time())
        try:
            stream = await TlsStream.handshake(connected, context, self._address.host)
        except OSError as error:
            raise refusal(self._address, error) from error
        try:
            not_after = await trio.to_thread.run_sync(self._recognise, stream, limiter=HANDSHAKES)
        except BaseException:
            stream.abort()
            raise
        return Connection(stream, not_after, trio.current_time())

    def _recognise(self, stream: TlsStream) -> float:
        """Make sure that the peer is who it must be, whatever its host name."""
        try:
            peer = self._judge(verified_chain(stream.tls))
        except (CredentialRefusedError, CredentialExpiredError) as error:
            message = f"{self._address} shows a certificate that is not accepted: {error}"
            raise PeerUnreachableError(message) from error
        if self._expected is not None and peer.dn != self._expected:
            message = f"{self._address} is {peer.dn}, not {self._expected}: check the address, or who listens there"
            raise PeerUnreachableError(message)
        return peer.not_after
