"""A hospital's store of format 5, whose files and directories told when they were registered, for what brings it up."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.records import DirectoryRecord
from mdmfs.hospital.ledger.records import METADATA
from mdmfs.hospital.store import Transaction
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.metadata import Parcel
from tests.twins.records import NOW, OWNER_ONLY, counting_random, guid_of, new_file
from tests.twins.store import MemoryRows, Table

PROJECT = Lfn.parse("/grid/medical/amc/neuro")
FIRST, SECOND = PROJECT / "sub-a" / "ses-20180312" / "003-MR", PROJECT / "sub-a" / "ses-20190401" / "004-CT"
UNDATED = PROJECT / "sub-b" / "ses-nqz5uwkd" / "001-MR"
ALBUM = PROJECT / "album"
MADE = NOW + 0.25
"""When a user made his collection."""


def act(rows: MemoryRows, change: Callable[[Transaction], object]) -> None:
    """Change something in a transaction of its own."""
    tx = Transaction(rows, random=counting_random())
    change(tx)
    tx.finish()


def add(tx: Transaction, series: Lfn, *numbers: int) -> None:
    """Register files, with the clock's time."""
    tx.catalogue.make_directories(series)
    for number in numbers:
        tx.catalogue.add_file(series / f"{number:04}.dcm", new_file(number))


def fill(tx: Transaction) -> None:
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


def take_over(tx: Transaction) -> None:
    """Render one anew that was shown so, and begin with another."""
    tx.catalogue.add_file(FIRST / "0001.dcm", new_file(11), takes_over=guid_of(1))
    tx.catalogue.show([guid_of(11)])
    tx.catalogue.add_file(FIRST / "0002.dcm", new_file(12), takes_over=guid_of(2))


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
