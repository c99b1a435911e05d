"""Opening: one fetch for all, the key only for who may have it, pages pushed and taken back, and never a wrong byte."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import structlog.testing
import trio
import trio.testing

from mdmfs.model.errors import (
    AccessDeniedError,
    InstanceChangedError,
    IntegrityError,
    MdmfsError,
    OutOfSpaceError,
    PeerTimedOutError,
    PeerUnreachableError,
    RecallTimedOutError,
    TooFewSharesError,
)
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import CHUNK_SIZE, HEADER_SIZE, SEALED_CHUNK_SIZE
from mdmfs.wire.messages.files import Node, NodeKind
from mdmfs.wire.messages.keystores import Collected
from mdmfs.worker.cache.ciphertext import Ciphertext
from mdmfs.worker.cache.extents import PLAIN
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.keys.ring import HOLD_SECONDS, KeyRing
from mdmfs.worker.memory import PUSHED, Memory
from mdmfs.worker.opening import Opener
from mdmfs.worker.reading.open_file import OpenFile
from mdmfs.worker.reading.parts import Parts
from tests.twins.hospital import KEYSTORES, REGISTERED, TwinFile, TwinHospital, unreachable
from tests.twins.octets import octets

SIZE = 100_000
BIG = PUSHED + 3 * CHUNK_SIZE + 17
DEADLINE = 30.0
THREAD_SECONDS = 0.03
"""The clock jumps when nothing has happened for so long, since it cannot see the threads at work."""


def _do_nothing() -> None:
    pass


class KernelTwin:
    """The page cache of a kernel, by inode; its calls come from threads."""

    def __init__(self) -> None:
        self.pages: dict[int, dict[int, bytes]] = {}
        self.threads: set[int] = set()
        self.work: Callable[[], None] = _do_nothing

    def store(self, inode: int, offset: int, octets_: memoryview) -> None:
        """See ``Pages``."""
        self.threads.add(threading.get_ident())
        self.pages.setdefault(inode, {})[offset] = bytes(octets_)

    def invalidate(self, inode: int) -> None:
        """See ``Pages``."""
        self.pages.pop(inode, None)

    def meanwhile(self, work: Callable[[], None], *, gives_way: bool = False) -> None:  # noqa: ARG002 nobody asks
        """See ``Pages``."""
        self.work = work

    def rest(self) -> None:
        """Ask for nothing for a moment."""
        work, self.work = self.work, _do_nothing
        work()

    def bytes_of(self, inode: int) -> bytes:
        """Give what is there, from the begin on without a gap."""
        found = b""
        for offset, piece in sorted(self.pages.get(inode, {}).items()):
            assert offset == len(found)
            found += piece
        return found


@dataclasses.dataclass
class Site:
    """A worker without FUSE."""

    hospital: TwinHospital
    cache: CiphertextCache
    ring: KeyRing
    kernel: KernelTwin
    opener: Opener
    folder: Path
    memory: Memory

    def node(self, file: TwinFile) -> Node:
        """Give a file as a directory lists it."""
        return Node("x.dcm", file.inode, NodeKind.FILE, len(file.plaintext), REGISTERED, file.guid.octets)

    @contextlib.asynccontextmanager
    async def opened(self, file: TwinFile) -> AsyncIterator[Callable[[int, int], object]]:
        """Open for a block, and give what reads."""
        opened = await self.opener.open(self.node(file))

        async def read(offset: int, length: int) -> bytes:
            return await self.opener.read(opened, offset, length)

        try:
            yield read
        finally:
            self.opener.close(opened)

    async def read_all(self, file: TwinFile) -> bytes:
        """Open, read everything in pieces of 128 KiB, close."""
        opened = await self.opener.open(self.node(file))
        try:
            found = b""
            while piece := await self.opener.read(opened, len(found), 128 * 1024):
                found += piece
            return found
        finally:
            self.opener.close(opened)

    def cached(self) -> Path:
        """Give the only object in the cache."""
        (path,) = (self.folder / "complete").iterdir()
        return path


@pytest.fixture
async def site(tmp_path: Path, nursery: trio.Nursery) -> Site:
    """Make a hospital with a small and a big file, and a worker."""
    return await _make_site(tmp_path, nursery)


@pytest.fixture
async def site_with_long(tmp_path: Path, nursery: trio.Nursery) -> Site:
    """Make one that has a file of several extents, too."""
    return await _make_site(tmp_path, nursery, octets(3 * PLAIN + 5, "long"))


async def _make_site(tmp_path: Path, nursery: trio.Nursery, long: bytes = b"") -> Site:
    hospital = TwinHospital()
    hospital.add_file("/grid/medical/a/small.dcm", octets(SIZE, "small"))
    hospital.add_file("/grid/medical/a/big.dcm", octets(BIG, "big"))
    hospital.add_file("/grid/medical/a/empty.dcm", b"")
    hospital.add_file("/grid/medical/a/edge.dcm", octets(4 * CHUNK_SIZE, "edge"))
    if long:
        hospital.add_file("/grid/medical/a/long.dcm", long)
    with structlog.testing.capture_logs():
        keystores = await hospital.open_keystores(nursery)
    cache = CiphertextCache(tmp_path, 2**30)
    await cache.load()
    ring, kernel = KeyRing(lambda: keystores, deadline=DEADLINE), KernelTwin()
    memory = Memory()
    opener = Opener(Parts.around(hospital, cache, ring, kernel, nursery, memory), deadline=DEADLINE)
    return Site(hospital, cache, ring, kernel, opener, tmp_path, memory)


def file_of(site: Site, name: str) -> TwinFile:
    """Find a file by name."""
    directory = site.hospital.root.entries["a"]
    assert not isinstance(directory, TwinFile)
    found = directory.entries[name]
    assert isinstance(found, TwinFile)
    return found


@pytest.mark.parametrize("name", ["small.dcm", "big.dcm", "empty.dcm", "edge.dcm"])
async def test_a_file_reads_as_it_was_registered_cold_and_from_the_cache(site: Site, name: str) -> None:
    """The second time nobody is asked for ciphertext or description."""
    file = file_of(site, name)
    assert await site.read_all(file) == file.plaintext
    asked = site.hospital.fetches, site.hospital.descriptions
    assert asked == (1, 0)
    assert await site.read_all(file) == file.plaintext
    assert (site.hospital.fetches, site.hospital.descriptions) == asked


async def test_where_the_bytes_are_and_how_long_each_step_took_is_told(site: Site) -> None:
    """Nowhere, then in both caches; a revoked file is nowhere again."""
    file = file_of(site, "small.dcm")
    node = site.node(file)
    assert site.opener.story(node).splitlines()[0] == "bytes     not on this node"
    async with site.opened(file):
        bytes_, last = site.opener.story(node).splitlines()
        assert bytes_ == "bytes     page cache, cache of the mount, sealed"
        assert re.fullmatch(r"last open (.+ at [0-9]+\.[0-9]{3} s(, )?)+", last)
    await site.opener.revoke(file.inode, file.guid)
    assert site.opener.story(node).splitlines()[0] == "bytes     not on this node"


async def test_a_small_file_is_in_the_page_cache_when_open_returns(site: Site) -> None:
    """Pushed whole, by the loop that took it in: nobody can be reading it yet."""
    file = file_of(site, "small.dcm")
    async with site.opened(file):
        assert site.kernel.bytes_of(file.inode) == file.plaintext
    assert site.kernel.threads == {threading.get_ident()}


async def test_a_file_of_which_the_kernel_has_a_handle_is_never_pushed_by_the_loop(site: Site) -> None:
    """A READ by the handle of one that broke may be pending, and the loop would wait for what it is to answer."""
    file = file_of(site, "small.dcm")
    broken = await site.opener.open(site.node(file))
    await site.opener.revoke(file.inode, file.guid)
    site.kernel.threads.clear()
    async with site.opened(file):
        assert site.kernel.bytes_of(file.inode) == file.plaintext
    assert site.kernel.threads
    assert threading.get_ident() not in site.kernel.threads
    site.opener.close(broken)


async def test_a_kernel_that_has_the_pages_gets_them_once(site: Site) -> None:
    """A second open costs no push, until the kernel forgets the inode or asks for a page."""
    file = file_of(site, "small.dcm")
    async with site.opened(file):
        pass
    site.kernel.pages.clear()
    async with site.opened(file):
        assert not site.kernel.pages
    site.opener.forget(file.inode)
    async with site.opened(file):
        assert site.kernel.bytes_of(file.inode) == file.plaintext


async def test_a_large_file_is_read_and_not_pushed(site: Site) -> None:
    """Each byte once, by the READ that asks for it; from the loop where it is at hand."""
    file = file_of(site, "big.dcm")
    await site.read_all(file)
    opened = await site.opener.open(site.node(file))
    for offset, length in ((0, 2**20), (BIG - 10, 100), (17, 1), (3_500_001, 100_000)):
        found = site.opener.read_at_once(opened, offset, length)
        assert found == file.plaintext[offset : offset + length]
    assert not site.kernel.pages
    site.opener.close(opened)


async def test_a_small_file_at_hand_opens_at_once(site: Site) -> None:
    """No question and no thread: within one step of the loop. What is damaged then is found out as ever."""
    file = file_of(site, "small.dcm")
    await site.read_all(file)
    site.opener.forget(file.inode)
    site.kernel.pages.clear()
    site.kernel.threads.clear()
    async with site.opened(file):
        assert site.kernel.bytes_of(file.inode) == file.plaintext
    assert site.kernel.threads == {threading.get_ident()}


async def _read_and_forgotten(site: Site, *names: str) -> list[Node]:
    """Have files in the cache, their shares at hand, and neither pages of them nor anything open."""
    for name in names:
        await site.read_all(file_of(site, name))
        site.opener.forget(file_of(site, name).inode)
    site.kernel.pages.clear()
    site.kernel.threads.clear()
    return [site.node(file_of(site, name)) for name in names]


@pytest.mark.parametrize(("is_in_order", "is_known"), [(True, True), (False, True), (True, False)])
async def test_the_next_small_file_in_order_is_pushed_while_this_one_is_read(
    site: Site, nursery: trio.Nursery, *, is_in_order: bool, is_known: bool
) -> None:
    """Where the kernel takes pages of it. A revocation takes them back, and nobody opens it then."""
    nodes = await _read_and_forgotten(site, "edge.dcm", "small.dcm")
    edge, small = nodes
    opener = Opener(
        Parts.around(site.hospital, site.cache, site.ring, site.kernel, nursery),
        deadline=DEADLINE,
        may_push=lambda _: is_known,
    )
    opened = opener.open_at_once(edge, [small], is_in_order=is_in_order)
    assert opened is not None
    site.kernel.rest()
    assert (small.inode in site.kernel.pages) == (is_in_order and is_known)
    site.kernel.pages.pop(edge.inode)
    if is_in_order and is_known:
        following = opener.open_at_once(small)
        assert following is not None
        assert site.kernel.pages.keys() == {small.inode}
        opener.close(following)
    await opener.revoke(small.inode, file_of(site, "small.dcm").guid)
    assert not site.kernel.pages
    assert opener.open_at_once(small) is None
    opener.close(opened)


async def test_nothing_is_opened_ahead_for_who_is_served_no_more(site: Site) -> None:
    """What would be kept then, nobody would let go: a descriptor, and pages."""
    edge, small = await _read_and_forgotten(site, "edge.dcm", "small.dcm")
    opened = site.opener.open_at_once(edge, [small], is_in_order=True)
    assert opened is not None
    site.opener.let_go()
    site.kernel.rest()
    assert small.inode not in site.kernel.pages
    site.opener.close(opened)


async def test_a_small_file_on_a_slow_disk_is_waited_for_and_opens_as_if_it_had_been_in_memory(site: Site) -> None:
    """The thread only reads; the loop unseals and pushes."""
    (node,) = await _read_and_forgotten(site, "small.dcm")
    _drop_pages(site.cached())
    site.opener.close(await site.opener.open(node))
    assert site.kernel.bytes_of(node.inode) == file_of(site, "small.dcm").plaintext
    assert site.kernel.threads == {threading.get_ident()}


def _drop_pages(path: Path) -> None:
    """Have the page cache let go of a file."""
    with path.open("rb") as file:
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


async def _read_in_order(site: Site, opened: OpenFile) -> bytes:
    """Read all as the kernel's READs do: at once what can be, else in their turn."""
    found = b""
    while len(found) < opened.size:
        at_once = site.opener.read_at_once(opened, len(found), 2**20)
        found += await site.opener.read(opened, len(found), 2**20) if at_once is None else bytes(at_once)
    return found


@pytest.fixture
def disk_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing in memory ever: the kernel reads ahead, too, and is sometimes quick enough that no READ waits."""
    preadv = os.preadv

    def read(descriptor: int, buffers: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        if flags & os.RWF_NOWAIT:
            raise BlockingIOError
        return preadv(descriptor, buffers, offset, flags)

    monkeypatch.setattr(os, "preadv", read)


@pytest.mark.usefixtures("disk_at_rest")
async def test_a_long_file_on_a_slow_disk_is_read_ahead_past_the_page_cache(site_with_long: Site) -> None:
    """Each byte right, in whatever pieces, also when the cache has let the object go; nothing stays after the close."""
    site, file = site_with_long, file_of(site_with_long, "long.dcm")
    plain = file.plaintext
    await site.read_all(file)
    opened = await site.opener.open(site.node(file))
    found = await _read_in_order(site, opened)
    assert found == plain
    assert opened.ciphertext is not None
    assert opened.ciphertext.ahead is not None
    site.cache.discard(file.guid)
    for offset, length in ((len(plain) - 9, 100), (2 * PLAIN - 5, 10), (9 * 2**20 - 1, 2**21)):
        assert await site.opener.read(opened, offset, length) == plain[offset : offset + length]
    site.opener.close(opened)
    assert site.memory.used == 0


@pytest.mark.usefixtures("disk_at_rest")
async def test_a_long_file_that_the_disk_spoiled_is_mended_though_it_was_read_ahead(site_with_long: Site) -> None:
    """By one fetch, and what was read ahead of the spoiled one is not used again."""
    site, file = site_with_long, file_of(site_with_long, "long.dcm")
    await site.read_all(file)
    with site.cached().open("r+b") as cached:
        cached.seek(9 * 2**20)
        cached.write(b"spoiled")
    for _ in range(2):
        opened = await site.opener.open(site.node(file))
        assert await _read_in_order(site, opened) == file.plaintext
        assert site.hospital.fetches == 2
        site.opener.close(opened)


@pytest.mark.parametrize("name", ["small.dcm", "big.dcm"])
async def test_what_is_in_memory_opens_without_a_thread(site: Site, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is stuck under other files may have all that read."""
    file = file_of(site, name)
    await site.read_all(file)
    site.opener.close(await site.opener.open(site.node(file)))
    site.opener.forget_shares()
    threads = set[int]()
    read_into = Ciphertext.read_into

    def note(ciphertext: Ciphertext, offset: int, buffer: memoryview) -> None:
        threads.add(threading.get_ident())
        read_into(ciphertext, offset, buffer)

    monkeypatch.setattr(Ciphertext, "read_into", note)
    site.opener.close(await site.opener.open(site.node(file)))
    assert threads <= {threading.get_ident()}


async def test_the_loop_pushes_nothing_while_a_broken_handle_may_have_reads_pending(site: Site) -> None:
    """The kernel keeps pages locked that it reads: the loop would wait for a READ that it is to answer itself."""
    file = file_of(site, "small.dcm")
    async with site.opened(file):
        site.opener.bar(file.inode, None)
        site.kernel.pages.clear()
        site.kernel.threads.clear()
        assert site.opener.open_at_once(site.node(file)) is None
        async with site.opened(file):
            assert site.kernel.bytes_of(file.inode) == file.plaintext
        assert threading.get_ident() not in site.kernel.threads
    async with site.opened(file):
        assert site.opener.open_at_once(site.node(file)) is not None


async def test_many_readers_cause_one_fetch_and_one_of_them_may_leave(
    site: Site, autojump_clock: trio.testing.MockClock
) -> None:
    """Who was first has no special part: the fetch goes on for the others."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    site.hospital.recall_seconds = 5
    file = file_of(site, "small.dcm")
    found: list[bytes] = []

    async def read() -> None:
        found.append(await site.read_all(file))

    async with trio.open_nursery() as readers:
        with trio.move_on_after(1):
            await site.read_all(file)
        for _ in range(20):
            readers.start_soon(read)
        await trio.sleep(0.1)
        with trio.move_on_after(1):
            await site.read_all(file)
    assert found == [file.plaintext] * 20
    assert site.hospital.fetches == 2  # the first reader left before the others came


async def test_a_fetch_ends_when_the_last_reader_leaves(site: Site, autojump_clock: trio.testing.MockClock) -> None:
    """Nothing stays of it."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    site.hospital.pause = 1
    site.hospital.piece = CHUNK_SIZE
    with trio.move_on_after(3):
        await site.read_all(file_of(site, "big.dcm"))
    await trio.sleep(1)
    assert site.cache.used == 0
    assert not list((site.folder / "arriving").iterdir())
    assert not list((site.folder / "complete").iterdir())


async def test_open_waits_no_longer_than_its_deadline_and_a_second_open_may_succeed(
    site: Site, autojump_clock: trio.testing.MockClock
) -> None:
    """ETIMEDOUT is an outcome of waiting, not of the file."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    site.hospital.recall_seconds = DEADLINE + 10
    file = file_of(site, "small.dcm")
    begun = trio.current_time()
    with pytest.raises(RecallTimedOutError):
        await site.read_all(file)
    assert trio.current_time() - begun <= DEADLINE + 1
    site.hospital.recall_seconds = 0
    assert await site.read_all(file) == file.plaintext


@pytest.mark.parametrize("has_headers", [True, False])
async def test_who_waits_in_vain_for_keystores_is_not_told_of_a_recall(
    site: Site, autojump_clock: trio.testing.MockClock, *, has_headers: bool
) -> None:
    """They hang, and do not refuse: the hospital has sent what it was asked for long ago."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    site.hospital.has_headers, site.hospital.pause = has_headers, 0.1
    for twin in site.hospital.keystores.values():
        twin.delay = 2 * DEADLINE
    with pytest.raises(PeerTimedOutError, match="the keystores did not answer for the key of"):
        await site.read_all(file_of(site, "small.dcm"))


async def test_ciphertext_at_hand_opens_without_the_hospital_but_not_without_the_keystores(
    site: Site, autojump_clock: trio.testing.MockClock
) -> None:
    """Two deciders, each by itself."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    file = file_of(site, "small.dcm")
    await site.read_all(file)
    site.hospital.failure = unreachable
    assert await site.read_all(file) == file.plaintext
    await trio.sleep(HOLD_SECONDS)
    for name in KEYSTORES[:2]:
        site.hospital.keystores[name].failure = unreachable
    with pytest.raises(TooFewSharesError):
        await site.read_all(file)
    site.hospital.keystores["k1"].failure = None
    await trio.sleep(10)
    assert await site.read_all(file) == file.plaintext


async def test_a_keystore_that_lies_is_outvoted(site: Site) -> None:
    """The commitment tells."""
    file = file_of(site, "small.dcm")
    twin = site.hospital.keystores["k1"]

    def lie(collected: Collected) -> Collected:
        return Collected(collected.outcomes, [share[:-1] + bytes([share[-1] ^ 1]) for share in collected.shares])

    twin.lie = lie
    with structlog.testing.capture_logs():
        assert await site.read_all(file) == file.plaintext
    assert site.hospital.fetches == 1


async def test_a_denied_reader_gets_nothing_though_the_ciphertext_is_here(
    site: Site, autojump_clock: trio.testing.MockClock
) -> None:
    """Not a byte, not a page."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    file = file_of(site, "small.dcm")
    await site.read_all(file)
    await trio.sleep(HOLD_SECONDS)
    site.kernel.pages.clear()
    site.opener.forget(file.inode)
    for twin in site.hospital.keystores.values():
        twin.failure = lambda: AccessDeniedError("decided: no")
    with pytest.raises(AccessDeniedError):
        await site.read_all(file)
    assert not site.kernel.pages


async def test_the_hospitals_no_is_the_readers(site: Site) -> None:
    """Whatever it is called."""
    site.hospital.refusal = lambda: InstanceChangedError("the PACS holds something else")
    with pytest.raises(InstanceChangedError):
        await site.read_all(file_of(site, "small.dcm"))
    assert site.cache.used == 0


DAMAGES: dict[str, Callable[[bytearray], None]] = {
    "salt": lambda sealed: sealed.__setitem__(0, sealed[0] ^ 1),
    "commitment": lambda sealed: sealed.__setitem__(HEADER_SIZE - 1, sealed[HEADER_SIZE - 1] ^ 1),
    "first chunk": lambda sealed: sealed.__setitem__(HEADER_SIZE, sealed[HEADER_SIZE] ^ 1),
    "last byte": lambda sealed: sealed.__setitem__(-1, sealed[-1] ^ 1),
    "end": lambda sealed: sealed.__delitem__(slice(-1, None)),
    "end at a chunk's edge": lambda sealed: sealed.__delitem__(slice(HEADER_SIZE + 2 * SEALED_CHUNK_SIZE, None)),
    "everything": lambda sealed: sealed.clear(),
    "swapped chunks": lambda sealed: sealed.__setitem__(
        slice(HEADER_SIZE, HEADER_SIZE + 2 * SEALED_CHUNK_SIZE),
        sealed[HEADER_SIZE + SEALED_CHUNK_SIZE : HEADER_SIZE + 2 * SEALED_CHUNK_SIZE]
        + sealed[HEADER_SIZE : HEADER_SIZE + SEALED_CHUNK_SIZE],
    ),
}


@pytest.mark.parametrize("name", ["small.dcm", "big.dcm"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_a_damaged_object_in_the_cache_costs_one_fetch_and_gives_the_right_bytes(
    site: Site, name: str, damage: Callable[[bytearray], None]
) -> None:
    """At open, or at the read that meets it."""
    file = file_of(site, name)
    await site.read_all(file)
    path = site.cached()
    sealed = bytearray(path.read_bytes())
    damage(sealed)
    path.write_bytes(sealed)
    site.opener.forget(file.inode)
    with structlog.testing.capture_logs():
        assert await site.read_all(file) == file.plaintext
    assert site.hospital.fetches == 2
    assert site.cached().stat().st_size > len(file.plaintext)


async def test_an_older_sealing_of_the_file_in_its_place_is_no_harm_and_anothers_is_found_out(site: Site) -> None:
    """A swap of two files' objects is no way to read one under the other's name."""
    small, edge = file_of(site, "small.dcm"), file_of(site, "edge.dcm")
    other = dataclasses.replace(small, guid=Guid(bytes(16)), inode=99, plaintext=octets(SIZE, "other"))
    site.hospital.files[other.guid] = other
    foreign = site.hospital.sealed(other.guid)
    await site.read_all(small)
    site.cached().write_bytes(foreign)
    site.opener.forget(small.inode)
    with structlog.testing.capture_logs():
        assert await site.read_all(small) == small.plaintext
    assert await site.read_all(edge) == edge.plaintext


@pytest.mark.parametrize("name", ["small.dcm", "big.dcm"])
@pytest.mark.parametrize("kept", [0, 30, HEADER_SIZE, HEADER_SIZE + 3 * SEALED_CHUNK_SIZE, -1])
async def test_a_stream_cut_short_is_an_error_and_never_the_end_of_the_file(site: Site, name: str, kept: int) -> None:
    """Nothing of it stays, in the cache or in the kernel, and the next open fetches anew."""
    file = file_of(site, name)
    site.hospital.damage = lambda sealed: sealed[:kept]
    with pytest.raises(PeerUnreachableError):
        await site.read_all(file)
    await trio.testing.wait_all_tasks_blocked()
    assert site.cache.used == 0
    with trio.fail_after(2):
        while site.kernel.pages:  # noqa: ASYNC110 a push under way takes its pages back itself
            await trio.sleep(0.01)
    site.hospital.damage = bytes
    assert await site.read_all(file) == file.plaintext


@pytest.mark.parametrize("name", ["small.dcm", "big.dcm"])
@pytest.mark.parametrize("at", [3, 40, HEADER_SIZE + 5, -1])
async def test_a_stream_damaged_on_its_way_is_an_error_and_the_next_open_fetches_anew(
    site: Site, name: str, at: int
) -> None:
    """Not a second fetch at once: that the network or the hospital is broken, the reader must hear."""
    file = file_of(site, name)

    def damage(sealed: bytes) -> bytes:
        damaged = bytearray(sealed)
        damaged[at] ^= 1
        return bytes(damaged)

    site.hospital.damage = damage
    with structlog.testing.capture_logs(), pytest.raises(IntegrityError):
        await site.read_all(file)
    assert site.hospital.fetches == 1
    assert file.guid not in site.cache
    with trio.fail_after(2):
        while site.kernel.pages:  # noqa: ASYNC110 they are taken back by a thread, after the reader was told
            await trio.sleep(0.01)
    site.hospital.damage = bytes
    assert await site.read_all(file) == file.plaintext


async def test_a_read_behind_what_has_arrived_waits_and_is_not_short(
    site: Site, autojump_clock: trio.testing.MockClock
) -> None:
    """The head comes first, the tail when it is there."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    site.hospital.piece, site.hospital.pause = 512 * 1024, 1.0
    file = file_of(site, "big.dcm")
    opened = await site.opener.open(site.node(file))
    begun = trio.current_time()
    assert await site.opener.read(opened, BIG - 100, 1000) == file.plaintext[-100:]
    assert trio.current_time() > begun + 1
    site.opener.close(opened)


async def test_a_revoked_reader_gets_eacces_while_waiting_and_no_page_comes_back(
    site: Site, autojump_clock: trio.testing.MockClock
) -> None:
    """Marked first; reads that wait end; the next open asks the hospital."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    site.hospital.piece, site.hospital.stops_after = 2**20, 2 * 2**20
    file = file_of(site, "big.dcm")
    opened = await site.opener.open(site.node(file))
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(AccessDeniedError):
                await site.opener.read(opened, BIG - 10, 10)

        nursery.start_soon(wait)
        await trio.sleep(1)
        await site.opener.revoke(file.inode, file.guid)
    assert not site.kernel.pages
    with pytest.raises(AccessDeniedError):
        await site.opener.read(opened, 0, 10)
    site.opener.close(opened)
    site.hospital.stops_after = None
    site.hospital.refusal = lambda: AccessDeniedError("no longer")
    with pytest.raises(AccessDeniedError):
        await site.opener.open(site.node(file))


async def test_a_file_that_does_not_fit_into_the_cache_is_enospc(site: Site) -> None:
    """By name, and the others go on."""
    site.cache.limit = SIZE * 2
    with pytest.raises(OutOfSpaceError):
        await site.read_all(file_of(site, "big.dcm"))
    assert await site.read_all(file_of(site, "small.dcm"))


async def test_a_size_that_the_hospital_changed_its_mind_about_is_refused(site: Site) -> None:
    """The directory was exact, or nobody reads."""
    file = file_of(site, "small.dcm")
    node = site.node(dataclasses.replace(file, plaintext=file.plaintext + b"!"))
    with pytest.raises(InstanceChangedError):
        await site.opener.open(node)


async def test_a_fault_in_the_background_is_told_to_the_reader_and_to_nobody_else(site: Site) -> None:
    """The nursery of the mount survives it."""
    site.hospital.failure = lambda: ZeroDivisionError("a fault of the program")  # type: ignore[assignment]
    with structlog.testing.capture_logs() as logs, pytest.raises(MdmfsError, match="incident"):
        await site.read_all(file_of(site, "small.dcm"))
    assert logs[-1]["log_level"] == "error"
    site.hospital.failure = None
    assert await site.read_all(file_of(site, "small.dcm"))


async def test_a_file_that_was_closed_a_moment_ago_opens_without_anybody_until_it_is_revoked(site: Site) -> None:
    """Neither hospital nor keystores are asked, and a revocation takes what is kept like what is open."""
    file = file_of(site, "small.dcm")
    await site.read_all(file)
    for twin in site.hospital.keystores.values():
        twin.failure = unreachable
    opened = site.opener.open_again(site.node(file))
    assert opened is not None
    assert await site.opener.read(opened, 0, SIZE) == file.plaintext
    site.opener.close(opened)
    await site.opener.revoke(file.inode, file.guid)
    assert site.opener.open_again(site.node(file)) is None
    assert site.opener.open_at_once(site.node(file)) is None


@pytest.mark.parametrize("end", ["suspend", "forget_shares", "let_go"])
async def test_what_was_closed_goes_with_the_shares_and_the_lease(site: Site, end: str) -> None:
    """Its key is no longer here than theirs."""
    file = file_of(site, "small.dcm")
    await site.read_all(file)
    getattr(site.opener, end)()
    assert site.opener.open_again(site.node(file)) is None


async def test_what_was_closed_is_kept_no_longer_than_its_shares_however_often_it_is_opened(
    site: Site, autojump_clock: trio.testing.MockClock
) -> None:
    """A keystore that refuses is heard within a minute, also by who opens one file all the time."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    file = file_of(site, "small.dcm")
    await site.read_all(file)
    for _ in range(4):
        await trio.sleep(HOLD_SECONDS / 5)
        opened = site.opener.open_again(site.node(file))
        assert opened is not None
        site.opener.close(opened)
    await trio.sleep(HOLD_SECONDS / 5)
    assert site.opener.open_again(site.node(file)) is None


async def test_files_are_closed_when_nobody_reads_them(site: Site) -> None:
    """No descriptor of a ciphertext is left, once what is kept for a moment has gone."""
    for name in ("small.dcm", "big.dcm", "empty.dcm"):
        await site.read_all(file_of(site, name))
    site.opener.let_go()
    await trio.testing.wait_all_tasks_blocked()
    links = [link.resolve() for link in Path("/proc/self/fd").iterdir() if link.exists()]  # noqa: ASYNC240 no disk
    assert not [link for link in links if link.is_relative_to(site.folder)]


async def test_a_read_that_fails_does_not_wait_for_its_own_pages_to_go(
    site: Site, autojump_clock: trio.testing.MockClock
) -> None:
    """The kernel keeps them locked until the READ is answered: it would never be."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    file, answered = file_of(site, "big.dcm"), threading.Event()
    site.hospital.has_headers = True
    opened = await site.opener.open(site.node(file))

    def invalidate(inode: int) -> None:
        assert answered.wait(10)
        site.kernel.pages.pop(inode, None)

    site.kernel.invalidate = invalidate  # type: ignore[method-assign] # a kernel with a READ pending
    site.hospital.recall_seconds = DEADLINE + 10
    try:
        with trio.fail_after(DEADLINE + 5), pytest.raises(RecallTimedOutError):
            await site.opener.read(opened, BIG // 2, 10)
    finally:
        answered.set()
        site.opener.close(opened)
