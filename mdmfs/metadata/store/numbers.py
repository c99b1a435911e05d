"""Many numbers as one parameter of a statement, as each database takes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql


def is_of(column: sa.ColumnElement[Any], name: str, dialect: str, numbers: object = None) -> sa.ColumnElement[bool]:
    """Say that a column is one of some numbers, which are one parameter."""
    if dialect == "postgresql":
        several: sa.BindParameter[Any] = sa.bindparam(name, numbers, type_=postgresql.ARRAY(sa.BigInteger()))
        return column == sa.any_(several)
    each = sa.func.json_each(sa.bindparam(name, numbers, type_=sa.Text())).table_valued("value")
    return column.in_(sa.select(each.c.value))


def list_of(numbers: Sequence[int], dialect: str) -> object:
    """Give numbers as the value of that parameter."""
    return list(numbers) if dialect == "postgresql" else json.dumps(list(numbers))


def ranges_of(numbers: Sequence[int]) -> list[postgresql.Range[int]]:
    """Give numbers as ranges, as few as there are, each without its end."""
    found: list[postgresql.Range[int]] = []
    for number in sorted(numbers):
        if found and found[-1].upper == number:
            found[-1] = postgresql.Range(found[-1].lower, number + 1)
        else:
            found.append(postgresql.Range(number, number + 1))
    return found
