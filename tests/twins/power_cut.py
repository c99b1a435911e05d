"""A disk on which nothing outlives a power cut but what was synced; mounted in a process of its own, over FUSE.

Contents are kept as they were when their file was last synced, names as they were when their directory was. A real
disk may keep more, such as names that nobody synced, of files whose contents are lost; ``keeps_names`` is such a one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, Self, cast

import pyfuse3
import trio

_CACHED_SECONDS: Final = 300.0
_ROOT: Final = Path(__file__).parents[2]


class UnsyncedDisk:
    """The disk as tests see it."""

    def __init__(self, point: Path, process: subprocess.Popen[str]) -> None:
        self.path: Final = point
        self._process = process
        self._cuts = itertools.count(1)

    def cut(self) -> Path:
        """Give a copy of what there would be after a power cut now; what goes on meanwhile does not change it."""
        left = self.path.with_name(f"after-cut-{next(self._cuts)}")
        asked, told = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)
        asked.write(f"{left}\n")
        asked.flush()
        assert told.readline() == "done\n"
        return left


@contextlib.contextmanager
def unsynced_disk(folder: Path, *, keeps_names: bool) -> Iterator[UnsyncedDisk]:
    """Mount such a disk in a folder."""
    point = folder / "disk"
    point.mkdir()
    command = [sys.executable, "-m", "tests.twins.power_cut", str(point), *["keeps_names"] * keeps_names]
    with subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert cast("IO[str]", process.stdout).readline() == "mounted\n"
            yield UnsyncedDisk(point, process)
        finally:
            subprocess.run(["fusermount3", "-u", "-z", str(point)], check=True)
            process.kill()  # a test that failed may have a file open


@dataclasses.dataclass
class _Node:
    """A file or directory: what is there, and what is on the platter of it."""

    mode: int
    octets: bytearray = dataclasses.field(default_factory=bytearray)
    names: dict[bytes, int] = dataclasses.field(default_factory=dict)
    synced: Self | None = None

    def sync(self) -> None:
        self.synced = type(self)(self.mode, bytearray(self.octets), dict(self.names))


class _Operations(pyfuse3.Operations):  # type: ignore[misc] # it has no types
    enable_writeback_cache = False

    def __init__(self, *, keeps_names: bool) -> None:
        super().__init__()
        self._keeps_names = keeps_names
        self._numbers = itertools.count(pyfuse3.ROOT_INODE + 1)
        self._nodes = {pyfuse3.ROOT_INODE: _Node(stat.S_IFDIR | 0o700)}

    def write_out(self, left: Path, number: int = pyfuse3.ROOT_INODE) -> None:
        """Write what is durable of a node."""
        node = self._nodes[number]
        durable = node.synced or _Node(node.mode)
        if stat.S_ISDIR(node.mode):
            left.mkdir(mode=0o700)
            for name, child in (node if self._keeps_names else durable).names.items():
                self.write_out(left / os.fsdecode(name), child)
        else:
            left.write_bytes(durable.octets)
        left.chmod(stat.S_IMODE(node.mode))

    async def getattr(self, inode: int, _: object = None) -> pyfuse3.EntryAttributes:
        node = self._nodes[inode]
        found = pyfuse3.EntryAttributes()
        found.st_ino, found.st_mode, found.st_size, found.st_nlink = inode, node.mode, len(node.octets), 1
        found.st_uid, found.st_gid = os.getuid(), os.getgid()
        found.attr_timeout = found.entry_timeout = _CACHED_SECONDS
        return found

    async def setattr(
        self, inode: int, attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields, _: object, __: object
    ) -> pyfuse3.EntryAttributes:
        node = self._nodes[inode]
        if fields.update_mode:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(attr.st_mode)
        if fields.update_size:
            node.octets[:] = node.octets[: attr.st_size].ljust(attr.st_size, b"\0")
        return await self.getattr(inode)

    async def lookup(self, parent: int, name: bytes, _: object) -> pyfuse3.EntryAttributes:
        return await self.getattr(self._number_of(parent, name))

    async def statfs(self, _: object) -> pyfuse3.StatvfsData:
        told = pyfuse3.StatvfsData()
        told.f_bsize = told.f_frsize = 4096
        told.f_blocks = told.f_bfree = told.f_bavail = told.f_files = told.f_ffree = told.f_favail = 2**20
        told.f_namemax = 255
        return told

    async def opendir(self, inode: int, _: object) -> int:
        return inode

    async def readdir(self, fh: int, start: int, token: pyfuse3.ReaddirToken) -> None:
        for place, (name, number) in enumerate(self._nodes[fh].names.items(), 1):
            if place > start and not pyfuse3.readdir_reply(token, name, await self.getattr(number), place):
                return

    async def mkdir(self, parent: int, name: bytes, mode: int, _: object) -> pyfuse3.EntryAttributes:
        return await self.getattr(self._make(parent, name, stat.S_IFDIR | mode))

    async def create(
        self, parent: int, name: bytes, mode: int, _: int, __: object
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        number = self._make(parent, name, stat.S_IFREG | mode)
        return await self.open(number), await self.getattr(number)

    async def open(self, inode: int, _: int = 0, __: object = None) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=inode, keep_cache=True)

    async def read(self, fh: int, offset: int, size: int) -> bytes:
        return bytes(self._nodes[fh].octets[offset : offset + size])

    async def write(self, fh: int, offset: int, octets: bytes) -> int:
        kept = self._nodes[fh].octets
        kept.extend(bytes(max(offset - len(kept), 0)))
        kept[offset : offset + len(octets)] = octets
        return len(octets)

    async def fsync(self, fh: int, _: bool) -> None:  # noqa: FBT001 pyfuse3's
        self._nodes[fh].sync()

    async def fsyncdir(self, fh: int, _: bool) -> None:  # noqa: FBT001 pyfuse3's
        self._nodes[fh].sync()

    async def link(self, inode: int, parent: int, name: bytes, _: object) -> pyfuse3.EntryAttributes:
        self._nodes[parent].names[name] = inode
        return await self.getattr(inode)

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, _: int, __: object) -> None:
        number = self._number_of(parent, name)
        del self._nodes[parent].names[name]
        self._nodes[new_parent].names[new_name] = number

    async def unlink(self, parent: int, name: bytes, _: object) -> None:
        del self._nodes[parent].names[name]

    rmdir = unlink

    def _number_of(self, parent: int, name: bytes) -> int:
        number = self._nodes[parent].names.get(name)
        if number is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return number

    def _make(self, parent: int, name: bytes, mode: int) -> int:
        number = next(self._numbers)
        self._nodes[number] = _Node(mode)
        self._nodes[parent].names[name] = number
        return number


async def _serve(point: str, *options: str) -> None:
    operations = _Operations(keeps_names=bool(options))
    pyfuse3.init(operations, point, {*pyfuse3.default_options, "fsname=unsynced"})
    _say("mounted")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_obey, operations)
        await pyfuse3.main()
        nursery.cancel_scope.cancel()
    pyfuse3.close(unmount=False)


async def _obey(operations: _Operations) -> None:
    async for line in trio.wrap_file(sys.stdin):
        operations.write_out(Path(line.rstrip("\n")))
        _say("done")


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    trio.run(_serve, *sys.argv[1:])
