"""A socket with an association on it, on trio: sends and receives with a limit on silence, in the clear or over TLS."""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
from typing import Final

import trio

from mdmfs.hospital.dicom.association import Event, UpperLayer
from mdmfs.model.errors import MdmfsError, PacsUnreachableError, RecallFailedError, RecallTimedOutError

MIN_PROGRESS_BYTES: Final = 64 * 2**10
_ROOM_BYTES: Final = 2**20
"""What the kernel receives while we do something else: an image or two."""
_MOST_AT_ONCE: Final = 2**18
"""Bytes handed to TLS in one call: it encrypts them on the event loop."""
_LOST: Final = (OSError, trio.ClosedResourceError)
"""What a socket raises that broke, or that its owner closed meanwhile."""


class Link:
    """One end of an association, owned by one task at a time; whoever made it aborts it in the end."""

    def __init__(self, connected: socket.socket, association: UpperLayer, peer: str) -> None:
        """Take over a connected socket that does not block; with TLS on it, the handshake is done."""
        self._socket: Final = connected
        _make_room(connected)
        self._association: Final = association
        self._peer = peer
        self._patience = math.inf  # seconds without progress that are allowed
        self._waited = 0.0  # since the last progress
        self._gained = 0  # bytes since the last progress
        self._is_closed = False
        self._waits_to_write = False  # what the last call waits for that could do nothing; TLS may ask for either
        self.has_timed_out = False
        """Whether the peer has ever kept us waiting too long."""

    def wait_at_most(self, patience: float) -> None:
        """Allow so many seconds without progress from now on."""
        self._patience = patience
        self.progressed()

    async def reply(self, context_id: int, command: bytes) -> None:
        """Send a response of ours."""
        await self.send(self._association.message(context_id, command))

    async def send(self, encoded: bytes) -> None:
        """Send all bytes. Raises ``RecallTimedOutError`` if the peer takes them no faster than it may answer."""
        rest = memoryview(encoded)
        start = trio.current_time()
        try:
            rest = self._not_given(rest)
            if not rest:
                return  # mostly: a response is short
            with trio.move_on_at(start + self._patience - self._waited):
                while rest:
                    await self._ready()
                    rest = self._not_given(rest)
                return
        except _LOST as error:
            raise self._failure(self._association.failure(f"the connection broke ({reason_of(error)})")) from error
        finally:
            self._waited += trio.current_time() - start
        raise self._timed_out()

    async def next_event(self) -> Event:
        """Wait as ``next_said``, where nothing but a message may come."""
        return await self.next_said()

    async def next_said(self) -> Event:
        """Wait for what the peer says next, ``Released`` among it.

        Raises ``RecallTimedOutError`` when the peer makes no progress, and ``RecallFailedError`` (while negotiating
        ``PacsUnreachableError``) when it breaks the protocol, aborts the association or loses the connection.
        """
        start = trio.current_time()
        try:
            while (event := self._association.next_event()) is None:
                await self._receive(start + self._patience - self._waited)
        except _LOST as error:
            raise self._failure(self._association.failure(f"the connection broke ({reason_of(error)})")) from error
        except (RecallFailedError, PacsUnreachableError) as error:
            raise self._failure(error) from error
        finally:
            self._waited += trio.current_time() - start
        return event

    async def _receive(self, deadline: float) -> None:
        """Take in what has come, or wait for it; at the deadline, even for who says something all the time, no more."""
        await trio.lowlevel.checkpoint()
        count = self._taken() if trio.current_time() < deadline else None
        if count is None:
            count = await self._awaited(deadline)
        if not count:
            failure = self._association.failure("it closed the connection")
            raise failure
        # Linux forgets this option whenever it likes. Without it, the PACS holds back the last segment of a data set
        # (Nagle) until our delayed acknowledgement comes, 40 ms later.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self._association.received(count)
        self._association.received(self._taken_since())

    def _taken(self) -> int | None:
        """Take in what is there; None where that is nothing."""
        try:
            return self._socket.recv_into(self._association.space())
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            self._waits_to_write = isinstance(error, ssl.SSLWantWriteError)
            return None

    def _taken_since(self) -> int:
        """Take in what an acknowledgement has let come at once: of a PACS nearby the last segment of an image.

        So the image is one fragment, and costs the loop one pass. Who waits for more meets what went wrong.
        """
        with contextlib.suppress(OSError):
            return self._taken() or 0
        return 0

    def _not_given(self, octets: memoryview) -> memoryview:
        """Send what can be sent now, and give what is left."""
        self._waits_to_write = True  # for what is left of a part
        try:
            return octets[self._socket.send(octets[:_MOST_AT_ONCE]) :]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            self._waits_to_write = not isinstance(error, ssl.SSLWantReadError)
            return octets

    async def _ready(self) -> None:
        """Wait for what the last call that could do nothing waits for."""
        wait = trio.lowlevel.wait_writable if self._waits_to_write else trio.lowlevel.wait_readable
        await wait(self._socket)

    async def _awaited(self, deadline: float) -> int:
        """Wait until something can be taken in; to watch the time costs as much as to take it in."""
        with trio.move_on_at(deadline):
            while True:
                await self._ready()
                if (count := self._taken()) is not None:
                    return count
        raise self._timed_out()

    def gained(self, count: int) -> None:
        """Count bytes of a data set; ``MIN_PROGRESS_BYTES`` of them are progress."""
        self._gained += count
        if self._gained >= MIN_PROGRESS_BYTES:
            self.progressed()

    def progressed(self) -> None:
        """Begin anew to measure how long we wait."""
        self._waited, self._gained = 0.0, 0

    def abort(self) -> None:
        """End it at once, without waiting; harmless when it has ended."""
        if self._is_closed:
            return
        self._is_closed = True
        if last_words := self._association.abort():
            with contextlib.suppress(OSError):
                self._socket.send(last_words)
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    def _failure(self, error: MdmfsError) -> MdmfsError:
        """Name the peer in an error."""
        return type(error)(f"{self._peer}: {error}")

    def _timed_out(self) -> RecallTimedOutError:
        self.has_timed_out = True
        return RecallTimedOutError(f"{self._peer}: no progress within {self._patience:g} s")


def _make_room(connected: socket.socket) -> None:
    """Let the PACS send on while an image is worked on, instead of waking us for every 64 KiB.

    What a socket wants before it is readable, it gets as room (Linux, ``tcp_set_rcvlowat``), and keeps; that sets no
    bound, as SO_RCVBUF would.
    """
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, _ROOM_BYTES)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


def reason_of(error: Exception) -> str:
    """Say what the system said; trio hides it one level down where it tried several addresses."""
    cause = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (cause.strerror if isinstance(cause, OSError) else None) or "it is closed"
