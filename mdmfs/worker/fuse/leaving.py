"""Leave although threads wait for a disk that does not answer; what that leaves behind is what a kill would."""

from __future__ import annotations

import collections
import contextlib
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


def leave_in_time(take_away: Callable[[], None], *, seconds: float = LEAVE_SECONDS) -> None:
    """Let this process end after so many seconds at the latest, its mount taken away; returns at once.

    A thread cannot be made to let go of a disk, and Python waits for it. The kernel does not, where the disk's driver
    lets a process be killed; elsewhere what is left of this one goes when the disk answers.
    """
    threading.Thread(target=_leave, args=(take_away, seconds), name="leaving", daemon=True).start()


def _leave(take_away: Callable[[], None], seconds: float) -> None:
    time.sleep(seconds)
    with contextlib.ExitStack() as whatever_fails:  # a log that nobody reads any more, descriptors all in use
        whatever_fails.callback(os._exit, 0)
        whatever_fails.callback(take_away)
        _tell_who_waits()


def _tell_who_waits() -> None:
    frames = sys._current_frames()  # noqa: SLF001 what the standard library offers for this
    frames.pop(threading.get_ident())
    waiting = collections.Counter(where(traceback.walk_stack(it)) for it in frames.values() if _is_ours(it))
    for at, count in waiting.items():
        log.error("the end is not waited for any longer", threads=count, at=at)


def _is_ours(frame: FrameType) -> bool:
    """Whether somebody of ours waits there: threads that have nothing to do wait, too."""
    return any(_PACKAGE in PurePath(it.f_code.co_filename).parts for it, _ in traceback.walk_stack(frame))
