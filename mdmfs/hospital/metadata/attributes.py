"""Attributes: what a published header tells of an image, for the metadata service; the header itself is de-identified.

Only bytes that may leave anyway are read, so nothing can be told here that the file does not tell.
"""

from __future__ import annotations

import datetime as dt
import functools
import math
import re
import struct
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeAlias

from mdmfs.hospital.deid.elements import LONG_VRS
from mdmfs.hospital.deid.marks import PREAMBLE
from mdmfs.model.names import Lfn

AttributeValue: TypeAlias = str | int | float | bool

MAX_TEXT: Final = 1024
BAND_YEARS: Final = 5
OLDEST_BAND: Final = 90
_MAX_WHOLE: Final = 2**53
_HEAD: Final = struct.Struct("<HH2sH").unpack_from
_LENGTH: Final = struct.Struct("<I").unpack_from
_HEAD_SIZE: Final = 8
_LENGTH_SIZE: Final = 4
_AGE: Final = re.compile(r"(\d{3})([YMWD])")
_DATE: Final = re.compile(r"(\d{4})(\d{2})(\d{2})")
_PARTS_OF_PATH: Final = 4
"""Hospital, project, subject, session; then the series."""


class Attributes(NamedTuple):
    """What one header tells."""

    series: Mapping[str, AttributeValue]
    image: Mapping[str, AttributeValue]


NO_ATTRIBUTES: Final = Attributes({}, {})


def attributes_of(header: bytes) -> Attributes:
    """Read the published bytes before Pixel Data: Explicit VR Little Endian, as the engine writes all headers."""
    series: dict[str, AttributeValue] = {}
    image: dict[str, AttributeValue] = {}
    position = len(PREAMBLE)
    while position + _HEAD_SIZE <= len(header):
        group, number, vr, length = _HEAD(header, position)
        position += _HEAD_SIZE
        if vr in LONG_VRS:
            if position + _LENGTH_SIZE > len(header):
                break
            length = _LENGTH(header, position)[0]
            position += _LENGTH_SIZE
        known = _KNOWN.get(tag := group << 16 | number)
        if known is not None and position + length <= len(header):
            name, _, is_of_image = known
            read = _remembered_value if length <= MAX_TEXT else _value
            value = read(tag, header[position : position + length])
            if value is not None:
                (image if is_of_image else series)[name] = value
        position += length
    return Attributes(series, image)


def _value(tag: int, octets: bytes) -> AttributeValue | None:
    _, read, _ = _KNOWN[tag]
    return read(octets)


_remembered_value: Final = functools.lru_cache(maxsize=1024)(_value)
"""Most values are those of the image before."""


def attributes_of_path(series: Lfn) -> dict[str, AttributeValue]:
    """Give what the name of a series tells."""
    _, project, subject, session = series.parts[:_PARTS_OF_PATH]
    return {"Project": project, "Subject": subject.removeprefix("sub-"), "Session": session}


def _text(value: bytes) -> str | None:
    text = value.decode("latin_1").strip(" \0")
    return text if 0 < len(text) <= MAX_TEXT and text.isprintable() else None


def _word(value: bytes) -> str | None:
    """Give a sex; what is none of the defined terms (PS3.3 C.7.1.1) is missing."""
    text = _text(value)
    return text if text in {"F", "M", "O"} else None


def _whole(value: bytes) -> int | None:
    text = (_text(value) or "").split("\\", 1)[0].strip()
    return _bounded(int(text)) if re.fullmatch(r"[+-]?\d{1,12}", text) else None


def _short(value: bytes) -> int | None:
    return int.from_bytes(value, "little") if len(value) == struct.calcsize("<H") else None


def _number(value: bytes) -> float | None:
    text = (_text(value) or "").split("\\", 1)[0].strip()
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _day(value: bytes) -> str | None:
    match = _DATE.fullmatch(_text(value) or "")
    if match is None:
        return None
    try:
        return dt.date(int(match[1]), int(match[2]), int(match[3])).isoformat()
    except ValueError:
        return None


def _band(value: bytes) -> int | None:
    """Give the begin of the band of five years that an age (PS3.5 6.2, AS) lies in."""
    match = _AGE.fullmatch(_text(value) or "")
    if match is None:
        return None
    years = int(match[1]) if match[2] == "Y" else int(match[1]) * {"M": 30, "W": 7, "D": 1}[match[2]] // 365
    return min(years // BAND_YEARS * BAND_YEARS, OLDEST_BAND)


def _bounded(number: int) -> int | None:
    return number if abs(number) <= _MAX_WHOLE else None


_Read: TypeAlias = Callable[[bytes], AttributeValue | None]
_KNOWN: Final[Mapping[int, tuple[str, _Read, bool]]] = {
    0x00080008: ("ImageType", _text, True),
    0x00080020: ("StudyDate", _day, False),
    0x00080021: ("SeriesDate", _day, False),
    0x00080022: ("AcquisitionDate", _day, False),
    0x00080060: ("Modality", _text, False),
    0x00080070: ("Manufacturer", _text, False),
    0x00081030: ("StudyDescription", _text, False),
    0x0008103E: ("SeriesDescription", _text, False),
    0x00081090: ("ManufacturerModelName", _text, False),
    0x00100040: ("Sex", _word, False),
    0x00101010: ("Age", _band, False),
    0x00180010: ("ContrastBolusAgent", _text, False),
    0x00180015: ("BodyPartExamined", _text, False),
    0x00180020: ("ScanningSequence", _text, False),
    0x00180021: ("SequenceVariant", _text, False),
    0x00180050: ("SliceThickness", _number, False),
    0x00180060: ("KVP", _number, False),
    0x00180080: ("RepetitionTime", _number, False),
    0x00180081: ("EchoTime", _number, True),
    0x00180082: ("InversionTime", _number, False),
    0x00180087: ("MagneticFieldStrength", _number, False),
    0x00180088: ("SpacingBetweenSlices", _number, False),
    0x00181030: ("ProtocolName", _text, False),
    0x00181314: ("FlipAngle", _number, False),
    0x00200011: ("SeriesNumber", _whole, False),
    0x00200012: ("AcquisitionNumber", _whole, True),
    0x00200013: ("InstanceNumber", _whole, True),
    0x00201041: ("SliceLocation", _number, True),
    0x00280008: ("NumberOfFrames", _whole, True),
    0x00280010: ("Rows", _short, False),
    0x00280011: ("Columns", _short, False),
    0x00280030: ("PixelSpacing", _number, False),
}
"""By tag: the attribute, how its value is read, and whether each image has its own."""
NAMES_OF_IMAGES: Final = frozenset({*(name for name, _, _ in _KNOWN.values()), "Project", "Subject", "Session", "Size"})
"""No attribute of records is called so."""
