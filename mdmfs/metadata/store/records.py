"""The records of one subject, as much of them as one caller may read; sealed text is given as it lies there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import sqlalchemy as sa

from mdmfs.metadata.schema import Collection
from mdmfs.metadata.store.finding import Reader, scalar
from mdmfs.metadata.store.tables import table_of
from mdmfs.model.errors import MalformedMessageError, MalformedNameError
from mdmfs.model.subject import SubjectId
from mdmfs.wire.messages.metadata import AskRecords, Record, RecordPage

MAX_RECORDS: Final = 100
"""On a page."""
MAX_SEALED: Final = 8 * 2**20
"""Bytes of sealed text on a page of more than one record: attachments are large, and a message has a bound."""


def records_of(reader: Reader, asked: AskRecords) -> RecordPage:
    """Give a page of records, in the order of their GUIDs; raises ``MalformedMessageError``."""
    try:
        subject = SubjectId.parse(asked.subject).text
    except MalformedNameError as error:
        raise MalformedMessageError(str(error)) from error
    limit = min(max(asked.limit, 1), MAX_RECORDS)
    found: list[tuple[bytes, int, Collection]] = []
    for collection in reader.schema.all():
        table = table_of(collection)
        size = sa.func.coalesce(sa.func.length(table.c.sealed), 0)
        rows = sa.select(table.c.guid, size).where(
            table.c.subject == subject, table.c.guid > asked.after, reader.compiler.readable(table)
        )
        ordered = reader.connection.execute(rows.order_by(table.c.guid).limit(limit + 1))
        found += [(bytes(guid), sealed, collection) for guid, sealed in ordered]
    found.sort(key=lambda one: one[0])
    shown = list(_within_bounds(found, limit))
    records = [_record(collection, _row(reader, collection, guid)) for guid, _, collection in shown]
    return RecordPage(records, is_last=len(shown) == len(found))


def _within_bounds(found: list[tuple[bytes, int, Collection]], limit: int) -> Iterator[tuple[bytes, int, Collection]]:
    """Give as many as fit on a page, at least one."""
    whole = 0
    for number, one in enumerate(found[:limit]):
        whole += one[1]
        if number and whole > MAX_SEALED:
            return
        yield one


def _row(reader: Reader, collection: Collection, guid: bytes) -> Any:  # noqa: ANN401 a row of a table of ours
    table = table_of(collection)
    return reader.connection.execute(sa.select(table).where(table.c.guid == guid)).mappings().one()


def _record(collection: Collection, row: Any) -> Record:  # noqa: ANN401 a row of a table of ours
    values = {
        column.name: scalar(row[f"a_{column.number}"])
        for column in collection.columns.values()
        if not column.type.is_sealed
    }
    return Record(
        collection.name,
        bytes(row["guid"]),
        values,
        bytes(row["key"]),
        bytes(row["sealed"]) if row["sealed"] else b"",
    )
