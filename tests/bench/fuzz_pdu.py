"""A million mutated streams on our side of an association: how many end in the one error, and what it costs.

There is no peer to measure beside: the ratio is the growth of resident memory over the run, in MiB, beside 32.
"""

from __future__ import annotations

import collections
import resource
import time

from tests.bench._frame import Bench, Measured
from tests.twins.pdu_fuzz import run

STREAMS = 1_000_000
SLICE = 25_000
FIRST_SEED = 1
BAR_MIB = 32.0


def measure() -> Measured:
    """Run slice after slice, each from a seed of its own; an exception or a hang names it."""
    counts: collections.Counter[str] = collections.Counter()
    refused: collections.Counter[str] = collections.Counter()
    run(SLICE // 10, 0)
    before, begun, slowest = _resident_mib(), time.process_time(), 0.0
    for seed in range(FIRST_SEED, FIRST_SEED + STREAMS // SLICE):
        slice_begun = time.process_time()
        for name, (count, some) in run(SLICE, seed).items():
            counts[name] += count
            refused[name] += some
        slowest = max(slowest, time.process_time() - slice_begun)
    seconds, growth = time.process_time() - begun, _resident_mib() - before
    rows = [
        (name, f"{count:,}", f"{refused[name]:,}", f"{refused[name] / count:.0%}") for name, count in counts.items()
    ]
    rows.append(("all", f"{counts.total():,}", f"{refused.total():,}", f"{1e6 * seconds / counts.total():.0f} us each"))
    rows.append(("slowest slice", f"{SLICE:,}", "", f"{slowest:.1f} s"))
    return Measured(("fuzzer", "streams", "refused by name", ""), rows, growth)


def _resident_mib() -> float:
    """Give the largest resident size so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


BENCH = Bench(measure, BAR_MIB, at_most=True)
