"""Pins: bounded, counted once, over when their time is."""

from __future__ import annotations

import dataclasses

from mdmfs.hospital.tape.pins import Pins
from mdmfs.model.names import Guid

A, B = Guid(b"a" * 16), Guid(b"b" * 16)


@dataclasses.dataclass
class Clock:
    """A clock that is set by hand."""

    now: float = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


def test_a_file_is_pinned_while_anybody_holds_it() -> None:
    """Two requests for one file take its room once, and the later end counts."""
    clock = Clock()
    pins = Pins(100, clock)
    assert pins.hold(A, b"1", 60, until=10)
    assert pins.hold(A, b"2", 60, until=20)
    assert not pins.hold(B, b"1", 60)
    clock.now = 15
    assert pins.is_pinned(A)
    pins.drop(A, b"2")
    assert not pins.is_pinned(A)
    assert pins.hold(B, b"1", 60)


def test_what_is_over_makes_room() -> None:
    """Nobody has to ask for it first."""
    clock = Clock()
    pins = Pins(100, clock)
    assert pins.hold(A, b"1", 100, until=10)
    assert not pins.hold(B, b"2", 100)
    clock.now = 10
    assert pins.hold(B, b"2", 100)
    assert not pins.is_pinned(A)


def test_dropping_what_nobody_holds_is_harmless() -> None:
    """And frees nothing that another holds."""
    pins = Pins(100, Clock())
    pins.drop(A, b"1")
    assert pins.hold(A, b"1", 100)
    pins.drop(A, b"2")
    assert pins.is_pinned(A)
