"""Rows in LMDB: one big sparse map, synced commits, one writer at a time off the event loop."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn, Self, TypeVar, cast

import lmdb
import outcome
import trio

from mdmfs.journal.durable import sync_directory
from mdmfs.model.errors import ConfigurationError, OutOfSpaceError, StoreError
from mdmfs.rows.environment import (
    MAP_SIZE,
    locked,
    make_private,
    named_error,
    naming_errors,
    open_environment,
    opening,
    told_full,
    value_of,
)
from mdmfs.rows.port import Layout
from mdmfs.rows.turns import Act, Turns

LEAST_FREE_BYTES: Final = 2**16
"""Less than that on the disk after a failed write, and the disk was full."""

T = TypeVar("T")
E = TypeVar("E", bound="Embedded")


class Embedded:
    """``Engine`` in one directory of mode 0700.

    Acts that wait while a commit is being synced share the next one; each runs in a nested transaction, so that an
    exception undoes its own act only.
    """

    def __init__(self, path: Path, env: lmdb.Environment, layout: Layout) -> None:
        self._path = path
        self._env = env
        self._layout = layout
        self._tables = {byte: env.open_db(name) for byte, name in layout.tables.items()}
        self._turns = Turns(self._commit)
        self._is_closed = False
        self.held = contextlib.ExitStack()
        """What is let go when this is closed."""

    @classmethod
    def open(cls, path: Path, layout: Layout, *, map_size: int = MAP_SIZE) -> Self:
        """Open what is in a directory, and make both where they are missing; a store of an older format is brought up.

        Raises ``ConfigurationError`` if others may enter the directory, ``StoreError`` if the store cannot be opened or
        has a newer format: then nothing of it is changed.
        """
        make_private(path, layout)
        with opening(path, layout):
            env = open_environment(path, map_size)
        return begun(path, layout, env, lambda: cls(path, env, layout))

    @classmethod
    @contextlib.contextmanager
    def looking(cls, path: Path, layout: Layout) -> Iterator[Self]:
        """Give a store to read from, also while the daemon works on it; nothing is made. Raises ``StoreError``."""
        with opening(path, layout):
            env = open_environment(path, is_read_only=True)
        try:
            with opening(path, layout):
                layout.format.refuse_other(value_of(env, layout, layout.mark), path)
                engine = cls(path, env, layout)
            yield engine
        finally:
            env.close()

    async def write(self, act: Callable[[LmdbRows], T]) -> T:
        """See ``Engine.write``."""
        return await self._turns.run(act)  # type: ignore[arg-type] # ours are the rows that it gets

    def read(self, act: Callable[[LmdbRows], T]) -> T:
        """See ``Engine.read``."""
        self._refuse_closed()
        with naming_errors(self._layout, self._path):
            return read_rows(LmdbRows(self._env.begin(), self._tables, self._layout), act)

    def refuse_stale(self) -> None:
        """See ``Engine.refuse_stale``: this is the truth."""

    async def announce(self, told: str) -> None:
        """See ``Engine.announce``: nobody follows."""

    async def run(self) -> None:
        """See ``Engine.run``: nothing is to be seen to."""
        await trio.sleep_forever()

    def version(self) -> int:
        """Give the number of the last commit that a new view shows: LMDB tells another one before it can be seen."""
        self._refuse_closed()
        with naming_errors(self._layout, self._path), self._env.begin() as txn:
            return int(txn.id())

    async def aclose(self) -> None:
        """See ``Engine.aclose``."""
        with trio.CancelScope(shield=True):
            await self._turns.apart(self.close)

    def close(self) -> None:
        """Close, where nothing is being written any more."""
        self._is_closed = True
        self._env.close()
        self.held.close()

    def begin(self) -> None:
        """Make a new store ready, or bring an older one up; raises ``ConfigurationError`` for a database's copy."""
        if value_of(self._env, self._layout, self._layout.copied):
            message = (
                f"{self._path} is the copy of a database: say in the configuration which one (store), or bring the"
                f" {self._layout.what} back with mdmfs migrate --back"
            )
            raise ConfigurationError(message)
        self._env.reader_check()  # frees the slots of readers that were killed
        is_behind = True
        while is_behind:
            with self._transaction() as txn:
                is_behind = self._layout.begin(LmdbRows(txn, self._tables, self._layout), self._path)

    def _commit(self, acts: list[Act]) -> list[outcome.Outcome[Any]]:
        self._refuse_closed()
        with naming_errors(self._layout, self._path), self._naming_full_disk(), self._transaction() as txn:
            if len(acts) == 1:
                return [outcome.Value(acts[0].function(LmdbRows(txn, self._tables, self._layout)))]
            return [outcome.capture(self._run_nested, txn, act) for act in acts]

    def _run_nested(self, parent: lmdb.Transaction, act: Act) -> object:
        with naming_errors(self._layout, self._path), self._transaction(parent) as txn:
            return act.function(LmdbRows(txn, self._tables, self._layout))

    @contextlib.contextmanager
    def _transaction(self, parent: lmdb.Transaction | None = None) -> Iterator[lmdb.Transaction]:
        """Commit at the end, abort at an exception."""
        txn = self._env.begin(parent=parent, write=True)
        try:
            yield txn
            txn.commit()
        except BaseException:
            txn.abort()
            raise

    @contextlib.contextmanager
    def _naming_full_disk(self) -> Iterator[None]:
        """Tell a full disk from a broken one: LMDB reports a write that was cut short as EIO."""
        try:
            yield
        except lmdb.Error as error:
            if shutil.disk_usage(self._path).free < LEAST_FREE_BYTES:
                raise OutOfSpaceError(told_full(self._layout)) from error
            raise named_error(error, self._layout) from error

    def _refuse_closed(self) -> None:
        if self._is_closed:
            message = f"the {self._layout.what} is closed"
            raise StoreError(message, what_to_do="start its daemon again")


class _Ended:
    """In the place of a transaction that has ended."""

    def __getattr__(self, name: str) -> NoReturn:
        message = "the transaction has ended"
        raise lmdb.BadTxnError(message)


class LmdbRows:
    """``Rows`` of one LMDB transaction: a named database for each table.

    LMDB leaves pages half empty behind ascending keys, unless it is told that a key is the last one.
    """

    def __init__(
        self, txn: lmdb.Transaction, databases: dict[int, lmdb._Database], layout: Layout, *, counted_from: int = 0
    ) -> None:
        """``counted_from`` is added to the number of the last commit."""
        self._txn = txn
        self._databases = databases
        self._layout = layout
        self._counted_from = counted_from

    @property
    def version(self) -> int:
        """The number of the last commit."""
        return self._counted_from + int(self._txn.id())

    def end(self) -> None:
        """Let the transaction go: LMDB has 126 places for readers, and one that something still holds keeps its own."""
        self._txn.abort()  # and with it what goes through it
        self._txn = cast("lmdb.Transaction", _Ended())

    def get(self, key: bytes) -> bytes | None:
        """Give the value of a key, or None."""
        try:
            value = self._txn.get(key[1:], db=self._databases[key[0]])
        except lmdb.Error as error:
            raise named_error(error, self._layout) from error
        return value  # type: ignore[return-value] # bytes, since no transaction asks for buffers; a cast has its cost

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value."""
        try:
            database = self._databases[key[0]]
            is_last = key[0] in self._layout.ascending and self._txn.put(key[1:], value, append=True, db=database)
            if not is_last:
                self._txn.put(key[1:], value, db=database)
        except lmdb.Error as error:
            raise named_error(error, self._layout) from error

    def add(self, key: bytes, value: bytes) -> bool:
        """Keep a value where there is none yet."""
        try:
            return bool(self._txn.put(key[1:], value, overwrite=False, db=self._databases[key[0]]))
        except lmdb.Error as error:
            raise named_error(error, self._layout) from error

    def delete(self, key: bytes) -> bool:
        """Forget a key."""
        try:
            return bool(self._txn.delete(key[1:], db=self._databases[key[0]]))
        except lmdb.Error as error:
            raise named_error(error, self._layout) from error

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Go through the keys that begin with ``prefix``, from ``prefix + start`` on."""
        cut, within = len(prefix) - 1, prefix[1:]
        try:  # a context for it would take as long as a look
            with self._txn.cursor(self._databases[prefix[0]]) as cursor:
                if not cursor.set_range(within + start):
                    return
                for key, value in cast("Iterator[tuple[bytes, bytes]]", cursor.iternext()):
                    if not key.startswith(within):
                        return
                    yield key[cut:], value
        except lmdb.Error as error:
            raise named_error(error, self._layout) from error

    def scan_back(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Go through them from the last to the first."""
        cut, within = len(prefix) - 1, prefix[1:]
        after = key_after(within)
        with naming_errors(self._layout), self._txn.cursor(self._databases[prefix[0]]) as cursor:
            is_there = cursor.prev() if after and cursor.set_range(after) else cursor.last()
            if not is_there:
                return
            for key, value in cast("Iterator[tuple[bytes, bytes]]", cursor.iterprev()):
                if not key.startswith(within):
                    return
                yield key[cut:], value


def read_rows(rows: LmdbRows, act: Callable[[LmdbRows], T]) -> T:
    """Run what reads, and let go of the transaction, whatever goes on holding the rows.

    Nothing but ``rows`` may hold it: an exception that is kept keeps all that it came through.
    """
    try:
        return act(rows)
    finally:
        rows.end()


def key_after(prefix: bytes) -> bytes:
    """Give the least key that comes after all that begin with a prefix; empty where there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b""


def begun(path: Path, layout: Layout, env: lmdb.Environment, make: Callable[[], E]) -> E:
    """Make the engine over an environment and bring its store up to date, or close it."""
    held = contextlib.ExitStack()
    try:
        _refuse_moving(path, is_ours=held.enter_context(locked(path, is_alone=False)))
        with opening(path, layout):
            layout.format.number_of(value_of(env, layout, layout.mark) or layout.format.mark, path)  # or it is refused
            engine = make()
            engine.begin()
        sync_directory(path)
    except BaseException:
        env.close()
        held.close()
        raise
    engine.held.push(held)
    return engine


def _refuse_moving(path: Path, *, is_ours: bool) -> None:
    if not is_ours:
        message = f"{path} is being moved into a database: start the daemon once that is over"
        raise ConfigurationError(message)
