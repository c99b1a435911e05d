"""What stands under a name of a directory: a file, a directory or an alias, seen or not."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from mdmfs.hospital.catalogue.records import DirectoryRecord
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.files import Node, NodeKind

DIRECTORY: Final = 1
_FILE: Final = 2
_ALIAS: Final = 3
NEW_FILE: Final = 4
"""A file that is seen from when its directory is shown up to its inode number."""
_FILES: Final = frozenset({_FILE, NEW_FILE})


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What stands under a name: enough for a listing."""

    kind: int
    inode: int
    size: int
    """Of a directory: up to which inode number it is shown."""
    modified: float
    reference: bytes
    """A file's GUID, a directory's ACL id, the LFN that an alias leads to."""
    maker: int = 0
    """Who made an alias or a collection, by number."""

    @property
    def is_directory(self) -> bool:
        """Whether it is one."""
        return self.kind == DIRECTORY

    @property
    def is_file(self) -> bool:
        """Whether it is one."""
        return self.kind in _FILES

    @property
    def is_alias(self) -> bool:
        """Whether it is one."""
        return self.kind == _ALIAS

    @classmethod
    def of_alias(cls, inode: int, target: Lfn, made: float, maker: int) -> Entry:
        """Make an alias's."""
        return cls(_ALIAS, inode, 0, made, str(target).encode(), maker)

    @classmethod
    def of_file(cls, inode: int, size: int, modified: float, guid: bytes, *, is_new: bool = False) -> Entry:
        """Make a file's; a new one is seen from when its directory is shown up to its inode number."""
        return cls(NEW_FILE if is_new else _FILE, inode, size, modified, guid)

    @classmethod
    def of_directory(cls, record: DirectoryRecord) -> Entry:
        """Make a directory's."""
        return cls(DIRECTORY, record.inode, record.shown, record.modified, record.acl, record.maker)

    def is_seen(self, shown: int) -> bool:
        """Ask whether it is seen in a directory that is shown up to an inode number."""
        return self.kind != NEW_FILE or self.inode <= shown

    def node(self, name: str, *, is_commented: bool = False) -> Node:
        """Give what a listing shows."""
        if self.kind in _FILES:
            return Node(
                name, self.inode, NodeKind.FILE, self.size, self.modified, self.reference, is_commented=is_commented
            )
        target = self.reference.decode() if self.is_alias else ""
        kind = NodeKind.LINK if self.is_alias else NodeKind.DIRECTORY
        return Node(
            name,
            self.inode,
            kind,
            len(self.reference) if self.is_alias else 0,
            self.modified,
            target=target,
            is_made=bool(self.maker),
            is_commented=is_commented,
        )


class Held(NamedTuple):
    """What is under a name."""

    visible: Entry | None
    hidden: Entry | None
