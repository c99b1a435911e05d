"""Names and attributes beside gocryptfs, per entry: ``ls -l``, ``stat`` after it, cold ``stat``, open and close."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from tests.bench._frame import Bench, Measured
from tests.bench._mounts import Floor, MountOfBytes, both_mounts, our_mount

OURS = ("many", 100_000, 0)
THEIRS = ("many", 20_000, 0)
"""Fewer, since each has to be written first."""


BARS = (5, 5, 0.6, 0.8)
OPENED = ("opened", 1000, 4096)
OPENS = 5000


def measure() -> Measured:
    """Compare microseconds per entry; ours come from the hospital, over TLS, with the mount.

    The line of pyfuse3 is a file system that decides nothing, waits as pyfuse3 does, and knows all names beforehand.
    """
    with both_mounts([THEIRS, OPENED]) as (_, gocryptfs):
        theirs = _listed(gocryptfs, THEIRS[1])
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        floor = _listed(Floor(Path(name), [OURS, OPENED]), OURS[1])
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name, our_mount(Path(name), [OURS, OPENED]) as mdmfs:
        ours = _listed(mdmfs, OURS[1])
    ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
    rows = [
        ("gocryptfs", str(THEIRS[1]), *(f"{took:.1f}" for took in theirs)),
        ("pyfuse3 alone", str(OURS[1]), *(f"{took:.1f}" for took in floor)),
        ("mdmfs", str(OURS[1]), *(f"{took:.1f}" for took in ours)),
        ("ratio", "", *(f"{ratio:.1f} (bar {bar:g})" for ratio, bar in zip(ratios, BARS, strict=True))),
    ]
    heading = ("us per entry", "entries", "ls -l", "stat after it", "cold stat", "open and close")
    return Measured(heading, rows, ratios[0])


def _listed(mount: MountOfBytes, count: int) -> tuple[float, float, float, float]:
    mount.mount()
    folder = mount.root / OURS[0]
    begun = time.perf_counter()
    lines = subprocess.run(["ls", "-l", str(folder)], check=True, capture_output=True).stdout.count(b"\n")
    listed = time.perf_counter() - begun
    assert lines == count + 1
    again = _stat(folder, count)
    mount.unmount()
    mount.mount()
    (folder / "000001.dcm").stat()  # the directory itself is fetched
    cold = _stat(folder, THEIRS[1])
    opened = f"{mount.root}/{OPENED[0]}/000001.dcm"
    os.close(os.open(opened, os.O_RDONLY))
    begun = time.perf_counter()
    for _ in range(OPENS):
        os.close(os.open(opened, os.O_RDONLY))
    opens = time.perf_counter() - begun
    mount.unmount()
    return listed / count * 1e6, again / count * 1e6, cold / THEIRS[1] * 1e6, opens / OPENS * 1e6


def _stat(folder: Path, count: int) -> float:
    begun = time.perf_counter()
    for number in range(1, count + 1):
        os.stat(f"{folder}/{number:06}.dcm")  # noqa: PTH116 a Path costs as much as what is measured
    return time.perf_counter() - begun


BENCH = Bench(measure, bar=5)
