"""A hospital's store of 10,000, a million and ten million files: lookups, listings, bytes, memory, registration.

Lookups and listings run as hospitald runs them, each in a reading transaction of its own. Bytes are those of the file
after ``pack``, as a restored backup has them. Registration stands beside bare ``put`` of the rows that it leaves, in as
many commits of as many files. The ratio is the worst of all bars, as a part of its bar. Ten million files take seven
to fifteen minutes and 14 GB; ``CATALOGUE_FILES`` names other numbers.
"""

from __future__ import annotations

import functools
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import lmdb
import trio

from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.hospital.store import Store, Transaction, store_layout
from mdmfs.model.names import Guid
from mdmfs.rows.environment import MAP_SIZE, MAX_TABLES, pack
from tests.bench._catalogue import BATCH, PER_SUBJECT, SERIES, TOP, fill, lay, lfn_of, rows_of
from tests.bench._frame import Bench, Measured

SIZES: Final = tuple(int(size) for size in os.environ.get("CATALOGUE_FILES", "10000,1000000,10000000").split(","))
ASKED: Final = 5000
ROUNDS: Final = 3
REGISTERED: Final = 50_000
FLAT, OCTETS, RATE = 1.5, 300.0, 0.3
CATALOGUE: Final = b"fiekKdaABvtrP"
"""The tables of the catalogue; the others are the UID map's and the ledger's."""


class Cost(NamedTuple):
    """Microseconds: of a name, of a file by its GUID, of an entry in a listing of a series and of many subjects."""

    name: float
    guid: float
    slices: float
    subjects: float


def measure() -> Measured:
    """Grow one store; measure at each size."""
    dice = random.Random(7)  # noqa: S311 the same questions in each run
    rows, costs, parts, rate = [], [], [], registration()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder, before = Path(name), 0
        trio.run(_begin, folder / "store")
        for size in SIZES:
            lay(folder / "store", range(before // SERIES, size // SERIES))
            before = size
            pack(folder / "store", folder / "packed", store_layout())
            whole, catalogue = _octets(folder / "packed", size)
            cost, memory = trio.run(_ask, folder / "packed", size, dice)
            shutil.rmtree(folder / "packed")
            costs.append(cost)
            parts.append(catalogue / OCTETS)
            told = (f"{micros:.1f}" for micros in cost)
            rows.append((f"{size:,}", *told, f"{catalogue:.0f}", f"{whole:.0f}", f"{memory:.0f}"))
            sys.stderr.write(", ".join(rows[-1]) + "\n")  # the next size takes ten times as long
    flat = max(last / first for first, last in zip(costs[0], costs[-1], strict=True))
    rows += [
        ("last beside first", *(f"{b / a:.2f}" for a, b in zip(costs[0], costs[-1], strict=True)), "", "", ""),
        ("bars", *[f"{FLAT}"] * 4, f"{OCTETS:.0f}", "", ""),
        (f"registration: {rate:.2f} of bare inserts (bar {RATE})", "", "", "", "", "", "", ""),
    ]
    asked = ("us a name", "us a GUID", "us a slice", "us a subject")
    heading = ("files", *asked, "B/file, catalogue", "with UID map", "heap MiB")
    return Measured(heading, rows, max(flat / FLAT, *parts, RATE / rate))


async def _begin(path: Path) -> None:
    await LmdbStore.open(path).aclose()


def _octets(path: Path, files: int) -> tuple[float, float]:
    """Give the bytes of a file in the whole store, and in the pages of the catalogue."""
    pages = sum(pages for name, _, _, pages in rows_of(path) if name in CATALOGUE)
    return (path / "data.mdb").stat().st_size / files, pages / files


async def _ask(path: Path, size: int, dice: random.Random) -> tuple[Cost, float]:
    store = LmdbStore.open(path)
    before = _heap()
    cost = asked_of(store, size, dice)
    grown = _heap() - before
    await store.aclose()
    return cost, grown


def asked_of(store: Store, size: int, dice: random.Random) -> Cost:
    """Ask a store of so many files for names, GUIDs and listings."""
    asked = [(dice.randrange(size // SERIES), dice.randrange(SERIES)) for _ in range(ASKED)]
    names = [lfn_of(number) / f"{nth + 1:04}.dcm" for number, nth in asked]
    guids = [store.read(lambda tx, lfn=lfn: _guid(tx, lfn)) for lfn in names]
    series = [store.read(lambda tx, lfn=lfn: tx.catalogue.look_up(lfn.parent)) for lfn in names[: ASKED // 20]]
    top = store.read(lambda tx: tx.catalogue.look_up(TOP))
    assert top is not None
    subjects = -(-size // SERIES // PER_SUBJECT)
    listed = min(subjects, 5000)
    return Cost(
        _micros(lambda: [store.read(lambda tx, lfn=lfn: tx.catalogue.look_up(lfn)) for lfn in names], ASKED),
        _micros(lambda: [store.read(lambda tx, guid=guid: tx.catalogue.file(guid)) for guid in guids], ASKED),
        _micros(
            lambda: [store.read(functools.partial(_list, inode=node.inode, most=SERIES)) for node in series if node],
            len(series) * SERIES,
        ),
        _micros(
            lambda: [store.read(functools.partial(_list, inode=top.inode, most=listed)) for _ in range(5000 // listed)],
            5000 // listed * listed,
        ),
    )


def _guid(tx: Transaction, lfn: object) -> Guid:
    node = tx.catalogue.look_up(lfn)  # type: ignore[arg-type] # names of files
    assert node is not None
    return Guid(node.guid)


def _list(tx: Transaction, inode: int, most: int) -> None:
    """List as a mount does, page after page."""
    after, found = "", 0
    while found < most:
        page = tx.catalogue.list_page(inode, after=after, limit=most - found)
        found += len(page.nodes)
        after = page.nodes[-1].name
    assert found == most


def _micros(act: Callable[[], object], count: int) -> float:
    """Tell microseconds a piece, the best of some rounds: the first one may read from the disk."""
    took = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        act()
        took.append(time.perf_counter() - begun)
    return min(took) / count * 1e6


def _heap() -> float:
    """Tell the MiB of memory that are this process's own: the pages of the map are the kernel's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


def registration(files: int = REGISTERED) -> float:
    """Compare rates: registering files, beside bare inserts of the rows that stay of it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        ours, bare = Path(name) / "ours", Path(name) / "bare"
        seconds = trio.run(_register, ours, files // SERIES)
        return _insert(bare, list(_dumped(ours)), files // SERIES // BATCH) / seconds


async def _register(path: Path, series: int) -> float:
    store = LmdbStore.open(path)
    took = await fill(store, range(series))
    await store.aclose()
    return took


def _dumped(path: Path) -> Iterator[tuple[bytes, list[tuple[bytes, bytes]]]]:
    """Give the rows of each table; those under random keys in random order, as they came."""
    with lmdb.open(str(path), map_size=MAP_SIZE, max_dbs=MAX_TABLES, readonly=True) as env, env.begin() as txn:
        for table in txn.cursor().iternext(keys=True, values=False):
            rows = list(txn.cursor(env.open_db(table, txn=txn, create=False)))
            if table in b"igu":
                random.Random(7).shuffle(rows)  # noqa: S311 the same order in each run
            yield table, rows


def _insert(path: Path, dumped: Sequence[tuple[bytes, list[tuple[bytes, bytes]]]], commits: int) -> float:
    with lmdb.open(str(path), map_size=MAP_SIZE, max_dbs=MAX_TABLES) as env:
        databases = {table: env.open_db(table) for table, _ in dumped}
        begun = time.perf_counter()
        for turn in range(commits):
            with env.begin(write=True) as txn:
                for table, rows in dumped:
                    database = databases[table]
                    for key, value in rows[len(rows) * turn // commits : len(rows) * (turn + 1) // commits]:
                        txn.put(key, value, db=database)
        return time.perf_counter() - begun


BENCH = Bench(measure, bar=1, at_most=True)
