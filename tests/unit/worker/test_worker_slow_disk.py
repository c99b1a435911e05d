"""A disk that has to be waited for is told what comes next; one that has not is left alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from mdmfs.model.names import Guid
from mdmfs.sealing.layout import CHUNK_SIZE, sealed_size
from mdmfs.wire.messages.files import Node, NodeKind
from mdmfs.worker.cache.store import CiphertextCache, Seal
from mdmfs.worker.slow_disk import AHEAD, AHEAD_BYTES, LARGEST, SLOW_SECONDS, WITHIN_BYTES, SlowDisk
from tests.twins.hospital import REGISTERED


class Disk:
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Guid] = []
        self.within: list[tuple[int, int]] = []

    def read_ahead(self, guids: Sequence[Guid]) -> None:
        """See ``slow_disk.Disk``."""
        self.asked += guids

    def read_ahead_within(self, guid: Guid, offset: int, length: int) -> None:
        """See ``slow_disk.Disk``."""
        del guid
        self.within.append((offset, offset + length))

    def read_in(self, guid: Guid, offset: int, length: int) -> None:
        """See ``slow_disk.Disk``."""


def _files(count: int, size: int = 1000) -> list[Node]:
    return [
        Node(f"{n}", n + 2, NodeKind.FILE, size, REGISTERED, Guid.from_random(bytes([n]) * 16).octets)
        for n in range(count)
    ]


@pytest.fixture
def disk() -> Disk:
    """Give one."""
    return Disk()


async def _settled(nursery: trio.Nursery) -> None:
    """Wait until the disk has heard of all that was asked for, however slow its thread is."""
    while nursery.child_tasks:  # noqa: ASYNC110 a nursery sets no event
        await trio.sleep(0.001)


async def _open_all(slow: SlowDisk, files: Sequence[Node], nursery: trio.Nursery) -> None:
    for place in range(len(files)):
        slow.note_open(files[place + 1 :])
        await _settled(nursery)


async def test_each_file_that_follows_is_asked_for_once(disk: Disk, nursery: trio.Nursery) -> None:
    """In the order of the directory, some ahead."""
    files, slow = _files(60), SlowDisk(disk, nursery)
    slow.note_slow()
    slow.note_open(files[1:])
    await _settled(nursery)
    assert len(disk.asked) == AHEAD
    await _open_all(slow, files, nursery)
    assert disk.asked == [Guid(node.guid) for node in files[1:]]


async def test_a_disk_that_does_not_let_wait_is_asked_for_nothing(
    disk: Disk, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Nor is one any more that did so a while ago."""
    del autojump_clock
    files, slow = _files(4), SlowDisk(disk, nursery)
    await _open_all(slow, files, nursery)
    slow.note_slow()
    await trio.sleep(SLOW_SECONDS)
    await _open_all(slow, files, nursery)
    assert disk.asked == []


async def test_neither_directories_nor_long_files_are_asked_for(disk: Disk, nursery: trio.Nursery) -> None:
    """The kernel reads ahead within a long file by itself."""
    slow, guid = SlowDisk(disk, nursery), Guid.from_random(b"x" * 16).octets
    slow.note_slow()
    slow.note_open(
        [
            Node("d", 2, NodeKind.DIRECTORY, 0, REGISTERED, b""),
            Node("f", 3, NodeKind.FILE, LARGEST + 1, REGISTERED, guid),
        ]
    )
    await _settled(nursery)
    assert disk.asked == []


async def test_no_more_is_asked_for_at_once_than_is_worth_having(disk: Disk, nursery: trio.Nursery) -> None:
    """Of larger files fewer, and in the end all."""
    files, slow = _files(12, LARGEST), SlowDisk(disk, nursery)
    slow.note_slow()
    slow.note_open(files[1:])
    await _settled(nursery)
    assert len(disk.asked) == AHEAD_BYTES // LARGEST
    await _open_all(slow, files, nursery)
    assert disk.asked == [Guid(node.guid) for node in files[1:]]


async def test_a_long_file_that_is_read_in_order_is_read_ahead_without_a_gap(disk: Disk, nursery: trio.Nursery) -> None:
    """To its end, each byte asked for once; who reads here and there has nothing read ahead."""
    slow, guid, size, length = SlowDisk(disk, nursery), Guid.from_random(b"x" * 16), 5 * WITHIN_BYTES + 17, 2**20
    slow.note_slow()
    for place in (0, 70, 20, 90):
        slow.note_read(guid, size, place * length, length)
    slow.note_read(guid, size, 0, length)
    await _settled(nursery)
    assert not disk.within
    for offset in range(length, size, length):
        slow.note_read(guid, size, offset, min(length, size - offset))
        await _settled(nursery)
        assert disk.within[-1][1] <= sealed_size(min(size, offset + length + WITHIN_BYTES) + CHUNK_SIZE)
    assert disk.within[-1][1] == sealed_size(size)
    assert all(after[0] <= before[1] for before, after in itertools.pairwise(disk.within))


async def test_what_is_not_in_the_cache_any_more_is_passed_over(tmp_path: Path) -> None:
    """Neither a GUID that nobody knows nor a file that another mount has let go stops the others."""
    cache = CiphertextCache(tmp_path, 2**20)
    await cache.load()
    gone, unknown = Guid.from_random(b"g" * 16), Guid.from_random(b"u" * 16)
    ciphertext = await cache.receive(gone, 100)
    cache.keep(ciphertext, Seal(0, 2, b"s" * 24))
    ciphertext.close()
    await trio.Path(ciphertext.path).unlink()
    cache.read_ahead([unknown, gone])
