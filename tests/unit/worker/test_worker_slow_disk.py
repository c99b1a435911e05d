"""A disk that has to be waited for is told what comes next; one that has not is left alone."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from mdmfs.model.errors import MdmfsError
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import sealed_range, sealed_size
from mdmfs.wire.messages.files import Node, NodeKind
from mdmfs.worker.cache.ciphertext import Ciphertext
from mdmfs.worker.cache.extents import BEHIND, LEAST, PLAIN, WITHIN, Extent, Extents
from mdmfs.worker.cache.kept import Seal
from mdmfs.worker.cache.room import EXTENT_THREADS, READER_THREADS, Room, Turns
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.memory import Memory
from mdmfs.worker.reading.slow_disk import (
    AHEAD,
    AHEAD_BYTES,
    IDLE_SECONDS,
    LARGEST,
    NEARLY_BYTES,
    RUN_BYTES,
    SLOW_SECONDS,
    STUCK_SECONDS,
    SlowDisk,
)
from tests.twins.hospital import REGISTERED
from tests.twins.octets import octets

LONG = Guid.from_random(b"x" * 16)
SIZE = 9 * PLAIN + 17
MEBIBYTE = 2**20


class Disk:
    """Remembers what it was asked for."""

    def __init__(self, turns: Turns | None = None) -> None:
        self.turns = turns or Turns()
        self.asked: list[Guid] = []
        self.waited: list[int] = []

    def read_ahead(self, guids: Sequence[Guid]) -> None:
        """See ``slow_disk.Disk``."""
        self.asked += guids

    def read_in(self, guid: Guid, offset: int, length: int) -> None:
        """See ``slow_disk.Disk``."""
        assert guid == LONG
        assert length
        self.waited.append(offset)


class Stuck(Disk):
    """Answers when it is let."""

    def __init__(self, turns: Turns) -> None:
        super().__init__(turns)
        self.is_let = threading.Event()

    def read_ahead(self, guids: Sequence[Guid]) -> None:
        """See ``slow_disk.Disk``."""
        self.is_let.wait()
        super().read_ahead(guids)

    def read_in(self, guid: Guid, offset: int, length: int) -> None:
        """See ``slow_disk.Disk``."""
        self.is_let.wait()
        super().read_in(guid, offset, length)


@pytest.fixture
def long(tmp_path: Path) -> Iterator[Ciphertext]:
    """Give an object of several extents that is open."""
    path = tmp_path / "long"
    piece = octets(MEBIBYTE, "long")
    with path.open("wb") as file:
        for number in range(SIZE // MEBIBYTE + 2):
            file.write(number.to_bytes(8, "big") + piece[8:])
        file.truncate(sealed_size(SIZE))
    descriptor = os.open(path, os.O_RDONLY)
    ciphertext = Ciphertext(LONG, str(path), descriptor, length=sealed_size(SIZE), arrived=sealed_size(SIZE))
    yield ciphertext
    ciphertext.close()


def _opened_again(long: Ciphertext) -> Ciphertext:
    return Ciphertext(LONG, long.path, os.open(long.path, os.O_RDONLY), length=long.length, arrived=long.length)


@pytest.fixture
def memory() -> Memory:
    """Give a budget."""
    return Memory()


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give where the extents begin that were read from the disk."""
    begun, fill = list[int](), Extent.fill

    def note(extent: Extent, direct: object) -> bool:
        is_there = fill(extent, direct)  # type: ignore[arg-type]
        begun.append(extent.begin)
        return is_there

    monkeypatch.setattr(Extent, "fill", note)
    return begun


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


async def test_each_file_that_follows_is_asked_for_once(disk: Disk, memory: Memory, nursery: trio.Nursery) -> None:
    """In the order of the directory, some ahead."""
    files, slow = _files(60), SlowDisk(disk, memory, nursery)
    slow.note_slow()
    slow.note_open(files[1:])
    await _settled(nursery)
    assert len(disk.asked) == AHEAD
    await _open_all(slow, files, nursery)
    assert disk.asked == [Guid(node.guid) for node in files[1:]]


async def test_a_disk_that_does_not_let_wait_is_asked_for_nothing(
    disk: Disk, memory: Memory, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Nor is one any more that did so a while ago."""
    del autojump_clock
    files, slow = _files(4), SlowDisk(disk, memory, nursery)
    await _open_all(slow, files, nursery)
    slow.note_slow()
    await trio.sleep(SLOW_SECONDS)
    await _open_all(slow, files, nursery)
    assert disk.asked == []


async def test_neither_directories_nor_long_files_are_asked_for(
    disk: Disk, memory: Memory, nursery: trio.Nursery
) -> None:
    """The kernel reads ahead within a long file by itself."""
    slow, guid = SlowDisk(disk, memory, nursery), Guid.from_random(b"x" * 16).octets
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
    disk: Disk, memory: Memory, nursery: trio.Nursery
) -> None:
    """Of larger files fewer, and in the end all."""
    files, slow = _files(12, LARGEST), SlowDisk(disk, memory, nursery)
    slow.note_slow()
    slow.note_open(files[1:])
    await _settled(nursery)
    assert len(disk.asked) == AHEAD_BYTES // LARGEST
    await _open_all(slow, files, nursery)
    assert disk.asked == [Guid(node.guid) for node in files[1:]]


def _reads_of(size: int) -> list[tuple[int, int]]:
    """Give offsets and lengths of READs of a file in order, as the kernel's grow."""
    return [(0, 2**17), (2**17, 2**17 + 2**19), *((at, MEBIBYTE) for at in range(2**18 + 2**19, size, MEBIBYTE))]


async def _read(slow: SlowDisk, long: Ciphertext, offset: int, length: int, *, is_cached: bool = False) -> bool:
    """Read as an opener does; False where the disk had to be waited for otherwise than by what was read ahead."""
    slow.note_read(long, offset, length)
    piece = sealed_range(SIZE, offset, length)
    ends = piece.offset, piece.offset + piece.length - 1
    if long.ahead is None or any(long.ahead.at(at) is None for at in ends):
        if is_cached:
            return True
        slow.note_missed(long, SIZE, offset, length)
        await slow.wait_for(LONG, SIZE, offset, length, long)
    if long.ahead is None:
        return False
    for at in ends:
        extent = long.ahead.at(at)
        if extent is None:
            return False
        assert extent.view(at, at + 1) == os.pread(long.descriptor, 1, at)
    return True


async def test_a_long_file_that_is_read_in_order_is_read_ahead_to_its_end(
    disk: Disk, memory: Memory, long: Ciphertext, nursery: trio.Nursery, filled: list[int]
) -> None:
    """Each byte once; what the reader has behind him goes, and all with the last close."""
    slow = SlowDisk(disk, memory, nursery)
    most = 0
    for offset, length in _reads_of(SIZE):
        assert await _read(slow, long, offset, length) == (offset + length >= RUN_BYTES)
        most = max(most, memory.used)
    assert len(set(filled)) == len(filled)
    assert (LEAST + 1) * PLAIN < most <= (WITHIN + BEHIND + 1) * PLAIN
    long.close()
    await _settled(nursery)
    assert memory.used == 0


async def test_the_bytes_of_an_extent_are_those_of_the_object(
    memory: Memory, long: Ciphertext, nursery: trio.Nursery
) -> None:
    """From its first byte to its last one, whatever lies under the name of the object by now."""
    await trio.Path(long.path).unlink()
    extents = Extents(long.descriptor, SIZE, memory, nursery, trio.CapacityLimiter(2))
    begin = 0
    for number in range(SIZE // PLAIN + 1):
        extents.advance(number * PLAIN, number * PLAIN + 1, 0)
        assert await extents.wait(begin, begin + 1)
        extent = extents.at(begin)
        assert extent is not None
        assert extent.begin == begin
        assert extent.view(begin, extent.end) == os.pread(long.descriptor, extent.end - begin, begin)
        begin = extent.end
    assert begin == sealed_size(SIZE)
    assert not await extents.wait(begin + 2 * PLAIN, begin + 2 * PLAIN + 1)
    extents.close()


async def test_who_reads_here_and_there_has_nothing_read_ahead(
    disk: Disk, memory: Memory, long: Ciphertext, nursery: trio.Nursery, filled: list[int]
) -> None:
    """Nor who reads but the begin, or two who read one file at two places, or who has it all in memory."""
    slow = SlowDisk(disk, memory, nursery)
    for place in (0, 20, 7, 30, 0, 20, 1, 21, 2, 22, 3, 23, 4, 24, 5, 25, 6):
        assert not await _read(slow, long, place * MEBIBYTE, MEBIBYTE)
    for place in (9, 2, 30, 17):  # frames
        for part in range(4):
            assert not await _read(slow, long, place * MEBIBYTE + part * 2**17, 2**17)
    for place in range(20, 0, -1):
        assert not await _read(slow, long, place * MEBIBYTE, MEBIBYTE)
    for place in range(1, 30):
        assert await _read(slow, long, place * MEBIBYTE, MEBIBYTE, is_cached=True)
    assert not filled
    assert await _read(slow, long, 30 * MEBIBYTE, MEBIBYTE)
    assert memory.used > 0
    assert not await _read(slow, long, 0, MEBIBYTE)
    await _settled(nursery)
    assert memory.used == 0
    assert long.may_read_ahead


@pytest.mark.parametrize("step", [2**18, 2**19, MEBIBYTE, NEARLY_BYTES])
async def test_who_passes_over_most_has_nothing_read_ahead(
    disk: Disk, memory: Memory, long: Ciphertext, nursery: trio.Nursery, filled: list[int], step: int
) -> None:
    """However regular his steps are, also behind a part that he has read in order."""
    slow, places = SlowDisk(disk, memory, nursery), range(0, SIZE, step)
    for offset in places:
        assert not await _read(slow, long, offset, step // 4)
    assert not filled
    for offset, length in _reads_of(9 * MEBIBYTE):
        await _read(slow, long, offset, length)
    assert long.ahead is not None
    for offset in (*places[9 * MEBIBYTE // step :], *places):
        await _read(slow, long, offset, step // 4)
    assert long.ahead is None


async def test_who_reads_a_file_that_another_one_looks_into_has_it_read_ahead_less_and_less_often(
    disk: Disk, memory: Memory, long: Ciphertext, nursery: trio.Nursery, filled: list[int]
) -> None:
    """Each look ends it, and what was read ahead was read in vain."""
    slow = SlowDisk(disk, memory, nursery)
    for _ in range(4):
        for place in range(6):
            await _read(slow, long, place * MEBIBYTE, MEBIBYTE)
        await _settled(nursery)
        await _read(slow, long, 30 * MEBIBYTE, 2**17)
    assert len(filled) <= WITHIN, "once"
    for place in range(9):
        is_ahead = await _read(slow, long, place * MEBIBYTE, MEBIBYTE)
    assert is_ahead, "after twice as many"


async def test_who_is_left_too_little_of_the_budget_is_left_to_the_kernel(
    disk: Disk, memory: Memory, long: Ciphertext, nursery: trio.Nursery
) -> None:
    """One extent at a time would be slower."""
    slow = SlowDisk(disk, memory, nursery)
    for place in range(9):
        await _read(slow, long, place * MEBIBYTE, MEBIBYTE)
    assert long.ahead is not None
    memory.resize(2 * (LEAST - 1) * PLAIN)
    for place in range(9, 30):
        await _read(slow, long, place * MEBIBYTE, MEBIBYTE)
    assert long.ahead is None
    await _settled(nursery)
    assert memory.used == 0


async def test_no_buffer_is_kept_that_the_budget_does_not_know_of(
    disk: Disk, memory: Memory, long: Ciphertext, nursery: trio.Nursery
) -> None:
    """At the end of a file, where what is behind goes and nothing follows."""
    slow, others = SlowDisk(disk, memory, nursery), _buffers()
    for place in range(SIZE // MEBIBYTE + 1):
        await _read(slow, long, place * MEBIBYTE, MEBIBYTE)
        assert len(_buffers() - others) * PLAIN <= memory.used
    assert memory.used > 0


def _buffers() -> set[int]:
    """Name the mapped memory that there is, of whatever test."""
    gc.collect()
    return {id(one.obj) for one in gc.get_objects() if isinstance(one, memoryview) and _is_buffer(one)}


def _is_buffer(view: memoryview) -> bool:
    try:
        return isinstance(view.obj, mmap.mmap)
    except ValueError:  # it was released
        return False


async def test_what_was_read_ahead_goes_when_nobody_is_served_any_more(
    disk: Disk, memory: Memory, long: Ciphertext, nursery: trio.Nursery
) -> None:
    """Whatever is still open: the budget is that of others, too."""
    slow = SlowDisk(disk, memory, nursery)
    for place in range(9):
        await _read(slow, long, place * MEBIBYTE, MEBIBYTE)
    assert memory.used > 0
    slow.let_go()
    await _settled(nursery)
    assert memory.used == 0


async def test_who_pauses_has_nothing_read_ahead_any_more(
    disk: Disk, memory: Memory, long: Ciphertext, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """And goes on when he reads on."""
    autojump_clock.autojump_threshold = 0.05
    slow = SlowDisk(disk, memory, nursery)
    for place in range(1, 9):
        await _read(slow, long, place * MEBIBYTE, MEBIBYTE)
    await _settled(nursery)
    slow.expire()
    assert long.ahead is not None
    await trio.sleep(IDLE_SECONDS)
    slow.expire()
    assert memory.used == 0
    assert await _read(slow, long, 9 * MEBIBYTE, MEBIBYTE)
    long.fail(MdmfsError("gone"))
    await _settled(nursery)
    assert memory.used == 0


async def test_extents_take_no_more_than_half_of_the_budget(
    disk: Disk, long: Ciphertext, nursery: trio.Nursery, filled: list[int]
) -> None:
    """Where there is room for too few, the kernel reads ahead, and what is kept goes first."""
    memory = Memory(6 * PLAIN)
    slow, dropped = SlowDisk(disk, memory, nursery), list[int]()
    for number in range(6):
        memory.hold(PLAIN, lambda number=number: dropped.append(number))  # type: ignore[misc]
    for place in range(37):
        assert await _read(slow, long, place * MEBIBYTE, MEBIBYTE) == (place >= RUN_BYTES // MEBIBYTE - 1)
        assert memory.used <= 6 * PLAIN
    assert dropped == [0, 1, 2]
    assert len(set(filled)) == len(filled)
    filled.clear()
    long.end_ahead()
    memory.resize(5 * PLAIN)
    for place in range(1, 12):
        assert not await _read(slow, long, place * MEBIBYTE, MEBIBYTE)
    assert long.ahead is None
    assert not filled


async def test_a_disk_that_does_not_give_what_it_had_is_asked_no_more(
    disk: Disk, memory: Memory, long: Ciphertext, nursery: trio.Nursery
) -> None:
    """Who reads meets the error himself."""
    os.truncate(long.path, 2 * PLAIN)
    slow = SlowDisk(disk, memory, nursery)
    for place in range(1, 12):
        await _read(slow, long, place * MEBIBYTE, MEBIBYTE)
    assert long.ahead is None
    assert not long.may_read_ahead
    await _settled(nursery)
    assert memory.used == 0


async def test_a_stuck_disk_holds_up_neither_who_reads_nor_who_ends(
    disk: Disk,
    memory: Memory,
    long: Ciphertext,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The thread that it holds keeps its buffer and its descriptor for itself."""
    autojump_clock.autojump_threshold = 0.05
    released, filled = threading.Event(), Extent.fill
    monkeypatch.setattr(Extent, "fill", lambda *parts: released.wait() and filled(*parts))
    begun = time.monotonic()
    async with trio.open_nursery() as nursery:
        slow = SlowDisk(disk, memory, nursery)
        begun_at = trio.current_time()
        for _ in range(3):
            for place in range(1, 12):
                await _read(slow, long, place * MEBIBYTE, MEBIBYTE)
        assert trio.current_time() <= begun_at + 2 * STUCK_SECONDS
        assert long.ahead is None
        assert memory.used > 0, "threads still have them"
        nursery.cancel_scope.cancel()
    released.set()
    assert time.monotonic() < begun + 60
    assert memory.used == 0


async def test_all_principals_of_a_mount_have_as_many_threads_for_extents_as_one(
    tmp_path: Path, memory: Memory, long: Ciphertext, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk is one: what each of two hundred had read ahead as if he were alone would come to nobody in time."""
    is_let, filled, room = threading.Event(), Extent.fill, Room(2**30)
    monkeypatch.setattr(Extent, "fill", lambda *parts: is_let.wait() and filled(*parts))
    readers = [long, *(_opened_again(long) for _ in range(EXTENT_THREADS))]
    try:
        for number, reader in enumerate(readers):
            slow = SlowDisk(CiphertextCache(tmp_path / f"{number}", 2**30, room), memory, nursery)
            for place in range(RUN_BYTES // MEBIBYTE):
                slow.note_read(reader, place * MEBIBYTE, MEBIBYTE)
            slow.note_missed(reader, SIZE, RUN_BYTES - MEBIBYTE, MEBIBYTE)
        await trio.testing.wait_all_tasks_blocked()
        waiting = room.turns.extents.statistics()
        assert waiting.borrowed_tokens == EXTENT_THREADS
        assert waiting.tasks_waiting == memory.used // PLAIN - EXTENT_THREADS > 0
    finally:
        is_let.set()
        for reader in readers:
            reader.close()
    await _settled(nursery)
    assert memory.used == 0


async def test_all_principals_of_a_mount_wait_in_as_many_threads_as_one(memory: Memory, nursery: trio.Nursery) -> None:
    """Who finds none left reads without: a disk that is stuck holds no more of them the more users there are."""
    turns = Turns()
    disks = [Stuck(turns) for _ in range(READER_THREADS + 2)]
    async with trio.open_nursery() as readers:
        for disk in disks:
            readers.start_soon(SlowDisk(disk, memory, nursery).wait_for, LONG, SIZE, 0, MEBIBYTE)
        await trio.testing.wait_all_tasks_blocked()
        assert len(readers.child_tasks) == turns.readers.borrowed_tokens == READER_THREADS
        for disk in disks:
            disk.is_let.set()
    assert sum(len(disk.waited) for disk in disks) == READER_THREADS


async def test_of_all_principals_of_a_mount_one_at_a_time_has_the_next_files_read_ahead(
    memory: Memory, nursery: trio.Nursery
) -> None:
    """The others ask when they open the next file."""
    turns, files = Turns(), _files(4)
    disks = [Stuck(turns) for _ in range(2)]
    slow = [SlowDisk(disk, memory, nursery) for disk in disks]
    for each in slow:
        each.note_slow()
        each.note_open(files[1:])
        await trio.testing.wait_all_tasks_blocked()
    for disk in disks:
        disk.is_let.set()
    await _settled(nursery)
    assert [len(disk.asked) for disk in disks] == [3, 0]
    slow[1].note_open(files[2:])
    await _settled(nursery)
    assert [len(disk.asked) for disk in disks] == [3, 2]


async def test_a_file_system_without_direct_reads_is_left_to_the_kernel(
    disk: Disk, memory: Memory, long: Ciphertext, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked once."""
    opened, flags = list[str](), os.open

    def refuse(path: str, *more: int) -> int:
        if path.startswith("/proc/self/fd/"):
            opened.append(path)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return flags(path, *more)

    monkeypatch.setattr(os, "open", refuse)
    slow = SlowDisk(disk, memory, nursery)
    for place in range(1, 9):
        assert not await _read(slow, long, place * MEBIBYTE, MEBIBYTE)
    assert len(opened) == 1
    assert memory.used == 0


async def test_descriptors_are_closed_with_the_object(
    disk: Disk, memory: Memory, long: Ciphertext, nursery: trio.Nursery
) -> None:
    """Those of all extents together are one."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 no file system is in the way
    slow = SlowDisk(disk, memory, nursery)
    for place in range(1, 9):
        await _read(slow, long, place * MEBIBYTE, MEBIBYTE)
    assert len(os.listdir("/proc/self/fd")) == before + 1  # noqa: PTH208 as above
    long.close()
    await _settled(nursery)
    assert len(os.listdir("/proc/self/fd")) == before - 1  # noqa: PTH208 as above


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
