"""Who may send to the hospital's SCP: listed PACSs, known by AE title and address; never a modality."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterable
from typing import Final

import trio

_FRESH_SECONDS: Final = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Sender:
    """A PACS that may store to us."""

    pacs: str
    """Its name in this hospital."""
    ae_title: str
    """What it calls itself."""
    hosts: tuple[str, ...]
    """Names or addresses that it sends from."""
    our_ae_title: str
    """What we call ourselves towards it when we ask: the originator of our moves."""

    @property
    def originators(self) -> tuple[str, str]:
        """Give what may stand for us as the originator of a move: some PACSs write their own title there."""
        return self.our_ae_title, self.ae_title


class Senders:
    """The listed PACSs; host names are looked up again every minute."""

    def __init__(self, senders: Iterable[Sender]) -> None:
        self._senders: Final = tuple(senders)
        self._addresses: Final[dict[str, tuple[float, frozenset[str]]]] = {}

    async def at(self, address: str) -> list[Sender]:
        """Give the PACSs that send from an address."""
        return [it for it in self._senders if await self._sends_from(it, plain_address(address))]

    async def _sends_from(self, sender: Sender, address: str) -> bool:
        for host in sender.hosts:
            if address in await self._addresses_of(host):
                return True
        return False

    async def _addresses_of(self, host: str) -> frozenset[str]:
        since, known = self._addresses.get(host, (-_FRESH_SECONDS, frozenset[str]()))
        if trio.current_time() < since + _FRESH_SECONDS:
            return known
        try:
            found = await trio.socket.getaddrinfo(host, None, type=trio.socket.SOCK_STREAM)
            known = frozenset(plain_address(str(it[4][0])) for it in found)
        except OSError:
            pass  # what was known is better than nothing while the name service is down
        self._addresses[host] = trio.current_time(), known
        return known


def plain_address(text: str) -> str:
    """Write an address in one way: without a zone, and IPv4 as IPv4."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
