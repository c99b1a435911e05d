"""ACLs as rows: each under a random id, with the number of times it was set."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

import msgspec

from mdmfs.access.acl import ACL_ID_SIZE, Acl
from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.records import VersionOfAcl
from mdmfs.hospital.ledger.epochs import RowsOfEpochs
from mdmfs.hospital.rows import Rows, Stored
from mdmfs.model.errors import MalformedNameError, StoreError


class _StoredAcl(msgspec.Struct, frozen=True, array_like=True):
    version: int
    acl: bytes


_ROWS: Final = Stored(_StoredAcl)


class AclTable:
    """``a`` + id: version and ACL."""

    def __init__(self, rows: Rows, random: Callable[[int], bytes]) -> None:
        self._rows = rows
        self._random = random
        self._epochs = RowsOfEpochs(rows, random)

    def make(self, acl: Acl) -> bytes:
        """Keep a new ACL; give its id."""
        acl_id = self._random(ACL_ID_SIZE)
        if len(acl_id) != ACL_ID_SIZE or self._rows.get(tables.ACLS + acl_id) is not None:
            message = "a new ACL drew an id that is taken: the source of random numbers is broken"
            raise StoreError(message)
        self._rows.put(tables.ACLS + acl_id, _ROWS.encode(_StoredAcl(1, acl.encode())))
        return acl_id

    def find(self, acl_id: bytes) -> VersionOfAcl | None:
        """Give what an ACL says now."""
        value = self._rows.get(tables.ACLS + acl_id) if len(acl_id) == ACL_ID_SIZE else None
        if value is None:
            return None
        stored = _ROWS.decode(value)
        return VersionOfAcl(acl_id, stored.version, _decode(stored.acl))

    def change(self, acl_id: bytes, acl: Acl) -> VersionOfAcl:
        """Set an ACL that exists, as its next version."""
        before = self.find(acl_id)
        if before is None:
            message = "a directory refers to an ACL that is not in the store: restore the store from its backup"
            raise StoreError(message)
        version = before.version + 1
        self._rows.put(tables.ACLS + acl_id, _ROWS.encode(_StoredAcl(version, acl.encode())))
        self._epochs.note_acl(acl_id)
        return VersionOfAcl(acl_id, version, acl)


@functools.lru_cache(maxsize=4096)
def _decode(octets: bytes) -> Acl:
    """Read an ACL; cached, since the directories of a project mostly say the same."""
    try:
        return Acl.decode(octets)
    except MalformedNameError as error:
        message = "a stored ACL is damaged, or of a format that this program does not know"
        raise StoreError(message) from error
