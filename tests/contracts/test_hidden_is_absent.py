"""Whoever may not read something cannot tell it from nothing, whatever he asks the metadata service and however often.

Two services say the same of what the caller may read, and of all else something different; each answer and each error
must be the same, to the last byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mdmfs.metadata.store.database import Database, open_database
from tests.twins.hidden_check import hold_alike
from tests.twins.postgresql import new_database

ROUNDS = 8


@pytest.fixture(params=["sqlite", "postgresql"])
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Database]]:
    """Give two empty ones of a kind."""
    if request.param == "sqlite":
        yield from _opened(str(tmp_path / "one" / "metadata.sqlite"), str(tmp_path / "other" / "metadata.sqlite"))
    else:
        server = request.getfixturevalue("postgresql_server")
        with new_database(server) as one, new_database(server) as other:
            yield from _opened(one, other)


def _opened(*places: str) -> Iterator[list[Database]]:
    opened = [open_database(place) for place in places]
    yield opened
    for database in opened:
        database.close()


@pytest.mark.parametrize("seed", range(2))
def test_what_may_not_be_read_changes_no_answer(databases: list[Database], seed: int) -> None:
    """A hundredth of what ``./run bench rights`` does."""
    assert hold_alike(databases, f"hidden/{seed}", ROUNDS) > ROUNDS
