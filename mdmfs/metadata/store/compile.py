"""Compile: a checked query to one bound statement; values, names of columns and rights are parameters or our own."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from mdmfs.metadata.query import check
from mdmfs.metadata.query.check import Checked, CheckedQuery, Exists
from mdmfs.metadata.query.syntax import Operator, Value
from mdmfs.metadata.schema import IMAGE_ATTRIBUTES, Attribute, Collection, Level, Schema
from mdmfs.metadata.store.tables import IMAGES, SERIES, table_of

Clause = sa.ColumnElement[bool]
Mark = tuple[Value | None, ...]
"""Where a page ends: the values of what orders the result in its last row, the path last."""

_COMPARE: Final[dict[Operator, Callable[[Any, Any], Clause]]] = {
    Operator.EQUAL: operator.eq,
    Operator.UNEQUAL: operator.ne,
    Operator.LESS: operator.lt,
    Operator.LESS_OR_EQUAL: operator.le,
    Operator.GREATER: operator.gt,
    Operator.GREATER_OR_EQUAL: operator.ge,
}
_OF_SERIES: Final = IMAGES.alias()
"""Images that a series is asked about."""
_HEADS: Final = {Level.SERIES: SERIES, Level.IMAGE: IMAGES}


class Compiler:
    """Compiles for one caller: by the classes of ACLs that let him read, and the schema that he may know."""

    def __init__(self, allowed: Sequence[int], schema: Schema, dialect: str) -> None:
        """``dialect`` is ``sqlite`` or ``postgresql``: they take a list as one parameter in different ways."""
        self._schema = schema
        self._allowed = _listed(allowed) if dialect == "postgresql" else _selected(allowed)

    def page(self, query: CheckedQuery, *, after: Mark | None, limit: int) -> sa.Select[Any]:
        """Select the columns of one page in order; ``after`` is the mark of the page before."""
        keys = order_keys(query)
        guids = [IMAGES.c.guid] if query.level is Level.IMAGE else []
        shown = [self._column(attribute).label(attribute.name) for attribute in columns_of(query.level)]
        statement = self._matching(
            query, sa.select(*(key.label(f"k{n}") for n, key in enumerate(keys)), *guids, *shown)
        )
        if after is not None:
            statement = statement.where(_behind(keys, [is_descending for _, is_descending in query.order], after))
        ordered = [
            part for (attribute, is_descending) in query.order for part in self._sorted(attribute, is_descending)
        ]
        return statement.order_by(*ordered, *keys[len(query.order) :]).limit(limit)

    def count(self, query: CheckedQuery) -> sa.Select[Any]:
        """Select how many match, at most the query's limit."""
        if query.limit is None:
            return self._matching(query, sa.select(sa.func.count()))
        matching = self._matching(query, sa.select(sa.literal(1))).limit(query.limit).subquery()
        return sa.select(sa.func.count()).select_from(matching)

    def frozen(self, query: CheckedQuery) -> sa.Select[Any]:
        """Select the images, to be frozen, of what matches: all images of the series that the caller may read."""
        joined = sa.select(SERIES.c.path, IMAGES).join(IMAGES, IMAGES.c.series == SERIES.c.id)
        statement = joined.where(SERIES.c.visible, IMAGES.c.visible, self.readable(SERIES), self.readable(IMAGES))
        if query.condition is not None:
            statement = statement.where(self._clause(query.condition, self._column))
        return statement

    def readable(self, table: sa.FromClause) -> Clause:
        """Say that the caller may read a row of a table."""
        column: sa.ColumnElement[Any] = table.c["class"]
        return (
            column == self._allowed if isinstance(self._allowed, sa.CollectionAggregate) else column.in_(self._allowed)
        )

    def _matching(self, query: CheckedQuery, statement: sa.Select[Any]) -> sa.Select[Any]:
        if query.level is Level.IMAGE:
            statement = statement.select_from(IMAGES.join(SERIES, IMAGES.c.series == SERIES.c.id))
            statement = statement.where(IMAGES.c.visible, self.readable(IMAGES))
        else:
            statement = statement.select_from(SERIES)
        statement = statement.where(SERIES.c.visible, self.readable(SERIES))
        if query.condition is not None:
            statement = statement.where(self._clause(query.condition, self._column))
        return statement

    def _column(self, attribute: Attribute) -> sa.ColumnElement[Any]:
        return _HEADS[attribute.level].c[attribute.name]

    def _clause(self, condition: Checked, column: Callable[[Attribute], sa.ColumnElement[Any]]) -> Clause:
        match condition:
            case check.Asked():
                return self._asked(condition, column(condition.attribute))
            case check.Nay(operand):
                return sa.not_(self._clause(operand, column))
            case check.All(operands):
                return sa.and_(*(self._clause(one, column) for one in operands))
            case check.Any(operands):
                return sa.or_(*(self._clause(one, column) for one in operands))
            case Exists(Level.RECORD, collection, inner):
                found = [self._subjects(one, inner) for one in self._schema.collections(collection)]
                return sa.or_(sa.false(), *found)
            case Exists(_, _, inner):
                rows = sa.select(_OF_SERIES.c.series).where(
                    _OF_SERIES.c.visible,
                    self.readable(_OF_SERIES),
                    self._clause(inner, lambda attribute: _OF_SERIES.c[attribute.name]),
                )
                return SERIES.c.id.in_(rows)

    def _subjects(self, collection: Collection, inner: Checked) -> Clause:
        """Say that a subject has a record, in one collection of one project, for which a condition holds."""
        records = table_of(collection)

        def column(attribute: Attribute) -> sa.ColumnElement[Any]:
            found = collection.columns.get(attribute.name)
            return sa.null() if found is None else records.c[f"a_{found.number}"]

        rows = sa.select(records.c.subject).where(self.readable(records), self._clause(inner, column))
        return SERIES.c.Subject.in_(rows)

    def _asked(self, test: check.Asked, column: sa.ColumnElement[Any]) -> Clause:
        match test.operator:
            case Operator.MISSING:
                return column.is_(None)
            case Operator.PRESENT:
                return column.is_not(None)
            case Operator.LIKE:
                return column.like(_bound(test.values[0]), escape="\\")
            case Operator.IN:
                return column.in_(test.values)
            case _:
                return _COMPARE[test.operator](column, _bound(test.values[0]))

    def _sorted(self, attribute: Attribute, is_descending: bool) -> list[sa.ColumnElement[Any]]:  # noqa: FBT001 as in the query
        column = self._column(attribute)
        return [column.is_(None), column.desc() if is_descending else column.asc()]


def _listed(numbers: Sequence[int]) -> sa.CollectionAggregate[Any]:
    """Give numbers as one parameter, however many they are; PostgreSQL."""
    return sa.any_(sa.bindparam(None, list(numbers), type_=postgresql.ARRAY(sa.BigInteger())))


def _selected(numbers: Sequence[int]) -> sa.Select[Any]:
    """Give numbers as one parameter, however many they are; SQLite."""
    each = sa.func.json_each(sa.bindparam(None, json.dumps(list(numbers)), type_=sa.Text())).table_valued("value")
    return sa.select(each.c.value)


def columns_of(level: Level) -> list[Attribute]:
    """Name the attributes that are shown of each thing found."""
    shown = {Level.SERIES} if level is Level.SERIES else {Level.SERIES, Level.IMAGE}
    return [attribute for attribute in IMAGE_ATTRIBUTES.values() if attribute.level in shown]


def order_keys(query: CheckedQuery) -> list[sa.ColumnElement[Any]]:
    """Give what orders a result: as was asked, then path and name, so that no two rows are equal."""
    keys: list[sa.ColumnElement[Any]] = [_HEADS[attribute.level].c[attribute.name] for attribute, _ in query.order]
    keys.append(SERIES.c.path)
    return [*keys, IMAGES.c.name] if query.level is Level.IMAGE else keys


def _behind(keys: Sequence[sa.ColumnElement[Any]], descending: Sequence[bool], mark: Mark) -> Clause:
    """Say that a row comes after a mark: what is missing comes last, whichever way the rest goes."""
    clauses: list[Clause] = []
    for position, (key, value) in enumerate(zip(keys, mark, strict=True)):
        if value is None:
            continue
        is_asked = position < len(descending)
        beyond = key < _bound(value) if is_asked and descending[position] else key > _bound(value)
        same = [_same(keys[n], mark[n]) for n in range(position)]
        clauses.append(sa.and_(*same, sa.or_(beyond, key.is_(None)) if is_asked else beyond))
    return sa.or_(*clauses)


def _same(key: sa.ColumnElement[Any], value: Value | None) -> Clause:
    return key.is_(None) if value is None else key == _bound(value)


def _bound(value: Value) -> sa.BindParameter[Any]:
    """Make a parameter: no value that was written ever becomes a part of a statement."""
    return sa.bindparam(None, value)
