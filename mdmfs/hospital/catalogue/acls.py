"""ACLs as rows: each under a random id, or its file's GUID, with how often it was set; what many say is kept once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

import msgspec

from mdmfs.access.acl import ACL_ID_SIZE, Acl
from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.records import FileRecord, VersionOfAcl
from mdmfs.hospital.ledger.epochs import Epochs
from mdmfs.hospital.rows import Interned, Stored, number_key
from mdmfs.model.errors import MalformedNameError, StoreError
from mdmfs.model.names import Guid
from mdmfs.rows.port import Rows


class _StoredAcl(msgspec.Struct, frozen=True, array_like=True):
    version: int
    acl: int
    """The number of what it says."""
    first: int
    """Of what it said when it was made."""


_ROWS: Final = Stored(_StoredAcl, version=2)
_YEAR: Final = 366 * 86_400.0
_CENTURY: Final = 100 * _YEAR


class AclTable:
    """``a`` + id: version, and the number of the ACL, which ``A`` + number holds and ``B`` + digest finds.

    The first version is 1. One that is set is the milliseconds since 1970, or where that is not later one more than
    before: keystores take it, whatever they heard of a history that was lost when an older store was put back. If the
    clock was ahead then, or is behind now, they do not, and ``outdo`` is for that.
    """

    def __init__(self, rows: Rows, random: Callable[[int], bytes], clock: Callable[[], float]) -> None:
        self._rows = rows
        self._random = random
        self._clock = clock
        self._epochs = Epochs(rows, random)
        self._values = Interned(
            rows, numbers=tables.ACL_NUMBERS, values=tables.ACL_VALUES, counter=tables.COUNTERS + b"acl"
        )

    def make(self, acl: Acl) -> bytes:
        """Keep a new ACL; give its id."""
        acl_id = self._random(ACL_ID_SIZE)
        if len(acl_id) != ACL_ID_SIZE or self._rows.get(tables.ACLS + acl_id) is not None:
            message = "a new ACL drew an id that is taken: the source of random numbers is broken"
            raise StoreError(message)
        number = self._values.number_of(acl.encode())
        self._rows.put(tables.ACLS + acl_id, _ROWS.encode(_StoredAcl(1, number, number)))
        return acl_id

    def part(self, acl_id: bytes, guid: Guid, acl: Acl) -> VersionOfAcl:
        """Keep an ACL of a file's own, under its GUID, as the next version of the one that it went by until now."""
        value = self._rows.get(tables.ACLS + acl_id)
        if value is None or self._rows.get(tables.ACLS + guid.octets) is not None:
            message = f"GUID {guid} cannot get an ACL of its own: restore the store from its backup"
            raise StoreError(message)
        before = _ROWS.decode(value)
        row = _StoredAcl(self._after(before), self._values.number_of(acl.encode()), before.acl)
        self._rows.put(tables.ACLS + guid.octets, _ROWS.encode(row))
        self._epochs.note_acl(guid.octets)
        return VersionOfAcl(guid.octets, row.version, acl)

    def find(self, acl_id: bytes) -> VersionOfAcl | None:
        """Give what an ACL says now."""
        value = self._rows.get(tables.ACLS + acl_id) if len(acl_id) == ACL_ID_SIZE else None
        if value is None:
            return None
        stored = _ROWS.decode(value)
        return VersionOfAcl(acl_id, stored.version, _decode(self._values.value_of(stored.acl)))

    def change(self, acl_id: bytes, acl: Acl) -> VersionOfAcl:
        """Set an ACL that exists, as its next version."""
        value = self._rows.get(tables.ACLS + acl_id)
        if value is None:
            message = "a directory refers to an ACL that is not in the store: restore the store from its backup"
            raise StoreError(message)
        before = _ROWS.decode(value)
        version = self._after(before)
        row = _StoredAcl(version, self._values.number_of(acl.encode()), before.first)
        self._rows.put(tables.ACLS + acl_id, _ROWS.encode(row))
        self._epochs.note_acl(acl_id)
        return VersionOfAcl(acl_id, version, acl)

    def outdo(self, known: VersionOfAcl) -> bool:
        """Give an ACL that says what it said a version of a hundred years hence, for keystores that know a later one.

        Once in a year at most, so that one that lies does not use up all that there are. True where it has a later
        version now, whoever gave it that.
        """
        value = self._rows.get(tables.ACLS + known.id)
        before = None if value is None else _ROWS.decode(value)
        hence = int(1000 * (self._clock() + _CENTURY))
        if before is None or before.version != known.version:
            return before is not None and before.version > known.version
        if before.version > hence - 1000 * _YEAR:
            return False
        row = msgspec.structs.replace(before, version=hence)
        self._rows.put(tables.ACLS + known.id, _ROWS.encode(row))
        self._epochs.note_acl(known.id)
        return True

    def _after(self, before: _StoredAcl) -> int:
        return max(before.version + 1, int(1000 * self._clock()))

    def drop(self, acl_id: bytes) -> None:
        """Forget an ACL that nothing goes by any more; one that was set stays: keystores are told of it by its id."""
        value = self._rows.get(tables.ACLS + acl_id)
        if value is not None and _ROWS.decode(value).version == 1:
            self._rows.delete(tables.ACLS + acl_id)

    def next_end(self, after: float) -> float:
        """Tell when the first entry ends, of those that end after a time, in any ACL that was ever kept."""
        ends = [float("inf")]
        for _, octets in self._rows.scan(tables.ACL_VALUES):
            entries = _decode(octets).entries
            ends += [one.not_after for one in entries if one.not_after is not None and one.not_after > after]
        return min(ends)

    def first(self, acl_id: bytes) -> Acl | None:
        """Give what an ACL said when it was made."""
        value = self._rows.get(tables.ACLS + acl_id) if len(acl_id) == ACL_ID_SIZE else None
        return None if value is None else _decode(self._values.value_of(_ROWS.decode(value).first))


class OwnAclTable:
    """``y`` + directory (8 bytes) + inode number: a file that has an ACL of its own; most directories have none."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def note(self, file: FileRecord, directory: int, shared: bytes) -> None:
        """Note a file, if its ACL is another than the one that the files of its directory share."""
        if file.acl != shared:
            self._rows.put(tables.OWN_ACLS + number_key(directory) + number_key(file.inode), b"\x01")

    def inodes_in(self, directory: int) -> list[int]:
        """Give the inode numbers of those directly in a directory."""
        found = self._rows.scan(tables.OWN_ACLS + number_key(directory))
        return [int.from_bytes(inode, "big") for inode, _ in found]


@functools.lru_cache(maxsize=4096)
def _decode(octets: bytes) -> Acl:
    """Read an ACL; cached, since the directories of a project mostly say the same."""
    try:
        return Acl.decode(octets)
    except MalformedNameError as error:
        message = "a stored ACL is damaged, or of a format that this program does not know"
        raise StoreError(message) from error
