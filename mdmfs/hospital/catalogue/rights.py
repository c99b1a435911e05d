"""Who may use the catalogue, over ordered rows: the ACLs of its directories, and of their files."""

from __future__ import annotations

import msgspec

from mdmfs.access.acl import Acl
from mdmfs.hospital.catalogue.acls import AclTable, OwnAclTable
from mdmfs.hospital.catalogue.feed import RowsOfFeed
from mdmfs.hospital.catalogue.files import FileTable
from mdmfs.hospital.catalogue.records import AclBefore, DirectoryRecord, FileRecord, VersionOfAcl
from mdmfs.hospital.catalogue.tree import DirectoryTree
from mdmfs.model.errors import NoSuchFileError
from mdmfs.model.names import Guid, Lfn
from mdmfs.rows.port import Rows


class RowsOfAcls:
    """``Acls`` over ordered rows."""

    def __init__(self, rows: Rows, tree: DirectoryTree, files: FileTable, acls: AclTable, feed: RowsOfFeed) -> None:
        self._tree = tree
        self._directories = tree.directories
        self._files = files
        self._acls = acls
        self._feed = feed
        self._own_acls = OwnAclTable(rows)

    # Questions

    def find(self, acl_id: bytes) -> VersionOfAcl | None:
        """Give what an ACL says now."""
        return self._acls.find(acl_id)

    def first(self, acl_id: bytes) -> Acl | None:
        """Give what an ACL said when it was made."""
        return self._acls.first(acl_id)

    def next_end(self, after: float) -> float:
        """Tell when the first entry of an ACL ends, of those that end after a time."""
        return self._acls.next_end(after)

    def ids_of(self, lfn: Lfn) -> tuple[bytes, bytes]:
        """Give the ids of a directory's own ACL and of the one that its files share."""
        record = self._directory(lfn)
        return record.acl, record.file_acl

    def ids_above(self, inode: int) -> list[bytes]:
        """Give the ids of the ACLs of all directories above this one, and last its own."""
        return [record.acl for record in self._directories.above(inode)]

    def chains_of(self, guid: Guid) -> list[list[bytes]]:
        """Give the chain of each name of a file: the ids of the ACLs above it, and last its own."""
        file = self._files.get(guid)
        return [[*self.ids_above(place.parent), file.acl] for place in file.places]

    def files_apart(self, lfn: Lfn) -> list[FileRecord]:
        """Give the files directly in a directory that have an ACL of their own, in all states but WITHDRAWN."""
        inode = self._tree.inode_of(lfn)
        return [] if inode is None else [file for file in self._apart(inode) if file.places]

    # Changes

    def set(self, lfn: Lfn, acl: Acl, *, files: bool = False) -> VersionOfAcl:
        """Set the ACL of a directory, or of the files directly in it, as its next version."""
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
        """Set the ACL of one file, which is its own from then on."""
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
        """Let an ACL of this version say the same as a much later one."""
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
