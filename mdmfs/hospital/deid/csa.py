"""Siemens CSA image headers (0029,xx10), written anew from the few values that diffusion and functional MR need.

There is no public specification; the layout is that which nibabel and dcm2niix read: ``SV10``, 4 bytes, the number of
elements and a constant; for each element its name (64 bytes), VM, VR (4 bytes), a type, the number of items and a
constant; for each item four numbers, of which the second is its length, and its text, padded to 4 bytes. All numbers
are 32 bits, little endian. Of the text between and behind nothing is copied.
"""

from __future__ import annotations

import re
import struct
from typing import Final

MAGIC: Final = b"SV10"
MAX_ELEMENTS: Final = 1024
MAX_ITEMS: Final = 4096

_NUMBER: Final = re.compile(rb"[+-]?(?:\d{1,16}(?:\.\d{0,16})?|\.\d{1,16})(?:[eE][+-]?\d{1,3})?")
_DIRECTIONALITY: Final = re.compile(rb"DIRECTIONAL|ISOTROPIC|BMATRIX|NONE")
_ALLOWED: Final = {
    b"B_matrix": _NUMBER,
    b"B_value": _NUMBER,
    b"BandwidthPerPixelPhaseEncode": _NUMBER,
    b"DiffusionDirectionality": _DIRECTIONALITY,
    b"DiffusionGradientDirection": _NUMBER,
    b"MosaicRefAcqTimes": _NUMBER,
    b"NumberOfImagesInMosaic": _NUMBER,
    b"PhaseEncodingDirectionPositive": _NUMBER,
    b"SliceNormalVector": _NUMBER,
}
"""The elements that are kept, and what each item of theirs must look like."""
_VRS: Final = frozenset({b"FD", b"DS", b"IS", b"US", b"CS"})

_HEAD: Final = struct.Struct("<4s4sII")
_ELEMENT: Final = struct.Struct("<64sI4sIII")
_ITEM: Final = struct.Struct("<IIII")
_CONSTANT: Final = 77
_VERSION: Final = b"\4\3\2\1"


def rewrite(octets: bytes) -> bytes:
    """Give a CSA header that holds the allowed elements only; empty if this is none, or not whole."""
    try:
        return _rewritten(octets)
    except struct.error:
        return b""


def _rewritten(octets: bytes) -> bytes:
    magic, _, count, _ = _HEAD.unpack_from(octets, 0)
    if magic != MAGIC or count > MAX_ELEMENTS:
        return b""
    position = _HEAD.size
    kept = []
    for _ in range(count):
        name, vm, vr, kind, items, _ = _ELEMENT.unpack_from(octets, position)
        position += _ELEMENT.size
        if items > MAX_ITEMS:
            return b""
        values, position = _read_items(octets, position, items)
        name, vr = name.split(b"\0")[0], vr[:2]
        pattern = _ALLOWED.get(name)
        if pattern is not None and vr in _VRS and all(not value or pattern.fullmatch(value) for value in values):
            kept.append(_written(name, vm, vr, kind, values))
    return _HEAD.pack(MAGIC, _VERSION, len(kept), _CONSTANT) + b"".join(kept) if kept else b""


def _read_items(octets: bytes, position: int, count: int) -> tuple[list[bytes], int]:
    values = []
    for _ in range(count):
        length = _ITEM.unpack_from(octets, position)[1]
        position += _ITEM.size
        text = octets[position : position + length]
        values.append(text.split(b"\0")[0].strip())
        position += length + -length % 4
    return values, position


def _written(name: bytes, vm: int, vr: bytes, kind: int, values: list[bytes]) -> bytes:
    head = _ELEMENT.pack(name, min(vm, len(values)), vr, min(kind, 0xFF), len(values), _CONSTANT)
    return head + b"".join(_written_item(value) for value in values)


def _written_item(value: bytes) -> bytes:
    text = value + b"\0" if value else b""
    return _ITEM.pack(len(text), len(text), _CONSTANT, len(text)) + text + bytes(-len(text) % 4)
