"""Times of files and directories: those of images, as they tell them, never the clock's (docs/adr/0029-times.md)."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from mdmfs.model.names import Lfn

BEGINNING: Final = 315_532_800.0
"""1980-01-01 UTC, the first day that a ZIP archive can name: of what has no date, or an earlier one."""
_DAY_SECONDS: Final = 86_400
_DATE: Final = re.compile(r"[0-9]{8}")
_SESSION: Final = "ses-"


def time_of(study_date: str) -> float:
    """Give midnight UTC of a Study Date ``YYYYMMDD`` as it is published; ``BEGINNING`` where it is none."""
    if not _DATE.fullmatch(study_date):
        return BEGINNING
    try:
        day = dt.datetime.fromisoformat(study_date)
    except ValueError:
        return BEGINNING
    return max(BEGINNING, day.replace(tzinfo=dt.UTC).timestamp())


def time_within(lfn: Lfn) -> float:
    """Give the time of what is registered at or below a name, by the session that is part of it."""
    sessions = (part.removeprefix(_SESSION) for part in lfn.parts if part.startswith(_SESSION))
    return time_of(next(sessions, ""))


def another(modified: float, before: float) -> float:
    """Give the time of what takes over a name: its own, unless what had the name is of the same day: then a later one.

    Programs that compare times, as rsync and make do, would else keep what they have.
    """
    is_same_day = modified // _DAY_SECONDS == before // _DAY_SECONDS
    return before + 1 if is_same_day else modified
