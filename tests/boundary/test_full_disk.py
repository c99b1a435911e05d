"""Disks that are full, one after the other, of real daemons: what they say, that they live on, and what remains."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from mdmfs.cli.harvest import harvest_project
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import PACS_TITLE, PROJECT, READER, Site, make_site, mountpoint_of
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.dicom.pacs import PacsAddress
from mdmfs.wire.messages.key_tasks import KeyTask
from tests.bench.many import fill
from tests.twins.clinic import slice_of
from tests.twins.killed import keys
from tests.twins.servers import store

EACH = 30
PATIENCE = 60.0

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="it mounts small disks")


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """Mount a disk of its own at a directory."""
    path.mkdir(mode=0o700, parents=True)
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", str(path)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("nobody may mount anything here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """Leave no room on a disk while the block runs."""
    filler = disk / "filler"
    with filler.open("wb") as file, contextlib.suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize)
    try:
        yield
    finally:
        filler.unlink()


def mdmfs(*words: object) -> tuple[int, str]:
    """Type a command; gives its exit code and all that it says."""
    typed = [sys.executable, "-m", "mdmfs.cli", *map(str, words)]
    ran = subprocess.run(typed, check=False, capture_output=True, text=True, timeout=PATIENCE)
    return ran.returncode, ran.stdout + ran.stderr


def harvest(site: Site) -> list[str]:
    """Register what there is; gives what failed."""
    return list(trio.run(harvest_project, HospitalConfiguration.read(site.hospital_file), PROJECT).failures)


def log_of(site: Site, name: str) -> str:
    """Read what a daemon has logged."""
    return (site.logs / f"{name}.log").read_text()


def files_of(site: Site) -> list[Path]:
    """List the images that show."""
    return sorted(mountpoint_of(site.state, READER).rglob("*.dcm"))


def digests_of(files: list[Path]) -> dict[Path, str]:
    """Read files whole."""
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_in_turn(files: list[Path], read: dict[Path, str]) -> None:
    """Read files until one fails; a page of the log may have room for some lines."""
    for path in files:
        read[path] = hashlib.sha256(path.read_bytes()).hexdigest()


def until(holds: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "it does not come to hold"
        time.sleep(0.1)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Site, Processes]]:
    """Give a site with a series on a mount, whose hospital, first keystore and metadata service have small disks."""
    made = make_site(tmp_path / "site", pacs="", inclusion=None, deadline=20.0)
    fill(made.pacs_directory, EACH)
    listed = made.hospital_file.parent / "projects" / f"{PROJECT}.list"
    listed.write_text(f"study {slice_of(1).StudyInstanceUID}\n", encoding="utf-8")
    with contextlib.ExitStack() as stack:
        for path, size in ((hospital_disk(made), "8m"), (shelf(made), "1m"), (database(made), "4m")):
            stack.enter_context(small_disk(path, size))
        processes = stack.enter_context(running(made))
        processes.start_pacs()
        processes.start_keystores()
        processes.start_metadata()
        processes.start_hospital()
        assert harvest(made) == []
        processes.start_mount(READER, mountpoint_of(made.state, READER))
        yield made, processes


def hospital_disk(site: Site) -> Path:
    """Where a hospital keeps its store, log, headers and staging."""
    return site.hospital_directory


def shelf(site: Site) -> Path:
    """Where the first keystore keeps its shares."""
    return site.keystore_file(1).parent / "shelf"


def database(site: Site) -> Path:
    """Where a metadata service keeps its database."""
    return site.metadata_file.parent / "data"


def released(site: Site) -> set[str]:
    """Name the files that the audit log says were let out."""
    records = [json.loads(line) for line in (hospital_disk(site) / "audit.jsonl").read_text().splitlines()]
    return {record["guid"] for record in records if record.get("event") in {"header", "release"}}


def staged_of(site: Site) -> set[Path]:
    """List the objects that are staged."""
    return set((hospital_disk(site) / "staging").glob("*-*.?"))


@needs_root
def test_full_disks_stop_what_needs_them_lose_nothing_and_are_named(site: tuple[Site, Processes]) -> None:
    """A hospital lets nothing out that is not on record; for a keystore, or a metadata service, nobody waits.

    What is staged makes room by itself.
    """
    where, processes = site
    first = files_of(where)
    assert len(first) == EACH
    read: dict[Path, str] = {}
    with full(hospital_disk(where)):
        with pytest.raises(OSError, match="Input/output error"):
            read_in_turn(first, read)
        assert {os.getxattr(path, "user.guid").decode() for path in read} <= released(where)
        assert f"path={hospital_disk(where) / 'audit.jsonl'} reason=" in log_of(where, "hospital")
        code, told = mdmfs("keys", "rotate", where.hospital_file)
        assert (code, "the journal cannot be written" in told) == (1, True), told
        pacs = PacsAddress(PACS_TITLE, "127.0.0.1", where.ports.pacs)
        store(pacs, [slice_of(number, series=2, size=160) for number in range(1, EACH + 1)])
        assert harvest(where)
        assert files_of(where) == first
    with full(shelf(where)), full(database(where)):
        assert harvest(where) == []
        until(lambda: len(files_of(where)) == 2 * EACH)
        whole = digests_of(files_of(where))
        assert read.items() <= whole.items()
        until(lambda: f"(in {shelf(where)})" in log_of(where, "keystore-1"))
        until(lambda: f"(in {database(where)}/metadata.sqlite)" in log_of(where, "metadata"))
    until(lambda: not keys(where, KeyTask.VERIFY).faults)
    query = ("find", "--configuration", where.mount_file(READER), 'Modality == "CT"')
    until(lambda: mdmfs(*query)[1].count("/grid/medical/") == 2)
    assert digests_of(files_of(where)) == whole
    staged = staged_of(where)
    assert staged
    with full(hospital_disk(where)):
        until(lambda: staged_of(where) < staged)
    assert mdmfs("audit", "verify", where.hospital_file)[0] == 0
    for name in ("hospital", "metadata", "keystore-1"):
        assert processes.stop(name) == 0, "it has lived all the while"
