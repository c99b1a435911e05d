"""Processor cores: which of them a process may use, and how much it has used."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path


def pin(process: int, cores: Sequence[int]) -> None:
    """Bind all threads of a process to some cores."""
    for thread in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread.name), cores)


def used_by(process: int) -> float:
    """Give the seconds of processor time of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
