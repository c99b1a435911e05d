"""Leave although threads wait for a disk that does not answer; what that leaves behind is what a kill would."""

from __future__ import annotations

import collections
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import PurePath
from types import FrameType
from typing import Final

import structlog

from mdmfs.daemon.stalls import where

LEAVE_SECONDS: Final = 25.0
"""Longer than all that ends in order takes, and less than ``mdmfs umount`` waits."""
_PACKAGE: Final = "mdmfs"

log = structlog.get_logger(__name__)


def leave_in_time(let_go: Callable[[], bool], *, seconds: float = LEAVE_SECONDS) -> None:
    """Let this process end after so many seconds at the latest; returns at once.

    ``let_go`` frees who waits for the mount, and tells whether that was there still: then this one has failed.

    A thread cannot be made to let go of a disk, and Python waits for it. The kernel does not, where the disk's driver
    lets a process be killed; elsewhere what is left of this one goes when the disk answers.
    """
    threading.Thread(target=_leave, args=(let_go, seconds), name="leaving", daemon=True).start()


def _leave(let_go: Callable[[], bool], seconds: float) -> None:
    time.sleep(seconds)
    has_failed = True
    try:  # whatever fails: a log that nobody reads any more, descriptors all in use
        try:
            _tell_who_waits()
        finally:
            has_failed = let_go()
    finally:
        os._exit(int(has_failed))


def _tell_who_waits() -> None:
    frames = sys._current_frames()  # noqa: SLF001 what the standard library offers for this
    frames.pop(threading.get_ident())
    waiting = collections.Counter(where(traceback.walk_stack(it)) for it in frames.values() if _is_ours(it))
    for at, count in waiting.items():
        log.error("the end is not waited for any longer", threads=count, at=at)


def _is_ours(frame: FrameType) -> bool:
    """Whether somebody of ours waits there: threads that have nothing to do wait, too."""
    return any(_PACKAGE in PurePath(it.f_code.co_filename).parts for it, _ in traceback.walk_stack(frame))
