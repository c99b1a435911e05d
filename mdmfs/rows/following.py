"""A copy that follows a database on which another daemon works, until that one is gone.

Each commit rings (NOTIFY), and its number in the log tells what is missing here. So who takes over has next to nothing
to copy; but he waits until the other one surely answers nobody any more, whatever becomes of him meanwhile.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

import structlog

from mdmfs.model.errors import ConfigurationError
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
from mdmfs.rows.database import Database, LostError, Position
from mdmfs.rows.embedded import (
    MAP_SIZE,
    LmdbRows,
    copied_of,
    locked,
    make_private,
    naming_errors,
    open_environment,
    opening,
)
from mdmfs.rows.port import Layout
from mdmfs.rows.url import DatabaseUrl

log = structlog.get_logger()

LOOK_SECONDS: Final = 1.0
"""Between two looks whether somebody works on the database, where nothing is committed meanwhile."""
GRACE: Final = 4.0
"""Seconds for which nobody must have worked on it: a daemon whose session broke has a new one by then."""


class Following:
    """One directory with the copy of a database; not for two threads at once."""

    def __init__(
        self, path: Path, layout: Layout, url: str, waiting: Waiting = USUAL, *, map_size: int = MAP_SIZE
    ) -> None:
        """Take a directory for oneself; raises ``ConfigurationError`` where a daemon works in it already."""
        self._path, self._layout, self._waiting, self._map_size = path, layout, waiting, map_size
        self._database = Database(DatabaseUrl(url), layout.what, waiting.patience)
        self._is_watching = False
        self._free_since: float | None = None
        self._reached: Position | None = None
        """Up to where the copy goes, as far as it is known."""
        self._held = contextlib.ExitStack()
        make_private(path, layout)
        self._hold()

    def step(self, seconds: float = LOOK_SECONDS) -> bool:
        """Apply what was committed, and wait so long for more; tells whether the other one seems gone.

        Blocks. Raises ``ConfigurationError`` where the directory or the database holds something else, ``StoreError``
        and ``OutOfSpaceError`` where the copy cannot be written.
        """
        try:
            self._watch()
            self._apply()
            self._database.hear(seconds)
            return self._has_gone()
        except LostError as error:
            if self._is_watching:
                log.warning("the database is being waited for", store=self._layout.what, reason=str(error))
            self._is_watching = False
            time.sleep(PAUSE)
            return False

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
        self._held.close()
        try:
            self._database.connect()
            return Copied.over(self._database, self._path, self._layout, map_size=self._map_size, waiting=self._waiting)
        except LostError:
            self._is_watching = False
            self._hold()
            return None

    def close(self) -> None:
        """Follow no longer."""
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
            copied = copied_of(self._path, self._layout)
            refuse_to_copy(state, copied, self._path, self._layout)
            mine = None if copied is None else Position.decode(copied)
            if mine is None or not self._database.has(mine):
                log.info("the database is being copied", store=self._layout.what, directory=str(self._path))
                load(self._database, self._path, self._layout, state.position.encode() + FOLLOWED)
            elif mine != state.position:
                self._advance(mine, state.position)
            self._reached = state.position

    def _advance(self, mine: Position, reached: Position) -> None:
        with opening(self._path, self._layout):
            env = open_environment(self._path, self._map_size, is_copy=True)
        with env, naming_errors(self._layout, self._path):
            tables = {byte: env.open_db(name) for byte, name in self._layout.tables.items()}
            with env.begin(write=True) as txn:
                rows = LmdbRows(txn, tables, self._layout)
                apply_log(self._database, rows, mine)
                rows.put(self._layout.copied, reached.encode() + FOLLOWED)
