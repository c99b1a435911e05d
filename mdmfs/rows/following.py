"""A copy that follows a database on which another daemon works, until that one is gone; it can be read meanwhile.

Each commit rings (NOTIFY), and its number in the log tells what is missing here. So who takes over has next to nothing
to copy; but he waits until the other one surely answers nobody any more, whatever becomes of him meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, TypeVar

import lmdb
import structlog
import trio

from mdmfs.model.errors import ConfigurationError, PeerUnreachableError
from mdmfs.rows.copied import (
    FOLLOWED,
    PAUSE,
    USUAL,
    Copied,
    Waiting,
    apply_log,
    load,
    refuse_to_copy,
)
from mdmfs.rows.database import Database, LostError, Position, TakenError
from mdmfs.rows.embedded import LmdbRows, read_rows
from mdmfs.rows.environment import MAP_SIZE, copied_of, locked, make_private, naming_errors, open_environment, opening
from mdmfs.rows.port import Layout, Rows
from mdmfs.rows.url import DatabaseUrl

T = TypeVar("T")

log = structlog.get_logger()

LOOK_SECONDS: Final = 1.0
"""Between two looks whether somebody works on the database, where nothing is committed meanwhile."""
_COMMITS: Final = 2**48
"""More than a copy ever has."""
GRACE: Final = 4.0
"""Seconds for which nobody must have worked on it: a daemon whose session broke has a new one by then."""


class Following:
    """One directory with the copy of a database; not for two threads at once, but for ``read`` and ``version``."""

    def __init__(
        self,
        path: Path,
        layout: Layout,
        url: str,
        waiting: Waiting = USUAL,
        *,
        map_size: int = MAP_SIZE,
        takes_over: bool = True,
    ) -> None:
        """Take a directory for oneself; raises ``ConfigurationError`` where a daemon works in it already.

        Who never ``takes_over`` may follow a server that takes no writes, such as PostgreSQL's hot standby.
        """
        self._path, self._layout, self._waiting, self._map_size = path, layout, waiting, map_size
        self._takes_over = takes_over
        self._database = Database(DatabaseUrl(url, needs_writes=takes_over), layout.what, waiting.patience)
        self._env: lmdb.Environment | None = None
        self._tables: dict[int, lmdb._Database] = {}
        self._swapping = threading.Lock()
        """Held by who reads the copy, and by who puts another in its place."""
        self._copies = 0
        """So many have been opened: each counts its commits anew."""
        self._is_watching = False
        self._free_since: float | None = None
        self._reached: Position | None = None
        """Up to where the copy goes, as far as it is known."""
        self._held = contextlib.ExitStack()
        make_private(path, layout)
        self._hold()

    def step(self, seconds: float = LOOK_SECONDS) -> bool:
        """Wait so long for a commit, and apply what there is; tells whether it is to be taken over.

        Blocks. Raises ``ConfigurationError`` where the directory or the database holds something else, ``StoreError``
        and ``OutOfSpaceError`` where the copy cannot be written.
        """
        try:
            if self._is_watching:
                self._database.hear(seconds)
            self._watch()
            self._apply()
            return self._takes_over and self._has_gone()
        except LostError as error:
            if self._is_watching:
                log.warning("the database is being waited for", store=self._layout.what, reason=str(error))
            self._is_watching = False
            time.sleep(PAUSE)
            return False

    def read(self, act: Callable[[LmdbRows], T]) -> T:
        """Run ``act`` on the copy as it is, from any thread; raises ``PeerUnreachableError`` where it is being made."""
        with self._swapping:
            if self._env is None:
                message = f"the {self._layout.what} is being copied or taken over: ask again"
                raise PeerUnreachableError(message)
            return self._read(self._env, act)

    def _read(self, env: lmdb.Environment, act: Callable[[LmdbRows], T]) -> T:
        with naming_errors(self._layout, self._path):
            rows = LmdbRows(env.begin(), self._tables, self._layout, counted_from=self._copies * _COMMITS)
            return read_rows(rows, act)

    def version(self) -> int:
        """Give a number that rises with each commit of the copy; raises as ``read``."""
        with self._swapping:
            return -1 if self._env is None else self._read(self._env, lambda rows: rows.version)

    def announced(self) -> str:
        """Give what the other one says of himself; empty where he does not. Blocks; raises as ``step``."""
        try:
            self._watch()
            return self._database.announced()
        except LostError:
            return ""

    def take_over(self) -> Copied | None:
        """Open the store in place of the other daemon, or go on to follow where a third one was faster; blocks.

        Raises what ``Copied.open_url`` raises.
        """
        self._close_copy()
        self._held.close()
        try:
            self._database.connect()
            return Copied.over(self._database, self._path, self._layout, map_size=self._map_size, waiting=self._waiting)
        except LostError:
            self._is_watching = False
            self._hold()
            self._opened()
            return None

    def close(self) -> None:
        """Follow no longer."""
        self._close_copy()
        self._held.close()
        self._database.close()

    def _watch(self) -> None:
        if not self._is_watching:
            self._database.watch()
            self._is_watching, self._free_since = True, None

    def _hold(self) -> None:
        if not self._held.enter_context(locked(self._path, is_alone=True)):
            message = f"another program works in {self._path}: two daemons need a directory each"
            raise ConfigurationError(message)

    def _has_gone(self) -> bool:
        if self._database.is_taken():
            self._free_since = None
        elif self._free_since is None:
            self._free_since = self._waiting.clock()
        return self._free_since is not None and self._waiting.clock() - self._free_since >= GRACE

    def _apply(self) -> None:
        with self._database.at_one_moment():
            state = self._database.state()
            if state is None or state.position == self._reached:
                return  # where there is none, the other one is about to begin, or is moving a store there
            copied = copied_of(self._path, self._layout) if self._env is None else self._copied()
            refuse_to_copy(state, copied, self._path, self._layout)
            for _, mark in self._database.page(self._layout.mark, self._layout.mark, 1):
                self._layout.format.number_of(mark, self._database)  # of a newer one we would misread the rows
            mine = None if copied is None else Position.decode(copied)
            if mine is None or not self._database.has(mine):
                log.info("the database is being copied", store=self._layout.what, directory=str(self._path))
                self._close_copy()
                load(self._database, self._path, self._layout, state.position.encode() + FOLLOWED)
            elif mine != state.position:
                self._advance(mine, state.position)
            self._opened()
            self._reached = state.position

    def _advance(self, mine: Position, reached: Position) -> None:
        env = self._opened()
        with naming_errors(self._layout, self._path), env.begin(write=True) as txn:
            rows = LmdbRows(txn, self._tables, self._layout)
            apply_log(self._database, rows, mine)
            rows.put(self._layout.copied, reached.encode() + FOLLOWED)

    def _copied(self) -> bytes:
        return self.read(lambda rows: rows.get(self._layout.copied)) or b""

    def _opened(self) -> lmdb.Environment:
        """Give the copy, which stays open: LMDB bears no second time in one process."""
        if self._env is None:
            with opening(self._path, self._layout):
                env = open_environment(self._path, self._map_size, is_copy=True)
                self._tables = {byte: env.open_db(name) for byte, name in self._layout.tables.items()}
            with self._swapping:
                self._env, self._copies = env, self._copies + 1
        return self._env

    def _close_copy(self) -> None:
        with self._swapping:
            env, self._env = self._env, None
            if env is not None:
                env.close()


class Meanwhile(Protocol):
    """What somebody does who follows."""

    async def __call__(self, following: Following, *, has_gone: bool) -> None:
        """Do it, before each step, and before he takes over from one that ``has_gone``."""


async def no_more(following: Following, *, has_gone: bool) -> None:
    """Follow, and do no more."""


async def open_in_turn(
    path: Path,
    layout: Layout,
    url: str,
    waiting: Waiting = USUAL,
    *,
    takes_over: bool = True,
    meanwhile: Meanwhile = no_more,
) -> Copied:
    """Open a store in a database once no other daemon works on it, and follow it until then.

    It is never the turn of who does not take over. Raises what ``Copied.open_url``, ``Following.step`` and
    ``meanwhile`` raise.
    """
    if takes_over:
        try:
            return await trio.to_thread.run_sync(lambda: Copied.open_url(path, layout, url, waiting=waiting))
        except ConfigurationError as error:
            if not isinstance(error.__cause__, TakenError):
                raise
    log.info("standing by: another daemon works on the database", store=layout.what)
    following = Following(path, layout, url, waiting, takes_over=takes_over)
    try:
        return await _own_turn(following, layout, meanwhile)
    except BaseException:
        following.close()
        raise


async def _own_turn(following: Following, layout: Layout, meanwhile: Meanwhile) -> Copied:
    has_gone = False
    while True:
        await meanwhile(following, has_gone=has_gone)
        if has_gone:
            log.warning("the daemon that worked on the database is gone: taking over", store=layout.what)
            engine = await trio.to_thread.run_sync(following.take_over)
            if engine is not None:
                return engine
        has_gone = await trio.to_thread.run_sync(following.step)


class Followed:
    """``Engine`` of who only reads what another daemon writes, for as long as somebody says that it is true."""

    def __init__(self, following: Following, refuse_stale: Callable[[], None]) -> None:
        """Let ``refuse_stale`` raise ``PeerUnreachableError`` where nobody is to be told anything any more."""
        self._following = following
        self.read: Final = following.read
        self.version: Final = following.version
        self.refuse_stale: Final = refuse_stale

    async def write(self, act: Callable[[Rows], T]) -> T:
        """Raise ``PeerUnreachableError``: only the daemon that works can."""
        del act
        await trio.lowlevel.checkpoint()
        message = "only the daemon that works on the database changes it"
        raise PeerUnreachableError(message)

    async def announce(self, told: str) -> None:
        """See ``Engine.announce``: nobody follows."""

    async def run(self) -> None:
        """See ``Engine.run``: whoever follows sees to it."""
        await trio.sleep_forever()

    async def aclose(self) -> None:
        """See ``Engine.aclose``: whoever follows closes."""
