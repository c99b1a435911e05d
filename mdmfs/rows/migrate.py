"""Moves a store from LMDB into a database and back, page by page, until a comparison of every row finds no difference.

A move that was interrupted begins again, and finds what has arrived. While a daemon still works on the LMDB, most of it
is copied; the rest follows once it has been stopped. What was the store then is the copy of the database.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from mdmfs.model.errors import ConfigurationError, StoreError
from mdmfs.rows.copied import PATIENCE_AT_START, Copied, connect_patiently
from mdmfs.rows.database import TOKEN_SIZE, UNREACHED, Database, LostError, Position, State
from mdmfs.rows.embedded import Embedded
from mdmfs.rows.environment import copied_of, forget_copied, locked, set_copied
from mdmfs.rows.port import MAX_KEY_BYTES, Layout, Rows
from mdmfs.rows.url import DatabaseUrl

PAGE: Final = 2_000
"""Rows that are compared at once."""

_BEYOND: Final = b"\xff" * (MAX_KEY_BYTES + 2)
"""After every key."""

Told = Callable[[int], object]
"""Told after each page how many rows have been compared."""


class Moved(NamedTuple):
    """What came of a move."""

    rows: int
    written: int
    """Rows that were not there yet, or otherwise."""
    is_over: bool
    """False where the daemon runs: the store is still where it was."""


def bring_in(path: Path, layout: Layout, url: str, told: Told) -> Moved:
    """Move the store in a directory into a database in which there is none, or part of this one.

    So is a copy whose database is lost, where another one is there in its place. Raises ``ConfigurationError`` where
    there is nothing to move, or something else in the database, or it cannot be reached.
    """
    database = Database(DatabaseUrl(url), layout.what)
    try:
        connect_patiently(database, PATIENCE_AT_START)
        state, mine = database.state(), copied_of(path, layout)
        if mine is None or (mine and state is not None):
            raise ConfigurationError(_nothing_to_move(path, layout, state if mine else None))
        if state is not None and state.position.number and not state.is_left:
            message = f"{database} holds a {layout.what} that a daemon has worked on: give an empty database"
            raise ConfigurationError(message)
        with Embedded.looking(path, layout) as source:
            rows, written = _amend(source, layout, database, told)
        with locked(path, is_alone=True) as is_alone:
            if not is_alone:
                return Moved(rows, written, is_over=False)
            with Embedded.looking(path, layout) as source:
                written += _amend(source, layout, database, told)[1]
                rows, different = _compare(source, layout, database, told)
            if different:
                message = f"{different} rows of {database} are not what was written: does somebody else write there?"
                raise StoreError(message)
            start = Position(0, secrets.token_bytes(TOKEN_SIZE))
            set_copied(path, layout, start.encode())  # first: who is killed in between leaves one that works, or none
            database.begin(start)
            return Moved(rows, written, is_over=True)
    except LostError as error:
        raise database.placed(ConfigurationError(str(error), what_to_do=UNREACHED)) from error
    finally:
        database.close()


def _nothing_to_move(path: Path, layout: Layout, state: State | None) -> str:
    """Say why, also to who begins a move again that was over when it was cut; ``state`` is what a copy is of."""
    if state is None:
        return f"{path} holds no {layout.what}: there is nothing to move"
    if state.is_left:
        return f"{path} is a copy of what was being brought back: mdmfs migrate --back goes on, or says where it is"
    return f"{path} is the copy of a database that has been begun: there is nothing to move, start the daemon"


def bring_back(path: Path, layout: Layout, url: str, told: Told) -> Moved:
    """Make the copy of a database, on which no daemon works, the store; the database is left as it is, and marked.

    Raises ``StoreError`` where a row of the copy is not that of the database: then nothing was changed.
    """
    database = Database(DatabaseUrl(url), layout.what)
    try:
        connect_patiently(database, PATIENCE_AT_START)
        state = database.state()
        if state is None or (state.is_left and not copied_of(path, layout)):
            why = ": it was brought back, and is in LMDB since" if state is not None else ""
            message = f"{database} holds no {layout.what} that could be brought back{why}"
            raise ConfigurationError(message)
        rows = _finish(database, path, layout, told) if state.is_left else _leave(database, path, layout, told)
        forget_copied(path, layout)
        return Moved(rows, 0, is_over=True)
    except LostError as error:
        raise database.placed(ConfigurationError(str(error), what_to_do=UNREACHED)) from error
    finally:
        database.close()


def _leave(database: Database, path: Path, layout: Layout, told: Told) -> int:
    engine = Copied.over(database, path, layout)
    try:
        rows, different = _compare(engine, layout, database, told)
        if different:
            message = (
                f"{different} rows of {path} are not those of {database}: take {path} away, and the database is copied"
                " anew at the next try"
            )
            raise StoreError(message)
        database.leave()
    finally:
        engine.close()
    return rows


def _finish(database: Database, path: Path, layout: Layout, told: Told) -> int:
    """Compare the copy of a database that is marked already: the move was cut then, or went to another directory."""
    with Embedded.looking(path, layout) as engine:
        rows, different = _compare(engine, layout, database, told)
    if different:
        message = (
            f"{different} rows of {path} are not those of {database}, from which the {layout.what} was brought back"
            " elsewhere"
        )
        raise StoreError(message)
    return rows


class _Page(NamedTuple):
    """Rows that follow one another, and those that the database has between the same keys."""

    here: dict[bytes, bytes]
    there: dict[bytes, bytes]

    def changes(self) -> dict[bytes, bytes | None]:
        """Give what makes them equal."""
        differ: dict[bytes, bytes | None] = {
            key: value for key, value in self.here.items() if self.there.get(key) != value
        }
        return differ | {key: None for key in self.there if key not in self.here}


def _amend(source: Embedded, layout: Layout, database: Database, told: Told) -> tuple[int, int]:
    """Make the rows of the database those of the source; give how many there are, and how many were not so."""
    rows = written = 0
    for page in _pages(source, layout, database):
        changes = page.changes()
        if changes:
            database.amend(changes)
        rows, written = rows + len(page.here), written + len(changes)
        told(rows)
    return rows, written


def _compare(source: Embedded, layout: Layout, database: Database, told: Told) -> tuple[int, int]:
    """Count the rows, and those that are not the same in both."""
    rows = different = 0
    for page in _pages(source, layout, database):
        rows, different = rows + len(page.here), different + len(page.changes())
        told(rows)
    return rows, different


def _pages(source: Embedded, layout: Layout, database: Database) -> Iterator[_Page]:
    """Go through all keys of both, in transactions of one page."""
    first = b""
    for table in sorted(layout.tables):
        prefix, start = bytes([table]), b""
        while here := source.read(lambda rows, prefix=prefix, start=start: _page_of(rows, prefix, start)):  # type: ignore[misc]
            here_by_key = {key: value for key, value in here if key != layout.copied}
            last = here[-1][0]
            yield from _parts(here_by_key, first, last, database)
            first = last + b"\0"
            start = first[1:]
    yield from _parts({}, first, _BEYOND, database)


def _parts(here: dict[bytes, bytes], first: bytes, last: bytes, database: Database) -> Iterator[_Page]:
    """Set a page beside what the database has there, in parts where that is more than was to be expected."""
    while len(there := database.page(first, last, 2 * PAGE)) == 2 * PAGE:
        end = there[-1][0]
        yield _Page({key: value for key, value in here.items() if key <= end}, dict(there))
        here = {key: value for key, value in here.items() if key > end}
        first = end + b"\0"
    yield _Page(here, dict(there))


def _page_of(rows: Rows, prefix: bytes, start: bytes) -> list[tuple[bytes, bytes]]:
    return [(prefix + key, value) for key, value in itertools.islice(rows.scan(prefix, start), PAGE)]
