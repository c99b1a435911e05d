"""A mount as a process: put the parts together, serve until it is unmounted or told to end."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Final

import structlog
import trio
from prometheus_client import Gauge

from mdmfs.model.names import Lfn
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.process import forbid_core_dumps
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.callers.credential import own_credential
from mdmfs.worker.callers.peers import Peers
from mdmfs.worker.configuration import MountConfiguration
from mdmfs.worker.descriptions import Descriptions
from mdmfs.worker.filesystem import FileSystem
from mdmfs.worker.finding.federation import Caller, Federation
from mdmfs.worker.finding.queries import FIND, FindDirectory
from mdmfs.worker.finding.snapshots import SNAPSHOTS, SnapshotsDirectory
from mdmfs.worker.finding.virtual import Directory, VirtualTree
from mdmfs.worker.fuse.kernel import KernelCaches
from mdmfs.worker.fuse.mount import mounted, raise_limits, serve, unmount
from mdmfs.worker.fuse.operations import MdmfsOperations
from mdmfs.worker.fuse.patience import SignalWatch
from mdmfs.worker.hospital import Hospital, RemoteHospital
from mdmfs.worker.keys.ring import KeyRing, KeySource
from mdmfs.worker.lease import Lease
from mdmfs.worker.namespace.feed import Feed
from mdmfs.worker.namespace.names import ROOT, Namespace
from mdmfs.worker.opening import Opener
from mdmfs.worker.prefetch.siblings import AHEAD_BYTES, SiblingPrefetch

CACHE_BYTES: Final = Gauge("mdmfs_cache_bytes", "Ciphertext on this node's disk.")
CACHE_LIMIT: Final = Gauge("mdmfs_cache_limit_bytes", "What the cache may hold.")
LEASE_HELD: Final = Gauge("mdmfs_lease_held", "1 while the hospital is heard and files may be served.")
EXPIRY_SECONDS: Final = 0.5
MOUNT_ID_SIZE: Final = 16
FIND_SECONDS: Final = 5.0
"""So long a hospital may take for a page of a query directory."""
LAST_WORD_SECONDS: Final = 2.0
"""For telling the hospital, at the end, what was opened since the last question."""

log = structlog.get_logger(__name__)


async def run_mount(
    configuration: MountConfiguration,
    mountpoint: Path,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount a hospital and serve until unmounted, SIGTERM, SIGINT or cancellation; started when the mount is usable.

    Raises ``ConfigurationError``. A mount that a killed daemon left behind is cleaned up first.
    """
    forbid_core_dumps()
    credential = own_credential(configuration)
    anchors = TrustAnchors(configuration.path(configuration.trust))
    async with _open_nursery() as nursery:
        peers = Peers(
            configuration.hospital,
            configuration.keystores,
            credential,
            anchors,
            nursery,
            metadata=configuration.metadata,
        )
        cache = CiphertextCache(configuration.cache_folder, configuration.cache_size)
        lease = Lease(wait=configuration.mount.lease_wait)
        CACHE_BYTES.set_function(lambda: cache.used)
        CACHE_LIMIT.set(cache.limit)
        LEASE_HELD.set_function(lambda: lease.is_held)
        await serve_mount(
            RemoteHospital(
                peers.hospital,
                deadline=configuration.mount.deadline,
                purpose=configuration.mount.purpose,
                mount=secrets.token_bytes(MOUNT_ID_SIZE),
                root=configuration.root,
            ),
            peers.keystores,
            cache,
            configuration.root,
            mountpoint,
            deadline=configuration.mount.deadline,
            lease=lease,
            configuration=configuration.file,
            metadata=peers.metadata if configuration.metadata else None,
            task_status=task_status,
        )
        await peers.aclose()
        nursery.cancel_scope.cancel()


def umount(mountpoint: Path) -> None:
    """Unmount and wait until the daemon has gone; raises ``ConfigurationError``. Blocks: not for a task."""
    unmount(mountpoint.absolute())


async def serve_mount(  # noqa: PLR0913 the parts that a mount is made of
    hospital: Hospital,
    keys: Callable[[], KeySource],
    cache: CiphertextCache,
    root: Lfn,
    mountpoint: Path,
    *,
    deadline: float,
    lease: Lease,
    configuration: str = "",
    metadata: Callable[[], Mapping[str, Caller]] | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount these ports and serve, as ``run_mount``; ``configuration`` is the file that commands go by.

    ``metadata`` gives the metadata services of the moment; without it there are no query directories.
    """
    mountpoint = Path(os.path.abspath(mountpoint))  # noqa: PTH100, ASYNC240 nothing is touched
    await cache.load()
    async with _open_nursery() as nursery:
        kernel, watch = KernelCaches(), SignalWatch()
        namespace, descriptions = Namespace(hospital, root), Descriptions(hospital)
        ring = KeyRing(keys, deadline=deadline)
        opener = Opener(hospital, cache, ring, kernel, nursery, deadline=deadline)
        prefetch = SiblingPrefetch(opener, nursery, budget=min(AHEAD_BYTES, cache.limit // 4))
        virtual = virtual_tree(metadata, hospital, nursery, root)
        filesystem = FileSystem(
            hospital, namespace, descriptions, opener, prefetch, kernel, lease=lease, virtual=virtual
        )
        operations = MdmfsOperations(filesystem, watch, configuration)
        with mounted(operations, kernel, mountpoint):
            nursery.start_soon(raise_limits, operations, mountpoint)
            nursery.start_soon(watch.run)
            nursery.start_soon(_expire, ring)
            feed = Feed(hospital, namespace, filesystem, lease, opener.opens)
            nursery.start_soon(feed.follow)
            nursery.start_soon(lease.keep, filesystem, nursery)
            nursery.start_soon(_end_on_signal, nursery.cancel_scope)
            log.info("mounted", mountpoint=str(mountpoint), root=str(root))
            task_status.started()
            try:
                await serve()
            finally:
                with trio.CancelScope(deadline=trio.current_time() + LAST_WORD_SECONDS, shield=True):
                    await feed.tell_last()
            nursery.cancel_scope.cancel()
    log.info("unmounted", mountpoint=str(mountpoint))


def virtual_tree(
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


@contextlib.asynccontextmanager
async def _open_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery that raises what went wrong in it, not a group of it."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        raise _only(group) from None


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    if len(group.exceptions) > 1:
        return group
    return _only(first) if isinstance(first, BaseExceptionGroup) else first


async def _expire(ring: KeyRing) -> None:
    while True:
        await trio.sleep(EXPIRY_SECONDS)
        ring.expire()


async def _end_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("ending", signal=signal.Signals(number).name)
            scope.cancel()
