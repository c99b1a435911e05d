"""Check: the names and types of a query against the schema that its caller may know; errors name the column.

Conditions on records are put together here: tests on one collection that stand under one ``and`` (or one ``or``), and
behind no ``not``, speak of one record.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable
from typing import Final, TypeAlias

from mdmfs.metadata.query.parse import refuse
from mdmfs.metadata.query.syntax import ORDERING, And, Condition, Name, Not, Operator, Or, Query, Test
from mdmfs.metadata.schema import IMAGE_ATTRIBUTES, Attribute, AttributeType, Level, Schema, Value


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """The place of a value in the shape of a query; the value comes when it is asked."""

    number: int
    type: AttributeType


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A test whose attribute is known and whose values are of its type."""

    attribute: Attribute
    operator: Operator
    values: tuple[Value | Slot, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Nay:
    """The contrary of a checked condition."""

    operand: Checked


@dataclasses.dataclass(frozen=True, slots=True)
class All:
    """All of some checked conditions."""

    operands: tuple[Checked, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Any:
    """At least one of some checked conditions."""

    operands: tuple[Checked, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Exists:
    """There is one thing of a level for which a condition holds; never unknown."""

    level: Level
    collection: str
    """Of records, their collection; of another series, along what it is joined."""
    condition: Checked
    """Its tests are all of that level and collection."""


Checked: TypeAlias = Asked | Nay | All | Any | Exists


@dataclasses.dataclass(frozen=True, slots=True)
class CheckedQuery:
    """A query that means something to its caller."""

    level: Level
    """What is looked for: series or images."""
    condition: Checked | None
    order: tuple[tuple[Attribute, bool], ...]
    """Each with whether it is descending; what is equal comes in the order of paths."""
    limit: int | None


def check(query: Query, schema: Schema, level: Level) -> CheckedQuery:
    """Check a query for series or for images; raises ``MalformedQueryError``."""
    checker = _Checker(schema, level)
    condition = None if query.condition is None else checker.closed(query.condition)
    order = tuple((checker.sortable(key.name), key.is_descending) for key in query.order)
    return CheckedQuery(level, condition, order, query.limit)


class _Checker:
    def __init__(self, schema: Schema, level: Level) -> None:
        self._schema = schema
        self._own = {Level.SERIES} if level is Level.SERIES else {Level.SERIES, Level.IMAGE}
        """Levels of which what is looked for has exactly one."""

    def closed(self, condition: Condition) -> Checked:
        """Check a condition about what is looked for."""
        checked = self._check(condition)
        scope = self._scope_of(checked)
        return checked if scope is None else Exists(*scope, checked)

    def sortable(self, name: Name) -> Attribute:
        attribute = self._resolve(name)
        if attribute.level not in self._own or attribute.collection:
            message = f"{name.text} cannot order the result: a series may have several of it"
            raise refuse(name.column, message)
        return attribute

    def _check(self, condition: Condition) -> Checked:
        match condition:
            case Test():
                return self._test(condition)
            case Not(operand):
                return Nay(self.closed(operand))
            case And(operands):
                return self._joined(operands, All)
            case Or(operands):
                return self._joined(operands, Any)

    def _joined(self, operands: Iterable[Condition], kind: type[All | Any]) -> Checked:
        """Put together what speaks of the same other thing; what is left is about the thing itself."""
        own: list[Checked] = []
        others: dict[tuple[Level, str], list[Checked]] = {}
        for operand in operands:
            checked = self._check(operand)
            scope = self._scope_of(checked)
            if scope is None:
                own.append(checked)
            else:
                others.setdefault(scope, []).append(checked)
        if not own and len(others) == 1:
            return kind(tuple(next(iter(others.values()))))
        closed = (
            Exists(*scope, inner[0] if len(inner) == 1 else kind(tuple(inner))) for scope, inner in others.items()
        )
        return kind((*own, *closed))

    def _scope_of(self, checked: Checked) -> tuple[Level, str] | None:
        """Tell of which other thing an open condition speaks; None where it is about what is looked for."""
        match checked:
            case Asked(attribute):
                is_own = attribute.level in self._own and not attribute.collection
                return None if is_own else (attribute.level, attribute.collection)
            case All(operands) | Any(operands):
                return self._scope_of(operands[0])
            case Nay() | Exists():
                return None

    def _test(self, test: Test) -> Asked:
        attribute = self._resolve(test.name)
        if attribute.type.is_sealed:
            message = f"{test.name.text} is sealed: it is given back to whoever may read it, and cannot be searched"
            raise refuse(test.name.column, message)
        for literal in test.values:
            if not attribute.type.holds(literal.value):
                wanted = _WRITTEN[attribute.type]
                raise refuse(literal.column, f"{test.name.text} is of type {attribute.type}: compare it with {wanted}")
        if test.operator in ORDERING and attribute.type is AttributeType.BOOLEAN:
            raise refuse(test.name.column, f"{test.name.text} is true or false: ask with == or !=")
        if test.operator is Operator.LIKE and not _PATTERN.fullmatch(str(test.values[0].value)):
            raise refuse(test.values[0].column, r"in a pattern \ stands before %, _ or \ only (written \\ in a text)")
        return Asked(attribute, test.operator, tuple(_as_typed(literal.value, attribute) for literal in test.values))

    def _resolve(self, name: Name) -> Attribute:
        """Find what a name means; what the caller may not know of is as if it were not there."""
        found = self._schema.find(name.text)
        collections = sorted({attribute.collection for attribute in found})
        if len(collections) > 1:
            written = " or ".join(f"{collection}.{name.text}" for collection in collections)
            raise refuse(name.column, f"{name.text} is in several collections: write {written}")
        if len(found) > 1:
            message = f"{name.text} has other types in other projects: ask for one project at a time, where one may"
            raise refuse(name.column, message)
        if not found:
            near = difflib.get_close_matches(name.text, IMAGE_ATTRIBUTES, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise refuse(name.column, f"there is no attribute {name.text}, or it is not for this identity{hint}")
        return found[0]


def _as_typed(value: Value, attribute: Attribute) -> Value:
    """Give a whole number as the database compares it: both of the same kind."""
    return float(value) if attribute.type is AttributeType.NUMBER and isinstance(value, int) else value


_PATTERN: Final = re.compile(r"(?:[^\\]|\\[%_\\])*", re.DOTALL)
_WRITTEN: Final = {
    AttributeType.TEXT: 'a "text"',
    AttributeType.INTEGER: "a number",
    AttributeType.NUMBER: "a number",
    AttributeType.BOOLEAN: "true or false",
    AttributeType.DATE: "date(2024-12-31)",
    AttributeType.NOTE: "nothing",
    AttributeType.ATTACHMENT: "nothing",
}
