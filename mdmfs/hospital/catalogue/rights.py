"""Who may use the catalogue, over ordered rows: the ACLs of its directories, and of their files.

Each directory has an ACL id of its own, and the files directly in it share a second one: ``Acls.set`` never changes
more than it names, and a change is one message however many files there are. ACL ids are random.
"""

from __future__ import annotations

from typing import Final

import msgspec

from mdmfs.access.acl import Acl, Entry, EntryKind, Right
from mdmfs.hospital.catalogue.acls import AclTable, OwnAclTable
from mdmfs.hospital.catalogue.feed import Feed
from mdmfs.hospital.catalogue.files import FileTable
from mdmfs.hospital.catalogue.records import AclBefore, DirectoryRecord, FileRecord, VersionOfAcl
from mdmfs.hospital.catalogue.tree import DirectoryTree
from mdmfs.model.errors import NoSuchFileError
from mdmfs.model.names import Guid, Lfn
from mdmfs.rows.port import Rows

OWNERS: Final = (
    Entry(EntryKind.OWNER, "", (Right.READ | Right.WRITE | Right.TRAVERSE | Right.ADMINISTER).value),
    Entry(EntryKind.MASK, "", (Right.READ | Right.TRAVERSE).value),
)
"""What the directories above all projects begin with."""


class Acls:
    """Who may use what is in the namespace, as one transaction sees it."""

    def __init__(self, rows: Rows, tree: DirectoryTree, files: FileTable, acls: AclTable, feed: Feed) -> None:
        self._tree = tree
        self._directories = tree.directories
        self._files = files
        self._acls = acls
        self._feed = feed
        self._own_acls = OwnAclTable(rows)

    # Questions

    def find(self, acl_id: bytes) -> VersionOfAcl | None:
        """Give what an ACL says now; None for an id that is not known."""
        return self._acls.find(acl_id)

    def first(self, acl_id: bytes) -> Acl | None:
        """Give what an ACL said when it was made; None for an id that is not known."""
        return self._acls.first(acl_id)

    def next_end(self, after: float) -> float:
        """Tell when the first entry of an ACL ends, of those that end after a time; infinity where none does.

        Counted are ACLs too that no longer are what some directory has.
        """
        return self._acls.next_end(after)

    def ids_of(self, lfn: Lfn) -> tuple[bytes, bytes]:
        """Give the ids of a directory's own ACL and of the one that its files share, empty where it never had a file.

        Hidden directories count. Raises ``NoSuchFileError`` and ``NotADirectoryFileError``.
        """
        record = self._directory(lfn)
        return record.acl, record.file_acl

    def ids_above(self, inode: int) -> list[bytes]:
        """Give the ids of the ACLs of all directories above this one, the root's first, and last its own.

        An id may be empty: no ACL, closed. Raises ``NoSuchFileError`` if there is no such directory.
        """
        return [record.acl for record in self._directories.above(inode)]

    def chains_of(self, guid: Guid) -> list[list[bytes]]:
        """Give the chain of each name of a file: the ids of the ACLs of all directories above it, and last its own.

        That of a withdrawn file is empty: nobody may open it. Raises ``NoSuchFileError`` for an unknown GUID.
        """
        file = self._files.get(guid)
        return [[*self.ids_above(place.parent), file.acl] for place in file.places]

    def files_apart(self, lfn: Lfn) -> list[FileRecord]:
        """Give the files directly in a directory that have an ACL of their own, in all states but WITHDRAWN."""
        inode = self._tree.inode_of(lfn)
        return [] if inode is None else [file for file in self._apart(inode) if file.places]

    # Changes

    def set(self, lfn: Lfn, acl: Acl, *, files: bool = False) -> VersionOfAcl:
        """Set the next version of a directory's ACL, or with ``files`` of the one that the files directly in it share.

        Hidden directories count. The feed names the directory and the one above it, and keeps what the ACL said before
        (``Feed.acls_before``): who has lost something can be told. Raises ``NoSuchFileError`` if there is no such
        directory, or with ``files`` if it never had a file, and ``NotADirectoryFileError`` for the name of a file.
        """
        record = self._directory(lfn)
        acl_id = record.file_acl if files else record.acl
        if not acl_id:
            message = f"{lfn} has no {'files' if files else 'ACL'} yet: there is nothing to set"
            raise NoSuchFileError(message)
        before = self._acls.find(acl_id)
        changed = self._acls.change(acl_id, acl)
        if before is not None:
            self._feed.append((record.inode, record.parent), (), (AclBefore(record.inode, files, before.acl),))
        return changed

    def set_of_file(self, guid: Guid, acl: Acl) -> VersionOfAcl:
        """Set the ACL of one file, in any state but WITHDRAWN: its own from then on, and its GUID is the id.

        Files that took the name of this one over since then go by the same. Its first version follows that of the ACL
        it shared before. The feed has no inode for it, but its ``acls_before`` has. Raises ``NoSuchFileError``.
        """
        file = self._files.get(guid)
        if not file.places:
            message = f"GUID {guid} is withdrawn and has no name: nobody can open it"
            raise NoSuchFileError(message)
        parent = file.places[0].parent
        shared, before = self._directories.get(parent).file_acl, self._acls.find(file.acl)
        if file.acl != shared:
            changed = self._acls.change(file.acl, acl)
        else:
            changed = self._acls.part(shared, guid, acl)
            file = msgspec.structs.replace(file, acl=changed.id)
            self._files.put(file)
            self._own_acls.note(file, parent, shared)
        if before is not None:
            told = (
                AclBefore(parent, file=one.inode, is_of_files=False, acl=before.acl, acl_id=changed.id)
                for one in self._apart(parent)
                if one.acl == file.acl  # those that had the name before, and after
            )
            self._feed.append((), (), told)
        return changed

    def outdo(self, known: VersionOfAcl) -> bool:
        """Let an ACL say the same as a version later than any of a clock, where a keystore knows a later one.

        True where it has a later version now; False where it had one so late already.
        """
        return self._acls.outdo(known)

    # Steps

    def _directory(self, lfn: Lfn) -> DirectoryRecord:
        inode = self._tree.inode_of(lfn)
        if inode is None:
            message = f"there is no directory {lfn}"
            raise NoSuchFileError(message)
        return self._directories.get(inode)

    def _apart(self, directory: int) -> list[FileRecord]:
        return [self._files.at(inode) for inode in self._own_acls.inodes_in(directory)]
