"""A million damaged instances: none crashes or hangs the engine, and no refusal shows what was in one.

Nothing is compared with a peer; printed is how many failed. The numbers of those that did are in the table: the same
number gives the same damage (``tests.twins.deid_fuzz.survives``).
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType

from tests.bench._frame import Bench, Measured
from tests.twins.deid_fuzz import survives

INPUTS = 1_000_000
SLICE = 1000
LONGEST = 20
"""Seconds for one slice of inputs, more than it takes on a busy machine."""


class HungError(Exception):
    """A slice did not end."""


@contextlib.contextmanager
def ending(seconds: int) -> Iterator[None]:
    """Raise ``HungError`` in what takes longer."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise HungError

    signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def attempt(first: int) -> tuple[int, list[str]]:
    """Try some inputs; gives how many were refused, and what went wrong."""
    refused, wrong = 0, []
    for number in range(first, first + SLICE):
        try:
            with ending(LONGEST):
                refused += survives(number)
        except Exception as error:  # noqa: BLE001 whatever it is, it is what we look for
            wrong.append(f"{number}: {type(error).__name__}")
    return refused, wrong


def measure() -> Measured:
    """Go through all inputs on every core."""
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        results = list(pool.imap_unordered(attempt, range(0, INPUTS, SLICE)))
    refused = sum(count for count, _ in results)
    wrong = list(itertools.chain.from_iterable(each for _, each in results))
    seconds = time.perf_counter() - start
    rows = [
        ("refused", f"{refused:,}"),
        ("de-identified", f"{INPUTS - refused - len(wrong):,}"),
        ("crashed, hung or told something", f"{len(wrong):,} {' '.join(wrong[:10])}"),
        ("inputs per second", f"{INPUTS / seconds:,.0f}"),
    ]
    return Measured((f"{INPUTS:,} damaged instances", ""), rows, float(len(wrong)))


BENCH = Bench(measure, bar=0, at_most=True)
