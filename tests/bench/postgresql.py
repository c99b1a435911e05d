"""A hospital's store in PostgreSQL: lookups at 10,000 and a million files, registration, moving, and a lost primary.

Lookups and listings are those of `catalogue`, asked of a copy that was loaded from the database. Registration stands
beside bare inserts of the rows that it leaves, in as many commits, into a table of the same server. Then a primary is
killed with all its processes during a thousand registrations and a thousand questions, and its standby promoted: each
registration is there once. The ratio is the worst of all bars, as a part of its bar. ``CATALOGUE_FILES`` names other
numbers of files.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import psycopg
import trio

from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.hospital.store import Store, store_layout
from mdmfs.rows.copied import Copied
from mdmfs.rows.migrate import bring_in
from tests.bench._catalogue import BATCH, SERIES, fill, lay
from tests.bench._failover import FailedOver, fail_over
from tests.bench._frame import Bench, Measured
from tests.bench.catalogue import Cost, asked_of
from tests.twins.postgresql import new_database, running_pair, running_postgresql

SIZES: Final = tuple(int(size) for size in os.environ.get("CATALOGUE_FILES", "10000,1000000").split(","))
REGISTERED: Final = 20_000
ROUNDS: Final = 3
"""Of registration: single ones gave 0.2 to 0.5, as a machine swings."""
REGISTRATIONS: Final = 1000
FLAT, RATE = 3.0, 0.3


def measure() -> Measured:
    """Measure each size in a database of its own, then registration, then the lost primary."""
    rows, costs = [], []
    with running_postgresql() as server:
        for size in SIZES:
            with new_database(server) as url:
                cost, moved, loaded = _of_size(url, size)
            costs.append(cost)
            rows.append((f"{size:,} files", *(f"{micros:.1f}" for micros in cost), f"{moved:,.0f}", f"{loaded:,.0f}"))
            sys.stderr.write(", ".join(rows[-1]) + "\n")
        rounds = []
        for _ in range(ROUNDS):
            with new_database(server) as url:
                rounds.append(_registration(url))
    with running_pair() as pair:
        failed_over = fail_over(pair, REGISTRATIONS)
    rate, ours = statistics.median(ours / bare for ours, bare in rounds), statistics.median(ours for ours, _ in rounds)
    flat = max(last / first for first, last in zip(costs[0], costs[-1], strict=True))
    rows += [
        ("last beside first", *(f"{b / a:.2f}" for a, b in zip(costs[0], costs[-1], strict=True)), "", ""),
        (f"registration: {ours:,.0f} files/s, {rate:.2f} of bare inserts (bar {RATE})", *[""] * 6),
        (_told(failed_over), *[""] * 6),
    ]
    heading = ("", "us a name", "us a GUID", "us a slice", "us a subject", "moved, rows/s", "loaded, rows/s")
    is_whole = failed_over.registered == failed_over.acknowledged == REGISTRATIONS
    return Measured(heading, rows, max(flat / FLAT, RATE / rate) if is_whole else float("inf"))


def _told(it: FailedOver) -> str:
    return (
        f"{it.acknowledged} of {REGISTRATIONS} acknowledged, {it.registered} there over a lost primary,"
        f" longest {it.longest_write:.1f} s; {it.read} of {REGISTRATIONS} read, longest silence {it.silence:.1f} s"
    )


def _of_size(url: str, size: int) -> tuple[Cost, float, float]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        laid, copy = Path(name) / "store", Path(name) / "copy"
        trio.run(_begin, laid)
        lay(laid, range(size // SERIES))
        begun = time.perf_counter()
        rows = bring_in(laid, store_layout(), url, lambda _: None).rows
        moved = time.perf_counter() - begun
        begun = time.perf_counter()
        engine = Copied.open_url(copy, store_layout(), url)
        loaded = time.perf_counter() - begun
        cost = asked_of(Store(engine), size, random.Random(7))  # noqa: S311 the same questions in each run
        engine.close()
        return cost, rows / moved, rows / loaded


async def _begin(path: Path) -> None:
    await LmdbStore.open(path).aclose()


def _registration(url: str) -> tuple[float, float]:
    """Give files a second: registered, and as bare rows in as many commits."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        seconds = trio.run(_register, Path(name) / "store", url)
    with psycopg.connect(url, autocommit=True) as connection:
        kept = connection.execute("select key, value from kept", binary=True).fetchall()
        random.Random(7).shuffle(kept)  # noqa: S311 as they came: of many tables, and under random keys
        connection.execute("create table bare (key bytea primary key, value bytea not null)")
        commits = 2 * REGISTERED // SERIES // BATCH
        begun = time.perf_counter()
        for turn in range(commits):
            part = kept[len(kept) * turn // commits : len(kept) * (turn + 1) // commits]
            columns = [key for key, _ in part], [value for _, value in part]
            connection.execute("insert into bare select * from unnest(%b::bytea[], %b::bytea[])", columns)
        bare = time.perf_counter() - begun
    return REGISTERED / seconds, REGISTERED / bare


async def _register(path: Path, url: str) -> float:
    store = Store(Copied.open_url(path, store_layout(), url))
    took = await fill(store, range(REGISTERED // SERIES))
    await store.aclose()
    return took


BENCH = Bench(measure, bar=1, at_most=True)
