"""Reading the same files again, beside gocryptfs on the same bytes."""

from __future__ import annotations

import statistics

from tests.bench._frame import Bench, Measured
from tests.bench._mounts import both_mounts, files_of, seconds_to_cat

BIG = ("big", 1, 512 * 2**20)
ROUNDS = 5


def measure() -> Measured:
    """Compare the rates of the second and later readings of one file that the kernel can hold."""
    total = BIG[1] * BIG[2] / 1e6
    rows, took = [], {}
    with both_mounts([BIG]) as mounts:
        for name, mount in zip(("mdmfs", "gocryptfs"), mounts, strict=True):
            mount.mount()
            seconds_to_cat(files_of(mount, BIG))
            took[name] = statistics.median(seconds_to_cat(files_of(mount, BIG)) for _ in range(ROUNDS))
            mount.unmount()
            rows.append((name, f"{took[name]:.3f}", f"{total / took[name]:.0f}"))
    return Measured(("512 MiB again", "seconds", "MB/s"), rows, took["gocryptfs"] / took["mdmfs"])


BENCH = Bench(measure, bar=5)
