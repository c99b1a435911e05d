"""The names that images get at registration, without a patient in them and fixed for ever."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from mdmfs.hospital.deid.header import POINTING, IdentifiedHeader
from mdmfs.hospital.deid.pseudonyms import Subject
from mdmfs.model.names import Guid, Lfn
from mdmfs.model.subject import SubjectId

_LETTERS_OCTETS: Final = 5
_UNKNOWN_MODALITY: Final = "OT"
"""Other (PS3.3 C.7.3.1.1.1)."""

_NO_DIGITS: Final = re.compile(rb"[^0-9]+")
_POINTING_DIGITS: Final = 4
"""A shorter number points to nobody: patients, studies and series all have a 1."""

IsTaken = Callable[[Lfn], bool]


class SeriesNames(NamedTuple):
    """What a series and its study are called, pseudonymous all of it."""

    session: str
    number: str
    """Series Number as digits, or empty."""
    modality: str
    letters: str
    """Belong to this series alone."""


def names_of(header: IdentifiedHeader, subject: Subject, shifted_study_date: str) -> SeriesNames:
    """Name a series and its study: the shifted date ``YYYYMMDD``, or letters where the policy keeps no date."""
    session = shifted_study_date or _keyed_letters(subject, header.study_instance)
    return SeriesNames(
        session=f"ses-{session}",
        number=harmless(header.series_number, header),
        modality=header.modality or _UNKNOWN_MODALITY,
        letters=_keyed_letters(subject, header.series_instance),
    )


def harmless(number: str, header: IdentifiedHeader) -> str:
    """Give a number for a name; empty where its digits are those of a number that points to the patient, or part of it.

    One of several values, what stands between other characters, or all of it without those.
    """
    digits = number.lstrip("0").encode()
    if len(digits) < _POINTING_DIGITS:
        return number
    values = [value for found in header.values(POINTING, is_everywhere=True) for value in found.split(b"\\")]
    pointing = {
        found.lstrip(b"0") for value in values for found in (_NO_DIGITS.sub(b"", value), *_NO_DIGITS.split(value))
    }
    return "" if digits in pointing else number


def series_lfn(project: Lfn, subject: SubjectId, names: SeriesNames, *, is_taken: IsTaken) -> Lfn:
    """Name a series ``003-MR``; an empty or repeated number takes letters."""
    session = project / f"sub-{subject}" / names.session
    if not names.number:
        return session / f"{names.letters}-{names.modality}"
    plain = session / f"{int(names.number):03d}-{names.modality}"
    return session / f"{plain.name}-{names.letters}" if is_taken(plain) else plain


def instance_lfn(series: Lfn, number: str, guid: Guid, *, is_taken: IsTaken) -> Lfn:
    """Name an instance ``0001.dcm``; an empty or repeated number takes letters of its GUID."""
    letters = _letters(guid.octets)
    if not number:
        return series / f"{letters}.dcm"
    plain = series / f"{int(number):04d}.dcm"
    return series / f"{int(number):04d}-{letters}.dcm" if is_taken(plain) else plain


def _keyed_letters(subject: Subject, uid: str) -> str:
    """Give letters that only the hospital can connect with a real UID: a bare digest could be looked up."""
    return _letters(hmac.digest(subject.uid_key, b"name " + uid.encode(), "sha256"))


def _letters(octets: bytes) -> str:
    return base64.b32encode(octets[:_LETTERS_OCTETS]).decode().lower()
