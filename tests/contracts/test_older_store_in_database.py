"""An older store in PostgreSQL is brought up as one in LMDB is: each part a commit, gone on from after a kill."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from mdmfs.daemon.formats import Format
from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.retiming import tell_times_of_images
from mdmfs.hospital.store import STORE_MARK, store_layout
from mdmfs.rows.copied import Copied
from mdmfs.rows.port import Rows
from tests.twins.older_store import older_store
from tests.twins.records import counting_random

Content = dict[bytes, bytes]
KEPT = [table for table in tables.ALL if table != tables.FORMAT]
"""What a store holds; the format's table tells of the copy, too."""


class KilledError(BaseException):
    """Nothing after this runs."""


def keep(_: Rows) -> None:
    """Take a step that changes nothing."""


def format_with(*last: functools.partial[bool]) -> Format[Rows]:
    """Give the format after four steps that change nothing, and the last one, if any."""
    return Format("hospital's store", keep, keep, keep, keep, *last)


def content_of(rows: Rows) -> Content:
    """Read all tables, and the mark of the format."""
    found = {table + key: value for table in KEPT for key, value in rows.scan(table)}
    return found | {STORE_MARK: rows.get(STORE_MARK) or b""}


def expected() -> Content:
    """Bring a store up in memory."""
    rows = older_store()
    while tell_times_of_images(rows):
        pass
    rows.put(STORE_MARK, format_with(keep).mark)
    return content_of(rows)


def opened(path: Path, url: str, store_format: Format[Rows]) -> Copied:
    """Open the store with a format."""
    return Copied.open_url(path, store_layout(counting_random(), store_format), url, map_size=2**28)


async def write_older(path: Path, url: str) -> None:
    """Have a database with a store of format 5."""
    before = older_store()
    engine = opened(path, url, format_with())

    def fill(rows: Rows) -> None:
        for table in KEPT:
            for key in [key for key, _ in rows.scan(table)]:
                rows.delete(table + key)
            for key, value in before.scan(table):
                rows.put(table + key, value)

    await engine.write(fill)
    await engine.aclose()


@pytest.mark.parametrize("at_once", [1, 3, 1000])
async def test_a_store_of_format_5_in_a_database_gets_the_times_of_its_images(
    tmp_path: Path, database_url: str, at_once: int
) -> None:
    """Row for row as in memory; and a daemon on another machine, without a copy yet, finds the same."""
    await write_older(tmp_path / "store", database_url)
    step = functools.partial(tell_times_of_images, at_once=at_once)
    for machine in ("store", "another"):
        engine = opened(tmp_path / machine, database_url, format_with(step))
        assert engine.read(content_of) == expected()
        await engine.aclose()


async def test_a_step_that_was_killed_after_each_part_is_gone_on_from_by_another_machine(
    tmp_path: Path, database_url: str
) -> None:
    """What is in the database tells how far it is, not the copy."""
    await write_older(tmp_path / "0", database_url)
    machine, is_left = 0, True
    while is_left:
        machine += 1
        parts = 0

        def one_part(rows: Rows) -> bool:
            nonlocal parts
            parts += 1
            if parts > 1:
                raise KilledError
            return tell_times_of_images(rows, 2)

        try:
            engine = opened(tmp_path / str(machine), database_url, format_with(functools.partial(one_part)))
        except KilledError:
            continue
        is_left = False
        assert engine.read(content_of) == expected()
        await engine.aclose()
    assert machine > 5
