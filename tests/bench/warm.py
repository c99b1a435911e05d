"""Reading from ciphertext on disk, first time after mounting, beside gocryptfs on the same bytes."""

from __future__ import annotations

import mmap
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mdmfs.worker.cache.extents import PLAIN, WITHIN
from tests.bench._chain import timed
from tests.bench._frame import Bench, Measured
from tests.bench._mounts import Folder, Gocryptfs, MountOfBytes, Ours, both_mounts, files_of, seconds_to_cat

SMALL = ("small", 400, 512 * 2**10)
BIG = ("big", 1, 2**30)
ROUNDS = 3
BAR_BIG = 1.5
DISK = "the disk alone"
DROPPED, HELD = "on the disk", "in memory"
"""Where the ciphertext is: the page cache is dropped, or has it. The mounts themselves are fresh each time."""


def measure() -> Measured:
    """Compare the rates of many small files, and of a big one; the ratio is that of the small ones on the disk.

    The directory is listed first, as by ``cat *``. What the disk alone takes is the least that anybody can.
    """
    seconds: dict[tuple[str, str, str], list[float]] = {}
    with both_mounts([SMALL, BIG]) as (ours, theirs):
        ours.mount()
        for folder in (SMALL, BIG):
            seconds_to_cat(files_of(ours, folder))
        ours.unmount()
        for place in (DROPPED, HELD):
            for _ in range(ROUNDS):
                _round(seconds, place, ours, theirs)
    rows: list[tuple[str, ...]] = []
    ratios: dict[tuple[str, str], float] = {}
    for place in (DROPPED, HELD):
        for folder in (SMALL, BIG):
            bar = 1.2 if folder is SMALL else BAR_BIG
            ratio = ratios[place, folder[0]] = _compare(rows, seconds, place, folder)
            if (alone := seconds.get((place, DISK, folder[0]))) is not None:
                rows.append(_row(DISK, folder, place, statistics.median(alone)))
            rows.append(("ratio", "", "", f"{ratio:.2f}", f"bar {bar}" if place is DROPPED else ""))
    heading = ("first reading after mounting", "files", "ciphertext", "seconds", "MB/s")
    return Measured(heading, rows, ratios[DROPPED, SMALL[0]])


def _compare(
    rows: list[tuple[str, ...]], seconds: dict[tuple[str, str, str], list[float]], place: str, folder: Folder
) -> float:
    took = {name: statistics.median(seconds[place, name, folder[0]]) for name in ("gocryptfs", "mdmfs")}
    for name, each in took.items():
        rows.append(_row(name, folder, place, each))
    return took["gocryptfs"] / took["mdmfs"]


def _row(name: str, folder: Folder, place: str, seconds: float) -> tuple[str, ...]:
    rate = folder[1] * folder[2] / 1e6 / seconds
    return (name, f"{folder[1]} x {folder[2] // 1024} KiB", place, f"{seconds:.2f}", f"{rate:.0f}")


def _round(seconds: dict[tuple[str, str, str], list[float]], place: str, ours: Ours, theirs: Gocryptfs) -> None:
    mounts: dict[str, MountOfBytes] = {"gocryptfs": theirs, "mdmfs": ours}
    for name, mount in mounts.items():
        ciphertext = theirs.root.parent / ("cipher" if name == "gocryptfs" else "cache")
        (_drop if place == DROPPED else _hold)(ciphertext)
        mount.mount()
        for folder in (SMALL, BIG):
            seconds.setdefault((place, name, folder[0]), []).append(seconds_to_cat(files_of(mount, folder)))
        mount.unmount()
    if place == DROPPED:
        seconds.setdefault((place, DISK, BIG[0]), []).append(timed(lambda: _read_past(theirs.root.parent / "cache")))


def _read_past(folder: Path) -> None:
    """Read the longest file below a folder past the page cache, by as many threads as the mount has for it at most."""
    path = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)

    def read(offset: int) -> None:
        os.preadv(descriptor, [mmap.mmap(-1, PLAIN)], offset)

    with ThreadPoolExecutor(WITHIN) as threads:
        list(threads.map(read, range(0, path.stat().st_size, PLAIN)))
    os.close(descriptor)


def _drop(folder: Path) -> None:
    """Have the page cache let go of all files below a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fdatasync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _hold(folder: Path) -> None:
    """Have it hold them: a long object that was read past it is not there."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(2**20):
                    pass


BENCH = Bench(measure, bar=1.2)
