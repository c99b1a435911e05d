"""A multi-frame object of 2 GiB through the mount: the first byte beside the last one, and how much memory it takes.

There is no peer: pynetdicom's C-GET gives up on an object that takes this long. All of it passes a relay of ours, which
counts what has left the PACS, and lengthens both times.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from mdmfs.demo.site import READER
from tests.bench._chain import timed
from tests.bench._frame import Bench, Measured
from tests.bench._long_object import LongObject, long_object

FRAMES = 256
MOST_RESIDENT = 300 * 2**20


def measure() -> Measured:
    """Compare the time to the first byte with the time that all of them take."""
    with tempfile.TemporaryDirectory() as folder, long_object(Path(folder), FRAMES) as long:
        first = long.read_first_byte()
        assert first.sent < long.pixels, "the PACS had sent all of it before the first byte came"
        whole = timed(long.read_all)
        resident = {name: long.resident(name) for name in ("hospital", f"mount-{READER}")}
        assert max(resident.values()) <= MOST_RESIDENT, resident
        _refuse_altered(long)
    rows = [
        ("first byte", f"{first.seconds:.2f} s, {first.sent / 2**20:.0f} MiB had left the PACS"),
        ("the rest of it", f"{whole:.1f} s"),
        *((f"most in memory, {name}", f"{most / 2**20:.0f} MiB") for name, most in resident.items()),
        ("altered in its last byte", "EIO, nothing kept"),
    ]
    return Measured(("2 GiB in 256 frames", ""), rows, first.seconds / (first.seconds + whole))


def _refuse_altered(long: LongObject) -> None:
    long.alter_near_the_end()
    long.forget()
    with pytest.raises(OSError, match="Input/output"):
        long.read_all()
    assert (long.staged(), long.cached()) == ([], [])


BENCH = Bench(measure, bar=0.1, at_most=True)
