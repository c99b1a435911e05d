"""Many rows in one statement, as each database takes them: what is told is mostly many small things."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

Row = Mapping[str, Any]
_ROWS: Final = "rows"
_ENCODE: Final = msgspec.json.Encoder().encode


def insert(connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
    """Insert rows that have the same columns.

    PostgreSQL takes all of them as one document in JSON: a statement for each row is five times slower, and lists of
    values are written by psycopg value by value.
    """
    if rows:
        _run(connection, _inserting(connection.dialect.name, table, tuple(rows[0])), rows)


def upsert(connection: sa.Connection, table: sa.Table, rows: Sequence[Row], *kept: str) -> None:
    """Insert rows; where one with the same GUID is there, all columns but those that are kept are replaced."""
    last = list({row["guid"]: row for row in rows}.values())
    if last:
        _run(connection, _upserting(connection.dialect.name, table, tuple(last[0]), kept), last)


def _run(connection: sa.Connection, statement: sa.Insert, rows: Sequence[Row]) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(statement, {_ROWS: _ENCODE([_as_json(row) for row in rows]).decode()})
    else:
        connection.execute(statement, list(rows))


@functools.lru_cache(maxsize=256)
def _inserting(dialect: str, table: sa.Table, names: tuple[str, ...]) -> sa.Insert:
    if dialect != "postgresql":
        return table.insert()
    document = sa.cast(sa.bindparam(_ROWS, type_=sa.Text()), postgresql.JSON)
    columns = [sa.column(name, _plain(table.c[name].type)) for name in names]
    each = sa.func.json_to_recordset(document).table_valued(*columns)
    given = each.render_derived(name="given", with_types=True)
    return postgresql.insert(table).from_select(list(names), sa.select(*(given.c[name] for name in names)))


@functools.lru_cache(maxsize=256)
def _upserting(dialect: str, table: sa.Table, names: tuple[str, ...], kept: tuple[str, ...]) -> sa.Insert:
    made = _inserting(dialect, table, names) if dialect == "postgresql" else sqlite.insert(table)
    assert isinstance(made, postgresql.Insert | sqlite.Insert)  # noqa: S101 each dialect has its own
    replaced = {name: made.excluded[name] for name in names if name not in kept}
    return made.on_conflict_do_update(index_elements=[table.c.guid], set_=replaced)


def _as_json(row: Row) -> dict[str, Any]:
    """Write bytes as PostgreSQL reads them in a text; JSON has all else that a row holds."""
    return {name: f"\\x{value.hex()}" if isinstance(value, bytes) else value for name, value in row.items()}


def _plain(kind: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
    """Give a type as that of a column of a document, which has no collation."""
    return sa.Text() if isinstance(kind, sa.Text) else kind
