"""Connections whose peer is gone without a word: behind a new address, a cut cable, a firewall that has forgotten."""

from __future__ import annotations

import socket
from typing import Final

import trio

GONE_SECONDS: Final = 10
"""After which a peer that acknowledges nothing is taken for gone."""
_PROBES: Final = 3


def notice_silence(connection: socket.socket | trio.socket.SocketType) -> None:
    """Have the kernel end a connection whose peer acknowledges neither data nor keepalives (RFC 5482, tcp(7)).

    By itself it goes on for a quarter of an hour where something was sent, and for ever where an answer is awaited. It
    then tells ``TimeoutError``, or why there was no way. What is accepted from a listening socket takes it over.
    """
    seconds = GONE_SECONDS
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // _PROBES))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * seconds)
