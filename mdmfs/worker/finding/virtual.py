"""Virtual directories: names beside the catalogue's, made up as they are looked at; inode numbers of our own."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

from mdmfs.model.errors import (
    MalformedMessageError,
    MalformedNameError,
    MdmfsError,
    NoSuchFileError,
    NotADirectoryFileError,
)
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.files import Node, NodeKind
from mdmfs.worker.numbered import FIRST_INODE

AT_ONCE: Final = 1000
"""Entries; the kernel takes some twenty in one answer."""
NAME_SECONDS: Final = 1.0
"""For which the kernel may remember a virtual name: nobody tells when it has gone."""


class Link(NamedTuple):
    """A symbolic link."""

    target: str


class Text(NamedTuple):
    """A small file that nobody fetches."""

    octets: bytes


class Gone(NamedTuple):
    """A file that once was: it has a name and a size, and opening it says why it is no more."""

    size: int
    why: MdmfsError


class PlacedNode(Node, frozen=True):
    """A file of the catalogue under a virtual name; its number, size and GUID are the catalogue's."""

    lfn: str = ""
    """What the catalogue calls it now."""
    above: tuple[int, ...] = ()
    """The catalogue's numbers of the directories above that name, from the root down."""


class Pages(Protocol):
    """The entries of a directory, some at a time."""

    async def more(self) -> Sequence[tuple[bytes, Entry]]:
        """Give the next ones; none at the end."""

    def close(self) -> None:
        """Fetch no more."""


class Directory(Protocol):
    """What stands behind a virtual directory."""

    modified: float
    """Seconds since the epoch."""

    async def look_up(self, name: bytes) -> Entry:
        """Give an entry; raises ``NoSuchFileError``, but never for want of an answer."""

    def open(self) -> Pages:
        """Begin to list."""


Entry: TypeAlias = Directory | Link | Text | Gone | PlacedNode


class VirtualNode(Node, frozen=True):
    """An entry with a number."""

    entry: Entry | None = None


@dataclasses.dataclass(slots=True)
class _Known:
    node: VirtualNode
    key: tuple[int, bytes, bytes]
    lookups: int = 0


class VirtualTree:
    """The virtual directories of one caller, below the root of a mount; numbers live as long as the kernel counts."""

    def __init__(self, top: Mapping[bytes, Directory], root: int) -> None:
        """``top`` stands in the directory with the number ``root``, where it is not listed."""
        self._top = top
        self._root = root
        self._numbers: dict[tuple[int, bytes, bytes], int] = {}
        self._known: dict[int, _Known] = {}
        self._fresh = itertools.count(FIRST_INODE)

    def has(self, parent: int, name: bytes) -> bool:
        """Ask whether an entry of a directory is looked for here."""
        return parent >= FIRST_INODE or (parent == self._root and name in self._top)

    async def look_up(self, parent: int, name: bytes) -> Node:
        """Find an entry; raises ``NoSuchFileError``, ``MalformedQueryError``, and what asking raises."""
        entry = self._top[name] if parent == self._root else await self._directory(parent).look_up(name)
        return self.node_of(parent, name, entry)

    def open(self, inode: int) -> Pages:
        """Begin to list a directory."""
        return self._directory(inode).open()

    def node_of(self, parent: int, name: bytes, entry: Entry) -> Node:
        """Give an entry a number: the one that the kernel knows it by, or a new one."""
        if isinstance(entry, PlacedNode):
            return entry
        inode = self._numbers.get(_key(parent, name, entry)) or next(self._fresh)
        text = name.decode("utf-8", "surrogateescape")
        match entry:
            case Link(target):
                return VirtualNode(text, inode, NodeKind.LINK, len(target.encode()), 0.0, b"", entry=entry)
            case Text(octets):
                return VirtualNode(text, inode, NodeKind.FILE, len(octets), 0.0, b"", entry=entry)
            case Gone(size):
                return VirtualNode(text, inode, NodeKind.FILE, size, 0.0, b"", entry=entry)
            case _:
                return VirtualNode(text, inode, NodeKind.DIRECTORY, 0, entry.modified, b"", entry=entry)

    def node(self, inode: int) -> VirtualNode:
        """Give what stands behind a number in use; raises ``NoSuchFileError``."""
        known = self._known.get(inode)
        if known is None:
            message = f"inode {inode} is not in use"
            raise NoSuchFileError(message)
        return known.node

    def retain(self, parent: int, node: VirtualNode) -> None:
        """Count a lookup that the kernel was told of."""
        known = self._known.get(node.inode)
        if known is None:
            assert node.entry is not None  # noqa: S101 made by node_of
            key = _key(parent, node.name.encode("utf-8", "surrogateescape"), node.entry)
            known = self._known[node.inode] = _Known(node, key)
            self._numbers[key] = node.inode
        known.lookups += 1

    def forget(self, inode: int, lookups: int) -> None:
        """Take lookups back."""
        known = self._known.get(inode)
        if known is None:
            return
        known.lookups -= lookups
        if known.lookups <= 0:
            del self._known[inode]
            if self._numbers.get(known.key) == inode:
                del self._numbers[known.key]

    def _directory(self, inode: int) -> Directory:
        entry = self.node(inode).entry
        if entry is None or isinstance(entry, Link | Text | Gone | PlacedNode):
            message = f"inode {inode} is not a directory"
            raise NotADirectoryFileError(message)
        return entry


class Reading:
    """A virtual directory that is being read: what was given keeps its place, what comes is fetched as it is wanted."""

    def __init__(self, tree: VirtualTree, inode: int) -> None:
        self.inode = inode
        self._tree = tree
        self._pages = tree.open(inode)
        self._entries: list[tuple[bytes, Entry]] = []
        self._is_whole = False

        self._was_read = False

    async def entries(self, position: int) -> Sequence[tuple[bytes, Entry]]:
        """Give some entries from a position on; none at the end. Position 0 begins again, like ``rewinddir``."""
        if position == 0 and self._was_read:
            self.close()
            self._pages = self._tree.open(self.inode)
            self._entries, self._is_whole = [], False
        self._was_read = True
        await self.fill(position)
        return self._entries[position : position + AT_ONCE]

    def close(self) -> None:
        """Fetch no more."""
        self._pages.close()

    async def fill(self, position: int) -> None:
        """Wait for what stands at a position."""
        while not self._is_whole and len(self._entries) <= position:
            some = await self._pages.more()
            self._entries += some
            self._is_whole = not some


async def begun(tree: VirtualTree, inode: int) -> Reading:
    """Open a directory and wait for its first entries."""
    reading = Reading(tree, inode)
    try:
        await reading.fill(0)
    except BaseException:
        reading.close()
        raise
    return reading


def placed_lfn(node: PlacedNode) -> Lfn:
    """Give what the catalogue calls a file; raises ``MalformedMessageError`` for what is no name there."""
    try:
        return Lfn.parse(node.lfn)
    except MalformedNameError as error:
        message = "the hospital tells of a file that no LFN can name"
        raise MalformedMessageError(message) from error


def _key(parent: int, name: bytes, entry: Entry) -> tuple[int, bytes, bytes]:
    """Tell entries apart: a text that says something else is another file, whose pages the kernel has not."""
    return parent, name, entry.octets if isinstance(entry, Text) else b""
