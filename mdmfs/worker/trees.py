"""The trees of a mount, told apart by the numbers of inodes and handles: catalogues, their root, what is virtual."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NoReturn

import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.model.errors import (
    IsADirectoryFileError,
    MdmfsError,
    NoSuchAttributeError,
    NoSuchFileError,
    OtherHospitalError,
    ReadOnlyError,
)
from mdmfs.model.names import MAX_NAME_BYTES, Lfn
from mdmfs.wire.messages.files import Node, NodeKind, Totals
from mdmfs.worker.attributes import WHY_ATTRIBUTE
from mdmfs.worker.changing import Change
from mdmfs.worker.filesystem import FileSystem
from mdmfs.worker.finding.files import VirtualFiles
from mdmfs.worker.namespace.names import ROOT
from mdmfs.worker.numbered import TREES, handles_of, tree_of
from mdmfs.worker.port import Tree

_CONFIGURED: Final = "the directories of hospitals are those that the mount is configured with"
VIRTUAL: Final = TREES - 1
"""The handles' number of the virtual tree; its inodes have a bit of their own."""


class Trees:
    """See ``Tree``: each request goes to the one that its number names."""

    def __init__(self, trees: Mapping[int, Tree], virtual: VirtualFiles | None) -> None:
        """``trees`` are by number; the one with the number 0 has the root of the mount."""
        self.root = trees[0].root
        self._trees = dict(trees)
        self._virtual = virtual
        self._of_handles: dict[int, Tree] = {**self._trees, **({VIRTUAL: virtual} if virtual else {})}

    def _of(self, inode: int) -> Tree:
        tree = self._trees.get(tree_of(inode)) or self._virtual
        if tree is None:
            message = f"inode {inode} is not in use"
            raise NoSuchFileError(message)
        return tree

    # Names and attributes

    async def lookup(self, parent: int, name: bytes) -> Node:
        """See ``Files``."""
        if parent == ROOT and self._virtual is not None and self._virtual.has(parent, name):
            return await self._virtual.lookup(parent, name)
        return await self._of(parent).lookup(parent, name)

    def lookup_at_once(self, parent: int, name: bytes) -> Node | None:
        """See ``Files``."""
        return self._of(parent).lookup_at_once(parent, name)

    def longest_name(self, parent: int) -> int:
        """See ``Files``."""
        return self._of(parent).longest_name(parent)

    async def attributes(self, inode: int) -> Node:
        """See ``Files``."""
        return await self._of(inode).attributes(inode)

    def seconds_held(self, node: Node) -> float:
        """See ``Files``."""
        return self._of(node.inode).seconds_held(node)

    def target(self, inode: int) -> bytes | None:
        """See ``Files``."""
        return self._of(inode).target(inode)

    def retain(self, parent: int, node: Node) -> None:
        """See ``Files``."""
        self._of(parent).retain(parent, node)

    def forget(self, inode: int, lookups: int) -> None:
        """See ``Files``."""
        self._of(inode).forget(inode, lookups)

    def knows(self, inode: int) -> bool:
        """See ``Tree``."""
        return self._of(inode).knows(inode)

    def lfn_of(self, inode: int) -> Lfn:
        """See ``Tree``."""
        return self._of(inode).lfn_of(inode)

    async def change_name(self, change: Change) -> Node | None:
        """See ``Files``; a name does not go from one tree to another."""
        if change.new_directory and tree_of(change.new_directory) != tree_of(change.directory):
            message = "a name cannot go to another hospital: make it there, and remove it here"
            raise OtherHospitalError(message)
        return await self._of(change.directory).change_name(change)

    async def set_comment(self, inode: int, text: bytes) -> None:
        """See ``Files``."""
        await self._of(inode).set_comment(inode, text)

    # Directories

    async def open_directory(self, inode: int) -> int:
        """See ``Files``."""
        return await self._of(inode).open_directory(inode)

    async def read_directory(self, handle: int, position: int) -> Iterator[tuple[bytes, Node, int]]:
        """See ``Files``."""
        return await self._of_handles[handle % TREES].read_directory(handle, position)

    def directory_of(self, handle: int) -> int:
        """See ``Files``."""
        return self._of_handles[handle % TREES].directory_of(handle)

    def close_directory(self, handle: int) -> None:
        """See ``Files``."""
        self._of_handles[handle % TREES].close_directory(handle)

    # Files

    async def open_file(self, inode: int) -> int:
        """See ``Files``."""
        return await self._of(inode).open_file(inode)

    def open_file_at_once(self, inode: int) -> int | None:
        """See ``Files``."""
        return self._of(inode).open_file_at_once(inode)

    async def read(self, handle: int, offset: int, length: int) -> bytes:
        """See ``Files``."""
        return await self._of_handles[handle % TREES].read(handle, offset, length)

    def read_at_once(self, handle: int, offset: int, length: int) -> memoryview | None:
        """See ``Files``."""
        return self._of_handles[handle % TREES].read_at_once(handle, offset, length)

    def header_end(self, handle: int) -> int:
        """See ``Files``."""
        return self._of_handles[handle % TREES].header_end(handle)

    def close_file(self, handle: int) -> None:
        """See ``Files``."""
        self._of_handles[handle % TREES].close_file(handle)

    # Extended attributes and totals

    def attribute_names(self, inode: int) -> Sequence[bytes]:
        """See ``Files``."""
        return self._of(inode).attribute_names(inode)

    async def attribute(self, inode: int, name: bytes) -> bytes:
        """See ``Files``."""
        return await self._of(inode).attribute(inode, name)

    async def stage(self, inode: int) -> None:
        """See ``Files``."""
        await self._of(inode).stage(inode)

    async def totals(self) -> Totals:
        """See ``Files``: what the tree of the root says."""
        return await self._trees[0].totals()


class Hospitals:
    """The root above the catalogues of several hospitals, see ``Tree``: answered here, whoever can be reached."""

    def __init__(self, hospitals: Mapping[str, FileSystem], root: Lfn) -> None:
        self.root = root
        self._hospitals = hospitals
        self._names = {name.encode(): name for name in sorted(hospitals)}
        self._handles = handles_of(0)
        self._node = Node(root.name, ROOT, NodeKind.DIRECTORY, 0, 0.0)

    # Names and attributes

    async def lookup(self, parent: int, name: bytes) -> Node:
        """See ``Files``: a hospital's directory is there while it is configured, even where nobody answers."""
        await trio.lowlevel.checkpoint()
        node = self.lookup_at_once(parent, name)
        if node is None:
            message = f"this mount shows no such hospital; it has {', '.join(self._names.values())}"
            raise NoSuchFileError(message)
        return node

    def lookup_at_once(self, parent: int, name: bytes) -> Node | None:  # noqa: ARG002 that of the port
        """See ``Files``. Nothing is counted: these stay as long as the mount."""
        found = self._names.get(name)
        return None if found is None else self._hospitals[found].top

    def longest_name(self, parent: int) -> int:  # noqa: ARG002 that of the port
        """See ``Files``."""
        return MAX_NAME_BYTES

    async def attributes(self, inode: int) -> Node:  # noqa: ARG002 that of the port
        """Give those of the root."""
        await trio.lowlevel.checkpoint()
        return self._node

    def seconds_held(self, node: Node) -> float:  # noqa: ARG002 that of the port
        """Tell that the root stays as it is."""
        return float("inf")

    def target(self, inode: int) -> None:
        """See ``Files``: there is no link here."""

    def retain(self, parent: int, node: Node) -> None:
        """See ``lookup_at_once``."""

    def forget(self, inode: int, lookups: int) -> None:
        """See ``lookup_at_once``."""

    def knows(self, inode: int) -> bool:
        """See ``Tree``."""
        return inode == ROOT

    def lfn_of(self, inode: int) -> Lfn:  # noqa: ARG002 that of the port
        """See ``Tree``."""
        return self.root

    async def change_name(self, change: Change) -> NoReturn:  # noqa: ARG002 that of the port
        """Refuse: which hospitals there are is configured."""
        await trio.lowlevel.checkpoint()
        raise ReadOnlyError(_CONFIGURED)

    async def set_comment(self, inode: int, text: bytes) -> NoReturn:  # noqa: ARG002 that of the port
        """Refuse."""
        await trio.lowlevel.checkpoint()
        raise ReadOnlyError(_CONFIGURED)

    # Directories

    async def open_directory(self, inode: int) -> int:  # noqa: ARG002 that of the port
        """See ``Files``."""
        await trio.lowlevel.checkpoint()
        return next(self._handles)

    async def read_directory(self, handle: int, position: int) -> Iterator[tuple[bytes, Node, int]]:  # noqa: ARG002
        """See ``Files``."""
        await trio.lowlevel.checkpoint()
        entries = ((name, self._hospitals[found].top) for name, found in self._names.items())
        numbered = ((name, node, after) for after, (name, node) in enumerate(entries, 1))
        return itertools.islice(numbered, position, None)

    def directory_of(self, handle: int) -> int:  # noqa: ARG002 that of the port
        """See ``Files``."""
        return ROOT

    def close_directory(self, handle: int) -> None:
        """See ``Files``: nothing is held."""

    # Files: there are none

    async def open_file(self, inode: int) -> int:
        """See ``Files``."""
        await trio.lowlevel.checkpoint()
        return self.open_file_at_once(inode)

    def open_file_at_once(self, inode: int) -> int:
        """See ``Files``."""
        message = f"inode {inode} is a directory"
        raise IsADirectoryFileError(message)

    async def read(self, handle: int, offset: int, length: int) -> bytes:  # noqa: ARG002 that of the port
        """See ``Files``."""
        await trio.lowlevel.checkpoint()
        return b""

    def read_at_once(self, handle: int, offset: int, length: int) -> None:
        """See ``Files``."""

    def header_end(self, handle: int) -> int:  # noqa: ARG002 that of the port
        """See ``Files``."""
        return 0

    def close_file(self, handle: int) -> None:
        """See ``Files``."""

    # Extended attributes and totals

    def attribute_names(self, inode: int) -> Sequence[bytes]:  # noqa: ARG002 that of the port
        """Name none."""
        return ()

    async def attribute(self, inode: int, name: bytes) -> bytes:
        """Tell how each hospital is; there is nothing else to tell."""
        await trio.lowlevel.checkpoint()
        if name != WHY_ATTRIBUTE:
            message = f"inode {inode} has no such extended attribute"
            raise NoSuchAttributeError(message)
        lines = (f"{found}: {self._hospitals[found].health}\n" for found in self._names.values())
        return "".join(lines).encode()

    async def stage(self, inode: int) -> None:  # noqa: ARG002 that of the port
        """Refuse."""
        await trio.lowlevel.checkpoint()
        message = "not everything of all hospitals is staged at once: name a directory below one of them"
        raise NoSuchAttributeError(message)

    async def totals(self) -> Totals:
        """Sum what lies at all hospitals; of one that does not answer, what it last said, or nothing."""
        told: list[Totals] = []

        async def ask(filesystem: FileSystem) -> None:
            known = filesystem.known_totals
            try:
                told.append(await filesystem.totals() if filesystem.is_heard else known)
            except MdmfsError:
                told.append(known)

        async with open_plain_nursery() as nursery:
            for filesystem in self._hospitals.values():
                nursery.start_soon(ask, filesystem)
        return Totals(sum(one.files for one in told), sum(one.size for one in told))
