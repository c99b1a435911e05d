"""Ten thousand random steps of the file system beside a dict of bytes; a wrong byte or a hang ends the run.

The ratio is the number of steps taken beside 10,000.
"""

from __future__ import annotations

import time

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.bench._frame import Bench, Measured
from tests.twins.file_model import FileModel

STEPS = 10_000
STEPS_OF_ONE = 100
AT_ONCE = 20
"""Machines between two looks at the count: hypothesis ends some of them early."""


def measure() -> Measured:
    """Run machines until so many steps are taken, other ones in each run."""
    settled = settings(
        max_examples=AT_ONCE,
        stateful_step_count=STEPS_OF_ONE,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    begun = time.perf_counter()
    while FileModel.steps < STEPS:
        run_state_machine_as_test(FileModel, settings=settled)
    seconds = time.perf_counter() - begun
    rows = [(f"{FileModel.steps:,}", "0", f"{seconds / FileModel.steps * 1e3:.1f}")]
    return Measured(("steps", "wrong", "ms each"), rows, FileModel.steps / STEPS)


BENCH = Bench(measure, bar=1)
