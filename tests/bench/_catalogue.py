"""A hospital's store with as many files as one likes, registered through its ports: series of two hundred slices."""

from __future__ import annotations

import gc
import itertools
import os
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import lmdb

from mdmfs.access import acl
from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.entries import Entry
from mdmfs.hospital.catalogue.records import NewFile, Rendition
from mdmfs.hospital.catalogue.totals import TotalsChange, TotalsTable
from mdmfs.hospital.catalogue.tree import DirectoryTree
from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.hospital.rows import Stored, add_to, digest_key, number_key
from mdmfs.hospital.store import Transaction, store_layout
from mdmfs.hospital.uidmap.instances import pack_uid
from mdmfs.hospital.uidmap.records import InstanceRecord
from mdmfs.model.names import Guid, Lfn
from mdmfs.model.subject import SubjectId
from mdmfs.rows.embedded import LmdbRows
from mdmfs.rows.environment import MAP_SIZE, MAX_TABLES

SERIES: Final = 200
"""Slices of a series."""
BATCH: Final = 5
"""Series of one commit."""
PER_SUBJECT: Final = 10
"""Series of a subject, each in a session of its own."""
SLICE: Final = 526_336
TOP: Final = Lfn.parse("/grid/medical/amc/neuro")
_READ: Final = (acl.Right.READ | acl.Right.TRAVERSE).value
_ENTRIES: Final = tuple(
    acl.Entry(*who, _READ) for who in ((acl.EntryKind.OWNER, ""), (acl.EntryKind.USER, "/DC=org/CN=reader"))
)
ACL: Final = acl.Acl("/DC=org/DC=example/CN=The one who owns this", _ENTRIES, _ENTRIES)
ROOT: Final = "1.3.6.1.4.1.14519.5.2.1"
POLICY: Final = bytes(range(32))
LAID: Final = 250
"""Series of one transaction of ``lay``."""
SPREAD: Final = 2_500_000
"""Rows of a table whose keys come in random order that are written at once: nearly every page changes."""
_OF_FILES: Final = (
    tables.FILES,
    tables.INODES_OF_GUIDS,
    tables.ENTRIES,
    tables.INSTANCES,
    tables.PLACES_OF_GUIDS,
    tables.GUIDS_OF_INSTANCE,
)
_ENTRIES_OF_FILES: Final = Stored(Entry)


class Series(NamedTuple):
    """What a batch of registration hands to the store: all that is random in it is drawn beforehand."""

    lfn: Lfn
    files: list[tuple[Lfn, NewFile, InstanceRecord]]
    modified: float


def series(number: int, files: int = SERIES) -> Series:
    """Make a series, or its first files; the same for the same number."""
    dice = random.Random(number)  # noqa: S311 the same in each run
    whose = (
        SubjectId.from_random(random.Random(number // PER_SUBJECT).randbytes(10)),  # noqa: S311 as above
        _uid(dice.getrandbits(128)),
        _uid(dice.getrandbits(128)),
    )
    lfn, now = lfn_of(number), 1_700_000_000.0 + number + dice.random()
    return Series(lfn, [_file(dice, lfn, nth, now, whose) for nth in range(1, files + 1)], now)


def lfn_of(number: int) -> Lfn:
    """Name the directory of a series."""
    subject = SubjectId.from_random(random.Random(number // PER_SUBJECT).randbytes(10))  # noqa: S311 as above
    return TOP / str(subject) / f"ses-2018{number % 12 + 1:02}{number // 12 % 28 + 1:02}" / f"{number:06}-MR"


def _file(
    dice: random.Random, lfn: Lfn, nth: int, now: float, whose: tuple[SubjectId, str, str]
) -> tuple[Lfn, NewFile, InstanceRecord]:
    subject, study, own = whose
    digest = dice.randbytes(32)
    rendition = Rendition(
        SLICE + dice.randrange(99), 2000 + dice.randrange(99), digest, dice.randbytes(32), digest, POLICY, 6,
        "1.2.840.10008.1.2.1",
    )  # fmt: skip
    file = NewFile(Guid.from_random(dice.randbytes(16)), "neuro", rendition, 2, now, dice.randbytes(16))
    instance = InstanceRecord(
        "neuro", subject, "PACS", study, own, _uid(dice.getrandbits(128)), "1.2.840.10008.5.1.4.1.1.4",
        "1.2.840.10008.1.2.1",
    )  # fmt: skip
    return lfn / f"{nth:04}.dcm", file, instance


def _uid(number: int) -> str:
    return f"{ROOT}.{number:039}"


def register(tx: Transaction, batch: list[Series]) -> None:
    """Register series as PENDING, as registration does."""
    for one in batch:
        tx.catalogue.make_directories(one.lfn, acl=ACL)
        for lfn, file, instance in one.files:
            tx.catalogue.add_file(lfn, file)
            tx.uidmap.tie(file.guid, instance)


def show(tx: Transaction, batch: list[Series]) -> None:
    """Let them be seen: each a change of its own."""
    for one in batch:
        tx.catalogue.show_all(one.lfn)


async def fill(store: LmdbStore, numbers: range) -> float:
    """Register the series of these numbers; give the seconds that the store took for it."""
    took = 0.0
    for start in range(numbers.start, numbers.stop, BATCH):
        batch = [series(number) for number in range(start, min(start + BATCH, numbers.stop))]
        begun = time.perf_counter()
        await store.write(lambda tx, batch=batch: register(tx, batch))
        await store.write(lambda tx, batch=batch: show(tx, batch))
        took += time.perf_counter() - begun
    return took


def lay(path: Path, numbers: range) -> None:
    """Write the rows that ``fill`` would have written, into a store that nobody has open, ten times as fast.

    The first file of each series goes through the ports; the rows of the others are made after its rows.
    """
    with lmdb.open(str(path), map_size=MAP_SIZE, max_dbs=MAX_TABLES, sync=False) as env:
        layout, databases = store_layout(), {name[0]: env.open_db(name) for name in tables.ALL}
        gc.disable()  # it would look at millions of rows again and again
        kept: dict[bytes, list[tuple[bytes, bytes]]] = {name: [] for name in _OF_FILES}
        for start in range(numbers.start, numbers.stop, LAID):
            with env.begin(write=True) as txn:
                rows = LmdbRows(txn, databases, layout)
                for number in range(start, min(start + LAID, numbers.stop)):
                    _lay_series(Transaction(rows, random=os.urandom), rows, series(number, 1), kept)
                is_last = start + LAID >= numbers.stop
                for name, pairs in kept.items():
                    if name in tables.ASCENDING or len(pairs) >= SPREAD or is_last:
                        pairs.sort()
                        txn.cursor(databases[name[0]]).putmulti(pairs)
                        pairs.clear()
        gc.enable()
        env.sync(True)  # noqa: FBT003 the name of LMDB's own argument is "force"


def _lay_series(tx: Transaction, rows: LmdbRows, one: Series, laid: dict[bytes, list[tuple[bytes, bytes]]]) -> None:
    register(tx, [one])
    show(tx, [one])
    tx.finish()
    _, file, instance = one.files[0]
    parent = tx.catalogue.look_up(one.lfn)
    assert parent is not None
    more = SERIES - 1
    inode = add_to(rows, tables.COUNTERS + b"inode", more) - more
    number = add_to(rows, tables.COUNTERS + b"instance", more) - more
    place = rows.get(tables.PLACES_OF_GUIDS + file.guid.octets) or b""
    own = (file.guid.octets, file.key_check, b"0001.dcm", file.rendition.sha256, file.rendition.header_sha256)
    record = _around(rows.get(tables.FILES + number_key(inode)), own)
    tied = _around(rows.get(tables.INSTANCES + place), (file.guid.octets, pack_uid(instance.instance_uid)))
    octets = os.urandom(96 * more)
    for nth in range(1, SERIES):
        drawn = octets[96 * nth - 96 : 96 * nth]
        guid, name, uid = drawn[:16], b"%04d.dcm" % (nth + 1), _uid(int.from_bytes(drawn[:16]))
        here = place[:4] + number_key(number + nth)
        entry = Entry.of_file(inode + nth, file.rendition.size, one.modified, guid, is_new=True)
        laid[tables.FILES].append(
            (number_key(inode + nth), _filled(record, (guid, drawn[16:32], name, drawn[32:64], drawn[64:])))
        )
        laid[tables.INODES_OF_GUIDS].append((guid, number_key(inode + nth)))
        laid[tables.ENTRIES].append((number_key(parent.inode) + name, _ENTRIES_OF_FILES.encode(entry)))
        laid[tables.INSTANCES].append((here, _filled(tied, (guid, pack_uid(uid)))))
        laid[tables.PLACES_OF_GUIDS].append((guid, here))
        laid[tables.GUIDS_OF_INSTANCE].append((digest_key("neuro", uid), guid))
    tree = DirectoryTree(rows)
    tree.show_all(parent.inode)  # after the inode numbers of the others were given
    tree.settle(parent.inode, more, latest=one.modified)
    change = TotalsChange()
    change.files["neuro"], change.octets["neuro"] = more, more * file.rendition.size
    TotalsTable(rows).add(change)


def _around(row: bytes | None, parts: Sequence[bytes]) -> list[bytes]:
    """Give what stands before, between and after some parts of a row."""
    pieces, rest = [], row or b""
    for part in parts:
        before, found, rest = rest.partition(part)
        assert found
        pieces.append(before)
    return [*pieces, rest]


def _filled(pieces: Sequence[bytes], parts: Sequence[bytes]) -> bytes:
    return b"".join(itertools.chain.from_iterable(zip(pieces, (*parts, b""), strict=True)))


def rows_of(path: Path) -> Iterator[tuple[bytes, int, int, int]]:
    """Give of each table its name, rows, octets of keys and values, and octets of pages."""
    with (
        lmdb.open(str(path), map_size=MAP_SIZE, max_dbs=MAX_TABLES, readonly=True) as env,
        env.begin() as txn,
    ):
        for name in txn.cursor().iternext(keys=True, values=False):
            database = env.open_db(name, txn=txn, create=False)
            told = txn.stat(database)
            pages = told["branch_pages"] + told["leaf_pages"] + told["overflow_pages"]
            octets = sum(len(key) + len(value) for key, value in txn.cursor(database))
            yield name, told["entries"], octets, pages * told["psize"]
