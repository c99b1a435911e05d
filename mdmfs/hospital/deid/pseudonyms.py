"""Pseudonyms: a subject's values, and the UIDs, dates and times that follow from them, the same on every run."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hmac
import re
from typing import Final

from mdmfs.hospital.deid.policy import Times
from mdmfs.model.errors import MalformedNameError
from mdmfs.model.subject import SubjectId

UID_KEY_SIZE: Final = 32
DAYS_IN_WEEK: Final = 7
MINUTES_IN_DAY: Final = 1440
SECONDS_IN_DAY: Final = 86400
_SECONDS_IN_MINUTE: Final = 60
MIN_WEEKS_BACK: Final = 52
MAX_WEEKS_BACK: Final = 521

_UUID_SIZE: Final = 16
_VERSION_4: Final = 0x4000_8000_0000_0000_0000
"""Version and variant of a random UUID (RFC 9562 section 5.4), and beside them the bits that are drawn."""
_RANDOM_BITS: Final = (1 << 128) - 1 ^ 0xF000_C000_0000_0000_0000
_DATE_SIZE: Final = 8
_FIRST_DAY: Final = dt.date(1905, 1, 1).toordinal()
_LAST_DAY: Final = dt.date(2089, 12, 31).toordinal()
_NO_DAYS: Final = frozenset(
    dt.date(*day).toordinal() for day in ((1969, 12, 31), (1970, 1, 1), (1980, 1, 1), (2000, 1, 1))
)
"""With what is before and behind, such as 1 January 1900, dates that machines write where they know none.

Everybody knows these: if they moved, they would tell by how much.
"""
_DATE: Final = re.compile(rb"(\d{4})\.(\d{2})\.(\d{2})")
_TIME: Final = re.compile(rb"([01]\d|2[0-3])(?:(:?)([0-5]\d)(?:\2([0-5]\d|60)(\.\d{1,6})?)?)?")
_DATE_TIME: Final = re.compile(
    rb"(\d{4})(?:(0[1-9]|1[0-2])(?:([0-3]\d)(?:([01]\d|2[0-3])(?:([0-5]\d)(?:([0-5]\d|60)(\.\d{1,6})?)?)?)?)?)?"
    rb"([+-](?:0\d|1[0-4])[0-5]\d)?"
)


@dataclasses.dataclass(frozen=True, slots=True)
class PatientKey:
    """Which patient an instance belongs to, as the hospital knows him; never leaves the hospital zone."""

    issuer: str = dataclasses.field(repr=False)
    """Issuer of Patient ID (0010,0021); empty where the object names none."""
    patient_id: str = dataclasses.field(repr=False)
    """Patient ID (0010,0020), without the padding; never empty."""


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """The row of one pseudonymous patient in one project, handed in as a value."""

    id: SubjectId
    date_offset_days: int = dataclasses.field(repr=False)
    """Negative, whole weeks, 52 to 521 of them: weekdays and intervals survive."""
    extra_minutes: int = dataclasses.field(repr=False)
    """0 to 1439: how far times of day move, with their dates."""
    uid_key: bytes = dataclasses.field(repr=False)
    """32 random bytes."""
    extra_seconds: int = dataclasses.field(init=False, repr=False)
    """These minutes in seconds, and 0 to 59 that follow from the key: a second that stayed would be one of sixty."""

    def __post_init__(self) -> None:
        """Refuse values that would hide nothing."""
        weeks, days = divmod(-self.date_offset_days, DAYS_IN_WEEK)
        if days or not MIN_WEEKS_BACK <= weeks <= MAX_WEEKS_BACK:
            message = f"a subject's dates move back by {MIN_WEEKS_BACK} to {MAX_WEEKS_BACK} whole weeks"
            raise MalformedNameError(message)
        if not 0 <= self.extra_minutes < MINUTES_IN_DAY:
            message = f"a subject's times move by 0 to {MINUTES_IN_DAY - 1} minutes"
            raise MalformedNameError(message)
        if len(self.uid_key) != UID_KEY_SIZE:
            message = f"a subject's UID key has {UID_KEY_SIZE} bytes"
            raise MalformedNameError(message)
        drawn = int.from_bytes(hmac.digest(self.uid_key, b"seconds", "sha256"), "big")
        extra = self.extra_minutes * _SECONDS_IN_MINUTE + drawn % _SECONDS_IN_MINUTE
        object.__setattr__(self, "extra_seconds", extra)

    @property
    def label(self) -> bytes:
        """What stands for the patient's name and number: 20 characters, an even number."""
        return b"sub-" + self.id.text.encode()

    def pseudonymous_uid(self, uid: bytes) -> bytes:
        """Map a UID (ASCII, no padding): ``2.25.`` and a UUID (PS3.5 B.2) from HMAC-SHA256(UID key, UID)."""
        drawn = int.from_bytes(hmac.digest(self.uid_key, uid, "sha256")[:_UUID_SIZE], "big")
        return b"2.25.%d" % (drawn & _RANDOM_BITS | _VERSION_4)


def is_temporal(value: bytes, vr: bytes) -> bool:
    """Tell whether a value is a DA, TM or DT, as its VR says."""
    match vr:
        case b"DA":
            return _read_date(value) is not None
        case b"TM":
            return _TIME.fullmatch(value) is not None
        case _:
            return _DATE_TIME.fullmatch(value) is not None


def shift_date(date: bytes, subject: Subject) -> bytes | None:
    """Move a DA by the subject's days; None if it is no date, or stands for none.

    ``YYYY.MM.DD`` of ACR-NEMA becomes ``YYYYMMDD``.
    """
    moved = _shift(_read_date(date), 0, subject, 0)
    return None if moved is None else moved[0]


def shift_date_and_time(date: bytes, time: bytes, subject: Subject, times: Times) -> tuple[bytes, bytes] | None:
    """Move a DA and its TM as one instant; None if either is not what it should be."""
    if times is Times.KEEP:
        day, kept = shift_date(date, subject), shift_time(time, subject, times)
        return None if day is None or kept is None else (day, kept)
    clock = _read_time(time)
    if clock is None:
        return None
    seconds, width, fraction = clock
    moved = _shift(_read_date(date), seconds, subject, _extra(seconds, fraction, subject))
    return None if moved is None else (moved[0], _write_time(moved[1], width, fraction))


def shift_time(time: bytes, subject: Subject, times: Times) -> bytes | None:
    """Move a TM that has no date; it wraps at midnight. None if it is no time."""
    clock = _read_time(time)
    if clock is None:
        return None
    if times is Times.KEEP:
        return time.replace(b":", b"")
    seconds, width, fraction = clock
    moved = seconds + _extra(seconds, fraction, subject)
    return _write_time(moved % SECONDS_IN_DAY, width, fraction)


def shift_date_time(value: bytes, subject: Subject, times: Times) -> bytes | None:
    """Move a DT, keeping its precision and its offset from UTC; None if it is no date and time."""
    match = _DATE_TIME.fullmatch(value)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups(default=b"")
    start = _ordinal(int(year), int(month or 1), int(day or 1))
    if not hour or times is Times.KEEP:
        days = _shift(start, 0, subject, 0)
        precision = len(year + month + day)
        return None if days is None else days[0][:precision] + value[precision:]
    seconds = _seconds(hour, minute, second)
    moved = _shift(start, seconds, subject, _extra(seconds, fraction, subject))
    return None if moved is None else moved[0] + _write_time(moved[1], len(hour + minute + second), fraction) + zone


def _read_date(date: bytes) -> int | None:
    if len(date) == _DATE_SIZE and date.isdigit():
        return _ordinal(int(date[:4]), int(date[4:6]), int(date[6:]))
    match = _DATE.fullmatch(date)
    return None if match is None else _ordinal(int(match[1]), int(match[2]), int(match[3]))


def _ordinal(year: int, month: int, day: int) -> int | None:
    try:
        return dt.date(year, month, day).toordinal()
    except ValueError:
        return None


def _read_time(time: bytes) -> tuple[int, int, bytes] | None:
    """Split into seconds of the day, digits that wrote them (2, 4 or 6), and their fraction as it stands."""
    match = _TIME.fullmatch(time)
    if match is None:
        return None
    hour, _, minute, second, fraction = match.groups(default=b"")
    return _seconds(hour, minute, second), len(hour + minute + second), fraction


def _seconds(hour: bytes, minute: bytes, second: bytes) -> int:
    return (int(hour) * 60 + int(minute or 0)) * _SECONDS_IN_MINUTE + int(second or 0)


def _extra(seconds: int, fraction: bytes, subject: Subject) -> int:
    """Tell by how many seconds a time moves: 00:00:00, which machines write where they know none, stays."""
    return subject.extra_seconds if seconds or fraction.strip(b"0.") else 0


def _shift(day: int | None, seconds: int, subject: Subject, extra: int) -> tuple[bytes, int] | None:
    if day is None or day in _NO_DAYS or not _FIRST_DAY <= day <= _LAST_DAY:
        return None
    days, seconds = divmod(seconds + extra, SECONDS_IN_DAY)
    date = dt.date.fromordinal(day + days + subject.date_offset_days)
    return b"%04d%02d%02d" % (date.year, date.month, date.day), seconds


def _write_time(seconds: int, width: int, fraction: bytes) -> bytes:
    minutes, second = divmod(seconds, _SECONDS_IN_MINUTE)
    hour, minute = divmod(minutes, 60)
    return (b"%02d%02d%02d" % (hour, minute, second))[:width] + fraction
