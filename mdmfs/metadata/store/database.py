"""The database: SQLite or PostgreSQL, one writer at a time, questions that end, errors by our names."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import sqlalchemy as sa
import trio
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from mdmfs.daemon.formats import Format
from mdmfs.journal.durable import make_directory
from mdmfs.metadata.store.collections import record_tables
from mdmfs.metadata.store.indexes import fix_statistics, index_by_class
from mdmfs.metadata.store.tables import ABOUT, FROZEN, IMAGES, METADATA, SERIES
from mdmfs.model.errors import BusyError, ConfigurationError, MdmfsError, OutOfSpaceError, StoreError

READERS: Final = 4
QUESTION_SECONDS: Final = 10.0
"""How long one question may take; whoever asks too much is told so."""
STEPS: Final = 20_000
"""Of SQLite's machine, between two looks at the clock: some milliseconds."""
_ISOLATION: Final = "REPEATABLE READ"
"""Rights and rows are read of one state, as SQLite does by itself."""
_FORMAT: Final = "format"
_CANCELLED: Final = "57014"
"""SQLSTATE query_canceled."""
_ALTERED: Final = "42703"
"""SQLSTATE undefined_column: a collection was altered beside a question, in PostgreSQL."""
_FULL: Final = {"53100", "SQLITE_FULL"}
_CLASHES: Final = {"40P01", "40001"}
"""SQLSTATE deadlock_detected and serialization_failure, of PostgreSQL: as a collection is altered beside a question."""
TRIES: Final = 5
"""Of a transaction that was undone because it stood in another's way, and the other in its."""

T = TypeVar("T")


def _index_all_by_class(connection: sa.Connection) -> None:
    """To 2: indexes begin with the class."""
    for table in (SERIES, *record_tables(connection)):
        index_by_class(connection, table)


def _let_collections_nest(_: sa.Connection) -> None:
    """To 3: a collection may lie in another, which an older program would not know; those that are there do not."""


def _forget_when_registered(connection: sa.Connection) -> None:
    """To 4: when an image was registered is told nobody, and so not kept."""
    for table in (IMAGES.name, FROZEN.name):
        if sa.inspect(connection).has_table(table):  # snapshots are younger than the first format
            connection.exec_driver_sql(f"alter table {table} drop column registered")


STORE_FORMAT: Final[Format[sa.Connection]] = Format(
    "database of metadata", _index_all_by_class, _let_collections_nest, _forget_when_registered
)


class Database:
    """Runs acts in transactions of their own, in threads. Made by ``open_database``."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine: Final = engine
        self.place: Final = shown(engine.url)
        self._turn = trio.Lock()
        self._readers = trio.CapacityLimiter(READERS)

    @property
    def dialect(self) -> str:
        """Name the kind of database: ``sqlite`` or ``postgresql``."""
        return self.engine.dialect.name

    async def write(self, act: Callable[[sa.Connection], T], *, seconds: float | None = None) -> T:
        """Run ``act`` in a transaction; it is durable when this returns, or wholly undone where it raises.

        Raises ``BusyError`` where it takes longer than ``seconds``. What the hospital tells is not cut short: it would
        be told again.
        """
        async with self._turn:
            return await trio.to_thread.run_sync(self.write_now, act, seconds)  # a thread is waited for, come what may

    async def read(self, act: Callable[[sa.Connection], T]) -> T:
        """Run ``act`` on one state of the database; raises ``BusyError`` where it takes ``QUESTION_SECONDS``."""
        return await trio.to_thread.run_sync(self.read_now, act, limiter=self._readers)

    def write_now(self, act: Callable[[sa.Connection], T], seconds: float | None = None) -> T:
        """Do as ``write``, on the calling thread and without waiting for others."""
        with _placing(self.place):
            return _insist(self.engine.begin, act, seconds)

    def read_now(self, act: Callable[[sa.Connection], T], seconds: float = QUESTION_SECONDS) -> T:
        """Do as ``read``, on the calling thread; ``BusyError`` where it takes so many seconds."""
        with _placing(self.place):
            return _insist(self.engine.connect, act, seconds)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def open_database(where: str, store_format: Format[sa.Connection] = STORE_FORMAT) -> Database:
    """Open the database at ``postgresql://...``, or SQLite in the file of that path, and make what is missing.

    One of an older format is brought up. Raises ``ConfigurationError`` where it cannot be opened, ``StoreError`` where
    it is of a newer format: then nothing of it is changed.
    """
    if where.startswith(("postgresql://", "postgresql+psycopg://")):
        url = sa.make_url(where).set(drivername="postgresql+psycopg")
        try:
            engine = sa.create_engine(
                url, pool_size=READERS + 1, pool_pre_ping=True, isolation_level=_ISOLATION, hide_parameters=True
            )
        except ModuleNotFoundError as error:
            message = "for PostgreSQL the extra is missing"
            what_to_do = "pip install 'mdmfs[postgresql]', or ./run install postgresql"
            raise ConfigurationError(message, what_to_do=what_to_do) from error
    elif "://" in where:
        message = "a database is the path of a file (SQLite) or an URL that begins with postgresql://"
        raise ConfigurationError(message)
    else:
        engine = _open_sqlite(pathlib.Path(where))
    try:
        database = Database(engine)
        while database.write_now(functools.partial(_prepare, where=database.place, store_format=store_format)):
            pass
    except MdmfsError:
        engine.dispose()
        raise
    return database


def shown(url: sa.URL) -> str:
    """Say which database it is, without the passwords that an URL can hold: before the host, or among what follows."""
    return url.difference_update_query(["password", "sslpassword"]).render_as_string().removeprefix("sqlite:///")


def _open_sqlite(path: pathlib.Path) -> sa.Engine:
    try:
        make_directory(path.parent)
        if stat.S_IMODE(path.parent.stat().st_mode) & 0o077:
            message = f"others may enter {path.parent}, where records are kept: chmod 700 it"
            raise ConfigurationError(message)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        message = f"the database {path} cannot be used: {error.strerror}"
        raise ConfigurationError(message) from error
    engine = sa.create_engine(
        f"sqlite:///{path}", hide_parameters=True, connect_args={"check_same_thread": False, "timeout": 60.0}
    )
    sa.event.listen(engine, "connect", _set_up_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    """Make SQLite as strict as PostgreSQL is: durable commits, and ``like`` that tells A from a."""
    connection.isolation_level = None  # we begin transactions ourselves
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "case_sensitive_like = ON",
        "trusted_schema = OFF",
        "secure_delete = ON",
        "cache_size = -65536",
        "temp_store = MEMORY",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _prepare(connection: sa.Connection, where: str, store_format: Format[sa.Connection]) -> bool:
    """Make what is missing, or bring an older database one step further; tells whether there may be another step."""
    if connection.execute(sa.select(sa.literal("a").like("A"))).scalar():
        message = "this SQLite cannot tell A from a in patterns; use another build of it, or PostgreSQL"
        raise ConfigurationError(message)
    ABOUT.create(connection, checkfirst=True)
    is_format = ABOUT.c.key == _FORMAT
    found = connection.execute(sa.select(ABOUT.c.value).where(is_format).with_for_update()).scalar()
    if found is None:
        connection.execute(ABOUT.insert().values(key=_FORMAT, value=store_format.mark))
    else:
        reached = store_format.advance(bytes(found), connection, where)
        if reached is not None:
            connection.execute(ABOUT.update().where(is_format).values(value=reached))
            return True
    METADATA.create_all(connection)
    for table in (SERIES, IMAGES, *record_tables(connection)):
        fix_statistics(connection, table)
    return False


def _insist(
    begin: Callable[[], contextlib.AbstractContextManager[sa.Connection]],
    act: Callable[[sa.Connection], T],
    seconds: float | None,
) -> T:
    """Run ``act`` in a transaction, again where that one was undone for another's sake; raises by our names."""
    for left in reversed(range(TRIES)):
        naming = _naming_errors(is_last=not left)
        with contextlib.suppress(_ClashError), naming, begin() as connection, _within(connection, seconds):
            return act(connection)
    message = "unreachable: the last try gives or raises"
    raise AssertionError(message)


@contextlib.contextmanager
def _placing(place: str) -> Iterator[None]:
    """Tell this machine's own people which database it is that fails, or is full."""
    try:
        yield
    except (StoreError, OutOfSpaceError) as error:
        error.place = place
        raise


@contextlib.contextmanager
def _within(connection: sa.Connection, seconds: float | None) -> Iterator[None]:
    """Let no question go on for ever: PostgreSQL looks at its own clock, SQLite at ours."""
    raw: Any = connection.connection.driver_connection
    if seconds is None:
        yield
    elif isinstance(raw, sqlite3.Connection):
        end = time.monotonic() + seconds
        raw.set_progress_handler(lambda: time.monotonic() > end, STEPS)
        try:
            yield
        finally:
            raw.set_progress_handler(None, 0)
    else:
        connection.execute(sa.select(sa.func.set_config("statement_timeout", str(int(seconds * 1000)), True)))  # noqa: FBT003 SQL's own
        yield


class _ClashError(Exception):
    """A transaction was undone; made again, it goes through."""


@contextlib.contextmanager
def _naming_errors(*, is_last: bool) -> Iterator[None]:
    """Tell of the database's errors without statement or values: they may travel to a peer."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "sqlite_errorname", None) or ""
        if code in _CLASHES:
            if not is_last:
                raise _ClashError from error
            message = "the database undoes this again and again for the sake of what else goes on: ask again"
            raise BusyError(message) from error
        if code in {_CANCELLED, "SQLITE_INTERRUPT"}:
            message = "this takes longer than any question may: ask for less"
            raise BusyError(message) from error
        if code == _ALTERED:
            message = "a collection of records is being altered: ask again"
            raise BusyError(message) from error
        if code in _FULL:
            message = "the metadata service has no room left on its disk; nothing of this was kept"
            raise OutOfSpaceError(message) from error
        message = f"the database failed ({type(error.orig).__name__} {code}); nothing of this was kept: see to it"
        raise StoreError(message) from error
