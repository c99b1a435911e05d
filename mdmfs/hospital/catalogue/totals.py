"""How much is visible, and is to be in each directory, as rows: kept up to date so that nobody counts."""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec

from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.records import FileRecord, Totals
from mdmfs.hospital.catalogue.times import BEGINNING
from mdmfs.hospital.rows import Stored, digest_key, number_key
from mdmfs.rows.port import Rows


class _StoredTotals(msgspec.Struct, frozen=True, array_like=True):
    files: int
    octets: int


_ROWS: Final = Stored(_StoredTotals)


class Pending(msgspec.Struct, frozen=True, array_like=True):
    """The new files of a directory that are not seen yet."""

    totals: dict[str, tuple[int, int]]
    """By project: files and bytes."""
    latest: float = BEGINNING
    """No file of them has a later time."""


_PENDING: Final = Stored(Pending)


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
        self.add(file.project, sign, sign * file.rendition.size)

    def add(self, project: str, files: int, octets: int) -> None:
        """Count several."""
        self.files[project] += files
        self.octets[project] += octets


class PendingTable:
    """``P`` + directory (8 bytes): how many new files it has that are not seen yet, their bytes and their latest time.

    Each row is read once in a transaction, and written at its end.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._known: dict[int, Pending] = {}

    def count(self, directory: int, file: FileRecord, sign: int) -> None:
        """Count a file in (1) or out (-1)."""
        before = self._of(directory)
        files, octets = before.totals.get(file.project, (0, 0))
        totals = before.totals | {file.project: (files + sign, octets + sign * file.rendition.size)}
        if not totals[file.project][0]:
            del totals[file.project]
        self._known[directory] = Pending(totals, max(before.latest, file.modified))

    def take(self, directory: int) -> Pending:
        """Give what there is, and count none any more."""
        pending = self._of(directory)
        self._known[directory] = Pending({})
        return pending

    def write(self) -> None:
        """Write what was counted."""
        for directory, pending in self._known.items():
            if pending.totals:
                self._rows.put(tables.PENDING + number_key(directory), _PENDING.encode(pending))
            else:
                self._rows.delete(tables.PENDING + number_key(directory))

    def _of(self, directory: int) -> Pending:
        if directory not in self._known:
            value = self._rows.get(tables.PENDING + number_key(directory))
            self._known[directory] = Pending({}) if value is None else _PENDING.decode(value)
        return self._known[directory]


def _key(project: str | None) -> bytes:
    return tables.TOTALS + (b"*" if project is None else digest_key(project))
