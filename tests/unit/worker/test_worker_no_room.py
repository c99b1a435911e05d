"""A worker whose disk has no room: small files are read from memory, within its budget."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from mdmfs.model.errors import OutOfSpaceError
from mdmfs.model.names import Guid
from mdmfs.wire.messages.files import Node, NodeKind
from mdmfs.worker.cache.ciphertext import Ciphertext
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.keys.ring import KeyRing
from mdmfs.worker.memory import Memory
from mdmfs.worker.opening import Opener
from mdmfs.worker.reading.parts import Parts
from tests.twins.hospital import REGISTERED, TwinFile, TwinHospital
from tests.twins.octets import octets
from tests.twins.pages import NoPages

DEADLINE = 30.0


class NoRoom(Ciphertext):
    """An object of which the disk takes so many bytes and no more."""

    taken = 270_000

    def write(self, octets: memoryview) -> None:
        """See ``Ciphertext``."""
        if self.is_on_disk and self.arrived + len(octets) > self.taken:
            super().write(octets[: self.taken - self.arrived])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(octets)


class FullCache(CiphertextCache):
    """A cache on a disk that is full once something has arrived."""

    async def receive(self, guid: Guid, length: int) -> Ciphertext:
        """See ``CiphertextCache``."""
        made = await super().receive(guid, length)
        return NoRoom(guid, made.path, made.descriptor, length=length, arrived=0)


class FullScene:
    """A worker whose disk has no room, and a hospital with small files and a large one."""

    def __init__(self, cache: CiphertextCache, memory: Memory) -> None:
        self.hospital = TwinHospital()
        self.small = self.hospital.add_sibling_files("/grid/medical/a", 3, 300_000)
        self.large = self.hospital.add_file("/grid/medical/a/large.dcm", octets(2**20 + 1, "large"))
        self.cache = cache
        self.memory = memory
        self.opener: Opener

    async def open(self, nursery: trio.Nursery) -> None:
        """Begin."""
        keystores = await self.hospital.open_keystores(nursery)
        await self.cache.load()
        ring = KeyRing(lambda: keystores, deadline=DEADLINE)
        parts = Parts.around(self.hospital, self.cache, ring, NoPages(), nursery, self.memory)
        self.opener = Opener(parts, deadline=DEADLINE)
        self.cache.on_full = self.opener.make_room

    def node(self, file: TwinFile) -> Node:
        """Tell of a file what its directory tells."""
        return Node("x.dcm", file.inode, NodeKind.FILE, len(file.plaintext), REGISTERED, file.guid.octets)

    async def read(self, file: TwinFile) -> bytes:
        """Open a file, read it whole, close it once nothing works on it any more: else it is not kept."""
        opened = await self.opener.open(self.node(file))
        try:
            found = await self.opener.read(opened, 0, 2**22)
            await trio.testing.wait_all_tasks_blocked()
            return found
        finally:
            self.opener.close(opened)


@pytest.mark.parametrize("is_late", [False, True])
async def test_small_files_are_read_from_memory_where_the_disk_has_no_room(
    tmp_path: Path, nursery: trio.Nursery, *, is_late: bool
) -> None:
    """And are kept there as any that was closed, each fetched once; what is larger is refused, as it was."""
    folder = tmp_path / "cache"
    scene = FullScene(FullCache(folder, 2**30) if is_late else CiphertextCache(folder, 2**30), Memory())
    await scene.open(nursery)
    if not is_late:
        (folder / "arriving").rmdir()
        (folder / "arriving").touch()
    before = scene.memory.used
    for file in scene.small * 2:
        assert await scene.read(file) == file.plaintext
    assert scene.hospital.fetches == 3
    again = scene.opener.open_at_once(scene.node(scene.small[0]))
    assert again is not None
    assert scene.opener.read_at_once(again, 5, 10) == scene.small[0].plaintext[5:15], "nothing is to be waited for"
    scene.opener.close(again)
    assert scene.memory.used - before > sum(len(file.plaintext) for file in scene.small)
    assert scene.cache.used == 0
    assert not is_late or not list((folder / "arriving").iterdir())
    with pytest.raises(OutOfSpaceError):
        await scene.read(scene.large)
    open_before = descriptors()
    scene.opener.let_go()
    assert (scene.memory.used, descriptors()) == (0, open_before - 3)


async def test_what_the_budget_of_memory_has_no_room_for_is_refused_too(tmp_path: Path, nursery: trio.Nursery) -> None:
    """It is held to, whatever the disk says."""
    scene = FullScene(FullCache(tmp_path, 2**30), Memory(400_000))
    await scene.open(nursery)
    with pytest.raises(OutOfSpaceError):
        await scene.read(scene.small[0])
    assert scene.cache.used == 0


def descriptors() -> int:
    """Count what this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_what_nobody_has_open_makes_room_in_memory(tmp_path: Path, nursery: trio.Nursery) -> None:
    """However many small files are read one after another, where the budget has room for two of them."""
    scene = FullScene(FullCache(tmp_path, 2**30), Memory(2 * 2 * 350_000))
    await scene.open(nursery)
    for file in scene.small * 2:
        assert await scene.read(file) == file.plaintext
    assert scene.memory.used <= scene.memory.limit
