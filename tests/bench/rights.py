"""Ten thousand random callers and queries: found is what filtering first and asking afterwards finds.

And two hundred callers who try to tell from answers and errors what is in rows and attributes that are not for
them. The ratio is the part of pairs that agree; a disagreement ends the run with the pair.
"""

from __future__ import annotations

import logging
import os
import random
import tempfile
from pathlib import Path

import structlog

from mdmfs.metadata.store.database import open_database
from tests.bench._frame import Bench, Measured
from tests.twins.finding_check import hold_against_twin
from tests.twins.hidden_check import hold_alike
from tests.twins.random_metadata import change_an_acl, fill, random_metadata

PAIRS = int(os.environ.get("BENCH_RIGHTS_PAIRS", "10000"))
SPIES = int(os.environ.get("BENCH_RIGHTS_SPIES", "200"))
ROUNDS = 12
"""Of questions, each with a snapshot."""
OF_HOSPITAL = 200
OF_A_STATE = 20
"""Pairs until an ACL changes."""
SEED = os.environ.get("BENCH_RIGHTS_SEED", "0")


def measure() -> Measured:
    """Compare pair by pair, on SQLite."""
    agreed = hits = 0
    for number in range(PAIRS // OF_HOSPITAL):
        draw = random.Random(f"rights/{SEED}/{number}")  # noqa: S311 a seed
        with tempfile.TemporaryDirectory() as folder:
            database = open_database(str(Path(folder) / "private" / "metadata.sqlite"))
            twin = random_metadata(draw, series=12 + number % 20, records=20 + number % 30)
            fill(database, twin, draw, in_halves=bool(number % 2))
            for pair in range(OF_HOSPITAL):
                if pair % OF_A_STATE == OF_A_STATE - 1:
                    change_an_acl(database, twin, draw)
                hits += hold_against_twin(database, twin, draw)
                agreed += 1
            database.close()
    rows = [
        (str(PAIRS), str(agreed), f"{hits} found something"),
        (f"{SPIES} callers", f"{alike_of_all():,} answers", "alike, whatever is hidden"),
    ]
    return Measured(("pairs", "agreed", ""), rows, agreed / PAIRS)


def alike_of_all() -> int:
    """Count the answers that do not depend on what is hidden; raises at the first one that does."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    count = 0
    for number in range(SPIES):
        with tempfile.TemporaryDirectory() as folder:
            databases = [open_database(str(Path(folder) / name / "metadata.sqlite")) for name in ("one", "other")]
            count += hold_alike(databases, f"spies/{SEED}/{number}", ROUNDS)
            for database in databases:
                database.close()
    return count


BENCH = Bench(measure, bar=1.0)
