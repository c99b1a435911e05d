"""500 files of three PACSs staged through two restarts of the hospital, one of a PACS, and a renewed proxy.

The ratio is how often the PACSs were asked for the instance that they were asked for most: 1 is needed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench._frame import Bench, Measured
from tests.twins.staging_run import run

FILES = 500
HAPPENS = (
    (0.1, "kill the hospital"),
    (0.4, "restart a PACS"),
    (0.6, "renew the proxy"),
    (0.75, "restart the hospital"),
)


def measure() -> Measured:
    """Stage them once; whatever is not as promised counts as infinitely often."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(Path(folder), FILES, HAPPENS)
    is_whole = outcome.completed == outcome.on_disk == FILES and outcome.exit_code == 0 and outcome.happened == 4
    again = sum(outcome.sent.values()) - len(outcome.sent)
    rows = [
        ("staged, and there at the end", f"{outcome.completed}, {outcome.on_disk} of {FILES}"),
        ("sent again by the PACSs", f"{again}"),
        ("progress went backwards", "yes" if outcome.went_backwards else f"no, in {len(outcome.told)} answers"),
        ("mdmfs stage ended with", f"{outcome.exit_code} after {outcome.seconds:.0f} s"),
    ]
    often = float(max(outcome.sent.values()))
    is_promised = is_whole and not outcome.went_backwards
    return Measured(("500 files of 3 PACSs", ""), rows, often if is_promised else float("inf"))


BENCH = Bench(measure, bar=2, at_most=True)
