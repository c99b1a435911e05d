"""A site whose hospital and a keystore keep their stores in PostgreSQL: moved there, registered, opened, killed."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import click.testing
import psycopg
import pytest
import trio

from mdmfs.cli.harvest import harvest_project
from mdmfs.cli.main import cli
from mdmfs.demo.processes import running
from mdmfs.demo.site import PROJECT, READER, Site, make_site, mountpoint_of
from mdmfs.hospital.configuration import HospitalConfiguration
from tests.twins.clinic import slices
from tests.twins.postgresql import running_postgresql
from tests.twins.servers import pynetdicom_scp

IMAGES = 4
OF_HOSPITAL, OF_KEYSTORE = "hospital_x", "keystore_x"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """One PostgreSQL with a database for each."""
    with running_postgresql() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"create database {OF_HOSPITAL}")
            connection.execute(f"create database {OF_KEYSTORE}")
        yield url


def name_databases(site: Site, server: str) -> None:
    """Say in the configurations where the stores are."""
    for file, name in ((site.hospital_file, OF_HOSPITAL), (site.keystore_file(1), OF_KEYSTORE)):
        lines = file.read_text().splitlines(keepends=True)
        place = next(number for number, line in enumerate(lines) if line.startswith("directory = "))
        lines.insert(place, f'store = "{server.replace("/postgres?", f"/{name}?")}"\n')
        file.write_text("".join(lines))


def migrate(configuration: Path, *options: str) -> str:
    """Call the command; give what it says."""
    done = click.testing.CliRunner().invoke(cli, ["migrate", str(configuration), *options])
    assert done.exit_code == 0, done.output
    return done.output


def read_all(mountpoint: Path) -> set[str]:
    """Read every file; each is what the hospital said it was."""
    digests = set()
    for path in mountpoint.rglob("*.dcm"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert os.getxattr(path, "user.mdmfs.sha256").decode() == digest
        digests.add(digest)
    return digests


def test_the_whole_chain_on_postgresql(tmp_path: Path, server: str) -> None:
    """What was begun in LMDB goes on in the database, is registered, read, there after kill -9, and back in LMDB."""
    held, inclusion = slices(range(1, IMAGES + 1)), tmp_path / "inclusion.list"
    inclusion.write_text("patient TEST-1^^^AMC\n")
    with pynetdicom_scp(held) as address:
        site = make_site(tmp_path / "site", pacs=str(address), inclusion=inclusion, deadline=20)
        mountpoint, hospital = mountpoint_of(site.state, READER), site.hospital_file
        with running(site) as processes:
            processes.start_hospital()
            processes.start_keystores()
            name_databases(site, server)
            assert "stop the daemon, and call this again" in migrate(hospital)
            processes.stop("hospital", signal.SIGKILL)
            processes.stop("keystore-1")
            for file in (hospital, site.keystore_file(1)):
                assert "all are equal" in migrate(file)
            processes.start_hospital()
            processes.start_keystore(1)
            progress = trio.run(harvest_project, HospitalConfiguration.read(hospital), PROJECT)
            assert (progress.registered, progress.depositing, progress.failures) == (IMAGES, 0, [])
            processes.stop("hospital", signal.SIGKILL)
            processes.stop("keystore-2", signal.SIGKILL)  # the key comes from the database's shelf and one other
            processes.start_hospital()
            processes.start_mount(READER, mountpoint)
            assert len(read_all(mountpoint)) == IMAGES
            processes.stop("hospital")
        assert "in LMDB" in migrate(hospital, "--back")
