"""Resident memory of a mount with five hundred handles that are read in order and five hundred that are read at random.

After it as many minutes of mixed load as ``MDMFS_MINUTES`` says, 1 by default, in which it must not grow. The ratio is
what it grew by, in MiB, beside 256; growth under the mixed load counts in the same way beside ``GROWTH_MIB``.
"""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench._frame import Bench, Measured
from tests.bench._mounts import Ours, our_mount

HANDLES = 500
FILES = 50
FILE = 8 * 2**20
FOLDER = ("long", FILES, FILE)
PIECE = 128 * 2**10
ROUNDS = 40
BAR_MIB = 256.0
GROWTH_MIB = 16.0
MINUTES = float(os.environ.get("MDMFS_MINUTES", "1"))


def measure() -> Measured:
    """Read by turns from all handles, a piece from each; what the kernel has is dropped each round."""
    chance, peak = random.Random(7), 0.0  # noqa: S311 no secret
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name, our_mount(Path(name), [FOLDER]) as ours:
        ours.mount()
        paths = sorted((ours.root / FOLDER[0]).iterdir())
        before, begun, count = _resident_mib(ours), time.perf_counter(), 0
        with contextlib.ExitStack() as stack:
            handles = []
            for number in range(2 * HANDLES):
                descriptor = os.open(paths[number % FILES], os.O_RDONLY)
                stack.callback(os.close, descriptor)
                if number >= HANDLES:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
                handles.append(descriptor)
            for turn in range(ROUNDS):
                for number, descriptor in enumerate(handles):
                    offset = turn * PIECE if number < HANDLES else chance.randrange(FILE - PIECE)
                    count += len(os.pread(descriptor, PIECE, offset))
                for descriptor in handles[:FILES]:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                peak = max(peak, _resident_mib(ours))
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
    begun, done, marks = time.perf_counter(), 0, [0.0, 0.0, 0.0]
    while (passed := time.perf_counter() - begun) < MINUTES * 60:
        path = chance.choice(paths)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            match chance.randrange(4):
                case 0:
                    assert len(path.read_bytes()) == FILE
                case 1:
                    assert len(os.pread(descriptor, 24_576, 0)) == 24_576
                case 2:
                    for _ in range(10):
                        os.pread(descriptor, PIECE, chance.randrange(FILE - PIECE))
                case _:
                    assert len([one.stat() for one in path.parent.iterdir()]) == FILES
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
        done += 1
        third = min(2, int(passed / (MINUTES * 20)))
        marks[third] = max(marks[third], _resident_mib(ours))
    return done, marks[0], marks[2]


def _resident_mib(ours: Ours) -> float:
    pages = int(Path(f"/proc/{ours.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


BENCH = Bench(measure, BAR_MIB, at_most=True)
