"""To format 6: files and directories of older stores, which told when they were registered, get their images' times."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import msgspec

from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.directories import DirectoryTable
from mdmfs.hospital.catalogue.entries import Entry
from mdmfs.hospital.catalogue.feed import begin_anew
from mdmfs.hospital.catalogue.files import FileTable
from mdmfs.hospital.catalogue.records import FileRecord, Place
from mdmfs.hospital.catalogue.times import BEGINNING, another, time_within
from mdmfs.hospital.catalogue.tree import DirectoryTree
from mdmfs.hospital.ledger.outbox import Outbox
from mdmfs.hospital.ledger.records import METADATA
from mdmfs.hospital.rows import Stored, counted, number_key
from mdmfs.model.names import Lfn
from mdmfs.rows.port import Rows
from mdmfs.wire.messages.metadata import Parcel

AT_ONCE: Final = 5_000
"""Files or directories in one transaction."""
_IMAGES_IN_PARCEL: Final = 64
_FILES_DONE: Final = tables.COUNTERS + b"retimed files"
_DIRECTORIES_DONE: Final = tables.COUNTERS + b"retimed directories"
_PARCELS_DONE: Final = tables.COUNTERS + b"retimed parcels"
_ENTRIES: Final = Stored(Entry)


def tell_times_of_images(rows: Rows, at_once: int = AT_ONCE) -> bool:
    """Give some their times: the day in the name of their session, or 1980; True where there may be more.

    Files first; then directories, each after the one above it, which it makes as late as itself. Collections of users
    stay as they are. What waits for the metadata service tells no times any more. Mounts are made to look anew.
    """
    if any(retime(rows, at_once) for retime in (_retime_files, _retime_directories, _leave_times_out)):
        return True
    begin_anew(rows)
    for counter in (_FILES_DONE, _DIRECTORIES_DONE, _PARCELS_DONE):
        rows.delete(counter)
    return False


def _retime_files(rows: Rows, at_once: int) -> bool:
    directories = DirectoryTable(rows)
    files = FileTable(rows, directories)
    page = list(itertools.islice(files.from_inode(counted(rows, _FILES_DONE)), at_once))
    known: dict[int, float] = {}
    for file in page:
        modified = BEGINNING
        for place in file.places[:1]:
            if place.parent not in known:
                known[place.parent] = time_within(_lfn_of(directories, place.parent))
            modified = _retime_entry(rows, place, file, known[place.parent])
        files.put(msgspec.structs.replace(file, modified=modified))
    if page:
        rows.put(_FILES_DONE, number_key(page[-1].inode))
    return bool(page)


def _retime_entry(rows: Rows, place: Place, file: FileRecord, modified: float) -> float:
    """Give a file's name its time, and say which that is: another one, where the file is to take the name over."""
    before = _entry(rows, tables.ENTRIES, place)
    for table in (tables.ENTRIES, tables.RESERVATIONS):
        entry = _entry(rows, table, place)
        if entry is not None and entry.reference == file.guid.octets:
            if before is not None and before.is_file and before != entry:
                modified = another(modified, before.modified)
            rows.put(_key(table, place), _ENTRIES.encode(msgspec.structs.replace(entry, modified=modified)))
    return modified


def _retime_directories(rows: Rows, at_once: int) -> bool:
    tree = DirectoryTree(rows)
    page = list(itertools.islice(_directories_after(rows, counted(rows, _DIRECTORIES_DONE)), at_once))
    for inode in page:
        record = tree.directories.get(inode)
        if not record.maker:
            modified = time_within(_lfn_of(tree.directories, inode))
            tree.renew(msgspec.structs.replace(record, modified=modified))
            tree.advance(record.parent, modified)
    if page:
        rows.put(_DIRECTORIES_DONE, number_key(page[-1]))
    return bool(page)


def _directories_after(rows: Rows, inode: int) -> Iterator[int]:
    for key, _ in rows.scan(tables.DIRECTORIES, number_key(inode + 1)):
        yield int.from_bytes(key, "big")


def _leave_times_out(rows: Rows, at_once: int) -> bool:
    """Take the times out of what waits for the metadata service, which would refuse them."""
    outbox = Outbox(rows)
    page = outbox.peek(METADATA, limit=-(-at_once // _IMAGES_IN_PARCEL), after=counted(rows, _PARCELS_DONE))
    for item in page:
        if item.kind == Parcel.IMAGES:
            acls, message = msgspec.msgpack.decode(item.payload)
            images = [{key: value for key, value in one.items() if key != "registered"} for one in message["images"]]
            outbox.replace(item, msgspec.msgpack.encode([acls, message | {"images": images}]))
    if page:
        rows.put(_PARCELS_DONE, number_key(page[-1].number))
    return bool(page)


def _lfn_of(directories: DirectoryTable, inode: int) -> Lfn:
    return Lfn(tuple(record.name for record in directories.above(inode)[1:]))


def _entry(rows: Rows, table: bytes, place: Place) -> Entry | None:
    value = rows.get(_key(table, place))
    return None if value is None else _ENTRIES.decode(value)


def _key(table: bytes, place: Place) -> bytes:
    return table + number_key(place.parent) + place.name.encode()
