"""The namespace of a mount: listings fetched once for all who wait, kept until the feed or time says otherwise."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec
import trio

from mdmfs.model.errors import (
    AccessDeniedError,
    MalformedMessageError,
    NoSuchFileError,
    NotADirectoryFileError,
)
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.files import Changes, DirectoryPage, Node, NodeKind
from mdmfs.worker.aliases import path_to
from mdmfs.worker.hospital.outage import OUTAGES
from mdmfs.worker.memory import Held, Memory
from mdmfs.worker.namespace.fetches import Fetches
from mdmfs.worker.namespace.inodes import Inodes
from mdmfs.worker.namespace.listing import Listing, last_name, nodes_by_name, shared, target_of

ROOT: Final = 1
"""What FUSE calls the root of a mount, whatever the catalogue's number of that directory is."""
TTL: Final = 60.0
"""Seconds for which a listing is believed while no feed is followed."""
RETRY_SECONDS: Final = 5.0
"""How long a hospital that did not answer is not asked again for what is still here, if outdated."""
MOMENT: Final = 1.0
"""Seconds between opening a directory and beginning to read it for which one copy serves both."""
ENTRY_BYTES: Final = 500
"""What an entry takes in memory, with its name, and without what an alias leads to."""
MAX_BYTES: Final = 1_000_000 * ENTRY_BYTES
"""Of one listing."""
MAX_FRESH: Final = 10_000
"""Changes of our own that are kept beside a listing: putting them in copies all of it."""

_WRONG: Final = -2
"""The version of a copy that nobody believes any more, not even in an outage."""
_DECIDED: Final = (NoSuchFileError, NotADirectoryFileError, AccessDeniedError)
"""Answers that take a directory away. An expired proxy or a fault of the hospital does not: nobody's job ends by it."""


class Directories(Protocol):
    """What is needed of ``mdmfs.worker.hospital.Hospital``."""

    async def list_directory(self, lfn: Lfn, after: str) -> DirectoryPage:
        """Give the page of a directory that follows the name ``after``; the first follows the empty one."""


class Replaced(NamedTuple):
    """A listing that is no longer right, and the one after it; None where the directory cannot be listed any more.

    One that was let go to make room has itself after it: what the feed will tell of it has to be no news to the kernel.
    """

    inode: int
    before: Listing
    after: Listing | None


class Namespace:
    """The directories in use below one LFN, by the inode numbers that the kernel sees."""

    def __init__(
        self,
        hospital: Directories,
        root: Lfn,
        *,
        top: int = ROOT,
        shown: Lfn | None = None,
        memory: Memory | None = None,
    ) -> None:
        """``top`` is what the kernel calls the directory ``root``; ``shown`` is all that the mount shows.

        ``memory`` is that of the mount; its own without one.
        """
        self.root = root
        self.shown = root if shown is None else shown
        self.top = top
        self.is_followed = False
        """Whether a feed tells what changes; without one, listings age."""
        self.inodes = Inodes(Node(root.name, top, NodeKind.DIRECTORY, 0, 0.0), root)
        self._hospital = hospital
        self._memory = memory or Memory()
        self._listings: dict[int, Listing] = {}
        self._held: dict[int, Held] = {}
        """What each of them takes."""
        self._fresh: dict[int, dict[bytes, Node | None]] = {}
        """What changes of our own made of entries since a listing was taken, by directory; None: they went."""
        self._outdated: dict[int, int] = {}
        self._reset_version = -1
        self._fetches: dict[int, Fetches] = {}
        self._root_number = top
        self._quiet_until = float("-inf")
        self._tell_replaced, self.replaced = trio.open_memory_channel[Replaced](float("inf"))
        """Every listing that a newer one, or an error, has taken the place of: what the kernel knows of it is old."""

    async def lookup(self, parent: int, name: bytes) -> Node:
        """Find an entry; raises ``NoSuchFileError`` where a directory does not have it, and what ``listing`` raises."""
        listing = self._valid(parent) or await self.listing(parent)
        node = self._entry(parent, listing, name)
        if node is None:
            message = f"there is no such entry in {listing.lfn}"
            raise NoSuchFileError(message)
        return node

    def lookup_at_once(self, parent: int, name: bytes) -> Node | None:
        """Find an entry in a listing that is here and right; None where there is none, of either."""
        listing = self._valid(parent)
        return None if listing is None else self._entry(parent, listing, name)

    async def listing(self, inode: int) -> Listing:
        """Give a directory whole, as it was at the call or later.

        With the hospital out of reach an outdated copy serves, where there is one.
        """
        if self._valid(inode) is not None:
            return self._merged(inode, self._listings[inode])
        fetches = self._fetches.setdefault(inode, Fetches())
        begun = fetches.begun
        fetches.asking += 1
        try:
            async with fetches.turn:
                if fetches.is_answered(begun) or self._valid(inode) is not None:
                    copy = self.held(inode)
                    if copy is not None:
                        return copy
                while True:
                    with fetches.fetch() as number:
                        listing = await self._renew(inode, lambda: fetches.begun == number)
                    if listing is not None:
                        return listing
        finally:
            fetches.asking -= 1
            if not fetches.asking:
                del self._fetches[inode]

    async def refresh(self, inode: int) -> bool:
        """Fetch a copy anew that is not right any more; False where the hospital was out of reach for that.

        Our own changes stay beside one that is right, without a copy of all.
        """
        outdated = self._listings.get(inode)
        if outdated is None or self._valid(inode) is not None:
            return True
        if trio.current_time() < self._quiet_until:
            return False
        return (await self.listing(inode)).taken > outdated.taken

    def has_just_come(self, inode: int, listing: Listing) -> bool:
        """Ask whether a copy is still the one that is here, and came a moment ago; what changed since, it may lack."""
        return self._listings.get(inode) is listing and trio.current_time() < listing.taken + MOMENT

    def let_go(self) -> None:
        """Let all copies go."""
        for inode in list(self._listings):
            self._let_go(inode)

    def note_shown(self, inode: int) -> None:
        """Know that the kernel is just being told of a directory's entries."""
        held = self._held.get(inode)
        if held is not None:
            self._memory.touch(held)

    def held(self, inode: int) -> Listing | None:
        """Give the copy of a directory that is here, outdated or not, and ask nobody."""
        listing = self._listings.get(inode)
        return None if listing is None else self._merged(inode, listing)

    def all_held(self) -> list[tuple[int, Listing]]:
        """Give all copies of directories that are here, by inode."""
        return [(inode, self._merged(inode, listing)) for inode, listing in list(self._listings.items())]

    # Changes of our own

    def version_held(self, inode: int) -> int | None:
        """Tell which version of the feed the copy of a directory shows; None where there is none that is right."""
        listing = self._valid(inode)
        return None if listing is None else listing.version

    def note_change(self, inode: int, entries: Mapping[bytes, Node | None], version: int, *, shown: int | None) -> None:
        """Know what a change of our own made of a directory; None went.

        The copy that is here is right with it if it still shows the version ``shown``, else it is fetched again.
        """
        above = self.inodes.of(inode).lfn
        for node in entries.values():
            if node is not None and above is not None:
                self.inodes.renew(node, inode, above)
        if inode in self._listings or inode in self._fetches:
            self._outdated[inode] = max(version, self._outdated.get(inode, -1))
        listing = self._listings.get(inode)
        if listing is None or listing.version != shown:
            return
        self._listings[inode] = dataclasses.replace(listing, version=version)
        fresh = self._fresh.setdefault(inode, {})
        fresh.update(entries)
        if len(fresh) > MAX_FRESH:
            self._merged(inode, self._listings[inode])

    def places_of(self, inode: int) -> list[tuple[int, bytes]]:
        """Give the directory and the name of an entry; none for the top, and for a file known by a virtual name."""
        known = self.inodes.of(inode)
        is_known_by_lfn = known.node.kind is not NodeKind.DIRECTORY and known.lfn is not None
        if inode == self.top or is_known_by_lfn or known.parent not in self.inodes:
            return []
        return [(known.parent, known.node.name.encode())]

    def note_comment(self, inode: int, *, is_commented: bool) -> None:
        """Know that something was said of an inode, or taken back."""
        if inode in self.inodes:
            self.inodes.renew(msgspec.structs.replace(self.inodes.of(inode).node, is_commented=is_commented))

    def shown_as(self, node: Node, directory: int) -> Node:
        """Give an entry as this mount shows it: an alias has the size of the path that it leads by."""
        above = self.inodes.of(directory).lfn
        return node if above is None else self._shown_in(node, above)

    def link(self, inode: int) -> str | None:
        """Give the path by which an alias leads; None for what is none."""
        known = self.inodes.of(inode)
        above = self.inodes.of(known.parent).lfn
        if known.node.kind is not NodeKind.LINK or above is None:
            return None
        return path_to(target_of(known.node), above, self.shown)

    def _shown_in(self, node: Node, directory: Lfn) -> Node:
        if node.kind is not NodeKind.LINK:
            return node
        return msgspec.structs.replace(node, size=len(path_to(target_of(node), directory, self.shown).encode()))

    def _entry(self, inode: int, listing: Listing, name: bytes) -> Node | None:
        fresh = self._fresh.get(inode)
        return fresh[name] if fresh is not None and name in fresh else listing.nodes.get(name)

    def _merged(self, inode: int, listing: Listing) -> Listing:
        """Give a copy with our own changes in it."""
        fresh = self._fresh.pop(inode, None)
        if fresh is None:
            return listing
        changed = {**listing.nodes, **fresh}
        nodes = {name: node for name in sorted(changed) if (node := changed[name]) is not None}
        merged = dataclasses.replace(listing, names=tuple(nodes), in_order=tuple(nodes.values()), nodes=nodes)
        self._listings[inode] = merged
        return merged

    def apply(self, changes: Changes) -> list[int]:
        """Note what the feed says; gives the directories that are now outdated here."""
        self._quiet_until = float("-inf")  # that was an answer
        if changes.is_reset:
            self._reset_version = changes.version
            self._outdated.clear()  # by versions that may be of a history that was lost, and higher than any to come
            for inode, listing in self._listings.items():  # also of this very version: who asks may be another now
                self._listings[inode] = dataclasses.replace(listing, version=_WRONG)
            for fetches in self._fetches.values():
                fetches.disown()
            return list(self._listings)
        inodes = [self._seen(number) for number in changes.directories]
        for inode in inodes:
            # a directory that is neither here nor on its way needs no note
            if inode in self._listings or inode in self._fetches:
                self._outdated[inode] = changes.version
        return [inode for inode in inodes if inode in self._listings]

    def lose(self, numbers: Iterable[int]) -> list[int]:
        """Drop directories and all below them, which the caller may no longer see; gives the files in use there."""
        below = self.inodes.below({self._seen(number) for number in numbers})
        for inode in below:
            if inode in self._fetches:
                self._fetches[inode].disown()
            listing = self.held(inode)
            if listing is not None:
                self._let_go(inode)
                self._tell_replaced.send_nowait(Replaced(inode, listing, None))
        return [inode for inode in below if self.inodes.of(inode).node.kind is NodeKind.FILE]

    def files_of(self, numbers: Iterable[int]) -> list[int]:
        """Name the files in use directly in some directories."""
        return self.inodes.files_in({self._seen(number) for number in numbers})

    def retain_placed(self, node: Node, lfn: Lfn, above: Sequence[int]) -> None:
        """Count a lookup of a file by a virtual name; ``above`` are the catalogue's numbers of its directories."""
        self.inodes.retain_placed(node, lfn, [self._seen(number) for number in above])

    def forget(self, inode: int, lookups: int) -> bool:
        """Take lookups back; a directory's listing goes with its inode. True where the inode is no longer in use."""
        is_gone = self.inodes.forget(inode, lookups)
        if is_gone:
            self._let_go(inode)
        return is_gone

    def _valid(self, inode: int) -> Listing | None:
        listing = self._listings.get(inode)
        if listing is None or listing.version < max(self._outdated.get(inode, -1), self._reset_version):
            return None
        if not self.inodes.is_called(inode, listing.lfn):
            return None  # it was moved since: its aliases are shown by other paths
        if not self.is_followed and trio.current_time() > listing.taken + TTL:
            return None
        self._memory.touch(self._held[inode])
        return listing

    async def _renew(self, inode: int, is_ours: Callable[[], bool]) -> Listing | None:
        """Fetch a copy and keep it; None for one that is not ``is_ours`` by then: it may show what has been lost."""
        outdated = self.held(inode)
        serving = None if outdated is None or outdated.version == _WRONG else outdated
        if serving is not None and trio.current_time() < self._quiet_until:
            return serving
        try:
            listing = await self._fetch(inode, {} if outdated is None else outdated.nodes)
        except OUTAGES:
            self._quiet_until = trio.current_time() + RETRY_SECONDS
            if serving is None:
                raise
            return serving if is_ours() else None
        except _DECIDED:
            self._let_go(inode)
            if outdated is not None:
                self._tell_replaced.send_nowait(Replaced(inode, outdated, None))
            raise
        if not is_ours():
            return None
        self._keep(inode, listing)
        if outdated is not None:
            self._tell_replaced.send_nowait(Replaced(inode, outdated, listing))
        return listing

    async def _fetch(self, inode: int, before: Mapping[bytes, Node]) -> Listing:
        known = self.inodes.of(inode)
        if known.lfn is None:
            message = f"{known.node.name} is a file, not a directory"
            raise NotADirectoryFileError(message)
        path = known.lfn
        page = await self._hospital.list_directory(path, "")
        directory, version, nodes = page.directory, page.version, self._nodes_of(page, path, before)
        if directory.kind is not NodeKind.DIRECTORY:
            message = f"the hospital lists {path} as what is no directory"
            raise MalformedMessageError(message)
        octets = _octets_of(page)
        while not page.is_last:
            page = await self._hospital.list_directory(path, last_name(page, path))
            count = len(nodes)
            nodes.update(self._nodes_of(page, path, before))
            octets += _octets_of(page)
            if count == len(nodes) or octets > MAX_BYTES:
                message = f"the hospital lists {path} without an end"
                raise MalformedMessageError(message)
            version = min(version, page.version)
        if inode == self.top:
            self._root_number = directory.inode
            directory = msgspec.structs.replace(directory, inode=inode)
        return Listing(path, directory, tuple(nodes), tuple(nodes.values()), nodes, version, trio.current_time())

    def _nodes_of(self, page: DirectoryPage, path: Lfn, before: Mapping[bytes, Node]) -> dict[bytes, Node]:
        return shared(nodes_by_name((self._shown_in(node, path) for node in page.entries), path), before)

    def _keep(self, inode: int, listing: Listing) -> None:
        self._fresh.pop(inode, None)
        self._listings[inode] = listing
        self._release(inode)
        octets = ENTRY_BYTES * (1 + len(listing.names))
        self._held[inode] = self._memory.hold(octets, functools.partial(self._make_room, inode))
        if self._outdated.get(inode, -1) <= listing.version:
            self._outdated.pop(inode, None)
        self.inodes.renew(listing.directory)
        for node in listing.nodes.values():
            self.inodes.renew(node, inode, listing.lfn)

    def _make_room(self, inode: int) -> None:
        listing = self._listings[inode]
        self._let_go(inode)
        self._tell_replaced.send_nowait(Replaced(inode, listing, listing))

    def _let_go(self, inode: int) -> None:
        self._listings.pop(inode, None)
        self._fresh.pop(inode, None)
        self._release(inode)

    def _release(self, inode: int) -> None:
        held = self._held.pop(inode, None)
        if held is not None:
            self._memory.release(held)

    def _seen(self, number: int) -> int:
        return self.top if number == self._root_number else number


def _octets_of(page: DirectoryPage) -> int:
    return sum(ENTRY_BYTES + len(node.target) for node in page.entries)
