"""Numbers of inodes and handles of several hospitals on one mount: each counts from 1, here they are kept apart.

| bits | what |
|---|---|
| 62 | 1: virtual (``mdmfs.worker.finding.virtual``) |
| 35-40 | which hospital, from 1 on; 0 on a mount of one |
| 0-34 | the catalogue's number |
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

import msgspec

from mdmfs.model.errors import MalformedMessageError
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.files import Changes, DirectoryPage, FilePlace, Node, OpensReport
from mdmfs.wire.messages.names import ChangedName, ChangeName

_SHIFT: Final = 35
_LIMIT: Final = 1 << _SHIFT
MAX_HOSPITALS: Final = 63
TREES: Final = 128
"""That a mount may have: so many handles lie between two of one tree."""
FIRST_INODE: Final = 1 << 62
"""Of what is virtual: no catalogue counts so far."""


class Counting(Protocol):
    """What of ``mdmfs.worker.hospital.Hospital`` gives numbers."""

    async def list_directory(self, lfn: Lfn, after: str) -> DirectoryPage:
        """Give a page of a directory."""

    async def changes(
        self, since: int, wait: float, report: OpensReport | None = None, groups: Sequence[str] = ()
    ) -> Changes:
        """Wait for changes."""

    async def give_back(self) -> None:
        """Give the lease back."""

    async def locate(self, guids: Sequence[Guid]) -> list[FilePlace | None]:
        """Say under which name each file is."""

    async def change_name(self, change: ChangeName) -> ChangedName:
        """Change a name."""


class Numbered:
    """A hospital that counts in its own part of a mount's numbers; raises ``MalformedMessageError`` beyond it."""

    def __init__(self, hospital: Counting, tree: int) -> None:
        self._hospital = hospital
        self._first = first_of(tree)

    async def list_directory(self, lfn: Lfn, after: str) -> DirectoryPage:
        """See ``Hospital``."""
        page = await self._hospital.list_directory(lfn, after)
        entries = [self._node(node) for node in page.entries]
        return msgspec.structs.replace(page, directory=self._node(page.directory), entries=entries)

    async def changes(
        self, since: int, wait: float, report: OpensReport | None = None, groups: Sequence[str] = ()
    ) -> Changes:
        """See ``Hospital``."""
        told = await self._hospital.changes(since, wait, report, groups)
        return msgspec.structs.replace(
            told,
            directories=self._numbers(told.directories),
            files=self._numbers(told.files),
            lost=self._numbers(told.lost),
            unreadable=self._numbers(told.unreadable),
        )

    async def give_back(self) -> None:
        """See ``Hospital``."""
        await self._hospital.give_back()

    async def locate(self, guids: Sequence[Guid]) -> list[FilePlace | None]:
        """See ``Hospital``."""
        places = await self._hospital.locate(guids)
        return [
            place and msgspec.structs.replace(place, node=self._node(place.node), above=self._numbers(place.above))
            for place in places
        ]

    async def change_name(self, change: ChangeName) -> ChangedName:
        """See ``Hospital``."""
        changed = await self._hospital.change_name(change)
        return msgspec.structs.replace(changed, node=None if changed.node is None else self._node(changed.node))

    def _node(self, node: Node) -> Node:
        return msgspec.structs.replace(node, inode=self._number(node.inode))

    def _numbers(self, numbers: Iterable[int]) -> list[int]:
        return [self._number(number) for number in numbers]

    def _number(self, number: int) -> int:
        if not 0 < number < _LIMIT:
            message = f"the hospital gives an inode the number {number}, which a mount of several hospitals cannot show"
            raise MalformedMessageError(message)
        return self._first | number


def handles_of(tree: int) -> Iterator[int]:
    """Count the handles of one of a mount's trees: which one it is, is in their lowest bits."""
    return itertools.count(TREES + tree, TREES)


def first_of(tree: int) -> int:
    """Give the number from which on a tree counts."""
    return tree << _SHIFT


def tree_of(inode: int) -> int:
    """Tell which tree a number belongs to."""
    return inode >> _SHIFT


def are_of_one_tree(inode: int, other: int) -> bool:
    """Ask whether two numbers belong to the same tree."""
    return inode ^ other < _LIMIT
