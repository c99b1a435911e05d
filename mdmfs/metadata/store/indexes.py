"""Indexes: brought to what this version asks by, with statistics that say the same of every database.

SQLite's planner would choose by what it finds in the rows, those that are not for the caller among them.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, DropIndex

from mdmfs.metadata.store.tables import IMAGES

_ALL: Final = 10_000_000
_OF_A_CLASS: Final = 20_000
"""So few of all that it is never worth while to go through all, for however many classes."""
_ALIKE: Final = {
    "series_by_place": 1,
    "series_by_Subject": 20,
    "series_by_Modality": 6000,
    "series_by_BodyPartExamined": 2000,
    "series_by_ProtocolName": 100,
    "series_by_SeriesDescription": 100,
    "series_by_StudyDate": 50,
    "series_by_Age": 1500,
    "series_by_SliceThickness": 3000,
}
"""How many series of a class, in a hospital of middling size, have one value in common."""
_RECORDS_ALIKE: Final = 200
_RECORDS_OF_A_SUBJECT: Final = 5
_IMAGES: Final = "5000000 50 1"
"""Of all, of a series, of a name in a series."""


def index_by_class(connection: sa.Connection, table: sa.Table) -> None:
    """Put the indexes of this format in place of those of the first."""
    old = sa.Table(table.name, sa.MetaData(), *(sa.Column(column.name, index=True) for column in table.columns))
    kept = {index.name for index in table.indexes}
    for index in old.indexes:
        if index.name not in kept:
            connection.execute(DropIndex(index, if_exists=True))
    for index in table.indexes:
        connection.execute(CreateIndex(index, if_not_exists=True))


def fix_statistics(connection: sa.Connection, table: sa.Table) -> None:
    """Tell SQLite how the indexes of a table divide it (sqlite_stat1), and that it must not skip their classes.

    PostgreSQL keeps its own statistics.
    """
    if connection.dialect.name != "sqlite":
        return
    connection.exec_driver_sql("ANALYZE sqlite_schema")  # makes the table of statistics, or reads it
    connection.execute(_STATISTICS.delete().where(_STATISTICS.c.tbl == table.name))
    rows = [{"tbl": table.name, "idx": index, "stat": stat} for index, stat in _statistics_of(table).items()]
    connection.execute(_STATISTICS.insert(), rows)
    connection.exec_driver_sql("ANALYZE sqlite_schema")


_STATISTICS: Final = sa.table("sqlite_stat1", sa.column("tbl"), sa.column("idx"), sa.column("stat"))


def _statistics_of(table: sa.Table) -> dict[str, str]:
    if table is IMAGES:
        return {"images_of_series": _IMAGES}
    found: dict[str, str] = {}
    for index in table.indexes:
        columns = [column.name for column in index.columns]
        if columns[0] == "class":
            records = _RECORDS_OF_A_SUBJECT if columns[1] == "subject" else _RECORDS_ALIKE
            found[str(index.name)] = f"{_ALL} {_OF_A_CLASS} {_ALIKE.get(str(index.name), records)} noskipscan"
    return found
