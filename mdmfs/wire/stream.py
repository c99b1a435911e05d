"""TLS over a socket under trio, for both ends of the wire: bytes go straight between socket and buffer.

A connection is used by one task at a time. After a cancelled or failed call it can only be closed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from typing import Final, Protocol, Self, TypeVar, cast

import trio

from mdmfs.model.errors import ConfigurationError

SEND_BYTES: Final = 256 * 2**10
"""One write: larger ones gain nothing, smaller ones cost a system call and a wake-up each."""
_LAST_RECORD: Final = 4096
"""A shorter one ends what was said: behind a message there is no other before it is answered."""
_RECORDS: Final = 17 * 2**10
"""OpenSSL may have taken so much of what is hoped for from the socket already: a record that is not here whole."""
DRAIN_BYTES: Final = 64 * 2**10
DRAIN_SECONDS: Final = 1.0
MAX_PORT: Final = 65535
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

T = TypeVar("T")

HANDSHAKES: Final = trio.CapacityLimiter(1)
"""Public-key arithmetic and the judge hold processor and interpreter: a second thread would only delay the requests."""


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """Where a peer listens."""

    host: str
    port: int
    others: tuple[Address, ...] = ()
    """Where the same peer may be, too."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``HOST:PORT`` or ``[IPV6]:PORT``; raises ``ConfigurationError``."""
        host, colon, port = text.rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not colon or not host or not port.isascii() or not port.isdecimal() or int(port) > MAX_PORT:
            message = f"an address is written HOST:PORT, not {text!r}"
            raise ConfigurationError(message)
        return cls(host, int(port))

    @classmethod
    def parse_all(cls, text: str) -> Self:
        """Read one with its others, with commas between them; raises ``ConfigurationError``."""
        first, *others = [cls.parse(one.strip()) for one in text.split(",")]
        return dataclasses.replace(first, others=tuple(others))

    @classmethod
    def parse_loopback(cls, text: str) -> Self | None:
        """Read one that only this machine reaches, None where there is none; raises ``ConfigurationError``."""
        if not text:
            return None
        address = cls.parse(text)
        try:
            is_loopback = ipaddress.ip_address(address.host).is_loopback
        except ValueError:
            is_loopback = False
        if not is_loopback:
            message = f"a loopback address such as 127.0.0.1:9464, not {text}: nobody is asked there who he is"
            raise ConfigurationError(message)
        return address

    def __str__(self) -> str:
        """Write ``HOST:PORT``, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Stream(Protocol):
    """What a client speaks over, used by one task at a time."""

    async def receive_into(self, buffer: memoryview, hoped: int = 1) -> int:
        """Wait for bytes and take as many as are there and fit; 0 at the peer's end.

        It may wait until as many as are hoped for are there, which spares the loop some turns.
        """

    async def send_all(self, octets: bytes | bytearray | memoryview) -> None:
        """Send everything."""

    def send_at_once(self, octets: bytes | bytearray | memoryview) -> bool:
        """Send all without waiting; False where that cannot be: then ``send_all`` must be given the very same bytes."""

    def is_readable(self) -> bool:
        """Ask whether something has arrived."""

    def close(self) -> None:
        """End in order."""

    def abort(self) -> None:
        """End so that the peer sees an error."""


class Waking:
    """From how many bytes on the kernel tells that a socket is readable (socket(7), SO_RCVLOWAT)."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._count = 1

    def at(self, count: int) -> None:
        """Have the socket be readable when so many bytes are there, or no more come."""
        count = max(count, 1)
        if count != self._count:
            self._count = count
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)


class PlainStream:
    """A connected socket without TLS, for what needs none: sealed objects, from a cache or by a URL that lets in."""

    def __init__(self, connected: socket.socket) -> None:
        """Take over a socket."""
        connected.settimeout(0)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self._waking = Waking(connected)

    async def receive_into(self, buffer: memoryview, hoped: int = 1) -> int:
        """Wait for bytes and take as many as are there and fit; 0 when the peer has ended. See ``TlsStream``."""
        self._waking.at(hoped)
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            with contextlib.suppress(BlockingIOError):
                return self._socket.recv_into(buffer)

    async def send_all(self, octets: bytes | bytearray | memoryview) -> None:
        """Send everything; with a slow peer this waits."""
        view = memoryview(octets).cast("B")
        while view:
            await trio.lowlevel.wait_writable(self._socket)
            view = view[self._socket.send(view) :]

    def send_at_once(self, octets: bytes | bytearray | memoryview) -> bool:
        """Leave it to ``send_all``: a part may be sent."""
        del octets
        return False

    def is_readable(self) -> bool:
        """Ask whether something has arrived; on an idle connection that is its end, or a breach of protocol."""
        return _has_arrived(self._socket)

    def close(self) -> None:
        """Close."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    abort = close


class TlsStream:
    """A connected socket with TLS on it. ``close`` ends it in order, ``abort`` so that the peer sees an error."""

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self.tls = tls
        self._failure: OSError | None = None
        self._waking = Waking(tls)
        opened = tls._sslobj  # type: ignore[attr-defined] # noqa: SLF001 None where the peer has gone already
        self._read_into = cast("Callable[[int, memoryview], int]", tls.read if opened is None else opened.read)
        """``recv_into``, which is this with a second look at everything, once for each record of 16 KiB."""

    @classmethod
    async def handshake(cls, connected: socket.socket, context: ssl.SSLContext, host: str) -> Self:
        """Shake hands over a connected socket as the client of ``host``.

        The socket is taken over: on any error and on cancellation it is closed. Raises ``ssl.SSLError`` or ``OSError``.
        The arithmetic runs in threads, which never wait for the peer.
        """
        with _closed_on_failure(connected):
            tls = _wrap(connected, context, host)
        with _closed_on_failure(tls):
            stream = cls(tls)
            await stream._shake_hands(tls.do_handshake)
        return stream

    @classmethod
    async def accept(
        cls, connected: socket.socket, contexts: Callable[[], ssl.SSLContext], recognise: Callable[[Self], T]
    ) -> tuple[Self, T]:
        """Shake hands as the server, and give what ``recognise`` makes of the peer; both calls run in threads.

        As ``handshake``; besides, raises what the two raise. A thread is asked twice, once for each flight of the peer:
        where a thousand come at once, each change of threads would cost as much as the arithmetic.
        """
        with _closed_on_failure(connected):
            await trio.lowlevel.wait_readable(connected)
            stream = await trio.to_thread.run_sync(cls._begin, connected, contexts, limiter=HANDSHAKES)
        with _closed_on_failure(stream.tls):
            return stream, await stream._finish(recognise)  # noqa: SLF001 our own

    async def _finish(self, recognise: Callable[[Self], T]) -> T:
        def finish() -> T:
            if self._failure is not None:
                raise self._failure
            self.tls.do_handshake()
            return recognise(self)

        if self._failure is None and self.tls.version() is None:  # else the second flight came as soon, and was read
            await trio.lowlevel.wait_readable(self.tls)
        return await self._shake_hands(finish)

    @classmethod
    def _begin(cls, connected: socket.socket, contexts: Callable[[], ssl.SSLContext]) -> Self:
        """Take the first flight, and answer it; what is wrong with it the next turn tells."""
        stream = cls(_wrap(connected, contexts(), host=None))
        try:
            stream.tls.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            stream._failure = error
        return stream

    async def _shake_hands(self, finish: Callable[[], T]) -> T:
        while True:
            try:
                return await trio.to_thread.run_sync(finish, limiter=HANDSHAKES)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self.tls)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self.tls)
            except ssl.SSLError:
                await self._linger()
                raise

    async def receive_into(self, buffer: memoryview, hoped: int = 1) -> int:
        """Wait for bytes and take as many as are there and fit; 0 when the peer ended the stream in order.

        It waits for about as many as are hoped for, which must be sure to come unless the stream ends; the kernel
        wakes nobody before. Cancelled while it waits, it has taken nothing. A stream cut without TLS's own end raises
        ``ssl.SSLEOFError``. No other task runs between the taking and the return: what many streams take may go
        through one buffer.
        """
        if self._failure is not None or self.tls.pending():
            await trio.lowlevel.checkpoint()
        else:
            # mostly nothing is there yet: a look that finds nothing would cost as much as one that does
            self._waking.at(hoped - _RECORDS)
            await trio.lowlevel.wait_readable(self.tls)
        if self._failure is not None:
            raise self._failure
        while True:
            try:
                count = self._read_into(len(buffer), buffer)
            except ssl.SSLWantReadError:
                self._waking.at(1)
                await trio.lowlevel.wait_readable(self.tls)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self.tls)
            else:
                is_all = hoped <= count < _LAST_RECORD
                return count if is_all else count + self._receive_more(buffer[count:])

    def _receive_more(self, buffer: memoryview) -> int:
        """Take what has arrived already: OpenSSL hands out one record of 16 KiB at a time."""
        total, size = 0, len(buffer)
        while total < size:
            try:
                count = self._read_into(size, buffer[total:])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except OSError as error:
                # The bytes before the failure still count; the next call tells of it.
                self._failure = error
                break
            if not count:
                break
            total += count
        return total

    async def send_all(self, octets: bytes | bytearray | memoryview) -> None:
        """Send everything; with a slow peer this waits."""
        await trio.lowlevel.checkpoint()
        view = memoryview(octets).cast("B")
        for start in range(0, len(view), SEND_BYTES):
            await self._send(view[start : start + SEND_BYTES])

    def send_at_once(self, octets: bytes | bytearray | memoryview) -> bool:
        """Send all without waiting; False where that cannot be: then ``send_all`` must be given the very same bytes.

        It is never more than one write of ``send_all``: OpenSSL goes on with the bytes that it was given first.
        """
        if len(octets) > SEND_BYTES:
            return False
        try:
            self.tls.send(octets)  # all or nothing: nobody asks for partial writes
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        return True

    async def _send(self, view: memoryview) -> None:
        while view:
            try:
                # After a wish to wait OpenSSL must be given the same bytes again.
                view = view[self.tls.send(view) :]
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self.tls)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self.tls)

    def is_readable(self) -> bool:
        """Ask whether something has arrived; on an idle connection that is its end, or a breach of protocol."""
        return self.tls.pending() > 0 or _has_arrived(self.tls)

    def close(self) -> None:
        """End in order, as far as that needs no waiting."""
        with contextlib.suppress(OSError, ValueError):
            self.tls.unwrap()
        self._close()

    async def close_when_heard(self) -> None:
        """End in order towards a peer that may still be sending: what was sent to it last must arrive."""
        with contextlib.suppress(OSError, ValueError):
            self.tls.unwrap()
        await self._linger()

    async def _linger(self) -> None:
        """Read on for a moment: closing over unread bytes resets the connection, and the peer never learns why."""
        with socket.socket(fileno=self.tls.detach()) as plain:
            plain.settimeout(0)
            with contextlib.suppress(OSError), trio.move_on_after(DRAIN_SECONDS):
                plain.shutdown(socket.SHUT_WR)
                await _drain(plain)

    def abort(self) -> None:
        """End so that the peer cannot take it for an end in order: no TLS end, and a reset."""
        with contextlib.suppress(OSError):
            self.tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._close()

    def _close(self) -> None:
        if self.tls.fileno() >= 0:
            trio.lowlevel.notify_closing(self.tls)
        self.tls.close()


def _has_arrived(connected: socket.socket) -> bool:
    """Look whether there is a byte, or the peer's end."""
    try:
        socket.socket.recv(connected, 1, socket.MSG_PEEK)  # a socket with TLS on it lends no bytes
    except BlockingIOError:
        return False
    except OSError:  # it was reset
        return True
    return True


def _wrap(connected: socket.socket, context: ssl.SSLContext, host: str | None) -> ssl.SSLSocket:
    """Put TLS on a socket, as the client of a host or, without one, as the server; nothing is sent yet."""
    connected.settimeout(0)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.getpeername()  # raises where it was reset; the library would, too, and leave a socket of its own open
    return context.wrap_socket(
        connected,
        server_side=host is None,
        server_hostname=host,
        do_handshake_on_connect=False,
        suppress_ragged_eofs=False,
    )


@contextlib.contextmanager
def _closed_on_failure(opened: socket.socket) -> Iterator[None]:
    """Close the socket when the block fails or is cancelled."""
    try:
        yield
    except BaseException:
        opened.close()
        raise


async def _drain(plain: socket.socket) -> None:
    left = DRAIN_BYTES
    while left > 0:
        await trio.lowlevel.wait_readable(plain)
        octets = plain.recv(left)
        if not octets:
            return
        left -= len(octets)
