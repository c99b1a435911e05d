"""Says in the log where an event loop hangs, from a thread: names of functions and lines, and no value of any."""

from __future__ import annotations

import collections
import contextlib
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath
from types import FrameType
from typing import Final

import structlog
import trio

STALL_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 2.0
_MOST_GROUPS: Final = 20
_MOST_FRAMES: Final = 12

log = structlog.get_logger(__name__)


@contextlib.contextmanager
def telling_stalls(
    silence: Callable[[], float], *, patience: float = STALL_SECONDS, look: float = LOOK_SECONDS
) -> Iterator[None]:
    """Watch this task's event loop for a block; ``silence`` says for how many seconds it has not turned.

    Once for each time that it hangs for ``patience`` seconds, and looked at every ``look`` seconds.
    """
    loop, root, ended = threading.get_ident(), trio.lowlevel.current_root_task(), threading.Event()

    def watch() -> None:
        is_told, looked = False, time.monotonic()
        while not ended.wait(look):
            before, looked = looked, time.monotonic()
            was_stopped = looked - before > look + patience / 2  # all of the process, not the loop alone
            if silence() < patience:
                is_told = False
            elif not is_told and not was_stopped:
                is_told = True
                _tell(silence(), loop, root)

    thread = threading.Thread(target=watch, name="stalls", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _tell(seconds: float, loop: int, root: trio.lowlevel.Task | None) -> None:
    frame = sys._current_frames().get(loop)  # noqa: SLF001 what the standard library offers for this
    log.error("the event loop hangs", seconds=round(seconds, 1), at=where(traceback.walk_stack(frame)))
    waiting = collections.Counter(where(_awaited(task)) for task in _tasks(root))
    for at, count in waiting.most_common(_MOST_GROUPS):
        log.error("tasks of the loop that hangs", count=count, at=at)


def _tasks(root: trio.lowlevel.Task | None) -> Iterator[trio.lowlevel.Task]:
    left = [] if root is None else [root]
    while left:
        task = left.pop()
        yield task
        left += [child for nursery in list(task.child_nurseries) for child in list(nursery.child_tasks)]


def _awaited(task: trio.lowlevel.Task) -> Iterable[tuple[FrameType, int]]:
    """Give the frames that a task stands in, the innermost first; of one that has just ended, none."""
    try:
        return reversed(list(task.iter_await_frames()))
    except (AttributeError, TypeError):
        return []


def where(frames: Iterable[tuple[FrameType, int]]) -> str:
    """Name functions and lines, the innermost first."""
    names = [f"{frame.f_code.co_name} ({PurePath(frame.f_code.co_filename).name}:{line})" for frame, line in frames]
    return " < ".join(names[:_MOST_FRAMES])
