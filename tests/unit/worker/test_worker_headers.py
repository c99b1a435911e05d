"""Header first: open brings the header alone, the first read beyond it the rest, and nothing is ever short."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest
import structlog.testing
import trio
import trio.testing

from mdmfs.model.errors import AccessDeniedError, PeerUnreachableError, RecallTimedOutError
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import CHUNK_SIZE, PAGE_SIZE
from mdmfs.wire.messages.files import MAX_HEADERS, Node, NodeKind
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.keys.ring import HOLD_SECONDS, KeyRing
from mdmfs.worker.memory import Memory
from mdmfs.worker.opening import Opener
from mdmfs.worker.reading import kept, open_file
from mdmfs.worker.reading.headers import Headers
from mdmfs.worker.reading.open_file import OpenFile
from mdmfs.worker.reading.parts import Parts
from tests.twins.hospital import REGISTERED, TwinFile, TwinHospital, unreachable
from tests.twins.octets import octets
from tests.unit.worker.test_worker_opening import KernelTwin

DEADLINE = 20.0
THREAD_SECONDS = 0.03
SIZES = [300_000, CHUNK_SIZE, CHUNK_SIZE + 1, 2 * CHUNK_SIZE, 100 * PAGE_SIZE, 3, 10 * 2**20 + 5]


class Site:
    """A worker without FUSE, whose hospital made headers at registration."""

    def __init__(
        self, hospital: TwinHospital, cache: CiphertextCache, opener: Opener, kernel: KernelTwin, parts: Parts
    ) -> None:
        self.hospital = hospital
        self.cache = cache
        self.opener = opener
        self.kernel = kernel
        self.parts = parts

    def nodes(self) -> list[Node]:
        """Give all files in order."""
        return [
            Node(f"{place}", file.inode, NodeKind.FILE, len(file.plaintext), REGISTERED, guid.octets)
            for place, (guid, file) in enumerate(self.hospital.files.items())
        ]

    def file(self, place: int) -> TwinFile:
        """Give one file."""
        return list(self.hospital.files.values())[place]

    async def read(self, place: int, offset: int, length: int) -> bytes:
        """Open, read, close."""
        opened = await self.opener.open(self.nodes()[place])
        try:
            return await self.opener.read(opened, offset, length)
        finally:
            self.opener.close(opened)

    async def open_with_part_of_the_body(self, place: int) -> int:
        """Open a file by its header, and have fetching it ahead cut off; it comes whole when it is asked for again."""
        node, cuts = self.nodes()[place], [100_000]
        opened = await self.opener.open(node)
        self.hospital.damage = lambda sealed: sealed[: cuts.pop()] if cuts else sealed
        with structlog.testing.capture_logs(), pytest.raises(PeerUnreachableError):
            await self.opener.prefetch([node])
        await trio.testing.wait_all_tasks_blocked()
        return opened


@pytest.fixture
async def site(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Site]:
    """Make a hospital with files of many sizes, and a worker."""
    async with worker_of(SIZES, tmp_path, nursery) as made:
        yield made


@pytest.fixture
async def even(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Site]:
    """Make a hospital with a hundred files, whose headers are of one length, and a worker."""
    async with worker_of([50_000] * 100, tmp_path, nursery) as made:
        yield made


@contextlib.asynccontextmanager
async def worker_of(sizes: Sequence[int], tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Site]:
    """Make a hospital with files of these sizes, and a worker."""
    hospital = TwinHospital()
    hospital.has_headers = True
    for place, size in enumerate(sizes):
        hospital.add_file(f"/grid/medical/a/{place}.dcm", octets(size, str(place)))
    with structlog.testing.capture_logs():
        keystores = await hospital.open_keystores(nursery)
        cache = CiphertextCache(tmp_path, 2**30)
        await cache.load()
        kernel = KernelTwin()
        ring = KeyRing(lambda: keystores, deadline=DEADLINE)
        parts = Parts.around(hospital, cache, ring, kernel, nursery)
        yield Site(hospital, cache, Opener(parts, deadline=DEADLINE), kernel, parts)


async def test_the_header_of_the_next_file_in_order_is_pushed_while_this_one_is_read(site: Site) -> None:
    """Whoever opens it then finds it ready; without an order, and without its shares, nothing is done for it."""
    nodes = site.nodes()
    for node in nodes[:2]:
        site.opener.close(await site.opener.open(node, nodes[2:]))
        site.opener.forget(node.inode)
    site.kernel.pages.clear()
    for is_in_order in (False, True):
        opened = site.opener.open_at_once(nodes[0], nodes[1:], is_in_order=is_in_order)
        assert opened is not None
        site.kernel.rest()
        site.opener.close(opened)
        assert (nodes[1].inode in site.kernel.pages) == is_in_order
    following = site.opener.open_at_once(nodes[1])
    assert following is not None
    site.opener.close(following)
    site.opener.forget_shares()
    site.kernel.pages.clear()
    assert site.opener.open_at_once(nodes[0], nodes[1:], is_in_order=True) is None
    site.kernel.rest()
    assert not site.kernel.pages


async def test_a_header_is_pushed_by_each_open(site: Site) -> None:
    """The kernel may have dropped its pages, and would read beyond it: the pixels would be recalled for a header.

    Whether it was kept, or only what it is opened with.
    """
    node = site.nodes()[0]
    for is_kept in (False, False, True, True):
        site.kernel.pages.clear()
        site.opener.close(await site.opener.open(node))
        assert site.kernel.pages
        if not is_kept:
            site.opener.forget(node.inode)
    assert site.hospital.fetches == 0


async def test_a_header_that_was_closed_is_opened_again_without_key_or_hospital(
    site: Site, autojump_clock: trio.testing.MockClock
) -> None:
    """It is pushed each time, once; and no longer than its shares are held, after which the keystores decide."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    node = site.nodes()[0]
    site.opener.close(await site.opener.open(node))
    for twin in site.hospital.keystores.values():
        twin.failure = lambda: AccessDeniedError("decided: no")
    for _ in range(3):
        site.kernel.pages.clear()
        opened = site.opener.open_at_once(node)
        assert opened is not None
        assert await site.opener.read(opened, 0, 100) == site.file(0).plaintext[:100]
        assert site.kernel.pages[node.inode]
        site.kernel.pages.clear()
        assert site.opener.open_at_once(node) is opened  # a READ of its pages may be pending
        assert not site.kernel.pages
        site.opener.close(opened)
        site.opener.close(opened)
    await trio.sleep(HOLD_SECONDS)
    with pytest.raises(AccessDeniedError):
        await site.opener.open(node)
    assert not site.kernel.pages


async def test_a_header_that_was_closed_is_pushed_before_it_is_opened_next(site: Site) -> None:
    """And not once more by that open."""
    nodes = site.nodes()
    for node in nodes[:2]:
        site.opener.close(await site.opener.open(node))
    site.kernel.pages.clear()
    opened = site.opener.open_at_once(nodes[0], nodes[1:], is_in_order=True)
    assert opened is not None
    site.kernel.rest()
    assert nodes[1].inode in site.kernel.pages
    site.kernel.pages.clear()
    following = site.opener.open_at_once(nodes[1])
    assert following is not None
    assert not site.kernel.pages
    site.opener.close(opened)
    site.opener.close(following)


async def test_a_header_that_was_pushed_long_ago_is_pushed_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opens the next file late: the kernel may have dropped its pages meanwhile, and would read into the pixels."""
    nodes = site.nodes()
    for node in nodes[:2]:
        site.opener.close(await site.opener.open(node))
    opened = site.opener.open_at_once(nodes[0], nodes[1:], is_in_order=True)
    assert opened is not None
    site.kernel.rest()
    site.kernel.pages.clear()
    monkeypatch.setattr(open_file, "SHOWN_SECONDS", 0.0)
    following = site.opener.open_at_once(nodes[1])
    assert following is not None
    assert nodes[1].inode in site.kernel.pages
    site.opener.close(opened)
    site.opener.close(following)


async def test_headers_that_are_kept_stay_where_the_disk_is_full(site: Site) -> None:
    """They take no room of it; one that is kept whole does."""
    node = site.nodes()[0]
    site.opener.close(await site.opener.open(node))
    assert not site.opener.make_room()
    assert node.inode in site.parts.files
    opened = await site.opener.open(node)
    await site.opener.read(opened, 200_000, 10)
    await trio.testing.wait_all_tasks_blocked()
    site.opener.close(opened)
    assert node.inode in site.parts.files
    assert site.opener.make_room()
    assert not site.parts.files


async def test_a_header_that_was_closed_is_not_kept_once_its_body_is_fetched_ahead(site: Site) -> None:
    """It would hold an open descriptor, of as many files as there are headers; who opens it gets all of it."""
    node = site.nodes()[0]
    site.opener.close(await site.opener.open(node))
    await site.opener.prefetch([node])
    assert not site.parts.files
    assert await site.read(0, 200_000, 10) == site.file(0).plaintext[200_000:200_010]
    assert site.hospital.fetches == 1


@pytest.mark.parametrize("is_ahead", [False, True])
async def test_a_header_that_was_closed_is_not_pushed_while_a_broken_handle_may_have_reads_pending(
    site: Site, *, is_ahead: bool
) -> None:
    """The kernel keeps pages locked that it reads: the loop would wait for a READ that it is to answer itself."""
    nodes = site.nodes()
    broken = await site.opener.open(nodes[1])
    site.opener.bar(nodes[1].inode, Guid(nodes[1].guid))
    for node in nodes[:2]:
        site.opener.close(await site.opener.open(node))
    site.kernel.pages.clear()
    opened = site.opener.open_at_once(nodes[1 - is_ahead], nodes[2 - is_ahead :], is_in_order=is_ahead)
    assert opened is not None
    site.kernel.rest()
    assert nodes[1].inode not in site.kernel.pages
    site.opener.close(opened)
    site.opener.close(broken)


@pytest.mark.parametrize("is_ahead", [False, True])
async def test_a_header_that_was_closed_is_not_pushed_for_another_file_under_its_number(
    site: Site, *, is_ahead: bool
) -> None:
    """What the longer of two has beyond the other would stay in the page cache."""
    nodes = site.nodes()
    for node in nodes[:3]:
        site.opener.close(await site.opener.open(node))
    site.kernel.pages.clear()
    other = msgspec.structs.replace(nodes[2], inode=nodes[1].inode)
    if is_ahead:
        opened = site.opener.open_at_once(nodes[0], [other], is_in_order=True)
        assert opened is not None
        site.kernel.rest()
        site.opener.close(opened)
    else:
        assert site.opener.open_at_once(other) is None
    assert nodes[1].inode not in site.kernel.pages


async def leave_room_for_two(even: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have room for two unsealed headers; one is there."""
    node = even.nodes()[0]
    even.opener.close(await even.opener.open(node))
    beginning = even.parts.files[node.inode].beginning
    assert beginning is not None
    monkeypatch.setattr(kept, "HEADERS_PART", even.parts.memory.limit // (2 * (kept.ITEM_BYTES + beginning.octets)))


async def test_the_next_header_is_kept_until_it_is_opened_where_there_is_room_for_no_more(
    even: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be unsealed and pushed twice."""
    await leave_room_for_two(even, monkeypatch)
    nodes = even.nodes()
    for node in nodes[:6]:
        even.opener.close(await even.opener.open(node))
    for place in range(2, 5):
        opened = even.opener.open_at_once(nodes[place], nodes[place + 1 :], is_in_order=True)
        assert opened is not None
        even.kernel.rest()
        even.opener.close(opened)
        assert even.parts.files.keys() == {nodes[0].inode, nodes[place + 1].inode}
        even.kernel.pages.clear()


async def test_a_header_is_not_kept_while_there_is_a_part_of_its_body(site: Site) -> None:
    """It holds an open descriptor, of what came before fetching ahead was given up."""
    opened = await site.open_with_part_of_the_body(0)
    site.opener.close(opened)
    assert not site.parts.files


async def test_the_body_is_heard_of_by_who_has_it_open_and_not_by_who_has_closed_it(site: Site) -> None:
    """What the first one was told of the directory is old by now, and would stay in memory as long as the header."""
    heard: list[int] = []
    node = site.nodes()[0]
    site.opener.close(await site.opener.open(node, on_body=lambda: heard.append(1)))
    opened = await site.opener.open(node, on_body=lambda: heard.append(2))
    await site.opener.read(opened, 200_000, 100)
    assert heard == [2]
    site.opener.close(opened)


async def test_as_many_headers_are_kept_as_there_is_room_for(even: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those closed first stay; there is room again when one is opened, or goes."""
    await leave_room_for_two(even, monkeypatch)
    nodes = even.nodes()
    for node in nodes[:3]:
        even.opener.close(await even.opener.open(node))
    assert even.parts.files.keys() == {node.inode for node in nodes[:2]}
    opened = await even.opener.open(nodes[0])
    even.opener.close(await even.opener.open(nodes[2]))
    even.opener.close(opened)
    assert even.parts.files.keys() == {node.inode for node in nodes[1:3]}
    even.opener.forget(nodes[1].inode)
    even.opener.close(await even.opener.open(nodes[3]))
    assert even.parts.files.keys() == {node.inode for node in nodes[2:4]}


async def test_how_many_headers_are_kept_goes_by_the_budget_of_memory(even: Site) -> None:
    """Half of it may be unsealed ones; what is still sealed of the same files goes before all else."""
    nodes = even.nodes()
    even.parts.memory.resize(2 * 2**20)
    for node in nodes:
        even.opener.close(await even.opener.open(node, nodes))
    unsealed = sum(node.inode in even.parts.files for node in nodes)
    assert unsealed * 24_000 > 2**20
    asked = len(even.hospital.header_questions)
    for node in nodes:
        even.opener.close(await even.opener.open(node, nodes))
    assert len(even.hospital.header_questions) == asked, "none has gone that is not kept in another way"
    even.parts.memory.resize(2**20)
    assert sum(node.inode in even.parts.files for node in nodes) < unsealed


async def test_no_header_is_asked_for_again_that_is_kept_unsealed(even: Site) -> None:
    """Neither ahead of who goes on in order, nor with that of another file."""
    nodes = even.nodes()
    for node in nodes[:30]:
        even.opener.close(await even.opener.open(node))
        even.parts.headers.forget(Guid(node.guid))
    even.hospital.header_questions.clear()
    even.opener.close(await even.opener.open(nodes[0], nodes[1:30], is_in_order=True))
    await trio.testing.wait_all_tasks_blocked()
    assert even.hospital.header_questions == []
    even.opener.close(await even.opener.open(nodes[30], nodes[:30]))
    assert even.hospital.header_questions == [[Guid(nodes[30].guid)]]


async def test_the_next_file_is_not_opened_once_more_after_it_was_closed(site: Site) -> None:
    """Who is faster than what gets it ready has opened it himself."""
    nodes = site.nodes()
    for node in nodes[:3]:
        site.opener.close(await site.opener.open(node))
        site.opener.forget(node.inode)
    for place in (0, 1):
        opened = site.opener.open_at_once(nodes[place], nodes[place + 1 :], is_in_order=True)
        assert opened is not None
        site.opener.close(opened)
        site.kernel.pages.clear()
    site.kernel.rest()
    assert site.kernel.pages.keys() == {nodes[2].inode}


async def first_in_order(site: Site) -> OpenFile:
    """Open the first of two files that were opened before, and have the second one wait to be opened ahead."""
    nodes = site.nodes()
    for node in nodes[:2]:
        site.opener.close(await site.opener.open(node))
        site.opener.forget(node.inode)
    opened = site.opener.open_at_once(nodes[0], nodes[1:], is_in_order=True)
    assert opened is not None
    return opened


@pytest.mark.parametrize("lapse", ["forget_shares", "suspend", "let_go"])
async def test_the_next_file_is_not_opened_once_its_shares_have_gone(site: Site, lapse: str) -> None:
    """Whatever took them away between the open before it and the moment in which it would have been opened."""
    opened = await first_in_order(site)
    getattr(site.opener, lapse)()
    site.kernel.pages.clear()
    site.kernel.rest()
    assert not site.kernel.pages
    site.opener.close(opened)


async def test_the_next_file_is_not_opened_once_it_has_been_revoked(site: Site) -> None:
    """Nor if the kernel is told of that later."""
    nodes, opened = site.nodes(), await first_in_order(site)
    site.opener.bar(nodes[1].inode, Guid(nodes[1].guid))
    site.kernel.pages.clear()
    site.kernel.rest()
    assert not site.kernel.pages
    site.opener.close(opened)


@pytest.mark.parametrize("kind", [NodeKind.DIRECTORY, NodeKind.LINK])
async def test_a_link_or_a_directory_among_the_files_is_passed_over(site: Site, kind: NodeKind) -> None:
    """Users make them; what is asked for and pushed ahead is of files."""
    nodes = site.nodes()
    between = Node("between", 1000, kind, 0, REGISTERED)
    site.opener.close(await site.opener.open(nodes[0], [between, nodes[1], between]))
    for following in ([between], [between, nodes[2]]):
        opened = site.opener.open_at_once(nodes[0], following, is_in_order=True)
        assert opened is not None
        site.kernel.rest()
        site.opener.close(opened)
    assert 1000 not in site.kernel.pages


async def test_headers_are_asked_for_before_a_scan_comes_to_them(site: Site) -> None:
    """In one question, and once; without an order none is."""
    nodes = site.nodes()
    site.opener.close(await site.opener.open(nodes[0], nodes[1:3]))
    asked = len(site.hospital.header_questions)
    for is_in_order in (False, True, True):
        opened = site.opener.open_at_once(nodes[0], nodes[1:], is_in_order=is_in_order)
        assert opened is not None
        await trio.testing.wait_all_tasks_blocked()
        site.opener.close(opened)
        assert len(site.hospital.header_questions) == asked + is_in_order
    assert {guid.octets for guid in site.hospital.header_questions[-1]} == {node.guid for node in nodes[3:]}


@pytest.mark.parametrize("place", range(len(SIZES)))
async def test_the_header_and_the_last_page_are_there_without_a_recall(site: Site, place: int) -> None:
    """The header is in the page cache when open returns; both are given where the kernel asks for them."""
    file = site.file(place)
    opened = await site.opener.open(site.nodes()[place])
    for offset, pushed in site.kernel.pages[file.inode].items():
        assert file.plaintext[offset : offset + len(pushed)] == pushed
        assert offset % PAGE_SIZE == 0
    size = len(file.plaintext)
    assert await site.opener.read(opened, 0, 8192) == file.plaintext[:8192]
    last = (size - 1) // PAGE_SIZE * PAGE_SIZE
    assert await site.opener.read(opened, last, PAGE_SIZE) == file.plaintext[last:]
    assert await site.opener.read(opened, size, 100) == b""
    site.opener.close(opened)
    assert site.hospital.fetches == 0


@pytest.mark.parametrize("place", range(len(SIZES)))
async def test_what_lies_beyond_is_fetched_by_the_first_read_and_never_short(site: Site, place: int) -> None:
    """Whatever range is asked for."""
    file = site.file(place)
    size = len(file.plaintext)
    opened = await site.opener.open(site.nodes()[place])
    for offset in (0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, size // 2, size - PAGE_SIZE - 1, size - 1):
        begin = max(0, offset)
        assert await site.opener.read(opened, begin, 3 * CHUNK_SIZE) == file.plaintext[begin : begin + 3 * CHUNK_SIZE]
    site.opener.close(opened)
    assert site.hospital.fetches <= 1


async def test_many_who_read_beyond_cause_one_fetch(site: Site) -> None:
    """Of one handle and of others."""
    opened = [await site.opener.open(site.nodes()[0]) for _ in range(3)]
    found: list[bytes] = []

    async def read(place: int) -> None:
        found.append(await site.opener.read(opened[place % 3], 100_000, 10))

    async with trio.open_nursery() as nursery:
        for place in range(9):
            nursery.start_soon(read, place)
    assert found == [site.file(0).plaintext[100_000:100_010]] * 9
    assert site.hospital.fetches == 1
    for file in opened:
        site.opener.close(file)


async def test_siblings_headers_come_in_one_question(site: Site) -> None:
    """And who opens them then asks nobody."""
    nodes = site.nodes()
    site.opener.close(await site.opener.open(nodes[0], nodes[1:]))
    assert [len(question) for question in site.hospital.header_questions] == [len(SIZES)]
    for node in nodes[1:]:
        site.opener.close(await site.opener.open(node))
    assert len(site.hospital.header_questions) == 1
    assert site.hospital.fetches == 0


async def test_a_slow_pacs_does_not_hold_up_the_header_of_what_is_fetched_ahead(
    site: Site, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """It opens by its header though its body is under way, and a read beyond waits for that, and asks for no other."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    site.hospital.recall_seconds = 10.0
    node, begun = site.nodes()[0], trio.current_time()
    nursery.start_soon(site.opener.prefetch, [node])
    await trio.testing.wait_all_tasks_blocked()
    opened = await site.opener.open(node)
    assert trio.current_time() < begun + 5
    assert await site.opener.read(opened, 0, 100) == site.file(0).plaintext[:100]
    assert await site.opener.read(opened, 200_000, 100) == site.file(0).plaintext[200_000:200_100]
    assert trio.current_time() >= begun + 10
    assert site.hospital.fetches == 1
    site.opener.close(opened)


@pytest.mark.parametrize("offset", [0, 200_000])
async def test_what_is_only_fetched_ahead_any_more_is_opened_by_nobody_without_the_keystores(
    site: Site, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, offset: int
) -> None:
    """Not by what a reader has left unlocked, however long a slow PACS takes; and not kept unlocked meanwhile."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    site.hospital.recall_seconds = 15.0
    node = site.nodes()[0]
    nursery.start_soon(site.opener.prefetch, [node])
    await trio.testing.wait_all_tasks_blocked()
    opened = await site.opener.open(node)
    with trio.move_on_after(5.0):
        await site.opener.read(opened, offset, 10)
    site.opener.close(opened)
    await trio.sleep(3 * HOLD_SECONDS)
    for twin in site.hospital.keystores.values():
        twin.failure = lambda: AccessDeniedError("decided: no")
    with pytest.raises(AccessDeniedError):
        await site.read(0, 0, 10)
    for twin in site.hospital.keystores.values():
        twin.failure = None
    site.hospital.recall_seconds = 0.0
    assert await site.read(0, 200_000, 10) == site.file(0).plaintext[200_000:200_010]


async def test_a_prefetch_of_a_file_that_is_open_by_its_header_serves_its_reader(site: Site) -> None:
    """He need not ask for it again."""
    node = site.nodes()[0]
    opened = await site.opener.open(node)
    assert not site.opener.has(node)
    await site.opener.prefetch([node])
    assert site.opener.has(node)
    assert await site.opener.read(opened, 100_000, 10) == site.file(0).plaintext[100_000:100_010]
    site.opener.close(opened)
    assert site.hospital.fetches == 1


async def test_the_body_is_heard_of_when_it_is_wanted(site: Site) -> None:
    """Once: who reads headers has nothing fetched ahead for him."""
    heard: list[int] = []
    opened = await site.opener.open(site.nodes()[0], on_body=lambda: heard.append(1))
    await site.opener.read(opened, 0, 100)
    assert not heard
    await site.opener.read(opened, 200_000, 100)
    await site.opener.read(opened, 250_000, 100)
    assert heard == [1]
    site.opener.close(opened)


async def test_a_hospital_without_headers_is_asked_for_the_whole_as_ever(site: Site) -> None:
    """And not for the header again each time."""
    site.hospital.has_headers = False
    for _ in range(3):
        assert await site.read(0, 0, 100) == site.file(0).plaintext[:100]
    assert len(site.hospital.header_questions) == 1
    assert site.hospital.fetches == 1


async def test_a_header_that_is_another_files_is_no_header(site: Site) -> None:
    """Whoever swapped them: it is not used, and the whole file is asked for."""
    first, second = site.file(0), site.file(1)
    site.hospital.swapped_headers[first.guid] = second.guid
    assert await site.read(0, 0, 100) == first.plaintext[:100]
    assert site.hospital.fetches == 1


async def test_a_denied_reader_gets_no_header(site: Site) -> None:
    """The keystores decide about headers as about files."""
    for twin in site.hospital.keystores.values():
        twin.failure = lambda: AccessDeniedError("decided: no")
    with pytest.raises(AccessDeniedError):
        await site.read(0, 0, 100)
    assert not site.kernel.pages


async def test_a_revoked_reader_gets_no_more_of_the_header(site: Site) -> None:
    """Not from memory either; the next open asks the hospital."""
    file = site.file(0)
    opened = await site.opener.open(site.nodes()[0])
    await site.opener.revoke(file.inode, file.guid)
    with pytest.raises(AccessDeniedError):
        await site.opener.read(opened, 0, 10)
    site.opener.close(opened)
    assert not site.kernel.pages
    site.hospital.refusal = lambda: AccessDeniedError("no longer")
    with pytest.raises(AccessDeniedError):
        await site.opener.open(site.nodes()[0])


async def test_a_lease_that_lapsed_takes_the_header_along(site: Site) -> None:
    """When it is held again the file reads on."""
    opened = await site.opener.open(site.nodes()[0])
    site.opener.suspend()
    assert opened.beginning is None
    site.opener.resume()
    assert await site.opener.read(opened, 0, 10) == site.file(0).plaintext[:10]
    site.opener.close(opened)


async def test_a_recall_that_takes_too_long_fails_for_the_handle_and_not_again(
    site: Site, autojump_clock: trio.testing.MockClock
) -> None:
    """The kernel repeats a READ that failed; another open may succeed."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    site.hospital.recall_seconds = DEADLINE + 10
    opened = await site.opener.open(site.nodes()[0])
    with pytest.raises(RecallTimedOutError):
        await site.opener.read(opened, 200_000, 10)
    begun = trio.current_time()
    for _ in range(3):
        with pytest.raises(RecallTimedOutError):
            await site.opener.read(opened, 200_000, 10)
    assert trio.current_time() - begun < 1
    site.opener.close(opened)
    site.hospital.recall_seconds = 0
    assert await site.read(0, 200_000, 10) == site.file(0).plaintext[200_000:200_010]


async def test_a_dead_hospital_is_told_as_ever(site: Site) -> None:
    """An outage is no missing header."""
    site.hospital.failure = unreachable
    with pytest.raises(type(unreachable())):
        await site.read(0, 0, 10)


async def test_headers_are_bounded_and_asked_for_some_at_a_time(site: Site) -> None:
    """Those not used for longest go; no question is larger than the hospital answers."""
    headers = Headers(site.hospital, Memory(50_000))
    guids = list(site.hospital.files)
    assert await headers.find(guids[0], guids * 20) is not None
    assert all(len(question) <= MAX_HEADERS for question in site.hospital.header_questions)
    assert sum(len(kept.sealed) for guid in guids if (kept := headers.held(guid))) <= 50_000


async def test_a_body_that_was_fetched_ahead_in_part_is_fetched_anew_by_who_reads_on(site: Site) -> None:
    """He has it open by its header; what came, and was unlocked, is no more, and waits for nothing."""
    opened = await site.open_with_part_of_the_body(0)
    with trio.fail_after(5):
        assert await site.opener.read(opened, 200_000, 50) == site.file(0).plaintext[200_000:200_050]
    site.opener.close(opened)
    assert site.cache.used
