"""To wait, but not for ever; readers that wait: processes that are seen to be in a system call."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import trio

OPEN: Final = "open"
READ: Final = "read"
SECONDS: Final = 15.0
PATIENCE: Final = 20.0
PAUSE: Final = 0.05
_NUMBERS: Final = {OPEN: {"257", "2", "56"}, READ: {"0", "63", "17"}}
"""Of openat, open, read and pread64 on x86-64 and arm64 (/proc/PID/syscall, proc(5))."""


def start_reader(path: Path) -> subprocess.Popen[bytes]:
    """Start a program that reads a file whole."""
    return subprocess.Popen(["cat", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_until_in(pid: int, call: str, seen: int = 3, *, program: str = "cat") -> None:
    """Wait until a process has been in this system call at several looks in a row."""
    deadline, in_a_row = time.monotonic() + SECONDS, 0
    while in_a_row < seen:
        found = Path(f"/proc/{pid}/syscall").read_text().split()
        is_begun = Path(f"/proc/{pid}/comm").read_text().startswith(program)
        in_a_row = in_a_row + 1 if found[0] in _NUMBERS[call] and is_begun else 0
        assert time.monotonic() < deadline, f"process {pid} is not in {call} but in call {found[0]}"
        time.sleep(0.02)


def until(holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait until something is so, but not for ever."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(PAUSE)


class Turns(trio.abc.Instrument):
    """Counts the steps of all tasks."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count one."""
        del task
        self.count += 1


@contextlib.contextmanager
def counting_turns() -> Iterator[Turns]:
    """Count the steps of all tasks of this loop during a block."""
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    try:
        yield turns
    finally:
        trio.lowlevel.remove_instrument(turns)
