"""The file system of one hospital: inodes and handles in, values out; no FUSE, no network.

``cat`` or WebDAV could stand on it. What else a mount shows are other trees (``mdmfs.worker.trees``).
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import trio

from mdmfs.model.errors import (
    IsADirectoryFileError,
    MdmfsError,
    NotADirectoryFileError,
)
from mdmfs.model.names import MAX_NAME_BYTES, Guid, Lfn
from mdmfs.wire.messages.files import Node, NodeKind, Totals
from mdmfs.worker.afterwards import Afterwards
from mdmfs.worker.attributes import Attributes, no_attribute
from mdmfs.worker.changing import Change, Changing
from mdmfs.worker.descriptions import Descriptions
from mdmfs.worker.finding.virtual import NAME_SECONDS, PlacedNode, placed_lfn
from mdmfs.worker.hospital.outage import OUTAGES
from mdmfs.worker.hospital.port import Hospital
from mdmfs.worker.hospital.staging import files_below
from mdmfs.worker.lease import Lease
from mdmfs.worker.namespace.listing import OpenDirectory
from mdmfs.worker.namespace.names import Namespace
from mdmfs.worker.numbered import handles_of
from mdmfs.worker.opening import Opener
from mdmfs.worker.prefetch.order import ReadingOrder
from mdmfs.worker.prefetch.siblings import SiblingPrefetch
from mdmfs.worker.reading.open_file import OpenFile

TOTALS_SECONDS: Final = 10.0


class Kernel(Protocol):
    """Who remembers names on our behalf and must be told when they have gone."""

    async def forget_names(self, directory: int, names: list[bytes]) -> None:
        """Forget entries of a directory that are no longer what they were."""


class FileSystem:
    """One hospital's files and directories. Every error is an ``MdmfsError``."""

    def __init__(  # noqa: PLR0913 the parts that a file system is made of
        self,
        hospital: Hospital,
        namespace: Namespace,
        descriptions: Descriptions,
        opener: Opener,
        prefetch: SiblingPrefetch,
        kernel: Kernel,
        *,
        changing: Changing,
        lease: Lease,
        afterwards: Afterwards,
        tree: int = 0,
    ) -> None:
        """``tree`` is which one of a mount's it is."""
        self._lease = lease
        self._afterwards = afterwards
        self._hospital = hospital
        self._namespace = namespace
        self._attributes = Attributes(hospital, namespace.inodes, descriptions, opener.story)
        self._opener = opener
        self._prefetch = prefetch
        self._kernel = kernel
        self._changing = changing
        self._handles = handles_of(tree)
        self._directories: dict[int, OpenDirectory] = {}
        self._files: dict[int, OpenFile] = {}
        self._reads: defaultdict[int, list[range]] = defaultdict(list)
        """What is being read, or waits, by inode."""
        self._totals: tuple[Totals, float] | None = None
        self._order = ReadingOrder()

    # Names and attributes

    async def lookup(self, parent: int, name: bytes) -> Node:
        """Find an entry of a directory and count the kernel's lookup; raises ``NoSuchFileError``."""
        node = await self._lease.held(lambda: self._namespace.lookup(parent, name))
        self.retain(parent, node)
        return node

    def longest_name(self, parent: int) -> int:  # noqa: ARG002 that of the port
        """Tell how many bytes a name in a directory has at most."""
        return MAX_NAME_BYTES

    def lookup_at_once(self, parent: int, name: bytes) -> Node | None:
        """Look up as ``lookup`` does, where nothing has to be waited for; else None, and nothing is counted."""
        node = self._namespace.lookup_at_once(parent, name) if self._lease.is_held else None
        if node is not None:
            self.retain(parent, node)
        return node

    async def attributes(self, inode: int) -> Node:
        """Give the attributes of an inode in use; those of the root to everybody at any time."""
        if inode != self._namespace.top:
            await self._lease.wait()
        return self._node(inode)

    def knows(self, inode: int) -> bool:
        """Ask whether an inode of the catalogue is in use."""
        return inode in self._namespace.inodes

    @property
    def root(self) -> Lfn:
        """What is shown."""
        return self._namespace.root

    @property
    def top(self) -> Node:
        """The root's attributes, as they were last heard."""
        return self._node(self._namespace.top)

    @property
    def health(self) -> str:
        """In one line, whether the hospital answers, and why not."""
        return self._lease.health

    @property
    def is_heard(self) -> bool:
        """Whether the hospital was heard, so lately that it can be asked."""
        return self._lease.is_held

    def lfn_of(self, inode: int) -> Lfn:
        """Tell under which name an inode of the catalogue was last seen; raises ``NoSuchFileError``."""
        return self._namespace.inodes.lfn_of(inode)

    def seconds_held(self, node: Node) -> float:
        """Tell for how long the name and attributes of an entry that are told now may be remembered."""
        left = self._lease.seconds_left()
        return min(NAME_SECONDS, left) if isinstance(node, PlacedNode) else left

    def target(self, inode: int) -> bytes | None:
        """Give where a symbolic link leads; None for what is none."""
        path = self._namespace.link(inode)
        return None if path is None else path.encode()

    def _node(self, inode: int) -> Node:
        return self._namespace.inodes.of(inode).node

    def retain(self, parent: int, node: Node) -> None:
        """Count a lookup of an entry that the kernel was told of."""
        if isinstance(node, PlacedNode):
            self._namespace.retain_placed(node, placed_lfn(node), node.above)
            return
        lfn = self._namespace.inodes.of(parent).lfn
        if lfn is None:
            message = f"inode {parent} is a file and has no entries"
            raise NotADirectoryFileError(message)
        self._namespace.inodes.retain(node, parent, lfn)

    def forget(self, inode: int, lookups: int) -> None:
        """Take lookups back."""
        self._afterwards.catch_up()
        if self._namespace.forget(inode, lookups):
            self._opener.forget(inode)

    async def change_name(self, change: Change) -> Node | None:
        """Make a change, see ``Changing``; the kernel counts no lookup by it."""
        return await self._changing.change(change)

    async def set_comment(self, inode: int, text: bytes) -> None:
        """Say something of a file or directory; an empty text takes back what was said."""
        if not text and not self._node(inode).is_commented:
            raise no_attribute(inode)
        await self._changing.comment(inode, self.lfn_of(inode), text)

    # Directories

    async def open_directory(self, inode: int) -> int:
        """Open a directory and give a handle."""
        handle = next(self._handles)
        listing = await self._lease.held(lambda: self._namespace.listing(inode))
        self._directories[handle] = OpenDirectory(inode, trio.current_time(), listing)
        return handle

    async def read_directory(self, handle: int, position: int) -> Iterator[tuple[bytes, Node, int]]:
        """Give the entries behind a position: name, attributes and the position after it.

        A handle shows the directory as it was when reading it began; position 0 begins again, like ``rewinddir``.
        """
        opened = self._directories[handle]
        self._namespace.note_shown(opened.inode)
        await self._lease.wait()
        if position == 0 or opened.listing is not None:
            listing, opened.listing = opened.listing, None
            if listing is None or not self._namespace.has_just_come(opened.inode, listing):
                listing = await self._lease.held(lambda: self._namespace.listing(opened.inode))
            opened.nodes = listing.in_order
        return opened.entries(position)

    def directory_of(self, handle: int) -> int:
        """Give the inode that a handle of a directory was opened for."""
        return self._directories[handle].inode

    def close_directory(self, handle: int) -> None:
        """End a handle."""
        closed = self._directories.pop(handle)
        self._prefetch.note_closed(closed.inode, closed.opened)

    # Files

    async def open_file(self, inode: int) -> int:
        """Open a file and give a handle; when this returns, its first bytes can be read at once."""
        await self._lease.wait()
        node = self._file(inode)
        self._afterwards.catch_up()
        siblings, note, is_in_order = self._siblings(inode, node)
        opened = await self._lease.held(lambda: self._opened(node, siblings, note, is_in_order=is_in_order))
        handle = next(self._handles)
        self._files[handle] = opened
        return handle

    async def _opened(
        self, node: Node, siblings: Sequence[Node], note: Callable[[], None] | None, *, is_in_order: bool
    ) -> OpenFile:
        """Open a file under the lease; one that has lapsed meanwhile takes the open back, and it is asked again."""
        opened = await self._opener.open(node, siblings, on_body=note, is_in_order=is_in_order)
        if not self._lease.is_held:
            self._opener.close(opened)
        return opened

    def open_file_at_once(self, inode: int) -> int | None:
        """Open a file as ``open_file`` does, where nothing has to be waited for; else None, and no handle is given."""
        node = self._file(inode)
        if not self._lease.is_held:
            return None
        file = self._opener.open_again(node)
        if file is not None:
            self._afterwards.add_soon(functools.partial(self._follow, file, node))
        else:
            self._afterwards.catch_up()
            siblings, note, is_in_order = self._siblings(inode, node)
            file = self._opener.open_at_once(node, siblings, on_body=note, is_in_order=is_in_order)
        if file is None:
            return None
        handle = next(self._handles)
        self._files[handle] = file
        return handle

    def _follow(self, file: OpenFile, node: Node) -> None:
        """Get ready for what is opened after a file that was at hand."""
        siblings, note, is_in_order = self._siblings(file.inode, node)
        if self._lease.is_held and not file.is_broken:
            self._opener.follow(file, siblings, on_body=note, is_in_order=is_in_order)

    async def read(self, handle: int, offset: int, length: int) -> bytes:
        """Give plaintext, short at the end of the file only."""
        opened, wanted = self._files[handle], range(offset, offset + length)
        if not self._lease.is_held:
            opened.refuse_failed()  # the kernel repeats a READ that failed: it shall not wait as long again
        reads = self._reads[opened.inode]
        reads.append(wanted)
        try:
            return await self._lease.held(lambda: self._opener.read(opened, offset, length), patience=0.0)
        finally:
            reads.remove(wanted)
            if not reads:
                self._reads.pop(opened.inode, None)

    def read_at_once(self, handle: int, offset: int, length: int) -> memoryview | None:
        """Read as ``read``, where nothing has to be waited for; else None. Good until the next step of the loop."""
        return self._opener.read_at_once(self._files[handle], offset, length) if self._lease.is_held else None

    def header_end(self, handle: int) -> int:
        """Tell up to which byte a file can be read of which nothing but the header was asked for; 0 of any other."""
        return self._files[handle].header_end

    def close_file(self, handle: int) -> None:
        """End a handle. Who closes a header opens the next one at once, and does not wait for what is done of this."""
        file = self._files.pop(handle)
        leave = self._afterwards.add if file.is_header_only else self._afterwards.add_soon
        leave(functools.partial(self._opener.close, file))

    def _file(self, inode: int) -> Node:
        node = self._namespace.inodes.of(inode).node
        if node.kind is not NodeKind.FILE:
            message = f"inode {inode} is no file"
            raise IsADirectoryFileError(message)
        return node

    def _siblings(self, inode: int, node: Node) -> tuple[Sequence[Node], Callable[[], None] | None, bool]:
        """Name the files that are probably opened next, and tell whether the first of them is next.

        Between the two comes what is to be called when more than the header of this one is wanted: then theirs are
        fetched ahead whole.
        """
        parent = self._namespace.inodes.of(inode).parent
        listing = self._namespace.held(parent)
        place = self._order.note(node, parent, listing)
        if listing is None or place is None:
            return (), None, False
        note = functools.partial(self._prefetch.note_open, parent, listing.in_order, place.position)
        return place.siblings, note, place.is_in_order

    # Extended attributes and totals

    def attribute_names(self, inode: int) -> Sequence[bytes]:
        """Name the extended attributes."""
        return self._attributes.names(inode)

    async def attribute(self, inode: int, name: bytes) -> bytes:
        """Give an extended attribute."""
        return await self._lease.held(lambda: self._attributes.of(inode, name))

    async def stage(self, inode: int) -> None:
        """Have a file, or all files below a directory, brought online; returns when that is asked for."""
        await self._lease.held(lambda: self._stage(inode))

    async def _stage(self, inode: int) -> None:
        node = self._node(inode)
        if node.kind is NodeKind.FILE:
            guids = [Guid(node.guid)]
        else:
            guids = [Guid(found.node.guid) for found in await files_below(self._hospital, self.lfn_of(inode))]
        await self._hospital.stage(guids)

    @property
    def known_totals(self) -> Totals:
        """What was counted last; nothing before the first time."""
        return Totals(0, 0) if self._totals is None else self._totals[0]

    async def totals(self) -> Totals:
        """Count what lies below the root, as of 10 s ago; of an older answer when the hospital gives none."""
        known = self._totals
        if known is not None and trio.current_time() < known[1]:
            return known[0]
        try:
            totals = await self._hospital.totals(self._namespace.root)
        except OUTAGES:
            if known is None:
                raise
            totals = known[0]
        self._totals = totals, trio.current_time() + TOTALS_SECONDS
        return totals

    # What the feed tells

    async def forget_names(self, directory: int, names: list[bytes]) -> None:
        """Let the kernel forget entries that are no longer what they were."""
        await self._kernel.forget_names(directory, names)

    def bar(self, inode: int) -> None:
        """Mark a file as one that nobody may read on."""
        self._opener.bar(inode, self._forgotten(inode))

    async def revoke(self, inode: int) -> None:
        """Stop everyone who reads a file."""
        await self._opener.revoke(inode, self._forgotten(inode))

    def forget_shares(self) -> None:
        """Drop the shares of files that nobody has open: they came along with those of siblings."""
        self._opener.forget_shares()

    def _forgotten(self, inode: int) -> Guid | None:
        """Forget what the hospital said of a file; gives its GUID, if it is in use."""
        try:
            octets = self._node(inode).guid
        except MdmfsError:
            octets = b""
        guid = Guid(octets) if octets else None
        if guid is not None:
            self._attributes.forget(guid)
        return guid

    async def revoke_all(self) -> None:
        """Let everyone who reads anything do so by new keys only: what has gone is not known."""
        self.suspend()
        self.resume()
        await self.forget_pages()

    # What the lease tells

    def suspend(self) -> None:
        """Let keys go, and no page come."""
        self._opener.suspend()

    def resume(self) -> None:
        """Get keys again for those who wait; the keystores decide anew."""
        self._opener.resume()

    async def forget_pages(self) -> None:
        """Take back what the kernel has of any file."""
        await self._opener.forget_pages(self._reads)

    async def forget_everything(self) -> None:
        """Take back pages and names: nobody waits here, each question is refused."""
        await self.forget_pages()
        for inode, listing in self._namespace.all_held():
            await self._kernel.forget_names(inode, list(listing.names))
