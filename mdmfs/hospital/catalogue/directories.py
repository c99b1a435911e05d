"""Directories as rows: what is seen under a name, what is only reserved, and how directories appear and vanish."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.comments import Ahead, CommentTable
from mdmfs.hospital.catalogue.entries import DIRECTORY, NEW_FILE, Entry, Held
from mdmfs.hospital.catalogue.records import ROOT_INODE, DirectoryRecord, Page
from mdmfs.hospital.catalogue.times import BEGINNING
from mdmfs.hospital.rows import Numbers, Stored, number_key
from mdmfs.model.errors import NoSuchFileError, NotADirectoryFileError, StoreError
from mdmfs.model.names import MAX_NAME_BYTES, Lfn
from mdmfs.rows.port import Rows
from mdmfs.wire.messages.files import Node

_REMEMBERED: Final = 1000
"""Directories of which a transaction remembers what it read."""
_RECORDS: Final = Stored(DirectoryRecord)
_ENTRIES: Final = Stored(Entry)


class DirectoryTable:
    """``d`` + inode number: the directory. ``e`` + parent + name: an entry. ``r`` + parent + name: a reservation.

    A reservation is what a hidden directory has, and, beside a visible file, the file that is to take over its name.
    Entries are seen, but for new files above the inode number up to which their directory is shown: so those of a
    series all appear by one row, however many they are.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.comments: Final = CommentTable(rows)
        self._inodes: dict[tuple[str, ...], int] = {(): ROOT_INODE}
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

    def above(self, inode: int) -> list[DirectoryRecord]:
        """Give all directories above this one, from the root down, and last itself."""
        record = self.get(inode)
        records = [record]
        while record.inode != ROOT_INODE:
            record = self.get(record.parent)
            records.append(record)
        return records[::-1]

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
        record = DirectoryRecord(self.new_inode(), parent, name, acl, b"", modified, 0, maker)
        self.put(record)
        self.reserve(parent, name, Entry.of_directory(record))
        return record.inode

    def move(self, record: DirectoryRecord, parent: int, name: str) -> None:
        """Give a visible directory another name, which is free; ``settle`` tells the directories that it was in."""
        moved = msgspec.structs.replace(record, parent=parent, name=name)
        self.unlist(record.parent, record.name)
        self.put(moved)
        self.list_entry(parent, name, Entry.of_directory(moved))
        self.comments.move((record.parent, record.name), (parent, name))
        self._inodes = {(): ROOT_INODE}

    def drop(self, record: DirectoryRecord) -> None:
        """Forget a directory that shows no more, and its name."""
        self.release(record.parent, record.name)
        self._rows.delete(tables.DIRECTORIES + number_key(record.inode))
        self._records.pop(record.inode, None)
        self._inodes = {(): ROOT_INODE}

    # Entries

    def visible_entry(self, parent: int, name: str, shown: int | None = None) -> Entry | None:
        """Give what is seen under a name; ``shown`` spares a look at the directory, where it is known."""
        entry = self._entry(_entry_key(parent, name))
        return entry if entry is not None and self._is_seen(parent, entry, shown) else None

    def node(self, parent: int, name: str, shown: int | None = None) -> Node | None:
        """Give what is seen under a name, as a listing shows it; ``shown`` as above."""
        entry = self.visible_entry(parent, name, shown)
        is_commented = entry is not None and bool(self.comments.get(parent, name))
        return None if entry is None else entry.node(name, is_commented=is_commented)

    def reservation(self, parent: int, name: str) -> Entry | None:
        """Give what is hidden under a name."""
        return self._hidden(parent, name, self._entry(_entry_key(parent, name)))

    def held(self, parent: int, name: str) -> Held:
        """Give what is under a name."""
        entry = self._entry(_entry_key(parent, name))
        is_seen = entry is not None and self._is_seen(parent, entry)
        return Held(entry if is_seen else None, self._hidden(parent, name, entry))

    def reserve(self, parent: int, name: str, entry: Entry) -> None:
        """Keep a name for something hidden."""
        self._rows.put(_reservation_key(parent, name), _ENTRIES.encode(entry))

    def release(self, parent: int, name: str) -> bool:
        """Give a reserved name up; False where it was not."""
        return self._rows.delete(_reservation_key(parent, name))

    def reserved_files(self, parent: int) -> list[tuple[str, Entry]]:
        """Give the files that have reserved a name in a directory."""
        rows = self._rows.scan(tables.RESERVATIONS + number_key(parent))
        entries = ((name.decode(), _ENTRIES.decode(value)) for name, value in rows)
        return [(name, entry) for name, entry in entries if entry.is_file]

    def show_all(self, inode: int) -> None:
        """Let all new files of a directory be seen; the directory itself is told by ``settle``."""
        self.put(msgspec.structs.replace(self.get(inode), shown=self.inodes.last()))

    def list_entry(self, parent: int, name: str, entry: Entry) -> None:
        """Let a name be seen; the directory itself is told by ``settle``."""
        self._rows.put(_entry_key(parent, name), _ENTRIES.encode(entry))

    def unlist(self, parent: int, name: str) -> None:
        """Take a visible name away; the directory itself is told by ``settle``."""
        self._rows.delete(_entry_key(parent, name))

    def settle(self, inode: int, change: int, *, latest: float = BEGINNING, now: float | None = None) -> list[int]:
        """Note that a listing changed by so many entries, and let the directory appear or vanish; give all touched.

        It has the time ``now`` if a user did it. What was registered makes it and those above as late as ``latest``,
        and what is taken away changes no time.
        """
        before = self.get(inode)
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
            self.release(after.parent, after.name)
        else:
            self.unlist(after.parent, after.name)
            self.comments.drop(after.parent, after.name)
        return [inode, *self.settle(after.parent, 1 if after.visible else -1, latest=latest, now=now)]

    def advance(self, inode: int, latest: float) -> list[int]:
        """Let a directory and those above it be as late as what was registered below; give those that were not."""
        if latest <= BEGINNING:  # nothing was registered, and no directory is earlier
            return []
        touched = [record for record in self.above(inode) if record.modified < latest]
        for record in touched:
            self.renew(msgspec.structs.replace(record, modified=latest))
        return [record.inode for record in touched]

    def renew(self, record: DirectoryRecord) -> None:
        """Keep a directory, and what stands of it in the one above: the name, or its reservation while it is hidden."""
        self.put(record)
        if record.inode != ROOT_INODE:
            place = self.list_entry if record.visible else self.reserve
            place(record.parent, record.name, Entry.of_directory(record))

    def page(self, inode: int, after: str, limit: int) -> Page:
        """Give a page of the visible entries."""
        shown = self.get(inode).shown
        cut = after.encode()[: MAX_NAME_BYTES + 1]  # no name is longer, and keys have an end
        start = cut + b"\0" if cut else b""
        nodes: list[Node] = []
        acls: dict[int, bytes] = {}
        commented = Ahead(self.comments.names(inode, start))
        rows = self._rows.scan(tables.ENTRIES + number_key(inode), start)
        for name, value in rows:
            entry = _ENTRIES.decode(value)
            if entry.kind == NEW_FILE and entry.inode > shown:
                continue
            if len(nodes) == limit:
                return Page(nodes, acls, is_last=False)
            nodes.append(entry.node(name.decode(), is_commented=commented.holds(name)))
            if entry.kind == DIRECTORY:
                acls[entry.inode] = entry.reference
        return Page(nodes, acls, is_last=True)

    def visible_entries(self, inode: int) -> list[tuple[str, Entry]]:
        """Give all that is seen directly in a directory."""
        shown, rows = self.get(inode).shown, self._rows.scan(tables.ENTRIES + number_key(inode))
        entries = ((name.decode(), _ENTRIES.decode(value)) for name, value in rows)
        return [(name, entry) for name, entry in entries if entry.is_seen(shown)]

    def below(self, lfn: Lfn) -> Iterator[Lfn]:
        """Go through a directory and all below it, seen or hidden, each before what is in it; none where it is none."""
        inode = self.inode_of(lfn)
        waiting = [] if inode is None else [(lfn, inode)]
        while waiting:
            directory, number = waiting.pop()
            yield directory
            waiting += [(directory / name, below) for name, below in self.subdirectories(number)]

    def has_files(self, inode: int) -> bool:
        """Ask whether a file has a name in a directory or below it, seen or not; where one is seen, few rows tell."""
        waiting = [inode]
        while waiting:
            parent = waiting.pop()
            for table in (
                tables.RESERVATIONS,
                tables.ENTRIES,
            ):  # the directories that are seen last, and looked at first
                for _, value in self._rows.scan(table + number_key(parent)):
                    entry = _ENTRIES.decode(value)
                    if entry.is_file:
                        return True
                    if entry.is_directory:
                        waiting.append(entry.inode)
        return False

    def subdirectories(self, inode: int) -> list[tuple[str, int]]:
        """Give the names and inode numbers of the directories directly in a directory, seen or hidden."""
        found: list[tuple[str, int]] = []
        for table in (tables.ENTRIES, tables.RESERVATIONS):
            for name, value in self._rows.scan(table + number_key(inode)):
                entry = _ENTRIES.decode(value)
                if entry.is_directory:
                    found.append((name.decode(), entry.inode))
        return found

    def _inode_of(self, parts: tuple[str, ...]) -> int | None:
        known = self._inodes.get(parts)
        parent = None if known is not None else self._inode_of(parts[:-1])
        if parent is None:
            return known
        entry = self.visible_entry(parent, parts[-1]) or self.reservation(parent, parts[-1])
        if entry is None:
            return None
        if not entry.is_directory:
            message = f"{Lfn(parts)} is a file, not a directory"
            raise NotADirectoryFileError(message)
        self._inodes[parts] = entry.inode
        return entry.inode

    def _is_seen(self, parent: int, entry: Entry, shown: int | None = None) -> bool:
        if entry.kind != NEW_FILE:
            return True
        return entry.is_seen(self.get(parent).shown if shown is None else shown)

    def _hidden(self, parent: int, name: str, entry: Entry | None) -> Entry | None:
        """Give what is hidden under a name, beside the entry that is there."""
        if entry is not None and not self._is_seen(parent, entry):
            return entry
        return self._entry(_reservation_key(parent, name))

    def _remember(self, record: DirectoryRecord) -> DirectoryRecord:
        if len(self._records) >= _REMEMBERED:
            self._records.clear()
        self._records[record.inode] = record
        return record

    def _entry(self, key: bytes) -> Entry | None:
        value = self._rows.get(key)
        return None if value is None else _ENTRIES.decode(value)


def _entry_key(parent: int, name: str) -> bytes:
    return tables.ENTRIES + number_key(parent) + name.encode()


def _reservation_key(parent: int, name: str) -> bytes:
    return tables.RESERVATIONS + number_key(parent) + name.encode()
