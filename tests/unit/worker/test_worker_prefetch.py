"""Siblings fetched ahead: for programs that read a directory in order, bounded, ended when unused, never at random."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from mdmfs.model.errors import AccessDeniedError, MdmfsError, OutOfSpaceError
from mdmfs.model.names import Guid
from mdmfs.wire.messages.files import MAX_BUNDLE, Node, NodeKind
from mdmfs.wire.messages.keystores import COLLECT_PATH
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.keys.ring import KeyRing
from mdmfs.worker.opening import Opener
from mdmfs.worker.prefetch.siblings import (
    AHEAD_BYTES,
    BUNDLES,
    FIRST_WINDOW,
    IDLE_SECONDS,
    LARGEST_FILE,
    UNPROVEN_WINDOW,
    SiblingPrefetch,
)
from mdmfs.worker.reading.fetching import QUESTION_SECONDS
from mdmfs.worker.reading.parts import Parts
from tests.twins.hospital import REGISTERED, TwinHospital
from tests.twins.pages import NoPages

DIRECTORY = 7
COUNT = 100


def nodes_of(count: int = COUNT, size: int = 1000) -> list[Node]:
    """Make a directory of equal files."""
    return [
        Node(f"{number:04}.dcm", 1000 + number, NodeKind.FILE, size, REGISTERED, number.to_bytes(16))
        for number in range(count)
    ]


class Fetches:
    """A ``Fetcher`` that notes what is fetched, and takes as long as it is told."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.begun: list[int] = []
        self.done: list[int] = []
        self.here: set[int] = set()
        self.at_once = self.most_at_once = 0
        self.refuses = False

    def has(self, node: Node) -> bool:
        """See ``Fetcher``."""
        return node.inode in self.here

    async def prefetch(self, nodes: Sequence[Node]) -> None:
        """See ``Fetcher``."""
        if self.refuses:
            message = "decided: no"
            raise AccessDeniedError(message)
        self.begun += [node.inode - 1000 for node in nodes]
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await trio.sleep(self.seconds)
        finally:
            self.at_once -= 1
        self.done += [node.inode - 1000 for node in nodes]
        self.here |= {node.inode for node in nodes}


async def settle() -> None:
    """Let everything begin that can."""
    await trio.testing.wait_all_tasks_blocked()


async def test_the_second_open_in_order_begins_and_each_further_one_reaches_farther(nursery: trio.Nursery) -> None:
    """One open is no burst."""
    fetches, nodes = Fetches(), nodes_of()
    prefetch = SiblingPrefetch(fetches, nursery)
    prefetch.note_open(DIRECTORY, nodes, 10)
    await settle()
    assert not fetches.begun
    prefetch.note_open(DIRECTORY, nodes, 11)
    await settle()
    assert sorted(fetches.begun) == list(range(12, 12 + FIRST_WINDOW))
    for position in range(12, 40):
        prefetch.note_open(DIRECTORY, nodes, position)
        await settle()
    ahead = max(fetches.begun) - 39
    assert UNPROVEN_WINDOW // 2 <= ahead <= UNPROVEN_WINDOW
    assert sorted(fetches.begun) == list(range(12, 40 + ahead))


async def test_files_are_asked_for_many_at_once(nursery: trio.Nursery) -> None:
    """So that the hospital brings them in one C-GET: not one more with each open, and no more than one may ask for."""
    fetches, nodes = Fetches(), nodes_of(600)
    prefetch = SiblingPrefetch(fetches, nursery)
    rounds = []
    for position in range(300):
        before = len(fetches.begun)
        prefetch.note_open(DIRECTORY, nodes, position)
        await settle()
        rounds.append(len(fetches.begun) - before)
    assert min(count for count in rounds[20:60] if count) >= UNPROVEN_WINDOW // 2
    assert {count for count in rounds[100:] if count} == {MAX_BUNDLE}
    assert max(rounds) <= MAX_BUNDLE


async def test_opening_at_random_or_backwards_fetches_nothing(nursery: trio.Nursery) -> None:
    """Whatever the number of opens."""
    fetches, nodes = Fetches(), nodes_of()
    prefetch = SiblingPrefetch(fetches, nursery)
    for position in (50, 3, 97, 20, 60, 59, 58, 57, 10, 90, 14):
        prefetch.note_open(DIRECTORY, nodes, position)
        await settle()
    assert not fetches.begun


async def test_a_jump_ends_what_is_under_way(nursery: trio.Nursery) -> None:
    """Nothing more is fetched for the place that was left."""
    fetches, nodes = Fetches(seconds=1e9), nodes_of()
    prefetch = SiblingPrefetch(fetches, nursery)
    prefetch.note_open(DIRECTORY, nodes, 0)
    prefetch.note_open(DIRECTORY, nodes, 1)
    await settle()
    assert (fetches.at_once, len(fetches.begun)) == (1, FIRST_WINDOW)
    prefetch.note_open(DIRECTORY, nodes, 80)
    await settle()
    assert fetches.at_once == 0


async def test_opening_the_same_file_again_or_leaving_some_out_is_still_in_order(nursery: trio.Nursery) -> None:
    """SimpleITK opens each file fifteen times."""
    fetches, nodes = Fetches(), nodes_of()
    prefetch = SiblingPrefetch(fetches, nursery)
    for position in (0, 0, 0, 1, 1, 3, 3, 6):
        prefetch.note_open(DIRECTORY, nodes, position)
        await settle()
    assert max(fetches.begun) > 6 + FIRST_WINDOW


async def test_the_bytes_ahead_are_bounded_over_all_directories(nursery: trio.Nursery) -> None:
    """One budget, however many programs read."""
    fetches, nodes = Fetches(seconds=1e9), nodes_of(size=LARGEST_FILE)
    prefetch = SiblingPrefetch(fetches, nursery)
    for directory in range(4):
        for position in range(2):
            prefetch.note_open(directory, nodes, position)
            await settle()
    assert 0 < fetches.most_at_once <= AHEAD_BYTES // LARGEST_FILE
    nursery.cancel_scope.cancel()


async def test_the_connections_are_bounded(nursery: trio.Nursery) -> None:
    """Who opens a file now finds one free."""
    fetches, nodes = Fetches(seconds=1e9), nodes_of()
    prefetch = SiblingPrefetch(fetches, nursery)
    for position in range(30):
        prefetch.note_open(DIRECTORY, nodes, position)
        await settle()
    assert fetches.most_at_once == BUNDLES
    nursery.cancel_scope.cancel()


async def test_large_files_directories_and_what_is_here_are_left_out(nursery: trio.Nursery) -> None:
    """And what lies behind them is still fetched."""
    fetches, nodes = Fetches(), nodes_of()
    fetches.here = {1002}
    nodes[3] = Node("0003.dcm", 1003, NodeKind.FILE, LARGEST_FILE + 1, REGISTERED, bytes(16))
    nodes[4] = Node("0004", 1004, NodeKind.DIRECTORY, 0, REGISTERED)
    prefetch = SiblingPrefetch(fetches, nursery)
    prefetch.note_open(DIRECTORY, nodes, 0)
    prefetch.note_open(DIRECTORY, nodes, 1)
    await settle()
    assert fetches.begun == [5]


async def test_a_burst_that_nobody_follows_ends(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """What is under way is given up."""
    autojump_clock.autojump_threshold = 0.01
    fetches, nodes = Fetches(seconds=1e9), nodes_of()
    prefetch = SiblingPrefetch(fetches, nursery)
    prefetch.note_open(DIRECTORY, nodes, 0)
    prefetch.note_open(DIRECTORY, nodes, 1)
    await settle()
    assert (fetches.at_once, len(fetches.begun)) == (1, FIRST_WINDOW)
    await trio.sleep(IDLE_SECONDS - 0.1)
    assert (fetches.at_once, len(fetches.begun)) == (1, FIRST_WINDOW)
    await trio.sleep(0.2)
    assert fetches.at_once == 0


async def test_closing_the_directory_ends_the_burst_of_who_walked_through_it(nursery: trio.Nursery) -> None:
    """A shell closes it before the first file is opened: that ends nothing."""
    fetches, nodes = Fetches(seconds=1e9), nodes_of()
    prefetch = SiblingPrefetch(fetches, nursery)
    prefetch.note_closed(DIRECTORY, trio.current_time())
    prefetch.note_open(DIRECTORY, nodes, 0)
    prefetch.note_open(DIRECTORY, nodes, 1)
    await settle()
    prefetch.note_closed(DIRECTORY, trio.current_time() + 1)
    await settle()
    assert (fetches.at_once, len(fetches.begun)) == (1, FIRST_WINDOW)
    prefetch.note_closed(DIRECTORY, trio.current_time() - 100)
    await settle()
    assert fetches.at_once == 0


async def test_a_refusal_ends_the_burst_and_is_nobodys_error(nursery: trio.Nursery) -> None:
    """Whoever opens the file hears it himself."""
    fetches, nodes = Fetches(), nodes_of()
    fetches.refuses = True
    prefetch = SiblingPrefetch(fetches, nursery)
    for position in range(3):
        prefetch.note_open(DIRECTORY, nodes, position)
        await settle()
    assert not fetches.done


# With a real opener


class Site:
    """A worker and a hospital with a directory of files."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self.folder = folder
        self.hospital = TwinHospital()
        self.files = self.hospital.add_sibling_files("/grid/medical/a", 12, 100_000)
        self.cache = CiphertextCache(folder, 2**30)
        self.nursery = nursery
        self.opener: Opener

    def node(self, number: int) -> Node:
        """Give a file as its directory lists it."""
        file = self.files[number]
        return Node("x", file.inode, NodeKind.FILE, len(file.plaintext), REGISTERED, file.guid.octets)

    async def read(self, number: int) -> bytes:
        """Read a file whole."""
        opened = await self.opener.open(self.node(number))
        try:
            return await self.opener.read(opened, 0, 200_000)
        finally:
            self.opener.close(opened)

    @contextlib.asynccontextmanager
    async def prefetching(self, number: int) -> AsyncIterator[trio.CancelScope]:
        """Fetch a file ahead while the block runs."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.opener.prefetch, [self.node(number)])
            await trio.sleep(0.01)
            yield nursery.cancel_scope


@pytest.fixture
async def site(tmp_path: Path, nursery: trio.Nursery) -> Site:
    """Make them."""
    site = Site(tmp_path, nursery)
    keystores = await site.hospital.open_keystores(nursery)
    await site.cache.load()
    ring = KeyRing(lambda: keystores, deadline=5)
    site.opener = Opener(Parts.around(site.hospital, site.cache, ring, NoPages(), nursery), deadline=5)
    site.cache.on_full = site.opener.make_room
    return site


def collects(site: Site) -> int:
    """Count how often the first keystore was asked for shares."""
    return site.hospital.keystores["k1"].paths.count(COLLECT_PATH)


async def test_a_file_fetched_ahead_is_in_the_cache_and_nobody_has_its_key(site: Site) -> None:
    """The hospital was told the purpose; a keystore is asked when somebody opens it."""
    await site.opener.prefetch([site.node(3)])
    guid = site.files[3].guid
    assert guid in site.cache
    assert site.hospital.prefetched == [guid]
    assert collects(site) == 0
    assert await site.read(3) == site.files[3].plaintext
    assert collects(site) == 1
    assert site.hospital.fetches == 1


async def test_who_opens_a_file_on_its_way_joins_the_fetch_and_keeps_it(site: Site) -> None:
    """Also when nobody fetches ahead any more."""
    site.hospital.pause, site.hospital.piece = 0.05, 30_000
    found: list[bytes] = []

    async def read() -> None:
        found.append(await site.read(5))

    async with trio.open_nursery() as readers, site.prefetching(5) as scope:
        readers.start_soon(read)
        await trio.sleep(0.03)
        scope.cancel()
    assert found == [site.files[5].plaintext]
    assert site.hospital.fetches == 1


async def test_a_fetch_that_nobody_wants_any_more_leaves_nothing(site: Site) -> None:
    """No file, no bytes counted."""
    site.hospital.pause, site.hospital.piece = 0.05, 30_000
    async with site.prefetching(5) as scope:
        scope.cancel()
    with trio.fail_after(2):
        while site.cache.used:  # noqa: ASYNC110 no event is worth it
            await trio.sleep(0.01)
    assert not site.opener.has(site.node(5))
    site.hospital.pause = 0
    assert await site.read(5) == site.files[5].plaintext


async def test_who_left_before_a_fetch_ahead_broke_off_leaves_nothing(site: Site) -> None:
    """It would have been fetched again for him; neither a place on the disk nor a byte is taken any more."""
    site.hospital.pause, site.hospital.piece = 0.5, 30_000
    async with site.prefetching(5) as scope:
        with trio.move_on_after(0.05):
            await site.read(5)
        scope.cancel()
    with trio.fail_after(2):
        while site.cache.used:  # noqa: ASYNC110 no event is worth it
            await trio.sleep(0.01)
    await trio.sleep(5 * QUESTION_SECONDS)
    assert site.cache.used == 0
    assert not list((site.folder / "arriving").iterdir())


async def test_a_fetch_given_up_before_it_began_never_begins(site: Site) -> None:
    """The hospital is not asked for nobody."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await site.opener.prefetch([site.node(5)])
    await trio.testing.wait_all_tasks_blocked()
    assert site.hospital.fetches == 0
    assert not site.opener.has(site.node(5))


async def test_a_file_that_may_not_be_fetched_ahead_is_refused_again_when_it_is_opened(site: Site) -> None:
    """By a decision of its own."""
    site.hospital.refusal = lambda: AccessDeniedError("decided: no")
    with pytest.raises(AccessDeniedError):
        await site.opener.prefetch([site.node(2)])
    with pytest.raises(AccessDeniedError):
        await site.read(2)
    assert site.hospital.fetches == 2
    site.hospital.refusal = None
    assert await site.read(2) == site.files[2].plaintext
    assert Guid(site.node(2).guid) in site.cache


async def test_where_the_disk_is_full_what_nobody_has_opened_makes_room(site: Site) -> None:
    """It is given up with its bytes; what somebody waits for stays."""
    site.hospital.pause, site.hospital.piece = 0.5, 30_000
    refused: list[MdmfsError] = []

    async def fetch_ahead(number: int) -> None:
        try:
            await site.opener.prefetch([site.node(number)])
        except MdmfsError as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for number in (4, 5):
            nursery.start_soon(fetch_ahead, number)
        with trio.fail_after(2):
            while site.cache.used < 2 * len(site.files[4].plaintext):  # noqa: ASYNC110 no event is worth it
                await trio.sleep(0.01)
        opening = trio.Event()
        nursery.start_soon(_read_and_tell, site, 4, opening)
        await settle()
        site.hospital.pause = 0
        assert await site.cache.let_go()
        assert not await site.cache.let_go()
        assert not site.opener.has(site.node(5))
    assert opening.is_set()
    assert [type(error) for error in refused] == [OutOfSpaceError]


async def _read_and_tell(site: Site, number: int, done: trio.Event) -> None:
    assert await site.read(number) == site.files[number].plaintext
    done.set()


async def test_where_the_disk_is_full_what_is_kept_after_its_close_is_closed(site: Site, tmp_path: Path) -> None:
    """A file that is open takes its room although its name is gone."""

    def held() -> list[str]:
        links = [one.readlink() for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
        return [link.name for link in links if link.is_relative_to(tmp_path) and "complete" in link.parts]

    assert await site.read(3) == site.files[3].plaintext
    assert len(held()) == 1
    assert await site.cache.let_go()
    assert held() == []
    assert site.files[3].guid in site.cache
