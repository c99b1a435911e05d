"""PostgreSQL below a store: a table of rows, the log of the keys that each commit changed, and one connection to both.

Whoever works on a database holds a lock of its session, so there is one at a time; the lock goes with the connection.
A commit is one statement, which names the commit that it follows: it is made whole, after that one, or not at all.
Each rings for those who follow (NOTIFY); its number, which is durable, tells them what they have missed.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar

from mdmfs.model.errors import ConfigurationError, MdmfsError, OutOfSpaceError, StoreError
from mdmfs.rows.url import DatabaseUrl

if TYPE_CHECKING:
    from mdmfs.rows.session import Session

logging.getLogger("psycopg").setLevel(logging.CRITICAL)  # it would quote what the server says, and that quotes rows

PATIENCE: Final = 60.0
"""Seconds for which a write waits for a database that does not answer: as long as a standby takes to be promoted."""
FORMAT: Final = 1
"""Of the tables, whatever the rows in them mean."""
LOG_KEYS: Final = 250_000
"""Changed keys that the log keeps: who is further behind copies everything anew."""
_OLDEST: Final = 10
"""Commits of the log that one commit may forget: numbers rise with totals, so these are the first of them."""
TOKEN_SIZE: Final = 16
_LOCK: Final = (0x6D646D66, FORMAT)
_CHANNEL: Final = "mdmfs"
LOOK_AT_STANDBY: Final = 0.1
"""Seconds between two looks at a hot standby."""
_WHO_IS_GONE: Final = """
set tcp_keepalives_idle = 5; set tcp_keepalives_interval = 2; set tcp_keepalives_count = 3; set tcp_user_timeout = 10000
"""
"""The lock of a machine without power goes after 11 s, and not, as by default, after two hours."""
_FULL: Final = frozenset({"53100", "53000"})
"""SQLSTATE disk_full, insufficient_resources."""
_NOT_LET_IN: Final = ("authentication failed", "no pg_hba.conf entry", "does not exist", "no password supplied")
"""What libpq says of a connection that was refused for good: there is no SQLSTATE then."""
UNREACHED: Final = "see that it runs and can be reached from here, and that no other daemon works on it"
_RIGHTS: Final = "see that the database is there, to the file with the password, and to the user's rights"
_SORTING: Final = 3600.0
"""Seconds for which a server may be silent while it sorts all rows."""
_TABLES: Final = """
create table if not exists kept (key bytea primary key, value bytea not null);
create table if not exists commits (
    number bigint primary key, token bytea not null, keys bytea[] not null, total bigint not null
);
create table if not exists state (
    only_one boolean primary key default true check (only_one),
    format integer not null, what text not null, is_left boolean not null default false,
    number bigint not null, token bytea not null, total bigint not null
);
create table if not exists present (only_one boolean primary key default true check (only_one), told text not null)
"""
_COMMIT: Final = """
with now as (
    update state set number = number + 1, token = %(token)b, total = total + cardinality(%(changed)b::bytea[])
    where number = %(number)b and token = %(before)b and not is_left returning number, token, total
), put as (
    insert into kept select key, value from now, unnest(%(keys)b::bytea[], %(values)b::bytea[]) as pair (key, value)
    on conflict (key) do update set value = excluded.value
), gone as (
    delete from kept using now where key = any(%(gone)b::bytea[])
), logged as (
    insert into commits select number, token, %(changed)b::bytea[], total from now
), forgotten as (
    delete from commits using now
    where commits.number = any(array(select number from commits order by number limit %(oldest)b))
    and commits.total < now.total - %(log)b
)
select pg_notify('mdmfs', '') from now
"""
_HELD: Final = """
select exists (
    select from pg_locks where locktype = 'advisory' and granted and classid = %s and objid = %s
    and database = (select oid from pg_database where datname = current_database())
)
"""
_CHANGED: Final = """
select key, (select value from kept where kept.key = changed.key)
from (select distinct unnest(keys) as key from commits where number > %b) as changed
"""


E = TypeVar("E", bound=MdmfsError)


class LostError(Exception):
    """The connection broke, or another one works on the database: nobody knows what became of the last statement."""


class TakenError(LostError):
    """Another one works on the database."""


class Position(NamedTuple):
    """A commit: its number, and what tells it from another one of that number in a database that forgot the first."""

    number: int
    token: bytes

    def encode(self) -> bytes:
        """Write it as a row of a copy."""
        return self.number.to_bytes(8) + self.token

    @classmethod
    def decode(cls, octets: bytes) -> Self:
        """Read such a row."""
        return cls(int.from_bytes(octets[:8]), octets[8 : 8 + TOKEN_SIZE])


class State(NamedTuple):
    """What a database says of itself."""

    what: str
    is_left: bool
    """Its rows were brought back into LMDB, and are no longer the truth."""
    position: Position


class Database:
    """One session with a database, which nobody else works on meanwhile. Not for two threads at once."""

    def __init__(self, url: DatabaseUrl, what: str, patience: float = PATIENCE) -> None:
        import psycopg  # noqa: PLC0415 see DatabaseUrl

        self._url = url
        self._driver: Any = psycopg
        self._what = what
        self._patience = patience
        self._connection: Any = None
        self._rings = True
        """Whether the server tells of commits, to who watches."""

    def __str__(self) -> str:
        """Show hosts and database."""
        return str(self._url)

    def placed(self, error: E) -> E:
        """Let an error say where the database is, to who works here; a peer is not told."""
        error.place = str(self)
        return error

    def connect(self) -> None:
        """Open a session in place of the one before, lock the database and make what is missing in it.

        Raises ``LostError`` where it cannot be reached, ``TakenError`` where another one has the lock,
        ``ConfigurationError`` where we may not work on it, ``StoreError`` for tables of a newer format.
        """
        self.close()
        with self._naming_errors():
            self._connection = self._begun()
            self._connection.execute("set lock_timeout = '30s'")
            self._connection.execute(_WHO_IS_GONE)
            self._connection.execute(
                "select set_config('synchronous_commit', 'on', false)"
                " where current_setting('synchronous_commit') = 'off'"
            )
            if not self._one("select pg_try_advisory_lock(%s, %s)", *_LOCK)[0]:
                self.close()
                message = f"another daemon works on the database of the {self._what}"
                raise TakenError(message)
            self._connection.execute(_TABLES)
        self._refuse_other_format()

    def watch(self) -> None:
        """Open a session that reads and listens beside who has the lock; raises what ``connect`` raises."""
        self.close()
        with self._naming_errors():
            self._connection = self._begun()
            self._connection.execute("set default_transaction_read_only = on")
            self._rings = not self._one("select pg_is_in_recovery()")[0]
            if self._rings:
                self._connection.execute(f"listen {_CHANNEL}")
        self._refuse_other_format()

    def hear(self, seconds: float) -> None:
        """Wait for the next commit, for so long at most. A hot standby rings for nobody: it is looked at again."""
        if not self._rings:
            time.sleep(min(seconds, LOOK_AT_STANDBY))
            return
        with self._naming_errors():
            for _ in self._session.notifies(timeout=seconds, stop_after=1):
                pass

    def is_taken(self) -> bool:
        """Tell whether somebody works on the database."""
        with self._naming_errors():
            return bool(self._one(_HELD, *_LOCK)[0])

    @contextlib.contextmanager
    def at_one_moment(self) -> Iterator[None]:
        """Read everything as it was at the first question, whatever is committed meanwhile."""
        with self._naming_errors(), self._session.transaction():
            self._session.execute("set transaction isolation level repeatable read")
            yield

    def announce(self, told: str) -> None:
        """Leave a word for those who follow, in place of the one before."""
        with self._naming_errors():
            self._session.execute(
                "insert into present (told) values (%s) on conflict (only_one) do update set told = excluded.told",
                (told,),
            )

    def announced(self) -> str:
        """Give the word that was left last; empty where there is none."""
        with self._naming_errors():
            if not self._one("select to_regclass('present') is not null")[0]:
                return ""
            found = self._one("select told from present")
            return found[0] if found else ""

    def look(self) -> tuple[str, bool]:
        """Open a session without the lock, to look only; give the server's version, and whether a power cut harms it.

        Raises what ``connect`` raises.
        """
        self.close()
        with self._naming_errors():
            self._connection = self._begun()
            self._connection.execute("set default_transaction_read_only = on")
            version, fsync, pages = (
                self._one("select current_setting(%s)", name)[0]
                for name in ("server_version", "fsync", "full_page_writes")
            )
        return version, fsync == pages == "on"

    def close(self) -> None:
        """End the session, and the lock with it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(self._driver.Error):
                connection.close()

    def state(self) -> State | None:
        """Give what the database says of itself; None where no store was begun, or none has wholly arrived.

        Raises ``ConfigurationError`` for the store of another kind.
        """
        found = self._state()
        if found is None:
            return None
        _, what, is_left, number, token = found
        if what != self._what:
            message = f"{self._url} holds a {what}, not a {self._what}: give each a database of its own"
            raise ConfigurationError(message)
        return State(what, is_left, Position(number, token))

    def begin(self, position: Position) -> None:
        """Say that the rows that are there are the truth from now on."""
        with self._naming_errors():
            self._session.execute(
                "with forgotten as (delete from commits)"
                " insert into state (format, what, number, token, total) values (%s, %s, %s, %s, 0)"
                " on conflict (only_one) do update set number = excluded.number, token = excluded.token, total = 0,"
                " is_left = false",
                (FORMAT, self._what, *position),
            )

    def leave(self) -> None:
        """Say that the rows are the truth no longer."""
        with self._naming_errors():
            self._session.execute("update state set is_left = true")

    def is_empty(self) -> bool:
        """Tell whether there is no row."""
        with self._naming_errors():
            return not self._one("select exists (select from kept)")[0]

    def commit(self, before: Position, after: Position, changes: Mapping[bytes, bytes | None]) -> None:
        """Put rows, and delete those whose value is None, in a commit that follows ``before``.

        Raises ``LostError`` where nobody knows whether it was made, ``StoreError`` where it surely was not.
        """
        put = sorted((key, value) for key, value in changes.items() if value is not None)
        values = {
            "number": before.number,
            "before": before.token,
            "token": after.token,
            "keys": [key for key, _ in put],
            "values": [value for _, value in put],
            "gone": [key for key, value in changes.items() if value is None],
            "changed": list(changes),
            "log": LOG_KEYS,
            "oldest": _OLDEST,
        }
        with self._naming_errors():
            done = self._session.execute(_COMMIT, values).fetchone()
        if done is None:
            message = f"somebody else has written to the database of the {self._what}"
            raise LostError(message)

    def has(self, position: Position) -> bool:
        """Tell whether a commit is the present one, or still in the log."""
        state = self.state()
        if state is not None and state.position == position:
            return True
        with self._naming_errors():
            found = self._one(
                "select exists (select from commits where number = %s and token = %s)", position.number, position.token
            )
            return bool(found[0])

    def changed_since(self, number: int) -> Iterator[tuple[bytes, bytes | None]]:
        """Give each row that commits after a number have changed, as it is now; None for one that is gone."""
        with self._naming_errors(), self._session.cursor(binary=True) as cursor:
            yield from cursor.stream(_CHANGED, (number,), size=1000)

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        """Give every row, in the order of keys."""
        with self._naming_errors(), self._session.cursor() as cursor:
            self._session.patience = _SORTING
            command = "copy (select key, value from kept order by key) to stdout (format binary)"
            with cursor.copy(command) as copy:
                copy.set_types(["bytea", "bytea"])
                yield from copy.rows()
            self._session.patience = self._patience

    def page(self, first: bytes, last: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Give the first rows from a key to another one, both included."""
        command = "select key, value from kept where key between %b and %b order by key limit %b"
        with self._naming_errors(), self._session.cursor(binary=True) as cursor:
            return list(cursor.execute(command, (first, last, limit)))

    def amend(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Put and delete rows of a store that has not wholly arrived."""
        with self._naming_errors(), self._session.transaction(), self._session.cursor() as cursor:
            gone = [key for key, value in changes.items() if value is None]
            if gone:
                cursor.execute("delete from kept where key = any(%b::bytea[])", (gone,))
            put = [(key, value) for key, value in changes.items() if value is not None]
            if put:
                cursor.execute(
                    "insert into kept select * from unnest(%b::bytea[], %b::bytea[])"
                    " on conflict (key) do update set value = excluded.value",
                    ([key for key, _ in put], [value for _, value in put]),
                )

    def _refuse_other_format(self) -> None:
        found = self._state()
        if found is not None and found[0] != FORMAT:
            self.close()
            message = f"the tables of {self._url} are of format {found[0]}, this program knows {FORMAT}"
            raise StoreError(message)

    def _begun(self) -> Session:
        from mdmfs.rows.session import Session  # noqa: PLC0415 see DatabaseUrl

        session = Session.connect(**self._url.parts, autocommit=True)
        session.patience = self._patience
        return session

    def _state(self) -> Any:  # noqa: ANN401 a row
        with self._naming_errors():
            if not self._one("select to_regclass('state') is not null")[0]:
                return None
            return self._one("select format, what, is_left, number, token from state")

    @property
    def _session(self) -> Any:  # noqa: ANN401 of a package that may not be installed
        if self._connection is None:
            message = f"there is no connection to the database of the {self._what}"
            raise LostError(message)
        return self._connection

    def _one(self, statement: str, *values: object) -> Any:  # noqa: ANN401 a row
        return self._session.execute(statement, values).fetchone()

    @contextlib.contextmanager
    def _naming_errors(self) -> Iterator[None]:
        """Tell of the database's errors without statement, values or what the server says: it may quote both."""
        try:
            yield
        except self._driver.Error as error:
            code = error.sqlstate or ""
            name = f"{type(error).__name__} {code}".strip()
            if code in _FULL:
                message = f"the database of the {self._what} has no room left; nothing of this write was kept"
                raise self.placed(OutOfSpaceError(message)) from None
            if code.startswith(("28", "3D", "42501")) or any(told in str(error) for told in _NOT_LET_IN):
                message = f"the database of the {self._what} does not let us in, or work ({name})"
                raise self.placed(ConfigurationError(message, what_to_do=_RIGHTS)) from None
            lost = self._driver.OperationalError, self._driver.InterfaceError
            if isinstance(error, lost) or code.startswith(("57", "25")):
                message = f"the database of the {self._what} does not answer ({name})"
                raise LostError(message) from None
            message = f"the database of the {self._what} failed ({name}); nothing of this write was kept"
            raise self.placed(StoreError(message, what_to_do="see to it and its log")) from None
