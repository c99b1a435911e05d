"""Rows in LMDB: one big sparse map, synced commits, one writer at a time off the event loop."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn, Self, TypeVar, cast

import lmdb
import outcome
import trio

from mdmfs.journal.durable import make_directory, sync_directory
from mdmfs.model.errors import ConfigurationError, OutOfSpaceError, StoreError, unusable
from mdmfs.rows.port import Layout
from mdmfs.rows.turns import Act, Turns

MAP_SIZE: Final = 2**38
"""256 GiB of address space, not of disk: some 500 million files. Resizing a live map is where LMDB can go wrong."""
MAX_TABLES: Final = 64
STORE_FILE: Final = "data.mdb"
LOCK_FILE: Final = "lock.mdb"
_READERS_BYTES: Final = 2**13
"""Of 126 readers, as LMDB has them by default, with its head."""
_PACKED_AT_ONCE: Final = 100_000
"""Rows of one transaction, whose changed pages are in memory: some 30 MiB."""
_TO_DO: Final = "see to its disk, or restore it from its backup: mdmfs restore"
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
                layout.format.refuse_other(_value_of(env, layout, layout.mark), path)
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
        return self.read(lambda rows: rows.version)

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
        if _value_of(self._env, self._layout, self._layout.copied):
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
                raise OutOfSpaceError(_full(self._layout)) from error
            raise _named(error, self._layout) from error

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
            raise _named(error, self._layout) from error
        return value  # type: ignore[return-value] # bytes, since no transaction asks for buffers; a cast has its cost

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value."""
        try:
            database = self._databases[key[0]]
            is_last = key[0] in self._layout.ascending and self._txn.put(key[1:], value, append=True, db=database)
            if not is_last:
                self._txn.put(key[1:], value, db=database)
        except lmdb.Error as error:
            raise _named(error, self._layout) from error

    def add(self, key: bytes, value: bytes) -> bool:
        """Keep a value where there is none yet."""
        try:
            return bool(self._txn.put(key[1:], value, overwrite=False, db=self._databases[key[0]]))
        except lmdb.Error as error:
            raise _named(error, self._layout) from error

    def delete(self, key: bytes) -> bool:
        """Forget a key."""
        try:
            return bool(self._txn.delete(key[1:], db=self._databases[key[0]]))
        except lmdb.Error as error:
            raise _named(error, self._layout) from error

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
            raise _named(error, self._layout) from error

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


def open_environment(
    path: Path, map_size: int = MAP_SIZE, *, is_read_only: bool = False, is_copy: bool = False
) -> lmdb.Environment:
    """Open LMDB in a directory; raises ``lmdb.Error``, and as ``make_table_of_readers``.

    A copy's last commit may be undone by a power cut: it is made again.
    """
    if not is_read_only:
        make_table_of_readers(path)
    return lmdb.open(
        str(path),
        map_size=map_size,
        max_dbs=MAX_TABLES,
        mode=0o600,
        readonly=is_read_only,
        create=not is_read_only,
        metasync=not is_copy,
    )


def make_table_of_readers(path: Path) -> None:
    """Give LMDB's table its room on disk: a hole that cannot be filled would end the process by SIGBUS.

    Raises ``OutOfSpaceError`` and ``UnusableFileError``.
    """
    file = path / LOCK_FILE
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, _READERS_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unusable(file, error) from error


def copied_of(path: Path, layout: Layout) -> bytes | None:
    """Tell up to where the store in a directory is a copy; empty where it is none, None where there is no store."""
    if not (path / STORE_FILE).exists():
        return None
    with opening(path, layout), open_environment(path, is_read_only=True) as env:
        return _value_of(env, layout, layout.copied)


def set_copied(path: Path, layout: Layout, copied: bytes) -> None:
    """Make a store that nobody has open the copy of a database."""
    with opening(path, layout), open_environment(path) as env:
        table = env.open_db(layout.tables[layout.copied[0]])
        with env.begin(write=True, db=table) as txn:
            txn.put(layout.copied[1:], copied)


def forget_copied(path: Path, layout: Layout) -> None:
    """Make what was the copy of a database, and nobody has open, a store of its own."""
    with opening(path, layout), open_environment(path) as env:
        table = env.open_db(layout.tables[layout.copied[0]])
        with env.begin(write=True, db=table) as txn:
            txn.delete(layout.copied[1:])


@contextlib.contextmanager
def locked(path: Path, *, is_alone: bool) -> Iterator[bool]:
    """Hold a directory as one of many, or alone, until the end or the process's; tells whether that could be."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def pack(source: Path, target: Path, layout: Layout) -> None:
    """Write a store that nobody has open anew, each page full, into a directory that is not there yet.

    LMDB's own compact copy leaves free pages out, but not what is free within pages: a third of every table whose keys
    come in random order. Raises ``StoreError`` and ``OutOfSpaceError``; the target is of no use then.
    """
    target.mkdir(mode=0o700)
    with naming_errors(layout, source), contextlib.ExitStack() as stack:
        old = stack.enter_context(open_environment(source, is_read_only=True))
        make_table_of_readers(target)
        new = stack.enter_context(lmdb.open(str(target), map_size=MAP_SIZE, max_dbs=MAX_TABLES, mode=0o600, sync=False))
        with old.begin() as txn:
            for name in txn.cursor().iternext(keys=True, values=False):
                rows = iter(txn.cursor(old.open_db(name, txn=txn, create=False)))
                table = new.open_db(name)
                while batch := list(itertools.islice(rows, _PACKED_AT_ONCE)):
                    with new.begin(write=True) as writing:
                        writing.cursor(table).putmulti(batch, append=True)
        new.sync(True)  # noqa: FBT003 the name of LMDB's own argument is "force"


def begun(path: Path, layout: Layout, env: lmdb.Environment, make: Callable[[], E]) -> E:
    """Make the engine over an environment and bring its store up to date, or close it."""
    held = contextlib.ExitStack()
    try:
        _refuse_moving(path, is_ours=held.enter_context(locked(path, is_alone=False)))
        with opening(path, layout):
            layout.format.number_of(_value_of(env, layout, layout.mark) or layout.format.mark, path)  # or it is refused
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


def _value_of(env: lmdb.Environment, layout: Layout, key: bytes) -> bytes:
    """Read what a store says of itself before anything else is opened, or made; empty where it says nothing."""
    try:
        table = env.open_db(layout.tables[key[0]], create=False)
    except (lmdb.NotFoundError, lmdb.ReadonlyError):
        return b""
    with env.begin(db=table) as txn:
        return bytes(txn.get(key[1:]) or b"")


@contextlib.contextmanager
def opening(path: Path, layout: Layout) -> Iterator[None]:
    """Tell of LMDB's errors to who starts a program: where, and what to do."""
    try:
        yield
    except lmdb.Error as error:
        message = f"{path} cannot be opened: the {layout.what} failed ({type(error).__name__})"
        raise StoreError(message, what_to_do=_TO_DO) from error


@contextlib.contextmanager
def naming_errors(layout: Layout, path: Path | None = None) -> Iterator[None]:
    """Name what LMDB says, without the path, as it may travel to a peer; who works here is told where it was."""
    try:
        yield
    except lmdb.Error as error:
        named = _named(error, layout)
        named.place = str(path or "")
        raise named from error
    except (StoreError, OutOfSpaceError) as error:
        error.place = error.place or str(path or "")
        raise


def _named(error: lmdb.Error, layout: Layout) -> StoreError | OutOfSpaceError:
    """Give our name for what LMDB says."""
    if isinstance(error, lmdb.MapFullError | lmdb.DiskError):
        return OutOfSpaceError(_full(layout))
    message = f"the {layout.what} failed ({type(error).__name__}); nothing of this write was kept"
    return StoreError(message, what_to_do=_TO_DO)


def _full(layout: Layout) -> str:
    return f"the {layout.what} is full: nothing of this write was kept"


def make_private(path: Path, layout: Layout) -> None:
    """Make the directory where there is none; raises ``ConfigurationError`` where others may enter it."""
    try:
        make_directory(path)
        found = path.stat()
    except OSError as error:
        message = f"the directory {path} cannot be used for the {layout.what}: {error.strerror}"
        raise ConfigurationError(message) from error
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or found.st_uid != os.geteuid():
        message = f"the directory {path} holds {layout.holds}: it must belong to this user, mode 0700 (chmod 700)"
        raise ConfigurationError(message)
