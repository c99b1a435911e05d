"""The order of opens: what comes next is known from the second open in a directory on, and for a second only."""

from __future__ import annotations

import trio
import trio.testing

from mdmfs.model.names import Lfn
from mdmfs.wire.messages.files import Node, NodeKind
from mdmfs.worker.namespace.listing import Listing, nodes_by_name
from mdmfs.worker.prefetch.order import BURST_SECONDS, NEARLY, PROVEN, SIBLINGS, Place, ReadingOrder

FOLDER, OTHER = 7, 8
FILES = tuple(Node(f"{at:03}.dcm", 100 + at, NodeKind.FILE, 1, 0.0, bytes([at]) * 16) for at in range(4 * SIBLINGS))


def _open(order: ReadingOrder, at: int, folder: int = FOLDER) -> Place:
    lfn = Lfn(("study",))
    names = nodes_by_name(FILES, lfn)
    listing = Listing(lfn, Node("study", folder, NodeKind.DIRECTORY, 0, 0.0), (*names,), FILES, names, 1, 0)
    place = order.note(FILES[at], folder, listing)
    assert place is not None
    assert place.position == at
    return place


async def test_the_second_open_of_a_directory_tells_what_comes_next(autojump_clock: trio.testing.MockClock) -> None:
    """As many as may be asked for along with it; at the end of the directory those that are left."""
    order = ReadingOrder()
    assert _open(order, 0) == Place(0, (), is_in_order=False)
    assert _open(order, 1) == Place(1, FILES[2 : 2 + SIBLINGS], is_in_order=True)
    assert _open(order, 2 + NEARLY - 1).is_in_order
    last = len(FILES) - 1
    assert _open(order, last) == Place(last, (), is_in_order=False)


async def test_who_has_long_gone_on_in_order_hears_of_more(autojump_clock: trio.testing.MockClock) -> None:
    """Fewer questions are asked for as many files; the first step out of order takes that back."""
    order = ReadingOrder()
    counts = [len(_open(order, at).siblings) for at in range(PROVEN + 2)]
    assert counts == [0, *[SIBLINGS] * (PROVEN - 1), SIBLINGS + PROVEN, SIBLINGS + PROVEN]
    assert len(_open(order, PROVEN + 1).siblings) == SIBLINGS + PROVEN, "the same file again is no step"
    assert len(_open(order, 1).siblings) == SIBLINGS
    assert len(_open(order, 2).siblings) == SIBLINGS


async def test_who_opens_here_and_there_is_in_no_order(autojump_clock: trio.testing.MockClock) -> None:
    """A step back or far ahead is none, though what follows may be opened next."""
    order = ReadingOrder()
    _open(order, 4)
    for at in (20, 10, 10 + NEARLY + 1):
        assert _open(order, at) == Place(at, FILES[at + 1 : at + 1 + SIBLINGS], is_in_order=False)


async def test_the_same_file_again_changes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """Programs open a file several times."""
    order = ReadingOrder()
    first = [_open(order, 5), _open(order, 5)]
    second = [_open(order, 6), _open(order, 6), _open(order, 6)]
    assert not any(place.siblings for place in first)
    assert all(place.is_in_order for place in second)


async def test_another_directory_and_a_pause_begin_anew(autojump_clock: trio.testing.MockClock) -> None:
    """What comes next is not known then; an open of the same file keeps the time."""
    order = ReadingOrder()
    _open(order, 0)
    assert not _open(order, 1, OTHER).siblings
    assert not _open(order, 2).siblings
    await trio.sleep(1.25 * BURST_SECONDS)
    assert not _open(order, 3).siblings
    await trio.sleep(0.75 * BURST_SECONDS)
    _open(order, 3)
    await trio.sleep(0.75 * BURST_SECONDS)
    assert _open(order, 4).siblings


async def test_without_a_listing_nothing_is_known_of_what_comes_next(autojump_clock: trio.testing.MockClock) -> None:
    """Though the open counts, and the next one is a burst."""
    order = ReadingOrder()
    assert order.note(FILES[0], FOLDER, None) is None
    assert _open(order, 1).siblings
