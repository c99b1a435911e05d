"""Content items of structured reports (PS3.3 section C.17.3): which of them tell who the subject is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from mdmfs.hospital.deid.codes import LEGACY_SCHEMES, UNKNOWN_CODE, known_code
from mdmfs.hospital.deid.elements import Elements
from mdmfs.hospital.deid.policy import Option

if TYPE_CHECKING:
    from mdmfs.hospital.deid.walk import Walk

_CONCEPT_NAME: Final = 0x0040A043
_MEASURED: Final = 0x0040A300
_NUMERIC: Final = 0x0040A30A
_UNITS: Final = 0x004008EA
_NUMBER: Final = re.compile(rb"\d{1,6}(?:\.\d{0,6})?")
_DATES: Final = frozenset({0x0040A120, 0x0040A121})
"""DateTime and Date."""
_NUMBERS: Final = frozenset({_MEASURED, _NUMERIC})
_CODED_VALUE: Final = 0x0040A168
_SEXES: Final = frozenset(b"F FC FP H M MC MP U 121102 121103 121104".split())
"""In DCM (PS3.16 CID 7455)."""
_CODE_VALUE: Final = 0x00080100
_SCHEME: Final = 0x00080102
_OLD_SCHEMES: Final = frozenset(scheme.encode() for scheme in LEGACY_SCHEMES)
_IN_A_YEAR: Final = {b"a": 1.0, b"mo": 12.0, b"wk": 365.25 / 7, b"d": 365.25}
"""UCUM."""
_TOO_OLD: Final = 90

_IDENTITY: Final = frozenset(
    {
        (b"121022", b"DCM"),  # Accession Number
        (b"121025", b"DCM"),  # Patient
        (b"121028", b"DCM"),  # Subject UID, as far as it names the patient and not an instance
        (b"121029", b"DCM"),  # Subject Name
        (b"121030", b"DCM"),  # Subject ID
        (b"121031", b"DCM"),  # Subject Birth Date
        (b"121036", b"DCM"),  # Mother of fetus
        (b"21112-8", b"LN"),  # Birth date
    }
)
"""What goes under every policy."""
_SHARED_DATE: Final = (b"113723", b"DCM")
"""Calibration DateTime: the machine's, and that of all its patients (``rules``)."""
_AGE: Final = frozenset({(b"121033", b"DCM"), (b"30525-0", b"LN"), (b"397669002", b"SCT")})
_CHARACTERISTICS: Final = _AGE | {
    (b"121032", b"DCM"),  # Subject Sex
    (b"121034", b"DCM"),  # Subject Species
    (b"121035", b"DCM"),  # Subject Breed
    (b"8302-2", b"LN"),  # Body height
    (b"29463-7", b"LN"),  # Body weight
    (b"3141-9", b"LN"),
    (b"3137-7", b"LN"),
    (b"27113001", b"SCT"),
    (b"50373000", b"SCT"),
    (b"60621009", b"SCT"),  # Body mass index
    (b"F-008EC", b"SRT"),
    (b"F-01860", b"SRT"),
}
"""What stays under Retain Patient Characteristics alone; ages above 89 do not."""


def is_personal(walk: Walk, item: Elements) -> bool:
    """Tell whether a content item goes as a whole.

    Under a concept that nobody knows a date may be the one of a birth, and a number an age, a weight, or the patient's.
    Under any concept, the code of a sex and 90 years and more are somebody's.
    """
    concept = _code(walk, item, _CONCEPT_NAME)
    is_unknown = known_code(concept[1], concept[0]) is UNKNOWN_CODE
    if concept in _IDENTITY or (is_unknown and _holds(item, _DATES)):
        return True
    if concept == _SHARED_DATE and Option.MODIFIED_DATES in walk.policy:
        return True
    ages = [_is_below_90(walk, measured) for measured in _measured(item)]
    value, scheme = _code(walk, item, _CODED_VALUE)
    if concept in _CHARACTERISTICS or (scheme == b"DCM" and value in _SEXES):
        return Option.PATIENT_CHARACTERISTICS not in walk.policy or (concept in _AGE and not all(ages))
    return (is_unknown and _holds(item, _NUMBERS)) or False in ages


def is_content(item: Elements) -> bool:
    """Tell whether an item is a content item: it names a concept."""
    return any(element[0] == _CONCEPT_NAME for element in item)


def _holds(item: Elements, tags: frozenset[int]) -> bool:
    return any(element[0] in tags for element in item)


def _is_below_90(walk: Walk, measured: Elements) -> bool | None:
    """Tell whether a span of time is one of less than 90 years; None of what is none."""
    per_year = _IN_A_YEAR.get(_code(walk, measured, _UNITS)[0])
    if per_year is None:
        return None
    number = next((walk.value(element) for element in measured if element[0] == _NUMERIC), b"")
    return _NUMBER.fullmatch(number) is not None and float(number) / per_year < _TOO_OLD


def _measured(item: Elements) -> list[Elements]:
    """Give what holds number and unit: an item of its own in reports, elsewhere the content item itself."""
    return _items(item, _MEASURED) or [item]


def _code(walk: Walk, item: Elements, tag: int) -> tuple[bytes, bytes]:
    """Give value and scheme of the code in a sequence of one item; empty ones where there is none."""
    for inner in _items(item, tag)[:1]:
        values = {element[0]: walk.value(element) for element in inner}
        scheme = values.get(_SCHEME, b"")
        return values.get(_CODE_VALUE, b""), b"SRT" if scheme in _OLD_SCHEMES else scheme
    return b"", b""


def _items(item: Elements, tag: int) -> list[Elements]:
    return next((element[4] or [] for element in item if element[0] == tag), [])
