"""Programs on the mount beside the same programs on a plain directory with the same bytes.

Each runs once, which recalls what it reads, then three times on either. The ratio is the median over the programs of
plain directory to mount; docs/programs.md has the table.
"""

from __future__ import annotations

import itertools
import shutil
import statistics
import tempfile
from pathlib import Path

from tests.bench._chain import timed
from tests.bench._frame import Bench, Measured
from tests.twins.programs import PACKAGES, PROGRAMS, Program, mounted_series

ROUNDS = 3


def measure() -> Measured:
    """Let every program that is installed do its work on both."""
    missing = [program.name for program in PROGRAMS if not program.is_installed()]
    assert not missing, f"{missing} are missing: apt-get install {PACKAGES}"
    rows, ratios = [], []
    with tempfile.TemporaryDirectory() as folder, mounted_series(Path(folder)) as (series, mr):
        plain = Path(folder) / "plain" / "ct", Path(folder) / "plain" / "mr"
        for source, copy in zip((series, mr), plain, strict=True):
            shutil.copytree(source, copy)
        outs = (Path(folder) / f"out-{number}" for number in itertools.count())
        for program in PROGRAMS:
            first = _seconds(program, series, mr, next(outs))
            ours, theirs = [], []
            for _ in range(ROUNDS):
                ours.append(_seconds(program, series, mr, next(outs)))
                theirs.append(_seconds(program, *plain, next(outs)))
            took, bare = statistics.median(ours), statistics.median(theirs)
            ratios.append(bare / took)
            rows.append((program.name, f"{first:.2f}", f"{took:.2f}", f"{bare:.2f}", f"{ratios[-1]:.2f}"))
    return Measured(
        ("seconds", "mount, first", "mount, then", "plain directory", "ratio"), rows, statistics.median(ratios)
    )


def _seconds(program: Program, series: Path, mr: Path, out: Path) -> float:
    return timed(lambda: program.run(series, mr, out))


BENCH = Bench(measure, bar=0.8)
