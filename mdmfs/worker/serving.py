"""All that serves one principal: his file system, and what keeps it right. A mount has one, or one for each caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

import trio

from mdmfs.model.names import Lfn
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.descriptions import Descriptions
from mdmfs.worker.filesystem import FileSystem, Kernel
from mdmfs.worker.finding.federation import Caller, Federation
from mdmfs.worker.finding.queries import FIND, FindDirectory
from mdmfs.worker.finding.snapshots import SNAPSHOTS, SnapshotsDirectory
from mdmfs.worker.finding.virtual import Directory, VirtualTree
from mdmfs.worker.hospital import Hospital
from mdmfs.worker.keys.ring import KeyRing, KeySource
from mdmfs.worker.lease import Lease
from mdmfs.worker.namespace.feed import Feed
from mdmfs.worker.namespace.names import ROOT, Namespace
from mdmfs.worker.opening import Opener
from mdmfs.worker.pages import Pages
from mdmfs.worker.prefetch.siblings import AHEAD_BYTES, SiblingPrefetch

EXPIRY_SECONDS: Final = 0.5
FIND_SECONDS: Final = 5.0
"""So long a hospital may take for a page of a query directory."""
LAST_WORD_SECONDS: Final = 2.0
"""For telling the hospital, at the end, what was opened since the last question."""


class KernelCache(Pages, Kernel, Protocol):
    """What the kernel remembers on our behalf: pages and names."""


class Ports(NamedTuple):
    """Whom a principal's questions go to, with his credential."""

    hospital: Hospital
    keys: Callable[[], KeySource]
    metadata: Callable[[], Mapping[str, Caller]] | None = None
    """The metadata services of the moment; without it there are no query directories."""


class Serving:
    """One principal's part of a mount."""

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
    ) -> None:
        """Put the parts together; nobody is asked before ``start``. The nursery outlives all open files."""
        self._nursery = nursery
        self._lease = lease
        self._ring = KeyRing(ports.keys, deadline=deadline)
        namespace = Namespace(ports.hospital, root)
        opener = Opener(ports.hospital, cache, self._ring, kernel, nursery, deadline=deadline)
        self.filesystem = FileSystem(
            ports.hospital,
            namespace,
            Descriptions(ports.hospital),
            opener,
            SiblingPrefetch(opener, nursery, budget=min(AHEAD_BYTES, cache.limit // 4)),
            kernel,
            lease=lease,
            virtual=_virtual_tree(ports.metadata, ports.hospital, nursery, root),
        )
        self._feed = Feed(ports.hospital, namespace, self.filesystem, lease, opener.opens)

    def start(self) -> None:
        """Follow the feed, keep the lease, and let shares go that were held long enough."""
        self._nursery.start_soon(self._expire)
        self._nursery.start_soon(self._feed.follow)
        self._nursery.start_soon(self._lease.keep, self.filesystem, self._nursery)

    async def tell_last(self) -> None:
        """Tell the hospital what was opened since the last question, whatever ends us; not for long."""
        with trio.CancelScope(deadline=trio.current_time() + LAST_WORD_SECONDS, shield=True):
            await self._feed.tell_last()

    async def _expire(self) -> None:
        while True:
            await trio.sleep(EXPIRY_SECONDS)
            self._ring.expire()


def _virtual_tree(
    metadata: Callable[[], Mapping[str, Caller]] | None, hospital: Hospital, nursery: trio.Nursery, root: Lfn
) -> VirtualTree | None:
    """Make what one caller sees beside the catalogue, where there are metadata services to ask."""
    if metadata is None:
        return None
    federation = Federation(metadata, deadline=FIND_SECONDS)
    top: dict[bytes, Directory] = {
        FIND: FindDirectory(federation, nursery, root),
        SNAPSHOTS: SnapshotsDirectory(federation, hospital),
    }
    return VirtualTree(top, ROOT)
