"""One association over TCP on trio: opened, spoken over with a limit on silence, and closed in every case."""

from __future__ import annotations

import contextlib
import math
import socket
from typing import Final

import trio

from mdmfs.hospital.dicom.association import Association, Event, Released
from mdmfs.hospital.dicom.commands import CommandField, encode_request
from mdmfs.hospital.dicom.negotiation import Accepted, Offer, propose
from mdmfs.hospital.dicom.pacs import PacsAddress, Politeness
from mdmfs.model.errors import MdmfsError, PacsUnreachableError, RecallFailedError, RecallTimedOutError

MIN_PROGRESS_BYTES: Final = 64 * 2**10
RELEASE_SECONDS: Final = 1.0
_MAX_MESSAGE_ID: Final = 65_535


class StaleAssociationError(RecallFailedError):
    """A kept association had ended before the PACS took up our request: the same request on a new one may well do."""


class Connection:
    """An established association, owned by one task at a time; ``open_connection`` makes it."""

    def __init__(self, plain: socket.socket, association: Association, address: PacsAddress, offer: Offer) -> None:
        self._socket = plain
        self._association = association
        self._address = address
        self.offer: Final = offer
        """The storage contexts that were proposed."""
        self.accepted = Accepted({}, 0)
        """The contexts that were accepted, services included."""
        self.is_idle = False
        """Whether the peer owes us nothing: only then may somebody else use the association."""
        self._message_id = 0
        self._patience = math.inf  # seconds without progress that are allowed
        self._waited = 0.0  # since the last progress
        self._gained = 0  # bytes since the last progress
        self._was_kept = False  # for a while, and not heard of since
        self._is_closed = False

    async def negotiate(self, politeness: Politeness) -> None:
        """Ask for the association; raises ``PacsUnreachableError``. Whoever calls bounds the time."""
        await self.send(self._association.request)
        event = await self.next_event()
        if not isinstance(event, Accepted):
            message = f"{self._address}: it answered the association request with something else"
            raise PacsUnreachableError(message)
        self.accepted, self.is_idle = event, True
        self._patience = politeness.progress_timeout

    async def request(self, field: CommandField, service: str, data_set: bytes | None = None) -> int:
        """Send a request of ours; returns its message ID. Raises ``RecallFailedError`` if the service was refused."""
        context_id = self.accepted.context_id(service)
        if context_id is None:
            name = field.name.removesuffix("_RQ")
            message = f"{self._address}: it does not offer C-{name} to the AE title {self._address.calling_ae_title}"
            raise RecallFailedError(message)
        self._message_id = self._message_id % _MAX_MESSAGE_ID + 1
        command = encode_request(field, self._message_id, service, has_data_set=data_set is not None)
        self.is_idle = False
        self.progressed()
        await self.send(self._association.message(context_id, command, data_set))
        return self._message_id

    async def reply(self, context_id: int, command: bytes) -> None:
        """Send a response of ours."""
        await self.send(self._association.message(context_id, command))

    async def send(self, encoded: bytes) -> None:
        """Send all bytes. Raises ``RecallTimedOutError`` if the peer takes them no faster than it may answer."""
        rest = memoryview(encoded)
        start = trio.current_time()
        try:
            with trio.move_on_after(self._patience - self._waited):
                while rest:
                    try:
                        rest = rest[self._socket.send(rest) :]
                    except BlockingIOError:
                        await trio.lowlevel.wait_writable(self._socket)
                return
        except OSError as error:
            raise self._failure(self._association.failure(f"the connection broke ({_reason(error)})")) from error
        finally:
            self._waited += trio.current_time() - start
        raise self._timed_out()

    async def next_event(self) -> Event:
        """Wait for what the peer says next, but not for ``Released``.

        Raises ``RecallTimedOutError`` when the peer makes no progress, and ``RecallFailedError`` (while negotiating
        ``PacsUnreachableError``) when it breaks the protocol, ends the association or loses the connection.
        """
        start = trio.current_time()
        try:
            while (event := self._association.next_event()) is None:
                if not await self._receive(start + self._patience - self._waited):
                    raise self._timed_out()
        except OSError as error:
            raise self._failure(self._association.failure(f"the connection broke ({_reason(error)})")) from error
        except (RecallFailedError, PacsUnreachableError) as error:
            raise self._failure(error) from error
        finally:
            self._waited += trio.current_time() - start
        self._was_kept = False
        if not isinstance(event, Released):
            return event
        await self.send(event.reply)
        raise self._failure(self._association.failure("it released the association in the middle of a request"))

    async def _receive(self, deadline: float) -> bool:
        """Take in what has come, or wait for it; False at the deadline."""
        count = 0
        with trio.CancelScope(deadline=deadline) as scope:
            count = await self._receive_some()
        if scope.cancelled_caught:
            return False
        if not count:
            failure = self._association.failure("it closed the connection")
            raise failure
        # Linux forgets this option whenever it likes. Without it, the PACS holds back the last segment of a data set
        # (Nagle) until our delayed acknowledgement comes, 40 ms later.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self._association.received(count)
        return True

    async def _receive_some(self) -> int:
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return self._socket.recv_into(self._association.space())
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)

    def gained(self, count: int) -> None:
        """Count bytes of a data set; ``MIN_PROGRESS_BYTES`` of them are progress."""
        self._gained += count
        if self._gained >= MIN_PROGRESS_BYTES:
            self.progressed()

    def progressed(self) -> None:
        """Begin anew to measure how long we wait."""
        self._waited, self._gained = 0.0, 0

    def finished(self) -> None:
        """Say that the final response to our request has come."""
        self.is_idle = True

    def keep(self) -> None:
        """Set it aside; from now on the peer may end it without our seeing that at once."""
        self._was_kept = True

    def has_ended(self) -> bool:
        """Tell whether the peer has closed a kept association, or said anything: it should be silent."""
        if self._is_closed:
            return True
        try:
            self._socket.recv(1, socket.MSG_PEEK)
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
        if self._is_closed:
            return
        self._is_closed, self.is_idle = True, False
        with contextlib.suppress(OSError):
            self._socket.send(self._association.abort())
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    def _failure(self, error: MdmfsError) -> MdmfsError:
        """Name the peer in an error, and mark those that a new association may not meet."""
        kind = StaleAssociationError if self._was_kept and isinstance(error, RecallFailedError) else type(error)
        return kind(f"{self._address}: {error}")

    def _timed_out(self) -> RecallTimedOutError:
        return RecallTimedOutError(f"{self._address}: no progress within {self._patience:g} s")


async def open_connection(address: PacsAddress, offer: Offer, politeness: Politeness) -> Connection:
    """Connect and negotiate; raises ``PacsUnreachableError``."""
    association = Association(address, propose(offer))
    with trio.move_on_after(politeness.connect_timeout):
        plain = await _connect(address)
        connection = Connection(plain, association, address, offer)
        try:
            await connection.negotiate(politeness)
        except BaseException:
            connection.abort()
            raise
        return connection
    message = f"{address}: no association within {politeness.connect_timeout:g} s"
    raise PacsUnreachableError(message)


async def _connect(address: PacsAddress) -> socket.socket:
    try:
        stream = await trio.open_tcp_stream(address.host, address.port)
    except OSError as error:
        message = f"{address}: no connection ({_reason(error)}); is the PACS running, are host and port right?"
        raise PacsUnreachableError(message) from error
    plain = socket.socket(fileno=stream.socket.detach())
    plain.setblocking(False)  # noqa: FBT003 - the standard library's signature
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return plain


def _reason(error: OSError) -> str:
    """Say what the system said; trio hides it one level down where it tried several addresses."""
    cause = error.__cause__
    return error.strerror or (cause.strerror if isinstance(cause, OSError) else None) or "all addresses failed"
