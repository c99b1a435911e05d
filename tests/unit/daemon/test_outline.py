"""What is told of an unforeseen error: kinds and places all along its causes, and never what it says."""

from __future__ import annotations

from mdmfs.daemon.outline import outline


def test_kinds_and_places_are_told_and_no_message() -> None:
    """A library quotes the value that it stumbled on; nobody logs that."""
    try:
        try:
            {}["1.2.840.4711"]
        except KeyError as error:
            message = "Smith^John"
            raise ValueError(message) from error
    except ValueError as error:
        told = outline(error)
    assert told.startswith("ValueError at ")
    assert "; from KeyError at " in told
    assert "test_outline.py:" in told
    assert "Smith" not in told
    assert "4711" not in told
