"""Refused instances as rows, by project, series and instance."""

from __future__ import annotations

import itertools
from typing import Final

from mdmfs.hospital import tables
from mdmfs.hospital.ledger.records import QuarantineRecord
from mdmfs.hospital.rows import Stored, digest_key
from mdmfs.hospital.uidmap.records import SeriesKey
from mdmfs.rows.port import Rows

_ROWS: Final = Stored(QuarantineRecord)


class Quarantine:
    """Instances that were refused: ``q`` + digest of the project + of the series + of the instance."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def put(self, record: QuarantineRecord) -> None:
        """Keep why an instance is refused, in place of what was kept of it."""
        self._rows.put(_key(record.series, record.instance_uid), _ROWS.encode(record))

    def get(self, series: SeriesKey, instance_uid: str) -> QuarantineRecord | None:
        """Tell why an instance is refused; None if it is not."""
        value = self._rows.get(_key(series, instance_uid))
        return None if value is None else _ROWS.decode(value)

    def all(self, project: str) -> list[QuarantineRecord]:
        """Give the instances of a project that are refused."""
        return self._from(tables.QUARANTINE + digest_key(project))

    def page(
        self, limit: int, after: QuarantineRecord | None = None, project: str | None = None
    ) -> list[QuarantineRecord]:
        """Give some of all that is refused, or of a project's, from the one after another on.

        The order does not change, and those of a series come one after the other.
        """
        prefix = tables.QUARANTINE + (b"" if project is None else digest_key(project))
        start = b"" if after is None else _key(after.series, after.instance_uid)[len(prefix) :] + b"\0"
        return [_ROWS.decode(value) for _, value in itertools.islice(self._rows.scan(prefix, start), limit)]

    def of_series(self, series: SeriesKey) -> list[QuarantineRecord]:
        """Give the instances of a series that are refused."""
        return self._from(_series_key(series))

    def remove(self, series: SeriesKey, instance_uid: str) -> bool:
        """Forget a refusal; False where there was none."""
        return self._rows.delete(_key(series, instance_uid))

    def _from(self, prefix: bytes) -> list[QuarantineRecord]:
        return [_ROWS.decode(value) for _, value in self._rows.scan(prefix)]


def _series_key(series: SeriesKey) -> bytes:
    return tables.QUARANTINE + digest_key(series.project) + series.octets()


def _key(series: SeriesKey, instance_uid: str) -> bytes:
    return _series_key(series) + digest_key(instance_uid)
