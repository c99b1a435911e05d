"""Times of images: the day that they tell, and nothing of the clock."""

from __future__ import annotations

import datetime as dt

import pytest

from mdmfs.hospital.catalogue.times import BEGINNING, another, time_of, time_within
from mdmfs.model.names import Lfn


def test_a_date_is_its_midnight_in_utc() -> None:
    """Whatever the time zone of the machine is."""
    assert time_of("20180312") == dt.datetime(2018, 3, 12, tzinfo=dt.UTC).timestamp()
    assert time_of("19800102") == BEGINNING + 86_400
    assert time_of("99991231") == 253_402_214_400


@pytest.mark.parametrize(
    "date",
    [
        "",
        "19791231",
        "00010101",
        "20180231",
        "20181301",
        "2018-3-1",
        "2018W051",
        "20180312\n",
        "\uff12\uff10\uff11\uff18\uff10\uff13\uff11\uff12",
        "nqz5uwkd",
    ],
)
def test_what_is_no_date_or_an_early_one_is_the_first_day_of_1980(date: str) -> None:
    """Which ZIP archives can name, and no one takes for a fault."""
    assert time_of(date) == BEGINNING == dt.datetime(1980, 1, 1, tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize(
    ("name", "date"),
    [
        ("/grid/medical/amc/neuro/sub-a/ses-20180312/003-MR/0001.dcm", "20180312"),
        ("/grid/medical/amc/neuro/sub-a/ses-20180312", "20180312"),
        ("/grid/medical/amc/neuro/sub-a/ses-67234567", ""),
        ("/grid/medical/amc/neuro/sub-a", ""),
        ("/grid/medical", ""),
    ],
)
def test_a_name_tells_a_day_by_its_session(name: str, date: str) -> None:
    """Letters in the place of a date are none."""
    assert time_within(Lfn.parse(name)) == time_of(date)


def test_what_takes_over_a_name_has_another_time() -> None:
    """A later one on the same day, down to the last second of it, else its own."""
    day = time_of("20180312")
    assert another(day, day) == day + 1
    assert another(day, day + 1) == day + 2
    assert another(day, day + 86_399) == day + 86_400
    assert another(day, day + 86_400) == day
    assert another(day, 1_700_000_000.0) == day
