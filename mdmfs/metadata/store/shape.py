"""The shape of a condition: what its statement depends on, without the values; and what part of it is about series."""

from __future__ import annotations

from mdmfs.metadata.query import check
from mdmfs.metadata.query.check import Checked, Exists, Slot
from mdmfs.metadata.schema import Attribute, AttributeType, Level, Value


def emptied(condition: Checked, values: list[Value | Slot]) -> Checked:
    """Take the values of a condition out, behind others, and leave slots in their places."""
    match condition:
        case check.Asked(attribute, asked, given):
            slots = [Slot(number, _type_of(value, attribute)) for number, value in enumerate(given, len(values))]
            values += given
            return check.Asked(attribute, asked, tuple(slots))
        case check.Nay(operand):
            return check.Nay(emptied(operand, values))
        case check.All(operands) | check.Any(operands):
            return type(condition)(tuple(emptied(one, values) for one in operands))
        case Exists(level, collection, inner):
            return Exists(level, collection, emptied(inner, values))


def _type_of(value: Value | Slot, attribute: Attribute) -> AttributeType:
    """Tell as what a value is compared: whole numbers may be held against others."""
    return AttributeType.NUMBER if isinstance(value, float) else attribute.type


def of_series(condition: Checked | None) -> list[Checked]:
    """Give those parts of a condition on images, of which all must hold, that speak of their series only."""
    parts = condition.operands if isinstance(condition, check.All) else () if condition is None else (condition,)
    return [part for part in parts if not _names_images(part)]


def _names_images(condition: Checked) -> bool:
    match condition:
        case check.Asked(attribute):
            return attribute.level is Level.IMAGE
        case check.Nay(operand):
            return _names_images(operand)
        case check.All(operands) | check.Any(operands):
            return any(map(_names_images, operands))
        case Exists():
            return False
