"""Entries as rows: records come, and images and records go for ever; every act can be done again without harm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from mdmfs.metadata.schema import Column
from mdmfs.metadata.store.bulk import insert, upsert
from mdmfs.metadata.store.collections import find_collection
from mdmfs.metadata.store.rights import Chain, chain_of
from mdmfs.metadata.store.tables import COLLECTIONS, IMAGES, SERIES, TOMBSTONES, records_table, table_of
from mdmfs.metadata.store.values import guid_octets, typed
from mdmfs.model.errors import MalformedMessageError, MalformedNameError
from mdmfs.model.subject import SubjectId
from mdmfs.wire.messages.metadata import PutRecords, RecordEntry

_CHUNK: Final = 500


def forget(connection: sa.Connection, guids: Sequence[bytes]) -> None:
    """Take images, and records by the GUID of their key, away for ever."""
    collections = connection.execute(sa.select(COLLECTIONS.c.id)).scalars().all()
    for start in range(0, len(guids), _CHUNK):
        some = [guid_octets(guid) for guid in guids[start : start + _CHUNK]]
        known = _buried(connection, some)
        insert(connection, TOMBSTONES, [{"guid": guid} for guid in dict.fromkeys(some) if guid not in known])
        touched = (
            connection.execute(sa.select(IMAGES.c.series).where(IMAGES.c.guid.in_(some)).distinct()).scalars().all()
        )
        connection.execute(IMAGES.delete().where(IMAGES.c.guid.in_(some)))
        if touched:
            is_empty = ~sa.exists().where(IMAGES.c.series == SERIES.c.id)
            connection.execute(SERIES.delete().where(SERIES.c.id.in_(touched), is_empty))
        for number in collections:
            table = records_table(number)
            connection.execute(table.delete().where(table.c.key.in_(some)))


def put_records(connection: sa.Connection, message: PutRecords) -> None:
    """Keep records, in place of those with the same GUIDs. Raises ``MalformedMessageError``."""
    collection, own = find_collection(connection, message.project, message.collection)
    gone = _buried(connection, [record.key for record in message.records])
    plain = {column.name: column for column in collection.columns.values() if not column.type.is_sealed}
    rows = []
    for record in message.records:
        if record.key not in gone:
            chain = chain_of(connection, record.acl_ids) if record.acl_ids else own
            rows.append(_record_row(record, plain, chain))
    upsert(connection, table_of(collection), rows)


def _record_row(entry: RecordEntry, plain: Mapping[str, Column], chain: Chain) -> dict[str, Any]:
    values = typed(entry.values, plain)
    row: dict[str, Any] = {f"a_{column.number}": values.get(column.name) for column in plain.values()}
    try:
        subject = SubjectId.parse(entry.subject).text
    except MalformedNameError as error:
        raise MalformedMessageError(str(error)) from error
    return row | {
        "guid": guid_octets(entry.guid),
        "subject": subject,
        "key": guid_octets(entry.key),
        "sealed": entry.sealed or None,
        "chain": chain.number,
        "class": chain.its_class,
    }


def _buried(connection: sa.Connection, guids: Iterable[bytes]) -> set[bytes]:
    wanted, found = list(dict.fromkeys(guids)), set()
    for start in range(0, len(wanted), _CHUNK):
        some = wanted[start : start + _CHUNK]
        found |= {bytes(guid) for guid in connection.execute(_BURIED, {"guids": some}).scalars()}
    return found


_BURIED: Final = sa.select(TOMBSTONES.c.guid).where(TOMBSTONES.c.guid.in_(sa.bindparam("guids", expanding=True)))
