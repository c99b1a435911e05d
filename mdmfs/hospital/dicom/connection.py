"""One association that we asked for: opened, spoken over one request at a time, and closed in every case."""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Final

import trio

from mdmfs.hospital.dicom.association import Association, Event, Released
from mdmfs.hospital.dicom.commands import CommandField, encode_request
from mdmfs.hospital.dicom.link import Link, reason_of
from mdmfs.hospital.dicom.negotiation import Accepted, Offer, propose
from mdmfs.hospital.dicom.pacs import PacsAddress, Politeness
from mdmfs.hospital.dicom.security import DicomTls, shake_hands
from mdmfs.model.errors import MdmfsError, PacsUnreachableError, RecallFailedError
from mdmfs.wire.silence import notice_silence

RELEASE_SECONDS: Final = 1.0
_MAX_MESSAGE_ID: Final = 65_535


class StaleAssociationError(RecallFailedError):
    """A kept association had ended before the PACS took up our request: the same request on a new one may well do."""


class Connection(Link):
    """An established association, owned by one task at a time; ``open_connection`` makes it."""

    def __init__(self, connected: socket.socket, association: Association, address: PacsAddress, offer: Offer) -> None:
        super().__init__(connected, association, str(address))
        self._request: Final = association.request
        self._calling_ae_title: Final = address.calling_ae_title
        self.offer: Final = offer
        """The storage contexts that were proposed."""
        self.accepted = Accepted({}, 0)
        """The contexts that were accepted, services included."""
        self.is_idle = False
        """Whether the peer owes us nothing: only then may somebody else use the association."""
        self._message_id = 0
        self._was_kept = False  # for a while, and not heard of since

    async def negotiate(self, politeness: Politeness) -> None:
        """Ask for the association; raises ``PacsUnreachableError``. Whoever calls bounds the time."""
        await self.send(self._request)
        event = await self.next_event()
        if not isinstance(event, Accepted):
            message = f"{self._peer}: it answered the association request with something else"
            raise PacsUnreachableError(message)
        self.accepted, self.is_idle = event, True
        self._patience = politeness.progress_timeout

    async def request(self, field: CommandField, service: str, data_set: bytes | None = None) -> int:
        """Send a request of ours; returns its message ID. Raises ``RecallFailedError`` if the service was refused."""
        self._message_id = self._message_id % _MAX_MESSAGE_ID + 1
        await self._ask(field, service, self._message_id, data_set)
        return self._message_id

    async def request_move(self, service: str, data_set: bytes, message_id: int, destination: str) -> None:
        """Send a C-MOVE request whose instances come to an AE title under this message ID; raises as ``request``."""
        await self._ask(CommandField.MOVE_RQ, service, message_id, data_set, destination)

    async def _ask(
        self, field: CommandField, service: str, message_id: int, data_set: bytes | None, destination: str = ""
    ) -> None:
        context_id = self.accepted.context_id(service)
        if context_id is None:
            name = field.name.removesuffix("_RQ")
            message = f"{self._peer}: it does not offer C-{name} to the AE title {self._calling_ae_title}"
            raise RecallFailedError(message)
        has_data_set = data_set is not None
        command = encode_request(field, message_id, service, has_data_set=has_data_set, destination=destination)
        self.is_idle = False
        self.progressed()
        await self.send(self._association.message(context_id, command, data_set))

    async def next_event(self) -> Event:
        """Wait for what the peer says next, as ``next_said``, but not for ``Released``, which is a failure here."""
        event = await self.next_said()
        self._was_kept = False
        if not isinstance(event, Released):
            return event
        await self.send(event.reply)
        raise self._failure(self._association.failure("it released the association in the middle of a request"))

    def finished(self) -> None:
        """Say that the final response to our request has come."""
        self.is_idle = True

    def keep(self) -> None:
        """Set it aside; from now on the peer may end it without our seeing that at once."""
        self._was_kept = True

    def has_ended(self) -> bool:
        """Tell whether the peer has closed a kept association, or said anything: it should be silent."""
        if self._is_closed or (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()):
            return True
        try:
            socket.socket.recv(self._socket, 1, socket.MSG_PEEK)  # below TLS, which cannot peek
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    async def release(self) -> None:
        """End it in order, within ``RELEASE_SECONDS``; never raises for what the peer does."""
        try:
            with trio.move_on_after(RELEASE_SECONDS), contextlib.suppress(MdmfsError):
                await self.send(self._association.release())
                while True:  # until the reply: next_event raises where the association ends
                    await self.next_event()
        finally:
            self.abort()

    def abort(self) -> None:
        """End it at once, without waiting; harmless when it has ended."""
        self.is_idle = False
        super().abort()

    def _failure(self, error: MdmfsError) -> MdmfsError:
        """Name the peer in an error, and mark those that a new association may not meet."""
        named = super()._failure(error)
        return StaleAssociationError(str(named)) if self._was_kept and isinstance(error, RecallFailedError) else named


async def open_connection(
    address: PacsAddress, offer: Offer, politeness: Politeness, tls: DicomTls | None = None
) -> Connection:
    """Connect and negotiate, over TLS where it is given; raises ``PacsUnreachableError``."""
    association = Association(address, propose(offer))
    with trio.move_on_after(politeness.connect_timeout):
        connected = await _connect(address, tls)
        connection = Connection(connected, association, address, offer)
        try:
            await connection.negotiate(politeness)
        except BaseException:
            connection.abort()
            raise
        return connection
    message = f"{address}: no association within {politeness.connect_timeout:g} s"
    raise PacsUnreachableError(message)


async def _connect(address: PacsAddress, tls: DicomTls | None) -> socket.socket:
    try:
        stream = await trio.open_tcp_stream(address.host, address.port)
    except OSError as error:
        message = f"{address}: no connection ({reason_of(error)}); is the PACS running, are host and port right?"
        raise PacsUnreachableError(message) from error
    plain = socket.socket(fileno=stream.socket.detach())
    plain.setblocking(False)  # noqa: FBT003 - the standard library's signature
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    notice_silence(plain)
    if tls is None:
        return plain
    try:
        return await shake_hands(plain, tls.client(), address.host)
    except OSError as error:
        message = f"{address}: no TLS ({reason_of(error)}); does it speak TLS there, do both sides know the other's CA?"
        raise PacsUnreachableError(message) from error
