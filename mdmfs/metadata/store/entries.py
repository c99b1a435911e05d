"""Entries as rows: images, series and records come, are shown, and go; every act can be done again without harm."""

from __future__ import annotations

import datetime as dt
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from mdmfs.metadata.query.syntax import Value
from mdmfs.metadata.schema import IMAGE_ATTRIBUTES, Attribute, AttributeType, Collection, Column, Level
from mdmfs.metadata.store.collections import find_collection
from mdmfs.metadata.store.rights import chain_of, own_chain
from mdmfs.metadata.store.tables import ACLS, COLLECTIONS, IMAGES, SERIES, TOMBSTONES, records_table, table_of
from mdmfs.model.errors import MalformedMessageError, MalformedNameError
from mdmfs.model.names import GUID_SIZE, Guid, Lfn
from mdmfs.model.subject import SubjectId
from mdmfs.wire.messages.metadata import ImageEntry, PutImages, PutRecords, RecordEntry, SeriesEntry

MAX_TEXT: Final = 1024
"""Characters of a text attribute."""
MAX_WHOLE: Final = 2**53
"""Whole numbers below this are exact in every database and language."""
_CHUNK: Final = 500


def put_images(connection: sa.Connection, message: PutImages) -> None:
    """Keep images with their series; those whose GUID was unregistered stay away. Raises ``MalformedMessageError``."""
    gone, apart = _buried_and_apart(connection, [image.guid for image in message.images])
    images = [image for image in message.images if image.guid not in gone]
    if not images:
        return
    own = chain_of(connection, message.series.acl_ids)
    series, is_shown = _series_of(connection, message.series, own)
    chains = {tuple(tuple(chain) for chain in message.series.acl_ids): own}
    rows = []
    for image in images:
        acl_ids = own_chain(image.guid, image.acl_ids) if image.guid in apart else image.acl_ids
        key = tuple(tuple(chain) for chain in acl_ids)
        if key not in chains:
            chains[key] = chain_of(connection, acl_ids)
        rows.append(_image_row(image, series, chains[key]) | {"visible": not is_shown})
    _upsert(connection, IMAGES, rows, "guid", "visible")


def show_series(connection: sa.Connection, path: str, *, is_visible: bool) -> None:
    """Let a series be found, or no longer, with all images that were put so far; of one name the latest stays."""
    number = connection.execute(_SET_VISIBLE, {"of_path": path, "is_visible": is_visible}).scalar()
    if number is not None and is_visible:
        connection.execute(_DROP_REPLACED, {"number": number})
        connection.execute(_SHOW_IMAGES, {"number": number})


def forget(connection: sa.Connection, guids: Sequence[bytes]) -> None:
    """Take images, and records by the GUID of their key, away for ever."""
    collections = connection.execute(sa.select(COLLECTIONS.c.id)).scalars().all()
    for start in range(0, len(guids), _CHUNK):
        some = [_guid(guid) for guid in guids[start : start + _CHUNK]]
        known = _buried(connection, some)
        new = [{"guid": guid} for guid in dict.fromkeys(some) if guid not in known]
        if new:
            connection.execute(TOMBSTONES.insert(), new)
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
    rows = []
    for record in message.records:
        if record.key not in gone:
            chain = chain_of(connection, record.acl_ids) if record.acl_ids else own
            rows.append(_record_row(record, collection, chain))
    if rows:
        table = table_of(collection)
        _upsert(connection, table, rows, "guid")


def _series_of(connection: sa.Connection, entry: SeriesEntry, own: tuple[int, int]) -> tuple[int, bool]:
    """Give the number of a series, and whether it is shown; what is known of it stays, but for the ACLs above it.

    Images of one that is not are found with it; those that join one that is, when it is shown again.
    """
    try:
        Lfn.parse(entry.path)
    except MalformedNameError as error:
        raise MalformedMessageError(str(error)) from error
    chain, number = own
    found = connection.execute(_SERIES_OF_PATH, {"path": entry.path}).first()
    if found is not None:
        connection.execute(_MOVE_SERIES, {"number": found.id, "new_chain": chain, "new_class": number})
        return found.id, found.visible
    row = _typed(entry.attributes, _IMAGE_COLUMNS[Level.SERIES])
    row |= {"path": entry.path, "visible": False, "chain": chain, "class": number}
    return connection.execute(_NEW_SERIES, dict.fromkeys(_SERIES_NAMES) | row).scalar_one(), False


def _image_row(entry: ImageEntry, series: int, chain: tuple[int, int]) -> dict[str, Any]:
    own: dict[str, Any] = dict.fromkeys(_IMAGE_COLUMNS[Level.IMAGE])
    own |= _typed(entry.attributes, _IMAGE_COLUMNS[Level.IMAGE])
    return own | {
        "guid": _guid(entry.guid),
        "series": series,
        "name": entry.name,
        "inode": entry.inode,
        "sha256": entry.sha256,
        "policy": entry.policy,
        "registered": entry.registered,
        "chain": chain[0],
        "class": chain[1],
        "Size": entry.size,
    }


def _record_row(entry: RecordEntry, collection: Collection, chain: tuple[int, int]) -> dict[str, Any]:
    plain = {column.name: column for column in collection.columns.values() if not column.type.is_sealed}
    values = _typed(entry.values, plain)
    row: dict[str, Any] = {f"a_{column.number}": values.get(column.name) for column in plain.values()}
    try:
        subject = SubjectId.parse(entry.subject).text
    except MalformedNameError as error:
        raise MalformedMessageError(str(error)) from error
    return row | {
        "guid": _guid(entry.guid),
        "subject": subject,
        "key": _guid(entry.key),
        "sealed": entry.sealed or None,
        "chain": chain[0],
        "class": chain[1],
    }


def _typed(values: Mapping[str, str | float | bool], columns: Mapping[str, Attribute | Column]) -> dict[str, Value]:
    """Read values as their attributes want them; raises ``MalformedMessageError`` that names the attribute."""
    found: dict[str, Value] = {}
    for name, value in values.items():
        column = columns.get(name)
        if column is None:
            message = f"there is no attribute {name[:64]!r}"
            raise MalformedMessageError(message)
        typed = as_typed(value, column.type)
        if typed is None:
            message = f"a value of {name} is none of type {column.type}"
            raise MalformedMessageError(message)
        found[name] = typed
    return found


def as_typed(value: str | float | bool, kind: AttributeType) -> Value | None:  # noqa: FBT001 one of the kinds
    """Read one value that came over the wire; None where it is not of the type."""
    match kind, value:
        case (AttributeType.TEXT, str()) if len(value) <= MAX_TEXT and "\0" not in value and _is_unicode(value):
            return value
        case AttributeType.DATE, str():
            return _date(value)
        case (AttributeType.BOOLEAN, bool()):
            return value
        case (AttributeType.INTEGER, int()) if not isinstance(value, bool) and abs(value) <= MAX_WHOLE:
            return value
        case (AttributeType.NUMBER, int() | float()) if not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return None


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _date(text: str) -> dt.date | None:
    try:
        return dt.date.fromisoformat(text) if len(text) == len("2024-12-31") else None
    except ValueError:
        return None


def _guid(octets: bytes) -> bytes:
    try:
        return Guid(octets).octets
    except MalformedNameError as error:
        message = f"a GUID has {GUID_SIZE} bytes"
        raise MalformedMessageError(message) from error


def _buried_and_apart(connection: sa.Connection, guids: Iterable[bytes]) -> tuple[set[bytes], set[bytes]]:
    """Tell which of these were unregistered, and which go by ACLs of their own: known under their GUIDs."""
    wanted = list(dict.fromkeys(guids))
    buried, apart = set[bytes](), set[bytes]()
    for start in range(0, len(wanted), _CHUNK):
        for guid, is_buried in connection.execute(_STANDING, {"guids": wanted[start : start + _CHUNK]}):
            (buried if is_buried else apart).add(bytes(guid))
    return buried, apart


def _buried(connection: sa.Connection, guids: Iterable[bytes]) -> set[bytes]:
    wanted, found = list(dict.fromkeys(guids)), set()
    for start in range(0, len(wanted), _CHUNK):
        some = wanted[start : start + _CHUNK]
        found |= {bytes(guid) for guid in connection.execute(_BURIED, {"guids": some}).scalars()}
    return found


def _upsert(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]], *kept: str) -> None:
    """Insert rows; where one with the same GUID is there, all columns but those that are kept are replaced.

    PostgreSQL takes all rows as one document in JSON: a statement for each row is five times slower, and lists of
    values are written by psycopg value by value.
    """
    last = list({row["guid"]: row for row in rows}.values())
    statement = _upserting(connection.dialect.name, table, kept)
    if connection.dialect.name == "postgresql":
        connection.execute(statement, {_ROWS: _ENCODE([_as_json(row) for row in last]).decode()})
    else:
        connection.execute(statement, last)


@functools.lru_cache(maxsize=256)
def _upserting(dialect: str, table: sa.Table, kept: tuple[str, ...]) -> sa.Insert:
    insert = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    replaced = {column.name: insert.excluded[column.name] for column in table.columns if column.name not in kept}
    if dialect == "postgresql":
        document = sa.cast(sa.bindparam(_ROWS, type_=sa.Text()), postgresql.JSON)
        columns = [sa.column(column.name, _plain(column.type)) for column in table.columns]
        each = sa.func.json_to_recordset(document).table_valued(*columns)
        given = each.render_derived(name="given", with_types=True)
        names = [column.name for column in columns]
        insert = insert.from_select(names, sa.select(*(given.c[name] for name in names)))
    return insert.on_conflict_do_update(index_elements=[table.c.guid], set_=replaced)


def _as_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """Write bytes as PostgreSQL reads them in a text; JSON has all else that a row holds."""
    return {name: f"\\x{value.hex()}" if isinstance(value, bytes) else value for name, value in row.items()}


def _plain(kind: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
    """Give a type as that of a column of a document, which has no collation."""
    return sa.Text() if isinstance(kind, sa.Text) else kind


_ROWS: Final = "rows"
_ENCODE: Final = msgspec.json.Encoder().encode

# Statements that are made for every few images, put together once

_LATER: Final = IMAGES.alias()
_NUMBER: Final[sa.BindParameter[Any]] = sa.bindparam("number")
_SERIES_OF_PATH: Final = sa.select(SERIES.c.id, SERIES.c.visible).where(SERIES.c.path == sa.bindparam("path"))
_MOVE_SERIES: Final = (
    SERIES.update()
    .where(SERIES.c.id == _NUMBER)
    .values({"chain": sa.bindparam("new_chain"), "class": sa.bindparam("new_class")})
)
_NEW_SERIES: Final = SERIES.insert().returning(SERIES.c.id)
_SERIES_NAMES: Final = tuple(column.name for column in SERIES.columns if column.name != "id")
_SET_VISIBLE: Final = (
    SERIES.update()
    .where(SERIES.c.path == sa.bindparam("of_path"))
    .values(visible=sa.bindparam("is_visible"))
    .returning(SERIES.c.id)
)
_DROP_REPLACED: Final = IMAGES.delete().where(
    IMAGES.c.series == _NUMBER,
    sa.exists().where(
        _LATER.c.series == _NUMBER, _LATER.c.name == IMAGES.c.name, _LATER.c.registered > IMAGES.c.registered
    ),
)
_SHOW_IMAGES: Final = (
    IMAGES.update().where(IMAGES.c.series == _NUMBER, sa.not_(IMAGES.c.visible)).values(visible=sa.true())
)
_GUIDS: Final[sa.BindParameter[Any]] = sa.bindparam("guids", expanding=True)
_BURIED: Final = sa.select(TOMBSTONES.c.guid).where(TOMBSTONES.c.guid.in_(_GUIDS))
_STANDING: Final = sa.union_all(
    sa.select(TOMBSTONES.c.guid, sa.literal_column("1")).where(TOMBSTONES.c.guid.in_(_GUIDS)),
    sa.select(ACLS.c.id, sa.literal_column("0")).where(ACLS.c.id.in_(_GUIDS)),
)

_IMAGE_COLUMNS: Final[Mapping[Level, Mapping[str, Attribute]]] = {
    level: {name: attribute for name, attribute in IMAGE_ATTRIBUTES.items() if attribute.level is level}
    for level in (Level.SERIES, Level.IMAGE)
}
