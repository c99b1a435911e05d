"""The tables; the names of attributes and collections are rows of them and never part of a statement."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa

from mdmfs.metadata.schema import IMAGE_ATTRIBUTES, AttributeType, Collection, Column, Level

METADATA: Final = sa.MetaData()

_BYTES: Final = sa.LargeBinary
_ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""Compared by the bytes of UTF-8, in both databases."""

_TYPES: Final[Mapping[AttributeType, sa.types.TypeEngine[Any]]] = {
    AttributeType.TEXT: TEXT,
    AttributeType.INTEGER: sa.BigInteger(),
    AttributeType.NUMBER: sa.Double(),
    AttributeType.BOOLEAN: sa.Boolean(),
    AttributeType.DATE: sa.Date(),
}
_INDEXED: Final = (
    "Subject",
    "Modality",
    "BodyPartExamined",
    "ProtocolName",
    "SeriesDescription",
    "StudyDate",
    "Age",
    "SliceThickness",
)

ABOUT: Final = sa.Table("about", METADATA, sa.Column("key", TEXT, primary_key=True), sa.Column("value", _BYTES))
ACLS: Final = sa.Table(
    "acls",
    METADATA,
    sa.Column("id", _BYTES, primary_key=True),
    sa.Column("version", sa.BigInteger(), nullable=False),
    sa.Column("acl", _BYTES, nullable=False),
)
CLASSES: Final = sa.Table(
    "classes",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("digest", _BYTES, nullable=False, index=True),
    sa.Column("contents", _BYTES, nullable=False),
)
"""What the ACLs of some chains say: rows of one class are decided about together."""
CHAINS: Final = sa.Table(
    "chains",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("digest", _BYTES, nullable=False, unique=True),
    sa.Column("acl_ids", _BYTES, nullable=False),
    sa.Column("class", _ID, nullable=False, index=True),
)
"""Which ACLs stand above a row, by their ids: for each of its names from the root down."""
ACLS_OF_CHAINS: Final = sa.Table(
    "acls_of_chains",
    METADATA,
    sa.Column("acl", _BYTES, primary_key=True),
    sa.Column("chain", _ID, primary_key=True),
)
TOMBSTONES: Final = sa.Table("tombstones", METADATA, sa.Column("guid", _BYTES, primary_key=True))

SERIES: Final = sa.Table(
    "series",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("path", TEXT, nullable=False, unique=True),
    sa.Column("visible", sa.Boolean(), nullable=False),
    sa.Column("chain", _ID, nullable=False, index=True),
    sa.Column("class", _ID, nullable=False),
    *(
        sa.Column(attribute.name, _TYPES[attribute.type])
        for attribute in IMAGE_ATTRIBUTES.values()
        if attribute.level is Level.SERIES
    ),
)
PLACE: Final = SERIES.c.path.op("||", return_type=TEXT)(sa.literal_column("''"))
"""A path as questions name it. The index on paths serves who fills the table, and no question: it has all series in
it, and this expression is in none but that by class."""
# by class first: what is not for a caller is not even passed over
sa.Index("series_by_place", SERIES.c["class"], PLACE, unique=True)
for _name in _INDEXED:
    sa.Index(f"series_by_{_name}", SERIES.c["class"], SERIES.c[_name])
IMAGES: Final = sa.Table(
    "images",
    METADATA,
    sa.Column("guid", _BYTES, primary_key=True),
    sa.Column("series", _ID, nullable=False),
    sa.Column("name", TEXT, nullable=False),
    sa.Column("inode", sa.BigInteger(), nullable=False),
    sa.Column("sha256", _BYTES, nullable=False),
    sa.Column("policy", _BYTES, nullable=False),
    sa.Column("visible", sa.Boolean(), nullable=False),
    sa.Column("chain", _ID, nullable=False, index=True),
    sa.Column("class", _ID, nullable=False),
    *(
        sa.Column(attribute.name, _TYPES[attribute.type])
        for attribute in IMAGE_ATTRIBUTES.values()
        if attribute.level is Level.IMAGE
    ),
    sa.Index("images_of_series", "series", "name"),
)

COLLECTIONS: Final = sa.Table(
    "collections",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("project", TEXT, nullable=False),
    sa.Column("name", TEXT, nullable=False),
    sa.Column("chain", _ID, nullable=False, index=True),
    sa.Column("class", _ID, nullable=False),
    sa.UniqueConstraint("project", "name"),
)
GROUPS: Final = sa.Table(
    "groups",
    METADATA,
    sa.Column("collection", _ID, primary_key=True),
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("chain", _ID, nullable=False, index=True),
    sa.Column("class", _ID, nullable=False),
)
"""Attribute groups with an ACL of their own; attributes of no group follow their collection."""
ATTRIBUTES: Final = sa.Table(
    "attributes",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("collection", _ID, nullable=False, index=True),
    sa.Column("name", TEXT, nullable=False),
    sa.Column("type", TEXT, nullable=False),
    sa.Column("group", TEXT, nullable=False),
    sa.UniqueConstraint("collection", "name"),
)
SNAPSHOTS: Final = sa.Table(
    "cohorts",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("author", TEXT, nullable=False),
    sa.Column("name", TEXT, nullable=False),
    sa.Column("query", TEXT, nullable=False),
    sa.Column("created", sa.Double(), nullable=False),
    sa.Column("nonce", _BYTES, nullable=False),
    sa.UniqueConstraint("author", "name"),
)
FROZEN: Final = sa.Table(
    "cohort_files",
    METADATA,
    sa.Column("snapshot", _ID, primary_key=True),
    sa.Column("series", TEXT, primary_key=True),
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("guid", _BYTES, nullable=False, index=True),
    sa.Column("inode", sa.BigInteger(), nullable=False),
    sa.Column("size", sa.BigInteger(), nullable=False),
    sa.Column("sha256", _BYTES, nullable=False),
    sa.Column("policy", _BYTES, nullable=False),
    sa.Column("chain", _ID, nullable=False, index=True),
    sa.Column("class", _ID, nullable=False),
)
"""The files of snapshots, as they were."""


@functools.lru_cache(maxsize=1024)
def records_table(collection: int, columns: tuple[Column, ...] = ()) -> sa.Table:
    """Give the table of one collection of records, whose attributes are columns by number."""
    table = sa.Table(
        f"records_{collection}",
        sa.MetaData(),
        sa.Column("guid", _BYTES, primary_key=True),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("chain", _ID, nullable=False, index=True),
        sa.Column("class", _ID, nullable=False),
        sa.Column("key", _BYTES, index=True),
        sa.Column("sealed", _BYTES),
        *(record_column(column) for column in columns if not column.type.is_sealed),
    )
    for name in ("subject", *(f"a_{column.number}" for column in columns if not column.type.is_sealed)):
        sa.Index(f"{table.name}_by_{name}", table.c["class"], table.c[name])
    return table


def record_column(column: Column) -> sa.Column[Any]:
    """Give the column of an attribute of records."""
    return sa.Column(f"a_{column.number}", _TYPES[column.type])


def table_of(collection: Collection) -> sa.Table:
    """Give the table of a collection as a caller may know it."""
    return records_table(collection.number, tuple(collection.columns.values()))
