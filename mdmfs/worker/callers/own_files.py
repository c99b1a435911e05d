"""One principal's files under numbers of his own, on a mount that others use too; nothing is remembered by the kernel.

Directories of the catalogue have one number for all. Somebody may stand in one that another has looked up: then it is
looked up for him, too, from the root, and what he may not see is not there.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from mdmfs.model.errors import CredentialRefusedError, NoSuchFileError, StaleNumberError
from mdmfs.model.names import MAX_NAME_BYTES, Lfn
from mdmfs.wire.messages.files import Node, NodeKind, Totals
from mdmfs.worker.attributes import ACL_ATTRIBUTE
from mdmfs.worker.callers.numbers import own_number, parse_number
from mdmfs.worker.changing import Change
from mdmfs.worker.namespace.names import ROOT
from mdmfs.worker.numbered import FIRST_INODE
from mdmfs.worker.port import Tree
from mdmfs.worker.serving import KernelCache

_HANDLES: Final = 44
"""Bits of a handle that its principal's file system counts; those above say whose it is."""


@dataclasses.dataclass(slots=True)
class _Directory:
    lfn: Lfn
    kernel: int = 0
    """How often the kernel was told of it, by whomever."""
    counts: dict[int, int] = dataclasses.field(default_factory=dict)
    """How often each principal's file system has counted it."""


class Directories:
    """The catalogue's directories that the kernel knows, whoever has looked them up."""

    def __init__(self) -> None:
        self._known: dict[int, _Directory] = {}

    def retain(self, inode: int, lfn: Lfn, principal: int, *, is_told: bool) -> None:
        """Count a lookup by a principal; ``is_told``: the kernel hears of it."""
        known = self._known.setdefault(inode, _Directory(lfn))
        known.lfn = lfn
        known.kernel += is_told
        known.counts[principal] = known.counts.get(principal, 0) + 1

    def lfn(self, inode: int) -> Lfn:
        """Tell what a directory is called; raises ``NoSuchFileError`` for one that nobody has looked up."""
        known = self._known.get(inode)
        if known is None:
            message = f"inode {inode} is not in use"
            raise NoSuchFileError(message)
        return known.lfn

    def forget(self, inode: int, lookups: int) -> dict[int, int]:
        """Take lookups back; gives what each principal has to forget, once the kernel has dropped the directory."""
        known = self._known.get(inode)
        if known is None:
            return {}
        known.kernel -= lookups
        if known.kernel > 0:
            return {}
        del self._known[inode]
        return known.counts

    def leave(self, principal: int) -> None:
        """Know that a principal is served no more."""
        for known in self._known.values():
            known.counts.pop(principal, None)


class OwnFiles:
    """See ``Files``; his trees do the work."""

    def __init__(self, filesystem: Tree, principal: int, directories: Directories) -> None:
        """Serve the ``principal`` of this number."""
        self._filesystem = filesystem
        self._principal = principal
        self._directories = directories
        self.handles = 0
        """That are open, or being opened."""

    # Names and attributes

    async def lookup(self, parent: int, name: bytes) -> Node:
        """See ``Files``."""
        return self._counted(await self._filesystem.lookup(await self._inner(parent), name))

    def lookup_at_once(self, parent: int, name: bytes) -> Node | None:
        """See ``Files``."""
        inner = self._inner_at_once(parent)
        node = None if inner is None else self._filesystem.lookup_at_once(inner, name)
        return None if node is None else self._counted(node)

    def longest_name(self, parent: int) -> int:
        """See ``Files``."""
        inner = self._inner_at_once(parent)
        return MAX_NAME_BYTES if inner is None else self._filesystem.longest_name(inner)

    async def attributes(self, inode: int) -> Node:
        """See ``Files``."""
        return self._outer(await self._filesystem.attributes(await self._inner(inode)))

    def seconds_held(self, node: Node) -> float:  # noqa: ARG002 that of the port
        """Let the kernel ask each time: the next caller may be another."""
        return 0.0

    def target(self, inode: int) -> bytes | None:
        """See ``Files``."""
        inner = self._inner_at_once(inode)
        return None if inner is None else self._filesystem.target(inner)

    def retain(self, parent: int, node: Node) -> None:
        """See ``Files``; the parent is a directory that is being read, and known."""
        inner = self._inner_at_once(parent)
        if inner is not None:
            own = parse_number(node.inode)
            self._filesystem.retain(inner, node if own is None else msgspec.structs.replace(node, inode=own.inode))
            self._count(node)

    async def change_name(self, change: Change) -> Node | None:
        """See ``Files``."""
        node = await self._filesystem.change_name(
            change._replace(
                directory=await self._inner(change.directory),
                new_directory=await self._inner(change.new_directory) if change.new_directory else 0,
            )
        )
        return None if node is None else self._outer(node)

    async def set_comment(self, inode: int, text: bytes) -> None:
        """See ``Files``."""
        await self._filesystem.set_comment(await self._inner(inode), text)

    # Directories

    async def open_directory(self, inode: int) -> int:
        """See ``Files``."""
        with self._opening() as handle_of:
            return handle_of(await self._filesystem.open_directory(await self._inner(inode)))

    async def read_directory(self, handle: int, position: int) -> Iterator[tuple[bytes, Node, int]]:
        """See ``Files``."""
        entries = await self._filesystem.read_directory(_inner_handle(handle), position)
        return ((name, self._outer(node), after) for name, node, after in entries)

    def directory_of(self, handle: int) -> int:
        """See ``Files``."""
        inode = self._filesystem.directory_of(_inner_handle(handle))
        return own_number(self._principal, inode) if inode >= FIRST_INODE else inode

    def close_directory(self, handle: int) -> None:
        """See ``Files``."""
        self.handles -= 1
        self._filesystem.close_directory(_inner_handle(handle))

    # Files

    async def open_file(self, inode: int) -> int:
        """See ``Files``."""
        with self._opening() as handle_of:
            return handle_of(await self._filesystem.open_file(await self._inner(inode)))

    def open_file_at_once(self, inode: int) -> int | None:
        """See ``Files``."""
        inner = self._inner_at_once(inode)
        handle = None if inner is None else self._filesystem.open_file_at_once(inner)
        if handle is None:
            return None
        self.handles += 1
        return self._outer_handle(handle)

    async def read(self, handle: int, offset: int, length: int) -> bytes:
        """See ``Files``."""
        return await self._filesystem.read(_inner_handle(handle), offset, length)

    def read_at_once(self, handle: int, offset: int, length: int) -> memoryview | None:
        """See ``Files``."""
        return self._filesystem.read_at_once(_inner_handle(handle), offset, length)

    def header_end(self, handle: int) -> int:
        """See ``Files``."""
        return self._filesystem.header_end(_inner_handle(handle))

    def close_file(self, handle: int) -> None:
        """See ``Files``."""
        self.handles -= 1
        self._filesystem.close_file(_inner_handle(handle))

    # Extended attributes and totals

    def attribute_names(self, inode: int) -> Sequence[bytes]:
        """See ``Files``; what is not looked up for this principal yet is a directory."""
        inner = self._inner_at_once(inode)
        return (ACL_ATTRIBUTE,) if inner is None else self._filesystem.attribute_names(inner)

    async def attribute(self, inode: int, name: bytes) -> bytes:
        """See ``Files``."""
        return await self._filesystem.attribute(await self._inner(inode), name)

    async def stage(self, inode: int) -> None:
        """See ``Files``."""
        await self._filesystem.stage(await self._inner(inode))

    async def totals(self) -> Totals:
        """See ``Files``."""
        return await self._filesystem.totals()

    def forget(self, inode: int, lookups: int) -> None:
        """Take lookups back, of a number as this principal's file system counts."""
        self._filesystem.forget(inode, lookups)

    # Numbers

    def _inner_at_once(self, number: int) -> int | None:
        """Give the number as the file system counts; None where it has to look the directory up first.

        Raises ``StaleNumberError`` for a number of somebody else's.
        """
        own = parse_number(number)
        if own is None:
            return number if number == ROOT or self._filesystem.knows(number) else None
        if own.principal != self._principal:
            message = "an inode number of another principal"
            raise StaleNumberError(message)
        return own.inode

    async def _inner(self, number: int) -> int:
        inner = self._inner_at_once(number)
        if inner is not None:
            return inner
        lfn, inode, node = self._directories.lfn(number), ROOT, None
        above = self._filesystem.root
        for part in lfn.parts[len(above.parts) :]:
            node = await self._filesystem.lookup(inode, part.encode("utf-8", "surrogateescape"))
            inode, above = node.inode, above / part
            if node.kind is NodeKind.DIRECTORY:
                self._directories.retain(inode, above, self._principal, is_told=False)
        if inode != number:
            message = f"inode {number} is no longer {lfn}"
            raise StaleNumberError(message)
        return inode

    def _outer(self, node: Node) -> Node:
        if _is_shared(node):
            return node
        return msgspec.structs.replace(node, inode=own_number(self._principal, node.inode))

    def _counted(self, node: Node) -> Node:
        self._count(node)
        return self._outer(node)

    def _count(self, node: Node) -> None:
        if _is_shared(node) and node.inode != ROOT:
            lfn = self._filesystem.lfn_of(node.inode)
            self._directories.retain(node.inode, lfn, self._principal, is_told=True)

    @contextlib.contextmanager
    def _opening(self) -> Iterator[Callable[[int], int]]:
        """Count a handle from when it is asked for, so that nobody lets its principal go meanwhile."""
        self.handles += 1
        try:
            yield self._outer_handle
        except BaseException:
            self.handles -= 1
            raise

    def _outer_handle(self, handle: int) -> int:
        return self._principal << _HANDLES | handle


class RootOnly:
    """Answers everybody for the mount point: that there is one. See ``Files``."""

    def __init__(self, root: Lfn) -> None:
        self._node = Node(root.name, ROOT, NodeKind.DIRECTORY, 0, 0.0)

    async def attributes(self, inode: int) -> Node:
        """Give those of the root; of nothing else."""
        if inode != ROOT:
            message = "without a proxy nothing is shown but the mount point"
            raise CredentialRefusedError(message)
        return self._node

    def seconds_held(self, node: Node) -> float:  # noqa: ARG002 that of the port
        """See ``OwnFiles``."""
        return 0.0

    async def totals(self) -> Totals:
        """Count nothing."""
        return Totals(0, 0)


class OwnPages:
    """The kernel's caches as one principal's file system may use them: by his own numbers, and names not at all."""

    def __init__(self, kernel: KernelCache, principal: int) -> None:
        self._kernel = kernel
        self._principal = principal

    def store(self, inode: int, offset: int, octets: memoryview) -> None:
        """See ``Pages``."""
        self._kernel.store(own_number(self._principal, inode), offset, octets)

    def invalidate(self, inode: int, begin: int = 0, end: int | None = None) -> None:
        """See ``Pages``."""
        self._kernel.invalidate(own_number(self._principal, inode), begin, end)

    def meanwhile(self, work: Callable[[], None], *, gives_way: bool = False) -> None:
        """See ``Pages``."""
        self._kernel.meanwhile(work, gives_way=gives_way)

    async def forget_names(self, directory: int, names: list[bytes]) -> None:
        """Take nothing back: the kernel asks for each name each time."""


def principal_of_handle(handle: int) -> int:
    """Tell whose a handle is."""
    return handle >> _HANDLES


def _inner_handle(handle: int) -> int:
    return handle & (1 << _HANDLES) - 1


def _is_shared(node: Node) -> bool:
    return node.kind is NodeKind.DIRECTORY and node.inode < FIRST_INODE
