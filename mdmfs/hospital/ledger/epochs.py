"""Epochs as rows: everything that takes rights away, in the order it was decided, for keystores that were not there."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

from mdmfs.hospital import tables
from mdmfs.hospital.ledger.records import BEGINNING, MAX_DESTINATION_BYTES, Epoch, KeyChange, KeyChangeKind
from mdmfs.hospital.rows import Stored, add_to, counted, number_key
from mdmfs.model.errors import StoreError
from mdmfs.model.names import Guid
from mdmfs.rows.port import Rows

MARK_SIZE: Final = 16
_ROWS: Final = Stored(KeyChange)
_NUMBER: Final = tables.COUNTERS + b"epoch"


class Epochs:
    """What every keystore must hear, also one that was restored from a backup: each change is an epoch, from 1.

    ``j`` + epoch (8 bytes): the change. ``J`` + keystore: the epoch that it has acknowledged (8 bytes).
    """

    def __init__(self, rows: Rows, random: Callable[[int], bytes]) -> None:
        self._rows = rows
        self._random = random

    def note_acl(self, acl_id: bytes) -> int:
        """Note that an ACL says something else now; give the epoch. The catalogue does it for every ACL it sets."""
        return self._append(KeyChangeKind.ACL, acl_id)

    def bury(self, guid: Guid) -> int:
        """Note that a key is destroyed; give the epoch. The note is kept for ever."""
        return self._append(KeyChangeKind.TOMBSTONE, guid.octets)

    def latest(self) -> Epoch:
        """Give the latest epoch; ``BEGINNING`` where nothing ever changed."""
        number = counted(self._rows, _NUMBER)
        change = self._find(number)
        return BEGINNING if change is None else Epoch(number, change.mark)

    def holds(self, epoch: Epoch) -> bool:
        """Ask whether an epoch is one of this history, and not of one that a backup has cut off."""
        if epoch.number == 0:
            return epoch == BEGINNING
        change = self._find(epoch.number)
        return change is not None and change.mark == epoch.mark

    def after(self, number: int, *, limit: int) -> list[tuple[int, KeyChange]]:
        """Give the first changes after an epoch, oldest first."""
        found = itertools.islice(self._rows.scan(tables.CHANGES_OF_KEYS, number_key(number + 1)), limit)
        return [(int.from_bytes(key, "big"), _ROWS.decode(value)) for key, value in found]

    def acknowledge(self, keystore: str, number: int) -> None:
        """Remember up to where a keystore has heard everything."""
        self._rows.put(_acknowledged(keystore), number_key(number))

    def acknowledged(self, keystore: str) -> int:
        """Give up to where a keystore has heard everything; 0 where it never has."""
        return counted(self._rows, _acknowledged(keystore))

    def _append(self, kind: KeyChangeKind, what: bytes) -> int:
        number = add_to(self._rows, _NUMBER)
        change = KeyChange(kind, what, self._random(MARK_SIZE))
        self._rows.put(tables.CHANGES_OF_KEYS + number_key(number), _ROWS.encode(change))
        return number

    def _find(self, number: int) -> KeyChange | None:
        value = self._rows.get(tables.CHANGES_OF_KEYS + number_key(number))
        return None if value is None else _ROWS.decode(value)


def _acknowledged(keystore: str) -> bytes:
    octets = keystore.encode()
    if not 0 < len(octets) <= MAX_DESTINATION_BYTES:
        message = f"the name of a keystore has 1 to {MAX_DESTINATION_BYTES} bytes"
        raise StoreError(message)
    return tables.ACKNOWLEDGED + octets
