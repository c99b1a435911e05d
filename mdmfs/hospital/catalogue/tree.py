"""The tree of directories: which one a name leads to, and how each appears and vanishes with what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from mdmfs.hospital.catalogue.directories import DirectoryTable
from mdmfs.hospital.catalogue.entries import Entry
from mdmfs.hospital.catalogue.listings import EntryTable
from mdmfs.hospital.catalogue.records import ROOT_INODE, DirectoryRecord
from mdmfs.hospital.catalogue.times import BEGINNING
from mdmfs.model.errors import NotADirectoryFileError, StoreError
from mdmfs.model.names import Lfn
from mdmfs.rows.port import Rows


class DirectoryTree:
    """``directories`` and what stands in them, ``entries``, kept as one."""

    def __init__(self, rows: Rows) -> None:
        self.directories: Final = DirectoryTable(rows)
        self.entries: Final = EntryTable(rows, self.directories)
        self._inodes: dict[tuple[str, ...], int] = {(): ROOT_INODE}

    def inode_of(self, lfn: Lfn) -> int | None:
        """Give the inode number of a directory, seen or hidden; None where the name is free.

        Raises ``NotADirectoryFileError`` where a file or an alias is. Numbers are remembered until one is moved.
        """
        return self._inode_of(lfn.parts)

    def inode_above(self, lfn: Lfn) -> int | None:
        """Give the inode number of the directory that a name is in, as ``inode_of``; the root is in itself."""
        return self._inode_of(lfn.parts[:-1])

    def make(self, parent: int, name: str, acl: bytes, *, modified: float = BEGINNING, maker: int = 0) -> int:
        """Make a hidden directory under a name that is free; give its inode number."""
        record = DirectoryRecord(self.directories.new_inode(), parent, name, acl, b"", modified, 0, maker)
        self.directories.put(record)
        self.entries.reserve(parent, name, Entry.of_directory(record))
        return record.inode

    def move(self, record: DirectoryRecord, parent: int, name: str) -> None:
        """Give a visible directory another name, which is free; ``settle`` tells the directories that it was in."""
        moved = msgspec.structs.replace(record, parent=parent, name=name)
        self.directories.put(moved)
        self.entries.move((record.parent, record.name), (parent, name), Entry.of_directory(moved))
        self._inodes = {(): ROOT_INODE}

    def drop(self, record: DirectoryRecord) -> None:
        """Forget a directory that shows no more, and its name."""
        self.entries.release(record.parent, record.name)
        self.directories.forget(record.inode)
        self._inodes = {(): ROOT_INODE}

    def show_all(self, inode: int) -> None:
        """Let all new files of a directory be seen; the directory itself is told by ``settle``."""
        self.directories.put(msgspec.structs.replace(self.directories.get(inode), shown=self.directories.inodes.last()))

    def settle(self, inode: int, change: int, *, latest: float = BEGINNING, now: float | None = None) -> list[int]:
        """Note that a listing changed by so many entries, and let the directory appear or vanish; give all touched.

        It has the time ``now`` if a user did it. What was registered makes it and those above as late as ``latest``,
        and what is taken away changes no time.
        """
        before = self.directories.get(inode)
        modified = max(before.modified, latest) if now is None else now
        after = msgspec.structs.replace(before, visible=before.visible + change, modified=modified)
        if after.visible < 0:
            message = f"the directory with inode number {inode} counts fewer entries than it lost: restore the store"
            raise StoreError(message)
        self.renew(after)
        if inode == ROOT_INODE:
            return [inode]
        if bool(before.visible) == bool(after.visible):
            return [inode, *self.advance(after.parent, latest)]
        if after.visible:
            self.entries.release(after.parent, after.name)
        else:
            self.entries.remove(after.parent, after.name)
        return [inode, *self.settle(after.parent, 1 if after.visible else -1, latest=latest, now=now)]

    def advance(self, inode: int, latest: float) -> list[int]:
        """Let a directory and those above it be as late as what was registered below; give those that were not."""
        if latest <= BEGINNING:  # nothing was registered, and no directory is earlier
            return []
        touched = [record for record in self.directories.above(inode) if record.modified < latest]
        for record in touched:
            self.renew(msgspec.structs.replace(record, modified=latest))
        return [record.inode for record in touched]

    def renew(self, record: DirectoryRecord) -> None:
        """Keep a directory, and what stands of it in the one above: the name, or its reservation while it is hidden."""
        self.directories.put(record)
        if record.inode != ROOT_INODE:
            place = self.entries.list_entry if record.visible else self.entries.reserve
            place(record.parent, record.name, Entry.of_directory(record))

    def below(self, lfn: Lfn) -> Iterator[Lfn]:
        """Go through a directory and all below it, seen or hidden, each before what is in it; none where it is none."""
        inode = self.inode_of(lfn)
        waiting = [] if inode is None else [(lfn, inode)]
        while waiting:
            directory, number = waiting.pop()
            yield directory
            waiting += [(directory / name, below) for name, below in self.entries.subdirectories(number)]

    def _inode_of(self, parts: tuple[str, ...]) -> int | None:
        known = self._inodes.get(parts)
        parent = None if known is not None else self._inode_of(parts[:-1])
        if parent is None:
            return known
        entry = self.entries.visible(parent, parts[-1]) or self.entries.hidden(parent, parts[-1])
        if entry is None:
            return None
        if not entry.is_directory:
            message = f"{Lfn(parts)} is a file, not a directory"
            raise NotADirectoryFileError(message)
        self._inodes[parts] = entry.inode
        return entry.inode
