"""What every store of the hospital promises of the namespace: whole series, hidden directories, ACLs, the feed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from mdmfs.hospital.catalogue.records import ROOT_INODE, FileState, Totals
from mdmfs.hospital.catalogue.times import BEGINNING
from mdmfs.hospital.keys.selection import Selection
from mdmfs.hospital.store import Store, Transaction
from mdmfs.model.errors import (
    IsADirectoryFileError,
    NoSuchFileError,
    NotADirectoryFileError,
    StoreError,
    UnknownNameError,
)
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.files import Changes, NodeKind
from tests.twins.records import NOBODY, NOW, OWNER_ONLY, SERIES_LFN, counting_random, guid_of, new_file
from tests.twins.store import MemoryStore

ROOT = Lfn(())
OpenStore = Callable[..., Store]


@pytest.fixture
async def store(open_store: OpenStore) -> AsyncIterator[Store]:
    """Each store in turn, with the directory of one series and nothing in it."""
    opened = open_store()
    await opened.write(lambda tx: tx.catalogue.make_directories(SERIES_LFN, acl=OWNER_ONLY))
    yield opened
    await opened.aclose()


def add(tx: Transaction, *numbers: int, directory: Lfn = SERIES_LFN) -> None:
    """Register files as 0001.dcm and so on."""
    for number in numbers:
        tx.catalogue.add_file(directory / f"{number:04d}.dcm", new_file(number))


def show(tx: Transaction, *numbers: int) -> int:
    """Make files visible."""
    return tx.catalogue.show([guid_of(number) for number in numbers])


async def shown(store: Store, *numbers: int) -> None:
    """Register and show in one act."""
    await store.write(lambda tx: (add(tx, *numbers), tx.catalogue.show_all(SERIES_LFN)))


def states(store: Store, *numbers: int) -> list[FileState | None]:
    """Give the states of files."""
    files = store.read(lambda tx: [tx.catalogue.file(guid_of(number)) for number in numbers])
    return [file and file.state for file in files]


def names(store: Store, lfn: Lfn) -> list[str] | None:
    """List a directory; None where nobody sees it."""

    def act(tx: Transaction) -> list[str] | None:
        node = tx.catalogue.look_up(lfn)
        return None if node is None else [entry.name for entry in tx.catalogue.list_page(node.inode).nodes]

    return store.read(act)


def times(store: Store, *lfns: Lfn) -> list[float | None]:
    """Give the times that names show; None where they show none."""
    nodes = [store.read(lambda tx, lfn=lfn: tx.catalogue.look_up(lfn)) for lfn in lfns]
    return [None if node is None else node.modified for node in nodes]


# Whole series


async def test_the_root_is_there_from_the_beginning(open_store: OpenStore) -> None:
    """It is empty, and it has no ACL: closed."""
    store = open_store()
    assert names(store, ROOT) == []
    assert store.read(lambda tx: tx.acls.ids_above(ROOT_INODE)) == [b""]
    assert store.read(lambda tx: tx.feed.version()) == 0
    await store.aclose()


async def test_a_pending_file_and_its_directories_have_no_name_for_anybody(store: Store) -> None:
    """Not for a look-up, not for a listing, not by inode number, not in the totals, not in the feed."""
    await store.write(lambda tx: add(tx, 1, 2))
    directory = await store.write(lambda tx: tx.catalogue.make_directories(SERIES_LFN))
    for lfn in (SERIES_LFN / "0001.dcm", SERIES_LFN, SERIES_LFN.parent, Lfn(("amc",))):
        assert store.read(lambda tx, lfn=lfn: tx.catalogue.look_up(lfn)) is None
    assert names(store, ROOT) == []
    with pytest.raises(NoSuchFileError):
        store.read(lambda tx: tx.catalogue.list_page(directory))
    assert store.read(lambda tx: tx.catalogue.totals()) == Totals(0, 0)
    assert store.read(lambda tx: tx.feed.version()) == 0
    assert store.read(lambda tx: tx.catalogue.holder(SERIES_LFN / "0001.dcm")) == guid_of(1)


async def test_a_series_appears_at_once_with_all_directories_above(store: Store) -> None:
    """One version of the feed names them all."""
    await store.write(lambda tx: add(tx, 1, 2, 3))
    assert await store.write(lambda tx: show(tx, 1, 2, 3)) == 1
    assert names(store, SERIES_LFN) == ["0001.dcm", "0002.dcm", "0003.dcm"]
    path, inodes = ROOT, [ROOT_INODE]
    for part in SERIES_LFN.parts:
        assert names(store, path) == [part]
        path = path / part
        node = store.read(lambda tx, path=path: tx.catalogue.look_up(path))
        assert node is not None
        assert (node.kind, node.modified, node.guid) == (NodeKind.DIRECTORY, NOW + 3, b"")
        inodes.append(node.inode)
    assert store.read(lambda tx: tx.feed.since(0)) == Changes(1, sorted(inodes), [])
    assert store.read(lambda tx: tx.catalogue.totals()) == Totals(3, 3000)


async def test_a_node_shows_what_was_registered(store: Store) -> None:
    """Size, time and GUID of the file, in a look-up as in a listing."""
    await shown(store, 7)
    node = store.read(lambda tx: tx.catalogue.look_up(SERIES_LFN / "0007.dcm"))
    file = store.read(lambda tx: tx.catalogue.file(guid_of(7)))
    directory = store.read(lambda tx: tx.catalogue.look_up(SERIES_LFN))
    assert node is not None
    assert file is not None
    assert directory is not None
    assert (node.size, node.modified, node.guid, node.inode) == (1000, NOW + 7, guid_of(7).octets, file.inode)
    assert store.read(lambda tx: tx.catalogue.list_page(directory.inode)).nodes == [node]
    assert store.read(lambda tx: tx.catalogue.look_up(SERIES_LFN / "0007.dcm" / "x")) is None


@pytest.mark.parametrize("segments", [1, 3])
async def test_a_file_record_comes_back_as_it_went_in(store: Store, segments: int) -> None:
    """The digests of the segments too, whether there is one or more."""
    new = new_file(1, segments=segments)
    record = await store.write(lambda tx: tx.catalogue.add_file(SERIES_LFN / "1", new))
    assert record.rendition == new.rendition
    assert (record.guid, record.project, record.modified) == (new.guid, new.project, new.modified)
    assert (record.threshold, record.generation, record.state) == (2, 1, FileState.PENDING)
    assert store.read(lambda tx: tx.catalogue.file(guid_of(1))) == record
    assert store.read(lambda tx: tx.catalogue.file(guid_of(2))) is None


async def test_an_earlier_series_leaves_the_directories_above_alone(store: Store) -> None:
    """Only the listing that grew is told, and not even its time moves."""
    await shown(store, 2)
    other = SERIES_LFN.parent / "004-MR"
    await store.write(lambda tx: tx.catalogue.make_directories(other))
    await store.write(lambda tx: (add(tx, 1, directory=other), show(tx, 1)))
    assert times(store, other, other.parent, other.parent.parent, ROOT) == [NOW + 1, NOW + 2, NOW + 2, NOW + 2]
    touched = [store.read(lambda tx, lfn=lfn: tx.catalogue.look_up(lfn)) for lfn in (other, other.parent)]
    inodes = sorted(node.inode for node in touched if node is not None)
    assert store.read(lambda tx: tx.feed.since(1)) == Changes(2, inodes, [])
    assert names(store, SERIES_LFN.parent) == ["003-MR", "004-MR"]


@pytest.mark.parametrize("how", ["all", "each"])
async def test_a_later_series_makes_all_directories_above_as_late(store: Store, how: str) -> None:
    """As a listing shows them, too; each is told that is another now, those of another subject are not."""
    apart = SERIES_LFN.parent.parent.parent / "sub-b"
    other = SERIES_LFN.parent / "004-MR"
    await shown(store, 1)
    for lfn in (apart, other):
        await store.write(lambda tx, lfn=lfn: tx.catalogue.make_directories(lfn))
    await store.write(lambda tx: (add(tx, 0, directory=apart), show(tx, 0)))
    await store.write(lambda tx: add(tx, 8, 7, directory=other))
    await store.write(lambda tx: tx.catalogue.show_all(other) if how == "all" else show(tx, 7, 8))
    above = [other.parent, other.parent.parent, other.parent.parent.parent, Lfn(("amc",)), ROOT]
    assert times(store, other, *above) == [NOW + 8] * 6
    assert times(store, SERIES_LFN, apart) == [NOW + 1, NOW]
    listed = store.read(lambda tx: tx.catalogue.list_page(ROOT_INODE)).nodes
    assert [node.modified for node in listed] == [NOW + 8]
    touched = [store.read(lambda tx, lfn=lfn: tx.catalogue.look_up(lfn)) for lfn in (other, *above)]
    assert store.read(lambda tx: tx.feed.since(2)).directories == sorted(one.inode for one in touched if one)


async def test_before_anything_shows_the_time_of_directories_is_1980(store: Store) -> None:
    """The root's, and that of those that are hidden: no clock has any part in it."""
    assert times(store, ROOT) == [BEGINNING]
    inode = await store.write(lambda tx: tx.catalogue.make_directories(SERIES_LFN))
    above = store.read(lambda tx: tx.catalogue.directories_above(inode))
    assert {record.modified for record in above} == {BEGINNING}


@pytest.mark.parametrize("leave", ["quarantine", "withdraw"])
async def test_what_is_taken_away_or_shown_again_moves_no_time(store: Store, leave: str) -> None:
    """Else one could see when a hospital did that; a listing tells it by what is in it."""
    await shown(store, 1, 2)
    other = SERIES_LFN.parent / "004-MR"
    await store.write(lambda tx: tx.catalogue.make_directories(other))
    await store.write(lambda tx: (add(tx, 9, directory=other), show(tx, 9)))
    places = (SERIES_LFN, SERIES_LFN.parent, ROOT)
    before = times(store, *places)
    await store.write(lambda tx: getattr(tx.catalogue, leave)([guid_of(2), guid_of(9)]))
    assert times(store, *places, other) == [*before, None]
    if leave == "quarantine":
        await store.write(lambda tx: show(tx, 2, 9))
        assert times(store, *places, other) == [*before, NOW + 9]


async def test_what_takes_over_a_name_has_another_time_than_what_had_it(store: Store) -> None:
    """Of the same day a later one, of another day its own: rsync and make compare times."""
    lfn = SERIES_LFN / "0001.dcm"
    day = NOW // 86_400 * 86_400
    await shown(store, 1)
    expected = [NOW + 2, NOW + 3, day + 86_400, day - 86_400, day]
    for holder, modified in enumerate([NOW + 1, day, day + 86_400, day - 86_400, day], start=1):
        new = msgspec.structs.replace(new_file(holder + 1), modified=modified)
        add_over = lambda tx, new=new, holder=holder: tx.catalogue.add_file(lfn, new, takes_over=guid_of(holder))  # noqa: E731 shown below
        record = await store.write(add_over)
        await store.write(lambda tx, holder=holder: show(tx, holder + 1))
        assert record.modified == expected[holder - 1]
        assert times(store, lfn) == [record.modified]
    assert times(store, SERIES_LFN) == [day + 86_400]


async def test_what_comes_in_the_place_of_what_was_put_away_has_another_time(store: Store) -> None:
    """Whoever copied the one copies the other."""
    await shown(store, 1)
    await store.write(lambda tx: tx.catalogue.withdraw([guid_of(1)]))
    new = msgspec.structs.replace(new_file(2), modified=NOW + 1)
    await store.write(lambda tx: tx.catalogue.add_file(SERIES_LFN / "0001.dcm", new, like=guid_of(1)))
    await store.write(lambda tx: show(tx, 2))
    assert times(store, SERIES_LFN / "0001.dcm") == [NOW + 2]


async def test_pages_follow_one_another_in_the_order_of_octets(store: Store) -> None:
    """Each name once, the last page says so, and hidden names between them do not count."""
    wanted = ["A", "a", "a.b", "aa", "b", "z", "\u00e9", "\uffff", "\U0001f600"]
    for number, name in enumerate(wanted):
        await store.write(lambda tx, n=number, name=name: tx.catalogue.add_file(SERIES_LFN / name, new_file(n)))
    await store.write(lambda tx: tx.catalogue.add_file(SERIES_LFN / "aaa", new_file(99)))
    await store.write(lambda tx: show(tx, *range(len(wanted))))
    directory = store.read(lambda tx: tx.catalogue.look_up(SERIES_LFN))
    assert directory is not None
    found: list[str] = []
    ends: list[bool] = []
    while not ends or not ends[-1]:
        after = found[-1] if found else ""
        page = store.read(lambda tx, after=after: tx.catalogue.list_page(directory.inode, after=after, limit=3))
        found += [node.name for node in page.nodes]
        ends.append(page.is_last)
    assert found == wanted
    assert ends == [False, False, True]
    assert store.read(lambda tx: tx.catalogue.list_page(directory.inode, after="\U0001f600")).nodes == []


async def test_a_page_may_begin_after_a_text_that_is_no_name(store: Store) -> None:
    """However long it is: callers choose it."""
    longest = "b" * 255
    for number, name in enumerate(("a", longest, "c")):
        await store.write(lambda tx, n=number, name=name: tx.catalogue.add_file(SERIES_LFN / name, new_file(n)))
    await store.write(lambda tx: show(tx, 0, 1, 2))
    inode = look(store, SERIES_LFN).inode
    for after, wanted in (
        ("b" * 9999, ["c"]),
        (longest, ["c"]),
        ("b" * 254, [longest, "c"]),
        ("/" * 600, ["a", longest, "c"]),
    ):
        page = store.read(lambda tx, after=after: tx.catalogue.list_page(inode, after=after))
        assert [node.name for node in page.nodes] == wanted


async def test_a_directory_shows_what_is_pending_in_it_and_nothing_else(store: Store) -> None:
    """Not what was put away, nor what comes later, nor what is pending elsewhere; what has nothing tells nothing."""
    other = SERIES_LFN.parent / "004-MR"
    await store.write(lambda tx: tx.catalogue.make_directories(other))
    await store.write(lambda tx: (add(tx, 1, 2, 3, 4), add(tx, 5, directory=other)))
    await store.write(lambda tx: (show(tx, 1), tx.catalogue.quarantine([guid_of(2)])))
    assert names(store, SERIES_LFN) == ["0001.dcm"]
    assert await store.write(lambda tx: tx.catalogue.show_all(SERIES_LFN)) == 2
    await store.write(lambda tx: add(tx, 6, 7))
    assert names(store, SERIES_LFN) == ["0001.dcm", "0003.dcm", "0004.dcm"]
    assert store.read(lambda tx: tx.catalogue.look_up(SERIES_LFN / "0006.dcm")) is None
    pending, seen = FileState.PENDING, FileState.VISIBLE
    assert states(store, 1, 2, 3, 4, 5, 6) == [seen, FileState.QUARANTINED, seen, seen, pending, pending]
    assert store.read(lambda tx: tx.catalogue.totals()) == Totals(3, 3000)
    await store.write(lambda tx: tx.catalogue.withdraw([guid_of(6)]))
    for _ in range(2):
        assert await store.write(lambda tx: tx.catalogue.show_all(SERIES_LFN)) == 3
    assert store.read(lambda tx: tx.catalogue.totals("neuro")) == Totals(4, 4000)
    assert names(store, SERIES_LFN) == ["0001.dcm", "0003.dcm", "0004.dcm", "0007.dcm"]
    assert names(store, other) is None
    with pytest.raises(NoSuchFileError):
        await store.write(lambda tx: tx.catalogue.show_all(SERIES_LFN / "x"))


async def test_a_directory_shows_the_files_that_take_names_over_with_the_new_ones(store: Store) -> None:
    """In one version of the feed, which names the inode numbers of those before."""
    await shown(store, 1, 2)
    old = look(store, SERIES_LFN / "0001.dcm")
    lfn = SERIES_LFN / "0001.dcm"
    await store.write(lambda tx: (tx.catalogue.add_file(lfn, new_file(9, size=50), takes_over=guid_of(1)), add(tx, 3)))
    assert await store.write(lambda tx: tx.catalogue.show_all(SERIES_LFN)) == 2
    assert names(store, SERIES_LFN) == ["0001.dcm", "0002.dcm", "0003.dcm"]
    assert store.read(lambda tx: tx.feed.since(1)).files == [old.inode]
    assert states(store, 1, 9, 3) == [FileState.SUPERSEDED, FileState.VISIBLE, FileState.VISIBLE]
    assert store.read(lambda tx: tx.catalogue.totals()) == Totals(3, 2050)


async def test_a_page_passes_over_what_is_not_seen_yet(store: Store) -> None:
    """However much of it lies between two names: pages are full, and the last one says so."""
    await shown(store, 10, 20, 30)
    await store.write(lambda tx: add(tx, *range(1, 10), *range(11, 20), *range(31, 40)))
    inode = look(store, SERIES_LFN).inode
    first = store.read(lambda tx: tx.catalogue.list_page(inode, limit=2))
    assert ([node.name for node in first.nodes], first.is_last) == (["0010.dcm", "0020.dcm"], False)
    last = store.read(lambda tx: tx.catalogue.list_page(inode, after="0020.dcm", limit=2))
    assert ([node.name for node in last.nodes], last.is_last) == (["0030.dcm"], True)


# Gone


@pytest.mark.parametrize("leave", ["withdraw", "quarantine"])
async def test_the_last_file_takes_its_directories_with_it(store: Store, leave: str) -> None:
    """The feed names the file and each directory; the inode number of the directory stays its own."""
    await shown(store, 1, 2)
    before = store.read(lambda tx: tx.catalogue.look_up(SERIES_LFN))
    first = store.read(lambda tx: tx.catalogue.look_up(SERIES_LFN / "0001.dcm"))
    assert before is not None
    assert first is not None
    await store.write(lambda tx: getattr(tx.catalogue, leave)([guid_of(1)]))
    assert names(store, SERIES_LFN) == ["0002.dcm"]
    assert store.read(lambda tx: tx.feed.since(1)) == Changes(2, [before.inode], [first.inode])
    await store.write(lambda tx: getattr(tx.catalogue, leave)([guid_of(2)]))
    assert names(store, ROOT) == []
    assert names(store, SERIES_LFN) is None
    assert len(store.read(lambda tx: tx.feed.since(2)).directories) == len(SERIES_LFN.parts) + 1
    assert store.read(lambda tx: tx.catalogue.totals("neuro")) == Totals(0, 0)
    await shown(store, 3)
    after = store.read(lambda tx: tx.catalogue.look_up(SERIES_LFN))
    assert after is not None
    assert after.inode == before.inode


async def test_a_withdrawn_file_never_comes_back(store: Store) -> None:
    """Its record says so, nobody may open it, its name is free, and withdrawing it again changes nothing."""
    await shown(store, 1)
    for _ in range(2):
        assert await store.write(lambda tx: tx.catalogue.withdraw([guid_of(1)])) == 2
    record = store.read(lambda tx: tx.catalogue.file(guid_of(1)))
    assert record is not None
    assert (record.state, record.places) == (FileState.WITHDRAWN, ())
    assert store.read(lambda tx: tx.acls.chains_of(guid_of(1))) == []
    assert store.read(lambda tx: tx.catalogue.holder(SERIES_LFN / "0001.dcm")) is None
    with pytest.raises(StoreError, match="withdrawn"):
        await store.write(lambda tx: show(tx, 1))
    with pytest.raises(StoreError, match="already"):
        await store.write(lambda tx: add(tx, 1))


async def test_a_pending_file_can_be_withdrawn_without_a_sound(store: Store) -> None:
    """The feed has nothing to tell, and the name is free."""
    await store.write(lambda tx: add(tx, 1))
    assert await store.write(lambda tx: tx.catalogue.withdraw([guid_of(1)])) == 0
    await store.write(lambda tx: tx.catalogue.add_file(SERIES_LFN / "0001.dcm", new_file(2)))


async def test_a_quarantined_file_comes_back_under_its_name_unless_that_was_given_away(store: Store) -> None:
    """Then it is refused, whether the other file is seen yet or not."""
    await shown(store, 1)
    await store.write(lambda tx: tx.catalogue.quarantine([guid_of(1)]))
    assert await store.write(lambda tx: show(tx, 1)) == 3
    assert names(store, SERIES_LFN) == ["0001.dcm"]
    await store.write(lambda tx: tx.catalogue.quarantine([guid_of(1)]))
    await store.write(lambda tx: tx.catalogue.add_file(SERIES_LFN / "0001.dcm", new_file(2)))
    for _ in ("reserved", "seen"):
        with pytest.raises(StoreError, match="given away"):
            await store.write(lambda tx: show(tx, 1))
        await store.write(lambda tx: show(tx, 2))
    assert store.read(lambda tx: tx.catalogue.totals()) == Totals(1, 1000)


# Names


async def test_a_name_is_held_by_one_file(store: Store) -> None:
    """Seen or only reserved: a second file with that name is refused."""
    await store.write(lambda tx: add(tx, 1))
    for _ in ("reserved", "seen"):
        with pytest.raises(StoreError, match="not free"):
            await store.write(lambda tx: tx.catalogue.add_file(SERIES_LFN / "0001.dcm", new_file(2)))
        await store.write(lambda tx: show(tx, 1))
    with pytest.raises(StoreError, match="not free"):
        await store.write(lambda tx: tx.catalogue.add_file(SERIES_LFN / "0001.dcm", new_file(2), takes_over=guid_of(3)))
    with pytest.raises(StoreError, match="not free"):
        await store.write(lambda tx: tx.catalogue.add_file(SERIES_LFN / "free", new_file(2), takes_over=guid_of(1)))


async def test_a_new_file_takes_over_the_name_when_it_is_shown(store: Store) -> None:
    """Until then the old one stands there; afterwards its GUID still opens, and the feed names its inode."""
    await shown(store, 1, 2)
    lfn = SERIES_LFN / "0001.dcm"
    old = store.read(lambda tx: tx.catalogue.look_up(lfn))
    directory = store.read(lambda tx: tx.catalogue.look_up(SERIES_LFN))
    assert old is not None
    assert directory is not None
    await store.write(lambda tx: tx.catalogue.add_file(lfn, new_file(9, size=50), takes_over=guid_of(1)))
    assert store.read(lambda tx: tx.catalogue.look_up(lfn)) == old
    assert store.read(lambda tx: tx.catalogue.holder(lfn)) == guid_of(9)
    await store.write(lambda tx: show(tx, 9))
    new = store.read(lambda tx: tx.catalogue.look_up(lfn))
    assert new is not None
    assert (new.guid, new.size) == (guid_of(9).octets, 50)
    assert new.inode > old.inode
    assert names(store, SERIES_LFN) == ["0001.dcm", "0002.dcm"]
    assert store.read(lambda tx: tx.feed.since(1)) == Changes(2, [directory.inode], [old.inode])
    assert store.read(lambda tx: tx.catalogue.totals()) == Totals(2, 1050)
    record = store.read(lambda tx: tx.catalogue.file(guid_of(1)))
    assert record is not None
    assert record.state is FileState.SUPERSEDED
    aliases = store.read(lambda tx: (tx.acls.chains_of(guid_of(1)), tx.acls.chains_of(guid_of(9))))
    assert aliases[0] == aliases[1]
    with pytest.raises(StoreError, match="superseded"):
        await store.write(lambda tx: show(tx, 1))


@pytest.mark.parametrize("leave", ["withdraw", "quarantine"])
async def test_a_superseded_file_goes_without_taking_the_new_one_along(store: Store, leave: str) -> None:
    """Its inode is named to those who still have it open; the name stays with the new file."""
    await shown(store, 1)
    lfn = SERIES_LFN / "0001.dcm"
    old = store.read(lambda tx: tx.catalogue.look_up(lfn))
    assert old is not None
    await store.write(lambda tx: tx.catalogue.add_file(lfn, new_file(9), takes_over=guid_of(1)))
    await store.write(lambda tx: show(tx, 9))
    await store.write(lambda tx: getattr(tx.catalogue, leave)([guid_of(1)]))
    assert store.read(lambda tx: tx.feed.since(2)) == Changes(3, [], [old.inode])
    assert names(store, SERIES_LFN) == ["0001.dcm"]
    await store.write(lambda tx: tx.catalogue.withdraw([guid_of(9)]))
    assert names(store, SERIES_LFN) is None
    assert store.read(lambda tx: tx.catalogue.totals()) == Totals(0, 0)


async def test_files_and_directories_do_not_take_each_others_names(store: Store) -> None:
    """Seen or hidden."""
    await store.write(lambda tx: add(tx, 1))
    for _ in ("hidden", "seen"):
        with pytest.raises(NotADirectoryFileError):
            await store.write(lambda tx: tx.catalogue.make_directories(SERIES_LFN / "0001.dcm" / "x"))
        with pytest.raises(IsADirectoryFileError):
            await store.write(lambda tx: tx.catalogue.add_file(SERIES_LFN.parent / "003-MR", new_file(2)))
        with pytest.raises(IsADirectoryFileError):
            store.read(lambda tx: tx.catalogue.holder(SERIES_LFN))
        await store.write(lambda tx: show(tx, 1))


async def test_a_file_needs_its_directory_and_no_file_is_the_root(store: Store) -> None:
    """Directories are made first, by their own call."""
    for lfn in (ROOT / "nowhere" / "1.dcm", ROOT):
        with pytest.raises(NoSuchFileError):
            await store.write(lambda tx, lfn=lfn: tx.catalogue.add_file(lfn, new_file(1)))
    assert store.read(lambda tx: tx.catalogue.holder(ROOT / "nowhere" / "1.dcm")) is None


@pytest.mark.parametrize("leave", ["show", "withdraw", "quarantine"])
async def test_an_unknown_guid_undoes_the_whole_call(store: Store, leave: str) -> None:
    """Half a series is worse than none."""
    await store.write(lambda tx: add(tx, 1))
    with pytest.raises(NoSuchFileError):
        await store.write(lambda tx: getattr(tx.catalogue, leave)([guid_of(1), guid_of(404)]))
    record = store.read(lambda tx: tx.catalogue.file(guid_of(1)))
    assert record is not None
    assert record.state is FileState.PENDING
    assert names(store, ROOT) == []


async def test_inode_numbers_are_never_given_twice(store: Store) -> None:
    """Neither after a withdrawal nor to a file in place of a directory."""
    await shown(store, 1)
    seen = {node.inode for lfn in (SERIES_LFN, SERIES_LFN / "0001.dcm") if (node := look(store, lfn))}
    await store.write(lambda tx: tx.catalogue.withdraw([guid_of(1)]))
    await shown(store, 2)
    node = look(store, SERIES_LFN / "0002.dcm")
    assert node is not None
    assert node.inode > max(seen)


def look(store: Store, lfn: Lfn) -> Any:  # noqa: ANN401 - a node, or the test fails at its first use
    """Look a name up."""
    return store.read(lambda tx: tx.catalogue.look_up(lfn))


async def test_only_generation_and_threshold_of_a_file_are_replaced(store: Store) -> None:
    """Bytes, names and state do not change under a GUID; a new key is no reason to interrupt who reads."""
    await shown(store, 1)
    record = store.read(lambda tx: tx.catalogue.file(guid_of(1)))
    assert record is not None
    renewed = msgspec.structs.replace(record, generation=2, threshold=3)
    await store.write(lambda tx: tx.catalogue.replace(renewed))
    assert store.read(lambda tx: tx.catalogue.file(guid_of(1))) == renewed
    assert store.read(lambda tx: tx.feed.since(1)) == Changes(1, [], [])
    for change in ({"state": FileState.WITHDRAWN}, {"inode": 99}, {"places": ()}, {"project": "cardio"}):
        with pytest.raises(StoreError):
            await store.write(lambda tx, change=change: tx.catalogue.replace(msgspec.structs.replace(record, **change)))


async def test_files_come_in_pages(store: Store) -> None:
    """In the order of their registration, in all states, and of one project page by page, some of them empty."""
    await store.write(lambda tx: add(tx, 5, 3, 4))
    await store.write(lambda tx: tx.catalogue.add_file(SERIES_LFN / "other", new_file(6, project="cardio")))
    first = store.read(lambda tx: tx.catalogue.files(limit=2))
    rest = store.read(lambda tx: tx.catalogue.files(after=first[-1].inode, limit=2))
    assert [file.guid for file in first + rest] == [guid_of(5), guid_of(3), guid_of(4), guid_of(6)]
    assert [len(page) for page in Selection(project="neuro").pages(store, 1)] == [1, 1, 1, 0]
    assert [len(page) for page in Selection(project="cardio").pages(store, 3)] == [0, 1]
    with pytest.raises(UnknownNameError):
        list(Selection(project="other").pages(store, 3))


async def test_totals_are_kept_per_project(store: Store) -> None:
    """And for all."""
    await shown(store, 1, 2)
    await store.write(lambda tx: tx.catalogue.add_file(SERIES_LFN / "c", new_file(6, project="cardio", size=7)))
    await store.write(lambda tx: show(tx, 6, 6))
    for project, totals in (("neuro", Totals(2, 2000)), ("cardio", Totals(1, 7)), (None, Totals(3, 2007))):
        assert store.read(lambda tx, project=project: tx.catalogue.totals(project)) == totals


# ACLs


async def test_every_directory_has_its_own_acl_and_files_share_one(store: Store) -> None:
    """The chain of a file is the chain of its directory, and then the files' own."""
    await store.write(lambda tx: add(tx, 1, 2))
    directory = await store.write(lambda tx: tx.catalogue.make_directories(SERIES_LFN))
    above = store.read(lambda tx: tx.acls.ids_above(directory))
    assert len(set(above)) == len(SERIES_LFN.parts) + 1
    first, second = (store.read(lambda tx, n=n: tx.acls.chains_of(guid_of(n))) for n in (1, 2))
    assert first == second == [[*above, first[0][-1]]]
    acls = [store.read(lambda tx, acl_id=acl_id: tx.acls.find(acl_id)) for acl_id in first[0]]
    assert [found and (found.version, found.acl) for found in acls] == [(1, OWNER_ONLY)] * len(above) + [
        (1, OWNER_ONLY.inherited())
    ]
    assert store.read(lambda tx: tx.acls.find(b"?" * 16)) is None


async def test_a_listing_names_the_acl_of_each_directory_in_it(store: Store) -> None:
    """So that a service can leave out those that the caller may not traverse."""
    await shown(store, 1)
    session, series = look(store, SERIES_LFN.parent), look(store, SERIES_LFN)
    page = store.read(lambda tx: tx.catalogue.list_page(session.inode))
    assert page.directory_acls == {series.inode: store.read(lambda tx: tx.acls.ids_above(series.inode))[-1]}
    assert store.read(lambda tx: tx.catalogue.list_page(series.inode)).directory_acls == {}


async def test_without_an_acl_a_directory_inherits(store: Store) -> None:
    """What its parent passes on, and a directory that exists keeps what it has."""
    lfn = SERIES_LFN.parent / "004-MR"
    inode = await store.write(lambda tx: tx.catalogue.make_directories(lfn))
    again = await store.write(lambda tx: tx.catalogue.make_directories(lfn, acl=NOBODY))
    assert again == inode
    ids = store.read(lambda tx: tx.acls.ids_above(inode))
    found = store.read(lambda tx: [tx.acls.find(acl_id) for acl_id in ids])
    assert [entry and entry.acl for entry in found] == [OWNER_ONLY] * 5 + [OWNER_ONLY.inherited()]


async def test_where_there_is_no_acl_to_inherit_nothing_is_made(open_store: OpenStore) -> None:
    """The first directory of a store needs one."""
    store = open_store()
    with pytest.raises(StoreError, match="no ACL"):
        await store.write(lambda tx: tx.catalogue.make_directories(SERIES_LFN))
    with pytest.raises(NoSuchFileError):
        await store.write(lambda tx: tx.acls.set(ROOT, NOBODY))
    await store.write(lambda tx: tx.catalogue.make_directories(ROOT, acl=NOBODY))
    await store.write(lambda tx: tx.catalogue.make_directories(ROOT, acl=OWNER_ONLY))
    (root,) = store.read(lambda tx: tx.acls.ids_above(ROOT_INODE))
    found = store.read(lambda tx: tx.acls.find(root))
    assert found is not None
    assert found.acl == NOBODY
    await store.aclose()


async def test_a_new_acl_changes_what_it_names_and_nothing_else(store: Store) -> None:
    """One id, one version more; its neighbours, its parent and its files keep theirs."""
    await shown(store, 1)
    ids = store.read(lambda tx: tx.acls.chains_of(guid_of(1)))[0]
    session = look(store, SERIES_LFN.parent)
    answer = await store.write(lambda tx: tx.acls.set(SERIES_LFN.parent, NOBODY))
    assert (answer.id, answer.version, answer.acl) == (ids[-3], 2, NOBODY)
    versions = [store.read(lambda tx, acl_id=acl_id: tx.acls.find(acl_id)).version for acl_id in ids]
    assert versions == [1, 1, 1, 1, 2, 1, 1]
    above = look(store, SERIES_LFN.parent.parent)
    assert store.read(lambda tx: tx.feed.since(1)) == Changes(2, [above.inode, session.inode], [])
    [before] = store.read(lambda tx: tx.feed.acls_before(1, 2))
    assert (before.directory, before.is_of_files) == (session.inode, False)
    assert before.acl == store.read(lambda tx: tx.acls.first(ids[-3])) != NOBODY
    assert store.read(lambda tx: tx.acls.chains_of(guid_of(1)))[0] == ids


async def test_an_acl_is_set_as_a_later_version_than_any_of_a_history_that_was_lost() -> None:
    """Keystores know of that what an older copy of the store does not; nor does it matter that a clock is set back."""
    now = [1000.0]
    store, put_back = (MemoryStore(random=counting_random(), clock=lambda: now[0]) for _ in range(2))
    for each in (store, put_back):
        await each.write(lambda tx: tx.catalogue.make_directories(SERIES_LFN, acl=OWNER_ONLY))

    async def set_at(moment: float, where: Store) -> int:
        now[0] = moment
        return (await where.write(lambda tx: tx.acls.set(SERIES_LFN, NOBODY))).version

    lost = [await set_at(moment, store) for moment in (1000.0, 1000.0, 5.0)]
    assert lost == [1_000_000, 1_000_001, 1_000_002]
    assert await set_at(1000.5, put_back) > lost[-1]


async def test_an_acl_gets_a_version_that_no_clock_has_made_once_a_year() -> None:
    """For keystores that know one of a clock that was ahead; of one that lies no more is used up."""
    now = [1000.0]
    store = MemoryStore(random=counting_random(), clock=lambda: now[0])
    await store.write(lambda tx: tx.catalogue.make_directories(SERIES_LFN, acl=OWNER_ONLY))
    first = await store.write(lambda tx: tx.acls.set(SERIES_LFN, NOBODY))
    epoch = store.read(lambda tx: tx.epochs.latest()).number
    assert await store.write(lambda tx: tx.acls.outdo(first))
    second = store.read(lambda tx: tx.acls.find(first.id))
    assert second is not None
    assert second.acl == NOBODY
    assert second.version > first.version + 1000 * 99 * 365 * 86_400
    assert store.read(lambda tx: tx.epochs.latest()).number == epoch + 1
    assert await store.write(lambda tx: tx.acls.outdo(first))
    assert not await store.write(lambda tx: tx.acls.outdo(second))
    assert store.read(lambda tx: tx.acls.find(first.id)) == second
    unknown = first._replace(id=bytes(16))
    assert not await store.write(lambda tx: tx.acls.outdo(unknown))
    now[0] += 2 * 366 * 86_400
    assert await store.write(lambda tx: tx.acls.outdo(second))


async def test_the_acl_of_the_files_changes_for_all_of_them_at_once(store: Store) -> None:
    """The feed says what it was, so that each mount can be told what that means for it."""
    await shown(store, 1, 2)
    await store.write(lambda tx: add(tx, 3))
    own = store.read(lambda tx: tx.acls.chains_of(guid_of(1)))[0][-1]
    series = look(store, SERIES_LFN)
    answer = await store.write(lambda tx: tx.acls.set(SERIES_LFN, NOBODY, files=True))
    assert (answer.id, answer.version) == (own, 2)
    assert store.read(lambda tx: tx.feed.since(1)).files == []
    [before] = store.read(lambda tx: tx.feed.acls_before(1, 2))
    assert (before.directory, before.is_of_files) == (series.inode, True)
    assert store.read(lambda tx: tx.acls.chains_of(guid_of(3)))[0][-1] == own


async def test_one_file_gets_an_acl_of_its_own_under_its_guid(store: Store) -> None:
    """Its siblings keep the one they share, whose next version comes; the feed keeps what it was, and lists nothing."""
    await shown(store, 1, 2)
    shared = store.read(lambda tx: tx.acls.chains_of(guid_of(2)))
    assert store.read(lambda tx: tx.acls.files_apart(SERIES_LFN)) == []
    answer = await store.write(lambda tx: tx.acls.set_of_file(guid_of(1), NOBODY))
    assert (answer.id, answer.version, answer.acl) == (guid_of(1).octets, 2, NOBODY)
    own, others = (store.read(lambda tx, n=n: tx.acls.chains_of(guid_of(n))) for n in (1, 2))
    assert (own, others) == ([[*shared[0][:-1], guid_of(1).octets]], shared)
    assert store.read(lambda tx: tx.feed.since(1)) == Changes(2, [], [])
    [before] = store.read(lambda tx: tx.feed.acls_before(1, 2))
    assert (before.directory, before.file) == (
        look(store, SERIES_LFN).inode,
        look(store, SERIES_LFN / "0001.dcm").inode,
    )
    assert (before.acl, before.acl_id) == (OWNER_ONLY.inherited(), answer.id)
    again = await store.write(lambda tx: tx.acls.set_of_file(guid_of(1), OWNER_ONLY))
    assert (again.id, again.version) == (answer.id, 3)
    assert [file.guid for file in store.read(lambda tx: tx.acls.files_apart(SERIES_LFN))] == [guid_of(1)]
    assert [one.what for _, one in store.read(lambda tx: tx.epochs.after(0, limit=9))] == [answer.id] * 2
    await store.write(lambda tx: tx.catalogue.withdraw([guid_of(1)]))
    assert store.read(lambda tx: tx.acls.files_apart(SERIES_LFN)) == []
    with pytest.raises(NoSuchFileError):
        await store.write(lambda tx: tx.acls.set_of_file(guid_of(1), OWNER_ONLY))


@pytest.mark.parametrize("files", [False, True])
async def test_an_acl_is_set_on_directories_only(store: Store, files: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Not on a name that is a file, or nothing."""
    await shown(store, 1)
    with pytest.raises(NotADirectoryFileError):
        await store.write(lambda tx: tx.acls.set(SERIES_LFN / "0001.dcm", NOBODY, files=files))
    with pytest.raises(NoSuchFileError):
        await store.write(lambda tx: tx.acls.set(SERIES_LFN / "nothing", NOBODY, files=files))
    assert store.read(lambda tx: tx.feed.version()) == 1


# Feed


async def test_the_feed_tells_what_changed_since_a_version(store: Store) -> None:
    """Nothing, one change, or several as one; a limit ends the answer early, at the version it names."""
    for number in range(4, 0, -1):  # a later one would change the times of directories above, too
        await shown(store, number)
    series = look(store, SERIES_LFN)
    assert store.read(lambda tx: tx.feed.since(4)) == Changes(4, [], [])
    assert store.read(lambda tx: tx.feed.since(2)) == Changes(4, [series.inode], [])
    assert store.read(lambda tx: tx.feed.since(1, limit=1)) == Changes(2, [series.inode], [])


@pytest.mark.parametrize("since", [-1, 0, 1, 9, 2**63])
async def test_who_was_away_too_long_or_saw_another_store_starts_anew(open_store: OpenStore, since: int) -> None:
    """The feed keeps its newest changes only, and a version that it never had is another store's."""
    store = open_store(feed_length=3)
    await store.write(lambda tx: tx.catalogue.make_directories(SERIES_LFN, acl=OWNER_ONLY))
    for number in range(1, 6):
        await shown(store, number)
    assert store.read(lambda tx: tx.feed.since(since)) == Changes(5, [], [], is_reset=True)
    assert not store.read(lambda tx: tx.feed.since(2)).is_reset
    await store.aclose()


async def test_every_acl_that_is_set_is_told_to_keystores(store: Store) -> None:
    """Nobody who changes an ACL can forget it: the catalogue notes the epoch in the same transaction."""
    assert store.read(lambda tx: tx.epochs.latest().number) == 0
    await store.write(lambda tx: add(tx, 1))
    changed = [
        await store.write(lambda tx: tx.acls.set(SERIES_LFN, NOBODY)),
        await store.write(lambda tx: tx.acls.set(SERIES_LFN, NOBODY, files=True)),
    ]
    told = store.read(lambda tx: tx.epochs.after(0, limit=9))
    assert [change.what for _, change in told] == [version.id for version in changed]
