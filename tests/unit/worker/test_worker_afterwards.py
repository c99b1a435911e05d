"""What is left of requests that were answered: it is done before long, in order, and never what goes on record."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import structlog.testing
import trio
import trio.testing

from mdmfs.worker.afterwards import MANY, Afterwards
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.filesystem import FileSystem
from mdmfs.worker.keys.ring import HOLD_SECONDS
from mdmfs.worker.lease import Lease
from mdmfs.worker.memory import Memory
from mdmfs.worker.serving import EXPIRY_SECONDS, Branch, Ports
from tests.twins.hospital import ROOT, TwinHospital
from tests.twins.pages import BusyKernel

FILES = 6
SIZE = 200_000
LEASE = 3600.0


class NotingKernel(BusyKernel):
    """Notes of which inodes pages are pushed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.pushed: list[int] = []

    def store(self, inode: int, offset: int, octets: memoryview) -> None:
        """See ``Pages``."""
        del offset, octets
        self.pushed.append(inode)


@dataclasses.dataclass
class Scene:
    """A mount without FUSE of a directory whose headers have been read, each once."""

    hospital: TwinHospital
    branch: Branch
    cache: CiphertextCache
    kernel: NotingKernel
    memory: Memory
    serving: trio.Nursery
    inodes: list[int]
    since_start: list[float]
    """One number, which the lease goes by: seconds."""

    @property
    def files(self) -> FileSystem:
        """What the kernel asks."""
        return self.branch.files

    def open_at_once(self, place: int) -> int:
        """Open a file that is at hand."""
        handle = self.files.open_file_at_once(self.inodes[place])
        assert handle is not None
        return handle

    async def reported(self) -> dict[bytes, int]:
        """Have the hospital told what was opened; gives how often since the last time, by GUID."""
        self.hospital.reports.clear()
        await self.branch.tell_last(None)
        return {opens.guid: opens.count for report in self.hospital.reports for opens in report.opens}


@pytest.fixture
async def scene(tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> AsyncIterator[Scene]:
    """Read each header once, in order, and rest."""
    autojump_clock.autojump_threshold = 0.02
    hospital, kernel, cache, memory = TwinHospital(), NotingKernel(), CiphertextCache(tmp_path, 2**30), Memory()
    hospital.has_headers = True
    hospital.add_sibling_files("/grid/medical/a", FILES, SIZE)
    keystores = await hospital.open_keystores(nursery)
    with structlog.testing.capture_logs():
        await cache.load()
    since_start = [0.0]
    lease = Lease(lambda: since_start[0])
    lease.grant(0.0, LEASE)
    serving = await nursery.start(_open_nursery)
    branch = Branch(
        Ports(hospital, lambda: keystores),
        cache,
        ROOT,
        kernel,
        serving,
        deadline=5,
        lease=lease,
        tree=0,
        shown=ROOT,
        memory=memory,
    )
    files = branch.files
    directory = (await files.lookup(1, b"a")).inode
    files.close_directory(await files.open_directory(directory))
    inodes = [(await files.lookup(directory, f"{number:04}.dcm".encode())).inode for number in range(1, FILES + 1)]
    for inode in inodes[:-1]:
        files.close_file(await files.open_file(inode))
        kernel.rest()
    kernel.pushed.clear()
    yield Scene(hospital, branch, cache, kernel, memory, serving, inodes, since_start)
    nursery.cancel_scope.cancel()


async def _open_nursery(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    async with trio.open_nursery() as nursery:
        task_status.started(nursery)
        await trio.sleep_forever()


async def test_an_open_of_what_was_opened_ahead_is_on_record_before_anything_else_is_done_for_it(scene: Scene) -> None:
    """And then the next one is pushed."""
    for place in (0, 1):
        scene.files.close_file(scene.open_at_once(place))
        scene.kernel.rest()
    await scene.reported()
    scene.kernel.pushed.clear()
    scene.open_at_once(2)
    assert list((await scene.reported()).values()) == [1]
    assert not scene.kernel.pushed
    scene.kernel.rest()
    assert scene.kernel.pushed == [scene.inodes[3]]


async def test_who_reads_on_behind_a_header_before_anything_else_was_done_has_what_comes_next_fetched(
    scene: Scene,
) -> None:
    """What is to hear of that is told afterwards."""
    for place in (0, 1):
        scene.files.close_file(scene.open_at_once(place))
        scene.kernel.rest()
    fetches = scene.hospital.fetches
    for place in (2, 3):
        await scene.files.read(scene.open_at_once(place), SIZE // 2, 10)
        scene.kernel.rest()
    await trio.sleep(1)
    assert scene.hospital.fetches > fetches + 2


@pytest.mark.parametrize("slept", [0.0, LEASE + 1])
async def test_nobody_is_asked_for_what_comes_next_once_the_lease_is_over(scene: Scene, slept: float) -> None:
    """Nor are shares held then."""
    for place in (0, 1):
        scene.files.close_file(scene.open_at_once(place))
        scene.kernel.rest()
    scene.open_at_once(2)
    scene.files.forget_shares()
    asked = sum(twin.calls for twin in scene.hospital.keystores.values())
    scene.since_start[0] = slept
    scene.kernel.rest()
    await trio.sleep(1)
    assert (sum(twin.calls for twin in scene.hospital.keystores.values()) == asked) == bool(slept)


def _let_shares_end(scene: Scene) -> None:
    scene.since_start[0] = HOLD_SECONDS + 1


def _lose_a_right(scene: Scene) -> None:
    scene.files.forget_shares()


@pytest.mark.parametrize("lose", [_let_shares_end, _lose_a_right])
@pytest.mark.parametrize("is_whole", [False, True])
async def test_what_was_closed_is_not_opened_without_shares_though_its_close_is_left(
    scene: Scene, *, is_whole: bool, lose: Callable[[Scene], None]
) -> None:
    """Nobody has it open: the keystores are asked, as of what is kept."""
    scene.files.close_file(scene.open_at_once(0))
    scene.kernel.rest()
    handle = scene.open_at_once(1)
    if is_whole:
        await scene.files.read(handle, SIZE // 2, 10)
    await trio.testing.wait_all_tasks_blocked()
    scene.kernel.rest()
    scene.files.close_file(handle)
    lose(scene)
    assert scene.files.open_file_at_once(scene.inodes[1]) is None


async def test_of_what_was_revoked_before_anything_else_was_done_for_it_nothing_is_fetched_ahead(scene: Scene) -> None:
    """What is broken is no body that somebody has asked for."""
    for place in (0, 1):
        scene.files.close_file(scene.open_at_once(place))
        scene.kernel.rest()
    fetches = scene.hospital.fetches
    for place in (2, 3):
        scene.open_at_once(place)
        scene.files.bar(scene.inodes[place])
        scene.kernel.rest()
    await trio.sleep(1)
    assert scene.hospital.fetches == fetches


async def test_what_is_closed_is_let_go_with_the_next_open_or_within_a_moment(scene: Scene) -> None:
    """It stays at hand then, which takes of the memory."""
    one_waits = scene.memory.used
    scene.branch.start()
    await trio.sleep(2 * EXPIRY_SECONDS)
    assert scene.memory.used > one_waits
    handle = scene.open_at_once(0)
    assert scene.memory.used == one_waits
    scene.files.close_file(handle)
    scene.kernel.rest()
    assert scene.memory.used == one_waits
    scene.open_at_once(1)
    scene.kernel.rest()
    assert scene.memory.used == one_waits


async def test_what_is_closed_is_let_go_before_the_kernel_forgets_it(scene: Scene) -> None:
    """Else a file would be kept that the kernel does not know, and one would be followed that has no place."""
    one_waits = scene.memory.used
    scene.files.forget(scene.inodes[-2], 1)
    assert scene.memory.used == one_waits
    scene.open_at_once(0)
    assert scene.memory.used < one_waits


async def test_no_descriptor_is_left_of_what_was_closed_just_before_the_end(scene: Scene, tmp_path: Path) -> None:
    """Nobody rests any more."""
    scene.branch.start()
    handle = scene.open_at_once(0)
    await scene.files.read(handle, SIZE // 2, 10)
    await trio.testing.wait_all_tasks_blocked()
    assert _open_objects(tmp_path)
    scene.files.close_file(handle)
    scene.serving.cancel_scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert not _open_objects(tmp_path)


@pytest.mark.parametrize("has_shares", [False, True])
async def test_what_was_closed_holds_no_room_on_a_full_disk_though_its_close_is_left(
    scene: Scene, tmp_path: Path, *, has_shares: bool
) -> None:
    """Its object may have made room already, and the disk has that back with the last descriptor only."""
    handle = scene.open_at_once(0)
    await scene.files.read(handle, SIZE // 2, 10)
    await trio.testing.wait_all_tasks_blocked()
    scene.files.close_file(handle)
    if not has_shares:
        scene.files.forget_shares()
    while scene.cache.evict_one():
        pass
    assert await scene.cache.let_go()
    assert not _open_objects(tmp_path)


def _open_objects(folder: Path) -> list[Path]:
    links = [link.resolve() for link in Path("/proc/self/fd").iterdir() if link.exists()]
    return [link for link in links if link.is_relative_to(folder / "complete")]


def test_what_fails_afterwards_keeps_nothing_else_from_being_done_and_is_logged() -> None:
    """There is nobody who could be told."""
    done, kernel = list[str](), NotingKernel()
    afterwards = Afterwards(kernel)
    afterwards.add(lambda: done.append("first"))
    afterwards.add(_fail)
    kernel.rest()
    assert not done
    afterwards.add_soon(lambda: done.append("last"))
    with structlog.testing.capture_logs() as logs:
        kernel.rest()
    assert done == ["first", "last"]
    assert [entry["log_level"] for entry in logs] == ["error"]


def test_of_what_can_wait_not_many_are_left_to_be_done_at_one_time() -> None:
    """A program that ends closes thousands of headers, and nobody else is to wait for all of them."""
    done, kernel = list[int](), NotingKernel()
    afterwards = Afterwards(kernel)
    for number in range(MANY):
        kernel.rest()
        assert not done
        afterwards.add(functools.partial(done.append, number))
    kernel.rest()
    assert done == list(range(MANY))


def _fail() -> None:
    raise RuntimeError
