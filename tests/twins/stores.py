"""Opens each implementation of the hospital's store for the contract tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.hospital.store import FEED_LENGTH, Store, store_layout
from mdmfs.rows.copied import Copied
from tests.twins.records import counting_random
from tests.twins.store import MemoryStore


def beginning() -> float:
    """Tell of a clock that stands still: versions of ACLs are counted then."""
    return 0.0


def memory_store(_: Path, *, feed_length: int = FEED_LENGTH) -> Store:
    """Open the twin."""
    return MemoryStore(random=counting_random(), feed_length=feed_length, clock=beginning)


def lmdb_store(path: Path, *, feed_length: int = FEED_LENGTH) -> Store:
    """Open LMDB, in a map that is small enough for every address space."""
    options = {"map_size": 2**28, "feed_length": feed_length}
    return LmdbStore.open(path / "store", random=counting_random(), clock=beginning, **options)


def copied_store(path: Path, url: str, *, feed_length: int = FEED_LENGTH) -> Store:
    """Open PostgreSQL, with its copy in as small a map."""
    random = counting_random()
    engine = Copied.open_url(path / "store", store_layout(random), url, map_size=2**28)
    return Store(engine, random, feed_length, beginning)


STORES: Final[dict[str, Callable[..., Store]]] = {"twin": memory_store, "lmdb": lmdb_store}
