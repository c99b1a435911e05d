"""A disk that has to be waited for is told what comes next; one that has not is left alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from mdmfs.model.names import Guid
from mdmfs.sealing.layout import sealed_range, sealed_size
from mdmfs.wire.messages.files import Node, NodeKind
from mdmfs.worker.cache.extents import IDLE_SECONDS, MOST, PLAIN, Extent, Extents, extent_range
from mdmfs.worker.cache.store import CiphertextCache, Seal
from mdmfs.worker.memory import Memory
from mdmfs.worker.slow_disk import AHEAD, AHEAD_BYTES, BEHIND_BYTES, LARGEST, SLOW_SECONDS, WITHIN, SlowDisk
from tests.twins.hospital import REGISTERED
from tests.twins.octets import octets

LONG = Guid.from_random(b"x" * 16)
SIZE = 9 * PLAIN + 17
MEBIBYTE = 2**20


class Disk:
    """Remembers what it was asked for; has one long object."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[Guid] = []
        self.within: list[int] = []
        self.long = folder / "long"
        self.is_cached = False
        piece = octets(MEBIBYTE, "long")
        with self.long.open("wb") as file:
            for number in range(SIZE // MEBIBYTE + 2):
                file.write(number.to_bytes(8, "big") + piece[8:])
            file.truncate(sealed_size(SIZE))

    def read_ahead(self, guids: Sequence[Guid]) -> None:
        """See ``slow_disk.Disk``."""
        self.asked += guids

    def open_direct(self, guid: Guid, offset: int) -> int:
        """See ``slow_disk.Disk``."""
        assert guid == LONG
        self.within.append(offset)
        return -1 if self.is_cached else os.open(self.long, os.O_RDONLY)

    def read_in(self, guid: Guid, offset: int, length: int) -> None:
        """See ``slow_disk.Disk``."""


def _files(count: int, size: int = 1000) -> list[Node]:
    return [
        Node(f"{n}", n + 2, NodeKind.FILE, size, REGISTERED, Guid.from_random(bytes([n]) * 16).octets)
        for n in range(count)
    ]


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """Give one."""
    return Disk(tmp_path)


@pytest.fixture
def extents() -> Extents:
    """Give room for some."""
    return Extents(Memory())


async def _settled(nursery: trio.Nursery) -> None:
    """Wait until the disk has heard of all that was asked for, however slow its thread is."""
    while nursery.child_tasks:  # noqa: ASYNC110 a nursery sets no event
        await trio.sleep(0.001)


async def _open_all(slow: SlowDisk, files: Sequence[Node], nursery: trio.Nursery) -> None:
    for place in range(len(files)):
        slow.note_open(files[place + 1 :])
        await _settled(nursery)


async def test_each_file_that_follows_is_asked_for_once(disk: Disk, extents: Extents, nursery: trio.Nursery) -> None:
    """In the order of the directory, some ahead."""
    files, slow = _files(60), SlowDisk(disk, extents, nursery)
    slow.note_slow()
    slow.note_open(files[1:])
    await _settled(nursery)
    assert len(disk.asked) == AHEAD
    await _open_all(slow, files, nursery)
    assert disk.asked == [Guid(node.guid) for node in files[1:]]


async def test_a_disk_that_does_not_let_wait_is_asked_for_nothing(
    disk: Disk, extents: Extents, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Nor is one any more that did so a while ago."""
    del autojump_clock
    files, slow = _files(4), SlowDisk(disk, extents, nursery)
    await _open_all(slow, files, nursery)
    slow.note_slow()
    await trio.sleep(SLOW_SECONDS)
    await _open_all(slow, files, nursery)
    assert disk.asked == []


async def test_neither_directories_nor_long_files_are_asked_for(
    disk: Disk, extents: Extents, nursery: trio.Nursery
) -> None:
    """The kernel reads ahead within a long file by itself."""
    slow, guid = SlowDisk(disk, extents, nursery), Guid.from_random(b"x" * 16).octets
    slow.note_slow()
    slow.note_open(
        [
            Node("d", 2, NodeKind.DIRECTORY, 0, REGISTERED, b""),
            Node("f", 3, NodeKind.FILE, LARGEST + 1, REGISTERED, guid),
        ]
    )
    await _settled(nursery)
    assert disk.asked == []


async def test_no_more_is_asked_for_at_once_than_is_worth_having(
    disk: Disk, extents: Extents, nursery: trio.Nursery
) -> None:
    """Of larger files fewer, and in the end all."""
    files, slow = _files(12, LARGEST), SlowDisk(disk, extents, nursery)
    slow.note_slow()
    slow.note_open(files[1:])
    await _settled(nursery)
    assert len(disk.asked) == AHEAD_BYTES // LARGEST
    await _open_all(slow, files, nursery)
    assert disk.asked == [Guid(node.guid) for node in files[1:]]


def _reads_of(size: int) -> list[tuple[int, int]]:
    """Give offsets and lengths of READs of a file in order, as the kernel's grow."""
    return [(0, 2**17), (2**17, 2**17 + 2**19), *((at, MEBIBYTE) for at in range(2**18 + 2**19, size, MEBIBYTE))]


async def test_a_long_file_that_is_read_in_order_is_read_ahead_without_a_gap(
    disk: Disk, extents: Extents, nursery: trio.Nursery
) -> None:
    """To its end, and each byte asked for once; what the reader has behind him goes."""
    slow = SlowDisk(disk, extents, nursery)
    slow.note_slow()
    with disk.long.open("rb") as file:
        for offset, length in _reads_of(SIZE):
            slow.note_read(LONG, SIZE, offset, length)
            await _settled(nursery)
            if not offset:
                continue
            piece = sealed_range(SIZE, offset, length)
            for begin, end in (
                (piece.offset, piece.offset + 1000),
                (piece.offset + piece.length - 1, piece.offset + piece.length),
            ):
                extent = extents.at(LONG, begin)
                assert extent is not None
                assert extent.view(begin, end) == os.pread(file.fileno(), end - begin, begin)
            assert disk.within[-1] <= piece.offset + piece.length + WITHIN * PLAIN * 1.01
            behind = sealed_range(SIZE, max(0, offset + length - BEHIND_BYTES - PLAIN - 2 * MEBIBYTE), 1)
            assert extents.at(LONG, behind.offset) is None or behind.offset < PLAIN
    assert disk.within == [extent_range(SIZE, number)[0] for number in range(SIZE // PLAIN + 1)]


async def test_who_reads_here_and_there_has_nothing_read_ahead(
    disk: Disk, extents: Extents, nursery: trio.Nursery
) -> None:
    """Nor who has it all in memory; what was read ahead of who goes elsewhere is let go."""
    slow = SlowDisk(disk, extents, nursery)
    slow.note_slow()
    for place in (0, 20, 7, 30):
        slow.note_read(LONG, SIZE, place * MEBIBYTE, MEBIBYTE)
    assert not disk.within
    slow.note_read(LONG, SIZE, 31 * MEBIBYTE, MEBIBYTE)
    await _settled(nursery)
    assert extents.at(LONG, 33 * MEBIBYTE) is not None
    slow.note_read(LONG, SIZE, 0, MEBIBYTE)
    assert extents.at(LONG, 33 * MEBIBYTE) is None
    disk.is_cached = True
    slow.note_read(LONG, SIZE, MEBIBYTE, MEBIBYTE)
    await _settled(nursery)
    assert extents.at(LONG, 2 * MEBIBYTE) is None


async def test_what_is_on_its_way_is_waited_for_and_not_read_twice(
    disk: Disk, extents: Extents, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has gone since is asked for again by the next read."""
    slow, read_in = SlowDisk(disk, extents, nursery), list[int]()
    monkeypatch.setattr(disk, "read_in", lambda _, offset, __: read_in.append(offset))
    slow.note_slow()
    slow.note_read(LONG, SIZE, 0, MEBIBYTE)
    slow.note_read(LONG, SIZE, MEBIBYTE, MEBIBYTE)
    await slow.wait_for(LONG, SIZE, MEBIBYTE, MEBIBYTE)
    assert extents.at(LONG, MEBIBYTE) is not None
    assert not read_in
    await _settled(nursery)
    extents.let_go(LONG)
    await slow.wait_for(LONG, SIZE, 2 * MEBIBYTE, MEBIBYTE)
    assert len(read_in) == 1
    slow.note_read(LONG, SIZE, 2 * MEBIBYTE, MEBIBYTE)
    await slow.wait_for(LONG, SIZE, 3 * MEBIBYTE, MEBIBYTE)
    assert extents.at(LONG, 3 * MEBIBYTE) is not None


def _reserve(disk: Disk, extents: Extents, guid: Guid = LONG, number: int = 0) -> Extent:
    return extents.reserve(guid, os.open(disk.long, os.O_RDONLY), *extent_range(SIZE, number))


async def test_an_extent_that_was_dropped_while_it_was_filled_is_given_to_nobody(disk: Disk, extents: Extents) -> None:
    """Its buffer is for others when the thread has done with it, and not before."""
    extent = _reserve(disk, extents)
    assert extents.coming(LONG, 0, 1) == [extent]
    extents.let_go(LONG)
    others = [_reserve(disk, extents, number=number % 9) for number in range(MOST - 1)]
    assert extents.is_full
    extent.fill()
    assert extents.at(LONG, 0) is None
    extents.settle(LONG, extent)
    assert not extents.is_full
    for other in others:
        extents.settle(LONG, other)
    assert not extents.coming(LONG, 0, SIZE)


async def test_an_object_that_is_shorter_than_it_was_or_that_the_disk_does_not_give_is_not_there(
    disk: Disk, extents: Extents
) -> None:
    """Who reads it meets the error himself."""
    os.truncate(disk.long, sealed_size(SIZE) - 1)
    last = _reserve(disk, extents, number=9)
    folder = extents.reserve(LONG, os.open(disk.long.parent, os.O_RDONLY), *extent_range(SIZE, 1))
    for extent in (last, folder):
        extent.fill()
        extents.settle(LONG, extent)
        assert not extent.is_there
    assert extents.at(LONG, last.begin) is None


async def test_what_nobody_wanted_for_long_makes_room(
    disk: Disk, extents: Extents, autojump_clock: trio.testing.MockClock
) -> None:
    """Not before; and what the budget of memory drops is gone at once."""
    del autojump_clock
    for number in range(MOST):
        extent = _reserve(disk, extents, Guid.from_random(bytes([number]) * 16))
        extent.fill()
        extents.settle(Guid.from_random(bytes([number]) * 16), extent)
    assert extents.is_full
    await trio.sleep(IDLE_SECONDS)
    assert not extents.is_full
    tight = Extents(Memory(PLAIN))
    for number in (0, 1, 2):
        extent = _reserve(disk, tight, number=number)
        extent.fill()
        tight.settle(LONG, extent)
    assert [tight.at(LONG, extent_range(SIZE, number)[0]) is None for number in range(3)] == [True, False, False]


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
    assert cache.open_direct(unknown, 0) == cache.open_direct(gone, 0) == -1
