"""A mount as a process: put the parts together, serve until it is unmounted or told to end."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import structlog
import trio
from prometheus_client import Gauge

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.daemon.process import allow_many_connections, collect_seldom, forbid_core_dumps
from mdmfs.model.errors import ConfigurationError
from mdmfs.model.names import Lfn
from mdmfs.worker.cache.room import Room, SharedRoom
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.callers.finder import refuse_old_kernel
from mdmfs.worker.callers.principals import Arrival, Connect, Principals
from mdmfs.worker.callers.seat import Callers, OwnerOnly
from mdmfs.worker.configuration import MountConfiguration
from mdmfs.worker.fuse.kernel import KernelCaches
from mdmfs.worker.fuse.mount import Mounted, mounted, raise_limits, serve, unmount
from mdmfs.worker.fuse.mountinfo import place_of
from mdmfs.worker.fuse.operations import MdmfsOperations
from mdmfs.worker.fuse.patience import SignalWatch
from mdmfs.worker.memory import Memory
from mdmfs.worker.places import Places
from mdmfs.worker.reloading import Reloading
from mdmfs.worker.serving import Ports, Serving, Site

CACHE_BYTES: Final = Gauge("mdmfs_cache_bytes", "Ciphertext on this node's disk.")
CACHE_LIMIT: Final = Gauge("mdmfs_cache_limit_bytes", "What the cache may hold.")
MEMORY_BYTES: Final = Gauge("mdmfs_memory_bytes", "What is kept in memory, and windows of transfers.")
MEMORY_LIMIT: Final = Gauge("mdmfs_memory_limit_bytes", "What may be kept in memory.")

Ending = Callable[[Callable[[], bool]], None]

log = structlog.get_logger(__name__)


async def _hear_nothing() -> None:
    """Let SIGHUP change nothing."""
    await trio.lowlevel.checkpoint()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mounting:
    """What a mount is told, whoever it is for."""

    root: Lfn
    """What of the catalogue it shows."""
    mountpoint: Path
    deadline: float
    """Seconds that an open may wait for its key, and a reader for a byte."""
    memory: Memory = dataclasses.field(default_factory=Memory)
    configuration: str = ""
    """The file of commands, which the mount tells whoever asks."""
    on_hangup: Callable[[], Awaitable[None]] = _hear_nothing
    """Called at each SIGHUP."""
    on_ending: Ending = lambda _: None
    """Called when the end begins, with what lets go of the mount, see ``mounted``."""


async def run_mount(
    configuration: MountConfiguration,
    mountpoint: Path,
    log_as: Callable[[MountConfiguration], None] = lambda _: None,
    on_ending: Ending = lambda _: None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount a hospital and serve until unmounted, SIGTERM or SIGINT; started when the mount is usable.

    Raises ``ConfigurationError``. What fails, or is cancelled, leaves a mount that answers nothing, as if killed. One
    that was left is cleaned up first. ``log_as`` is called with a configuration that is read again, ``on_ending`` as
    that of ``Mounting``.
    """
    forbid_core_dumps()
    allow_many_connections()  # each file that is open is one descriptor, too
    collect_seldom()
    memory = Memory(configuration.memory, pushed=configuration.pushed)
    places, limits = Places(configuration, memory), (configuration.cache_size, configuration.cache_floor)
    is_for_all = configuration.mount.multi_user
    # a mount for many users empties its directory: it shares it with none
    room = Room(*limits) if is_for_all else SharedRoom(configuration.cache_folder, *limits)
    _measure(room, memory)
    mounting = Mounting(
        root=configuration.root,
        mountpoint=mountpoint,
        deadline=configuration.mount.deadline,
        memory=memory,
        configuration=configuration.file,
        on_hangup=Reloading(configuration, mountpoint, places, room, memory, log_as).reload,
        on_ending=on_ending,
    )

    def site(ports: Ports, folder: Path) -> Site:
        return Site(ports, CiphertextCache(folder, room.limit, room), places.lease(ports.name))

    def connect(arrival: Arrival, nursery: trio.Nursery, folder: Path) -> list[Site]:
        found = places.ports(arrival.credential, nursery, called=arrival.identity.path)
        return [site(ports, folder / ports.name) for ports in found]

    async with open_plain_nursery() as nursery:
        nursery.start_soon(places.watch_clock)
        with contextlib.closing(room):
            if is_for_all:
                folder = configuration.cache_folder / "principals"
                await serve_for_all(connect, folder, mounting, task_status=task_status)
            else:
                own = places.ports(places.own_credential, nursery)
                sites = [site(ports, configuration.each[ports.name].cache_folder) for ports in own]
                await serve_mount(sites, mounting, task_status=task_status)
        nursery.cancel_scope.cancel()


def _measure(room: Room, memory: Memory) -> None:
    CACHE_BYTES.set_function(lambda: room.used)
    CACHE_LIMIT.set_function(lambda: room.limit)
    MEMORY_BYTES.set_function(lambda: memory.used)
    MEMORY_LIMIT.set_function(lambda: memory.limit)


def umount(mountpoint: Path) -> None:
    """Unmount and wait until the daemon has gone; raises ``ConfigurationError``. Blocks: not for a task."""
    unmount(place_of(mountpoint))


async def serve_mount(
    sites: Sequence[Site],
    mounting: Mounting,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount these for their user and serve, as ``run_mount``.

    One site is the whole mount; several, each with a name, are joined below its root.
    """
    for site in sites:
        await site.cache.load()
    async with open_plain_nursery() as nursery:
        kernel = KernelCaches()
        serving = Serving(sites, mounting.root, kernel, nursery, deadline=mounting.deadline, memory=mounting.memory)
        callers = OwnerOnly(serving.files, os.getuid(), os.getgid())
        async with _mounted(callers, kernel, mounting, nursery) as mount:
            serving.start()
            log.info("mounted", mountpoint=str(mounting.mountpoint), root=str(mounting.root))
            task_status.started()
            try:
                await serve(kernel, functools.partial(mounting.on_ending, mount.let_go))
            finally:
                nursery.cancel_scope.cancel()  # nobody is to ask for the lease again that is given back
                await serving.tell_last(mount.has_gone)
    log.info("unmounted", mountpoint=str(mounting.mountpoint))


async def serve_for_all(
    connect: Connect,
    folder: Path,
    mounting: Mounting,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount for everybody on this machine and serve, as ``run_mount``; each caller is connected when he comes first.

    ``folder`` is for ciphertext, what is in it goes.
    """
    refuse_old_kernel()
    if os.geteuid() != 0:
        message = "a mount for many users has to look at their processes and proxies: run it as root"
        raise ConfigurationError(message)
    async with open_plain_nursery() as serving:
        kernel = KernelCaches()
        principals = Principals(
            connect, kernel, mounting.root, folder, deadline=mounting.deadline, memory=mounting.memory
        )
        await serving.start(principals.run)
        has_gone: Callable[[], bool] | None = None
        try:
            async with (
                open_plain_nursery() as nursery,
                _mounted(principals, kernel, mounting, nursery, is_for_all=True) as mount,
            ):
                has_gone = mount.has_gone
                log.info("mounted for all users", mountpoint=str(mounting.mountpoint), root=str(mounting.root))
                task_status.started()
                await serve(kernel, functools.partial(mounting.on_ending, mount.let_go))
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await principals.end(has_gone)
        serving.cancel_scope.cancel()
    log.info("unmounted", mountpoint=str(mounting.mountpoint))


@contextlib.asynccontextmanager
async def _mounted(
    callers: Callers, kernel: KernelCaches, mounting: Mounting, nursery: trio.Nursery, *, is_for_all: bool = False
) -> AsyncIterator[Mounted]:
    """Mount for a block, watching callers that are killed and signals to ourselves."""
    named = os.path.abspath(mounting.mountpoint)  # noqa: PTH100, ASYNC240 nothing is touched
    mountpoint, watch = place_of(mounting.mountpoint), SignalWatch()
    operations = MdmfsOperations(callers, watch, mounting.configuration, sorted({named, str(mountpoint)}))
    with mounted(operations, kernel, mountpoint, is_for_all=is_for_all) as mount:
        nursery.start_soon(raise_limits, operations, mountpoint)
        nursery.start_soon(watch.run)
        await nursery.start(_obey_signals, nursery, mounting.on_hangup, mount.take_away)
        yield mount


async def _obey_signals(
    nursery: trio.Nursery,
    on_hangup: Callable[[], Awaitable[None]],
    take_away: Callable[[], None],
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP:
                nursery.start_soon(on_hangup)
                continue
            log.info("ending", signal=signal.Signals(number).name)
            take_away()
            nursery.cancel_scope.cancel()
