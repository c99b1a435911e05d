"""The hospital's store in LMDB: one big sparse map, synced commits, one writer at a time off the event loop."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast

import lmdb
import outcome
import trio

from mdmfs.hospital import tables
from mdmfs.hospital.rows import Rows
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.transaction import FEED_LENGTH, STORE_FORMAT, STORE_MARK, RowsTransaction
from mdmfs.model.errors import ConfigurationError, OutOfSpaceError, StoreError
from mdmfs.wire.formats import Format

MAP_SIZE: Final = 2**38
"""256 GiB of address space, not of disk: some 500 million files. LMDB never has to resize it."""
MAX_TABLES: Final = 64
MAX_ACTS_PER_COMMIT: Final = 64
_PACKED_AT_ONCE: Final = 100_000
"""Rows of one transaction, whose changed pages are in memory: some 30 MiB."""

LEAST_FREE_BYTES: Final = 2**16
"""Less than that on the disk after a failed write, and the disk was full."""
_FULL: Final = "the hospital's store is full: make room on its disk; nothing of this write was kept"
_ASCENDING: Final = frozenset(name[0] for name in tables.ASCENDING)

T = TypeVar("T")


class LmdbStore:
    """``Store`` in one directory of mode 0700.

    Acts that wait while a commit is being synced share the next one; each runs in a nested transaction, so that an
    exception undoes its own act only.
    """

    def __init__(
        self,
        path: Path,
        env: lmdb.Environment,
        random: Callable[[int], bytes] = secrets.token_bytes,
        feed_length: int = FEED_LENGTH,
    ) -> None:
        self._path = path
        self._env = env
        self._transact = functools.partial(RowsTransaction, random=random, feed_length=feed_length)
        self._tables = {name[0]: env.open_db(name) for name in tables.ALL}
        self._waiting: list[_Act] = []
        self._turn = trio.Lock()
        self._threads = trio.CapacityLimiter(1)
        self._is_closed = False

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        map_size: int = MAP_SIZE,
        random: Callable[[int], bytes] = secrets.token_bytes,
        feed_length: int = FEED_LENGTH,
        store_format: Format[Rows] = STORE_FORMAT,
    ) -> Self:
        """Open the store in a directory, and make both where they are missing; one of an older format is brought up.

        Raises ``ConfigurationError`` if others may enter the directory, ``StoreError`` if the store cannot be opened or
        has a newer format: then nothing of it is changed.
        """
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_mode & 0o077:
            message = f"others may enter {path}, where patients are kept: chmod 700 it"
            raise ConfigurationError(message)
        with _naming_errors(path):
            env = lmdb.open(str(path), map_size=map_size, max_dbs=MAX_TABLES, mode=0o600)
        try:
            with _naming_errors(path):
                store_format.number_of(_mark_of(env) or store_format.mark, path)  # or it is refused
                store = cls(path, env, random, feed_length)
                store._begin(store_format)
        except BaseException:
            env.close()
            raise
        return store

    @classmethod
    @contextlib.contextmanager
    def looking(cls, path: Path) -> Iterator[Self]:
        """Give a store to read from, also while the daemon works on it; nothing is made. Raises ``StoreError``."""
        with _naming_errors(path):
            env = lmdb.open(str(path), map_size=MAP_SIZE, max_dbs=MAX_TABLES, readonly=True, create=False)
        try:
            with _naming_errors(path):
                STORE_FORMAT.refuse_other(_mark_of(env), path)
                store = cls(path, env)
            yield store
        finally:
            env.close()

    async def write(self, act: Callable[[Transaction], T]) -> T:
        """Run ``act`` in a transaction of its own, off the event loop; raises what it raises."""
        await trio.lowlevel.checkpoint_if_cancelled()
        mine = _Act(act)
        self._waiting.append(mine)
        with trio.CancelScope(shield=True):  # from here on, whoever has the turn may run it
            async with self._turn:
                while not mine.results:
                    acts, self._waiting = self._waiting[:MAX_ACTS_PER_COMMIT], self._waiting[MAX_ACTS_PER_COMMIT:]
                    await trio.to_thread.run_sync(self._commit, acts, limiter=self._threads)
        return cast("T", mine.results[0].unwrap())

    def read(self, act: Callable[[Transaction], T]) -> T:
        """Run ``act`` on what is committed, on the calling thread."""
        self._refuse_closed()
        with _naming_errors(self._path), self._env.begin() as txn:
            return act(self._view(txn))

    def version(self) -> int:
        """Give the number of the last commit."""
        self._refuse_closed()
        return int(self._env.info()["last_txnid"])

    async def aclose(self) -> None:
        """Wait for the writes that have begun, and close."""
        with trio.CancelScope(shield=True):
            async with self._turn:
                self._is_closed = True
                self._env.close()

    def _begin(self, store_format: Format[Rows]) -> None:
        self._env.reader_check()  # frees the slots of readers that were killed
        is_behind = True
        while is_behind:
            with _transaction(self._env) as txn:
                is_behind = self._view(txn).begin_store(self._path, store_format)

    def _view(self, txn: lmdb.Transaction) -> RowsTransaction:
        return self._transact(LmdbRows(txn, self._tables))

    def _commit(self, acts: list[_Act]) -> None:
        """Run acts in one commit; each result stands only once that is on disk."""
        try:
            self._refuse_closed()
            results = self._run(acts)
        except Exception as error:  # noqa: BLE001 - the thread boundary: each waiting caller gets it
            results = [outcome.Error(error)] * len(acts)
        for act, result in zip(acts, results, strict=True):
            act.results.append(result)

    def _run(self, acts: list[_Act]) -> list[outcome.Outcome[Any]]:
        with _naming_errors(self._path), self._naming_full_disk(), _transaction(self._env) as txn:
            if len(acts) == 1:
                return [outcome.Value(acts[0].function(self._view(txn)))]
            return [outcome.capture(self._run_nested, txn, act) for act in acts]

    @contextlib.contextmanager
    def _naming_full_disk(self) -> Iterator[None]:
        """Tell a full disk from a broken one: LMDB reports a write that was cut short as EIO."""
        try:
            yield
        except lmdb.Error as error:
            if shutil.disk_usage(self._path).free < LEAST_FREE_BYTES:
                raise OutOfSpaceError(_FULL) from error
            raise _named(error) from error

    def _run_nested(self, parent: lmdb.Transaction, act: _Act) -> object:
        with _naming_errors(self._path), _transaction(self._env, parent) as txn:
            return act.function(self._view(txn))

    def _refuse_closed(self) -> None:
        if self._is_closed:
            message = "the hospital's store is closed"
            raise StoreError(message, what_to_do="start hospitald again")


@dataclasses.dataclass(slots=True)
class _Act:
    """A call of ``write`` that waits for its turn."""

    function: Callable[[Transaction], object]
    results: list[outcome.Outcome[Any]] = dataclasses.field(default_factory=list)
    """Empty until it was run."""


class LmdbRows:
    """``Rows`` of one LMDB transaction: a named database for each table.

    LMDB leaves pages half empty behind ascending keys, unless it is told that a key is the last one.
    """

    def __init__(self, txn: lmdb.Transaction, databases: dict[int, lmdb._Database]) -> None:
        self._txn = txn
        self._databases = databases

    def get(self, key: bytes) -> bytes | None:
        """Give the value of a key, or None."""
        try:
            value = self._txn.get(key[1:], db=self._databases[key[0]])
        except lmdb.Error as error:
            raise _named(error) from error
        return value  # type: ignore[return-value] # bytes, since no transaction asks for buffers; a cast has its cost

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value."""
        try:
            database = self._databases[key[0]]
            is_last = key[0] in _ASCENDING and self._txn.put(key[1:], value, append=True, db=database)
            if not is_last:
                self._txn.put(key[1:], value, db=database)
        except lmdb.Error as error:
            raise _named(error) from error

    def delete(self, key: bytes) -> bool:
        """Forget a key."""
        try:
            return bool(self._txn.delete(key[1:], db=self._databases[key[0]]))
        except lmdb.Error as error:
            raise _named(error) from error

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Go through the keys that begin with ``prefix``, from ``prefix + start`` on."""
        cut, within = len(prefix) - 1, prefix[1:]
        with _naming_errors(), self._txn.cursor(self._databases[prefix[0]]) as cursor:
            if not cursor.set_range(within + start):
                return
            for key, value in cast("Iterator[tuple[bytes, bytes]]", cursor.iternext()):
                if not key.startswith(within):
                    return
                yield key[cut:], value


def pack(source: Path, target: Path) -> None:
    """Write a store that nobody has open anew, each page full, into a directory that is not there yet.

    LMDB's own compact copy leaves free pages out, but not what is free within pages: a third of every table whose keys
    come in random order. Raises ``StoreError`` and ``OutOfSpaceError``; the target is of no use then.
    """
    target.mkdir(mode=0o700)
    with _naming_errors(source), contextlib.ExitStack() as stack:
        old = stack.enter_context(
            lmdb.open(str(source), map_size=MAP_SIZE, max_dbs=MAX_TABLES, readonly=True, create=False)
        )
        new = stack.enter_context(lmdb.open(str(target), map_size=MAP_SIZE, max_dbs=MAX_TABLES, mode=0o600, sync=False))
        with old.begin() as txn:
            for name in txn.cursor().iternext(keys=True, values=False):
                rows = iter(txn.cursor(old.open_db(name, txn=txn, create=False)))
                table = new.open_db(name)
                while batch := list(itertools.islice(rows, _PACKED_AT_ONCE)):
                    with new.begin(write=True) as writing:
                        writing.cursor(table).putmulti(batch, append=True)
        new.sync(True)  # noqa: FBT003 the name of LMDB's own argument is "force"


def _mark_of(env: lmdb.Environment) -> bytes:
    """Read the mark of a store's format before anything else is opened, or made; empty where there is none."""
    try:
        table = env.open_db(tables.FORMAT, create=False)
    except (lmdb.NotFoundError, lmdb.ReadonlyError):
        return b""
    with env.begin(db=table) as txn:
        return bytes(txn.get(STORE_MARK[1:]) or b"")


@contextlib.contextmanager
def _transaction(env: lmdb.Environment, parent: lmdb.Transaction | None = None) -> Iterator[lmdb.Transaction]:
    """Commit at the end, abort at an exception."""
    txn = env.begin(parent=parent, write=True)
    try:
        yield txn
        txn.commit()
    except BaseException:
        txn.abort()
        raise


@contextlib.contextmanager
def _naming_errors(path: Path | None = None) -> Iterator[None]:
    """Name what LMDB says, and where the store lies, for the hospital's own people."""
    try:
        yield
    except lmdb.Error as error:
        named = _named(error)
        named.place = str(path or "")
        raise named from error
    except (StoreError, OutOfSpaceError) as error:
        error.place = error.place or str(path or "")
        raise


def _named(error: lmdb.Error) -> StoreError | OutOfSpaceError:
    """Give our name for what LMDB says."""
    if isinstance(error, lmdb.MapFullError | lmdb.DiskError):
        return OutOfSpaceError(_FULL)
    message = f"the hospital's store failed ({type(error).__name__}); nothing of this write was kept"
    return StoreError(message, what_to_do="see to its disk, or restore it from its backup: mdmfs restore")
