"""The hospital's store in memory: a sorted dictionary below the same logic, with transactions that can be undone."""

from __future__ import annotations

import bisect
import functools
import secrets
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import trio

from mdmfs.hospital.store import FEED_LENGTH, Transaction, store_layout
from mdmfs.model.errors import PeerUnreachableError, StoreError
from mdmfs.rows.port import MAX_KEY_BYTES

T = TypeVar("T")


class MemoryStore:
    """``Store`` without a disk."""

    def __init__(
        self,
        *,
        random: Callable[[int], bytes] = secrets.token_bytes,
        feed_length: int = FEED_LENGTH,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.table = Table()
        """What it holds, for who looks for what must not be there."""
        self._view = functools.partial(Transaction, random=random, feed_length=feed_length, clock=clock)
        self._is_closed = False
        self.is_stale = False
        """As if it were the copy of a database that is not heard of."""
        self._version = 0
        self._is_reading = False
        rows = MemoryRows(self.table, is_writing=True)
        store_layout(random).begin(rows, "a twin")
        rows.end()

    async def write(self, act: Callable[[Transaction], T]) -> T:
        """Run ``act``; an exception undoes it."""
        await trio.lowlevel.checkpoint()
        self._version += 1
        return self._run(act, is_writing=True)

    def read(self, act: Callable[[Transaction], T]) -> T:
        """Run ``act``, which may not write."""
        self._is_reading = True
        try:
            return self._run(act, is_writing=False)
        finally:
            self._is_reading = False

    def version(self) -> int:
        """Count the writes; not inside a view: a copy's would wait for itself."""
        assert not self._is_reading
        if self._is_closed:
            message = "the store is closed"
            raise StoreError(message)
        return self._version

    def refuse_stale(self) -> None:
        """Refuse where a test says so."""
        if self.is_stale:
            message = "the store has not heard of its database"
            raise PeerUnreachableError(message)

    async def run(self) -> None:
        """Have nothing to see to."""
        await trio.sleep_forever()

    async def aclose(self) -> None:
        """Close: nothing works afterwards."""
        await trio.lowlevel.checkpoint()
        self._is_closed = True

    def _run(self, act: Callable[[Transaction], T], *, is_writing: bool) -> T:
        if self._is_closed:
            message = "the store is closed"
            raise StoreError(message)
        rows = MemoryRows(self.table, is_writing=is_writing, version=self._version)
        try:
            tx = self._open(rows)
            result = act(tx)
            tx.finish()
        except BaseException:
            rows.undo()
            raise
        else:
            return result
        finally:
            rows.end()

    def _open(self, rows: MemoryRows) -> Transaction:
        return self._view(rows)


class Table:
    """Keys in order, and their values."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.values: dict[bytes, bytes] = {}

    def set(self, key: bytes, value: bytes | None) -> bytes | None:
        """Set or, with None, remove a value; give the one before."""
        before = self.values.get(key)
        if value is None:
            if before is not None:
                del self.values[key]
                del self.keys[bisect.bisect_left(self.keys, key)]
            return before
        if before is None:
            bisect.insort(self.keys, key)
        self.values[key] = value
        return before


class MemoryRows:
    """``Rows`` over a table, with a log of what was there before."""

    def __init__(self, table: Table, *, is_writing: bool, version: int = 0) -> None:
        self.version = version
        self._table = table
        self._is_writing = is_writing
        self._has_ended = False
        self._before: list[tuple[bytes, bytes | None]] = []

    def get(self, key: bytes) -> bytes | None:
        """Give the value of a key, or None."""
        self._refuse_ended()
        _refuse_odd_length(key)
        return self._table.values.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value."""
        self._set(key, value)

    def add(self, key: bytes, value: bytes) -> bool:
        """Keep a value where there is none yet."""
        return self.get(key) is None and self._set(key, value) is None

    def delete(self, key: bytes) -> bool:
        """Forget a key."""
        return self._set(key, None) is not None

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Go through the keys that begin with ``prefix``, from ``prefix + start`` on."""
        self._refuse_ended()
        index = bisect.bisect_left(self._table.keys, prefix + start)
        written = len(self._before)
        while index < len(self._table.keys) and self._table.keys[index].startswith(prefix):
            key = self._table.keys[index]
            yield key[len(prefix) :], self._table.values[key]
            self._refuse_ended()
            assert len(self._before) == written, "something was written during a scan"
            index += 1

    def scan_back(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Go through the keys that begin with ``prefix``, from the last to the first."""
        yield from reversed(list(self.scan(prefix)))

    def undo(self) -> None:
        """Bring back all that was there."""
        for key, value in reversed(self._before):
            self._table.set(key, value)

    def end(self) -> None:
        """Be of no use from here on."""
        self._has_ended = True

    def _set(self, key: bytes, value: bytes | None) -> bytes | None:
        self._refuse_ended()
        _refuse_odd_length(key)
        if not self._is_writing:
            message = "a reading transaction does not write"
            raise StoreError(message)
        before = self._table.set(key, value)
        self._before.append((key, before))
        return before

    def _refuse_ended(self) -> None:
        if self._has_ended:
            message = "the transaction has ended"
            raise StoreError(message)


def _refuse_odd_length(key: bytes) -> None:
    if not 0 < len(key) - 1 <= MAX_KEY_BYTES:
        message = f"a key has a table's byte and 1 to {MAX_KEY_BYTES} more"
        raise StoreError(message)
