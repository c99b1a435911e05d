"""Pseudonyms: valid, the same on every run, different for every subject."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmfs.hospital.deid.policy import Times
from mdmfs.hospital.deid.pseudonyms import Subject, shift_date, shift_date_and_time, shift_date_time, shift_time
from mdmfs.model.errors import MalformedNameError
from mdmfs.model.subject import SubjectId
from tests.twins.deidentified import OTHER_SUBJECT, SUBJECT

if TYPE_CHECKING:
    from collections.abc import Callable

ID = SubjectId("k7qf3x2mzt5wd4ha")
NO_DATES = (b"19691231", b"19700101", b"19800101", b"20000101")


@given(st.binary(max_size=64))
def test_a_pseudonymous_uid_is_a_uid(uid: bytes) -> None:
    """PS3.5 B.2: 2.25. and a UUID as a decimal number, 39 digits at most, no leading zero."""
    mapped = SUBJECT.pseudonymous_uid(uid)
    assert re.fullmatch(rb"2\.25\.[1-9]\d{0,38}", mapped)
    assert mapped == SUBJECT.pseudonymous_uid(uid)
    assert mapped != OTHER_SUBJECT.pseudonymous_uid(uid)


DAYS = st.dates(dt.date(1905, 1, 2), dt.date(2089, 12, 31)).filter(lambda day: f"{day:%Y%m%d}".encode() not in NO_DATES)


@given(DAYS, DAYS)
def test_intervals_and_weekdays_survive(first: dt.date, second: dt.date) -> None:
    """Dates move by whole weeks, all by the same."""
    moved = [
        dt.datetime.strptime((shift_date(f"{day:%Y%m%d}".encode(), SUBJECT) or b"").decode(), "%Y%m%d").date()  # noqa: DTZ007
        for day in (first, second)
    ]
    assert moved[1] - moved[0] == second - first
    assert moved[0].weekday() == first.weekday()
    assert moved[0] < first


@pytest.mark.parametrize(
    ("value", "moved"),
    [
        (b"2018.03.12", b"20160314"),
        (b"20180230", None),
        (b"2018", None),
        (b"18000101x", None),
        (b"00010101", None),
        (b"2018.0312", None),
    ],
)
def test_what_is_no_date_is_not_moved(value: bytes, moved: bytes | None) -> None:
    """ACR-NEMA's points are read; nothing else is guessed."""
    assert shift_date(value, SUBJECT) == moved


@pytest.mark.parametrize("value", [*NO_DATES, b"18581117", b"19000101", b"19041231", b"20900101", b"99991231"])
def test_a_date_that_stands_for_none_does_not_tell_the_shift(value: bytes) -> None:
    """Machines write these where they know no date, and everybody knows them: moved, they would tell by how much."""
    assert shift_date(value, SUBJECT) is None
    assert shift_date_and_time(value, b"1015", SUBJECT, Times.SHIFT) is None
    assert shift_date_time(value + b"1015", SUBJECT, Times.SHIFT) is None


@pytest.mark.parametrize("time", [b"00", b"0000", b"000000", b"000000.000000"])
def test_a_time_that_stands_for_none_does_not_tell_the_minutes(time: bytes) -> None:
    """Exactly midnight stays, and its date moves by days alone; a second later it is a time."""
    assert shift_time(time, SUBJECT, Times.SHIFT) == time
    assert shift_date_and_time(b"20180312", time, SUBJECT, Times.SHIFT) == (b"20160314", time)
    assert shift_date_time(b"20180312" + time, SUBJECT, Times.SHIFT) == b"20160314" + time
    assert shift_time(b"000000.01", SUBJECT, Times.SHIFT) == b"021721.01"


@pytest.mark.parametrize(
    ("value", "moved"),
    [
        (b"2018", b"2016"),
        (b"201803", b"201603"),
        (b"20180312", b"20160314"),
        (b"2018031223", b"2016031501"),
        (b"201803122355", b"201603150212"),
        (b"20180312235530.000001-0500", b"20160315021251.000001-0500"),
        (b"20181312", None),
        (b"2018031225", None),
        (b"Jane", None),
    ],
)
def test_date_times_keep_their_precision(value: bytes, moved: bytes | None) -> None:
    """PS3.5 Table 6.2-1, DT: trailing components may be missing; an offset from UTC stays."""
    assert shift_date_time(value, SUBJECT, Times.SHIFT) == moved


@pytest.mark.parametrize(
    ("value", "moved"),
    [(b"10", b"12"), (b"1015", b"1232"), (b"101560.5", b"123321.5"), (b"23:55:01", b"021222"), (b"2515", None)],
)
def test_a_time_alone_wraps_at_midnight(value: bytes, moved: bytes | None) -> None:
    """Without a date there is no next day."""
    assert shift_time(value, SUBJECT, Times.SHIFT) == moved


def test_no_second_tells_which_one_it_was() -> None:
    """Who knows to the second when somebody was scanned would find one image in sixty; intervals hold."""
    moved = {shift_time(b"101530.25", Subject(ID, -7 * 104, 137, bytes([key]) * 32), Times.SHIFT) for key in range(256)}
    assert len(moved) == 60
    assert shift_time(b"101559.75", SUBJECT, Times.SHIFT) == b"123320.75"
    assert shift_date_and_time(b"20180312", b"235959", SUBJECT, Times.SHIFT) == (b"20160315", b"021720")


def test_kept_times_stay() -> None:
    """PET kinetics need the hour; only days move then."""
    assert shift_time(b"1015", SUBJECT, Times.KEEP) == b"1015"
    assert shift_date_and_time(b"20180312", b"2355", SUBJECT, Times.KEEP) == (b"20160314", b"2355")
    assert shift_date_time(b"201803122355", SUBJECT, Times.KEEP) == b"201603142355"
    assert shift_date_and_time(b"20180312", b"x", SUBJECT, Times.KEEP) is None
    assert shift_date_and_time(b"x", b"1015", SUBJECT, Times.KEEP) is None
    assert shift_date_time(b"197001012355", SUBJECT, Times.KEEP) is None


def test_a_kept_leap_second_is_none_of_the_next_day() -> None:
    """There is one at the end of some days, and it stays where it is."""
    assert shift_time(b"23:59:60.5", SUBJECT, Times.KEEP) == b"235960.5"
    assert shift_date_and_time(b"20161231", b"235960", SUBJECT, Times.KEEP) == (b"20150103", b"235960")
    assert shift_date_time(b"20161231235960.5+0100", SUBJECT, Times.KEEP) == b"20150103235960.5+0100"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Subject(ID, -7 * 51, 0, bytes(32)),
        lambda: Subject(ID, -7 * 522, 0, bytes(32)),
        lambda: Subject(ID, -365, 0, bytes(32)),
        lambda: Subject(ID, 7 * 100, 0, bytes(32)),
        lambda: Subject(ID, -7 * 100, 1440, bytes(32)),
        lambda: Subject(ID, -7 * 100, -1, bytes(32)),
        lambda: Subject(ID, -7 * 100, 0, bytes(31)),
    ],
)
def test_a_subject_that_would_hide_nothing_is_refused(make: Callable[[], Subject]) -> None:
    """Offsets are whole weeks, between one year and ten; the key is whole."""
    with pytest.raises(MalformedNameError):
        make()
