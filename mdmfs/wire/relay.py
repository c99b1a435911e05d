"""A relay: passes connections on to the daemon that works, byte by byte; who calls shakes hands with that one.

Before the first record of TLS the relay says from which host it came, proved by a key that both daemons have: audit log
and networks that are let in go by it. It is proved together with that record, so it is of no use before another.

``MDMFS1 HOST DIGEST PROOF`` and a line feed: SHA-256 of the record, and HMAC-SHA256 of ``HOST DIGEST``, both in
hexadecimal digits.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import socket
from collections import Counter
from collections.abc import Callable
from typing import Final

import trio

from mdmfs.wire.listening import accept, listen
from mdmfs.wire.stream import Address

BEGIN: Final = b"MDMFS1 "
MAX_LINE: Final = 210
HEADER_SIZE: Final = 5
MAX_RECORD: Final = HEADER_SIZE + 2**14
"""A ClientHello is one record of plain text (RFC 8446 section 5.1)."""
_HANDSHAKE: Final = b"\x16"
_LINE: Final = re.compile(rb"MDMFS1 ([0-9a-zA-Z.:%_-]{1,64}) ([0-9a-f]{64}) ([0-9a-f]{64})\n")
PIECE: Final = 64 * 2**10
FIRST_SECONDS: Final = 10.0
STALL_SECONDS: Final = 75.0
"""For either end to take a piece; who answers waits for less, but while nothing is taken nobody hears of his end."""
PAUSE: Final = 0.005
"""Seconds between two looks at what has arrived, where some of it has; the next is twice as long."""
LONGEST_PAUSE: Final = 0.25
MAX_RELAYED: Final = 4096
OF_A_HOST: Final = 1024
"""One host must not take all places: whether anybody is behind a connection, a relay cannot see."""


def relay_key(secret: bytes) -> bytes:
    """Derive the key by which the daemons of one database know one another."""
    return hmac.digest(secret, b"mdmfs relay 1", hashlib.sha256)


async def relay(
    address: Address,
    target: Callable[[], Address | None],
    key: bytes,
    *,
    of_a_host: int = OF_A_HOST,
    task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen, and pass on to wherever ``target`` says, until cancelled; who comes while it is nowhere is cut off.

    Raises ``ConfigurationError`` where the address cannot be listened on.
    """
    listening, places = await listen(address), Counter[str]()
    with listening:
        async with trio.open_nursery() as nursery:
            task_status.started(Address(address.host, listening.getsockname()[1]))
            while True:
                connected, peer = await accept(listening)
                where = target()
                if where is None or places.total() >= MAX_RELAYED or places[peer.host] >= of_a_host:
                    connected.close()
                    continue
                places[peer.host] += 1
                nursery.start_soon(_pass_on, connected, peer, where, key, places)


async def come_from(connected: socket.socket, peer: Address, key: bytes) -> Address:
    """Say where a connection comes from, which has just been accepted: whom a relay names, or who connected.

    Nothing but what the relay says is taken from it. Raises ``ConnectionError`` for one that says it without a proof:
    before that is found out, nobody can keep us busy.
    """
    await trio.lowlevel.wait_readable(connected)
    if connected.recv(1, socket.MSG_PEEK) != BEGIN[:1]:
        return peer
    told = _LINE.fullmatch(await _line(connected))
    if told is None or not hmac.compare_digest(_proof(key, told[1], told[2]), told[3]):
        raise _unproved(peer)
    if _digest(await _look(connected)) != told[2]:
        raise _unproved(peer)
    return Address(told[1].decode(), peer.port)


async def _pass_on(connected: socket.socket, peer: Address, where: Address, key: bytes, places: Counter[str]) -> None:
    near = trio.SocketStream(trio.socket.from_stdlib_socket(connected))
    try:
        async with near:
            with trio.move_on_after(FIRST_SECONDS) as scope:
                record = await _first_record(near)
                far = await trio.open_tcp_stream(where.host, where.port)
            if scope.cancelled_caught:
                return
            async with far, trio.open_nursery() as nursery:
                await far.send_all(_said(key, peer.host, record) + record)
                nursery.start_soon(_pump, near, far, nursery.cancel_scope)
                nursery.start_soon(_pump, far, near, nursery.cancel_scope)
    except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # either end has gone; the other one sees it
    finally:
        places[peer.host] -= 1
        if not places[peer.host]:
            del places[peer.host]


async def _first_record(near: trio.SocketStream) -> bytes:
    record = b""
    while len(record) < _size_of(record):
        more = await near.receive_some(_size_of(record) - len(record))
        record += more
        if not more or not record.startswith(_HANDSHAKE):
            raise ConnectionResetError
    return record


async def _pump(source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
    is_over = False
    while not is_over and (octets := await source.receive_some(PIECE)):
        with trio.move_on_after(STALL_SECONDS) as patience:
            await sink.send_all(octets)
        is_over = patience.cancelled_caught
    scope.cancel()  # neither side of HTTP/1.1 over TLS goes on when the other has ended


async def _line(connected: socket.socket) -> bytes:
    """Take one line, and not a byte more."""
    line = bytearray()
    while len(line) < MAX_LINE and not line.endswith(b"\n"):
        try:
            octet = connected.recv(1)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(connected)
            continue
        if not octet:
            raise ConnectionResetError
        line += octet
    return bytes(line)


async def _look(connected: socket.socket) -> bytes:
    """Give the first record, once all of it has arrived, and take nothing: it is for TLS."""
    pause = PAUSE
    while True:
        await trio.lowlevel.wait_readable(connected)
        record = connected.recv(MAX_RECORD, socket.MSG_PEEK)
        if not record:
            raise ConnectionResetError
        if len(record) >= _size_of(record):
            return record[: _size_of(record)]
        await trio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _size_of(record: bytes) -> int:
    """Tell how long a record is, or as much of it as tells that."""
    if len(record) < HEADER_SIZE:
        return HEADER_SIZE
    return min(HEADER_SIZE + int.from_bytes(record[3:HEADER_SIZE]), MAX_RECORD)


def _said(key: bytes, host: str, record: bytes) -> bytes:
    told, digest = host.encode(), _digest(record)
    return BEGIN + told + b" " + digest + b" " + _proof(key, told, digest) + b"\n"


def _digest(record: bytes) -> bytes:
    return hashlib.sha256(record).hexdigest().encode()


def _proof(key: bytes, host: bytes, digest: bytes) -> bytes:
    return hmac.digest(key, host + b" " + digest, hashlib.sha256).hex().encode()


def _unproved(peer: Address) -> ConnectionError:
    message = f"{peer} says that it relays, and does not prove it"
    return ConnectionAbortedError(message)
