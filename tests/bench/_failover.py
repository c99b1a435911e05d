"""A primary that is lost while a store on it is written and read; for the bench and its test."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import NamedTuple

import trio

from mdmfs.hospital.store import Store, Transaction, store_layout
from mdmfs.model.errors import PeerUnreachableError
from mdmfs.rows.copied import Copied, Waiting
from tests.twins.postgresql import Pair
from tests.twins.records import OWNER_ONLY, SERIES_LFN, guid_of, instance_of, new_file

WRITERS = 20
PART = 0.3
"""Of the registrations, after which the primary is lost."""
PAUSE = 0.005
"""Seconds between two questions."""


class FailedOver(NamedTuple):
    """What came of it."""

    acknowledged: int
    registered: int
    """As another machine finds it: files, each with its row in three tables and its place in the outbox."""
    longest_write: float
    read: int
    """Questions that were answered at once."""
    silence: float
    """The longest while, in seconds, in which nobody would have been answered."""


def fail_over(pair: Pair, count: int) -> FailedOver:
    """Register files from twenty tasks and ask as many questions, and lose the primary meanwhile."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        return trio.run(_fail_over, pair, count, Path(name))


async def _fail_over(pair: Pair, count: int, folder: Path) -> FailedOver:
    engine = await trio.to_thread.run_sync(Copied.open_url, folder / "first", store_layout(), pair.url)
    store, run = Store(engine), _Run(count)
    await store.write(lambda tx: tx.catalogue.make_directories(SERIES_LFN, acl=OWNER_ONLY))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        nursery.start_soon(run.ask, store)
        async with trio.open_nursery() as writers:
            for _ in range(WRITERS):
                writers.start_soon(run.register, store)
            await run.has_begun.wait()
            await trio.to_thread.run_sync(pair.fail_over)
        await run.is_asked.wait()
        nursery.cancel_scope.cancel()
    await store.aclose()
    at_once = Waiting(sleep=lambda _: None)  # the first is closed, and tells nothing more
    open_second = functools.partial(Copied.open_url, waiting=at_once)
    engine = await trio.to_thread.run_sync(open_second, folder / "second", store_layout(), pair.url)
    registered = engine_count(Store(engine), count)
    await engine.aclose()
    return FailedOver(len(run.acknowledged), registered, run.longest, run.read, run.silence)


class _Run:
    def __init__(self, count: int) -> None:
        self._count = count
        self._numbers = iter(range(count))
        self.acknowledged: set[int] = set()
        self.longest = self.silence = 0.0
        self.read = 0
        self.has_begun, self.is_asked = trio.Event(), trio.Event()

    async def register(self, store: Store) -> None:
        """Register one file after the other."""
        for number in self._numbers:
            begun = trio.current_time()
            await store.write(functools.partial(_register, number=number))
            self.longest = max(self.longest, trio.current_time() - begun)
            self.acknowledged.add(number)
            if len(self.acknowledged) >= PART * self._count:
                self.has_begun.set()

    async def ask(self, store: Store) -> None:
        """Ask as the grid does; what is not answered is asked again."""
        last = trio.current_time()
        while self.read < self._count or len(self.acknowledged) < self._count:
            await trio.sleep(PAUSE)
            try:
                store.refuse_stale()
                known = store.read(lambda tx: tx.catalogue.list_page(1, limit=10).nodes)
                store.refuse_stale()
            except PeerUnreachableError:
                continue
            assert len(known) <= 1
            self.silence, last = max(self.silence, trio.current_time() - last), trio.current_time()
            self.read += 1
        self.is_asked.set()


def _register(tx: Transaction, number: int) -> None:
    tx.uidmap.tie(guid_of(number), instance_of(number))
    tx.catalogue.add_file(SERIES_LFN / f"{number}", new_file(number))
    tx.outbox.push("key1", "shares", instance_of(number).series.octets(), b"%d" % number)
    tx.catalogue.show([guid_of(number)])


def engine_count(store: Store, count: int) -> int:
    """Count what is registered, whole and once; raises ``AssertionError`` for what is not."""

    def read(tx: Transaction) -> int:
        waiting = [int(item.payload) for item in tx.outbox.peek("key1", limit=10 * count)]
        assert len(set(waiting)) == len(waiting)
        assert all(tx.uidmap.resolve(guid_of(number)) for number in waiting)
        assert tx.catalogue.totals().files == len(waiting)
        return len(waiting)

    return store.read(read)
