"""A second account of what a query finds: rows in memory, filtered by rights first and asked one by one afterwards.

It shares the parser with the program, and nothing else: no schema, no grouping by collections, no SQL.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from typing import Any

from mdmfs.access.acl import Acl, Right
from mdmfs.access.decide import decide
from mdmfs.metadata.query.syntax import And, Condition, Not, Operator, Or, Query, Test
from mdmfs.model.identity import Principal

Row = dict[str, Any]


@dataclasses.dataclass
class TwinRecord:
    """A record: values, and the ACLs above it."""

    project: str
    collection: str
    subject: str
    values: Row
    chain: tuple[int, ...]
    number: int
    """Of all records of a hospital."""


@dataclasses.dataclass
class TwinSeries:
    """A series with its images."""

    path: str
    values: Row
    chain: tuple[int, ...]
    images: list[tuple[str, Row, tuple[int, ...]]]
    """Name, values, and the ACLs above it."""
    is_visible: bool = True


@dataclasses.dataclass
class TwinMetadata:
    """Everything that a metadata service keeps."""

    acls: list[Acl]
    series: list[TwinSeries]
    records: list[TwinRecord]
    collections: dict[tuple[str, str], tuple[int, ...]]
    """Of project and name: the ACLs above it."""
    attributes: dict[tuple[str, str], dict[str, str]]
    """Of project and name: the types of its own."""
    groups: dict[tuple[str, str, str], tuple[tuple[int, ...], set[str]]]
    """Of project, collection and group: the ACLs above it, and its attributes, also in the collections below."""
    types: dict[str, str]

    def view(self, principal: Principal, now: float) -> View:
        """Give what a principal may read."""
        return View(self, principal, now)

    def find(self, query: Query, principal: Principal, now: float, *, images: bool) -> list[str]:
        """Give the paths that a principal finds, in order, before any limit is applied by pages."""
        view = View(self, principal, now)
        found: list[tuple[Row, str]] = []
        for series in self.series:
            if not series.is_visible or not view.may_read(series.chain):
                continue
            own = {**series.values}
            if images:
                for name, values, chain in series.images:
                    if view.may_read(chain):
                        found.append(({**own, **values, "path": series.path, "name": name}, f"{series.path}/{name}"))
            else:
                found.append(({**own, "path": series.path}, series.path))
        matching = [
            one for one in found if query.condition is None or view.judge(query.condition, one[0], images) is True
        ]
        for key in [("path", False), *([("name", False)] if images else [])][::-1]:
            matching.sort(key=lambda one: one[0][key[0]].encode())
        for order in reversed(query.order):
            there = [one for one in matching if one[0].get(order.name.text) is not None]
            missing = [one for one in matching if one[0].get(order.name.text) is None]
            there.sort(key=lambda one: _sortable(one[0][order.name.text]), reverse=False)
            if order.is_descending:
                there = _descending(there, order.name.text)
            matching = there + missing
        return [path for _, path in matching][: query.limit]


def _descending(rows: list[tuple[Row, str]], name: str) -> list[tuple[Row, str]]:
    """Turn groups of equal values round, each group as it was."""
    groups: list[list[tuple[Row, str]]] = []
    for row in rows:
        if groups and groups[-1][0][0][name] == row[0][name]:
            groups[-1].append(row)
        else:
            groups.append([row])
    return [row for group in reversed(groups) for row in group]


def _sortable(value: Any) -> Any:  # noqa: ANN401 any value
    return value.encode() if isinstance(value, str) else value


class View:
    """What one principal may read."""

    def __init__(self, metadata: TwinMetadata, principal: Principal, now: float) -> None:
        self._metadata = metadata
        self._principal = principal
        self._now = now
        self.records = [self._shown(one) for one in metadata.records if self._may_see(one)]

    def may_read(self, chain: tuple[int, ...]) -> bool:
        """Ask by the ACLs above something."""
        acls = [self._metadata.acls[number] for number in chain]
        above = all(decide(self._principal, acl, Right.TRAVERSE, self._now).allowed for acl in acls[:-1])
        return above and decide(self._principal, acls[-1], Right.READ, self._now).allowed

    def judge(self, condition: Condition, row: Row, images: bool) -> bool | None:  # noqa: FBT001 as asked
        """Ask about one row; None is unknown."""
        scope = self._scope(condition, images)
        if scope is None:
            return self._judge(condition, row, images)
        return any(self._within(condition, other) is True for other in self._others(scope, row))

    def _judge(self, condition: Condition, row: Row, images: bool) -> bool | None:  # noqa: FBT001 as asked
        match condition:
            case Test():
                return _test(condition, row)
            case Not(operand):
                found = self.judge(operand, row, images)
                return None if found is None else not found
            case And(operands):
                return _all(self._parts(operands, And, row, images))
            case Or(operands):
                return _any(self._parts(operands, Or, row, images))

    def _parts(self, operands: tuple[Condition, ...], kind: Any, row: Row, images: bool) -> list[bool | None]:  # noqa: ANN401, FBT001 a class
        together: dict[str, list[Condition]] = {}
        found = []
        for operand in operands:
            scope = self._scope(operand, images)
            if scope is None:
                found.append(self._judge(operand, row, images))
            else:
                together.setdefault(scope, []).append(operand)
        for parts in together.values():
            joined = kind(tuple(parts)) if len(parts) > 1 else parts[0]
            found += [self.judge(joined, row, images)]
        return found

    def _within(self, condition: Condition, other: Row) -> bool | None:
        match condition:
            case Test():
                return _test(condition, other)
            case And(operands):
                return _all([self._within(one, other) for one in operands])
            case Or(operands):
                return _any([self._within(one, other) for one in operands])
            case Not():
                raise AssertionError

    def _scope(self, condition: Condition, images: bool) -> str | None:  # noqa: FBT001 as asked
        """Tell of which one other thing a condition speaks, if it speaks of nothing else."""
        match condition:
            case Test(name):
                kind = self._metadata.types[name.text]
                return None if kind == "series" or (images and kind == "image") else kind
            case Not():
                return None
            case And(operands) | Or(operands):
                scopes = {self._scope(one, images) for one in operands}
                return scopes.pop() if len(scopes) == 1 else None

    def _others(self, scope: str, row: Row) -> list[Row]:
        if scope in {"study", "subject"}:
            joined = ("Subject", "Session") if scope == "study" else ("Subject",)
            return [
                one.values
                for one in self._metadata.series
                if one.is_visible and self.may_read(one.chain) and all(one.values[key] == row[key] for key in joined)
            ]
        if scope == "image":
            (series,) = [one for one in self._metadata.series if one.path == row["path"]]
            return [values for _, values, chain in series.images if self.may_read(chain)]
        return [
            values
            for subject, collection, values in self.records
            if subject == row["Subject"] and f"{collection}.".startswith(f"{scope}.")
        ]

    def _may_see(self, record: TwinRecord) -> bool:
        collection = self._metadata.collections[record.project, record.collection]
        return self.may_read(collection) and self.may_read(record.chain)

    def _shown(self, record: TwinRecord) -> tuple[str, str, Row]:
        hidden = {
            name
            for (project, collection, _), (chain, names) in self._metadata.groups.items()
            if project == record.project and f"{record.collection}.".startswith(f"{collection}.")
            if not self.may_read(chain)
            for name in names
        }
        return record.subject, record.collection, {k: v for k, v in record.values.items() if k not in hidden}


def _all(parts: list[bool | None]) -> bool | None:
    return False if False in parts else None if None in parts else True


def _any(parts: list[bool | None]) -> bool | None:
    return True if True in parts else None if None in parts else False


def _test(test: Test, row: Row) -> bool | None:
    value = row.get(test.name.text.rpartition(".")[2])
    wanted = [literal.value for literal in test.values]
    if test.operator is Operator.MISSING:
        return value is None
    if test.operator is Operator.PRESENT:
        return value is not None
    if value is None:
        return None
    if test.operator is Operator.IN:
        return value in wanted
    if test.operator is Operator.LIKE:
        return _like(value, str(wanted[0]))
    left, right = _sortable(value), _sortable(wanted[0])
    assert isinstance(value, dt.date) == isinstance(wanted[0], dt.date)
    return {
        Operator.EQUAL: left == right,
        Operator.UNEQUAL: left != right,
        Operator.LESS: left < right,
        Operator.LESS_OR_EQUAL: left <= right,
        Operator.GREATER: left > right,
        Operator.GREATER_OR_EQUAL: left >= right,
    }[test.operator]


def _like(value: str, pattern: str) -> bool:
    parts, position = [], 0
    while position < len(pattern):
        character = pattern[position]
        if character == "\\":
            position += 1
            parts.append(re.escape(pattern[position]))
        else:
            parts.append({"%": ".*", "_": "."}.get(character, re.escape(character)))
        position += 1
    return re.fullmatch("".join(parts), value, re.DOTALL) is not None
