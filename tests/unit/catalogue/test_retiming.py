"""What a store becomes whose files and directories told when they were registered."""

from __future__ import annotations

import msgspec
import pytest

from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.records import ROOT_INODE, FileState
from mdmfs.hospital.catalogue.retiming import tell_times_of_images
from mdmfs.hospital.catalogue.times import BEGINNING, time_of
from mdmfs.hospital.ledger.records import METADATA, OutboxSize
from mdmfs.hospital.store import STORE_FORMAT, Transaction
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.metadata import Parcel, PutImages
from tests.twins.older_store import ALBUM, FIRST, MADE, PROJECT, SECOND, UNDATED, act, older_store
from tests.twins.records import counting_random, guid_of
from tests.twins.store import MemoryRows, Table


def seen_in(rows: MemoryRows) -> Transaction:
    """See rows as a store does, which remembers nothing of the transaction before."""
    return Transaction(rows, random=counting_random())


@pytest.fixture(name="rows")
def rows_of_format_5() -> MemoryRows:
    """Give what a program of format 5 has written."""
    return older_store()


def bring_up(rows: MemoryRows, at_once: int) -> None:
    """Take the step, some rows at a time."""
    while tell_times_of_images(rows, at_once):
        pass


def modified(rows: MemoryRows, lfn: Lfn) -> float | None:
    """Give the time that a name shows."""
    node = seen_in(rows).catalogue.look_up(lfn)
    return None if node is None else node.modified


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_files_and_directories_get_the_times_of_their_images(rows: MemoryRows, at_once: int) -> None:
    """Directories the latest below them, collections what they had; in parts as at once."""
    bring_up(rows, at_once)
    first, second = time_of("20180312"), time_of("20190401")
    act(rows, lambda tx: tx.catalogue.show([guid_of(4)]))
    act(rows, lambda tx: tx.catalogue.show_all(SECOND))
    for place in (FIRST, FIRST.parent, *(FIRST / f"{number:04}.dcm" for number in (1, 2, 3))):
        assert modified(rows, place) == first
    for place in (SECOND, SECOND.parent, SECOND.parent.parent, PROJECT, PROJECT.parent, Lfn(())):
        assert modified(rows, place) == second
    for place in (SECOND / "0004.dcm", SECOND / "0007.dcm"):
        assert modified(rows, place) == second
    for place in (UNDATED, UNDATED.parent, UNDATED.parent.parent, UNDATED / "0006.dcm"):
        assert modified(rows, place) == BEGINNING
    assert modified(rows, ALBUM) == MADE


def test_no_row_tells_the_clock_any_more(rows: MemoryRows) -> None:
    """Of files in all states, of names and reservations, of directories; only the collection has its maker's time."""
    bring_up(rows, 2)
    catalogue = seen_in(rows).catalogue
    files = catalogue.files()
    assert {file.state for file in files} == set(FileState)
    told = {file.modified for file in files}
    for table in (tables.ENTRIES, tables.RESERVATIONS):
        told |= {msgspec.msgpack.decode(value[1:])[3] for _, value in rows.scan(table)}
    told |= {msgspec.msgpack.decode(value[1:])[5] for _, value in rows.scan(tables.DIRECTORIES)}
    dates = {time_of("20180312"), time_of("20180312") + 1, time_of("20190401"), BEGINNING}
    assert told == {*dates, MADE}


def test_what_is_to_take_over_a_name_has_another_time(rows: MemoryRows) -> None:
    """As if it had been begun with by this program."""
    bring_up(rows, 1)
    act(rows, lambda tx: tx.catalogue.show([guid_of(12)]))
    assert modified(rows, FIRST / "0002.dcm") == time_of("20180312") + 1


def test_what_waits_for_the_metadata_service_is_what_it_takes(rows: MemoryRows) -> None:
    """Its queue is as long as it was, and its bytes are counted as they are; that of a keystore is not touched."""
    before = seen_in(rows).outbox.peek("key1", limit=9)
    bring_up(rows, 1)
    outbox = seen_in(rows).outbox
    waiting = outbox.peek(METADATA, limit=9)
    assert [item.kind for item in waiting] == [Parcel.IMAGES, Parcel.SHOW, Parcel.IMAGES]
    for item in (waiting[0], waiting[2]):
        _, message = msgspec.msgpack.decode(item.payload)
        assert [image.name for image in msgspec.convert(message, PutImages).images] == ["0001.dcm"]
    assert outbox.peek("key1", limit=9) == before
    assert outbox.size() == OutboxSize(4, sum(len(item.payload) for item in [*waiting, *before]))


def test_who_follows_the_feed_begins_anew(rows: MemoryRows) -> None:
    """What it was told of times is no longer so."""
    before = seen_in(rows).feed.version()
    bring_up(rows, 1000)
    told = seen_in(rows).feed.since(before)
    assert (told.version, told.is_reset) == (before + 1, True)


def test_a_step_that_is_done_in_part_keeps_the_format(rows: MemoryRows) -> None:
    """So a kill in the middle is gone on from; nothing is left of the count in the end."""
    counters = {key for key, _ in rows.scan(tables.COUNTERS)}
    mark: bytes | None = b"5"
    seen = list[bytes]()
    while mark == b"5" and len(seen) < 9:
        seen.append(mark)
        mark = STORE_FORMAT.advance(mark, rows, "a store")
    assert (len(seen), mark) == (4, b"6")
    assert {key for key, _ in rows.scan(tables.COUNTERS)} == counters


def test_an_empty_store_has_a_root_of_1980(rows: MemoryRows) -> None:
    """As a new one has."""
    empty = MemoryRows(Table(), is_writing=True)
    act(empty, lambda tx: tx.catalogue.make_root())
    assert rows.get(tables.DIRECTORIES + ROOT_INODE.to_bytes(8)) is not None
    bring_up(empty, 5)
    assert modified(empty, Lfn(())) == BEGINNING
