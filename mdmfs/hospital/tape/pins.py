"""Pins: which staged objects must not make room for others, on whose behalf and how long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mdmfs.model.names import Guid

SHARE: Final = 0.5
"""The part of staging that may be pinned: the rest is for those who open files."""
UNTIL_STAGED: Final = float("inf")


class _Pin:
    __slots__ = ("holders", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.holders: dict[bytes, float] = {}


class Pins:
    """What is pinned, in memory: the requests in the store say it again after a restart."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        """Bound what is pinned to ``limit`` bytes of sealed objects; ``clock`` is in seconds since the epoch."""
        self.limit = limit
        self._clock = clock
        self._pins: dict[Guid, _Pin] = {}
        self._octets = 0

    def hold(self, guid: Guid, request: bytes, size: int, until: float = UNTIL_STAGED) -> bool:
        """Pin a file for a request until a time; False where that would be more than may be pinned."""
        pin = self._pins.get(guid)
        if pin is None:
            if self._octets + size > self.limit:
                self._expire()
            if self._octets + size > self.limit:
                return False
            pin = self._pins[guid] = _Pin(size)
            self._octets += size
        pin.holders[request] = until
        return True

    def drop(self, guid: Guid, request: bytes) -> None:
        """Take back what a request holds of a file."""
        pin = self._pins.get(guid)
        if pin is None:
            return
        pin.holders.pop(request, None)
        if not pin.holders:
            self._forget(guid)

    def is_pinned(self, guid: Guid) -> bool:
        """Ask whether a file must stay."""
        pin = self._pins.get(guid)
        if pin is None:
            return False
        now = self._clock()
        pin.holders = {request: until for request, until in pin.holders.items() if now < until}
        if not pin.holders:
            self._forget(guid)
        return bool(pin.holders)

    def _expire(self) -> None:
        for guid in list(self._pins):
            self.is_pinned(guid)

    def _forget(self, guid: Guid) -> None:
        self._octets -= self._pins.pop(guid).size
