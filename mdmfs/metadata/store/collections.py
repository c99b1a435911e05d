"""Collections of records as rows: made, and altered while all else goes on; what each caller may know of them."""

from __future__ import annotations

from collections.abc import Collection as Sized
from collections.abc import Iterable, Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, DropIndex

from mdmfs.metadata.schema import (
    IMAGE_ATTRIBUTES,
    MAX_ATTRIBUTES,
    MAX_COLLECTIONS,
    NAME,
    AttributeType,
    Collection,
    Column,
    Schema,
)
from mdmfs.metadata.store.about import stamp_rights
from mdmfs.metadata.store.indexes import fix_statistics
from mdmfs.metadata.store.rights import chain_of
from mdmfs.metadata.store.tables import ATTRIBUTES, COLLECTIONS, GROUPS, record_column, records_table
from mdmfs.model.errors import MalformedMessageError
from mdmfs.wire.messages.metadata import AttributeEntry, DefineCollection

_TYPES: Final = {kind.value: kind for kind in AttributeType}
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
    wanted = _checked(message)
    stamp_rights(connection)
    chain, number = chain_of(connection, message.acl_ids)
    place = {"chain": chain, "class": number}
    found = connection.execute(_select_collection(message.project, message.name)).first()
    if found is None:
        if connection.execute(sa.select(sa.func.count()).select_from(COLLECTIONS)).scalar_one() >= most:
            reason = f"{message.project} gets no collection {message.name}: there are {most}, as many as may be"
            raise MalformedMessageError(reason)
        row = {"project": message.project, "name": message.name, **place}
        collection = connection.execute(COLLECTIONS.insert().values(row).returning(COLLECTIONS.c.id)).scalar_one()
        records_table(collection).create(connection)
    else:
        collection = found.id
        connection.execute(COLLECTIONS.update().where(COLLECTIONS.c.id == collection).values(place))
    _define_groups(connection, collection, message)
    known = _columns(connection, collection)
    for name, column in known.items():
        if name not in wanted:
            _drop_column(connection, collection, column)
        elif wanted[name][0] is not column.type:
            reason = f"{name} is of type {column.type} already: drop it first, and add it again"
            raise MalformedMessageError(reason)
        else:
            group = ATTRIBUTES.update().where(ATTRIBUTES.c.id == column.number)
            connection.execute(group.values(group=wanted[name][1]))
    for name, (kind, group_name) in wanted.items():
        if name not in known:
            row = {"collection": collection, "name": name, "type": kind.value, "group": group_name}
            number = connection.execute(ATTRIBUTES.insert().values(row).returning(ATTRIBUTES.c.id)).scalar_one()
            _add_column(connection, collection, Column(number, name, kind))
    fix_statistics(connection, records_table(collection, tuple(_columns(connection, collection).values())))


def find_collection(connection: sa.Connection, project: str, name: str) -> tuple[Collection, tuple[int, int]]:
    """Give a collection whole, and the chain and class of its ACLs; raises ``MalformedMessageError``."""
    found = connection.execute(_select_collection(project, name)).first()
    if found is None:
        message = f"the project {project} has no collection {name}: define it first"
        raise MalformedMessageError(message)
    columns = _columns(connection, found.id)
    return Collection(found.id, project, name, columns), (found.chain, found[-1])


def record_tables(connection: sa.Connection) -> list[sa.Table]:
    """Give the tables of all collections."""
    numbers = connection.execute(sa.select(COLLECTIONS.c.id)).scalars().all()
    return [records_table(number, tuple(_columns(connection, number).values())) for number in numbers]


def whole_schema(connection: sa.Connection) -> list[Any]:
    """Read what there is of all collections, for ``readable_schema``."""
    return list(connection.execute(_SCHEMA))


def readable_schema(whole: Iterable[Any], allowed: Sized[int]) -> Schema:
    """Give what a caller may ask for: collections and attribute groups whose ACLs let him read."""
    readable = set(allowed)
    found: dict[int, Collection] = {}
    for number, project, name, its_class, attribute, called, kind, group, group_class in whole:
        if its_class not in readable:
            continue
        columns = found.setdefault(number, Collection(number, project, name, {})).columns
        if attribute is not None and (not group or group_class in readable):
            columns[called] = Column(attribute, called, _TYPES[kind])
    return Schema(found.values())


def _checked(message: DefineCollection) -> Mapping[str, tuple[AttributeType, str]]:
    names = [message.name, *message.groups, *(attribute.name for attribute in message.attributes)]
    unfit = [name for name in names if not NAME.fullmatch(name)]
    if unfit:
        reason = f"{unfit[0][:80]!r} is no name: a letter, then letters, digits and _, at most 64 in all"
        raise MalformedMessageError(reason)
    if len(message.attributes) > MAX_ATTRIBUTES:
        reason = f"a collection has at most {MAX_ATTRIBUTES} attributes"
        raise MalformedMessageError(reason)
    wanted: dict[str, tuple[AttributeType, str]] = {}
    for attribute in message.attributes:
        reason = _fault(attribute, message, wanted)
        if reason:
            raise MalformedMessageError(reason)
        wanted[attribute.name] = _TYPES[attribute.type], attribute.group
    return wanted


def _fault(attribute: AttributeEntry, message: DefineCollection, others: Mapping[str, Any]) -> str:
    kind = _TYPES.get(attribute.type)
    if kind is None:
        return f"{attribute.name} has no type {attribute.type[:32]!r}: {', '.join(_TYPES)}"
    if attribute.name in others:
        return f"{attribute.name} stands twice"
    if attribute.name in IMAGE_ATTRIBUTES:
        return f"{attribute.name} is an attribute of images: call it otherwise"
    if attribute.group and attribute.group not in message.groups:
        return f"{attribute.name} is of a group {attribute.group!r} that is not defined"
    if attribute.group and kind.is_sealed:
        return f"{attribute.name} is sealed under the collection's rights: put it into a collection of its own"
    return ""


def _define_groups(connection: sa.Connection, collection: int, message: DefineCollection) -> None:
    connection.execute(GROUPS.delete().where(GROUPS.c.collection == collection))
    for name, acl_ids in message.groups.items():
        chain, number = chain_of(connection, acl_ids)
        row = {"collection": collection, "name": name, "chain": chain, "class": number}
        connection.execute(GROUPS.insert().values(row))


def _columns(connection: sa.Connection, collection: int) -> dict[str, Column]:
    rows = connection.execute(sa.select(ATTRIBUTES).where(ATTRIBUTES.c.collection == collection))
    return {row.name: Column(row.id, row.name, _TYPES[row.type]) for row in rows}


def _add_column(connection: sa.Connection, collection: int, column: Column) -> None:
    if column.type.is_sealed:
        return
    table = records_table(collection, (column,))
    added = table.c[f"a_{column.number}"]
    kind = added.type.compile(connection.dialect)
    connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {added.name} {kind}"))
    for index in table.indexes:
        if added.name in index.columns:
            connection.execute(CreateIndex(index))


def _drop_column(connection: sa.Connection, collection: int, column: Column) -> None:
    connection.execute(ATTRIBUTES.delete().where(ATTRIBUTES.c.id == column.number))
    if column.type.is_sealed:
        return
    table = records_table(collection, (column,))
    dropped = record_column(column)
    for index in table.indexes:
        if dropped.name in index.columns:
            connection.execute(DropIndex(index))
    connection.execute(sa.text(f"ALTER TABLE {table.name} DROP COLUMN {dropped.name}"))


def _select_collection(project: str, name: str) -> sa.Select[Any]:
    return sa.select(COLLECTIONS.c.id, COLLECTIONS.c.chain, COLLECTIONS.c["class"]).where(
        COLLECTIONS.c.project == project, COLLECTIONS.c.name == name
    )
