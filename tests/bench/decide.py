"""100,000 random decisions beside an independent account of POSIX.1e; the ratio is that of those that agree."""

from __future__ import annotations

import time

from tests.bench._frame import Bench, Measured
from tests.twins.posix_acl import compare

COUNT = 100_000
SEED = 1


def measure() -> Measured:
    """Compare."""
    begun = time.perf_counter()
    found = compare(COUNT, SEED)
    seconds = time.perf_counter() - begun
    rows = [["decisions", str(COUNT)], ["allowed", str(found.allowed)], ["seconds", f"{seconds:.1f}"]]
    rows += [["differs", text] for text in found.differing[:10]]
    return Measured(("decide and POSIX.1e", ""), rows, 1 - len(found.differing) / COUNT)


BENCH = Bench(measure, bar=1.0)
