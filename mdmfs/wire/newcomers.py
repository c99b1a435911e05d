"""Who has connected and not shaken hands yet: each host has its own row, in which whoever comes waits his turn.

The mounts of a cluster behind one address come back all at once after a restart: none of them is refused, they queue.
Strangers who never shake hands fill their own row, and keep nobody else out.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import select
import socket
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final

import trio

NETWORK_BITS: Final = 64


class Newcomers:
    """The rows of one server."""

    def __init__(self, most: int, of_a_host: int, at_once: int) -> None:
        """Let ``most`` wait or shake hands in all, ``of_a_host`` of one host, and ``at_once`` of it shake hands."""
        self._most = most
        self._of_a_host = of_a_host
        self._at_once = at_once
        self._here: Counter[str] = Counter()
        self._places: dict[str, trio.Semaphore] = {}

    def has_room_for(self, host: str) -> bool:
        """Tell whether one more of a host may queue."""
        return self._here[_row_of(host)] < self._of_a_host and self._here.total() < self._most

    def come(self, host: str) -> None:
        """Count one who has connected, until he leaves."""
        row = _row_of(host)
        self._here[row] += 1
        self._places.setdefault(row, trio.Semaphore(self._at_once))

    def leave(self, host: str) -> None:
        """Count him no longer, and forget his host with the last."""
        row = _row_of(host)
        self._here[row] -= 1
        if not self._here[row]:
            del self._here[row], self._places[row]

    @contextlib.asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """Wait for the turn of one who has come."""
        async with self._places[_row_of(host)]:
            yield


@functools.lru_cache(maxsize=1024)
def _row_of(host: str) -> str:
    """Name the row of a host: whoever has an IPv6 address mostly has a network of 2**64 of them (RFC 7421)."""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host)
    if address.ipv4_mapped is not None or address.is_link_local:
        return host
    return str(ipaddress.IPv6Network((int(address), NETWORK_BITS), strict=False))


def has_hung_up(connected: socket.socket) -> bool:
    """Ask whether a peer has closed already, tired of waiting: no arithmetic is done for him."""
    poll = select.poll()
    poll.register(connected, select.POLLRDHUP)
    return bool(poll.poll(0))
