"""The catalogue over ordered rows: files and directories under names, and how they come and go.

What is not visible has no name for anybody: ``look_up`` and ``list_page`` know visible files and the directories above
them, nothing else. A directory appears with its first visible file below and vanishes with its last, but is never
deleted: it keeps its inode number and its ACL. Inode numbers are never given twice.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from mdmfs.access.acl import Acl
from mdmfs.hospital.catalogue.acls import AclTable, OwnAclTable
from mdmfs.hospital.catalogue.entries import Entry
from mdmfs.hospital.catalogue.feed import Feed
from mdmfs.hospital.catalogue.files import FileTable
from mdmfs.hospital.catalogue.records import (
    ROOT_INODE,
    DirectoryRecord,
    FileRecord,
    FileState,
    NewFile,
    Page,
    Place,
    Totals,
)
from mdmfs.hospital.catalogue.times import BEGINNING, another
from mdmfs.hospital.catalogue.totals import PendingTable, TotalsChange, TotalsTable
from mdmfs.hospital.catalogue.tree import DirectoryTree
from mdmfs.model.errors import IsADirectoryFileError, NoSuchFileError, StoreError
from mdmfs.model.names import Guid, Lfn
from mdmfs.rows.port import Rows
from mdmfs.wire.messages.files import Node, NodeKind
from mdmfs.wire.messages.message import MAX_BATCH


class Catalogue:
    """The namespace, as one transaction sees it."""

    def __init__(self, rows: Rows, tree: DirectoryTree, files: FileTable, acls: AclTable, feed: Feed) -> None:
        self._tree = tree
        self._directories = tree.directories
        self._entries = tree.entries
        self._files = files
        self._acls = acls
        self._feed = feed
        self._totals = TotalsTable(rows)
        self.pending: Final = PendingTable(rows)
        self._own_acls = OwnAclTable(rows)

    def make_root(self) -> None:
        """Begin an empty namespace; once in a store's life."""
        self._directories.make_root()

    # Registration

    def make_directories(self, lfn: Lfn, *, acl: Acl | None = None) -> int:
        """Make a directory and those missing above it, hidden for now; give its inode number.

        Their time is the latest of what is shown in or below them, 1980 at first, until a user changes them.

        Each missing one (the root counts as missing until it has an ACL) gets ``acl``, or without one what its parent's
        ACL passes on (``Acl.inherited``). What exists stays as it is. Raises ``NotADirectoryFileError`` if a file
        stands in the way and ``StoreError`` if there is no ACL to inherit.
        """
        inode = self._tree.inode_of(lfn)
        if inode is None:
            parent = self.make_directories(lfn.parent, acl=acl)
            acl_id = self._acls.make(acl or self._inherited(parent, lfn))
            return self._tree.make(parent, lfn.name, acl_id)
        if inode == ROOT_INODE and acl is not None:
            root = self._directories.get(ROOT_INODE)
            if not root.acl:
                self._directories.put(msgspec.structs.replace(root, acl=self._acls.make(acl)))
        return inode

    def holder(self, lfn: Lfn) -> Guid | None:
        """Give the GUID that holds or has reserved this name, visible or not; None if a new file may have it.

        Raises ``IsADirectoryFileError`` if it is a directory.
        """
        parent = self._tree.inode_above(lfn)
        if parent is None:
            return None
        held = self._entries.held(parent, lfn.name)
        entry = held.hidden or held.visible
        if entry is None:
            return None
        _refuse_directory(lfn, entry)
        return Guid(entry.reference)

    def add_file(
        self, lfn: Lfn, file: NewFile, *, takes_over: Guid | None = None, like: Guid | None = None
    ) -> FileRecord:
        """Register a file as PENDING: its name is reserved and its ACL is the one that its directory's files share.

        Where ``takes_over``, or ``like``, which had the name before, has an ACL of its own, it goes by that one. It has
        another time than that one, too (``catalogue.times``).

        The directory must exist (``make_directories``), else ``NoSuchFileError``. ``takes_over`` names the visible file
        whose LFN this one will have when it is shown. Raises ``StoreError`` if the GUID is known, if another GUID
        reserved the name, or if one holds it that is not the one to take over; ``IsADirectoryFileError`` as it says.
        """
        parent = self._tree.inode_above(lfn)
        if parent is None or not lfn.parts:
            message = f"there is no directory {lfn.parent} for a new file: make it first"
            raise NoSuchFileError(message)
        self._refuse_taken(lfn, parent, takes_over)
        before = self._before(takes_over or like)
        inode = self._directories.new_inode()
        self._files.admit(file.guid, inode)
        record = FileRecord(
            file.guid,
            inode,
            file.project,
            self._file_acl(parent, lfn) if before is None else before.acl,
            file.generation,
            file.threshold,
            file.key_check,
            FileState.PENDING,
            file.modified if before is None else another(file.modified, before.modified),
            (Place(parent, lfn.name),),
            file.rendition,
        )
        self._files.put(record)
        self._own_acls.note(record, parent, self._directories.get(parent).file_acl)
        if takes_over is None:
            self._entries.list_entry(parent, lfn.name, _entry_of(record, is_new=True))
            self.pending.count(parent, record, 1)
        else:
            self._entries.reserve(parent, lfn.name, _entry_of(record))
        return record

    def show(self, guids: Iterable[Guid]) -> int:
        """Make PENDING or QUARANTINED files VISIBLE, all at once, as one version of the feed; give that version.

        A file taken over becomes SUPERSEDED. Files already visible stay so. Raises ``NoSuchFileError`` for an unknown
        GUID and ``StoreError`` for a withdrawn or superseded one, or if a quarantined one's name has been given away.
        """
        change = _NamespaceChange()
        for guid in guids:
            file = self._files.get(guid)
            if file.state in {FileState.WITHDRAWN, FileState.SUPERSEDED}:
                message = f"GUID {guid} is {file.state.name.lower()} and cannot be shown again"
                raise StoreError(message)
            if file.state is not FileState.VISIBLE:
                for place in file.places:
                    self._show_at(place, file, change)
                self._files.put(msgspec.structs.replace(file, state=FileState.VISIBLE))
                change.totals.count(file, 1)
        return self._apply(change)

    def show_all(self, lfn: Lfn) -> int:
        """Make all files VISIBLE that are PENDING directly in a directory, as ``show`` does; give the feed's version.

        What it writes does not grow with them, but for those that take over names. Raises ``NoSuchFileError``.
        """
        parent = self._tree.inode_of(lfn)
        if parent is None:
            message = f"there is no directory {lfn}"
            raise NoSuchFileError(message)
        change = _NamespaceChange()
        for name, entry in self._entries.reserved_files(parent):
            file = self._files.get(Guid(entry.reference))
            self._show_at(Place(parent, name), file, change)
            change.totals.count(file, 1)
        pending = self.pending.take(parent)
        for project, (files, octets) in pending.totals.items():
            change.list(parent, files, pending.latest)
            change.totals.add(project, files, octets)
        if change.listings:
            self._tree.show_all(parent)
        return self._apply(change)

    def quarantine(self, guids: Iterable[Guid]) -> int:
        """Take files and their names away until they are shown again; give the feed's version. No time changes.

        Withdrawn files stay so. Raises ``NoSuchFileError`` for an unknown GUID.
        """
        change = _NamespaceChange()
        for guid in guids:
            file = self._files.get(guid)
            if file.state not in {FileState.QUARANTINED, FileState.WITHDRAWN}:
                self._hide(file, change)
                self._files.put(msgspec.structs.replace(file, state=FileState.QUARANTINED))
        return self._apply(change)

    def withdraw(self, guids: Iterable[Guid]) -> int:
        """Take files away for ever, whatever state they are in; give the feed's version. No time changes.

        Raises ``NoSuchFileError`` for an unknown GUID.
        """
        change = _NamespaceChange()
        for guid in guids:
            file = self._files.get(guid)
            if file.state is not FileState.WITHDRAWN:
                self._hide(file, change)
                for place in () if file.state is FileState.SUPERSEDED else file.places:  # or the name is another's
                    self._entries.comments.drop(place.parent, place.name)
                self._files.put(msgspec.structs.replace(file, state=FileState.WITHDRAWN, places=()))
        return self._apply(change)

    def replace(self, record: FileRecord) -> None:
        """Change what belongs to a file's key: generation, threshold and check.

        Raises ``NoSuchFileError`` for an unknown GUID and ``StoreError`` if anything else differs.
        """
        before = self._files.get(record.guid)
        same = msgspec.structs.replace(
            record, generation=before.generation, threshold=before.threshold, key_check=before.key_check
        )
        if same != before:
            message = f"only what belongs to the key of GUID {record.guid} can be replaced"
            raise StoreError(message)
        self._files.put(record)
        # no word in the feed: the file is the same, and what is sealed under the old key is found out by its commitment

    # Questions

    def file(self, guid: Guid) -> FileRecord | None:
        """Give a file's record, in whatever state it is."""
        return self._files.find(guid)

    def latest_inode(self) -> int:
        """Give the highest inode number that was given yet: whatever is made later has a higher one."""
        return self._directories.inodes.last()

    def directory(self, inode: int) -> DirectoryRecord | None:
        """Give a directory's record, seen or hidden."""
        return self._directories.find(inode)

    def look_up(self, lfn: Lfn, *, with_aliases: bool = False) -> Node | None:
        """Give the visible file or directory of this name; None where there is none, or a file stands above it.

        An alias is not followed; it is told of to those who ask for it.
        """
        if not lfn.parts:
            return Node("", ROOT_INODE, NodeKind.DIRECTORY, 0, self._directories.get(ROOT_INODE).modified)
        parent, shown = ROOT_INODE, None
        for name in lfn.parts[:-1]:
            above = self._entries.visible(parent, name, shown)
            if above is None or not above.is_directory:
                return None
            parent, shown = above.inode, above.size
        found = self._entries.node(parent, lfn.name, shown)
        return None if found is None or (found.kind is NodeKind.LINK and not with_aliases) else found

    def list_page(self, inode: int, *, after: str = "", limit: int = MAX_BATCH) -> Page:
        """Give the visible entries of a directory whose names come after ``after``, aliases among them.

        Raises ``NoSuchFileError`` if there is no such directory or it is hidden. ``limit`` is at least 1.
        """
        if not self._directories.get(inode).visible and inode != ROOT_INODE:
            message = f"there is no directory with inode number {inode}"
            raise NoSuchFileError(message)
        return self._entries.page(inode, after, max(1, limit))

    def files(self, *, after: int = 0, limit: int = MAX_BATCH) -> list[FileRecord]:
        """Give the files of all projects with inode numbers above ``after``, in all states and in that order."""
        return list(itertools.islice(self._files.from_inode(after), limit))

    def totals(self, project: str | None = None) -> Totals:
        """Count the visible files of a project, or of all."""
        return self._totals.of(project)

    def directories_above(self, inode: int) -> list[DirectoryRecord]:
        """Give all directories above this one, from the root down, and last itself; raises ``NoSuchFileError``."""
        return self._directories.above(inode)

    def directories_below(self, lfn: Lfn) -> list[Lfn]:
        """Give a directory and all below it, seen or hidden, each before what is in it; raises ``NoSuchFileError``."""
        if self._tree.inode_of(lfn) is None:
            message = f"there is no directory {lfn}"
            raise NoSuchFileError(message)
        return list(self._tree.below(lfn))

    def has_files_below(self, lfn: Lfn) -> bool:
        """Ask whether a file has a name in a directory or below it, seen or not; where one is seen, few rows tell.

        What is QUARANTINED has none.
        """
        inode = self._tree.inode_of(lfn)
        return inode is not None and self._entries.has_files(inode)

    # Steps

    def _inherited(self, parent: int, lfn: Lfn) -> Acl:
        above = self._acls.find(self._directories.get(parent).acl)
        if above is None:
            message = f"{lfn.parent} has no ACL that {lfn} could inherit: give one"
            raise StoreError(message)
        return above.acl.inherited()

    def _before(self, guid: Guid | None) -> FileRecord | None:
        """Give the file whose name a new one takes, if there was one: it goes by the same ACL, and has another time."""
        return None if guid is None else self._files.find(guid)

    def _file_acl(self, parent: int, lfn: Lfn) -> bytes:
        """Give the id of the ACL that the files of a directory share."""
        directory = self._directories.get(parent)
        if not directory.file_acl:
            directory = msgspec.structs.replace(directory, file_acl=self._acls.make(self._inherited(parent, lfn)))
            self._directories.put(directory)
        return directory.file_acl

    def _refuse_taken(self, lfn: Lfn, parent: int, takes_over: Guid | None) -> None:
        visible, hidden = self._entries.held(parent, lfn.name)
        for entry in (visible, hidden):
            if entry is not None:
                _refuse_directory(lfn, entry)
        held = None if visible is None else Guid(visible.reference)
        if hidden is not None or held != takes_over:
            message = f"{lfn} is not free, or not held by the file to take it over from"
            raise StoreError(message)

    def _show_at(self, place: Place, file: FileRecord, change: _NamespaceChange) -> None:
        entries = self._entries
        held, hidden = entries.held(place.parent, place.name)
        if file.state is FileState.PENDING:
            if not entries.release(place.parent, place.name):
                self.pending.count(place.parent, file, -1)
        elif held is not None or hidden is not None:
            message = f"the name of GUID {file.guid} has been given away: withdraw it, or the file that has the name"
            raise StoreError(message)
        if held is not None:
            self._supersede(self._files.get(Guid(held.reference)), change)
        entries.list_entry(place.parent, place.name, _entry_of(file))
        change.list(place.parent, 0 if held else 1, file.modified)

    def _supersede(self, file: FileRecord, change: _NamespaceChange) -> None:
        self._files.put(msgspec.structs.replace(file, state=FileState.SUPERSEDED))
        change.files.append(file.inode)
        change.totals.count(file, -1)

    def _hide(self, file: FileRecord, change: _NamespaceChange) -> None:
        for place in file.places:
            if file.state is FileState.PENDING:
                if not self._entries.release(place.parent, place.name):
                    self._entries.unlist(place.parent, place.name)
                    self.pending.count(place.parent, file, -1)
            elif file.state is FileState.VISIBLE:
                self._entries.unlist(place.parent, place.name)
                change.listings[place.parent] -= 1
        if file.state is FileState.VISIBLE:
            change.totals.count(file, -1)
        if file.state is not FileState.PENDING:
            change.files.append(file.inode)

    def _apply(self, change: _NamespaceChange) -> int:
        touched: list[int] = []
        for inode, amount in change.listings.items():
            touched += self._tree.settle(inode, amount, latest=change.latest.get(inode, BEGINNING))
        self._totals.add(change.totals)
        return self._feed.append(touched, change.files)


class _NamespaceChange:
    """What one call does to listings, files and totals; applied at once, however many files there are."""

    def __init__(self) -> None:
        self.listings: Counter[int] = Counter()
        """By how many entries the listing of each directory touched grows or shrinks."""
        self.latest: dict[int, float] = {}
        """The latest time of what each directory shows now and did not before."""
        self.files: list[int] = []
        self.totals = TotalsChange()

    def list(self, directory: int, amount: int, modified: float) -> None:
        """Note that a directory shows so many entries more, none of them later than a time."""
        self.listings[directory] += amount
        self.latest[directory] = max(modified, self.latest.get(directory, BEGINNING))


def _entry_of(file: FileRecord, *, is_new: bool = False) -> Entry:
    return Entry.of_file(file.inode, file.rendition.size, file.modified, file.guid.octets, is_new=is_new)


def _refuse_directory(lfn: Lfn, entry: Entry) -> None:
    if entry.is_directory:
        message = f"{lfn} is a directory"
        raise IsADirectoryFileError(message)
