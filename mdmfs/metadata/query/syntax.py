"""What a query says, as frozen values; every part knows the column of the text where it begins, from 1."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from typing import TypeAlias

from mdmfs.metadata.schema import Value


class Operator(enum.StrEnum):
    """What a test asks about an attribute."""

    EQUAL = "=="
    UNEQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="
    LIKE = "like"
    """A pattern in which ``%`` stands for any text and ``_`` for one character."""
    IN = "in"
    MISSING = "is missing"
    PRESENT = "is not missing"


ORDERING: frozenset[Operator] = frozenset(
    {Operator.LESS, Operator.LESS_OR_EQUAL, Operator.GREATER, Operator.GREATER_OR_EQUAL}
)


@dataclasses.dataclass(frozen=True, slots=True)
class Name:
    """An attribute, as it was written: ``Modality``, or with its collection ``followup.Outcome``."""

    text: str
    column: int = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Literal:
    """A value that was written."""

    value: Value
    column: int = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Test:
    """One question about one attribute; ``IN`` has several values, ``MISSING`` and ``PRESENT`` none, all others one."""

    name: Name
    operator: Operator
    values: tuple[Literal, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Not:
    """The contrary."""

    operand: Condition


@dataclasses.dataclass(frozen=True, slots=True)
class And:
    """All of them; none of the operands is an ``And`` itself."""

    operands: tuple[Condition, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Or:
    """At least one of them; none of the operands is an ``Or`` itself."""

    operands: tuple[Condition, ...]


Condition: TypeAlias = Test | Not | And | Or


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """One key of ``order by``."""

    name: Name
    is_descending: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Query:
    """A whole query."""

    condition: Condition | None
    """None matches everything."""
    order: tuple[Order, ...] = ()
    limit: int | None = None

    def __str__(self) -> str:
        """Write the normal form: parsed again, it gives an equal query."""
        parts = [] if self.condition is None else [_written(self.condition)]
        if self.order:
            parts.append("order by " + ", ".join(_written_key(key) for key in self.order))
        if self.limit is not None:
            parts.append(f"limit {self.limit}")
        return " ".join(parts)


def _written(condition: Condition) -> str:
    match condition:
        case Test(name, Operator.MISSING | Operator.PRESENT as operator, _):
            return f"{name.text} {operator.value}"
        case Test(name, Operator.IN, values):
            return f"{name.text} in ({', '.join(_written_value(one.value) for one in values)})"
        case Test(name, operator, values):
            return f"{name.text} {operator.value} {_written_value(values[0].value)}"
        case Not(operand):
            return f"not {_bracketed(operand)}"
        case And(operands):
            return " and ".join(_bracketed(operand) for operand in operands)
        case Or(operands):
            return " or ".join(_bracketed(operand) for operand in operands)


def _bracketed(condition: Condition) -> str:
    return f"({_written(condition)})" if isinstance(condition, And | Or) else _written(condition)


def _written_value(value: Value) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case dt.date():
            return f"date({value.isoformat()})"
        case _:
            return repr(value)


def _written_key(key: Order) -> str:
    return f"{key.name.text} desc" if key.is_descending else key.name.text
