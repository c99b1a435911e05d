"""Rows of patients to records of subjects: types checked, dates shifted, identifiers refused; pure."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Final, NamedTuple, NoReturn

from mdmfs.hospital.deid.charsets import without_accents
from mdmfs.hospital.deid.pseudonyms import PatientKey, Subject, is_temporal, shift_date
from mdmfs.hospital.ledger.records import CollectionRecord
from mdmfs.hospital.metadata.attributes import AttributeValue

MAX_TEXT: Final = 1024
MAX_NOTE: Final = 64 * 2**10
MAX_ATTACHMENT: Final = 4 * 2**20
MIN_NUMBER: Final = 6
"""Digits in a row from which on they may be somebody's number."""
MIN_IDENTIFIER: Final = 4
"""Letters and digits of a Patient ID from which on it is found however it is parted."""
_DIGITS: Final = re.compile(rf"(?:\d[\W_]{{0,3}}){{{MIN_NUMBER - 1},}}\d")
"""Whatever stands between them: telephones are written with blanks and hyphens."""
_BETWEEN: Final = re.compile(r"[\W_]+")
_NO_DIGITS: Final = re.compile(r"\D+")
_PARTING: Final = r" ?[./\-\u2010-\u2015\u2212] ?"
_MONTH: Final = (
    r"(?:jan|gen|ene|feb|fev|mar|maa|mrt|apr|avr|abr|may|mai|mag|mei|maj|jun|jui|giu|jul|lug"
    r"|aug|aou|ago|sep|set|oct|okt|ott|out|nov|dec|dez|dic)[a-z]{0,7}"
)
"""As it begins in languages of Western Europe."""
_LIKE_A_DATE: Final = re.compile(
    rf"(?<!\d)\d{{1,4}}{_PARTING}\d{{1,2}}{_PARTING}\d{{1,4}}(?!\d)"
    rf"|(?<!\d)\d{{4}}\W{{0,3}}{_MONTH}\W{{0,3}}\d{{1,2}}(?!\d)"
    rf"|(?<!\d)\d{{1,2}}\W{{0,3}}(?:de )?{_MONTH}\W{{0,3}}(?:de )?\d{{2,4}}(?!\d)"
    rf"|(?<![a-z]){_MONTH}\W{{0,3}}\d{{1,2}}\W{{1,3}}\d{{2,4}}(?!\d)"
)
_WRITTEN_DATE: Final = re.compile(r"(?:19|20)\d{6}")
_DATE: Final = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})")
_TRUTH: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_MAX_WHOLE: Final = 2**53


class RefusedRowError(Exception):
    """A row is not taken; the text says why, and nothing that stands in it."""


class Translated(NamedTuple):
    """What may leave of a row."""

    values: dict[str, AttributeValue]
    sealed: dict[str, str | bytes]
    """Notes and attachments, to be sealed."""


def translate(
    values: Mapping[str, AttributeValue], collection: CollectionRecord, patient: PatientKey, subject: Subject
) -> Translated:
    """Make of a patient's row what may be known of the subject; raises ``RefusedRowError``.

    A text in which the patient's number stands, or what looks like a date, an address or somebody's number, refuses
    the row, and so does his number, or a day, as a number: dates belong into date attributes, which are shifted.
    """
    kinds = {attribute.name: attribute.type for attribute in collection.attributes}
    found = Translated({}, {})
    for name, value in values.items():
        kind = kinds.get(name)
        if kind is None:
            message = f"{name[:64]}: there is no such attribute"
            raise RefusedRowError(message)
        if value == "":
            continue
        if kind == "note":
            found.sealed[name] = _note(name, value, patient)
        elif kind == "attachment":
            found.sealed[name] = _attachment(name, value)
        else:
            found.values[name] = _plain(name, kind, value, patient, subject)
    return found


def _plain(name: str, kind: str, value: AttributeValue, patient: PatientKey, subject: Subject) -> AttributeValue:
    match kind:
        case "text":
            return _text(name, value, patient)
        case "date":
            return _shifted(name, value, subject)
        case "boolean":
            truth = value if isinstance(value, bool) else _TRUTH.get(str(value).lower())
            return truth if truth is not None else _misfit(name, "true or false")
        case "integer":
            number = _number(name, value, patient)
            return (
                int(number) if number == int(number) and abs(number) < _MAX_WHOLE else _misfit(name, "a whole number")
            )
        case _:
            return _number(name, value, patient)


def _text(name: str, value: AttributeValue, patient: PatientKey) -> str:
    text = value if isinstance(value, str) else _misfit(name, "a text")
    if len(text) > MAX_TEXT or not text.isprintable():
        _misfit(name, f"printable, and at most {MAX_TEXT} characters")
    _refuse_number_of(patient, name, text)
    plain = without_accents(_bare(text))
    if _DIGITS.search(plain) or _LIKE_A_DATE.search(plain) or "@" in plain:
        message = f"{name}: it holds what looks like a date, an address or somebody's number"
        raise RefusedRowError(message)
    return text


def _note(name: str, value: AttributeValue, patient: PatientKey) -> str:
    text = value if isinstance(value, str) else _misfit(name, "a text")
    if len(text.encode()) > MAX_NOTE:
        _misfit(name, f"at most {MAX_NOTE} bytes")
    _refuse_number_of(patient, name, text)
    return text


def _refuse_number_of(patient: PatientKey, name: str, text: str) -> None:
    own, said = _bare(patient.patient_id), _bare(text)
    bare = _BETWEEN.sub("", own).lstrip("0")
    if own in said or (len(bare) >= MIN_IDENTIFIER and bare in _BETWEEN.sub("", said)):
        _refuse_own(name)


def _bare(text: str) -> str:
    """Give a text in lower case, with digits and letters of full width as others."""
    return unicodedata.normalize("NFKC", text).lower()


def _refuse_own(name: str) -> NoReturn:
    message = f"{name}: the patient's own number stands in it"
    raise RefusedRowError(message)


def _attachment(name: str, value: AttributeValue) -> bytes:
    try:
        octets = base64.b64decode(str(value), validate=True)
    except (binascii.Error, ValueError):
        return _misfit(name, "Base64")
    return octets if len(octets) <= MAX_ATTACHMENT else _misfit(name, f"at most {MAX_ATTACHMENT} bytes")


def _shifted(name: str, value: AttributeValue, subject: Subject) -> str:
    match = _DATE.fullmatch(str(value))
    moved = None if match is None else shift_date("".join(match.groups()).encode(), subject)
    if moved is None:
        return _misfit(name, "a date, written YYYY-MM-DD or YYYYMMDD, and none that stands for a missing one")
    return dt.datetime.strptime(moved.decode(), "%Y%m%d").date().isoformat()  # noqa: DTZ007 a day has no zone


def _number(name: str, value: AttributeValue, patient: PatientKey) -> float:
    if isinstance(value, bool):
        return _misfit(name, "a number")
    try:
        number = float(value)
    except ValueError:
        return _misfit(name, "a number")
    own = _NO_DIGITS.sub("", _bare(patient.patient_id)).lstrip("0")
    if len(own) >= MIN_NUMBER and number == float(own):
        _refuse_own(name)
    if _reads_as_a_date(number):
        message = f"{name}: the number reads as a date, and those belong into attributes of dates"
        raise RefusedRowError(message)
    return number if math.isfinite(number) else _misfit(name, "a number")


def _reads_as_a_date(number: float) -> bool:
    text = f"{number:.0f}" if math.isfinite(number) else ""
    return _WRITTEN_DATE.fullmatch(text) is not None and number == int(text) and is_temporal(text.encode(), b"DA")


def _misfit(name: str, wanted: str) -> NoReturn:
    message = f"{name}: it must be {wanted}"
    raise RefusedRowError(message) from None
