"""Rows in PostgreSQL, with a copy in LMDB to read from: PostgreSQL is the truth, and nothing waits for it to read.

An act runs on the copy, in a transaction that is kept back; what it changed becomes one commit in PostgreSQL, and only
then a commit of the copy. Where the connection breaks in between, the log of the new session tells whether the commit
was made: so none is lost and none is made twice, whoever is the primary then. A copy that the truth does not know is
made anew.
"""

from __future__ import annotations

import dataclasses
import itertools
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, TypeVar

import lmdb
import outcome
import structlog
import trio

from mdmfs.journal.durable import sync_directory
from mdmfs.model.errors import ConfigurationError, OutOfSpaceError, PeerUnreachableError, StoreError
from mdmfs.rows.database import PATIENCE, TOKEN_SIZE, UNREACHED, Database, LostError, Position, State
from mdmfs.rows.embedded import Embedded, LmdbRows, begun
from mdmfs.rows.environment import (
    LOCK_FILE,
    MAP_SIZE,
    MAX_TABLES,
    STORE_FILE,
    copied_of,
    make_private,
    make_table_of_readers,
    naming_errors,
    open_environment,
    opening,
)
from mdmfs.rows.port import Layout, Rows
from mdmfs.rows.turns import Act
from mdmfs.rows.url import DatabaseUrl

log = structlog.get_logger()

PATIENCE_AT_START: Final = 2.0
PAUSE: Final = 0.25
"""Seconds between two tries to connect."""
LOOK_SECONDS: Final = 2.0
"""Between two looks whether the session still stands."""
LONGEST_SILENCE: Final = 10.0
"""Seconds without an answer after which nobody is told anything: another daemon may know better by then.

Who takes over from one waits for so long before it writes or tells: the other may have lost its session unseen.
"""
FOLLOWED: Final = b"f"
"""Behind the position of a copy: another daemon has worked on the database since this one did."""
_LOADED_AT_ONCE: Final = 100_000
"""Rows of one transaction while a copy is made: some 30 MiB."""

T = TypeVar("T")


class Waiting(NamedTuple):
    """How long a write waits for the database, in seconds, by which clock an answer grows old, and what waits."""

    patience: float = PATIENCE
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep


USUAL: Final = Waiting()


@dataclasses.dataclass(slots=True)
class _Attempt:
    """What is known of a commit that may have been made."""

    position: Position | None = None
    results: list[outcome.Outcome[Any]] = dataclasses.field(default_factory=list)


class Copied(Embedded):
    """``Engine`` over a database, with its copy in one directory of mode 0700."""

    def __init__(
        self, path: Path, env: lmdb.Environment, layout: Layout, database: Database, waiting: Waiting = USUAL
    ) -> None:
        super().__init__(path, env, layout)
        self._database = database
        self._waiting = waiting
        self._heard = waiting.clock()
        self._is_behind = True
        """What the database may have beyond the copy is to be applied before anything else is written."""
        self._has_failed = False
        """The copy has no room for what is durable in the database: whoever wrote it would not find it here."""

    @classmethod
    def open_url(
        cls, path: Path, layout: Layout, url: str, *, map_size: int = MAP_SIZE, waiting: Waiting = USUAL
    ) -> Self:
        """Open the store in a database, and bring its copy in a directory up to date; blocks.

        Both are made where they are missing. Raises ``ConfigurationError`` where the database or the directory holds
        something else, another daemon works on the database, or it cannot be reached; ``StoreError`` as
        ``Embedded.open``.
        """
        database = Database(DatabaseUrl(url), layout.what, waiting.patience)
        try:
            connect_patiently(database, PATIENCE_AT_START)
            return cls.over(database, path, layout, map_size=map_size, waiting=waiting)
        except LostError as error:
            database.close()
            raise database.placed(ConfigurationError(str(error), what_to_do=UNREACHED)) from error
        except BaseException:
            database.close()
            raise

    @classmethod
    def over(
        cls, database: Database, path: Path, layout: Layout, *, map_size: int = MAP_SIZE, waiting: Waiting = USUAL
    ) -> Self:
        """Do as ``open_url``, with a session that has been begun."""
        make_private(path, layout)
        _settle(database, path, layout, waiting)
        with opening(path, layout):
            env = open_environment(path, map_size, is_copy=True)
        return begun(path, layout, env, lambda: cls(path, env, layout, database, waiting))

    def read(self, act: Callable[[LmdbRows], T]) -> T:
        """See ``Engine.read``."""
        if self._has_failed:
            message = f"the copy of the {self._layout.what} is behind its database: make room on the disk where it lies"
            raise StoreError(message)
        return super().read(act)

    def refuse_stale(self) -> None:
        """See ``Engine.refuse_stale``."""
        silence = self._waiting.clock() - self._heard
        if silence > LONGEST_SILENCE:
            message = f"the {self._layout.what} has not heard of its database for {silence:.0f} s"
            raise PeerUnreachableError(message)

    async def announce(self, told: str) -> None:
        """See ``Engine.announce``."""
        await self._turns.apart(lambda: self._insist(lambda: self._database.announce(told), _Attempt()))

    async def run(self) -> None:
        """Look every two seconds whether the session still stands; raises ``StoreError`` where it is lost for good."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            if self._waiting.clock() - self._heard >= LOOK_SECONDS:
                await self._turns.apart(self._look)

    def close(self) -> None:
        """Close, where nothing is being written any more."""
        super().close()
        self._database.close()

    def begin(self) -> None:
        """Make a new store ready, or bring an older one up."""
        self._env.reader_check()
        is_unfinished = True
        while is_unfinished:
            (result,) = self._commit([Act(self._begin_on)])
            is_unfinished = result.unwrap()

    def _begin_on(self, rows: Rows) -> bool:
        """Change a row in any case: by that commit another daemon's copy knows that we have come in between."""
        is_unfinished = self._layout.begin(rows, self._path)
        rows.put(self._layout.mark, rows.get(self._layout.mark) or b"")
        return is_unfinished

    def _commit(self, acts: list[Act]) -> list[outcome.Outcome[Any]]:
        self._refuse_closed()
        attempt = _Attempt()
        return self._insist(lambda: self._commit_once(acts, attempt), attempt)

    def _look(self) -> None:
        if not self._is_closed:
            asked = self._waiting.clock()
            self._insist(self._database.state, _Attempt())
            self._heard = max(self._heard, asked)

    def _insist(self, act: Callable[[], T], attempt: _Attempt) -> T:
        """Do something, again after each new connection, until it is done or nobody answers for too long."""
        deadline = time.monotonic() + self._waiting.patience
        while True:
            try:
                self._catch_up(attempt)
                return act()
            except LostError as error:
                self._is_behind = True
                log.warning("the database is being waited for", store=self._layout.what, reason=str(error))
                try:
                    connect_patiently(self._database, deadline - time.monotonic())
                except LostError as last:
                    kept = "nothing of this write was kept" if attempt.position is None else "this write may be kept"
                    message = f"{last}, though it was tried for {self._waiting.patience:.0f} s; {kept}"
                    raise self._database.placed(StoreError(message, what_to_do=UNREACHED)) from error

    def _commit_once(self, acts: list[Act], attempt: _Attempt) -> list[outcome.Outcome[Any]]:
        """Run acts on the copy, commit what they changed to the database, then the copy."""
        if attempt.position is not None and self._database.has(attempt.position):
            return attempt.results
        attempt.position, is_durable = None, False
        try:
            with naming_errors(self._layout, self._path), self._naming_full_disk(), self._transaction() as txn:
                changes: dict[bytes, bytes | None] = {}
                attempt.results = [outcome.capture(self._run_recorded, txn, act, changes) for act in acts]
                if changes:
                    rows = LmdbRows(txn, self._tables, self._layout)
                    before = position_of(rows, self._layout)
                    attempt.position = Position(before.number + 1, secrets.token_bytes(TOKEN_SIZE))
                    rows.put(self._layout.copied, attempt.position.encode())
                    asked = self._waiting.clock()
                    self._database.commit(before, attempt.position, changes)
                    is_durable, self._heard = True, asked
        except (StoreError, OutOfSpaceError):
            if not is_durable:
                raise
            self._is_behind = self._has_failed = True  # the truth has it, and the copy gets it first of all
        return attempt.results

    def _run_recorded(self, parent: lmdb.Transaction, act: Act, changes: dict[bytes, bytes | None]) -> object:
        mine: dict[bytes, bytes | None] = {}
        with naming_errors(self._layout, self._path), self._transaction(parent) as txn:
            result = act.function(RecordedRows(LmdbRows(txn, self._tables, self._layout), mine))
        changes.update(mine)
        return result

    def _catch_up(self, attempt: _Attempt) -> None:
        """Apply to the copy what the database has beyond it; wait until nobody else can still answer."""
        if not self._is_behind:
            return
        asked = self._waiting.clock()
        with naming_errors(self._layout, self._path), self._naming_full_disk(), self._transaction() as txn:
            rows = LmdbRows(txn, self._tables, self._layout)
            mine, state = position_of(rows, self._layout), self._database.state()
            has_followed = has_been_followed(rows, self._layout)
            if state is None or state.is_left or not self._database.has(mine):
                message = (
                    f"the database is no longer the one that the {self._layout.what} was copied from: start the daemon"
                    " again, and it copies the database anew"
                )
                raise StoreError(message)
            if state.position != mine or has_followed:
                apply_log(self._database, rows, mine)
                rows.put(self._layout.copied, state.position.encode())
            if has_followed or state.position not in {mine, attempt.position}:
                self._waiting.sleep(LONGEST_SILENCE)  # and before this commit: who is killed meanwhile waits again
        self._is_behind = self._has_failed = False
        self._heard = asked


class RecordedRows:
    """``Rows`` that remember what was changed."""

    def __init__(self, rows: LmdbRows, changes: dict[bytes, bytes | None]) -> None:
        self._rows = rows
        self._changes = changes
        self.version = rows.version
        self.get = rows.get
        self.scan = rows.scan
        self.scan_back = rows.scan_back

    def put(self, key: bytes, value: bytes) -> None:
        """See ``Rows.put``."""
        self._rows.put(key, value)
        self._changes[key] = value

    def add(self, key: bytes, value: bytes) -> bool:
        """See ``Rows.add``."""
        is_new = self._rows.add(key, value)
        if is_new:
            self._changes[key] = value
        return is_new

    def delete(self, key: bytes) -> bool:
        """See ``Rows.delete``."""
        is_there = self._rows.delete(key)
        if is_there:
            self._changes[key] = None
        return is_there


def connect_patiently(database: Database, seconds: float) -> None:
    """Connect, trying again for so long; raises ``LostError`` at the end, and at once what another try cannot mend."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            database.connect()
        except LostError:
            if time.monotonic() + PAUSE > deadline:
                raise
            time.sleep(PAUSE)
        else:
            return


def _settle(database: Database, path: Path, layout: Layout, waiting: Waiting) -> None:
    """See to it that the directory holds a copy of the database, if not its latest state; or raise."""
    mine, state = copied_of(path, layout), database.state()
    if state is None:
        if mine is not None or not database.is_empty():
            message = (
                f"the database holds no {layout.what} yet, or not all of it, and {path} is there: bring it into the"
                " database with mdmfs migrate"
            )
            raise ConfigurationError(message)
        state = State(layout.what, is_left=False, position=Position(0, secrets.token_bytes(TOKEN_SIZE)))
        database.begin(state.position)
    refuse_to_copy(state, mine, path, layout)
    if mine is None or not database.has(Position.decode(mine)):
        if state.position.number:
            waiting.sleep(LONGEST_SILENCE)
        load(database, path, layout, state.position.encode())


def refuse_to_copy(state: State, mine: bytes | None, path: Path, layout: Layout) -> None:
    """Raise ``ConfigurationError`` where a directory is not to become, or stay, the copy of a database."""
    if state.is_left:
        message = f"the {layout.what} was brought back from the database into LMDB: leave store out, or migrate again"
        raise ConfigurationError(message)
    if mine == b"":
        message = (
            f"{path} holds a {layout.what} that is no copy of the database, which holds another: move one of them away"
        )
        raise ConfigurationError(message)


def load(database: Database, path: Path, layout: Layout, copied: bytes) -> None:
    """Copy all rows into a directory, in place of the copy that is there; it is there whole or not at all.

    ``copied`` says up to where they go.
    """
    arriving = path / "arriving"
    shutil.rmtree(arriving, ignore_errors=True)
    arriving.mkdir(mode=0o700)
    make_table_of_readers(arriving)
    with (
        naming_errors(layout),
        lmdb.open(str(arriving), map_size=MAP_SIZE, max_dbs=MAX_TABLES, mode=0o600, sync=False) as env,
    ):
        tables = {byte: env.open_db(name) for byte, name in layout.tables.items()}
        rows = database.rows()
        while batch := list(itertools.islice(rows, _LOADED_AT_ONCE)):
            with env.begin(write=True) as txn:
                for table, group in itertools.groupby(batch, lambda row: row[0][0]):
                    txn.cursor(tables[table]).putmulti([(key[1:], value) for key, value in group], append=True)
        with env.begin(write=True) as txn:
            LmdbRows(txn, tables, layout).put(layout.copied, copied)
        env.sync(True)  # noqa: FBT003 the name of LMDB's own argument is "force"
    (path / LOCK_FILE).unlink(missing_ok=True)  # who looks at the copy before keeps both files of it
    (arriving / STORE_FILE).rename(path / STORE_FILE)
    shutil.rmtree(arriving)
    sync_directory(path)


def apply_log(database: Database, rows: Rows, mine: Position) -> None:
    """Apply to a copy what the database has beyond it."""
    for key, value in database.changed_since(mine.number):
        if value is None:
            rows.delete(key)
        else:
            rows.put(key, value)


def position_of(rows: Rows, layout: Layout) -> Position:
    """Tell up to which commit a copy goes."""
    return Position.decode(rows.get(layout.copied) or b"")


def has_been_followed(rows: Rows, layout: Layout) -> bool:
    """Tell whether what is in a copy is another daemon's work, which may still answer."""
    return (rows.get(layout.copied) or b"").endswith(FOLLOWED, len(Position(0, bytes(TOKEN_SIZE)).encode()))
