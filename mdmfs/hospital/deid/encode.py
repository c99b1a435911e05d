"""Elements written in the one canonical form: Explicit VR Little Endian, defined lengths, even values."""

from __future__ import annotations

import struct
from typing import Final

from mdmfs.hospital.deid.elements import LONG_VRS

MAX_SHORT_LENGTH: Final = 0xFFFE
SHORT_HEAD: Final = 8
"""Bytes before the value of an element whose length has 16 bits."""

_HEAD: Final = struct.Struct("<HH2s")
_SHORT: Final = struct.Struct("<H").pack
_SMALL: Final = [_SHORT(length) for length in range(256)]
"""Nearly all lengths."""
_LONG: Final = struct.Struct("<HI").pack
_ITEM: Final = struct.Struct("<HHI").pack


def head(tag: int, vr: bytes) -> bytes:
    """Write tag and VR, the first six bytes of an element."""
    return _HEAD.pack(tag >> 16, tag & 0xFFFF, vr)


def encode(start: bytes, value: bytes, padding: bytes = b" ") -> bytes:
    """Write an element of a head and a value, padded to even length.

    A value too long for the 16-bit length of its VR is written as UN, as PS3.5 section 6.2.2 asks for.
    """
    length = len(value)
    if length & 1:
        value += padding
        length += 1
    if start[4:] in LONG_VRS:
        return start + _LONG(0, length) + value
    if length > MAX_SHORT_LENGTH:
        return start[:4] + b"UN" + _LONG(0, length) + value
    return start + (_SMALL[length] if length < len(_SMALL) else _SHORT(length)) + value


def encode_items(start: bytes, items: list[bytes]) -> bytes:
    """Write a sequence of items, each given as the elements in it."""
    content = b"".join([_ITEM(0xFFFE, 0xE000, len(item)) + item for item in items])
    return start + _LONG(0, len(content)) + content
