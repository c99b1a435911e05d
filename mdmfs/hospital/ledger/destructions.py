"""Destructions that have begun and not ended, as rows: they take a while, and a kill must not keep the rest."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from mdmfs.hospital import tables
from mdmfs.hospital.ledger.records import DestructionRecord
from mdmfs.hospital.rows import DIGEST_KEY_SIZE, Stored
from mdmfs.rows.port import Rows

_ROWS: Final = Stored(DestructionRecord)


class Destructions:
    """Destructions that have begun and not ended: ``T`` + digest of what says which files: the record."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def put(self, record: DestructionRecord) -> None:
        """Keep that files are to go."""
        self._rows.put(_key(record), _ROWS.encode(record))

    def all(self) -> list[DestructionRecord]:
        """Give what has not ended."""
        return [_ROWS.decode(value) for _, value in self._rows.scan(tables.DESTRUCTIONS)]

    def remove(self, record: DestructionRecord) -> bool:
        """Say that they are gone; False where nobody has said that they should."""
        return self._rows.delete(_key(record))


def _key(record: DestructionRecord) -> bytes:
    said = b"\x01" + msgspec.msgpack.encode((record.guids, record.subject, record.project, record.below))
    return tables.DESTRUCTIONS + hashlib.sha256(said).digest()[:DIGEST_KEY_SIZE]
