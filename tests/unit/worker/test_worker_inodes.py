"""Inodes in use: where each was last seen, and what is below a directory that goes or is moved."""

from __future__ import annotations

import msgspec
import pytest

from mdmfs.model.errors import NoSuchFileError
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.files import Node, NodeKind
from mdmfs.worker.namespace.inodes import Inodes

TOP = Lfn.parse("/grid/medical/neuro")


def directory(inode: int, name: str) -> Node:
    """Give what the hospital tells of a directory."""
    return Node(name, inode, NodeKind.DIRECTORY, 0, 0)


def file(inode: int, name: str) -> Node:
    """Give what the hospital tells of a file."""
    return Node(name, inode, NodeKind.FILE, 1, 0)


@pytest.fixture
def inodes() -> Inodes:
    """Know a/b/c, where c is a file, and ab beside, all below the root."""
    known = Inodes(directory(1, ""), TOP)
    known.retain(directory(2, "a"), 1, TOP)
    known.retain(directory(3, "b"), 2, TOP / "a")
    known.retain(file(4, "c"), 3, TOP / "a" / "b")
    known.retain(directory(5, "ab"), 1, TOP)
    return known


def names(inodes: Inodes) -> list[str]:
    """Tell how all but the root are called."""
    return [str(inodes.lfn_of(inode)).removeprefix(f"{TOP}/") for inode in (2, 3, 4, 5)]


def test_below_a_directory_that_was_moved_all_names_are_others(inodes: Inodes) -> None:
    """Whether it is called otherwise, lies elsewhere, or was only seen again; what begins alike is not below it."""
    inodes.retain(directory(2, "a"), 1, TOP)
    assert names(inodes) == ["a", "a/b", "a/b/c", "ab"]
    inodes.retain(directory(2, "z"), 1, TOP)
    assert names(inodes) == ["z", "z/b", "z/b/c", "ab"]
    inodes.renew(directory(3, "b"), 5, TOP / "ab")
    assert names(inodes) == ["z", "ab/b", "ab/b/c", "ab"]
    assert [inodes.is_called(3, lfn) for lfn in (TOP / "ab" / "b", TOP / "z" / "b")] == [True, False]
    assert inodes.is_called(9, TOP / "nobody" / "knows")
    assert (inodes.below([2]), inodes.below([5])) == ([2], [3, 4, 5])


def test_what_goes_with_a_directory_is_below_it_and_nothing_else(inodes: Inodes) -> None:
    """Also what is known by a virtual name alone, its directories not in use; not what is below what was forgotten."""
    inodes.retain_placed(file(6, "d"), TOP / "a" / "x" / "d", (1, 2, 7))
    assert (inodes.below([2]), inodes.below([7]), inodes.below([5]), inodes.below([])) == ([2, 3, 4, 6], [6], [5], [])
    assert (inodes.files(), inodes.files_in([3, 5]), inodes.files_in([1])) == ([4, 6], [4], [])
    assert inodes.forget(3, 1)
    assert inodes.below([2]) == [2, 6]


def test_a_directory_below_itself_ends_no_search(inodes: Inodes) -> None:
    """A hospital may tell so."""
    inodes.renew(directory(2, "a"), 3, TOP / "a" / "b")
    assert inodes.below([5]) == [5]


def test_an_inode_is_in_use_as_long_as_the_kernel_counts_on_it(inodes: Inodes) -> None:
    """The root for ever; who asks for one that is not hears that there is none."""
    inodes.retain(file(4, "c"), 3, TOP / "a" / "b")
    assert [inodes.forget(inode, 1) for inode in (4, 4, 4, 1, 9)] == [False, True, True, False, True]
    with pytest.raises(NoSuchFileError):
        inodes.of(4)
    for _ in range(2):
        inodes.retain_placed(file(6, "d"), TOP / "a" / "d", (1, 2))
    assert [inodes.forget(6, 1) for _ in range(2)] == [False, True]
    assert [inode in inodes for inode in (1, 4, 6)] == [True, False, False]


def test_new_attributes_are_for_what_is_in_use_alone(inodes: Inodes) -> None:
    """A file keeps its place with them; what nobody counts on is not told of."""
    inodes.renew(msgspec.structs.replace(file(4, "c"), size=2), 1, TOP)
    inodes.renew(file(9, "d"), 1, TOP)
    assert (inodes.of(4).node.size, inodes.of(4).parent, 9 in inodes) == (2, 3, False)


def test_what_is_below_a_directory_that_has_become_a_file_has_no_name(inodes: Inodes) -> None:
    """No hospital of ours tells so."""
    inodes.retain(file(3, "file"), 2, TOP / "a")
    with pytest.raises(NoSuchFileError, match="no directory"):
        inodes.lfn_of(4)
