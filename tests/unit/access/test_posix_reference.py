"""Decisions held against an independent account of POSIX.1e, at random: a hundredth of what a bench runs."""

from __future__ import annotations

from tests.twins.posix_acl import compare


def test_a_thousand_random_decisions_are_those_of_posix() -> None:
    """Some allow, some refuse: a reference that always said no would show nothing."""
    found = compare(1000, 20061122)
    assert not found.differing
    assert 100 < found.allowed < 900
