"""Series as rows: by their key, by state, and by their directory."""

from __future__ import annotations

import hashlib
import itertools
from typing import Final

from mdmfs.hospital import tables
from mdmfs.hospital.ledger.records import SeriesRecord, SeriesState
from mdmfs.hospital.rows import Stored
from mdmfs.hospital.uidmap.records import SERIES_KEY_SIZE, SeriesKey
from mdmfs.model.names import Lfn
from mdmfs.rows.port import Rows

_ROWS: Final = Stored(SeriesRecord)


class SeriesLedger:
    """The series that are or were registered; their instances are in ``UidMap.of_series``.

    ``x`` + ``SeriesKey.octets()``: the record. ``X`` + state (1 byte) + ``SeriesKey.octets()``: nothing.
    ``l`` + digest of the LFN: ``SeriesKey.octets()``.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def put(self, record: SeriesRecord) -> None:
        """Keep a series, in place of what was kept of it."""
        octets = record.key.octets()
        before = self.by_octets(octets)
        if before is not None and before.state is not record.state:
            self._rows.delete(_state_key(before.state) + octets)
        self._rows.put(tables.SERIES + octets, _ROWS.encode(record))
        if before is not None and before.lfn != record.lfn:
            self._rows.delete(_lfn_key(before.lfn))
        self._rows.put(_state_key(record.state) + octets, b"")
        self._rows.put(_lfn_key(record.lfn), octets)

    def get(self, key: SeriesKey) -> SeriesRecord | None:
        """Give a series, or None."""
        return self.by_octets(key.octets())

    def by_octets(self, octets: bytes) -> SeriesRecord | None:
        """Give the series whose ``SeriesKey.octets()`` these are, or None."""
        value = self._rows.get(tables.SERIES + octets) if len(octets) == SERIES_KEY_SIZE else None
        return None if value is None else _ROWS.decode(value)

    def by_lfn(self, lfn: Lfn) -> SeriesRecord | None:
        """Give the series whose directory this is, seen or not, or None."""
        octets = self._rows.get(_lfn_key(lfn))
        return None if octets is None else self.by_octets(octets)

    def all(self, state: SeriesState | None = None) -> list[SeriesRecord]:
        """Give the series in a state, or all."""
        if state is None:
            return [_ROWS.decode(value) for _, value in self._rows.scan(tables.SERIES)]
        found = (self.by_octets(octets) for octets, _ in self._rows.scan(_state_key(state)))
        return [record for record in found if record is not None]

    def page(
        self, limit: int, after: SeriesRecord | None = None, state: SeriesState | None = None
    ) -> list[SeriesRecord]:
        """Give some of all, or of those in a state, in an order that does not change, from the one after another on."""
        begin = b"" if after is None else after.key.octets() + b"\0"
        if state is None:
            rows = itertools.islice(self._rows.scan(tables.SERIES, begin), limit)
            return [_ROWS.decode(value) for _, value in rows]
        keys = itertools.islice(self._rows.scan(_state_key(state), begin), limit)
        found = [self.by_octets(octets) for octets, _ in keys]
        return [record for record in found if record is not None]

    def remove(self, key: SeriesKey) -> bool:
        """Forget a series; False where it was not known."""
        octets = key.octets()
        before = self.by_octets(octets)
        if before is None:
            return False
        self._rows.delete(_state_key(before.state) + octets)
        self._rows.delete(_lfn_key(before.lfn))
        return self._rows.delete(tables.SERIES + octets)


def _lfn_key(lfn: Lfn) -> bytes:
    """Give a key of fixed length: an LFN may be longer than what an engine takes as a key."""
    return tables.SERIES_BY_LFN + hashlib.sha256(str(lfn).encode()).digest()


def _state_key(state: SeriesState) -> bytes:
    return tables.SERIES_BY_STATE + bytes([state])
