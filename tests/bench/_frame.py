"""What a bench is: a measurement that gives a table and a ratio, and the bar the ratio has to meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Measured(NamedTuple):
    """One run: what the table says, and the ratio of ours to the peer's (or the other way round, as the bench says)."""

    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    ratio: float


class Bench(NamedTuple):
    """A module of this package names its own ``BENCH``."""

    measure: Callable[[], Measured]
    bar: float
    at_most: bool = False
    """Whether the ratio has to stay at or below the bar."""
