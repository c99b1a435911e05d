"""Directories as rows, by inode number."""

from __future__ import annotations

from typing import Final

from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.records import ROOT_INODE, DirectoryRecord
from mdmfs.hospital.catalogue.times import BEGINNING
from mdmfs.hospital.rows import Numbers, Stored, number_key
from mdmfs.model.errors import NoSuchFileError
from mdmfs.rows.port import Rows

_REMEMBERED: Final = 1000
"""Directories of which a transaction remembers what it read."""
_RECORDS: Final = Stored(DirectoryRecord)


class DirectoryTable:
    """``d`` + inode number: the directory."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.inodes: Final = Numbers(rows, tables.COUNTERS + b"inode")
        self._records: dict[int, DirectoryRecord] = {}

    def make_root(self) -> None:
        """Begin an empty namespace: the root, without an ACL."""
        root = self.inodes.next()  # ROOT_INODE, as the first one
        self.put(DirectoryRecord(root, root, "", b"", b"", BEGINNING, 0))

    def new_inode(self) -> int:
        """Give a number that was never given."""
        return self.inodes.next()

    def find(self, inode: int) -> DirectoryRecord | None:
        """Give a directory, or None."""
        known = self._records.get(inode)
        if known is not None:
            return known
        value = self._rows.get(tables.DIRECTORIES + number_key(inode)) if 0 < inode < 2**63 else None
        return None if value is None else self._remember(_RECORDS.decode(value))

    def get(self, inode: int) -> DirectoryRecord:
        """Give a directory; raises ``NoSuchFileError``."""
        record = self.find(inode)
        if record is None:
            message = f"there is no directory with inode number {inode}"
            raise NoSuchFileError(message)
        return record

    def put(self, record: DirectoryRecord) -> None:
        """Keep a directory, in place of what was kept of it."""
        self._rows.put(tables.DIRECTORIES + number_key(record.inode), _RECORDS.encode(record))
        self._remember(record)

    def forget(self, inode: int) -> None:
        """Forget a directory."""
        self._rows.delete(tables.DIRECTORIES + number_key(inode))
        self._records.pop(inode, None)

    def above(self, inode: int) -> list[DirectoryRecord]:
        """Give all directories above this one, from the root down, and last itself."""
        record = self.get(inode)
        records = [record]
        while record.inode != ROOT_INODE:
            record = self.get(record.parent)
            records.append(record)
        return records[::-1]

    def _remember(self, record: DirectoryRecord) -> DirectoryRecord:
        if len(self._records) >= _REMEMBERED:
            self._records.clear()
        self._records[record.inode] = record
        return record
