"""A mount as a process: put the parts together, serve until it is unmounted or told to end."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import signal
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import structlog
import trio
from prometheus_client import Gauge

from mdmfs.model.errors import ConfigurationError
from mdmfs.model.names import Lfn
from mdmfs.pki.tls import Credential
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.process import allow_many_connections, collect_seldom, forbid_core_dumps
from mdmfs.worker.cache.room import Room, SharedRoom
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.callers.credential import own_credential
from mdmfs.worker.callers.finder import refuse_old_kernel
from mdmfs.worker.callers.peers import Peers
from mdmfs.worker.callers.principals import Connect, Principals
from mdmfs.worker.callers.seat import Callers, OwnerOnly
from mdmfs.worker.configuration import MountConfiguration
from mdmfs.worker.fuse.kernel import KernelCaches
from mdmfs.worker.fuse.mount import mounted, raise_limits, serve, unmount
from mdmfs.worker.fuse.operations import MdmfsOperations
from mdmfs.worker.fuse.patience import SignalWatch
from mdmfs.worker.lease import Lease
from mdmfs.worker.replicas import ReplicatedHospital
from mdmfs.worker.serving import Ports, Serving, Site
from mdmfs.worker.storage import Storage

CACHE_BYTES: Final = Gauge("mdmfs_cache_bytes", "Ciphertext on this node's disk.")
CACHE_LIMIT: Final = Gauge("mdmfs_cache_limit_bytes", "What the cache may hold.")
LEASE_HELD: Final = Gauge("mdmfs_lease_held", "1 while the hospital is heard and files may be served.", ["hospital"])
MOUNT_ID_SIZE: Final = 16
CLOSE_SECONDS: Final = 2.0

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
    allow_many_connections()  # each file that is open is one descriptor, too
    collect_seldom()
    places, limits = Places(configuration), (configuration.cache_size, configuration.cache_floor)
    is_for_all = configuration.mount.multi_user
    # a mount for many users empties its directory: it shares it with none
    room = Room(*limits) if is_for_all else SharedRoom(configuration.cache_folder, *limits)
    CACHE_BYTES.set_function(lambda: room.used)
    CACHE_LIMIT.set(room.limit)
    if is_for_all:
        await serve_for_all(
            lambda arrival, nursery: places.ports(arrival.credential, nursery, called=arrival.identity.path),
            configuration.cache_folder / "principals",
            room,
            configuration.root,
            mountpoint,
            deadline=configuration.mount.deadline,
            make_lease=places.lease,
            configuration=configuration.file,
            task_status=task_status,
        )
        return
    credential = own_credential(configuration)
    async with _open_nursery() as nursery:
        with contextlib.closing(room):
            await serve_mount(
                [
                    Site(
                        ports,
                        CiphertextCache(configuration.each[ports.name].cache_folder, room.limit, room),
                        places.lease(ports.name),
                    )
                    for ports in places.ports(credential, nursery)
                ],
                configuration.root,
                mountpoint,
                deadline=configuration.mount.deadline,
                configuration=configuration.file,
                task_status=task_status,
            )
        nursery.cancel_scope.cancel()


class Places:
    """Whom a mount speaks with, as its configuration says."""

    def __init__(self, configuration: MountConfiguration) -> None:
        self._each = configuration.each
        self._anchors = {name: TrustAnchors(told.path(told.trust)) for name, told in self._each.items()}
        self._leases: dict[str, weakref.WeakSet[Lease]] = {name: weakref.WeakSet() for name in self._each}
        for name, leases in self._leases.items():
            LEASE_HELD.labels(name).set_function(functools.partial(_are_held, leases))

    def lease(self, name: str) -> Lease:
        """Make the lease of a principal at one hospital."""
        lease = Lease(wait=self._each[name].mount.lease_wait)
        self._leases[name].add(lease)
        return lease

    def ports(
        self, credential: Credential | Callable[[], Credential], nursery: trio.Nursery, *, called: str = ""
    ) -> list[Ports]:
        """Connect one principal with each hospital; his connections end with the nursery."""
        return [self._ports(name, credential, nursery, called) for name in self._each]

    def _ports(
        self, name: str, credential: Credential | Callable[[], Credential], nursery: trio.Nursery, called: str
    ) -> Ports:
        told = self._each[name]
        peers = Peers(
            told.hospital,
            told.keystores,
            credential,
            self._anchors[name],
            nursery,
            metadata=told.metadata,
            called=called,
            file=Path(told.file),
            root=told.root,
        )
        nursery.start_soon(_close_at_end, peers)
        storage = Storage(peers.storage_context, told.site_cache, told.mount.cache_of)
        nursery.start_soon(_close_at_end, storage)
        hospital = ReplicatedHospital(
            peers.hospital,
            storage,
            deadline=told.mount.deadline,
            purpose=told.mount.purpose,
            mount=secrets.token_bytes(MOUNT_ID_SIZE),
            root=told.root,
        )
        return Ports(hospital, peers.keystores, peers.metadata if told.metadata else None, name)


def _are_held(leases: Iterable[Lease]) -> bool:
    return all(lease.is_held for lease in leases)


async def _close_at_end(connected: Peers | Storage) -> None:
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
            await connected.aclose()


def umount(mountpoint: Path) -> None:
    """Unmount and wait until the daemon has gone; raises ``ConfigurationError``. Blocks: not for a task."""
    unmount(mountpoint.absolute())


async def serve_mount(
    sites: Sequence[Site],
    root: Lfn,
    mountpoint: Path,
    *,
    deadline: float,
    configuration: str = "",
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount these for their user and serve, as ``run_mount``; ``configuration`` is the file of commands.

    One site is the whole mount; several, each with a name, are joined below its root.
    """
    for site in sites:
        await site.cache.load()
    async with _open_nursery() as nursery:
        kernel = KernelCaches()
        serving = Serving(sites, root, kernel, nursery, deadline=deadline)
        callers = OwnerOnly(serving.files, os.getuid(), os.getgid())
        async with _mounted(callers, kernel, mountpoint, nursery, configuration):
            serving.start()
            log.info("mounted", mountpoint=str(mountpoint), root=str(root))
            task_status.started()
            try:
                await serve(kernel)
            finally:
                await serving.tell_last()
            nursery.cancel_scope.cancel()
    log.info("unmounted", mountpoint=str(mountpoint))


async def serve_for_all(  # noqa: PLR0913 the parts that a mount is made of
    connect: Connect,
    folder: Path,
    room: Room,
    root: Lfn,
    mountpoint: Path,
    *,
    deadline: float,
    make_lease: Callable[[str], Lease],
    configuration: str = "",
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount for everybody on this machine and serve, as ``run_mount``; each caller is connected when he comes first."""
    refuse_old_kernel()
    if os.geteuid() != 0:
        message = "a mount for many users has to look at their processes and proxies: run it as root"
        raise ConfigurationError(message)
    async with _open_nursery() as serving:
        kernel = KernelCaches()
        principals = Principals(connect, kernel, root, folder, room, deadline=deadline, make_lease=make_lease)
        await serving.start(principals.run)
        try:
            async with (
                _open_nursery() as nursery,
                _mounted(principals, kernel, mountpoint, nursery, configuration, is_for_all=True),
            ):
                log.info("mounted for all users", mountpoint=str(mountpoint), root=str(root))
                task_status.started()
                await serve(kernel)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await principals.end()
        serving.cancel_scope.cancel()
    log.info("unmounted", mountpoint=str(mountpoint))


@contextlib.asynccontextmanager
async def _mounted(
    callers: Callers,
    kernel: KernelCaches,
    mountpoint: Path,
    nursery: trio.Nursery,
    configuration: str,
    *,
    is_for_all: bool = False,
) -> AsyncIterator[None]:
    """Mount for a block, watching callers that are killed and signals to ourselves."""
    mountpoint, watch = Path(os.path.abspath(mountpoint)), SignalWatch()  # noqa: PTH100, ASYNC240 nothing is touched
    called = sorted({str(mountpoint), os.path.join(os.path.realpath(mountpoint.parent), mountpoint.name)})  # noqa: PTH118, ASYNC240 the point itself is not touched
    operations = MdmfsOperations(callers, watch, configuration, called)
    with mounted(operations, kernel, mountpoint, is_for_all=is_for_all):
        nursery.start_soon(raise_limits, operations, mountpoint)
        nursery.start_soon(watch.run)
        nursery.start_soon(_end_on_signal, nursery.cancel_scope)
        yield


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


async def _end_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for number in signals:
            if number == signal.SIGHUP:
                log.info("credential, CAs and keystores are looked at every second, all else is read at the start")
                continue
            log.info("ending", signal=signal.Signals(number).name)
            scope.cancel()
