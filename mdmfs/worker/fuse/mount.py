"""Mount, serve, unmount: with ``operations`` and ``kernel`` all that knows pyfuse3."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pyfuse3
import structlog
import trio

from mdmfs.daemon.looks import next_look
from mdmfs.model.errors import BusyError, NameTakenError, PeerTimedOutError, UnusableFileError
from mdmfs.worker.fuse.automounted import taken_away_when_killed
from mdmfs.worker.fuse.control import connections
from mdmfs.worker.fuse.kernel import KernelCaches
from mdmfs.worker.fuse.loop import wait_eagerly
from mdmfs.worker.fuse.mountinfo import (
    FILE_SYSTEM,
    KIND,
    MountEntry,
    entries,
    entry_of,
    now_at,
    place_of,
    still_seen_by,
)
from mdmfs.worker.fuse.operations import PID_ATTRIBUTE, MdmfsOperations

COMMAND_SECONDS: Final = 10.0
KILLED_SECONDS: Final = 1.0
_BUSY_SECONDS: Final = 1.0
_GETXATTR: Final = "import os, sys; sys.stdout.buffer.write(os.getxattr(*sys.argv[1:]))"
_STATVFS: Final = """
import os, sys
try:
    os.statvfs(sys.argv[1])
except OSError as error:
    sys.exit(error.errno)
"""
MAX_BACKGROUND: Final = 512
"""Waiting READs that the kernel hands to us at once; libfuse's 12 would let a slow PACS delay everyone's reads."""
MAX_TASKS: Final = 1200
"""More than waiting opens and READs together, so that ``ls`` always finds a free one."""
LOOK_SECONDS: Final = 0.5
"""Between two looks whether the mount is still there."""
READ_AHEAD_KIB: Final = 1024
"""One READ of a megabyte in place of eight: twice the throughput of a file that is read in order."""
_DEVICES: Final = Path("/sys/class/bdi")
_MNT_FORCE: Final = 1
_MNT_DETACH: Final = 2
"""umount2(2)."""

log = structlog.get_logger(__name__)


class Mounted(NamedTuple):
    """What can be done about a mount, and told of it; for any thread."""

    take_away: Callable[[], None]
    """Takes it away, whoever still uses it."""
    let_go: Callable[[], bool]
    """Does what the end of the block does, and tells whether the mount was there then."""
    has_gone: Callable[[], bool] | None
    """Tells whether the kernel has nothing of it any more: neither a handle nor a mapping nor a page, in any namespace.
    None where that cannot be seen."""


@contextlib.contextmanager
def mounted(
    operations: MdmfsOperations, kernel: KernelCaches, mountpoint: Path, *, is_for_all: bool = False
) -> Iterator[Mounted]:
    """Mount for the length of a block.

    What was not taken away by the end stays, and answers nothing: programs would take an empty directory in its place
    for images that are gone.
    ``is_for_all``: the kernel lets every user through, and who may see what is decided here alone.
    """
    clean_up_stale(mountpoint)
    _refuse_what_is_no_directory(mountpoint)
    # Not "ro": the kernel would refuse the attribute that asks for staging. Every write is refused by the operations.
    options = {"nosuid", "nodev", f"fsname={FILE_SYSTEM}", f"subtype={FILE_SYSTEM}"}
    if is_for_all:
        options.add("allow_other")
    try:
        pyfuse3.init(operations, str(mountpoint), options)
    except RuntimeError as error:
        message = f"{mountpoint} cannot be mounted: {error}"
        what_to_do = "take an empty directory of yours; fuse3 has to be installed, and /dev/fuse there: mdmfs doctor"
        raise UnusableFileError(message, what_to_do=what_to_do) from error
    own = entry_of(mountpoint)
    has_gone = _watched_end(own)

    def found() -> MountEntry | None:
        # what stands there may be the next mount, even with the numbers of this one: they are free when it ends
        return None if own is None or kernel.is_gone() else now_at(own)

    with taken_away_when_killed(mountpoint) as dismiss:

        def take_away() -> None:
            mount = found()
            if mount is not None:
                detach(mount.mountpoint)
                dismiss()

        is_left = False

        def let_go() -> bool:
            nonlocal is_left
            if found() is not None:
                is_left = True
                if not _cut(own):
                    take_away()
            return is_left

        try:
            yield Mounted(take_away, let_go, has_gone)
        finally:
            let_go()  # the kernel first: whatever thread still waits for it is freed, before the session it uses is
            kernel.shut()
            pyfuse3.close(unmount=False)


def _watched_end(own: MountEntry | None) -> Callable[[], bool] | None:
    """Give what tells whether the kernel has nothing of a mount any more; None where that cannot be seen.

    A connection that was cut, or a mount that is in no list any more, says nothing of it: who has a file open reads on
    what the kernel has of it. The device goes last, when all is closed everywhere and the pages are gone.
    """
    device = None if own is None else _DEVICES / f"0:{own.device}"
    if device is None or not device.exists():
        return None
    return lambda: _DEVICES.exists() and not device.exists()


def _refuse_what_is_no_directory(mountpoint: Path) -> None:
    """Say what libfuse does not: it would mount on a file, and gives no reason where there is nothing."""
    try:
        is_directory = stat.S_ISDIR(mountpoint.stat().st_mode)
    except OSError as error:
        message = f"{mountpoint} cannot be mounted on: {error.strerror}"
        raise UnusableFileError(message, what_to_do=f"make an empty directory there: mkdir -p {mountpoint}") from error
    if not is_directory:
        message = f"{mountpoint} is no directory"
        raise UnusableFileError(message, what_to_do="name an empty directory")


async def serve(kernel: KernelCaches, on_ending: Callable[[], None]) -> None:
    """Answer the kernel until it is unmounted; what is still waited for then, nobody waits for any more.

    ``on_ending`` is called when that begins to end: threads may still wait for a disk.
    """
    wait_eagerly(kernel.do_meanwhile)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tell_of_end, on_ending)
        nursery.start_soon(_end_when_gone, kernel, nursery.cancel_scope)
        await pyfuse3.main(max_tasks=MAX_TASKS)
        nursery.cancel_scope.cancel()


async def _tell_of_end(on_ending: Callable[[], None]) -> None:
    try:
        await trio.sleep_forever()
    finally:
        on_ending()


async def _end_when_gone(kernel: KernelCaches, scope: trio.CancelScope) -> None:
    while not kernel.is_gone():  # the kernel sets no event
        await next_look(LOOK_SECONDS)
    scope.cancel()


async def raise_limits(operations: MdmfsOperations, mountpoint: Path) -> None:
    """Ask for larger limits once the kernel has set its own; where this user may not, they stay as they are."""
    await operations.begun.wait()
    await trio.to_thread.run_sync(_raise_limits, mountpoint)


def clean_up_stale(mountpoint: Path, *, patience: float = COMMAND_SECONDS) -> None:
    """Unmount what a killed daemon left there; raises ``NameTakenError`` where a live one serves."""
    if not is_stale(mountpoint, patience=patience):
        return
    log.warning("cleaning up a mount that nobody serves any more", mountpoint=str(mountpoint))
    detach(place_of(mountpoint))


def is_stale(mountpoint: Path, *, patience: float = COMMAND_SECONDS) -> bool:
    """Ask whether a killed daemon left a mount there; raises ``NameTakenError`` where a live one serves."""
    mountpoint = place_of(mountpoint)
    entry = entry_of(mountpoint)
    if entry is None or entry.kind != KIND:
        return False
    if _is_served(mountpoint, patience):
        message = f"{mountpoint} is mounted already"
        raise NameTakenError(message, what_to_do=f"mdmfs umount {mountpoint}, or take another directory")
    return True


def detach(mountpoint: Path) -> None:
    """Unmount now, even where somebody still uses it; the connection is cut first, so that nothing waits for us."""
    entry = entry_of(mountpoint)
    if entry is None or entry.kind != KIND:
        return
    _cut(entry)
    # the force cuts the connection also where the kernel's control files are not mounted
    if not _umount(mountpoint, _MNT_FORCE | _MNT_DETACH) and not _run(mountpoint, ["fusermount3", "-u", "-z", "-q"]):
        log.error("cannot unmount", mountpoint=str(mountpoint))


def _cut(entry: MountEntry | None) -> bool:
    """Cut a connection, so that nobody waits for us; False where this user may not, or there is none."""
    if entry is None:
        return False
    try:
        with connections() as folder:
            (folder / str(entry.device) / "abort").write_text("1")
    except OSError:
        return False
    return True


def _is_let_go(mountpoint: Path) -> bool:
    """Unmount in order; who has just ended, or only looked in, holds it for a moment longer."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while not _umount(mountpoint, 0) and not _run(mountpoint, ["fusermount3", "-u", "-q"], ["umount"]):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_BUSY_SECONDS / 10)
    return True


def unmount(mountpoint: Path, *, patience: float = 30.0) -> None:
    """Unmount in order and wait until the daemon has gone; raises ``ConfigurationError`` where that fails."""
    entry = entry_of(mountpoint)
    if entry is None or entry.kind != KIND:
        message = f"no mdmfs is mounted at {mountpoint}"
        raise UnusableFileError(message, what_to_do="name its mount point: findmnt -t fuse.mdmfs lists them")
    told = _ask_apart(_GETXATTR, mountpoint, os.fsdecode(PID_ATTRIBUTE), patience=min(patience, COMMAND_SECONDS))
    daemon = None if told is None else _open_daemon(told)
    try:
        if not _is_let_go(mountpoint):
            if os.geteuid() not in {0, entry.owner}:
                message = f"{mountpoint} is the mount of user {entry.owner}, and cannot be unmounted by another one"
                raise UnusableFileError(message, what_to_do="ask that user, or root; yours are told by findmnt")
            message = f"{mountpoint} cannot be unmounted: somebody still uses it"
            raise BusyError(message, what_to_do=f"fuser -vm {mountpoint} tells who; end that, and try again")
        if any(it.kind == KIND and it.device == entry.device for it in entries()):
            return  # a bind mount was unmounted, or the one that it was made of
        if told is None:
            message = f"{mountpoint} is unmounted, but its daemon did not answer, and is probably still there"
            what_to_do = "pgrep -af 'mdmfs.* mount' finds it; kill -9 of it loses nothing"
            raise PeerTimedOutError(message, what_to_do=what_to_do)
        if daemon is not None and not select.select([daemon], [], [], patience)[0]:
            raise _has_not_gone(entry, told, patience)
    finally:
        if daemon is not None:
            os.close(daemon)


def _has_not_gone(entry: MountEntry, daemon: tuple[int, bytes], patience: float) -> PeerTimedOutError:
    """Say why a daemon is still there although nothing is mounted here any more."""
    keeper = still_seen_by(entry)
    if keeper is None:
        message = f"the daemon of {entry.mountpoint} has not gone within {patience:g} s"
        return PeerTimedOutError(message, what_to_do="see to its log; kill -9 of that daemon loses nothing")
    message = f"{entry.mountpoint} is unmounted here, but process {keeper} has mounts of its own and still sees it"
    what_to_do = f"end that container or job; kill {daemon[1].decode()} ends the daemon, and what they see with it"
    return PeerTimedOutError(message, what_to_do=what_to_do)


def _ask_apart(program: str, mountpoint: Path, *arguments: str, patience: float) -> tuple[int, bytes] | None:
    """Ask a daemon by a program of one line: its exit code and what it wrote; None where there is no answer.

    A process of its own, since whoever asks one that hangs waits as long, and may be out of reach of every signal.
    """
    asking = subprocess.Popen(  # noqa: S603 our own program
        [sys.executable, "-ISc", program, str(mountpoint), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        told, _ = asking.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        asking.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            asking.communicate(timeout=KILLED_SECONDS)
        return None
    return asking.returncode, told


def _open_daemon(told: tuple[int, bytes]) -> int | None:
    """Get hold of the process that serves a mount, which tells its number; None where it is dead already."""
    try:
        return os.pidfd_open(int(told[1]))
    except (OSError, ValueError):
        return None


def _umount(mountpoint: Path, flags: int) -> bool:
    """Unmount as root, or as who has its rights in a namespace of his own, where ``fusermount3`` has none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.umount2(os.fsencode(mountpoint), flags) == 0)


def _run(mountpoint: Path, *commands: list[str]) -> bool:
    """Try commands on a mount point until one succeeds."""
    for name, *options in commands:
        program = shutil.which(name)
        if program is None:
            continue
        try:
            done = subprocess.run(  # noqa: S603 fixed programs
                [program, *options, str(mountpoint)], check=False, capture_output=True, timeout=COMMAND_SECONDS
            )
        except subprocess.TimeoutExpired:
            continue
        if done.returncode == 0:
            return True
    return False


def _is_served(mountpoint: Path, patience: float) -> bool:
    """Ask whether a daemon holds the other end: ``statfs`` always goes to it, ``stat`` may be answered from a cache."""
    entry = entry_of(mountpoint)
    if entry is None:
        return False
    told = _ask_apart(_STATVFS, mountpoint, patience=patience)
    # any other error is an answer of a daemon whose hospital is away, and one that does not answer is there
    return told is None or told[0] not in {errno.ENOTCONN, errno.ECONNABORTED}


def _raise_limits(mountpoint: Path) -> None:
    """Ask for larger limits where this user may.

    A kernel that keeps its own is slower; and it hides READs from us, behind whose pages none is taken back when a
    lease lapses: a mapping may be read on until the hospital is heard again.
    """
    entry = entry_of(mountpoint)
    if entry is None:
        return
    with connections() as folder:
        connection = folder / str(entry.device)
        limits = {
            connection / "max_background": MAX_BACKGROUND,
            connection / "congestion_threshold": MAX_BACKGROUND,
            _DEVICES / f"0:{entry.device}" / "read_ahead_kb": READ_AHEAD_KIB,
        }
        for file, limit in limits.items():
            try:
                file.write_text(str(limit))
            except OSError as error:
                log.warning("a limit of the kernel stays as it is", limit=file.name, reason=error.strerror)
