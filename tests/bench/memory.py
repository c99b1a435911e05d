"""Resident memory of a mount with five hundred handles that are read in order and five hundred that are read at random.

After it as many minutes of mixed load as ``MDMFS_MINUTES`` says, 1 by default, in which it must not grow. The ratio is
what it grew by, in MiB, beside 256; growth under the mixed load counts in the same way beside ``GROWTH_MIB``.
``MDMFS_SHARE=0.15`` lets the mixed load work for so much of the time only, so that an hour of it can run beside other
work; each minute it says how much memory there was.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench._frame import Bench, Measured
from tests.bench._mounts import Ours, our_mount
from tests.twins.mixed_load import call_at_random, read_by_turns, resident_mib

HANDLES = 500
FILES = 50
FILE = 8 * 2**20
FOLDER = ("long", FILES, FILE)
ROUNDS = 40
BAR_MIB = 256.0
GROWTH_MIB = 16.0
MINUTES = float(os.environ.get("MDMFS_MINUTES", "1"))
SHARE = float(os.environ.get("MDMFS_SHARE", "1"))


def measure() -> Measured:
    """Read by turns from all handles, a piece from each; what the kernel has is dropped each round."""
    chance, peak = random.Random(7), 0.0  # noqa: S311 no secret
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name, our_mount(Path(name), [FOLDER]) as ours:
        ours.mount()
        paths = sorted((ours.root / FOLDER[0]).iterdir())
        before, begun, count = resident_mib(ours.pid), time.perf_counter(), 0
        for read in read_by_turns(paths, FILE, HANDLES, ROUNDS, chance):
            count += read
            peak = max(peak, resident_mib(ours.pid))
        seconds = time.perf_counter() - begun
        done, early, late = _mix(ours, paths, chance)
        ours.unmount()
    rows = [
        ("after mounting", f"{before:.0f}", ""),
        (f"{2 * HANDLES} handles, peak", f"{peak:.0f}", f"{count / seconds / 1e6:.0f} MB/s"),
        (f"mixed load, most in the first third of {MINUTES:g} min", f"{early:.0f}", f"{done:,} calls"),
        ("  and in the last third", f"{late:.0f}", ""),
    ]
    return Measured(("", "MiB", ""), rows, max(peak - before, (late - early) * BAR_MIB / GROWTH_MIB))


def _mix(ours: Ours, paths: Sequence[Path], chance: random.Random) -> tuple[int, float, float]:
    """Read, list and drop pages at random; tell how many times, and the most memory at the begin and at the end."""
    begun, done, marks, told = time.perf_counter(), 0, [0.0, 0.0, 0.0], 0
    while (passed := time.perf_counter() - begun) < MINUTES * 60:
        call_at_random(paths, FILE, chance)
        done += 1
        resident, third = resident_mib(ours.pid), min(2, int(passed / (MINUTES * 20)))
        marks[third] = max(marks[third], resident)
        if passed >= told * 60:
            sys.stderr.write(f"{told:3} min {done:9,} calls {resident:7.1f} MiB\n")
            told += 1
        time.sleep((time.perf_counter() - begun - passed) * (1 / SHARE - 1))
    return done, marks[0], marks[2]


BENCH = Bench(measure, BAR_MIB, at_most=True)
