"""Backups of hospital and metadata service: made while the store is written to, and attacked before they come back."""

from __future__ import annotations

import datetime as dt
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mdmfs.access.acl import Acl
from mdmfs.daemon.backup import Part, back_up
from mdmfs.demo.site import Site, make_site
from mdmfs.hospital.backup import KEYS, ZONE, parts_of, restore_hospital
from mdmfs.hospital.catalogue.rights import OWNERS
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.hospital.tables import FORMAT
from mdmfs.metadata.backup import parts_of as parts_of_metadata
from mdmfs.metadata.backup import restore_metadata
from mdmfs.metadata.configuration import MetadataConfiguration
from mdmfs.metadata.store.database import open_database
from mdmfs.model.errors import ConfigurationError, IntegrityError, NameTakenError, StoreError, WrongKeyError
from mdmfs.model.names import Lfn

KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "recovery")])
DAY = dt.timedelta(days=1)
NOW = dt.datetime.now(dt.UTC)
RECOVERY = x509.CertificateBuilder(NAME, NAME, KEY.public_key(), 1, NOW - DAY, NOW + DAY).sign(KEY, hashes.SHA256())
ACL = Acl("/CN=owner", OWNERS)
MANY = 2000
PLAIN = b"name-of-a-directory"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Make configurations."""
    return make_site(tmp_path_factory.mktemp("site") / "state", pacs="", inclusion=None, deadline=5.0)


@pytest.fixture
def hospital(site: Site) -> HospitalConfiguration:
    """Begin a hospital with a store, its keys and two files of its log."""
    directory = site.hospital_directory
    shutil.rmtree(directory, ignore_errors=True)
    trio.run(_fill, directory / "store")
    for name in KEYS:
        (directory / name).write_bytes(name.encode() * 2)
    (directory / "audit.jsonl").write_bytes(b"the current one\n")
    (directory / "audit.0.jsonl").write_bytes(b"x" * (3 * 2**20))
    (directory / "staging").mkdir()
    return HospitalConfiguration.read(site.hospital_file)


async def _fill(path: Path) -> None:
    store = LmdbStore.open(path)
    for start in range(0, MANY, 500):
        await store.write(
            lambda tx, start=start: [
                tx.catalogue.make_directories(Lfn((f"{PLAIN.decode()}-{n}",)), acl=ACL)
                for n in range(start, start + 500)
            ]
        )
    await store.aclose()


def made(hospital: HospitalConfiguration, output: Path) -> Path:
    """Make a backup."""
    back_up(output, (ZONE, "amc"), parts_of(hospital), RECOVERY)
    return output


def moved_away(hospital: HospitalConfiguration) -> Path:
    """Lose the hospital's disk."""
    directory = hospital.path(hospital.hospital.directory)
    shutil.rmtree(directory)
    return directory


def files(directory: Path) -> dict[str, bytes]:
    """Read what is restored, but for the store."""
    paths = [path for path in directory.rglob("*") if path.is_file() and "store" not in path.parts]
    return {path.name: path.read_bytes() for path in paths}


async def _write_on(store: LmdbStore) -> None:
    await store.write(lambda tx: tx.catalogue.make_directories(Lfn(("later",)), acl=ACL))


def test_what_was_there_comes_back_and_nothing_of_it_is_in_the_clear(
    hospital: HospitalConfiguration, site: Site, tmp_path: Path
) -> None:
    """Store, keys and log, by the command, while the daemon has the store open and writes."""
    directory = hospital.path(hospital.hospital.directory)
    before = files(directory)
    store = LmdbStore.open(directory / "store")
    backup, recovery = tmp_path / "backup", tmp_path / "recovery.pem"
    recovery.write_bytes(RECOVERY.public_bytes(serialization.Encoding.PEM))
    typed = ["backup", str(site.hospital_file), str(backup), "--recovery", str(recovery)]
    subprocess.run([sys.executable, "-m", "mdmfs.cli", *typed], check=True, capture_output=True)
    trio.run(_write_on, store)
    trio.run(store.aclose)
    assert PLAIN not in backup.read_bytes()
    assert backup.stat().st_mode & 0o077 == 0
    directory = moved_away(hospital)
    header = trio.run(restore_hospital, hospital, backup, KEY)
    assert (header.zone, header.name) == (ZONE, "amc")
    assert files(directory) == before
    assert all(it.stat().st_mode & 0o077 == 0 for it in (directory, directory / "store" / "data.mdb"))
    with LmdbStore.looking(directory / "store") as read:
        names = {lfn.parts[-1] for lfn in read.read(lambda tx: tx.catalogue.directories_below(Lfn(()))) if lfn.parts}
    assert names == {f"{PLAIN.decode()}-{number}" for number in range(MANY)}
    with pytest.raises(NameTakenError, match="holds a store"):
        trio.run(restore_hospital, hospital, backup, KEY)


@pytest.mark.parametrize("attack", ["cut", "cut at a chunk", "flip", "header", "no text", "longer", "not ours"])
def test_a_damaged_backup_restores_nothing(hospital: HospitalConfiguration, tmp_path: Path, attack: str) -> None:
    """Not even a part of it; what is in the folder stays as it was."""
    octets = bytearray(made(hospital, tmp_path / "backup").read_bytes())
    head = octets.index(b"\n", octets.index(b"\n") + 1) + 1
    match attack:
        case "cut":
            del octets[-1:]
        case "cut at a chunk":
            del octets[head + 56 + 5 * (16 * 1024 + 16) :]
        case "flip":
            octets[-1000] ^= 1
        case "header":
            octets[octets.index(b'"amc"') + 1] ^= 1
        case "no text":
            octets[octets.index(b'"amc"') + 1] = 0xFF
        case "longer":
            octets += bytes(16)
        case _:
            octets[:5] = b"other"
    damaged = tmp_path / "damaged"
    damaged.write_bytes(octets)
    directory = moved_away(hospital)
    with pytest.raises(IntegrityError, match=str(damaged)):
        trio.run(restore_hospital, hospital, damaged, KEY)
    assert os.listdir(directory) == []  # noqa: PTH208 names only


def test_another_key_another_zone_and_other_keys_are_refused(
    hospital: HospitalConfiguration, site: Site, tmp_path: Path
) -> None:
    """Each is named, and nothing is restored."""
    backup = made(hospital, tmp_path / "backup")
    directory = moved_away(hospital)
    with pytest.raises(WrongKeyError):
        trio.run(restore_hospital, hospital, backup, ec.generate_private_key(ec.SECP256R1()))
    metadata = MetadataConfiguration.read(site.metadata_file)
    Path(metadata.database).parent.mkdir(mode=0o700, exist_ok=True)
    with pytest.raises(ConfigurationError, match="of a hospital, not of a metadata"):
        restore_metadata(metadata, backup, KEY)
    (directory / KEYS[0]).write_bytes(b"another")
    with pytest.raises(NameTakenError, match="another key than that of the backup"):
        trio.run(restore_hospital, hospital, backup, KEY)
    assert os.listdir(directory) == [KEYS[0]]  # noqa: PTH208 names only


def test_a_store_of_a_newer_format_is_not_restored(hospital: HospitalConfiguration, tmp_path: Path) -> None:
    """The program that wrote it, or a newer one, has to."""
    directory = hospital.path(hospital.hospital.directory)
    with lmdb.open(str(directory / "store"), max_dbs=64) as env, env.begin(write=True) as txn:
        txn.put(b"store", b"99", db=env.open_db(FORMAT, txn=txn))
    backup = made(hospital, tmp_path / "backup")
    moved_away(hospital)
    with pytest.raises(StoreError, match="format 99, this program knows none after"):
        trio.run(restore_hospital, hospital, backup, KEY)


def test_a_backup_of_a_newer_format_is_refused_by_name(hospital: HospitalConfiguration, tmp_path: Path) -> None:
    """It is no damaged one: the message tells the numbers and what to do."""
    backup = made(hospital, tmp_path / "backup")
    backup.write_bytes(backup.read_bytes().replace(b"mdmfs backup 1\n", b"mdmfs backup 12\n", 1))
    moved_away(hospital)
    with pytest.raises(StoreError, match=f"{backup} .* format 12, this program knows none after 1"):
        trio.run(restore_hospital, hospital, backup, KEY)


@pytest.mark.parametrize("name", ["../outside", "/outside", "store/../../outside"])
def test_a_backup_with_names_outside_writes_none(hospital: HospitalConfiguration, tmp_path: Path, name: str) -> None:
    """Whoever has the certificate can make a backup; he gets no file elsewhere by it."""
    backup = tmp_path / "backup"
    back_up(backup, (ZONE, "amc"), [Part(name, lambda: io.BytesIO(b"evil"))], RECOVERY)
    directory = moved_away(hospital)
    with pytest.raises(IntegrityError, match="none of ours"):
        trio.run(restore_hospital, hospital, backup, KEY)
    assert not (directory.parent / "outside").exists()


def test_a_metadata_service_comes_back(site: Site, tmp_path: Path) -> None:
    """SQLite as it is at one instant; where there is one, it stays."""
    metadata = MetadataConfiguration.read(site.metadata_file)
    path = Path(metadata.database)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    opened = open_database(metadata.database)
    back_up(tmp_path / "backup", ("metadata", "amc"), parts_of_metadata(metadata), RECOVERY)
    opened.close()
    with pytest.raises(NameTakenError, match="there is a database"):
        restore_metadata(metadata, tmp_path / "backup", KEY)
    for left in path.parent.glob(path.name + "*"):
        left.unlink()
    restore_metadata(metadata, tmp_path / "backup", KEY)
    open_database(metadata.database).close()
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigurationError, match="is not backed up by mdmfs"):
        parts_of_metadata(MetadataConfiguration(**{**vars_of(metadata), "database": "postgresql://x/y"}))


def vars_of(metadata: MetadataConfiguration) -> dict[str, object]:
    """Give the fields of a configuration."""
    return {name: getattr(metadata, name) for name in metadata.__slots__}
