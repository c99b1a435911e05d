"""A mount below an automounter: where its daemon is killed, or fails, it goes, so that the next look makes it anew.

An automounter waits for looks at an empty place, and takes a mount that answers nothing for one. Elsewhere such a mount
stays: programs would take what is below it for an empty directory, and an outage for files that are gone.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final, cast

import structlog

from mdmfs.worker.fuse.mountinfo import KIND, entries, entry_of, escaped

_AUTOFS: Final = "autofs"
_SCRIPT: Final = """
read -r line && exit
while read -r _ _ device _ place _; do [ "$place" = "$3" ] && last=$device; done </proc/self/mountinfo
[ "$last" = "0:$2" ] && exec umount --lazy "$1"
"""
"""Waits for a line, or for the end of whoever would write it; takes nothing away where another mount lies on ours.

A shell, since it takes no memory to speak of.
"""
SECONDS: Final = 10.0

log = structlog.get_logger(__name__)


@contextlib.contextmanager
def taken_away_when_killed(mountpoint: Path) -> Iterator[Callable[[], None]]:
    """In the block a process stands by which takes the mount away if this one does not live to leave it.

    Nor if it leaves it with the mount still there. Gives what sends it home once the mount has been taken away: the
    next one in its place may have the same number.
    """
    own = entry_of(mountpoint)
    if own is None or own.kind != KIND or not _has_automounter(mountpoint):
        yield _nobody
        return
    try:
        process = subprocess.Popen(  # noqa: S603 fixed programs
            ["/bin/sh", "-c", _SCRIPT, "sh", str(mountpoint), str(own.device), escaped(mountpoint)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        log.warning("if this daemon is killed, its mount stays until umount --lazy", reason=error.strerror)
        yield _nobody
        return

    def dismiss() -> None:
        with contextlib.suppress(OSError, ValueError):  # it has gone, or was sent home
            os.write(cast("IO[bytes]", process.stdin).fileno(), b"\n")

    try:
        yield dismiss
    finally:
        with contextlib.suppress(BrokenPipeError, subprocess.TimeoutExpired):
            process.communicate(b"" if entry_of(mountpoint) == own else b"\n", timeout=SECONDS)


def _nobody() -> None:
    """Send nobody home."""


def _has_automounter(mountpoint: Path) -> bool:
    """Ask whether an automounter waits at this place (systemd's do), or in the directory that it is in (autofs)."""
    return any(entry.kind == _AUTOFS and entry.mountpoint in {mountpoint, mountpoint.parent} for entry in entries())
