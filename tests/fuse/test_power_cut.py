"""What is said to be durable outlives a power cut.

On a disk that keeps names of synced directories only, and on one that keeps all names; both keep synced contents only.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

import msgspec
import pytest

from mdmfs.daemon.backup import back_up
from mdmfs.demo.site import Site, make_site
from mdmfs.hospital import backup as hospital_backup
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.ledger.records import Notice
from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.hospital.opening import KEYS
from mdmfs.hospital.secret import own_secret
from mdmfs.journal.durable import sync_directory
from mdmfs.keystore.backup import back_up as back_up_shelf
from mdmfs.keystore.backup import restore as restore_shelf
from mdmfs.keystore.row_shelf import shelf_layout
from mdmfs.metadata import backup as metadata_backup
from mdmfs.metadata.configuration import MetadataConfiguration
from mdmfs.metadata.store.about import know_epoch, known_epoch
from mdmfs.metadata.store.database import open_database
from mdmfs.rows.copied import load
from mdmfs.rows.database import Database
from mdmfs.rows.embedded import Embedded
from mdmfs.rows.environment import copied_of
from mdmfs.wire.currency import KnownEpoch
from tests.twins.deidentified import example
from tests.twins.hospital import TwinHospital
from tests.twins.octets import octets
from tests.twins.power_cut import UnsyncedDisk, unsynced_disk
from tests.unit.cli.test_cli_deidentify import run
from tests.unit.cli.test_cli_unseal import NAME, unsealed
from tests.unit.kept.test_audit import faults, lines, record, writing
from tests.unit.keystore.test_backup import DAYS, GUIDS, NOW, P256, certify, fill, held

KEPT: Final = [False] + [True] * (len(GUIDS) - 1)
"""Which keys ``fill`` leaves."""
OCTETS: Final = octets(3 * 2**20, "part")
LAYOUT: Final = shelf_layout()
ROW: Final = (b"kkey", b"value")


class DatabaseOfOne:
    """A database of one row."""

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        """Give it, and in which format it is."""
        yield LAYOUT.mark, LAYOUT.format.mark
        yield ROW


def site_in(folder: Path) -> Site:
    """Make configurations."""
    return make_site(folder / "state", pacs="", inclusion=None, deadline=5.0)


def notice(number: int) -> Notice:
    """Make a notice of an instance."""
    return Notice("main", "1.2.3", "1.2.3.4", f"1.2.3.4.{number}", "1.2.840.10008.5.1.4.1.1.2", NOW)


OCTETS = octets(3 * 2**20, "part")


@pytest.fixture(params=[False, True], ids=["names lost", "names kept"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UnsyncedDisk]:
    """Mount a disk, which loses or keeps names that nobody synced."""
    with unsynced_disk(tmp_path, keeps_names=request.param) as mounted:
        yield mounted


async def test_a_record_of_the_audit_log(disk: UnsyncedDisk) -> None:
    """Also where a new file was begun for it; and so does the key that its checkpoints are signed with."""
    async with writing(disk.path / "audit.jsonl", file_bytes=500) as audit:
        for count in range(1, 12):
            await audit.record(record(count))
            left = disk.cut()
            assert lines(left / "audit.jsonl") == [record(number) for number in range(1, count + 1)]
            assert not faults(left / "audit.jsonl")
    assert len(list(left.glob("audit.*.jsonl"))) > 1


def test_a_key_that_is_made_at_the_first_start(disk: UnsyncedDisk) -> None:
    """It was used for something by then."""
    key = own_secret(disk.path / "some.key")
    assert own_secret(disk.cut() / "some.key") == key


async def test_a_commit_of_the_hospitals_store(disk: UnsyncedDisk) -> None:
    """So a notice of a PACS, which is told that it was kept; the first one in a directory that was made for it, too."""
    store = LmdbStore.open(disk.path / "hospital" / "store")
    for number in range(3):
        await store.write(lambda tx, number=number: tx.notices.put(notice(number)))
        left = LmdbStore.open(disk.cut() / "hospital" / "store")
        assert left.read(lambda tx: [one.arrivals for one in tx.notices.all()]) == [number + 1]
        await left.aclose()
    await store.aclose()


async def test_a_share_on_a_keystores_shelf(disk: UnsyncedDisk) -> None:
    """The hospital forgets it when it is told that it was kept."""
    await fill(disk.path / "shelf")
    assert await held(disk.cut() / "shelf") == KEPT


def test_what_the_metadata_service_was_told(disk: UnsyncedDisk) -> None:
    """The hospital does not tell it again."""
    database = open_database(str(disk.path / "metadata" / "db"))
    for number in range(1, 4):
        database.write_now(functools.partial(know_epoch, known=KnownEpoch(number, b"")))
        left = open_database(str(disk.cut() / "metadata" / "db"))
        assert left.read_now(known_epoch).epoch == number
        left.close()
    database.close()


async def test_a_copy_of_a_database(disk: UnsyncedDisk) -> None:
    """Whoever finds it takes it for whole."""
    path = disk.path / "copy"
    path.mkdir(mode=0o700)
    sync_directory(disk.path)
    load(cast("Database", DatabaseOfOne()), path, LAYOUT, b"up to here")
    left = disk.cut() / "copy"
    assert copied_of(left, LAYOUT) == b"up to here"
    with Embedded.looking(left, LAYOUT) as engine:
        assert engine.read(lambda rows: rows.get(ROW[0])) == ROW[1]


async def test_the_backup_of_a_shelf_and_what_it_brings_back(disk: UnsyncedDisk, tmp_path: Path) -> None:
    """Whoever has it made throws an older one away, or the broken disk."""
    await fill(tmp_path / "shelf")
    back_up_shelf(tmp_path / "shelf", disk.path / "backup", ("keystore-1", DAYS), certify(P256), now=NOW)
    restore_shelf(disk.cut() / "backup", disk.path / "new" / "shelf", P256, now=NOW)
    assert await held(disk.cut() / "new" / "shelf") == KEPT


async def test_what_a_backup_brings_back_to_a_hospital(disk: UnsyncedDisk, tmp_path: Path) -> None:
    """Its store, which is written anew, its keys and its log."""
    configuration = HospitalConfiguration.read(site_in(tmp_path).hospital_file)
    directory = configuration.path(configuration.hospital.directory)
    store = LmdbStore.open(directory / "store")
    await store.write(lambda tx: tx.notices.put(notice(0)))
    await store.aclose()
    for name in (*KEYS, "audit.jsonl"):
        (directory / name).write_bytes(OCTETS)
    back_up(tmp_path / "backup", (hospital_backup.ZONE, "amc"), hospital_backup.parts_of(configuration), certify(P256))
    there = msgspec.structs.replace(configuration.hospital, directory=str(disk.path / "hospital"))
    moved = msgspec.structs.replace(configuration, hospital=there)
    await hospital_backup.restore_hospital(moved, tmp_path / "backup", P256)
    left = disk.cut() / "hospital"
    assert {name: (left / name).read_bytes() for name in (*KEYS, "audit.jsonl")} == dict.fromkeys(
        (*KEYS, "audit.jsonl"), OCTETS
    )
    with LmdbStore.looking(left / "store") as restored:
        assert restored.read(lambda tx: [one.arrivals for one in tx.notices.all()]) == [1]


def test_what_a_backup_brings_back_to_a_metadata_service(disk: UnsyncedDisk, tmp_path: Path) -> None:
    """A database of SQLite."""
    configuration = MetadataConfiguration.read(site_in(tmp_path).metadata_file)
    database = open_database(configuration.database)
    database.write_now(functools.partial(know_epoch, known=KnownEpoch(7, b"")))
    database.close()
    back_up(tmp_path / "backup", ("metadata", "amc"), metadata_backup.parts_of(configuration), certify(P256))
    path = disk.path / "metadata" / "db"
    moved = dataclasses.replace(configuration, database=str(path))
    metadata_backup.restore_metadata(moved, tmp_path / "backup", P256)
    left = open_database(str(disk.cut() / "metadata" / "db"))
    assert left.read_now(known_epoch).epoch == 7
    left.close()


async def test_what_was_unsealed(disk: UnsyncedDisk) -> None:
    """Whole, under its name."""
    hospital = TwinHospital()
    file = hospital.add_file(NAME, octets(100_000, "x"))
    target = await unsealed(hospital, hospital.sealed(file.guid), disk.path, file.guid)
    assert (disk.cut() / target.name).read_bytes() == file.plaintext


def test_what_was_deidentified_is_whole_where_it_has_a_name(disk: UnsyncedDisk, tmp_path: Path) -> None:
    """The next run takes a name for the file."""
    (tmp_path / "image").write_bytes(example())
    run(tmp_path / "image", "-o", disk.path / "out", "--policy", "research")
    (written,) = (disk.path / "out").rglob("*.dcm")
    for left in disk.cut().rglob("*.dcm"):
        assert left.read_bytes() == written.read_bytes()
