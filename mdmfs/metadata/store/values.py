"""Values of attributes as they come over the wire: read as their types want them, or refused by their attribute."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from typing import Final

from mdmfs.metadata.schema import Attribute, AttributeType, Column, Value
from mdmfs.model.errors import MalformedMessageError, MalformedNameError
from mdmfs.model.names import GUID_SIZE, Guid

MAX_TEXT: Final = 1024
"""Characters of a text attribute."""
MAX_WHOLE: Final = 2**53
"""Whole numbers below this are exact in every database and language."""


def typed(values: Mapping[str, str | float | bool], columns: Mapping[str, Attribute | Column]) -> dict[str, Value]:
    """Read values as their attributes want them; raises ``MalformedMessageError`` that names the attribute."""
    found: dict[str, Value] = {}
    for name, value in values.items():
        column = columns.get(name)
        if column is None:
            message = f"there is no attribute {name[:64]!r}"
            raise MalformedMessageError(message)
        read = as_typed(value, column.type)
        if read is None:
            message = f"a value of {name} is none of type {column.type}"
            raise MalformedMessageError(message)
        found[name] = read
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


def refuse_nul(*texts: str) -> None:
    """Raise ``MalformedMessageError`` for a text with a NUL character, which PostgreSQL takes nowhere."""
    if any("\0" in text for text in texts):
        message = "a text holds no NUL character"
        raise MalformedMessageError(message)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _date(text: str) -> dt.date | None:
    try:
        return dt.date.fromisoformat(text) if len(text) == len("2024-12-31") else None
    except ValueError:
        return None


def guid_octets(octets: bytes) -> bytes:
    """Take the octets of a GUID; raises ``MalformedMessageError``."""
    try:
        return Guid(octets).octets
    except MalformedNameError as error:
        message = f"a GUID has {GUID_SIZE} bytes"
        raise MalformedMessageError(message) from error
