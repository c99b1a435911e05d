"""Collections of records as rows: made, and altered while all else goes on; what each caller may know of them.

A collection has the attributes of those above it, as columns of its own table under the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Collection as Sized
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, DropIndex

from mdmfs.metadata.schema import IMAGE_ATTRIBUTES, AttributeType, Collection, Column, Schema
from mdmfs.metadata.store.about import stamp_rights
from mdmfs.metadata.store.indexes import fix_statistics
from mdmfs.metadata.store.rights import Chain, chain_of
from mdmfs.metadata.store.tables import ATTRIBUTES, COLLECTIONS, GROUPS, record_column, records_table, table_of
from mdmfs.model.collection import lies_within, lineage
from mdmfs.model.errors import MalformedMessageError
from mdmfs.wire.definitions import MAX_COLLECTIONS, fault_of
from mdmfs.wire.messages.metadata import DefineCollection

_SCHEMA: Final = sa.select(
    COLLECTIONS.c.id,
    COLLECTIONS.c.project,
    COLLECTIONS.c.name,
    COLLECTIONS.c["class"],
    ATTRIBUTES.c.id,
    ATTRIBUTES.c.name,
    ATTRIBUTES.c.type,
    ATTRIBUTES.c.group,
    GROUPS.c["class"],
).select_from(
    COLLECTIONS.outerjoin(ATTRIBUTES, ATTRIBUTES.c.collection == COLLECTIONS.c.id).outerjoin(
        GROUPS, sa.and_(GROUPS.c.collection == COLLECTIONS.c.id, GROUPS.c.name == ATTRIBUTES.c.group)
    )
)
"""All of it in one statement."""


def define(connection: sa.Connection, message: DefineCollection, most: int = MAX_COLLECTIONS) -> None:
    """Make a collection or alter it; raises ``MalformedMessageError`` for what cannot be, and changes nothing.

    An attribute keeps its type for ever: to change it, drop it and add it again.
    """
    known = {one.name: one for one in _all_of(connection, COLLECTIONS.c.project == message.project)}
    own = {name: _own(collection) for name, collection in known.items()}
    types = {name: {one.name: one.type.value for one in columns.values()} for name, columns in own.items()}
    reason = fault_of(message, types, IMAGE_ATTRIBUTES)
    if reason:
        raise MalformedMessageError(reason)
    stamp_rights(connection)
    number = _placed(connection, message, known.get(message.name), most)
    _define_groups(connection, number, message)
    tables = [number, *(one.number for one in known.values() if one.name != message.name and _is_in(one, message))]
    before = own.get(message.name, {})
    wanted = {attribute.name: attribute for attribute in message.attributes}
    for name, column in before.items():
        if name in wanted:
            kept = ATTRIBUTES.update().where(ATTRIBUTES.c.id == column.number)
            connection.execute(kept.values(group=wanted[name].group))
        else:
            connection.execute(ATTRIBUTES.delete().where(ATTRIBUTES.c.id == column.number))
            _each(connection, tables, column, _drop_column)
    for name, attribute in wanted.items():
        if name not in before:
            row = {"collection": number, "name": name, "type": attribute.type, "group": attribute.group}
            added = connection.execute(ATTRIBUTES.insert().values(row).returning(ATTRIBUTES.c.id)).scalar_one()
            column = Column(added, name, AttributeType(attribute.type), message.name)
            _each(connection, tables, column, _add_column)
    for one in _all_of(connection, COLLECTIONS.c.project == message.project):
        if _is_in(one, message):
            fix_statistics(connection, table_of(one))


def find_collection(connection: sa.Connection, project: str, name: str) -> tuple[Collection, Chain]:
    """Give a collection whole, and the chain and class of its ACLs; raises ``MalformedMessageError``."""
    is_mine = sa.and_(COLLECTIONS.c.project == project, COLLECTIONS.c.name.in_(lineage(name)))
    found = [one for one in _all_of(connection, is_mine) if one.name == name]
    if not found:
        message = f"the project {project} has no collection {name}: define it first"
        raise MalformedMessageError(message)
    place = sa.select(COLLECTIONS.c.chain, COLLECTIONS.c["class"]).where(COLLECTIONS.c.id == found[0].number)
    return found[0], Chain(*connection.execute(place).one())


def record_tables(connection: sa.Connection) -> list[sa.Table]:
    """Give the tables of all collections."""
    return [table_of(one) for one in _all_of(connection, sa.true())]


def whole_schema(connection: sa.Connection) -> list[Any]:
    """Read what there is of all collections, for ``readable_schema``."""
    return list(connection.execute(_SCHEMA))


def readable_schema(whole: Iterable[Any], allowed: Sized[int]) -> Schema:
    """Give what a caller may ask for: collections and attribute groups whose ACLs let him read.

    What a collection has from one above it, he may ask it for, whether he may read that one or not.
    """
    return Schema(sorted(_collections(whole, set(allowed)), key=lambda one: (one.project, one.name)))


def _all_of(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> list[Collection]:
    """Read collections whole; the condition takes with each one those above it."""
    return _collections(connection.execute(_SCHEMA.where(condition)), None)


def _collections(rows: Iterable[Any], readable: set[int] | None) -> list[Collection]:
    """Put collections together, of those classes only that are readable, unless all are wanted."""
    own: dict[tuple[str, str], dict[str, Column]] = {}
    numbers: dict[tuple[str, str], int] = {}
    for number, project, name, its_class, attribute, called, kind, group, group_class in rows:
        columns = own.setdefault((project, name), {})
        if readable is None or its_class in readable:
            numbers[project, name] = number
        if attribute is not None and (readable is None or not group or group_class in readable):
            columns[called] = Column(attribute, called, AttributeType(kind), name)
    return [
        Collection(
            number,
            project,
            name,
            {called: column for one in lineage(name) for called, column in own.get((project, one), {}).items()},
        )
        for (project, name), number in numbers.items()
    ]


def _own(collection: Collection) -> dict[str, Column]:
    return {name: column for name, column in collection.columns.items() if column.home == collection.name}


def _is_in(collection: Collection, message: DefineCollection) -> bool:
    return lies_within(collection.name, message.name)


def _placed(connection: sa.Connection, message: DefineCollection, known: Collection | None, most: int) -> int:
    """Make a collection that is not known, with all that it has from above, or give it other ACLs; gives its number."""
    chain, number = chain_of(connection, message.acl_ids)
    place = {"chain": chain, "class": number}
    if known is not None:
        connection.execute(COLLECTIONS.update().where(COLLECTIONS.c.id == known.number).values(place))
        return known.number
    if connection.execute(sa.select(sa.func.count()).select_from(COLLECTIONS)).scalar_one() >= most:
        reason = f"{message.project} gets no collection {message.name}: there are {most}, as many as may be"
        raise MalformedMessageError(reason)
    row = {"project": message.project, "name": message.name, **place}
    made = connection.execute(COLLECTIONS.insert().values(row).returning(COLLECTIONS.c.id)).scalar_one()
    found, _ = find_collection(connection, message.project, message.name)
    table_of(found).create(connection)
    return int(made)


def _define_groups(connection: sa.Connection, collection: int, message: DefineCollection) -> None:
    connection.execute(GROUPS.delete().where(GROUPS.c.collection == collection))
    for name, acl_ids in message.groups.items():
        chain, number = chain_of(connection, acl_ids)
        row = {"collection": collection, "name": name, "chain": chain, "class": number}
        connection.execute(GROUPS.insert().values(row))


def _each(
    connection: sa.Connection, tables: Iterable[int], column: Column, act: Callable[[sa.Connection, int, Column], None]
) -> None:
    """Alter the tables of a collection and of those below it; what is sealed is no column."""
    for number in tables if not column.type.is_sealed else ():
        act(connection, number, column)


def _add_column(connection: sa.Connection, collection: int, column: Column) -> None:
    table = records_table(collection, (column,))
    added = table.c[f"a_{column.number}"]
    kind = added.type.compile(connection.dialect)
    connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {added.name} {kind}"))
    for index in table.indexes:
        if added.name in index.columns:
            connection.execute(CreateIndex(index))


def _drop_column(connection: sa.Connection, collection: int, column: Column) -> None:
    table = records_table(collection, (column,))
    dropped = record_column(column)
    for index in table.indexes:
        if dropped.name in index.columns:
            connection.execute(DropIndex(index))
    connection.execute(sa.text(f"ALTER TABLE {table.name} DROP COLUMN {dropped.name}"))
