"""Compile: a checked query to one bound statement; values, names of columns and rights are parameters or our own.

To put a statement together costs more than to run it, so it is made once for all questions of the same shape: those
that differ in their values only.

What a statement costs must not tell what is in rows that its caller may not read. So a row's class is looked at before
anything else in it: by indexes that begin with the class, or as the first of its conditions (docs/adr/0009).
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql import operators

from mdmfs.metadata.query import check
from mdmfs.metadata.query.check import Checked, CheckedQuery, Exists, Slot
from mdmfs.metadata.query.parse import refuse
from mdmfs.metadata.query.syntax import Operator
from mdmfs.metadata.schema import IMAGE_ATTRIBUTES, Attribute, AttributeType, Collection, Level, Schema, Value
from mdmfs.metadata.store.numbers import is_of, list_of, ranges_of
from mdmfs.metadata.store.shape import emptied, of_series
from mdmfs.metadata.store.tables import IMAGES, PLACE, SERIES, TEXT, table_of

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
_OTHERS: Final = SERIES.alias()
"""Series that one is asked about, of the same study or subject; itself among them."""
_JOINED: Final = {"study": ("Subject", "Session"), "subject": ("Subject",)}
"""By what they are."""
_HEADS: Final = {Level.SERIES: SERIES, Level.IMAGE: IMAGES}
_AS_IT_IS: Final[operators.custom_op[Any]] = operators.custom_op("+")
"""Before an expression: SQLite looks for no index to serve it."""
MAX_SELECTS: Final = 1000
"""Tables of records that one statement looks into, again and again: one test may look into all that there can be."""
_UNITED: Final = 400
"""Selects of one union: SQLite takes 500."""
_SHAPES: Final = 512
"""Statements that are kept."""
_ALLOWED: Final = "allowed"
_RANGES: Final = "ranges"
_LIMIT: Final = "most"
_WITHIN: Final = "within"
_NUMBERS: Final = "numbers"
_PARAMETERS: Final[dict[AttributeType, sa.types.TypeEngine[Any]]] = {
    AttributeType.TEXT: sa.String(),
    AttributeType.INTEGER: sa.BigInteger(),
    AttributeType.NUMBER: sa.Double(),
    AttributeType.BOOLEAN: sa.Boolean(),
    AttributeType.DATE: sa.Date(),
}


class Bound(NamedTuple):
    """A statement, and the values of its parameters."""

    statement: sa.Select[Any]
    values: dict[str, Any]


class Compiler:
    """Compiles for one caller: by the classes of ACLs that let him read, and the schema that he may know."""

    def __init__(self, allowed: Sequence[int], schema: Schema, dialect: str) -> None:
        """``dialect`` is ``sqlite`` or ``postgresql``: they take a list as one parameter in different ways."""
        self._rights = {_ALLOWED: list_of(allowed, dialect)}
        if dialect == "postgresql":
            self._rights[_RANGES] = ranges_of(allowed)
        self._schema = schema
        self._dialect = dialect

    def page(
        self,
        query: CheckedQuery,
        *,
        after: Mark | None,
        limit: int,
        within: str = "",
        numbers: Sequence[int] | None = None,
        is_bare: bool = False,
    ) -> Bound:
        """Select the columns of one page in order; ``after`` is the mark of the page before.

        ``within`` is the path of the one series that is looked at; ``numbers`` are those of ``series``; a bare page has
        keys and GUIDs only.
        """
        shape, values = self._parted(query)
        if after is None and query.level is Level.SERIES and not query.order:
            after = ("",)  # every path comes after it: so SQLite goes by place, and stops when it has enough
        there = None if after is None else tuple(value is not None for value in after)
        marks = {_mark(number): value for number, value in enumerate(after or ()) if value is not None}
        values |= marks | {_LIMIT: limit}
        if within:
            values[_WITHIN] = within
        if numbers is not None:
            values[_NUMBERS] = list_of(numbers, self._dialect)
        asked = _Asked(shape, there, bool(within), numbers is not None, is_bare)
        return Bound(_page(self._schema, self._dialect, asked), values)

    def series(self, query: CheckedQuery, *, after: str, limit: int, is_after_whole: bool) -> Bound:
        """Select numbers and paths of series, in order, among which are all that images of a query are of.

        It begins behind the path ``after``, or, unless that one was looked at as a whole, with it.
        """
        shape, values = self._parted(query)
        values |= {_mark(0): after, _LIMIT: limit}
        return Bound(_series(self._schema, self._dialect, shape, is_after_whole), values)

    def count(self, query: CheckedQuery) -> Bound:
        """Select how many match, at most the query's limit."""
        shape, values = self._parted(query)
        most = {} if query.limit is None else {_LIMIT: query.limit}
        return Bound(_count(self._schema, self._dialect, shape), values | most)

    def frozen(self, query: CheckedQuery) -> sa.Select[Any]:
        """Select the images, to be frozen, of what matches: all images of the series that the caller may read."""
        shape, values = self._parted(query)
        return _Writer(self._schema, self._dialect).frozen(shape).params(values)

    def readable(self, table: sa.FromClause) -> Clause:
        """Say that the caller may read a row of a table."""
        return _readable(table, self._dialect, self._rights)

    def _parted(self, query: CheckedQuery) -> tuple[CheckedQuery, dict[str, Any]]:
        """Part the shape of a query from its values."""
        values: list[Value | Slot] = []
        condition = None if query.condition is None else emptied(query.condition, values)
        shape = dataclasses.replace(query, condition=condition, limit=None if query.limit is None else 1)
        return shape, {_value(number): value for number, value in enumerate(values)} | self._rights


def columns_of(level: Level) -> list[Attribute]:
    """Name the attributes that are shown of each thing found."""
    shown = {Level.SERIES} if level is Level.SERIES else {Level.SERIES, Level.IMAGE}
    return [attribute for attribute in IMAGE_ATTRIBUTES.values() if attribute.level in shown]


class _Asked(NamedTuple):
    """What a page's statement depends on."""

    shape: CheckedQuery
    there: tuple[bool, ...] | None
    """Which values of the mark are not missing; None for the first page."""
    is_within: bool
    is_by_number: bool
    is_bare: bool


@functools.lru_cache(maxsize=_SHAPES)
def _page(schema: Schema, dialect: str, asked: _Asked) -> sa.Select[Any]:
    return _Writer(schema, dialect).page(asked)


@functools.lru_cache(maxsize=_SHAPES)
def _series(schema: Schema, dialect: str, shape: CheckedQuery, is_after_whole: bool) -> sa.Select[Any]:  # noqa: FBT001 part of a key
    return _Writer(schema, dialect).series(shape, is_after_whole=is_after_whole)


@functools.lru_cache(maxsize=_SHAPES)
def _count(schema: Schema, dialect: str, shape: CheckedQuery) -> sa.Select[Any]:
    return _Writer(schema, dialect).count(shape)


class _Writer:
    """Writes statements for queries of one shape."""

    def __init__(self, schema: Schema, dialect: str) -> None:
        self._schema = schema
        self._dialect = dialect
        self._selects = 0

    def page(self, asked: _Asked) -> sa.Select[Any]:
        shape = asked.shape
        keys = _order_keys(shape)
        guids = [IMAGES.c.guid] if shape.level is Level.IMAGE else []
        known = [] if asked.is_bare else columns_of(shape.level)
        shown = [self._column(attribute).label(attribute.name) for attribute in known]
        columns = (*(key.label(f"k{n}") for n, key in enumerate(keys)), *guids, *shown)
        ordered = [
            part for (attribute, is_descending) in shape.order for part in self._sorted(attribute, is_descending)
        ]
        ordered += keys[len(shape.order) :]
        if shape.level is Level.IMAGE or asked.is_bare:
            matching = self._of_page(asked, sa.select(*columns), keys)
            return matching.order_by(*ordered).limit(_most())
        # what is shown is wide: only the page's rows are read whole, and sorted again
        first = self._of_page(asked, sa.select(SERIES.c.id), keys).order_by(*ordered).limit(_most())
        return sa.select(*columns).select_from(SERIES).where(SERIES.c.id.in_(first.correlate(None))).order_by(*ordered)

    def _of_page(
        self, asked: _Asked, statement: sa.Select[Any], keys: Sequence[sa.ColumnElement[Any]]
    ) -> sa.Select[Any]:
        statement = self._matching(asked.shape, statement)
        if asked.is_within:
            statement = statement.where(sa.bindparam(_WITHIN, type_=TEXT) == PLACE)
        if asked.is_by_number:
            statement = statement.where(is_of(IMAGES.c.series, _NUMBERS, self._dialect))
        if asked.there is not None:
            statement = statement.where(self._either(_behind(keys, asked.shape, asked.there)))
        return statement

    def series(self, shape: CheckedQuery, *, is_after_whole: bool) -> sa.Select[Any]:
        mark = sa.bindparam(_mark(0), type_=TEXT)
        statement = sa.select(SERIES.c.id, PLACE).where(SERIES.c.visible, self._readable(SERIES))
        statement = statement.where(mark < PLACE if is_after_whole else mark <= PLACE)
        statement = statement.where(*(self._clause(one, self._column) for one in of_series(shape.condition)))
        return statement.order_by(PLACE).limit(_most())

    def count(self, shape: CheckedQuery) -> sa.Select[Any]:
        if shape.limit is None:
            return self._matching(shape, sa.select(sa.func.count()))
        matching = self._matching(shape, sa.select(sa.literal(1))).limit(_most()).subquery()
        return sa.select(sa.func.count()).select_from(matching)

    def frozen(self, shape: CheckedQuery) -> sa.Select[Any]:
        joined = sa.select(SERIES.c.path, IMAGES).join(IMAGES, IMAGES.c.series == SERIES.c.id)
        statement = joined.where(SERIES.c.visible, IMAGES.c.visible, self._readable(SERIES), self._readable(IMAGES))
        if shape.condition is not None:
            statement = statement.where(self._clause(shape.condition, self._column))
        return statement

    def _readable(self, table: sa.FromClause) -> Clause:
        return _readable(table, self._dialect)

    def _matching(self, query: CheckedQuery, statement: sa.Select[Any]) -> sa.Select[Any]:
        if query.level is Level.IMAGE:
            statement = statement.select_from(IMAGES.join(SERIES, IMAGES.c.series == SERIES.c.id))
            statement = statement.where(IMAGES.c.visible, self._readable(IMAGES))
        else:
            statement = statement.select_from(SERIES)
        statement = statement.where(SERIES.c.visible, self._readable(SERIES))
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
                return self._either([self._clause(one, column) for one in operands])
            case Exists():
                return self._exists(condition)

    def _exists(self, wanted: Exists) -> Clause:
        match wanted.level:
            case Level.RECORD:
                return self._of_subjects(
                    [self._subjects(one, wanted.condition) for one in self._schema.within(wanted.collection)]
                )
            case Level.SERIES:
                return self._of_others(_JOINED[wanted.collection], wanted.condition)
            case Level.IMAGE:
                return sa.exists().where(
                    _OF_SERIES.c.series == SERIES.c.id,
                    _OF_SERIES.c.visible,
                    self._readable(_OF_SERIES),
                    self._clause(wanted.condition, lambda attribute: _OF_SERIES.c[attribute.name]),
                )

    def _either(self, clauses: Sequence[Clause]) -> Clause:
        """Say that one of some holds; SQLite would go through the table once for each of them, whatever its class."""
        if len(clauses) == 1 or self._dialect != "sqlite":
            return sa.or_(*clauses)
        return sa.UnaryExpression(sa.or_(*clauses).self_group(), operator=_AS_IT_IS, type_=sa.Boolean())

    def _of_others(self, joined: Sequence[str], inner: Checked) -> Clause:
        """Say that a series has what joins it in common with one for which a condition holds."""
        columns = [_OTHERS.c[name] for name in joined]
        condition = self._clause(inner, lambda attribute: _OTHERS.c[attribute.name])
        found = sa.select(*columns).where(_OTHERS.c.visible, self._readable(_OTHERS), condition)
        return sa.tuple_(*(SERIES.c[name] for name in joined)).in_(found)

    def _of_subjects(self, found: Sequence[sa.Select[Any]]) -> Clause:
        """Say that a series' subject is among those that were found in one collection or another."""
        self._selects += len(found)
        if self._selects > MAX_SELECTS:
            message = f"all tests together look into more than {MAX_SELECTS} collections: name those that are meant"
            raise refuse(1, message)
        parts = [found[start : start + _UNITED] for start in range(0, len(found), _UNITED)]
        united = (one[0] if len(one) == 1 else sa.union_all(*one) for one in parts)
        return sa.or_(sa.false(), *map(SERIES.c.Subject.in_, united))

    def _subjects(self, collection: Collection, inner: Checked) -> sa.Select[Any]:
        """Select subjects with a record, in one collection of one project, for which a condition holds."""
        records = table_of(collection)

        def column(attribute: Attribute) -> sa.ColumnElement[Any]:
            found = collection.column(attribute.name, attribute.collection)
            return sa.null() if found is None else records.c[f"a_{found.number}"]

        return sa.select(records.c.subject).where(self._readable(records), self._clause(inner, column))

    def _asked(self, test: check.Asked, column: sa.ColumnElement[Any]) -> Clause:
        values: list[sa.ColumnElement[Any]] = [_parameter(slot) for slot in test.values if isinstance(slot, Slot)]
        if self._dialect == "postgresql":
            # what costs its planner nothing it would look at before the class
            if test.operator in {Operator.MISSING, Operator.PRESENT}:
                return sa.func.num_nulls(column) == sa.literal_column("1" if test.operator is Operator.MISSING else "0")
            if test.attribute.type is AttributeType.BOOLEAN:
                column, values = sa.cast(column, sa.Integer), [sa.cast(value, sa.Integer) for value in values]
        match test.operator:
            case Operator.MISSING:
                return column.is_(None)
            case Operator.PRESENT:
                return column.is_not(None)
            case Operator.LIKE:
                return column.like(values[0], escape="\\")
            case Operator.IN:
                return column.in_(values)
            case _:
                return _COMPARE[test.operator](column, values[0])

    def _sorted(self, attribute: Attribute, is_descending: bool) -> list[sa.ColumnElement[Any]]:  # noqa: FBT001 as in the query
        column = self._column(attribute)
        return [column.is_(None), column.desc() if is_descending else column.asc()]


def _readable(table: sa.FromClause, dialect: str, rights: Mapping[str, Any] | None = None) -> Clause:
    """Say that a row is of one of the allowed classes: one parameter, however many they are.

    PostgreSQL looks first at what it thinks costs least: a list of three costs more than a comparison, so it is told
    twice, by ranges for rows that it goes through and as a list for its indexes.
    """
    column: sa.ColumnElement[Any] = table.c["class"]
    given = rights or {}
    is_listed = is_of(column, _ALLOWED, dialect, given.get(_ALLOWED))
    if dialect != "postgresql":
        return is_listed
    ranges: sa.BindParameter[Any] = sa.bindparam(_RANGES, given.get(_RANGES), type_=postgresql.INT8MULTIRANGE())
    return sa.and_(column.op("<@", is_comparison=True)(ranges), is_listed)


def _order_keys(shape: CheckedQuery) -> list[sa.ColumnElement[Any]]:
    """Give what orders a result: as was asked, then path and name, so that no two rows are equal."""
    keys: list[sa.ColumnElement[Any]] = [_HEADS[attribute.level].c[attribute.name] for attribute, _ in shape.order]
    keys.append(PLACE)
    return [*keys, IMAGES.c.name] if shape.level is Level.IMAGE else keys


def _behind(keys: Sequence[sa.ColumnElement[Any]], shape: CheckedQuery, there: tuple[bool, ...]) -> list[Clause]:
    """Say in which ways a row comes after a mark: what is missing comes last, whichever way the rest goes."""
    kinds = [attribute.type for attribute, _ in shape.order]
    kinds += [AttributeType.TEXT] * (len(keys) - len(kinds))
    marks = [sa.bindparam(_mark(number), type_=_PARAMETERS[kind]) for number, kind in enumerate(kinds)]
    same = [key == mark if is_there else key.is_(None) for key, mark, is_there in zip(keys, marks, there, strict=True)]
    clauses: list[Clause] = []
    for position, key in enumerate(keys):
        if not there[position]:
            continue
        is_asked = position < len(shape.order)
        is_descending = is_asked and shape.order[position][1]
        beyond = key < marks[position] if is_descending else key > marks[position]
        clauses.append(sa.and_(*same[:position], sa.or_(beyond, key.is_(None)) if is_asked else beyond))
    return clauses


def _most() -> sa.BindParameter[int]:
    return sa.bindparam(_LIMIT, type_=sa.BigInteger())


def _parameter(slot: Slot) -> sa.BindParameter[Any]:
    """Make a parameter: no value that was written ever becomes a part of a statement."""
    return sa.bindparam(_value(slot.number), type_=_PARAMETERS[slot.type])


def _value(number: int) -> str:
    return f"v{number}"


def _mark(number: int) -> str:
    return f"m{number}"
