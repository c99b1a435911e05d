"""One budget of memory for all that a mount keeps: what was used longest ago goes, whoever it belongs to."""

from __future__ import annotations

import functools

from mdmfs.model.names import Lfn
from mdmfs.worker.memory import SMALLEST_WINDOW, WINDOW, Held, Memory
from mdmfs.worker.namespace.names import ENTRY_BYTES, Namespace
from tests.twins.hospital import TwinHospital


class Keeper:
    """Keeps things by name."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.kept: dict[str, Held] = {}

    def keep(self, name: str, octets: int) -> None:
        """Keep something."""
        self.kept[name] = self.memory.hold(octets, functools.partial(self._drop, name))

    def _drop(self, name: str) -> None:
        del self.kept[name]


def test_what_was_used_longest_ago_goes_first_whoever_keeps_it() -> None:
    """And not sooner than something else needs its place."""
    memory = Memory(100)
    one, other = Keeper(memory), Keeper(memory)
    one.keep("a", 40)
    other.keep("b", 40)
    memory.touch(one.kept["a"])
    other.keep("c", 20)
    assert (memory.used, [*one.kept, *other.kept]) == (100, ["a", "b", "c"])
    one.keep("d", 10)
    assert (memory.used, [*one.kept, *other.kept]) == (70, ["a", "d", "c"])


def test_what_can_be_spared_goes_first_until_it_is_used_again() -> None:
    """Though it was kept last."""
    memory = Memory(100)
    keeper = Keeper(memory)
    for name in "abc":
        keeper.keep(name, 30)
    memory.spare(keeper.kept["b"])
    memory.spare(keeper.kept["c"])
    memory.touch(keeper.kept["c"])
    keeper.keep("d", 30)
    assert [*keeper.kept] == ["a", "c", "d"]


def test_what_is_let_go_counts_no_more_and_only_once() -> None:
    """Its keeper may say so after it was dropped, too."""
    memory = Memory(100)
    keeper = Keeper(memory)
    keeper.keep("a", 30)
    held = keeper.kept["a"]
    memory.release(held)
    memory.release(held)
    assert memory.used == 0


def test_something_larger_than_the_budget_stays_while_it_is_in_use_and_drives_out_half_at_most() -> None:
    """A listing of a million entries is fetched once, not for each of its files."""
    memory = Memory(100)
    keeper = Keeper(memory)
    keeper.keep("small", 40)
    keeper.keep("huge", 10_000)
    for number in range(20):
        memory.touch(keeper.kept["huge"])
        keeper.keep(f"other {number}", 10)
        assert memory.used <= 100
    assert "huge" in keeper.kept
    assert len(keeper.kept) == 6


def test_a_smaller_budget_drops_at_once_what_does_not_fit_into_it() -> None:
    """Also of what alone took half of the old one."""
    memory = Memory(1000)
    keeper = Keeper(memory)
    keeper.keep("huge", 900)
    for number in range(10):
        keeper.keep(str(number), 50)
    memory.resize(120)
    assert memory.used <= 120
    assert [*keeper.kept] == ["8", "9"]


def test_windows_come_before_what_is_kept_and_become_small_where_many_receive() -> None:
    """Nobody waits for one, and they are given back."""
    memory = Memory(4 * WINDOW)
    keeper = Keeper(memory)
    keeper.keep("a", 2 * WINDOW)
    keeper.keep("b", WINDOW)
    with memory.window(10 * WINDOW) as first, memory.window(100) as second:
        assert (first, second) == (WINDOW, 100)
        with memory.window(WINDOW) as third, memory.window(WINDOW) as fourth:
            assert (third, fourth) == (WINDOW - 100, SMALLEST_WINDOW)
            assert [*keeper.kept] == ["b"]
    assert memory.used == WINDOW


async def test_a_listing_that_makes_room_is_forgotten_by_the_kernel_and_fetched_again() -> None:
    """Else the feed would tell of names that the kernel knows, and nobody would take them back."""
    hospital, memory = TwinHospital(), Memory(20 * ENTRY_BYTES)
    for folder in "abc":
        hospital.add_sibling_files(f"/grid/medical/{folder}", 8, 10)
    names = Namespace(hospital, Lfn(()), memory=memory)
    top = await names.listing(names.top)
    for node in top.in_order:
        names.inodes.retain(node, names.top, names.root)
    listings = [await names.listing(node.inode) for node in top.in_order]
    assert [names.held(node.inode) for node in top.in_order] == [None, *listings[1:]]
    assert names.replaced.receive_nowait() == (names.top, top, top)
    assert names.replaced.receive_nowait() == (top.in_order[0].inode, listings[0], listings[0])
    assert (await names.listing(top.in_order[0].inode)).names == listings[0].names
    names.let_go()
    assert memory.used == 0
