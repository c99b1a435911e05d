"""The server of the wire: it listens, shakes hands, and finds out who calls before a byte of HTTP is read.

Mutual TLS 1.3, one task for each connection. Who has no certificate of our CAs gets nothing. Everyone else is a
``Principal`` on every request. An answer that cannot be finished ends in a reset: what is cut never looks whole.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

import trio
from prometheus_client import Counter, Gauge

from mdmfs.daemon.outline import outline
from mdmfs.model.errors import BusyError, ConfigurationError, CredentialRefusedError
from mdmfs.model.finding import Severity
from mdmfs.pki.health import examine_credential
from mdmfs.pki.tls import ServerContexts, verified_chain
from mdmfs.wire.allowances import Allowances, Limits
from mdmfs.wire.caller import Caller, Stranger
from mdmfs.wire.conversation import Conversation, Terms
from mdmfs.wire.listening import accept, listen
from mdmfs.wire.newcomers import Newcomers, has_hung_up
from mdmfs.wire.relay import come_from
from mdmfs.wire.service import Answer, Reply, Request, Respond, Service, StreamReply
from mdmfs.wire.stream import Address, TlsStream

__all__ = ["Address", "Answer", "Limits", "Reply", "Request", "Respond", "Service", "StreamReply", "serve"]

log = logging.getLogger(__name__)

CONNECTIONS: Final = Gauge("mdmfs_connections", "Connections of peers who are let in.")
REFUSALS: Final = Counter("mdmfs_refused_connections", "Connections of peers who are not let in.")
_QUIET_SECONDS: Final = 60.0
_MAX_NOTED: Final = 1000


async def serve(  # noqa: PLR0913 what a server is made of
    service: Service,
    contexts: ServerContexts,
    address: Address,
    *,
    limits: Limits | None = None,
    relay_key: bytes = b"",
    clock: Callable[[], float] = time.time,
    task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; ``started`` gives the address with the port that was bound (0 asks for a free one).

    ``contexts`` gives the TLS context for each handshake and judges who comes. When its files change, everyone who is
    connected is judged again, and is cut off, even in the middle of an answer, if he would no longer be let in.
    ``clock`` tells the seconds since the epoch. With a ``relay_key`` a relay that has it is believed about who comes
    through it. Raises ``ConfigurationError`` when the address cannot be listened on.
    """
    server = _Server(service, contexts, limits or Limits(), relay_key, clock)
    listening = await listen(address)
    with listening:
        bound = Address(address.host, listening.getsockname()[1])
        log.info("%s: listening on %s", service.name, bound)
        for finding in examine_credential(service.name, contexts.credential, clock()):
            if finding.severity is Severity.FAULT:
                log.warning("%s: nobody will speak with us: %s", service.name, finding.text)
        task_status.started(bound)
        await server.accept_from(listening)


class _Server:
    def __init__(
        self,
        service: Service,
        contexts: ServerContexts,
        limits: Limits,
        relay_key: bytes,
        clock: Callable[[], float],
    ) -> None:
        self._service = service
        self._contexts = contexts
        self._limits = limits
        self._relay_key = relay_key
        self._clock = clock
        self._slots = trio.Semaphore(limits.connections)
        self._farewells: dict[trio.CancelScope, None] = {}
        """Of who is just told that there is no place for him, in the order in which they came."""
        self._allowances = Allowances(limits)
        self._newcomers = Newcomers(limits.newcomers, limits.newcomers_of_a_host, limits.handshakes_of_a_host)
        self._terms = Terms(service, limits, self._allowances)
        self._noted: dict[str, float] = {}
        self._inside: dict[trio.CancelScope, tuple[Address, Caller]] = {}

    async def accept_from(self, listening: trio.socket.SocketType) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_files)
            while True:
                connected, peer = await accept(listening)
                if not self._newcomers.has_room_for(peer.host):
                    connected.close()
                    self._note_refusal(peer, "too many of its connections wait to shake hands")
                    continue
                self._newcomers.come(peer.host)
                nursery.start_soon(self._converse, connected, peer)

    async def _converse(self, connected: socket.socket, peer: Address) -> None:
        host, known = peer.host, None
        try:
            try:
                peer = await self._from_where(connected, peer)
                if peer.host != host:  # whom a relay names has a row of his own
                    self._newcomers.come(peer.host)
                    self._newcomers.leave(host)
                    host = peer.host
                async with self._newcomers.turn(host):
                    known = None if has_hung_up(connected) else await self._meet(connected, peer)
            except OSError as error:
                self._note_refusal(peer, str(error) or type(error).__name__)
            finally:
                connected.close()
                self._newcomers.leave(host)
            if known is not None:
                await self._talk(*known, peer)
        except Exception as error:  # noqa: BLE001 the service loop: one connection must not end the others
            log.error("%s: the connection of %s failed: %s", self._service.name, peer, outline(error))  # noqa: TRY400

    async def _talk(self, stream: TlsStream, caller: Caller | Stranger, peer: Address) -> None:
        """Answer a peer who is let in; the places are for those alone."""
        if isinstance(caller, Stranger):
            await self._turn_away(stream, caller, peer)
            return
        dn = caller.dn
        if not self._allowances.enter(dn):
            await self._turn_away(stream, Stranger(BusyError(f"{dn} has as many connections as one may have")), peer)
            return
        with trio.CancelScope() as scope, CONNECTIONS.track_inprogress():
            self._inside[scope] = peer, caller
            try:
                async with self._slots:
                    await Conversation(stream, peer, caller, self._terms).run()
            finally:
                del self._inside[scope]
                stream.abort()
                self._allowances.leave(dn)

    async def _turn_away(self, stream: TlsStream, stranger: Stranger, peer: Address) -> None:
        """Tell somebody why there is no place for him: without a word he would take his certificate for refused."""
        self._note_refusal(peer, str(stranger.reason))
        if len(self._farewells) >= self._limits.farewells:  # who asks at once has been told long since
            first = next(iter(self._farewells))
            del self._farewells[first]
            first.cancel()
        with trio.move_on_after(self._limits.head_seconds) as scope:
            self._farewells[scope] = None
            try:
                await Conversation(stream, peer, stranger, self._terms).run()
            finally:
                self._farewells.pop(scope, None)
                stream.abort()

    async def _from_where(self, connected: socket.socket, peer: Address) -> Address:
        """Find out for whom a relay speaks, where one does; raises ``ConnectionError``."""
        if not self._relay_key:
            return peer
        with trio.move_on_after(self._limits.handshake_seconds):
            told = await come_from(connected, peer, self._relay_key)
            if told.host == peer.host or self._newcomers.has_room_for(told.host):
                return told
            message = "too many of its connections wait to shake hands"
            raise ConnectionRefusedError(message)
        message = "it took too long to say anything"
        raise ConnectionAbortedError(message)

    async def _meet(self, connected: socket.socket, peer: Address) -> tuple[TlsStream, Caller | Stranger] | None:
        """Shake hands and find out who it is; None when there is no way to talk to the peer."""
        reason = "the handshake took too long"
        with trio.move_on_after(self._limits.handshake_seconds):
            try:
                return await TlsStream.accept(connected, self._contexts, self._recognise)
            except ConfigurationError as error:
                log.error("%s: no connection can be accepted: %s", self._service.name, error)  # noqa: TRY400
                return None
            except OSError as error:
                reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or type(error).__name__
        self._note_refusal(peer, reason)
        return None

    def _recognise(self, stream: TlsStream) -> Caller | Stranger:
        """Judge the chain; one that our CAs made but that proves no principal is told so, in answer to its request."""
        try:
            return Caller(verified_chain(stream.tls), self._contexts.judge, self._clock)
        except CredentialRefusedError as error:
            return Stranger(error)

    async def _watch_files(self) -> None:
        """Have the files of trust looked at now and then, and judge everyone again when they have changed.

        A thread does nothing else, and wakes the loop only then: to find one for each look woke it twice.
        """
        ended = threading.Event()
        try:
            await trio.to_thread.run_sync(self._look_on, ended, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))
        finally:
            ended.set()

    def _look_on(self, ended: threading.Event) -> None:
        judge = self._contexts.judge
        generation, is_broken = judge.generation, False
        while not ended.wait(self._limits.look_seconds):
            try:
                judge.look()
            except ConfigurationError as error:
                if not is_broken:
                    log.error("%s: who is inside stays, until this can be read: %s", self._service.name, error)  # noqa: TRY400
                is_broken = True
                continue
            is_broken = False
            if judge.generation != generation:
                generation = judge.generation
                trio.from_thread.run(self._judge_everyone_again)

    async def _judge_everyone_again(self) -> None:
        for scope, (peer, caller) in list(self._inside.items()):
            try:
                await caller.judge_again()
            except CredentialRefusedError as error:
                log.warning("%s: %s is cut off: %s", self._service.name, peer, error)
                scope.cancel()

    def _note_refusal(self, peer: Address, reason: str) -> None:
        """Log a refused peer, each host once a minute: whoever knocks all night must not fill the disk."""
        REFUSALS.inc()
        now = trio.current_time()
        if now < self._noted.get(peer.host, -_QUIET_SECONDS) + _QUIET_SECONDS:
            return
        if len(self._noted) >= _MAX_NOTED:
            self._noted.clear()
        self._noted[peer.host] = now
        log.info("%s: %s was refused: %s", self._service.name, peer, reason)
