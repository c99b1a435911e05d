"""File systems of pyfuse3 that do nothing: what names, attributes and opens cost when nobody decides anything."""

# ruff: noqa: ARG002 the signatures are those of pyfuse3.Operations

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pyfuse3
import trio
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    XAttrNameT,
)

from mdmfs.worker.fuse.loop import wait_eagerly

FOREVER = 3600.0
COPIES = "copies"
EAGER = "eager"


class Empty(pyfuse3.Operations):
    """Folders of empty files with numbers for names, all known beforehand."""

    supports_dot_lookup = False

    def __init__(self, folders: Sequence[tuple[str, int, int]]) -> None:
        super().__init__()
        self._entries: dict[int, dict[bytes, int]] = {pyfuse3.ROOT_INODE: {}}
        inode = pyfuse3.ROOT_INODE
        for name, count, _ in folders:
            inode += 1
            folder = self._entries[pyfuse3.ROOT_INODE][name.encode()] = inode
            self._entries[folder] = {f"{number:06}.dcm".encode(): inode + number for number in range(1, count + 1)}
            inode += count
        self._order = {folder: [*entries.items()] for folder, entries in self._entries.items()}

    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        """Find a name."""
        inode = self._entries[parent_inode].get(name)
        if inode is None:
            raise FUSEError(errno.ENOENT)
        return self._entry(inode)

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        """Give attributes."""
        return self._entry(inode)

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        """Open a directory."""
        return FileHandleT(inode)

    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        """Give as many entries as fit."""
        order, entry = self._order[fh], EntryAttributes()
        for position in range(start_id, len(order)):
            name, inode = order[position]
            entry.st_ino, entry.st_mode = InodeT(inode), ModeT(stat.S_IFREG | 0o444)
            if not pyfuse3.readdir_reply(token, FileNameT(name), entry, position + 1):
                return

    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        """Open a file."""
        return FileInfo(fh=FileHandleT(inode))

    async def release(self, fh: FileHandleT) -> None:
        """Close a file."""

    async def releasedir(self, fh: FileHandleT) -> None:
        """Close a directory."""

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Nothing was counted."""

    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> NoReturn:
        """There is none."""
        raise FUSEError(errno.EOPNOTSUPP)

    def _entry(self, inode: int) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = InodeT(inode)
        entry.st_mode = ModeT(stat.S_IFDIR | 0o555 if inode in self._entries else stat.S_IFREG | 0o444)
        entry.entry_timeout = entry.attr_timeout = FOREVER
        return entry


class Copies(Empty):
    """One folder with the files of a folder of this machine, in the order of their names."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(folder.iterdir())
        super().__init__([(COPIES, len(paths), 0)])
        self._files = {pyfuse3.ROOT_INODE + 2 + at: (path, path.stat().st_size) for at, path in enumerate(paths)}

    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        """Open a file, whose pages the kernel keeps."""
        return FileInfo(fh=FileHandleT(os.open(self._files[inode][0], os.O_RDONLY)), keep_cache=True)

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        """Read a file."""
        return os.pread(fh, size, off)

    async def release(self, fh: FileHandleT) -> None:
        """Close a file."""
        os.close(fh)

    def _entry(self, inode: int) -> EntryAttributes:
        entry = super()._entry(inode)
        if inode in self._files:
            entry.st_size = self._files[inode][1]
        return entry


def main(mountpoint: str, shown: str, loop: str = "") -> None:
    """Mount what is shown, folders of empty files or the files of a folder; say so, and serve until it is unmounted.

    ``loop``: ``EAGER`` to wait for requests as our mounts do.
    """
    if loop == EAGER:
        wait_eagerly(lambda: False)
    empty = json.loads(shown) if shown.startswith("[") else None
    pyfuse3.init(Copies(Path(shown)) if empty is None else Empty(empty), mountpoint, {"fsname=floor", "subtype=floor"})
    try:
        print("ready", flush=True)  # noqa: T201 for who waits for it
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
