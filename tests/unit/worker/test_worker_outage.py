"""A hospital that is away is asked again for as long as there is patience."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from mdmfs.model.errors import PeerUnreachableError
from mdmfs.worker.hospital.outage import LONGEST_PAUSE, Outage

DAYS = 86_400.0


async def test_a_hospital_that_is_away_for_days_is_asked_until_there_is_no_patience_left(
    autojump_clock: MockClock,
) -> None:
    """More often than a pause can be doubled."""
    outage, error, questions = Outage(), PeerUnreachableError("it does not answer"), 0
    while autojump_clock.current_time() < DAYS:
        await outage.outlast(error, DAYS)
        questions += 1
    with pytest.raises(PeerUnreachableError):
        await outage.outlast(error, DAYS)
    assert questions >= DAYS / LONGEST_PAUSE
