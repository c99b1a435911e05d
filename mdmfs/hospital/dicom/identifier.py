"""Identifiers of queries and retrievals (PS3.4 Annex C): flat data sets in Implicit VR Little Endian, both ways.

Read here and not with pydicom, which warns about a strange value by printing it.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Mapping
from typing import Final

from pydicom.charset import python_encoding

from mdmfs.model.errors import RecallFailedError

MAX_IDENTIFIER_BYTES: Final = 2**20

SPECIFIC_CHARACTER_SET: Final = 0x0008_0005
SOP_CLASS_UID: Final = 0x0008_0016
SOP_INSTANCE_UID: Final = 0x0008_0018
STUDY_DATE: Final = 0x0008_0020
QUERY_RETRIEVE_LEVEL: Final = 0x0008_0052
MODALITY: Final = 0x0008_0060
AVAILABLE_TRANSFER_SYNTAX_UID: Final = 0x0008_3002
PATIENT_ID: Final = 0x0010_0020
ISSUER_OF_PATIENT_ID: Final = 0x0010_0021
STUDY_INSTANCE_UID: Final = 0x0020_000D
SERIES_INSTANCE_UID: Final = 0x0020_000E
SERIES_NUMBER: Final = 0x0020_0011
NUMBER_OF_PATIENT_RELATED_STUDIES: Final = 0x0020_1200
NUMBER_OF_STUDY_RELATED_SERIES: Final = 0x0020_1206
NUMBER_OF_SERIES_RELATED_INSTANCES: Final = 0x0020_1209

_UIDS: Final = frozenset(
    {SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, AVAILABLE_TRANSFER_SYNTAX_UID}
)
_READ: Final = _UIDS | {
    SPECIFIC_CHARACTER_SET,
    STUDY_DATE,
    MODALITY,
    PATIENT_ID,
    ISSUER_OF_PATIENT_ID,
    SERIES_NUMBER,
    NUMBER_OF_PATIENT_RELATED_STUDIES,
    NUMBER_OF_STUDY_RELATED_SERIES,
    NUMBER_OF_SERIES_RELATED_INSTANCES,
}
_HEADER: Final = struct.Struct("<HHI")
_UNDEFINED: Final = 0xFFFF_FFFF
_ITEM: Final = 0xFFFE_E000
_ITEM_END: Final = 0xFFFE_E00D
_SEQUENCE_END: Final = 0xFFFE_E0DD
_MAX_DEPTH: Final = 16
_UTF_8: Final = "ISO_IR 192"


def encode_identifier(elements: Mapping[int, str]) -> bytes:
    """Write an identifier; several values of one element are separated by a backslash."""
    texts = dict(elements)
    if not all(text.isascii() for text in texts.values()):
        texts[SPECIFIC_CHARACTER_SET] = _UTF_8
    encoded = []
    for tag, text in sorted(texts.items()):
        value = text.encode("utf-8")
        value += (b"\0" if tag in _UIDS else b" ") * (len(value) % 2)
        encoded.append(_HEADER.pack(tag >> 16, tag & 0xFFFF, len(value)) + value)
    return b"".join(encoded)


def parse_identifier(encoded: bytes | bytearray) -> dict[int, str]:
    """Read the top-level elements that stand above; all others are stepped over, sequences too.

    Texts are without the padding at their ends. Raises ``RecallFailedError`` for bytes that are no data set.
    """
    values: dict[int, bytes] = {}
    at = 0
    while at < len(encoded):
        tag, length, at = _element(encoded, at)
        if length == _UNDEFINED:
            at = _behind_sequence(encoded, at, 0)
        else:
            if tag in _READ:
                values[tag] = bytes(encoded[at : at + length])
            at += length
    encoding = _encoding(values.get(SPECIFIC_CHARACTER_SET, b""))
    return {tag: value.decode(encoding, "replace").strip(" \0") for tag, value in values.items()}


def _encoding(value: bytes) -> str:
    """Name Python's codec for a Specific Character Set (0008,0005); ISO 2022 with several sets counts by its first."""
    first = value.decode("ascii", "replace").split("\\")[0].strip(" \0")
    try:
        return codecs.lookup(python_encoding.get(first, "latin-1")).name
    except LookupError:
        return "latin-1"


def _element(encoded: bytes | bytearray, at: int) -> tuple[int, int, int]:
    if len(encoded) - at < _HEADER.size:
        raise _malformed()
    group, element, length = _HEADER.unpack_from(encoded, at)
    at += _HEADER.size
    if length != _UNDEFINED and length > len(encoded) - at:
        raise _malformed()
    return group << 16 | element, length, at


def _behind_sequence(encoded: bytes | bytearray, at: int, depth: int) -> int:
    """Find the end of a sequence of undefined length (PS3.5 section 7.5)."""
    if depth > _MAX_DEPTH:
        raise _malformed()
    while True:
        tag, length, at = _element(encoded, at)
        if tag == _SEQUENCE_END:
            return at
        if tag != _ITEM:
            raise _malformed()
        at = _behind_item(encoded, at, depth) if length == _UNDEFINED else at + length


def _behind_item(encoded: bytes | bytearray, at: int, depth: int) -> int:
    while True:
        tag, length, at = _element(encoded, at)
        if tag == _ITEM_END:
            return at
        at = _behind_sequence(encoded, at, depth + 1) if length == _UNDEFINED else at + length


def _malformed() -> RecallFailedError:
    return RecallFailedError("it answered a query with an identifier that is malformed")
