"""Noise on associations: one error or events, never anything else; the full count is ``./run bench fuzz-pdu``."""

from __future__ import annotations

import pytest

from tests.twins.pdu_fuzz import FUZZERS, SHARES

COUNT = 10_000
"""A hundredth."""
SEED = 20261126


@pytest.mark.parametrize("name", FUZZERS)
def test_every_mutated_stream_ends_in_events_or_in_one_error(name: str) -> None:
    """Seeded; some of each are refused and some are not: inputs that are all refused at once would try nothing."""
    count = int(COUNT * SHARES[name])
    assert count // 20 < FUZZERS[name](count, SEED) < count
