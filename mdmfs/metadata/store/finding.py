"""Finding: a query's text and a caller's rights to a page of rows; the same way for pages, counts and explanations."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import sqlalchemy as sa

from mdmfs.metadata.query.check import CheckedQuery, check
from mdmfs.metadata.query.parse import parse
from mdmfs.metadata.schema import IMAGE_ATTRIBUTES, Attribute, AttributeType, Level, Schema, Value
from mdmfs.metadata.store.about import stamp_of_rights
from mdmfs.metadata.store.collections import readable_schema, whole_schema
from mdmfs.metadata.store.compile import Compiler, Mark, columns_of
from mdmfs.metadata.store.rights import Classes
from mdmfs.metadata.store.values import as_typed, refuse_nul
from mdmfs.model.errors import MalformedMessageError
from mdmfs.model.identity import Principal
from mdmfs.wire.messages.metadata import MAX_PAGE, Explanation, Find, FoundPage, Scalar, SchemaTold

_PATH = Attribute("path", AttributeType.TEXT, Level.SERIES)
_NUMBERED: Final = re.compile(r"\b(records_|a_)\d+\b")
_SERIES_AT_ONCE: Final = 64
"""At first, of those whose images are looked at; then four times as many, and so on."""
_SIGHTS: Final = 256
"""Of how many different callers it is remembered what they may ask for."""


class Known:
    """Classes and schema as they were last read: read again when the database says that they have changed."""

    def __init__(self) -> None:
        self._last = _Rights(None, Classes({}), ())

    def reader(self, connection: sa.Connection, principal: Principal, now: float) -> Reader:
        """Decide once what a caller may read, for all that follows in this transaction."""
        last, stamp = self._last, stamp_of_rights(connection)
        if stamp != last.stamp:
            last = self._last = _Rights(stamp, Classes.read(connection), whole_schema(connection))
        allowed = last.classes.readable_by(principal, now)
        schema = last.schema_of(tuple(allowed))
        return Reader(connection, schema, Compiler(allowed, schema, connection.dialect.name))


class _Rights:
    """All rights under one stamp; questions share it, each in a thread of its own."""

    def __init__(self, stamp: bytes | None, classes: Classes, whole: Sequence[Any]) -> None:
        self.stamp: Final = stamp
        self.classes: Final = classes
        self._whole = whole
        self._schemas: dict[tuple[int, ...], Schema] = {}

    def schema_of(self, allowed: tuple[int, ...]) -> Schema:
        """Give the same schema to all who may read the same: statements are kept for it."""
        found = self._schemas.get(allowed)
        if found is None:
            if len(self._schemas) >= _SIGHTS:
                self._schemas = {}
            found = self._schemas[allowed] = readable_schema(self._whole, allowed)
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class Reader:
    """What one caller may read, in one transaction."""

    connection: sa.Connection
    schema: Schema
    compiler: Compiler
    """What makes statements for this caller."""

    def check(self, query: str, level: Level) -> CheckedQuery:
        """Read a query; raises ``MalformedQueryError``."""
        return check(parse(query), self.schema, level)

    def page(self, asked: Find) -> FoundPage:
        """Give a page of what a query finds; raises ``MalformedQueryError`` or ``MalformedMessageError``."""
        refuse_nul(asked.within)
        level = Level(asked.level.value)
        query = self.check(asked.query, level)
        after = _mark(asked.after, query) if asked.after else None
        limit = min(max(asked.limit, 1), MAX_PAGE)
        if level is Level.IMAGE and not query.order and not asked.within:
            rows = self._images(query, after, limit + 1, is_bare=asked.is_bare)
        else:
            statement, values = self.compiler.page(
                query, after=after, limit=limit + 1, within=asked.within, is_bare=asked.is_bare
            )
            rows = self.connection.execute(statement, values).all()
        keys = len(query.order) + (2 if level is Level.IMAGE else 1)
        shown = rows[:limit]
        guids = keys if level is Level.IMAGE else None
        shown_from = keys if guids is None else keys + 1
        columns = [] if asked.is_bare else columns_of(level)
        return FoundPage(
            columns=[attribute.name for attribute in columns],
            rows=_as_told([row[shown_from:] for row in shown], columns),
            paths=["/".join(row[len(query.order) : keys]) for row in shown],
            keys=_as_told([row[:keys] for row in shown], [attribute for attribute, _ in query.order]),
            descending=[is_descending for _, is_descending in query.order],
            limit=query.limit,
            is_last=len(rows) <= limit,
            guids=() if guids is None else tuple(bytes(row[guids]) for row in shown),
        )

    def _images(self, query: CheckedQuery, after: Mark | None, limit: int, *, is_bare: bool) -> Sequence[Any]:
        """Give images in the order of paths: those of some series after another, since there may be a million.

        An index on paths would find them in order, and pass over series that are not for the caller.
        """
        rows: list[Any] = []
        path, many, is_whole = str(after[0]) if after else "", _SERIES_AT_ONCE, False
        while len(rows) < limit:
            statement, values = self.compiler.series(query, after=path, limit=many, is_after_whole=is_whole)
            series = self.connection.execute(statement, values).all()
            if series:
                numbers = [number for number, _ in series]
                statement, values = self.compiler.page(
                    query, after=after, limit=limit - len(rows), numbers=numbers, is_bare=is_bare
                )
                rows += self.connection.execute(statement, values).all()
            if len(series) < many:
                break
            path, many, is_whole = series[-1][1], 4 * many, True
        return rows

    def count(self, query: str, level: Level) -> int:
        """Tell how much a query finds."""
        statement, values = self.compiler.count(self.check(query, level))
        return int(self.connection.execute(statement, values).scalar_one())

    def explain(self, query: str, level: Level) -> Explanation:
        """Tell what a query is understood as, and the statement without its values."""
        statement, _ = self.compiler.page(self.check(query, level), after=None, limit=1)
        return Explanation(str(parse(query)), _renumbered(str(statement.compile(dialect=self.connection.dialect))))

    def told_schema(self) -> SchemaTold:
        """Tell what the caller may ask for."""
        own = [(one.name, one.type.value, one.level.value) for one in IMAGE_ATTRIBUTES.values()]
        records = {
            (column.name, column.type.value, collection.name)
            for collection in self.schema.all()
            for column in collection.columns.values()
        }
        return SchemaTold([*own, *sorted(records, key=lambda one: (one[2], *one))])


def _renumbered(statement: str) -> str:
    """Count tables and columns of records in this statement alone: their own numbers tell how many others there are."""
    counted: dict[str, int] = {}
    return _NUMBERED.sub(lambda found: f"{found[1]}{counted.setdefault(found[0], len(counted) + 1)}", statement)


def _mark(after: Sequence[Scalar], query: CheckedQuery) -> Mark:
    """Read where the page before has ended; raises ``MalformedMessageError`` for what cannot be such a place."""
    rest = 2 if query.level is Level.IMAGE else 1
    attributes = [*(attribute for attribute, _ in query.order), *[_PATH] * rest]
    if len(after) != len(attributes):
        message = "a page follows the key of the last row of the page before, with as many values"
        raise MalformedMessageError(message)
    mark: list[Value | None] = []
    for value, attribute in zip(after, attributes, strict=True):
        typed = None if value is None else as_typed(value, attribute.type)
        if typed is None and (value is not None or attribute is _PATH):
            message = "a page follows the key of the last row of the page before, with values of the same types"
            raise MalformedMessageError(message)
        mark.append(typed)
    return tuple(mark)


def _as_told(rows: Iterable[Sequence[Any]], columns: Sequence[Attribute]) -> list[list[Scalar]]:
    """Write rows as they travel; only dates are written otherwise than they are read, and few columns have any."""
    dates = [position for position, attribute in enumerate(columns) if attribute.type is AttributeType.DATE]
    told = [list(row) for row in rows]
    for row in told:
        for position in dates:
            row[position] = scalar(row[position])
    return told


def scalar(value: Any) -> Scalar:  # noqa: ANN401 what a row holds
    """Write a value of a row as it travels."""
    if isinstance(value, dt.date):
        return value.isoformat()
    found: Scalar = value
    return found
