"""Connecting to a peer that may be at one of several places: where it was found last is looked first."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

import trio

from mdmfs.daemon.process import MORE_DESCRIPTORS
from mdmfs.model.errors import BusyError, PeerUnreachableError
from mdmfs.wire.silence import notice_silence
from mdmfs.wire.stream import Address

SILENT_SECONDS: Final = 3.0
"""For a connection to one of several hosts, before the next one is tried."""


class Places:
    """Where a peer may be."""

    def __init__(self, address: Address) -> None:
        """Begin with the address, and go on with its others."""
        self._places = [address, *address.others]

    async def connect(self) -> socket.socket:
        """Connect to the first place at which somebody listens; raises ``PeerUnreachableError`` of the last."""
        places = self._places
        for place in places[:-1]:
            with contextlib.suppress(PeerUnreachableError), trio.move_on_after(SILENT_SECONDS):
                return await _connect(place)
            if self._places[0] == place:  # nobody else has found that out meanwhile
                self._places = [*self._places[1:], place]
        return await _connect(places[-1])


async def _connect(address: Address) -> socket.socket:
    """Connect to the first address of a host that answers."""
    failure: OSError | None = None
    try:
        found = await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        message = f"the host of {address} has no address: {error.strerror}"
        raise PeerUnreachableError(message) from error
    for family, kind, protocol, _, where in found:
        try:
            candidate = trio.socket.socket(family, kind, protocol)
        except OSError as error:
            message = f"{address} cannot be connected to: {error.strerror}"
            raise BusyError(message, what_to_do=MORE_DESCRIPTORS) from error
        try:
            notice_silence(candidate)
            await candidate.connect(where)
        except OSError as error:
            failure = error
            candidate.close()
        except BaseException:
            candidate.close()
            raise
        else:
            return socket.socket(fileno=candidate.detach())
    reason = os.strerror(failure.errno) if failure and failure.errno else "no address"  # trio's text is a longer one
    message = f"{address} cannot be reached: {reason}"
    raise PeerUnreachableError(message) from failure
