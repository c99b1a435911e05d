"""How much is visible, as rows: per project and in all, kept up to date so that nobody counts."""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec

from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.records import FileRecord, Totals
from mdmfs.hospital.rows import Stored, digest_key
from mdmfs.rows.port import Rows


class _StoredTotals(msgspec.Struct, frozen=True, array_like=True):
    files: int
    octets: int


_ROWS: Final = Stored(_StoredTotals)


class TotalsTable:
    """``t`` + digest of the project, or ``t*`` for all: files and bytes."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def of(self, project: str | None) -> Totals:
        """Count the visible files of a project, or of all."""
        value = self._rows.get(_key(project))
        if value is None:
            return Totals(0, 0)
        stored = _ROWS.decode(value)
        return Totals(stored.files, stored.octets)

    def add(self, change: TotalsChange) -> None:
        """Apply what one call changed."""
        for project in change.files.keys() | change.octets.keys():
            self._add(project, change.files[project], change.octets[project])
        self._add(None, change.files.total(), change.octets.total())

    def _add(self, project: str | None, files: int, octets: int) -> None:
        before = self.of(project)
        self._rows.put(_key(project), _ROWS.encode(_StoredTotals(before.files + files, before.octets + octets)))


class TotalsChange:
    """What one call shows and hides."""

    def __init__(self) -> None:
        self.files: Counter[str] = Counter()
        self.octets: Counter[str] = Counter()

    def count(self, file: FileRecord, sign: int) -> None:
        """Count a file in (1) or out (-1)."""
        self.files[file.project] += sign
        self.octets[file.project] += sign * file.rendition.size


def _key(project: str | None) -> bytes:
    return tables.TOTALS + (b"*" if project is None else digest_key(project))
