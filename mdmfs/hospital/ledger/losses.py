"""Lost files as rows, and when projects were last compared with their PACSs."""

from __future__ import annotations

import struct
from typing import Final

from mdmfs.hospital import tables
from mdmfs.hospital.ledger.records import LossRecord
from mdmfs.hospital.rows import Stored, digest_key
from mdmfs.model.names import Guid
from mdmfs.rows.port import Rows

_ROWS: Final = Stored(LossRecord)
_TIME: Final = struct.Struct(">d")


class Losses:
    """Files that are LOST, as found by the latest recall or reconciliation, and when projects were reconciled.

    ``L`` + GUID: the record. ``R`` + digest of the project: seconds, a double.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def put(self, guid: Guid, record: LossRecord) -> None:
        """Keep that a file is lost, in place of what was kept of it."""
        self._rows.put(tables.LOSSES + guid.octets, _ROWS.encode(record))

    def get(self, guid: Guid) -> LossRecord | None:
        """Tell why a file is lost; None if it is not."""
        value = self._rows.get(tables.LOSSES + guid.octets)
        return None if value is None else _ROWS.decode(value)

    def remove(self, guid: Guid) -> bool:
        """Say that a file is not lost; False where it was not."""
        return self._rows.delete(tables.LOSSES + guid.octets)

    def count(self) -> int:
        """Count the files that are lost."""
        return sum(1 for _ in self._rows.scan(tables.LOSSES))

    def note_reconciled(self, project: str, when: float) -> None:
        """Remember when a project was last compared with its PACSs, to the end."""
        self._rows.put(tables.RECONCILIATIONS + digest_key(project), _TIME.pack(when))

    def last_reconciled(self, project: str) -> float:
        """Tell when a project was last compared with its PACSs; 0 where it never was."""
        value = self._rows.get(tables.RECONCILIATIONS + digest_key(project))
        return 0.0 if value is None else float(_TIME.unpack(value)[0])
