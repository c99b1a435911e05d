"""``ls -l`` of a large directory, the first time after mounting, beside gocryptfs; per entry."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from tests.bench._frame import Bench, Measured
from tests.bench._mounts import MountOfBytes, both_mounts, our_mount

OURS = ("many", 100_000, 0)
THEIRS = ("many", 20_000, 0)
"""Fewer, since each has to be written first."""


def measure() -> Measured:
    """Compare microseconds per entry; ours come from the hospital, over TLS, with the mount."""
    with both_mounts([THEIRS]) as (_, theirs):
        theirs_listed, theirs_again = _listed(theirs, THEIRS[1])
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name, our_mount(Path(name), [OURS]) as ours:
        ours_listed, ours_again = _listed(ours, OURS[1])
    rows = [
        ("gocryptfs", str(THEIRS[1]), f"{theirs_listed:.1f}", f"{theirs_again:.1f}"),
        ("mdmfs", str(OURS[1]), f"{ours_listed:.1f}", f"{ours_again:.1f}"),
        ("ratio", "", f"{theirs_listed / ours_listed:.1f}", f"{theirs_again / ours_again:.1f} (bar 5)"),
    ]
    return Measured(("us per entry", "entries", "ls -l", "stat after it"), rows, theirs_listed / ours_listed)


def _listed(mount: MountOfBytes, count: int) -> tuple[float, float]:
    mount.mount()
    folder = mount.root / OURS[0]
    begun = time.perf_counter()
    lines = subprocess.run(["ls", "-l", str(folder)], check=True, capture_output=True).stdout.count(b"\n")
    listed = time.perf_counter()
    assert lines == count + 1
    for number in range(1, count + 1):
        os.stat(f"{folder}/{number:06}.dcm")  # noqa: PTH116 a Path costs as much as what is measured
    ended = time.perf_counter()
    mount.unmount()
    return (listed - begun) / count * 1e6, (ended - listed) / count * 1e6


BENCH = Bench(measure, bar=5)
