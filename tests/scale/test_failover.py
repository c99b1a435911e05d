"""A primary and its standby: who only reads follows that one; when the primary is lost, nothing is, and all goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mdmfs.keystore.row_shelf import shelf_layout
from mdmfs.rows.copied import Copied
from mdmfs.rows.following import Following
from tests.bench._failover import fail_over
from tests.twins.postgresql import Pair, emptied_of, running_pair

REGISTRATIONS = 100
KEY = b"k"
LOOKS = 100


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """One of both for all tests of this file, of which the last one kills the primary."""
    with running_pair() as one:
        yield one


async def test_a_hot_standby_is_followed_by_who_only_reads(pair: Pair, tmp_path: Path) -> None:
    """It takes no writes and rings for nobody, and what is committed is there at the next look."""
    layout = shelf_layout()
    first = Copied.open_url(tmp_path / "first", layout, pair.url)
    reader = Following(tmp_path / "reader", layout, pair.standby_url, takes_over=False)
    try:
        reader.step()
        for value in (b"1", b"2"):
            await first.write(lambda rows, value=value: rows.put(KEY + b"a", value))  # type: ignore[misc]
            await first.announce("here")
            for _ in range(LOOKS):
                reader.step()
                if reader.read(lambda rows: rows.get(KEY + b"a")) == value:
                    break
            assert reader.read(lambda rows: rows.get(KEY + b"a")) == value
            assert reader.announced() == "here"
    finally:
        reader.close()
        await first.aclose()
        emptied_of(pair.url)


def test_nothing_is_lost_and_nothing_twice_when_a_standby_is_promoted(pair: Pair) -> None:
    """A thousand in the bench ``postgresql``."""
    found = fail_over(pair, REGISTRATIONS)
    assert (found.acknowledged, found.registered) == (REGISTRATIONS, REGISTRATIONS)
    assert found.read >= REGISTRATIONS
