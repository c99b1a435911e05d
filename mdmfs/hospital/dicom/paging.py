"""The studies of a patient, also from a PACS that limits its answers: they are then asked for by ranges of their dates.

A limit shows in the final status (Orthanc says 0xFE00), or only in the PACS's own count of the patient's studies.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

import structlog

from mdmfs.hospital.dicom import identifier as tags
from mdmfs.hospital.dicom.pacs import PacsAddress
from mdmfs.model.errors import RecallFailedError

FIRST_DAY: Final = dt.date(1900, 1, 1)
LEAST_LIMIT: Final = 50
"""No PACS limits its answers to fewer without saying so: fewer than it counts are then the count's mistake."""
TRUNCATED: Final = frozenset({0xA700, 0xB000, 0xFE00})
"""Out of resources, a warning, terminated: final statuses behind matches that are not all there are."""
_SUCCESS: Final = 0x0000

Match = Mapping[int, str]

log = structlog.get_logger()


class Answer(NamedTuple):
    """What a PACS answered to one query."""

    matches: list[Match]
    status: int
    """Of the final response."""


Ask = Callable[[Mapping[int, str]], Awaitable[Answer]]
"""Asks one query; raises only where there is no answer at all."""


class _CutError(Exception):
    """A range cannot be answered, and why."""


class _Days(NamedTuple):
    """A range of study dates, both ends within."""

    first: int
    """As ``datetime.date.toordinal``."""
    last: int

    def __str__(self) -> str:
        """Write it for range matching (PS3.4 section C.2.2.2.5)."""
        return "-".join(f"{dt.date.fromordinal(day):%Y%m%d}" for day in self)

    def halves(self) -> tuple[_Days, _Days]:
        """Cut it, the later half first."""
        middle = (self.first + self.last) // 2
        return _Days(middle + 1, self.last), _Days(self.first, middle)


async def find_studies(ask: Ask, asked: Mapping[int, str], pacs: PacsAddress, today: dt.date) -> list[Match]:
    """Ask at STUDY level, once where the PACS answers in full; raises ``RecallFailedError`` where it never does."""
    answer = await ask(asked)
    if answer.status not in TRUNCATED | {_SUCCESS}:
        message = f"{pacs}: a query failed with status 0x{answer.status:04X}"
        raise RecallFailedError(message)
    is_cut = answer.status in TRUNCATED
    counted, named = _counted(answer.matches), len(_by_uid(answer.matches))
    if not is_cut and (counted <= named or named < LEAST_LIMIT):
        return answer.matches
    limit = None if is_cut else named
    try:
        found = await _page(ask, asked, limit, today)
    except _CutError as error:
        message = f"{pacs}: {error}"
        raise RecallFailedError(message) from error
    for match in answer.matches:  # those without a date are in no range
        found.setdefault(match.get(tags.STUDY_INSTANCE_UID, ""), match)
    if counted > len(found) and is_cut:
        message = (
            f"{pacs}: it limits its answers; of {counted} studies of a patient only {len(found)} are found by date"
        )
        raise RecallFailedError(message)
    if counted > len(found):
        log.warning("a PACS counts more studies of a patient than it names", counted=counted, named=len(found))
    return list(found.values())


async def _page(ask: Ask, asked: Mapping[int, str], limit: int | None, today: dt.date) -> dict[str, Match]:
    """Go through all dates, halving a range for which the answer is cut."""
    found: dict[str, Match] = {}
    ranges = [_Days(FIRST_DAY.toordinal(), dt.date(today.year + 1, 12, 31).toordinal())]
    while ranges:
        days = ranges.pop()
        answer = await ask({**asked, tags.STUDY_DATE: str(days)})
        found |= _by_uid(answer.matches)
        if answer.status == _SUCCESS and (limit is None or len(answer.matches) < limit):
            continue
        if answer.status not in TRUNCATED | {_SUCCESS}:
            message = f"a query by date failed with status 0x{answer.status:04X}"
            raise _CutError(message)
        if days.first == days.last:
            message = f"it limits its answers to fewer ({len(answer.matches)}) than a patient has studies on one day"
            raise _CutError(message)
        ranges += days.halves()
    return found


def _by_uid(matches: list[Match]) -> dict[str, Match]:
    return {match.get(tags.STUDY_INSTANCE_UID, ""): match for match in matches}


def _counted(matches: list[Match]) -> int:
    """Give how many studies the PACS counts of a patient, by any of its answers; 0 where it does not count."""
    texts = (match.get(tags.NUMBER_OF_PATIENT_RELATED_STUDIES, "") for match in matches)
    return max((int(text) for text in texts if text.isascii() and text.isdigit()), default=0)
