"""The records of one subject, as much of them as one caller may read; sealed text is given as it lies there."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from mdmfs.metadata.schema import Collection
from mdmfs.metadata.store.finding import Reader, scalar
from mdmfs.metadata.store.tables import table_of
from mdmfs.model.errors import MalformedMessageError, MalformedNameError
from mdmfs.model.subject import SubjectId
from mdmfs.wire.metadata_messages import AskRecords, Record, RecordPage

MAX_RECORDS = 100
"""On a page: sealed attachments are large."""


def records_of(reader: Reader, asked: AskRecords) -> RecordPage:
    """Give a page of records, in the order of their GUIDs; raises ``MalformedMessageError``."""
    try:
        subject = SubjectId.parse(asked.subject).text
    except MalformedNameError as error:
        raise MalformedMessageError(str(error)) from error
    limit = min(max(asked.limit, 1), MAX_RECORDS)
    found: list[Record] = []
    for collection in reader.schema.all():
        table = table_of(collection)
        rows = sa.select(table).where(
            table.c.subject == subject, table.c.guid > asked.after, reader.compiler.readable(table)
        )
        found += [
            _record(collection, row)
            for row in reader.connection.execute(rows.order_by(table.c.guid).limit(limit + 1)).mappings()
        ]
    found.sort(key=lambda record: record.guid)
    return RecordPage(found[:limit], is_last=len(found) <= limit)


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
