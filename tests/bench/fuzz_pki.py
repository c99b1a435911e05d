"""Noise in all that names or proves somebody, a million inputs for each parser: closed on every error.

``MDMFS_FUZZ=FIRST:LAST`` runs a slice of the hundred that each parser has; without it all are run.
"""

from __future__ import annotations

import os
import time

from tests.bench._frame import Bench, Measured
from tests.twins.pki_fuzz import FUZZERS

SLICES = 100
INPUTS = 10_000
"""Of one slice."""


def measure() -> Measured:
    """Run; anything but a named refusal or a sound value raises. The ratio is that of inputs that came to an end."""
    first, _, last = os.environ.get("MDMFS_FUZZ", f"0:{SLICES}").partition(":")
    slices = range(int(first), int(last))
    only = os.environ.get("MDMFS_FUZZER", "")
    rows = []
    for name, fuzz in FUZZERS.items():
        if only and only != name:
            continue
        begun = time.perf_counter()
        accepted = sum(fuzz(INPUTS, seed) for seed in slices)
        seconds = time.perf_counter() - begun
        rows.append([name, f"{len(slices) * INPUTS:,}", f"{accepted:,}", f"{seconds:.0f}"])
    return Measured(("parser", "inputs", "accepted", "seconds"), rows, 1.0)


BENCH = Bench(measure, bar=1.0)
