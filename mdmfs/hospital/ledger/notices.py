"""Notices as rows: the series that PACSs have told of, and the instances of each."""

from __future__ import annotations

from typing import Final

import msgspec

from mdmfs.hospital import tables
from mdmfs.hospital.ledger.records import Notice, NoticedSeries
from mdmfs.hospital.rows import Stored, digest_key
from mdmfs.rows.port import Rows

_SERIES: Final = Stored(NoticedSeries)
_NOTICES: Final = Stored(Notice)
_OF_SERIES: Final = tables.NOTICES + b"s"
_OF_INSTANCE: Final = tables.NOTICES + b"i"


class Notices:
    """What PACSs have told of and nobody has dealt with yet.

    ``Ns`` + digest of (PACS, study, series): the series. ``Ni`` + the same digest + digest of the instance: the notice.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def put(self, notice: Notice) -> None:
        """Keep a notice; of an instance that comes again, the latest."""
        digest = digest_key(notice.pacs, notice.study_uid, notice.series_uid)
        known = self._rows.get(_OF_SERIES + digest)
        if known is None:
            first, when = notice.when, notice.when
            series = NoticedSeries(notice.pacs, notice.study_uid, notice.series_uid, first, when, 1)
        else:
            before = _SERIES.decode(known)
            series = msgspec.structs.replace(
                before, latest=max(before.latest, notice.when), arrivals=before.arrivals + 1
            )
        self._rows.put(_OF_SERIES + digest, _SERIES.encode(series))
        self._rows.put(_OF_INSTANCE + digest + digest_key(notice.instance_uid), _NOTICES.encode(notice))

    def all(self) -> list[NoticedSeries]:
        """Give the series told of, the one that has waited longest without news first."""
        found = [_SERIES.decode(value) for _, value in self._rows.scan(_OF_SERIES)]
        return sorted(found, key=lambda series: series.latest)

    def of_series(self, series: NoticedSeries) -> list[Notice]:
        """Give the instances told of."""
        return [_NOTICES.decode(value) for _, value in self._rows.scan(_OF_INSTANCE + _digest(series))]

    def remove(self, series: NoticedSeries) -> bool:
        """Forget a series and its notices; False, and all stays, if something came since it was read."""
        digest = _digest(series)
        known = self._rows.get(_OF_SERIES + digest)
        if known is None or _SERIES.decode(known).arrivals != series.arrivals:
            return False
        for key in [key for key, _ in self._rows.scan(_OF_INSTANCE + digest)]:
            self._rows.delete(_OF_INSTANCE + digest + key)
        return self._rows.delete(_OF_SERIES + digest)


def _digest(series: NoticedSeries) -> bytes:
    return digest_key(series.pacs, series.study_uid, series.series_uid)
