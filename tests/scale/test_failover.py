"""A primary that is lost while files are registered: its standby has each once, and the daemon goes on by itself."""

from __future__ import annotations

from tests.bench._failover import fail_over
from tests.twins.postgresql import running_pair

REGISTRATIONS = 100


def test_nothing_is_lost_and_nothing_twice_when_a_standby_is_promoted() -> None:
    """A thousand in the bench ``postgresql``."""
    with running_pair() as pair:
        found = fail_over(pair, REGISTRATIONS)
    assert (found.acknowledged, found.registered) == (REGISTRATIONS, REGISTRATIONS)
    assert found.read >= REGISTRATIONS
    assert found.longest_write > 0.1  # somebody did wait
