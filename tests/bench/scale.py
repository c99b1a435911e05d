"""The countries of docs/scale.md, simulated from the measured costs in tests/sim: where each is too busy.

The ratio is how many of the countries that docs/scale.md calls enough still have a bottleneck.
"""

from __future__ import annotations

from tests.bench._frame import Bench, Measured
from tests.sim import figures
from tests.sim.country import COUNTRIES, Country, simulate

SECONDS = 1.0


def measure() -> Measured:
    """Simulate all."""
    rows = [row(country, SECONDS) for country in COUNTRIES]
    bad = sum(row[-1] != "none" for country, row in zip(COUNTRIES, rows, strict=True) if country.is_enough)
    return Measured(HEADING, rows, bad)


HEADING = ("country", "mounts", "opens/s", "PACS", "hospitald", "keystored", "open p50", "p99", "bottleneck")


def row(country: Country, seconds: float) -> tuple[str, ...]:
    """Simulate one, and tell of it as docs/scale.md does."""
    outcome = simulate(country, figures.read(), seconds)
    busy = [f"{outcome.utilisation[kind]:.0%}" for kind in ("PACS", "hospitald", "keystored")]
    times = [f"{seconds * 1e3:.0f} ms" for seconds in (outcome.median, outcome.p99)]
    rate = f"{country.mounts * country.opens:.0f}"
    return (country.name, f"{country.mounts:,}", rate, *busy, *times, outcome.bottleneck)


BENCH = Bench(measure, bar=0, at_most=True)
