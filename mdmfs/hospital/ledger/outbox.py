"""The outbox as rows: a queue for each destination."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Final

import msgspec

from mdmfs.hospital import tables
from mdmfs.hospital.ledger.records import MAX_DESTINATION_BYTES, OutboxItem, OutboxSize
from mdmfs.hospital.rows import Stored, add_to, counted, number_key
from mdmfs.hospital.uidmap.records import SERIES_KEY_SIZE
from mdmfs.model.errors import StoreError
from mdmfs.rows.port import Rows

_ROWS: Final = Stored(OutboxItem)
_NUMBER: Final = tables.COUNTERS + b"outbox"
_ITEMS: Final = tables.COUNTERS + b"outbox items"
_OCTETS: Final = tables.COUNTERS + b"outbox octets"


class Outbox:
    """What is on its way to other zones: for each destination a queue.

    ``o`` + destination + NUL + number (8 bytes): the item. ``O`` + destination + NUL + series: how many remain.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def push(self, destination: str, kind: str, series: bytes, payload: bytes) -> int:
        """Append an item; give its number. The payload is sealed by the caller. A destination has 1 to 128 bytes."""
        if len(series) > SERIES_KEY_SIZE:
            message = f"the series of an outbox item is named by {SERIES_KEY_SIZE} bytes, or none"
            raise StoreError(message)
        number = add_to(self._rows, _NUMBER)
        item = OutboxItem(number, destination, kind, series, payload)
        self._rows.put(tables.OUTBOX + _queue(destination) + number_key(number), _ROWS.encode(item))
        self._count(item, 1)
        return number

    def peek(self, destination: str, *, limit: int, after: int = 0) -> list[OutboxItem]:
        """Give the first items of a destination whose numbers come after one, lowest number first; they stay."""
        found = itertools.islice(self._rows.scan(tables.OUTBOX + _queue(destination), number_key(after + 1)), limit)
        return [_ROWS.decode(value) for _, value in found]

    def latest(self) -> int:
        """Give the number of what was appended last, to whichever destination; 0 before the first."""
        return counted(self._rows, _NUMBER)

    def replace(self, item: OutboxItem, payload: bytes) -> None:
        """Give an item that is there another payload."""
        replaced = msgspec.structs.replace(item, payload=payload)
        self._rows.put(tables.OUTBOX + _queue(item.destination) + number_key(item.number), _ROWS.encode(replaced))
        add_to(self._rows, _OCTETS, len(payload) - len(item.payload))

    def drop(self, destination: str, numbers: Iterable[int]) -> int:
        """Forget items that have arrived; give how many there were."""
        dropped = 0
        for number in numbers:
            key = tables.OUTBOX + _queue(destination) + number_key(number)
            value = self._rows.get(key)
            if value is not None:
                self._count(_ROWS.decode(value), -1)
                dropped += self._rows.delete(key)
        return dropped

    def remaining(self, series: bytes, destination: str) -> int:
        """Count a destination's items of a series."""
        return counted(self._rows, tables.OUTBOX_REMAINING + _queue(destination) + series)

    def destinations(self) -> list[str]:
        """Give the destinations with items, sorted by their UTF-8 bytes."""
        found: list[str] = []
        start = b""
        while (entry := next(self._rows.scan(tables.OUTBOX, start), None)) is not None:
            name, _, _ = entry[0].partition(b"\0")
            found.append(name.decode())
            start = name + b"\x01"  # past every number of this queue, before every other name
        return found

    def size(self) -> OutboxSize:
        """Tell how much is waiting, over all destinations."""
        return OutboxSize(counted(self._rows, _ITEMS), counted(self._rows, _OCTETS))

    def _count(self, item: OutboxItem, sign: int) -> None:
        add_to(self._rows, tables.OUTBOX_REMAINING + _queue(item.destination) + item.series, sign)
        add_to(self._rows, _ITEMS, sign)
        add_to(self._rows, _OCTETS, sign * len(item.payload))


def _queue(destination: str) -> bytes:
    octets = destination.encode()
    if not 0 < len(octets) <= MAX_DESTINATION_BYTES or not destination.isprintable():
        message = f"a destination has 1 to {MAX_DESTINATION_BYTES} bytes, all printable"
        raise StoreError(message)
    return octets + b"\0"
