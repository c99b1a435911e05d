"""Entries as rows: what is seen under the names of a directory, and what is only reserved."""

from __future__ import annotations

from typing import Final

from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.comments import Ahead, CommentTable
from mdmfs.hospital.catalogue.directories import DirectoryTable
from mdmfs.hospital.catalogue.entries import DIRECTORY, NEW_FILE, Entry, Held
from mdmfs.hospital.catalogue.records import Page
from mdmfs.hospital.rows import Stored, number_key
from mdmfs.model.names import MAX_NAME_BYTES
from mdmfs.rows.port import Rows
from mdmfs.wire.messages.files import Node

_ENTRIES: Final = Stored(Entry)


class EntryTable:
    """``e`` + parent + name: an entry. ``r`` + parent + name: a reservation.

    A reservation is what a hidden directory has, and, beside a visible file, the file that is to take over its name.
    Entries are seen, but for new files above the inode number up to which their directory is shown: so those of a
    series all appear by one row, however many they are.
    """

    def __init__(self, rows: Rows, directories: DirectoryTable) -> None:
        self._rows = rows
        self._directories = directories
        self.comments: Final = CommentTable(rows)

    def visible(self, parent: int, name: str, shown: int | None = None) -> Entry | None:
        """Give what is seen under a name; ``shown`` spares a look at the directory, where it is known."""
        entry = self._entry(_entry_key(parent, name))
        return entry if entry is not None and self._is_seen(parent, entry, shown) else None

    def hidden(self, parent: int, name: str) -> Entry | None:
        """Give what is hidden under a name."""
        return self._hidden(parent, name, self._entry(_entry_key(parent, name)))

    def held(self, parent: int, name: str) -> Held:
        """Give what is under a name."""
        entry = self._entry(_entry_key(parent, name))
        is_seen = entry is not None and self._is_seen(parent, entry)
        return Held(entry if is_seen else None, self._hidden(parent, name, entry))

    def node(self, parent: int, name: str, shown: int | None = None) -> Node | None:
        """Give what is seen under a name, as a listing shows it; ``shown`` as above."""
        entry = self.visible(parent, name, shown)
        is_commented = entry is not None and bool(self.comments.get(parent, name))
        return None if entry is None else entry.node(name, is_commented=is_commented)

    def page(self, inode: int, after: str, limit: int) -> Page:
        """Give a page of the visible entries."""
        shown = self._directories.get(inode).shown
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

    def visible_in(self, inode: int) -> list[tuple[str, Entry]]:
        """Give all that is seen directly in a directory."""
        shown, rows = self._directories.get(inode).shown, self._rows.scan(tables.ENTRIES + number_key(inode))
        entries = ((name.decode(), _ENTRIES.decode(value)) for name, value in rows)
        return [(name, entry) for name, entry in entries if entry.is_seen(shown)]

    def reserved_files(self, parent: int) -> list[tuple[str, Entry]]:
        """Give the files that have reserved a name in a directory."""
        rows = self._rows.scan(tables.RESERVATIONS + number_key(parent))
        entries = ((name.decode(), _ENTRIES.decode(value)) for name, value in rows)
        return [(name, entry) for name, entry in entries if entry.is_file]

    def subdirectories(self, inode: int) -> list[tuple[str, int]]:
        """Give the names and inode numbers of the directories directly in a directory, seen or hidden."""
        found: list[tuple[str, int]] = []
        for table in (tables.ENTRIES, tables.RESERVATIONS):
            for name, value in self._rows.scan(table + number_key(inode)):
                entry = _ENTRIES.decode(value)
                if entry.is_directory:
                    found.append((name.decode(), entry.inode))
        return found

    def has_files(self, inode: int) -> bool:
        """Ask whether a file has a name in a directory or below it, seen or not; where one is seen, few rows tell."""
        waiting = [inode]
        while waiting:
            parent = waiting.pop()
            # the directories that are seen last, and looked at first
            for table in (tables.RESERVATIONS, tables.ENTRIES):
                for _, value in self._rows.scan(table + number_key(parent)):
                    entry = _ENTRIES.decode(value)
                    if entry.is_file:
                        return True
                    if entry.is_directory:
                        waiting.append(entry.inode)
        return False

    # Changes

    def list_entry(self, parent: int, name: str, entry: Entry) -> None:
        """Let a name be seen; the directory itself is told by ``DirectoryTree.settle``."""
        self._rows.put(_entry_key(parent, name), _ENTRIES.encode(entry))

    def unlist(self, parent: int, name: str) -> None:
        """Take a visible name away; the directory itself is told as above."""
        self._rows.delete(_entry_key(parent, name))

    def remove(self, parent: int, name: str) -> None:
        """Take a visible name away, and what users say of it; the directory itself is told as above."""
        self.unlist(parent, name)
        self.comments.drop(parent, name)

    def move(self, old: tuple[int, str], new: tuple[int, str], entry: Entry) -> None:
        """Give what is seen under a name another one, which is free, with what users say of it."""
        self.unlist(*old)
        self.list_entry(*new, entry)
        self.comments.move(old, new)

    def reserve(self, parent: int, name: str, entry: Entry) -> None:
        """Keep a name for something hidden."""
        self._rows.put(_reservation_key(parent, name), _ENTRIES.encode(entry))

    def release(self, parent: int, name: str) -> bool:
        """Give a reserved name up; False where it was not."""
        return self._rows.delete(_reservation_key(parent, name))

    def _is_seen(self, parent: int, entry: Entry, shown: int | None = None) -> bool:
        if entry.kind != NEW_FILE:
            return True
        return entry.is_seen(self._directories.get(parent).shown if shown is None else shown)

    def _hidden(self, parent: int, name: str, entry: Entry | None) -> Entry | None:
        """Give what is hidden under a name, beside the entry that is there."""
        if entry is not None and not self._is_seen(parent, entry):
            return entry
        return self._entry(_reservation_key(parent, name))

    def _entry(self, key: bytes) -> Entry | None:
        value = self._rows.get(key)
        return None if value is None else _ENTRIES.decode(value)


def _entry_key(parent: int, name: str) -> bytes:
    return tables.ENTRIES + number_key(parent) + name.encode()


def _reservation_key(parent: int, name: str) -> bytes:
    return tables.RESERVATIONS + number_key(parent) + name.encode()
