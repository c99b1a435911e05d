"""The namespace: pages joined, fetched once, believed as long as the feed allows, and never lost to an outage."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from mdmfs.model.errors import (
    AccessDeniedError,
    CredentialExpiredError,
    MalformedMessageError,
    MdmfsError,
    NoSuchFileError,
    NotADirectoryFileError,
    PeerUnreachableError,
)
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.files import Changes, DirectoryPage, Node, NodeKind, OpensReport
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.lease import Lease
from mdmfs.worker.memory import Memory
from mdmfs.worker.namespace.feed import SHORTEST_STEP, Feed
from mdmfs.worker.namespace.inodes import Inodes, Known
from mdmfs.worker.namespace.names import MOMENT, ROOT, TTL, Namespace
from mdmfs.worker.numbered import Numbered
from mdmfs.worker.serving import Branch, Ports
from tests.twins.hospital import ROOT as ROOT_LFN
from tests.twins.hospital import TwinHospital, unreachable
from tests.twins.pages import NoPages

FOLDER = "/grid/medical/amc"


@pytest.fixture
def hospital() -> TwinHospital:
    """Make a hospital with one directory of seven files."""
    hospital = TwinHospital()
    hospital.add_sibling_files(FOLDER, 7, 10)
    return hospital


async def folder_of(names: Namespace) -> int:
    """Look the directory up, as the kernel does, and give its inode."""
    node = await names.lookup(ROOT, b"amc")
    names.inodes.retain(node, ROOT, names.root)
    return node.inode


async def test_a_directory_is_whole_however_many_pages_it_has(hospital: TwinHospital) -> None:
    """Entries of all pages, in order, none twice."""
    hospital.page_size = 3
    names = Namespace(hospital, ROOT_LFN)
    listing = await names.listing(await folder_of(names))
    assert listing.names == tuple(f"{n:04}.dcm".encode() for n in range(1, 8))
    assert hospital.listings == 1 + 3


async def test_all_who_wait_for_a_directory_share_one_question(hospital: TwinHospital) -> None:
    """A hundred lookups at once cost one listing."""
    names = Namespace(hospital, ROOT_LFN)
    inode = await folder_of(names)
    before = hospital.listings
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(names.lookup, inode, b"0003.dcm")
    assert hospital.listings == before + 1


class Slow(TwinHospital):
    """One whose answers wait until they are let go, each as of when it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.is_slow = False
        self.waiting: list[trio.Event] = []

    async def list_directory(self, lfn: Lfn, after: str) -> DirectoryPage:
        """Ask, and wait."""
        page = await super().list_directory(lfn, after)
        if self.is_slow:
            self.waiting.append(trio.Event())
            await self.waiting[-1].wait()
        return page

    async def let_go(self) -> None:
        """Let all answers go that wait now."""
        await trio.testing.wait_all_tasks_blocked()
        waiting, self.waiting = self.waiting, []
        for event in waiting:
            event.set()
        await trio.testing.wait_all_tasks_blocked()


def refusing() -> MdmfsError:
    """Refuse."""
    return AccessDeniedError("not for you")


@pytest.fixture
async def slow() -> Slow:
    """Make a hospital with one directory of seven files that answers slowly."""
    hospital = Slow()
    hospital.add_sibling_files(FOLDER, 7, 10)
    return hospital


async def test_one_listing_serves_all_who_asked_before_it_began_whatever_changes_meanwhile(slow: Slow) -> None:
    """A directory that changes all the time would else be listed by each of them, one after the other."""
    names = Namespace(slow, ROOT_LFN)
    names.is_followed = True
    inode, seen = await folder_of(names), list[int]()
    slow.is_slow, before = True, slow.listings

    async def list_it() -> None:
        seen.append(len((await names.listing(inode)).names))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(list_it)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(20):
            slow.add_file(f"{FOLDER}/{number}.new", b"x")
            names.apply(Changes(slow.version, [inode], []))
            nursery.start_soon(list_it)
            await trio.testing.wait_all_tasks_blocked()
        await slow.let_go()
        assert seen == [7]
        slow.add_file(f"{FOLDER}/last.new", b"x")
        names.apply(Changes(slow.version, [inode], []))
        await slow.let_go()
        nursery.cancel_scope.cancel()
    assert seen == [7, *[7 + 20] * 20]
    assert slow.listings == before + 2
    slow.is_slow = False
    assert b"last.new" in (await names.listing(inode)).nodes


async def test_a_refusal_is_that_of_all_who_asked_before_it(slow: Slow) -> None:
    """Each would else wait for his own, behind all others."""
    names = Namespace(slow, ROOT_LFN)
    inode, refused = await folder_of(names), list[MdmfsError]()
    slow.is_slow, before = True, slow.listings

    async def list_it() -> None:
        try:
            await names.listing(inode)
        except MdmfsError as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(list_it)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(10):
            nursery.start_soon(list_it)
        await trio.testing.wait_all_tasks_blocked()
        names.apply(Changes(slow.version + 1, [inode], []))
        slow.failure = refusing
        await slow.let_go()
        nursery.cancel_scope.cancel()
    assert slow.listings == before + 2
    assert len({id(error) for error in refused}) == 10


def lose_or_reset(names: Namespace, inode: int, version: int, *, is_lost: bool) -> None:
    """Hear of a directory that it may no longer be seen, or that nobody knows what has changed."""
    if is_lost:
        names.lose([inode])
    else:
        names.apply(Changes(version, [], [], is_reset=True))


@pytest.mark.parametrize("is_lost", [False, True], ids=["reset", "lost"])
async def test_a_listing_under_way_at_a_reset_or_a_loss_is_believed_by_nobody(slow: Slow, *, is_lost: bool) -> None:
    """It may have been asked for as somebody else, or show what is no longer for the one who asked."""
    names = Namespace(slow, ROOT_LFN)
    names.is_followed = True
    inode, seen = await folder_of(names), list[int]()
    slow.is_slow, before = True, slow.listings

    async def list_it() -> None:
        seen.append(len((await names.listing(inode)).names))

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(list_it)
        await trio.testing.wait_all_tasks_blocked()
        slow.remove(f"{FOLDER}/0002.dcm")
        lose_or_reset(names, inode, slow.version, is_lost=is_lost)
        await slow.let_go()
        assert slow.listings == before + 2
        await slow.let_go()
        nursery.cancel_scope.cancel()
    assert seen == [6, 6]
    slow.is_slow = False
    await names.listing(inode)
    assert slow.listings == before + 2


@pytest.mark.parametrize("is_lost", [False, True], ids=["reset", "lost"])
async def test_nothing_from_before_a_reset_or_a_loss_serves_in_an_outage(slow: Slow, *, is_lost: bool) -> None:
    """Neither what was here nor what was under way: who asks may be another now, or may no longer see it."""
    names = Namespace(slow, ROOT_LFN)
    names.is_followed = True
    inode, refused = await folder_of(names), list[MdmfsError]()
    await names.listing(inode)
    names.apply(Changes(slow.version + 1, [inode], []))
    slow.is_slow = True

    async def list_it() -> None:
        try:
            await names.listing(inode)
        except PeerUnreachableError as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(list_it)
        await trio.testing.wait_all_tasks_blocked()
        lose_or_reset(names, inode, slow.version, is_lost=is_lost)
        slow.failure = unreachable
        await slow.let_go()
    await list_it()
    assert len(refused) == 2


async def test_one_listing_serves_who_opens_a_directory_and_reads_it_at_once(
    hospital: TwinHospital, tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Else a directory that changes all the time is listed twice for each look; who reads again sees it anew."""
    lease, cache = Lease(trio.current_time), CiphertextCache(tmp_path, 2**20)
    lease.grant(0.0, 3600.0)
    branch = Branch(
        Ports(hospital, dict),  # type: ignore[arg-type] nobody asks for a key
        cache,
        ROOT_LFN,
        NoPages(),  # type: ignore[arg-type] nobody tells it of names
        nursery,
        deadline=5,
        lease=lease,
        tree=0,
        shown=ROOT_LFN,
        memory=Memory(),
    )
    inode = (await branch.files.lookup(ROOT, b"amc")).inode

    nodes: list[Node] = []

    async def read(handle: int, position: int = 0) -> int:
        nodes[:] = [node for _, node, _ in await branch.files.read_directory(handle, position)]
        return len(nodes)

    def change() -> None:
        hospital.add_file(f"{FOLDER}/{hospital.version}.new", b"x")
        branch._namespace.apply(Changes(hospital.version, [inode], []))  # noqa: SLF001 in the feed's place

    first, late = [await branch.files.open_directory(inode) for _ in range(2)]
    change()
    before = hospital.listings
    assert (await read(first), await read(first, 3), hospital.listings) == (7, 4, before)
    (old,) = [node for node in nodes if node.name == "0007.dcm"]
    assert (await read(first), hospital.listings) == (8, before + 1)
    assert any(node is old for node in nodes)  # thousands may read copies of a large directory that changes
    change()
    assert (await read(late), hospital.listings) == (9, before + 2)
    idle = await branch.files.open_directory(inode)
    await trio.sleep(MOMENT)
    change()
    assert await read(idle) == 10


async def test_what_is_not_listed_is_not_there_and_asks_nobody_again(hospital: TwinHospital) -> None:
    """A complete listing answers no, too."""
    names = Namespace(hospital, ROOT_LFN)
    inode = await folder_of(names)
    await names.listing(inode)
    before = hospital.listings
    for name in (b"9999.dcm", b"\xff\xfe", b"0001.DCM"):
        with pytest.raises(NoSuchFileError):
            await names.lookup(inode, name)
    assert hospital.listings == before


async def test_a_file_has_no_entries(hospital: TwinHospital) -> None:
    """Asking for them is ENOTDIR, not an empty directory."""
    names = Namespace(hospital, ROOT_LFN)
    inode = await folder_of(names)
    file = await names.lookup(inode, b"0001.dcm")
    names.inodes.retain(file, inode, Lfn.parse(FOLDER))
    with pytest.raises(NotADirectoryFileError):
        await names.listing(file.inode)


async def test_a_subtree_can_be_the_root(hospital: TwinHospital) -> None:
    """The mount's root is 1 whatever the catalogue calls it, and changes of it are recognised."""
    names = Namespace(hospital, Lfn.parse(FOLDER))
    listing = await names.listing(ROOT)
    assert listing.directory.inode == ROOT
    number = hospital.make_directory(Lfn.parse(FOLDER)).inode
    assert number != ROOT
    assert names.apply(Changes(hospital.version + 1, [number], [])) == [ROOT]


async def test_changes_make_exactly_the_older_listings_outdated(hospital: TwinHospital) -> None:
    """A listing that shows the change already stays."""
    names = Namespace(hospital, ROOT_LFN)
    names.is_followed = True
    inode = await folder_of(names)
    version = (await names.listing(inode)).version
    before = hospital.listings
    names.apply(Changes(version, [inode], []))
    await names.listing(inode)
    assert hospital.listings == before
    hospital.add_file(f"{FOLDER}/new.dcm", b"x")
    names.apply(Changes(hospital.version, [inode], []))
    assert b"new.dcm" in (await names.listing(inode)).nodes
    assert hospital.listings == before + 1


async def test_a_listing_under_way_when_a_change_comes_is_not_believed(hospital: TwinHospital) -> None:
    """The answer may have been made before the change."""
    names = Namespace(hospital, ROOT_LFN)
    names.is_followed = True
    inode = await folder_of(names)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(names.listing, inode)
        await trio.testing.wait_all_tasks_blocked()
        await names.listing(inode)
        hospital.add_file(f"{FOLDER}/new.dcm", b"x")
        names.apply(Changes(hospital.version, [inode], []))
    assert b"new.dcm" in (await names.listing(inode)).nodes


async def test_without_a_feed_listings_age_and_with_one_they_do_not(
    hospital: TwinHospital, autojump_clock: trio.testing.MockClock
) -> None:
    """A minute is the longest that nobody's word counts."""
    names = Namespace(hospital, ROOT_LFN)
    inode = await folder_of(names)
    await names.listing(inode)
    hospital.add_file(f"{FOLDER}/new.dcm", b"x")
    await trio.sleep(TTL + 1)
    names.is_followed = True
    assert b"new.dcm" not in (await names.listing(inode)).nodes
    names.is_followed = False
    assert b"new.dcm" in (await names.listing(inode)).nodes


async def test_in_an_outage_what_is_here_serves_and_what_is_not_says_so(
    hospital: TwinHospital, autojump_clock: trio.testing.MockClock
) -> None:
    """Never ENOENT."""
    names = Namespace(hospital, ROOT_LFN)
    inode = await folder_of(names)
    await names.listing(inode)
    hospital.make_directory(Lfn.parse("/grid/medical/other"))
    await trio.sleep(TTL + 1)
    other = await names.lookup(ROOT, b"other")
    names.inodes.retain(other, ROOT, ROOT_LFN)
    hospital.failure = unreachable
    await trio.sleep(TTL + 1)
    assert len((await names.listing(inode)).names) == 7
    with pytest.raises(PeerUnreachableError):
        await names.listing(other.inode)


async def test_a_directory_that_has_gone_is_gone(hospital: TwinHospital) -> None:
    """A decision or absence is not an outage: the old copy does not serve."""
    names = Namespace(hospital, ROOT_LFN)
    inode = await folder_of(names)
    await names.listing(inode)
    hospital.remove(FOLDER)
    names.apply(Changes(hospital.version, [inode], []))
    with pytest.raises(NoSuchFileError):
        await names.listing(inode)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "n" * 256])
async def test_a_hospital_cannot_list_impossible_names(name: str) -> None:
    """A slash in a name would be another directory."""

    class Hostile(TwinHospital):
        async def list_directory(self, lfn: Lfn, after: str) -> DirectoryPage:
            page = await super().list_directory(lfn, after)
            bad = Node(name, 99, NodeKind.FILE, 1, 0.0, bytes(16))
            return DirectoryPage(page.directory, [bad], page.is_last, page.version)

    with pytest.raises(MalformedMessageError):
        await Namespace(Hostile(), ROOT_LFN).listing(ROOT)


async def test_an_inode_lives_as_long_as_the_kernel_counts_on_it(hospital: TwinHospital) -> None:
    """Lookups and forgets balance; the root never goes."""
    names = Namespace(hospital, ROOT_LFN)
    inode = await folder_of(names)
    await folder_of(names)
    assert not names.forget(inode, 1)
    assert names.inodes.of(inode).node.name == "amc"
    assert names.forget(inode, 1)
    with pytest.raises(NoSuchFileError):
        names.inodes.of(inode)
    assert not names.forget(ROOT, 1000)
    assert names.inodes.of(ROOT).node.inode == ROOT


class Witness:
    """Hears what a feed tells."""

    def __init__(self) -> None:
        self.names: list[tuple[int, list[bytes]]] = []
        self.revoked: list[int] = []
        self.barred: list[int] = []
        self.resets = 0
        self.shares_forgotten = 0

    async def forget_names(self, directory: int, names: list[bytes]) -> None:
        """See ``Witness``."""
        self.names.append((directory, names))

    def bar(self, inode: int) -> None:
        """See ``Witness``."""
        self.barred.append(inode)

    async def revoke(self, inode: int) -> None:
        """See ``Witness``."""
        self.revoked.append(inode)

    def forget_shares(self) -> None:
        """See ``Witness``."""
        self.shares_forgotten += 1

    async def revoke_all(self) -> None:
        """See ``Witness``."""
        self.resets += 1


async def test_the_feed_takes_back_names_and_files_that_have_gone(
    hospital: TwinHospital, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Within the same moment; what stays is not touched."""
    names, witness = Namespace(hospital, ROOT_LFN), Witness()
    inode = await folder_of(names)
    gone = await names.lookup(inode, b"0004.dcm")
    nursery.start_soon(Feed(hospital, names, witness, Lease(trio.current_time)).follow)
    await trio.sleep(1)
    hospital.remove(f"{FOLDER}/0004.dcm")
    await trio.sleep(1)
    assert names.is_followed
    assert (inode, [b"0004.dcm"]) in witness.names
    assert set(witness.revoked) == {gone.inode}
    assert witness.shares_forgotten


def unforeseen() -> MdmfsError:
    """Fail as no program should."""
    message = "a fault of the program"
    raise ZeroDivisionError(message)


@pytest.mark.parametrize("failure", [unreachable, unforeseen])
async def test_the_feed_resumes_after_an_outage_without_losing_a_change(
    hospital: TwinHospital,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
    failure: Callable[[], MdmfsError],
    faults: list[str],
) -> None:
    """What happened meanwhile is told afterwards; a fault of the program is no more than an outage."""
    names, witness = Namespace(hospital, ROOT_LFN), Witness()
    inode = await folder_of(names)
    await names.listing(inode)
    nursery.start_soon(Feed(hospital, names, witness, Lease(trio.current_time)).follow)
    await trio.sleep(1)
    hospital.failure = failure
    hospital.remove(f"{FOLDER}/0002.dcm")
    await trio.sleep(20)
    assert not names.is_followed
    assert not witness.revoked
    hospital.failure = None
    await trio.sleep(10)
    assert names.is_followed
    assert witness.revoked
    assert b"0002.dcm" not in (await names.listing(inode)).nodes
    assert bool(faults) is (failure is unforeseen)
    faults.clear()


async def test_names_that_went_in_an_outage_are_taken_back_though_somebody_listed_anew_before_the_feed(
    nursery: trio.Nursery, hospital: TwinHospital, autojump_clock: trio.testing.MockClock
) -> None:
    """Whoever asks for the newer listing, the kernel hears of the difference."""
    names, witness = Namespace(hospital, ROOT_LFN), Witness()
    inode = await folder_of(names)
    await names.listing(inode)
    hospital.remove(f"{FOLDER}/0002.dcm")
    await trio.sleep(TTL + 1)
    await names.listing(inode)
    nursery.start_soon(Feed(hospital, names, witness, Lease(trio.current_time)).follow)
    await trio.sleep(1)
    assert (inode, [b"0002.dcm"]) in witness.names
    assert witness.revoked


async def test_after_a_reset_nothing_is_told_from_before_though_no_version_has_passed(
    hospital: TwinHospital, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Who asks may have lost his groups: then nothing has changed but what he may see."""
    names, witness = Namespace(hospital, ROOT_LFN), Witness()
    inode = await folder_of(names)
    await names.listing(inode)
    nursery.start_soon(Feed(hospital, names, witness, Lease(trio.current_time)).follow)
    await trio.sleep(1)
    asked = hospital.listings
    names.apply(Changes(hospital.version, [], [], is_reset=True))
    assert names.lookup_at_once(inode, b"0001.dcm") is None
    await names.lookup(inode, b"0001.dcm")
    assert hospital.listings == asked + 1
    assert names.lookup_at_once(inode, b"0001.dcm")


async def test_what_a_lost_history_called_outdated_is_believed_once_it_is_listed_anew(hospital: TwinHospital) -> None:
    """An older store that was put back counts from where it was: its listings have lower versions for a while."""
    names = Namespace(hospital, ROOT_LFN)
    names.is_followed = True
    inode = await folder_of(names)
    await names.listing(inode)
    names.apply(Changes(hospital.version + 1000, [inode], []))
    names.apply(Changes(hospital.version, [], [], is_reset=True))
    await names.listing(inode)
    asked = hospital.listings
    await names.listing(inode)
    assert hospital.listings == asked


async def test_a_hospital_that_never_comes_to_an_end_is_found_out() -> None:
    """A page that brings nothing new would be asked for for ever."""

    class Endless(TwinHospital):
        async def list_directory(self, lfn: Lfn, after: str) -> DirectoryPage:
            page = await super().list_directory(lfn, "" if after else after)
            return DirectoryPage(page.directory, page.entries, is_last=False, version=page.version)

    hospital = Endless()
    hospital.add_sibling_files(FOLDER, 3, 1)
    with pytest.raises(MalformedMessageError):
        await Namespace(hospital, ROOT_LFN).listing(ROOT)


async def test_a_feed_that_cannot_reach_back_makes_everyone_ask_again(
    hospital: TwinHospital, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Closed by default."""
    names, witness = Namespace(hospital, ROOT_LFN), Witness()
    inode = await folder_of(names)
    await names.listing(inode)
    hospital.reset = True
    hospital.version += 1
    nursery.start_soon(Feed(hospital, names, witness, Lease(trio.current_time)).follow)
    await trio.sleep(1)
    assert witness.resets == 1


async def test_a_hospital_that_always_has_news_is_not_asked_without_a_pause(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Others are served by the same loop."""

    class Hasty(TwinHospital):
        asked = 0

        async def changes(
            self, since: int, wait: float, report: OpensReport | None = None, groups: Sequence[str] = ()
        ) -> Changes:
            del wait, report, groups
            await trio.lowlevel.checkpoint()
            self.asked += 1
            assert self.asked < 1000
            return Changes(since + 1, [], [], lease=10.0)

    hasty = Hasty()
    feed = Feed(hasty, Namespace(hasty, ROOT_LFN), Witness(), Lease(trio.current_time))
    nursery.start_soon(feed.follow)
    await trio.sleep(10)
    assert 10 / SHORTEST_STEP - 2 <= hasty.asked <= 10 / SHORTEST_STEP + 2


async def test_a_hospital_that_is_started_again_is_heard_soon(
    hospital: TwinHospital, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """The first new tries come quickly, whatever the dice say; after a long outage they do not."""
    hospital.lease = 9.0
    names = Namespace(hospital, ROOT_LFN)
    lease = Lease(trio.current_time)
    nursery.start_soon(Feed(hospital, names, Witness(), lease).follow)
    for away, back in ((0.9, 4.1), (60.0, 5.1)):
        await trio.sleep(5)
        hospital.failure = unreachable
        while names.is_followed:  # noqa: ASYNC110 the question that waits comes to its end first
            await trio.sleep(0.05)
        await trio.sleep(away)
        hospital.failure = None
        await trio.sleep(back)
        assert names.is_followed
        assert lease.is_held


async def test_a_hospital_that_grants_no_lease_is_not_asked_without_a_pause(
    hospital: TwinHospital, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """It has no room to remember this mount: who waits here is told so."""
    hospital.lease = 0.0
    asked, lease = 0, Lease(trio.current_time)

    class Counting:
        async def changes(
            self, since: int, wait: float, report: OpensReport | None = None, groups: Sequence[str] = ()
        ) -> Changes:
            nonlocal asked
            asked += 1
            return await hospital.changes(since, wait, report, groups)

    nursery.start_soon(Feed(Counting(), Namespace(hospital, ROOT_LFN), Witness(), lease).follow)
    await trio.sleep(60)
    assert 12 <= asked <= 61
    assert "no lease" in lease.health


async def test_the_groups_of_an_answer_are_told_back_once_it_is_applied(
    hospital: TwinHospital, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Of one that could not be, the hospital would think that its caller had forgotten what he has lost."""
    asked: list[list[str]] = []

    class Regrouping(TwinHospital):
        async def changes(
            self, since: int, wait: float, report: OpensReport | None = None, groups: Sequence[str] = ()
        ) -> Changes:
            asked.append([*groups])
            told = await super().changes(since, min(wait, 1.0), report, groups)
            beyond = [2**40] if len(asked) == 2 else []
            return msgspec.structs.replace(told, directories=beyond, groups=[f"/neuro/{len(asked)}"])

    feed = Feed(Numbered(Regrouping(), 1), Namespace(hospital, ROOT_LFN), Witness(), Lease(trio.current_time))
    nursery.start_soon(feed.follow)
    await trio.sleep(20)
    assert asked[:4] == [[], ["/neuro/1"], ["/neuro/1"], ["/neuro/3"]]


async def test_of_which_history_a_mount_has_heard_is_said_of_the_version_that_it_asks_from(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Whose credential ends while he lists anew asks from the version before; with the later one's mark he lost all."""
    asked: list[tuple[int, list[str]]] = []

    class Marking(TwinHospital):
        failures = 0

        async def list_directory(self, lfn: Lfn, after: str) -> DirectoryPage:
            if self.failures:
                self.failures -= 1
                message = "the credential has ended"
                raise CredentialExpiredError(message)
            return await super().list_directory(lfn, after)

        async def changes(
            self, since: int, wait: float, report: OpensReport | None = None, groups: Sequence[str] = ()
        ) -> Changes:
            asked.append((since, [*groups]))
            told = await super().changes(since, wait, report, groups)
            return msgspec.structs.replace(told, groups=[f"feed:{told.version}"])

    hospital = Marking()
    hospital.add_sibling_files(FOLDER, 7, 10)
    names = Namespace(hospital, ROOT_LFN)
    await names.listing(await folder_of(names))
    nursery.start_soon(Feed(hospital, names, Witness(), Lease(trio.current_time)).follow)
    for failures in (0, 1):
        await trio.sleep(1)
        hospital.failures = failures
        hospital.remove(f"{FOLDER}/000{2 + failures}.dcm")
    await trio.sleep(30)
    assert len({since for since, _ in asked}) < len(asked)
    assert {(since, *groups) for since, groups in asked[1:]} == {(since, f"feed:{since}") for since, _ in asked[1:]}
    assert names.is_followed


async def test_a_long_listing_holds_up_neither_the_lease_nor_what_the_feed_tells(
    slow: Slow, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A right that is lost is lost at once, whatever is listed meanwhile; and what changed since is listed once."""
    names, witness, slow.lease = Namespace(slow, ROOT_LFN), Witness(), 30.0
    inode = await folder_of(names)
    for node in (await names.listing(inode)).in_order:
        names.inodes.retain(node, inode, Lfn.parse(FOLDER))
    lease = Lease(trio.current_time)
    nursery.start_soon(Feed(slow, names, witness, lease).follow)
    await trio.sleep(1)
    slow.is_slow, before = True, slow.listings
    for number in range(1, 5):
        slow.remove(f"{FOLDER}/000{number}.dcm")
        await trio.sleep(10)
        assert len(witness.barred) == number
    assert lease.is_held
    assert slow.listings == before + 1
    await slow.let_go()
    await trio.sleep(60)
    await slow.let_go()
    assert slow.listings == before + 2
    assert len((await names.listing(inode)).names) == 3


async def test_of_what_is_taken_away_only_what_is_in_use_costs_anything(
    hospital: TwinHospital, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A hospital can name millions, and the loop and memory of a mount are other hospitals', too."""
    names, witness = Namespace(hospital, ROOT_LFN), Witness()
    inode = await folder_of(names)
    node = await names.lookup(inode, b"0003.dcm")
    names.inodes.retain(node, inode, Lfn.parse(FOLDER))
    names.inodes._known = Counted(names.inodes._known)  # noqa: SLF001 to see how often it is gone through
    feed = Feed(hospital, names, witness, Lease(trio.current_time))
    nursery.start_soon(feed.follow)
    await trio.sleep(1)
    hospital.add_file(f"{FOLDER}/new.dcm", b"x")
    await trio.sleep(1)
    assert not names.inodes._known.passes  # type: ignore[attr-defined] # noqa: SLF001 as above
    many = [*range(10**6, 10**6 + 1000)]
    told = hospital.changes

    async def changes(
        since: int, wait: float, report: OpensReport | None = None, groups: Sequence[str] = ()
    ) -> Changes:
        return msgspec.structs.replace(await told(since, wait, report, groups), lost=many, unreadable=[inode, *many])

    hospital.changes = changes  # type: ignore[method-assign]
    hospital.note([], [*many, node.inode])
    await trio.sleep(1)
    hospital.note([], many)
    await trio.sleep(1)
    assert set(witness.barred) == {node.inode}
    assert names.inodes._known.passes < 20  # type: ignore[attr-defined] # noqa: SLF001 as above


@pytest.mark.parametrize("is_outage", [False, True])
async def test_a_directory_that_could_not_be_listed_anew_is_listed_later(
    hospital: TwinHospital, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, *, is_outage: bool
) -> None:
    """The kernel would show for as long as the lease lasts what has gone."""
    names, witness = Namespace(hospital, ROOT_LFN), Witness()
    inode = await folder_of(names)
    await names.listing(inode)
    nursery.start_soon(Feed(hospital, names, witness, Lease(trio.current_time)).follow)
    await trio.sleep(1)
    listed, nameless = hospital.list_directory, [Node("", 99, NodeKind.FILE, 1, 0.0, bytes(16))]

    async def list_wrongly(lfn: Lfn, after: str) -> DirectoryPage:
        if is_outage:
            raise unreachable()
        return msgspec.structs.replace(await listed(lfn, after), entries=nameless)

    hospital.list_directory = list_wrongly  # type: ignore[method-assign]
    hospital.remove(f"{FOLDER}/0002.dcm")
    await trio.sleep(20)
    assert not witness.names
    assert names.is_followed
    hospital.list_directory = listed  # type: ignore[method-assign]
    await trio.sleep(20)
    assert (inode, [b"0002.dcm"]) in witness.names


class Counted(dict[int, Known]):
    """What is known by number, and how often somebody went through all of it."""

    passes = 0

    def __iter__(self) -> Iterator[int]:
        """Count it."""
        self.passes += 1
        return super().__iter__()

    def items(self) -> ItemsView[int, Known]:
        """Count it."""
        self.passes += 1
        return super().items()


class Walked(dict[int, int]):
    """Which directory is above which; nobody may ask for ever."""

    steps = 0

    def __getitem__(self, inode: int) -> int:
        """Count a step up."""
        self.steps += 1
        assert self.steps < 100
        return super().__getitem__(inode)


def test_a_directory_that_lies_below_itself_is_an_end_and_nobody_waits_for_ever() -> None:
    """The loop of a mount serves other hospitals, too, than the one that says so."""
    file = Node("x.dcm", 9, NodeKind.FILE, 1, 0.0, bytes(16))
    inodes = Inodes(Node("", 1, NodeKind.DIRECTORY, 0, 0.0), ROOT_LFN)
    inodes._above = Walked()  # noqa: SLF001 to see that the walk ends
    inodes.retain_placed(file, ROOT_LFN / "x.dcm", [5, 6, 7, 5, 6])
    inodes.retain(Node("y.dcm", 10, NodeKind.FILE, 1, 0.0, bytes(16)), 1, ROOT_LFN)
    assert inodes.below({8}) == []
    assert inodes.below({7}) == [9]
    assert inodes.below({1, 7}) == [1, 9, 10]
