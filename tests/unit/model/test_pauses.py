"""Pauses: doubled with each failure, and bounded however many there were."""

from __future__ import annotations

import pytest

from mdmfs.model.pauses import pause_after


@pytest.mark.parametrize(("failures", "pause"), [(0, 0.5), (1, 1.0), (3, 4.0), (4, 6.0), (10_000, 6.0), (10**100, 6.0)])
def test_a_pause_is_doubled_up_to_the_longest(failures: int, pause: float) -> None:
    """Also after more failures than a float has doublings."""
    assert pause_after(failures, 0.5, 6.0) == pause
