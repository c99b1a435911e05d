"""Reading from ciphertext on disk, first time after mounting, beside gocryptfs on the same bytes."""

from __future__ import annotations

import statistics

from tests.bench._frame import Bench, Measured
from tests.bench._mounts import MountOfBytes, both_mounts, files_of, seconds_to_cat

SMALL = ("small", 400, 512 * 2**10)
BIG = ("big", 1, 2**30)
ROUNDS = 3
BAR_BIG = 1.5


def measure() -> Measured:
    """Compare the rates of many small files, and of a big one; the ratio is that of the small ones.

    The disk below has the ciphertext of both in its page cache; the mounts themselves are fresh each time. The
    directory is listed first, as by ``cat *``.
    """
    with both_mounts([SMALL, BIG]) as (ours, theirs):
        ours.mount()
        for folder in (SMALL, BIG):
            seconds_to_cat(files_of(ours, folder))
        ours.unmount()
        seconds: dict[tuple[str, str], list[float]] = {}
        for _ in range(ROUNDS):
            for name, mount in (("gocryptfs", theirs), ("mdmfs", ours)):
                _round(seconds, name, mount)
    rows, ratios = [], {}
    for folder in (SMALL, BIG):
        total = folder[1] * folder[2] / 1e6
        took = {name: statistics.median(seconds[name, folder[0]]) for name in ("gocryptfs", "mdmfs")}
        ratios[folder[0]] = took["gocryptfs"] / took["mdmfs"]
        for name, best in took.items():
            rows.append((name, f"{folder[1]} x {folder[2] // 1024} KiB", f"{best:.2f}", f"{total / best:.0f}"))
    rows.append(("ratio", "one file of 1 GiB", f"{ratios['big']:.2f}", f"bar {BAR_BIG}"))
    return Measured(("first reading after mounting", "files", "seconds", "MB/s"), rows, ratios["small"])


def _round(seconds: dict[tuple[str, str], list[float]], name: str, mount: MountOfBytes) -> None:
    mount.mount()
    for folder in (SMALL, BIG):
        seconds.setdefault((name, folder[0]), []).append(seconds_to_cat(files_of(mount, folder)))
    mount.unmount()


BENCH = Bench(measure, bar=1.2)
