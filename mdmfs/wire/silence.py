"""Connections whose peer is gone without a word: behind a new address, a cut cable, a firewall that has forgotten."""

from __future__ import annotations

import socket
from typing import Final

import trio

GONE_SECONDS: Final = 15
"""After which a peer that acknowledges nothing is taken for gone. It is asked three times in the last three fifths of
them: that one is lost is no sign (RFC 1122 section 4.2.3.6)."""


def notice_silence(connection: socket.socket | trio.socket.SocketType) -> None:
    """Have the kernel end a connection that we asked for, whose peer acknowledges nothing (RFC 5482, tcp(7)).

    By itself it sends again for a quarter of an hour, and waits for an answer for ever. It then tells ``TimeoutError``,
    or why there was no way. Not for who sends much: a peer that is there, but takes nothing for so long, is cut, too.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2 * GONE_SECONDS // 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, GONE_SECONDS // 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * GONE_SECONDS)
