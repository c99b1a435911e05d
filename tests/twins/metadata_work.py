"""Tells what a database does for a question: steps of SQLite's machine, or PostgreSQL's plans."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa

from mdmfs.metadata.store.database import Database


def steps_of(database: Database, ask: Callable[[sa.Connection], object]) -> int:
    """Count the steps of SQLite's machine for ``ask``, as far as it counts them: at each turn of a loop."""
    return database.read_now(lambda c: _steps(c, ask))


def _steps(connection: sa.Connection, ask: Callable[[sa.Connection], object]) -> int:
    raw: Any = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    count = 0

    def counted() -> int:
        nonlocal count
        count += 1
        return 0

    raw.set_progress_handler(counted, 1)
    ask(connection)
    raw.set_progress_handler(None, 0)
    return count


def plans_of(database: Database, ask: Callable[[sa.Connection], object]) -> list[dict[str, Any]]:
    """Give what PostgreSQL has done for each statement of ``ask``, as EXPLAIN ANALYZE tells."""
    asked: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, values: object, *___: object) -> None:
        asked.append((statement, values))

    def act(connection: sa.Connection) -> list[dict[str, Any]]:
        sa.event.listen(connection, "before_cursor_execute", note)
        ask(connection)
        sa.event.remove(connection, "before_cursor_execute", note)
        return [_explained(connection, *one) for one in asked if " series" in one[0] or "records_" in one[0]]

    return database.read_now(act)


def _explained(connection: sa.Connection, statement: str, values: Any) -> dict[str, Any]:  # noqa: ANN401 as the driver takes them
    told = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}", values).scalar_one()
    plan: dict[str, Any] = (json.loads(told) if isinstance(told, str) else told)[0]["Plan"]
    return plan


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Go through a plan."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes_of(below)
