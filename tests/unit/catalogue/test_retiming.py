"""What a store becomes whose files and directories told when they were registered."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.records import ROOT_INODE, DirectoryRecord, FileState
from mdmfs.hospital.catalogue.retiming import tell_times_of_images
from mdmfs.hospital.catalogue.times import BEGINNING, time_of
from mdmfs.hospital.ledger.records import METADATA, OutboxSize
from mdmfs.hospital.transaction import STORE_FORMAT, RowsTransaction
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.metadata import Parcel, PutImages
from tests.twins.records import NOW, OWNER_ONLY, counting_random, guid_of, new_file
from tests.twins.store import MemoryRows, Table

PROJECT = Lfn.parse("/grid/medical/amc/neuro")
FIRST, SECOND = PROJECT / "sub-a" / "ses-20180312" / "003-MR", PROJECT / "sub-a" / "ses-20190401" / "004-CT"
UNDATED = PROJECT / "sub-b" / "ses-nqz5uwkd" / "001-MR"
ALBUM = PROJECT / "album"
MADE = NOW + 0.25
"""When a user made his collection."""


def act(rows: MemoryRows, change: Callable[[RowsTransaction], object]) -> None:
    """Change something in a transaction of its own."""
    tx = RowsTransaction(rows, random=counting_random())
    change(tx)
    tx.finish()


def seen_in(rows: MemoryRows) -> RowsTransaction:
    """See rows as a store does, which remembers nothing of the transaction before."""
    return RowsTransaction(rows, random=counting_random())


def add(tx: RowsTransaction, series: Lfn, *numbers: int) -> None:
    """Register files, with the clock's time."""
    tx.catalogue.make_directories(series)
    for number in numbers:
        tx.catalogue.add_file(series / f"{number:04}.dcm", new_file(number))


def fill(tx: RowsTransaction) -> None:
    """Have series that show, one that is put away, one under way, a collection, and what waits for the service."""
    tx.catalogue.make_root()
    tx.catalogue.make_directories(PROJECT, acl=OWNER_ONLY)
    for series, numbers in ((FIRST, (1, 2, 3)), (SECOND, (4, 5)), (UNDATED, (6,))):
        add(tx, series, *numbers)
        tx.catalogue.show_all(series)
    tx.catalogue.quarantine([guid_of(4)])
    tx.catalogue.withdraw([guid_of(5)])
    add(tx, SECOND, 7)
    tx.names.make_collection(ALBUM, OWNER_ONLY, "/O=x/CN=maker", now=MADE)
    tx.outbox.push("key1", "deposit", b"", b"a share, sealed")
    image = {"guid": guid_of(1).octets, "name": "0001.dcm", "inode": 9, "size": 1, "sha256": b"", "policy": b""}
    image |= {"registered": NOW, "acl_ids": [], "attributes": {}}
    parcel = [[], {"series": {"path": str(FIRST), "acl_ids": [], "attributes": {}}, "images": [image]}]
    for kind, payload in ((Parcel.IMAGES, parcel), (Parcel.SHOW, [[], {"path": str(FIRST)}]), (Parcel.IMAGES, parcel)):
        tx.outbox.push(METADATA, kind.value, b"", msgspec.msgpack.encode(payload))


def take_over(tx: RowsTransaction) -> None:
    """Render one anew that was shown so, and begin with another."""
    tx.catalogue.add_file(FIRST / "0001.dcm", new_file(11), takes_over=guid_of(1))
    tx.catalogue.show([guid_of(11)])
    tx.catalogue.add_file(FIRST / "0002.dcm", new_file(12), takes_over=guid_of(2))


@pytest.fixture(name="rows")
def older_store() -> MemoryRows:
    """Write what a program of format 5 would have: the clock's time, everywhere."""
    rows = MemoryRows(Table(), is_writing=True)
    act(rows, fill)
    act(rows, take_over)
    for key, value in list(rows.scan(tables.DIRECTORIES)):
        record = msgspec.msgpack.decode(value[1:], type=DirectoryRecord)
        old = msgspec.structs.replace(record, modified=NOW + 50)
        rows.put(tables.DIRECTORIES + key, value[:1] + msgspec.msgpack.encode(old))
        for table in (tables.ENTRIES, tables.RESERVATIONS):
            place = table + record.parent.to_bytes(8) + record.name.encode()
            entry = rows.get(place)
            if entry is not None:
                fields = msgspec.msgpack.decode(entry[1:])
                rows.put(
                    place,
                    entry[:1] + msgspec.msgpack.encode([*fields[:3], MADE if record.maker else NOW + 50, *fields[4:]]),
                )
        if record.maker:
            rows.put(tables.DIRECTORIES + key, value)
    for key, value in list(rows.scan(tables.PENDING)):
        rows.put(tables.PENDING + key, value[:1] + msgspec.msgpack.encode(msgspec.msgpack.decode(value[1:])[:1]))
    return rows


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
    before = seen_in(rows).catalogue.version()
    bring_up(rows, 1000)
    told = seen_in(rows).catalogue.changes(before)
    assert (told.version, told.is_reset) == (before + 1, True)


def test_a_step_that_is_done_in_part_keeps_the_format(rows: MemoryRows) -> None:
    """So a kill in the middle is gone on from; nothing is left of the count in the end."""
    counters = {key for key, _ in rows.scan(tables.COUNTERS)}
    mark: bytes | None = b"5"
    seen = []
    while mark is not None and len(seen) < 9:
        seen.append(mark)
        mark = STORE_FORMAT.advance(mark, rows, "a store")
    assert seen == [b"5", b"5", b"5", b"5", b"6"]
    assert {key for key, _ in rows.scan(tables.COUNTERS)} == counters


def test_an_empty_store_has_a_root_of_1980(rows: MemoryRows) -> None:
    """As a new one has."""
    empty = MemoryRows(Table(), is_writing=True)
    act(empty, lambda tx: tx.catalogue.make_root())
    assert rows.get(tables.DIRECTORIES + ROOT_INODE.to_bytes(8)) is not None
    bring_up(empty, 5)
    assert modified(empty, Lfn(())) == BEGINNING
