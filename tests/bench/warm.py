"""Reading from ciphertext on disk, first time after mounting, beside gocryptfs on the same bytes."""

from __future__ import annotations

import os
import statistics
from pathlib import Path

from tests.bench._frame import Bench, Measured
from tests.bench._mounts import Folder, Gocryptfs, MountOfBytes, Ours, both_mounts, files_of, seconds_to_cat

SMALL = ("small", 400, 512 * 2**10)
BIG = ("big", 1, 2**30)
ROUNDS = 3
BAR_BIG = 1.5
DROPPED, HELD = "on the disk", "in memory"
"""Where the ciphertext is: the page cache is dropped, or has it. The mounts themselves are fresh each time."""


def measure() -> Measured:
    """Compare the rates of many small files, and of a big one; the ratio is that of the small ones on the disk.

    The directory is listed first, as by ``cat *``.
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
            rows.append(("ratio", "", "", f"{ratio:.2f}", f"bar {bar}" if place is DROPPED else ""))
    heading = ("first reading after mounting", "files", "ciphertext", "seconds", "MB/s")
    return Measured(heading, rows, ratios[DROPPED, SMALL[0]])


def _compare(
    rows: list[tuple[str, ...]], seconds: dict[tuple[str, str, str], list[float]], place: str, folder: Folder
) -> float:
    total = folder[1] * folder[2] / 1e6
    took = {name: statistics.median(seconds[place, name, folder[0]]) for name in ("gocryptfs", "mdmfs")}
    for name, each in took.items():
        rows.append((name, f"{folder[1]} x {folder[2] // 1024} KiB", place, f"{each:.2f}", f"{total / each:.0f}"))
    return took["gocryptfs"] / took["mdmfs"]


def _round(seconds: dict[tuple[str, str, str], list[float]], place: str, ours: Ours, theirs: Gocryptfs) -> None:
    mounts: dict[str, MountOfBytes] = {"gocryptfs": theirs, "mdmfs": ours}
    for name, mount in mounts.items():
        ciphertext = theirs.root.parent / ("cipher" if name == "gocryptfs" else "cache")
        (_drop if place == DROPPED else _hold)(ciphertext)
        mount.mount()
        for folder in (SMALL, BIG):
            seconds.setdefault((place, name, folder[0]), []).append(seconds_to_cat(files_of(mount, folder)))
        mount.unmount()


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
