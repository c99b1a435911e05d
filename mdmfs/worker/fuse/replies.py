"""What the kernel is told of a node: its attributes, and for how long it may remember them."""

from __future__ import annotations

import stat
from typing import Final

from pyfuse3 import EntryAttributes, InodeT, ModeT

from mdmfs.wire.messages.files import Node, NodeKind
from mdmfs.worker.callers.seat import Seat

POSITIVE_SECONDS: Final = 300.0
"""At most: no name and no attribute is remembered beyond the lease under which it was told."""
_MODES: Final = {
    NodeKind.DIRECTORY: stat.S_IFDIR | 0o555,
    NodeKind.FILE: stat.S_IFREG | 0o444,
    NodeKind.LINK: stat.S_IFLNK | 0o777,
}
_COLLECTION_MODE: Final = stat.S_IFDIR | 0o755
_BLOCK: Final = 512
PREFERRED_READ: Final = 8 * 2**10
"""Python's files, and pydicom with them, read in pieces of this size, whatever they want: longer ones would go beyond
what comes with a header (8 KiB), and recall the pixels. Programs that copy take 128 KiB anyway."""


def entry_of(node: Node, seat: Seat) -> EntryAttributes:
    """Say all that the kernel asks about a node."""
    entry = blank(seat)
    limit(entry, node, seat)
    fill(entry, node)
    return entry


def blank(seat: Seat) -> EntryAttributes:
    """Give what is the same for all entries of a seat; the rest is 0 (pyfuse3)."""
    entry = EntryAttributes()
    # A directory's subdirectories are not counted; 1 says so, 2 would tell `find` that there are none.
    entry.st_nlink = 1
    entry.st_uid, entry.st_gid = seat.uid, seat.gid
    entry.st_blksize = PREFERRED_READ
    return entry


def limit(entry: EntryAttributes, node: Node, seat: Seat) -> None:
    """Say for how long it may be remembered."""
    entry.entry_timeout = entry.attr_timeout = min(POSITIVE_SECONDS, seat.files.seconds_held(node))


def fill(entry: EntryAttributes, node: Node, before: Node | None = None) -> None:
    """Say what is another for each entry; a directory may have a hundred thousand.

    ``before`` is what it was filled with last: the files of a series have one day.
    """
    entry.st_ino = node.inode
    entry.st_size = node.size
    entry.st_blocks = -(-node.size // _BLOCK)
    if before is None or node.kind is not before.kind or node.is_made != before.is_made:
        is_collection = node.is_made and node.kind is NodeKind.DIRECTORY
        entry.st_mode = ModeT(_COLLECTION_MODE if is_collection else _MODES[node.kind])
    if before is None or node.modified != before.modified:
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = round(node.modified * 1e6) * 1000


def nothing(seat: Seat) -> EntryAttributes:
    """Say that there is no such name, in the form that the kernel remembers."""
    entry = EntryAttributes()
    entry.st_ino = InodeT(0)
    entry.entry_timeout = seat.seconds_absent
    return entry
