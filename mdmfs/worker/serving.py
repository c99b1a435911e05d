"""All that serves one principal: his file system, and what keeps it right. A mount has one, or one for each caller."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import trio

from mdmfs.daemon.looks import next_look
from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.model.errors import CredentialRefusedError
from mdmfs.model.names import Lfn
from mdmfs.worker.afterwards import Afterwards
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.changing import Changing
from mdmfs.worker.descriptions import Descriptions
from mdmfs.worker.filesystem import FileSystem, Kernel
from mdmfs.worker.finding.cohort import Places
from mdmfs.worker.finding.federation import Caller, Federation
from mdmfs.worker.finding.files import VirtualFiles
from mdmfs.worker.finding.queries import FIND, FindDirectory
from mdmfs.worker.finding.snapshots import SNAPSHOTS, SnapshotsDirectory
from mdmfs.worker.finding.virtual import Directory, VirtualTree
from mdmfs.worker.hospital.port import Hospital
from mdmfs.worker.keys.ring import KeyRing, KeySource
from mdmfs.worker.lease import Lease
from mdmfs.worker.memory import Memory
from mdmfs.worker.namespace.feed import Feed
from mdmfs.worker.namespace.leavers import Leaver
from mdmfs.worker.namespace.names import ROOT, Namespace
from mdmfs.worker.numbered import Numbered, first_of
from mdmfs.worker.opening import Opener
from mdmfs.worker.port import Tree
from mdmfs.worker.prefetch.siblings import AHEAD_BYTES, SiblingPrefetch
from mdmfs.worker.reading.pages import Pages
from mdmfs.worker.reading.parts import Parts
from mdmfs.worker.trees import VIRTUAL, Hospitals, Trees

EXPIRY_SECONDS: Final = 0.5
FIND_SECONDS: Final = 5.0
"""So long a hospital may take for a page of a query directory."""
LAST_WORD_SECONDS: Final = 2.0
"""For telling the hospital, at the end, what was opened since the last question, and giving the lease back."""


class KernelCache(Pages, Kernel, Protocol):
    """What the kernel remembers on our behalf: pages and names."""


class Ports(NamedTuple):
    """Whom a principal's questions go to at one hospital, with his credential."""

    hospital: Hospital
    keys: Callable[[], KeySource]
    metadata: Callable[[], Mapping[str, Caller]] | None = None
    """The metadata services of the moment; without it there are no query directories."""
    name: str = ""
    """Of the hospital and its directory below the root; empty where a mount has but one."""
    look: Callable[[], bool] | None = None
    """Looks whether the credential has become another; where nobody asks for anything, nothing else does."""
    when_another_follows: Callable[[Callable[[Leaver], None]], None] | None = None
    """Says who is to be told when another's credential takes the place of this one."""


class Site(NamedTuple):
    """One hospital as a mount serves one principal of it."""

    ports: Ports
    cache: CiphertextCache
    lease: Lease


class Branch:
    """What serves one principal of one hospital: with names, keys, cache and lease of its own."""

    def __init__(  # noqa: PLR0913 the parts that it is made of
        self,
        ports: Ports,
        cache: CiphertextCache,
        root: Lfn,
        kernel: KernelCache,
        nursery: trio.Nursery,
        *,
        deadline: float,
        lease: Lease,
        tree: int,
        shown: Lfn,
        memory: Memory,
    ) -> None:
        """``shown`` is all that the mount shows, ``tree`` the number among its trees: 0 for the only hospital."""
        self._nursery = nursery
        self._afterwards = Afterwards(kernel)
        self._cache = cache
        self._lease = lease
        self._ring = KeyRing(ports.keys, deadline=deadline, memory=memory, clock=lease.clock)
        counting = Numbered(ports.hospital, tree) if tree else ports.hospital
        self.places: Places = counting
        namespace = Namespace(counting, root, top=first_of(tree) + ROOT, shown=shown, memory=memory)
        self._namespace = namespace
        self._opener = opener = Opener(
            Parts.around(ports.hospital, cache, self._ring, kernel, nursery, memory),
            deadline=deadline,
            patience=lease.patience,
            may_push=lambda inode: lease.is_held and inode in namespace.inodes,
        )
        self.files = FileSystem(
            ports.hospital,
            namespace,
            Descriptions(ports.hospital),
            opener,
            SiblingPrefetch(opener, nursery, budget=lambda: min(AHEAD_BYTES, cache.limit // 4)),
            kernel,
            changing=Changing(counting, namespace, lease),
            lease=lease,
            afterwards=self._afterwards,
            tree=tree,
        )
        cache.on_full = self._make_room
        self._feed = Feed(counting, namespace, self.files, lease, opener.opens, ports.look)
        if ports.when_another_follows is not None:
            ports.when_another_follows(self._feed.note_leaving)

    def start(self) -> None:
        """Follow the feed, keep the lease, and let shares and files go that were held long enough."""
        self._nursery.start_soon(self._expire)
        self._nursery.start_soon(self._feed.follow)
        self._nursery.start_soon(self._lease.keep, self.files, self._nursery)

    async def tell_last(self, has_gone: Callable[[], bool] | None) -> None:
        """Tell the hospital what was opened since the last question, and give the lease back."""
        await self._feed.tell_last(has_gone)

    def _make_room(self) -> bool:
        """Let go on a full disk what nobody has open, of what has just been closed, too."""
        is_any_left = self._afterwards.is_any_left
        self._afterwards.catch_up()
        return self._opener.make_room() or is_any_left

    async def _expire(self) -> None:
        try:
            while True:
                await next_look(EXPIRY_SECONDS)
                self._afterwards.catch_up()
                self._ring.expire()
                self._opener.expire()
                self._cache.hear()
        finally:
            self._afterwards.catch_up()
            self._opener.let_go()
            self._namespace.let_go()


class Serving:
    """One principal's part of a mount."""

    def __init__(
        self,
        sites: Sequence[Site],
        root: Lfn,
        kernel: KernelCache,
        nursery: trio.Nursery,
        *,
        deadline: float,
        memory: Memory | None = None,
    ) -> None:
        """Put the parts together; nobody is asked before ``start``. The nursery outlives all open files.

        One site shows its catalogue from ``root`` on; several, each with a name, theirs below the root. ``memory`` is
        that of the mount; its own without one.
        """
        memory = memory or Memory()
        is_joined = bool(sites[0].ports.name)
        self._branches = {
            number: Branch(
                site.ports,
                site.cache,
                root / site.ports.name if is_joined else root,
                kernel,
                nursery,
                deadline=deadline,
                lease=site.lease,
                tree=number,
                shown=root,
                memory=memory,
            )
            for number, site in enumerate(sites, int(is_joined))
        }
        catalogues = {number: branch.files for number, branch in self._branches.items()}
        trees: dict[int, Tree] = {**catalogues}
        if is_joined:
            trees[0] = Hospitals({site.ports.name: catalogues[n] for n, site in enumerate(sites, 1)}, root)
        virtual = self._virtual_tree([site.ports for site in sites], nursery, root)
        self.files: Tree = trees[0]
        if is_joined or virtual is not None:
            files = None if virtual is None else VirtualFiles(virtual, catalogues, root, tree=VIRTUAL)
            self.files = Trees(trees, files)

    def start(self) -> None:
        """Follow the feeds and keep the leases of all hospitals."""
        for branch in self._branches.values():
            branch.start()

    async def tell_last(self, has_gone: Callable[[], bool] | None) -> None:
        """Tell the hospitals what was opened since the last question, whatever ends us; not for long.

        Leases are given back where ``has_gone``: else somebody may read on what the kernel has. By then nothing here
        may renew them.
        """
        with trio.CancelScope(deadline=trio.current_time() + LAST_WORD_SECONDS, shield=True):
            async with open_plain_nursery() as nursery:
                for branch in self._branches.values():
                    nursery.start_soon(branch.tell_last, has_gone)

    async def forget_pages(self) -> None:
        """Take back what the kernel has of any file."""
        for branch in self._branches.values():
            await branch.files.forget_pages()

    def _virtual_tree(self, ports: Sequence[Ports], nursery: trio.Nursery, root: Lfn) -> VirtualTree | None:
        """Make what one caller sees beside the catalogues, where there are metadata services to ask."""
        asked = [one.metadata for one in ports if one.metadata is not None]
        if not asked:
            return None
        federation = Federation(functools.partial(_all_of, asked), deadline=FIND_SECONDS)
        top: dict[bytes, Directory] = {
            FIND: FindDirectory(federation, nursery, root),
            SNAPSHOTS: SnapshotsDirectory(federation, self._places_of),
        }
        return VirtualTree(top, ROOT)

    def _places_of(self, series: str) -> Places | None:
        """Tell who knows where the files of a series are: its hospital, if this mount has it."""
        lfn = Lfn.parse(series)
        holders = (one for number, one in self._branches.items() if not number or lfn.is_below(one.files.root))
        holder = next(holders, None)
        return None if holder is None else holder.places


def _all_of(asked: Sequence[Callable[[], Mapping[str, Caller]]]) -> dict[str, Caller]:
    """Give the metadata services of all hospitals; raises why there are none, where no credential is good for any."""
    found: dict[str, Caller] = {}
    refusal: CredentialRefusedError | None = None
    for ask in asked:
        try:
            found |= ask()
        except CredentialRefusedError as error:
            refusal = error
    if refusal is not None and not found:
        raise refusal
    return found
