"""The schema: which attributes images and the records of each collection have, and what a caller may know of."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from mdmfs.model.collection import lies_within
from mdmfs.wire.definitions import RESERVED

Value: TypeAlias = str | int | float | bool | dt.date
"""What an attribute holds, and a query compares it with."""


class AttributeType(enum.StrEnum):
    """What kind of value an attribute has."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    NOTE = "note"
    """Free text: sealed, given back, never searched."""
    ATTACHMENT = "attachment"
    """Bytes: sealed as notes are."""

    @property
    def is_sealed(self) -> bool:
        """Whether values lie under the subject's key, where no query reaches them."""
        return self in {AttributeType.NOTE, AttributeType.ATTACHMENT}

    def holds(self, value: Value) -> bool:
        """Ask whether a value that was written in a query can be compared with this."""
        match self:
            case AttributeType.TEXT:
                return isinstance(value, str)
            case AttributeType.INTEGER | AttributeType.NUMBER:
                return isinstance(value, int | float) and not isinstance(value, bool)
            case AttributeType.BOOLEAN:
                return isinstance(value, bool)
            case AttributeType.DATE:
                return isinstance(value, dt.date)
            case AttributeType.NOTE | AttributeType.ATTACHMENT:
                return False


class Level(enum.StrEnum):
    """What an attribute belongs to."""

    SERIES = "series"
    IMAGE = "image"
    RECORD = "record"


@dataclasses.dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute as a query means it."""

    name: str
    type: AttributeType
    level: Level
    collection: str = ""
    """The collection whose records are meant, with those below it; of another series, along what it is joined.

    Empty for what the images and series have that are looked for.
    """


def _image(level: Level, kind: AttributeType, *names: str) -> list[Attribute]:
    return [Attribute(name, kind, level) for name in names]


_T = AttributeType
IMAGE_ATTRIBUTES: Final[Mapping[str, Attribute]] = {
    attribute.name: attribute
    for attribute in (
        *_image(Level.SERIES, _T.TEXT, "Project", "Subject", "Session", "Modality", "BodyPartExamined", "ProtocolName"),
        *_image(Level.SERIES, _T.TEXT, "SeriesDescription", "StudyDescription", "Sex", "Manufacturer"),
        *_image(Level.SERIES, _T.TEXT, "ManufacturerModelName", "ScanningSequence", "SequenceVariant"),
        *_image(Level.SERIES, _T.TEXT, "ContrastBolusAgent"),
        *_image(Level.SERIES, _T.DATE, "StudyDate", "SeriesDate", "AcquisitionDate"),
        *_image(Level.SERIES, _T.INTEGER, "Age", "SeriesNumber", "Rows", "Columns"),
        *_image(Level.SERIES, _T.NUMBER, "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "FlipAngle"),
        *_image(Level.SERIES, _T.NUMBER, "MagneticFieldStrength", "RepetitionTime", "InversionTime", "KVP"),
        *_image(Level.IMAGE, _T.INTEGER, "InstanceNumber", "AcquisitionNumber", "NumberOfFrames", "Size"),
        *_image(Level.IMAGE, _T.NUMBER, "SliceLocation", "EchoTime"),
        *_image(Level.IMAGE, _T.TEXT, "ImageType"),
    )
}
"""What every image has, or may have: by the keywords of PS3.6, but for Project, Subject, Session, Size, Age and Sex.

``Age`` is the begin of a band of five years, and 90 for all above; ``PixelSpacing`` is that between rows.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One attribute of one collection of one project."""

    number: int
    """Names the column in the database, in the table of the collection and of each below it."""
    name: str
    type: AttributeType
    home: str
    """The collection that it is an attribute of by itself; those below have it from there."""


@dataclasses.dataclass(frozen=True, slots=True)
class Collection:
    """A collection of records, as much of it as a caller may know."""

    number: int
    """Names the table in the database."""
    project: str
    name: str
    columns: dict[str, Column]
    """Its own, and those that it has from above."""

    def column(self, name: str, meant: str) -> Column | None:
        """Give the column of an attribute as a query means it that names the collection ``meant``: this, or one above.

        None where it has none of the name, or has it from below that collection.
        """
        found = self.columns.get(name)
        return found if found is not None and lies_within(meant, found.home) else None


class Schema:
    """What one caller may ask for."""

    def __init__(self, collections: Iterable[Collection] = ()) -> None:
        self._all = list(collections)

    def within(self, name: str) -> list[Collection]:
        """Give the collections of that name, at most one of each project, and all below them."""
        return [collection for collection in self._all if lies_within(collection.name, name)]

    def all(self) -> list[Collection]:
        """Give every collection."""
        return list(self._all)

    def find(self, name: str) -> list[Attribute]:
        """Give what a name can mean: none, one, or several where it must be written with its collection.

        Without one it means the attribute where it is at home. Collections of the same name in several projects count
        as one; where their types differ, each type is given.
        """
        above, _, last = name.rpartition(".")
        own = IMAGE_ATTRIBUTES.get(last)
        if own is not None and not above:
            return [own]
        if own is not None and above in RESERVED:
            return [dataclasses.replace(own, collection=above)] if own.level is Level.SERIES else []
        found = {
            Attribute(last, column.type, Level.RECORD, above or column.home)
            for collection in (self.within(above) if above else self._all)
            if (column := collection.columns.get(last)) is not None and lies_within(above or column.home, column.home)
        }
        return sorted(found, key=lambda attribute: (attribute.collection, attribute.type))
