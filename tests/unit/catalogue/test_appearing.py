"""A series appears by its directory's row: what that writes, and what a store from before that becomes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.records import FileState, Totals
from mdmfs.hospital.rows import number_key
from mdmfs.hospital.store import STORE_FORMAT, Transaction
from mdmfs.rows.copied import RecordedRows
from mdmfs.rows.port import Rows
from tests.twins.records import OWNER_ONLY, SERIES_LFN, counting_random, guid_of, new_file
from tests.twins.store import MemoryRows, Table

FILE, NEW_FILE = 2, 4
"""Kinds of entries: seen by itself, and seen with its directory."""


def seen_in(rows: Rows) -> Transaction:
    """See rows as a store does, which remembers nothing of the transaction before."""
    return Transaction(rows, random=counting_random())


@pytest.fixture(name="rows")
def empty_store() -> MemoryRows:
    """Begin a namespace in which nothing is."""
    rows = MemoryRows(Table(), is_writing=True)
    act(rows, lambda tx: tx.catalogue.make_root())
    return rows


def act(rows: Rows, change: Callable[[Transaction], object]) -> None:
    """Change something in a transaction of its own."""
    tx = seen_in(rows)
    change(tx)
    tx.finish()


def register(rows: Rows, *numbers: int) -> None:
    """Register files of one series."""

    def add(tx: Transaction) -> None:
        tx.catalogue.make_directories(SERIES_LFN, acl=OWNER_ONLY)
        for number in numbers:
            tx.catalogue.add_file(SERIES_LFN / f"{number:05}.dcm", new_file(number))

    act(rows, add)


@pytest.mark.parametrize("count", [1, 300])
def test_what_is_written_when_a_series_appears_does_not_grow_with_it(rows: MemoryRows, count: int) -> None:
    """The directories, their names, the feed and the totals."""
    register(rows, *range(count))
    changes: dict[bytes, bytes | None] = {}
    act(RecordedRows(rows, changes), lambda tx: tx.catalogue.show_all(SERIES_LFN))
    assert seen_in(rows).catalogue.totals() == Totals(count, 1000 * count)
    assert len(changes) == 21
    assert sum(len(key) + len(value or b"") for key, value in changes.items()) < 1100


def test_what_is_taken_away_reads_nothing_above_the_directory_before_the_one_that_stays(rows: MemoryRows) -> None:
    """No time changes, so there is nothing to tell further up."""
    register(rows, 1, 2)
    act(rows, lambda tx: tx.catalogue.show_all(SERIES_LFN))
    series = seen_in(rows).catalogue.look_up(SERIES_LFN)
    assert series is not None
    for record in seen_in(rows).catalogue.directories_above(series.inode)[:-1]:
        rows.put(tables.DIRECTORIES + number_key(record.inode), b"damaged")
    act(rows, lambda tx: tx.catalogue.withdraw([guid_of(1)]))
    assert seen_in(rows).catalogue.totals() == Totals(1, 1000)


def as_before(rows: Rows) -> None:
    """Write the rows as a program of format 3 would have: names of pending files reserved, ACL ids with each file."""
    shared = {record.inode: record.acl for record in seen_in(rows).catalogue.files()}
    changed: dict[bytes, bytes | None] = {}
    for key, value in rows.scan(tables.ENTRIES):
        entry = msgspec.msgpack.decode(value[1:])
        if entry[0] == NEW_FILE:
            changed[tables.ENTRIES + key] = None
            changed[tables.RESERVATIONS + key] = value[:1] + msgspec.msgpack.encode([FILE, *entry[1:]])
    for key, value in rows.scan(tables.DIRECTORIES):
        changed[tables.DIRECTORIES + key] = value[:1] + msgspec.msgpack.encode(msgspec.msgpack.decode(value[1:])[:-1])
    for key, value in rows.scan(tables.FILES):
        fields = msgspec.msgpack.decode(value[1:])
        fields[2] = shared[int.from_bytes(key)]
        changed[tables.FILES + key] = value[:1] + msgspec.msgpack.encode(fields)
    for key, _ in rows.scan(tables.PENDING):
        changed[tables.PENDING + key] = None
    for key, value in changed.items():
        if value is None:
            rows.delete(key)
        else:
            rows.put(key, value)


def test_what_was_pending_before_appears_with_what_is_registered_after(rows: MemoryRows) -> None:
    """A series that was under way when the program was replaced; what was seen before is, and each has its ACL."""
    register(rows, 1, 2)
    act(rows, lambda tx: tx.catalogue.show([guid_of(1), guid_of(2)]))
    register(rows, 3, 4)
    before = seen_in(rows).catalogue.files()
    as_before(rows)
    assert list(rows.scan(tables.RESERVATIONS + bytes(7)))
    assert not list(rows.scan(tables.PENDING))
    assert STORE_FORMAT.advance(b"3", rows, "a store") == b"4"
    assert seen_in(rows).catalogue.files() == before
    register(rows, 5)
    act(rows, lambda tx: tx.catalogue.quarantine([guid_of(4)]))
    act(rows, lambda tx: tx.catalogue.show_all(SERIES_LFN))
    catalogue = seen_in(rows).catalogue
    node = catalogue.look_up(SERIES_LFN)
    assert node is not None
    assert [int(it.name[:5]) for it in catalogue.list_page(node.inode).nodes] == [1, 2, 3, 5]
    assert [file.state for file in catalogue.files()] == [
        FileState.VISIBLE, FileState.VISIBLE, FileState.VISIBLE, FileState.QUARANTINED, FileState.VISIBLE
    ]  # fmt: skip
    assert {file.acl for file in catalogue.files()} == {before[0].acl}
    assert catalogue.totals() == Totals(4, 4000)
