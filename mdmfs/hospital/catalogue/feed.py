"""The feed as rows: which inodes each change touched, for the mounts that keep listings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from mdmfs.access.acl import Acl
from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.records import AclBefore
from mdmfs.hospital.rows import Stored, add_to, counted, number_key
from mdmfs.rows.port import Rows
from mdmfs.wire.messages.files import Changes
from mdmfs.wire.messages.message import MAX_BATCH

_LOOKED_AT: Final = 1000
"""Changes in one look."""
_MARK_SIZE: Final = 8
_VERSION: Final = tables.COUNTERS + b"feed"


class _Change(msgspec.Struct, frozen=True, array_like=True):
    directories: list[int]
    files: list[int]
    acls: list[tuple[int, bool, bytes]] = []
    """Directories whose ACL, or whose files' ACL, was set, and what it said before."""
    own_acls: list[tuple[int, int, bytes, bytes]] = []
    """Directory and inode number of files whose own ACL was set, the ACL's id, and what held before."""
    mark: bytes = b""
    """Random: two histories that a restored backup has parted have other marks under the same version."""


_ROWS: Final = Stored(_Change)


class Feed:
    """What changed in the namespace, version by version: each change of the catalogue, its ACLs and its names is one.

    ``v`` + version (8 bytes): directories and files; the newest ``length`` are kept.
    """

    def __init__(self, rows: Rows, length: int, random: Callable[[int], bytes]) -> None:
        self._rows = rows
        self._random = random
        self._length = length

    def append(self, directories: Iterable[int], files: Iterable[int], acls: Iterable[AclBefore] = ()) -> int:
        """Tell of a change; give its version. Nothing touched is no change."""
        all_acls = list(acls)
        told = [(one.directory, one.is_of_files, one.acl.encode()) for one in all_acls if not one.file]
        own = [(one.directory, one.file, one.acl_id, one.acl.encode()) for one in all_acls if one.file]
        change = _Change(sorted(set(directories)), sorted(set(files)), told, own, self._random(_MARK_SIZE))
        if not change.directories and not change.files and not own:
            return self.version()
        version = add_to(self._rows, _VERSION)
        self._rows.put(tables.FEED + number_key(version), _ROWS.encode(change))
        if version > self._length:
            self._trim(version - self._length)
        return version

    def version(self) -> int:
        """Give the version of the last change; 0 before the first."""
        return counted(self._rows, _VERSION)

    def mark(self, version: int) -> bytes:
        """Give what tells a version of the feed from that of another history; empty where the feed has none of it."""
        value = self._rows.get(tables.FEED + number_key(version)) if 0 <= version <= self.version() else None
        return b"" if value is None else _ROWS.decode(value).mark

    def since(self, version: int, *, limit: int = MAX_BATCH) -> Changes:
        """Give what changed after a version, up to the version that the answer names.

        The answer ends after the change with which it names ``limit`` inodes or more. ``is_reset`` if the feed no
        longer reaches back that far, or has never been there (the store was restored).
        """
        current = self.version()
        if version == current:
            return Changes(current, [], [])
        if not 0 <= version < current or self._rows.get(tables.FEED + number_key(version + 1)) is None:
            return Changes(current, [], [], is_reset=True)
        directories: set[int] = set()
        files: set[int] = set()
        reached = version
        for key, value in self._rows.scan(tables.FEED, number_key(version + 1)):
            change = _ROWS.decode(value)
            directories.update(change.directories)
            files.update(change.files)
            reached = int.from_bytes(key, "big")
            if len(directories) + len(files) >= limit:
                break
        return Changes(reached, sorted(directories), sorted(files))

    def is_untouched(self, directories: Iterable[int], since: int, version: int) -> bool:
        """Ask whether no change between two versions touched directories; no where it is far to look."""
        asked, expected = set(directories), since + 1
        for key, value in self._rows.scan(tables.FEED, number_key(max(0, expected))):
            number = int.from_bytes(key, "big")
            if number >= version:
                return expected == version
            is_too_far = number != expected or number > since + _LOOKED_AT
            if is_too_far or not asked.isdisjoint(_ROWS.decode(value).directories):
                return False
            expected += 1
        return False

    def acls_before(self, since: int, until: int) -> list[AclBefore]:
        """Give what ACLs said before they were set by the changes after ``since``, up to ``until``, oldest first."""
        found: list[AclBefore] = []
        for key, value in self._rows.scan(tables.FEED, number_key(since + 1)):
            if int.from_bytes(key, "big") > until:
                break
            change = _ROWS.decode(value)
            found += [AclBefore(inode, of_files, Acl.decode(acl)) for inode, of_files, acl in change.acls]
            found += [
                AclBefore(directory, is_of_files=False, acl=Acl.decode(acl), file=file, acl_id=acl_id)
                for directory, file, acl_id, acl in change.own_acls
            ]
        return found

    def _trim(self, last: int) -> None:
        """Forget the changes up to ``last``; more than one where the feed's length was made smaller."""
        old = []
        for key, _ in self._rows.scan(tables.FEED):
            if int.from_bytes(key, "big") > last:
                break
            old.append(key)
        for key in old:
            self._rows.delete(tables.FEED + key)


def begin_anew(rows: Rows) -> None:
    """Forget all changes, so that whoever follows takes all that he holds for outdated."""
    for key in [key for key, _ in rows.scan(tables.FEED)]:
        rows.delete(tables.FEED + key)
    add_to(rows, _VERSION)
