"""The virtual directories as a tree of a mount: what a request may be answered from beside the catalogue."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NoReturn

import trio

from mdmfs.model.errors import (
    IsADirectoryFileError,
    MalformedMessageError,
    NoSuchAttributeError,
    NoSuchFileError,
    ReadOnlyError,
    again,
)
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.files import Node, Totals
from mdmfs.worker.attributes import WHY_ATTRIBUTE
from mdmfs.worker.changing import Change
from mdmfs.worker.finding.virtual import (
    NAME_SECONDS,
    Gone,
    Link,
    Reading,
    Text,
    VirtualNode,
    VirtualTree,
    begun,
)
from mdmfs.worker.numbered import handles_of, tree_of
from mdmfs.worker.port import Tree

_FOUND: Final = "query directories and snapshots are read-only"
MAX_QUERY_BYTES: Final = 1024
"""Of a query as a name: FUSE passes no longer one on (FUSE_NAME_MAX)."""


class VirtualFiles:
    """See ``Tree``. Nobody's lease is needed here: who gives an answer decides by it."""

    def __init__(self, names: VirtualTree, catalogues: Mapping[int, Tree], root: Lfn, *, tree: int) -> None:
        """``catalogues`` have the files that stand here under other names, by the numbers of their trees."""
        self.root = root
        self._names = names
        self._catalogues = catalogues
        self._handles = handles_of(tree)
        self._readings: dict[int, Reading] = {}
        self._texts: dict[int, bytes] = {}

    def has(self, parent: int, name: bytes) -> bool:
        """Ask whether an entry of a directory is looked for here."""
        return self._names.has(parent, name)

    # Names and attributes

    async def lookup(self, parent: int, name: bytes) -> Node:
        """See ``Files``; raises ``MalformedQueryError``, and what asking raises."""
        node = await self._names.look_up(parent, name)
        self.retain(parent, node)
        return node

    def lookup_at_once(self, parent: int, name: bytes) -> None:
        """Ask each time."""

    def longest_name(self, parent: int) -> int:  # noqa: ARG002 that of the port
        """Tell that a query may be long."""
        return MAX_QUERY_BYTES

    async def attributes(self, inode: int) -> Node:
        """See ``Files``."""
        await trio.lowlevel.checkpoint()
        return self._names.node(inode)

    def seconds_held(self, node: Node) -> float:  # noqa: ARG002 that of the port
        """See ``Files``."""
        return NAME_SECONDS

    def target(self, inode: int) -> bytes | None:
        """See ``Files``."""
        entry = self._names.node(inode).entry
        return entry.target.encode() if isinstance(entry, Link) else None

    def retain(self, parent: int, node: Node) -> None:
        """Count a lookup: of a file of a catalogue there, of what is ours here."""
        if isinstance(node, VirtualNode):
            self._names.retain(parent, node)
            return
        catalogue = self._catalogues.get(tree_of(node.inode))
        if catalogue is None:
            message = f"a hospital calls a file {node.inode}, which is no number of a file"
            raise MalformedMessageError(message)
        catalogue.retain(parent, node)

    def forget(self, inode: int, lookups: int) -> None:
        """Take lookups back."""
        self._names.forget(inode, lookups)

    def knows(self, inode: int) -> bool:
        """Ask whether an inode is in use."""
        try:
            self._names.node(inode)
        except NoSuchFileError:
            return False
        return True

    def lfn_of(self, inode: int) -> Lfn:
        """Tell that nothing here has an LFN."""
        message = f"inode {inode} is not in the catalogue"
        raise NoSuchFileError(message)

    async def change_name(self, change: Change) -> NoReturn:  # noqa: ARG002 that of the port
        """Refuse: what is here is found or frozen."""
        await trio.lowlevel.checkpoint()
        raise ReadOnlyError(_FOUND)

    async def set_comment(self, inode: int, text: bytes) -> NoReturn:  # noqa: ARG002 that of the port
        """Refuse."""
        await trio.lowlevel.checkpoint()
        raise ReadOnlyError(_FOUND)

    # Directories

    async def open_directory(self, inode: int) -> int:
        """Open a directory and give a handle."""
        reading = await begun(self._names, inode)
        handle = next(self._handles)
        self._readings[handle] = reading
        return handle

    async def read_directory(self, handle: int, position: int) -> Iterator[tuple[bytes, Node, int]]:
        """See ``Files``."""
        reading = self._readings[handle]
        entries = await reading.entries(position)
        nodes = (self._names.node_of(reading.inode, name, entry) for name, entry in entries)
        return ((name, node, place) for (name, _), node, place in zip(entries, nodes, itertools.count(position + 1)))

    def directory_of(self, handle: int) -> int:
        """Give the inode that a handle was opened for."""
        return self._readings[handle].inode

    def close_directory(self, handle: int) -> None:
        """End a handle."""
        self._readings.pop(handle).close()

    # Files

    async def open_file(self, inode: int) -> int:
        """Open a text and give a handle."""
        await trio.lowlevel.checkpoint()
        return self.open_file_at_once(inode)

    def open_file_at_once(self, inode: int) -> int:
        """Open a text; raises why a file is no more."""
        entry = self._names.node(inode).entry
        if isinstance(entry, Gone):
            raise again(entry.why)
        if not isinstance(entry, Text):
            message = f"inode {inode} is no file"
            raise IsADirectoryFileError(message)
        handle = next(self._handles)
        self._texts[handle] = entry.octets
        return handle

    async def read(self, handle: int, offset: int, length: int) -> bytes:
        """Give a part of a text."""
        await trio.lowlevel.checkpoint()
        return self._texts[handle][offset : offset + length]

    def read_at_once(self, handle: int, offset: int, length: int) -> memoryview:
        """Give a part of a text."""
        return memoryview(self._texts[handle])[offset : offset + length]

    def header_end(self, handle: int) -> int:  # noqa: ARG002 that of the port
        """Tell that a text is no image."""
        return 0

    def close_file(self, handle: int) -> None:
        """End a handle."""
        del self._texts[handle]

    # Extended attributes and totals

    def attribute_names(self, inode: int) -> Sequence[bytes]:  # noqa: ARG002 that of the port
        """Name none."""
        return ()

    async def attribute(self, inode: int, name: bytes) -> bytes:
        """Tell why a file is no more; there is nothing else to tell."""
        await trio.lowlevel.checkpoint()
        entry = self._names.node(inode).entry
        if name == WHY_ATTRIBUTE and isinstance(entry, Gone):
            return str(entry.why).encode()
        message = f"inode {inode} has no such extended attribute"
        raise NoSuchAttributeError(message)

    async def stage(self, inode: int) -> None:  # noqa: ARG002 that of the port
        """Refuse."""
        await trio.lowlevel.checkpoint()
        message = "a query directory is not staged as a whole: stage what its links lead to"
        raise NoSuchAttributeError(message)

    async def totals(self) -> Totals:
        """Count nothing: what is here is counted where it lies."""
        await trio.lowlevel.checkpoint()
        return Totals(0, 0)
