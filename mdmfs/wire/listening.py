"""Listening sockets, and who connects to them."""

from __future__ import annotations

import errno
import logging
import socket
from typing import Final

import trio

from mdmfs.model.errors import ConfigurationError
from mdmfs.wire.stream import Address

log = logging.getLogger(__name__)

BACKLOG: Final = 4096
"""The kernel takes no more than net.core.somaxconn of them."""
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


async def listen(address: Address) -> trio.socket.SocketType:
    """Listen on an address; raises ``ConfigurationError``."""
    try:
        [(family, kind, protocol, _, where), *_] = await trio.socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listening = trio.socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            await listening.bind(where)
            listening.listen(BACKLOG)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        message = f"{address} cannot be listened on: {error.strerror}"
        raise ConfigurationError(message) from error
    return listening


async def accept(listening: trio.socket.SocketType) -> tuple[socket.socket, Address]:
    """Wait for the next one, whatever runs short meanwhile."""
    while True:
        try:
            accepted, where = await listening.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                log.error("no more connections can be accepted: %s", error.strerror)  # noqa: TRY400
                await trio.sleep(0.1)
        else:
            return socket.socket(fileno=accepted.detach()), Address(where[0], where[1])
