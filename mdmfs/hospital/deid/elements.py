"""Data elements as they lie in a buffer: heads and trees after PS3.5 section 7, strict, without copying values."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeAlias

from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.deid.tables.dictionary import SEQUENCES

Octets: TypeAlias = bytes | bytearray
Element: TypeAlias = "tuple[int, bytes, int, int, list[Elements] | None]"
"""Tag; VR, empty where Implicit VR does not tell; where the value starts and stops; the items of a sequence."""
Elements: TypeAlias = list[Element]
Head: TypeAlias = tuple[int, bytes, int, int]
"""Tag, VR, length of the value, where it starts."""
ReadHead: TypeAlias = Callable[[Octets, int, int], Head | None]

UNDEFINED: Final = 0xFFFFFFFF
_UNDEFINED_OCTETS: Final = b"\xff\xff\xff\xff"
MAX_DEPTH: Final = 32
PRIVATE_BIT: Final = 0x10000
"""The bit of a tag that makes its group odd (PS3.5 section 7.8)."""

HEAD_SIZE: Final = 8
LONG_HEAD_SIZE: Final = 12
"""Bytes of a head with a length of 16 bits, or in Implicit VR, and of one with reserved bytes and 32 bits."""
ITEM: Final = 0xFFFEE000
ITEM_END: Final = 0xFFFEE00D
SEQUENCE_END: Final = 0xFFFEE0DD
DELIMITERS: Final = frozenset({ITEM, ITEM_END, SEQUENCE_END})
PIXELS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
OFFSET_TABLES: Final = (0x7FE00001, 0x7FE00002)
"""Extended Offset Table and its lengths: octets that only compressed frames can be compared with."""

SHORT_VRS: Final = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
"""VRs whose length has 16 bits (PS3.5 Table 7.1-2)."""
LONG_VRS: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
NESTING_VRS: Final = frozenset({b"SQ", b"UN", b"OB", b"OW", b""})
"""VRs that may have an undefined length: sequences, sequences nobody knew, and (OB, OW) encapsulated pixels only."""

HEAD_SIZES: Final = {**dict.fromkeys(SHORT_VRS, HEAD_SIZE), **dict.fromkeys(LONG_VRS, LONG_HEAD_SIZE)}
"""Bytes before the value, by VR."""

unpack_short_head: Final = struct.Struct("<HH2sH").unpack_from
"""Gives group, number, VR and length of an element of ``SHORT_VRS``."""
_IMPLICIT: Final = struct.Struct("<HHI").unpack_from
_LENGTH: Final = struct.Struct("<I").unpack_from


def read_explicit_head(octets: Octets, position: int, limit: int) -> Head | None:
    """Read the head of an element in Explicit VR Little Endian; None if it goes beyond the limit."""
    if limit - position < HEAD_SIZE:
        return None
    group, number, vr, length = unpack_short_head(octets, position)
    start = position + HEAD_SIZES.get(vr, 0)
    if start == position + HEAD_SIZE:
        return group << 16 | number, vr, length, start
    if start == position:
        raise RefusedError(Reason.MALFORMED, group << 16 | number)
    if start > limit:
        return None
    return group << 16 | number, vr, _LENGTH(octets, position + 8)[0], start


def read_implicit_head(octets: Octets, position: int, limit: int) -> Head | None:
    """Read the head of an element in Implicit VR Little Endian; of VRs only SQ is told."""
    if limit - position < HEAD_SIZE:
        return None
    group, number, length = _IMPLICIT(octets, position)
    tag = group << 16 | number
    if tag in DELIMITERS:
        raise RefusedError(Reason.MALFORMED, tag)
    return tag, b"SQ" if tag in SEQUENCES else b"", length, position + HEAD_SIZE


def read_elements(octets: Octets, position: int, stop: int, read_head: ReadHead, depth: int = 0) -> Elements:
    """Read the elements that fill a range, with all that is nested in them."""
    elements, position = _read_until(octets, position, stop, read_head, depth)
    return elements


def read_sequence(element: Element, octets: Octets, read_head: ReadHead, depth: int = 0) -> Element:
    """Give an element its items if it is a sequence; items of VR UN are in Implicit VR (PS3.5 section 6.2.2).

    An undefined length makes any UN a sequence, whatever PS3.6 says of its tag: no name in it may pass for a number.
    """
    tag, vr, start, stop, _ = element
    if vr == b"SQ":
        return tag, vr, start, stop, _read_items(octets, start, stop, read_head, depth + 1)
    if vr == b"UN" and (tag in SEQUENCES or octets[start - 4 : start] == _UNDEFINED_OCTETS):
        return tag, b"SQ", start, stop, _read_items(octets, start, stop, read_implicit_head, depth + 1)
    return element


def read_delimiter(octets: Octets, position: int, limit: int) -> tuple[int, int]:
    """Read the tag and length of an item or delimiter; a delimiter has no length, an item an even one."""
    if limit - position < HEAD_SIZE:
        raise RefusedError(Reason.TRUNCATED)
    group, number, length = _IMPLICIT(octets, position)
    tag = group << 16 | number
    if (tag != ITEM and length) or (length != UNDEFINED and length & 1):
        raise RefusedError(Reason.MALFORMED, tag)
    return tag, length


def _read_until(
    octets: Octets, position: int, stop: int, read_head: ReadHead, depth: int, *, is_delimited: bool = False
) -> tuple[Elements, int]:
    """Read elements up to ``stop``, or up to and with an item delimiter before it."""
    elements: Elements = []
    previous = -1
    while position < stop:
        if is_delimited and octets[position : position + 4] == b"\xfe\xff\x0d\xe0":
            read_delimiter(octets, position, stop)
            return elements, position + 8
        head = read_head(octets, position, stop)
        if head is None:
            raise RefusedError(Reason.TRUNCATED)
        tag, vr, length, start = head
        if tag <= previous:
            raise RefusedError(Reason.MALFORMED, tag)
        previous = tag
        if length == UNDEFINED:
            element, position = _read_undefined(octets, head, stop, read_head, depth)
        else:
            position = start + length
            element = defined_element(tag, vr, start, position, stop)
            if vr in NESTING_VRS:
                element = read_sequence(element, octets, read_head, depth)
        elements.append(element)
    if is_delimited or position != stop:
        raise RefusedError(Reason.TRUNCATED)
    return elements, position


def defined_element(tag: int, vr: bytes, start: int, end: int, limit: int) -> Element:
    """Make an element of defined length; raises if it is odd or goes beyond the limit."""
    if (end - start) & 1:
        raise RefusedError(Reason.MALFORMED, tag)
    if end > limit:
        raise RefusedError(Reason.TRUNCATED, tag)
    return tag, vr, start, end, None


def _read_undefined(octets: Octets, head: Head, limit: int, read_head: ReadHead, depth: int) -> tuple[Element, int]:
    tag, vr, _, start = head
    inner = undefined_encoding(tag, vr, read_head)
    if vr in {b"OB", b"OW"}:
        end = _skip_fragments(octets, start, limit)
        return (tag, vr, start, end, None), end + 8
    items, end = _read_delimited_items(octets, start, limit, inner, depth + 1)
    return (tag, b"SQ", start, end, items), end + 8


def undefined_encoding(tag: int, vr: bytes, read_head: ReadHead) -> ReadHead:
    """Tell how the items of a value of undefined length are encoded; raises where a VR cannot have one."""
    if vr not in NESTING_VRS or (vr in {b"OB", b"OW"} and tag not in PIXELS):
        raise RefusedError(Reason.MALFORMED, tag)
    return read_implicit_head if vr == b"UN" else read_head


def _skip_fragments(octets: Octets, start: int, limit: int) -> int:
    """Find the delimiter behind the fragments of encapsulated pixels (PS3.5 section A.4)."""
    position = start
    while True:
        tag, length = read_delimiter(octets, position, limit)
        if tag == SEQUENCE_END:
            return position
        if tag != ITEM or length == UNDEFINED:
            raise RefusedError(Reason.MALFORMED, tag)
        position += 8 + length


def _read_items(octets: Octets, start: int, stop: int, read_head: ReadHead, depth: int) -> list[Elements]:
    if depth > MAX_DEPTH:
        raise RefusedError(Reason.TOO_DEEP)
    items: list[Elements] = []
    position = start
    while position < stop:
        tag, length = read_delimiter(octets, position, stop)
        if tag != ITEM:
            raise RefusedError(Reason.MALFORMED, tag)
        item, position = _read_item(octets, position + 8, length, stop, read_head, depth)
        items.append(item)
    return items


def _read_delimited_items(
    octets: Octets, start: int, limit: int, read_head: ReadHead, depth: int
) -> tuple[list[Elements], int]:
    """Read items up to a sequence delimiter; gives where that stands."""
    if depth > MAX_DEPTH:
        raise RefusedError(Reason.TOO_DEEP)
    items: list[Elements] = []
    position = start
    while True:
        tag, length = read_delimiter(octets, position, limit)
        if tag == SEQUENCE_END:
            return items, position
        if tag != ITEM:
            raise RefusedError(Reason.MALFORMED, tag)
        item, position = _read_item(octets, position + 8, length, limit, read_head, depth)
        items.append(item)


def _read_item(
    octets: Octets, start: int, length: int, limit: int, read_head: ReadHead, depth: int
) -> tuple[Elements, int]:
    if length == UNDEFINED:
        return _read_until(octets, start, limit, read_head, depth, is_delimited=True)
    if start + length > limit:
        raise RefusedError(Reason.TRUNCATED)
    return _read_until(octets, start, start + length, read_head, depth)
