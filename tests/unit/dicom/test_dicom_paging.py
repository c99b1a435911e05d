"""A PACS that limits its answers: studies are asked for by date, and no list that is cut passes for a whole one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import pytest
import trio

from mdmfs.hospital.dicom import identifier as tags
from mdmfs.hospital.dicom.pacs import PacsAddress
from mdmfs.hospital.dicom.paging import LEAST_LIMIT, Answer, Match, find_studies
from mdmfs.hospital.dicom.remote import open_pacs
from mdmfs.model.errors import RecallFailedError
from tests.twins.scripted_pacs import FIND, PENDING, ScriptedPeer, encode_identifier, serving

PACS = PacsAddress("LIMITED", "127.0.0.1", 104)
TODAY = dt.date(2026, 11, 26)
ASKED = {tags.PATIENT_ID: "TEST-1", tags.STUDY_DATE: ""}


class Limited:
    """A PACS with the studies of one patient, which gives so many answers and no more."""

    def __init__(self, days: Sequence[str], limit: int, *, status: int = 0xFE00, counts: bool = True) -> None:
        self.days, self.limit, self.status, self.counts = days, limit, status, counts
        self.asked = 0

    async def __call__(self, asked: Mapping[int, str]) -> Answer:
        """Answer one query."""
        await trio.lowlevel.checkpoint()
        self.asked += 1
        first, _, last = asked[tags.STUDY_DATE].partition("-")
        count = {tags.NUMBER_OF_PATIENT_RELATED_STUDIES: str(len(self.days))} if self.counts else {}
        matches: list[Match] = [
            {tags.STUDY_INSTANCE_UID: f"1.2.{number}", tags.STUDY_DATE: day} | count
            for number, day in enumerate(self.days)
            if not first or first <= day <= last
        ]
        is_cut = len(matches) > self.limit
        return Answer(matches[: self.limit], self.status if is_cut else 0)


def days_of(count: int) -> list[str]:
    """Give dates over many years, several studies on some of the days."""
    return [f"{dt.date(1999, 1, 1) + dt.timedelta(days=number * 37 % 9000):%Y%m%d}" for number in range(count)]


@pytest.mark.parametrize("status", [0xFE00, 0xB000, 0xA700])
async def test_a_limit_that_is_told_is_gone_round(status: int) -> None:
    """With few more questions than there are pages."""
    limited = Limited(days_of(400), 20, status=status)
    found = await find_studies(limited, ASKED, PACS, TODAY)
    assert len({match[tags.STUDY_INSTANCE_UID] for match in found}) == 400
    assert limited.asked < 150


async def test_a_silent_limit_shows_in_the_count() -> None:
    """The final status is success, and only the PACS's own count tells that something is missing."""
    limited = Limited(days_of(400), LEAST_LIMIT, status=0)
    assert len(await find_studies(limited, ASKED, PACS, TODAY)) == 400


async def test_an_answer_in_full_is_one_question() -> None:
    """And so is a small one whose count is wrong: nobody limits to so few."""
    for limited in (Limited(days_of(49), 49), Limited(days_of(49), 40, status=0)):
        await find_studies(limited, ASKED, PACS, TODAY)
        assert limited.asked == 1


async def test_studies_without_a_date_are_not_forgotten() -> None:
    """They are in no range; where they come in the first answer they count, else it is an error and no short list."""
    first, last = ["", *days_of(60)], [*days_of(60), ""]
    assert len(await find_studies(Limited(first, 20), ASKED, PACS, TODAY)) == 61
    with pytest.raises(RecallFailedError, match="of 61 studies of a patient only 60"):
        await find_studies(Limited(last, 20), ASKED, PACS, TODAY)


async def test_more_studies_on_a_day_than_the_limit_are_an_error() -> None:
    """It cannot be gone round, and says what it is."""
    with pytest.raises(RecallFailedError, match="studies on one day"):
        await find_studies(Limited(["20200101"] * 30, 20), ASKED, PACS, TODAY)


async def test_a_query_that_fails_has_no_answer() -> None:
    """Other statuses are failures, at once and by date."""
    with pytest.raises(RecallFailedError, match="0xC001"):
        await find_studies(Limited(days_of(30), 20, status=0xC001), ASKED, PACS, TODAY)


async def test_a_cut_list_of_series_or_instances_is_an_error() -> None:
    """A PACS that says nothing is found out by its own count."""

    async def cutting(peer: ScriptedPeer) -> None:
        await peer.accept()
        while True:
            _, identifier = await peer.read_request()
            if b"STUDY " in identifier:
                answers: list[dict[int, str]] = [
                    {tags.STUDY_INSTANCE_UID: "1.2", tags.NUMBER_OF_STUDY_RELATED_SERIES: "90"}
                ]
            else:
                answers = [{tags.SERIES_INSTANCE_UID: f"1.2.{number}"} for number in range(LEAST_LIMIT)]
            for answer in answers:
                await peer.respond(0x8020, FIND, PENDING, encode_identifier(answer))
            await peer.respond(0x8020, FIND, 0)

    async with serving(cutting) as site, open_pacs(site.address) as pacs:
        with pytest.raises(RecallFailedError, match="of 90 series of a study it names 50"):
            await pacs.find_series(study_uid="1.2")
