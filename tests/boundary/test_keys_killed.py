"""kill -9 of hospital and keystores at random instants of a registration: no key is lost, no file shows without."""

from __future__ import annotations

import base64
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest
import trio

from mdmfs.cli.harvest import harvest_project
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import KEYSTORES, PROJECT, Site, fill_pacs, make_site
from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.model.names import Guid
from mdmfs.wire.messages.key_tasks import KeyTask
from tests.twins.killed import (
    NUMBERS,
    THRESHOLD,
    VICTIMS,
    files_kept,
    harvest_until,
    keys,
    shares_kept,
    start,
)

ROUNDS = 3
MOST_OCTETS = 40 * 2**20
"""Of new images between two kills; there are 81 MiB."""
REGISTERED = 90
"""Of the demonstration's images."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Site, Processes]]:
    """Give a site whose PACS runs, and nothing else of it."""
    made = make_site(tmp_path / "site", pacs="", inclusion=None, deadline=20.0)
    fill_pacs(made)
    with running(made) as processes:
        processes.start_pacs()
        yield made, processes


def command(site: Site, name: str, *options: str) -> tuple[int, str]:
    """Run ``mdmfs keys``; give its exit code and standard output."""
    typed = [sys.executable, "-m", "mdmfs.cli", "keys", name, str(site.hospital_file), *options]
    ran = subprocess.run(typed, check=False, stdout=subprocess.PIPE, text=True, timeout=60)
    return ran.returncode, ran.stdout


def audit(site: Site, *arguments: str, standard_input: str = "") -> tuple[int, str]:
    """Run ``mdmfs audit`` beside the running daemon; give its exit code and standard output."""
    name, *others = arguments
    typed = [sys.executable, "-m", "mdmfs.cli", "audit", name, str(site.hospital_file), *others]
    ran = subprocess.run(typed, check=False, capture_output=True, text=True, timeout=60, input=standard_input)
    return ran.returncode, ran.stdout


def audit_is_asked(site: Site, guid: Guid) -> None:
    """Verify and ask the audit log by its commands; a changed record is found."""
    log = site.hospital_directory / "audit.jsonl"
    deadline = time.monotonic() + 30
    while (verified := audit(site, "verify"))[0] and time.monotonic() < deadline:
        time.sleep(1)
    assert verified[0] == 0, verified
    assert all(f"keystore-{number} up to " in verified[1] for number in NUMBERS)
    assert audit(site, "who", str(guid)) == (0, "")
    assert audit(site, "patient", standard_input="nobody\n") == (0, "")
    code, told = audit(site, "export")
    assert audit(site, "export", "--output", "-") == (code, told), "and no file is named -"
    assert code == 0
    assert told.splitlines() == log.read_text().splitlines()
    code, told = audit(site, "export", "--format", "dicom", "--after", "1")
    assert (code, told.count("<AuditMessage>")) == (0, len(log.read_text().splitlines()) - 1)
    kept = log.read_bytes()
    log.write_bytes(kept.replace(b'"registration"', b'"quarantine"', 1))
    code, told = audit(site, "verify")
    assert (code, "1 faults" in told) == (1, True)
    log.write_bytes(kept)


def is_signed(folder: Path, certificate: dict[str, Any]) -> bool:
    """Check a certificate of destruction with OpenSSL alone, as docs/commands.md says."""
    (folder / "document").write_text(certificate["document"])
    (folder / "signature").write_bytes(base64.b64decode(certificate["signature"]))
    (folder / "signer.pem").write_text(certificate["chain"][0])
    extract = ["openssl", "x509", "-in", "signer.pem", "-pubkey", "-noout", "-out", "signer.pub"]
    subprocess.run(extract, cwd=folder, check=True)
    check = ["openssl", "dgst", "-sha256", "-verify", "signer.pub", "-signature", "signature", "document"]
    return subprocess.run(check, cwd=folder, check=False, capture_output=True).returncode == 0


def keys_listed(site: Site) -> list[Guid]:
    """Name the files that one shelf has shares of; a running keystore does not mind a reader."""
    environment = lmdb.open(str(site.keystore_file(1).parent / "shelf"), max_dbs=8, readonly=True)
    database = environment.open_db(b"keys", create=False)
    with environment, environment.begin() as transaction:
        return [Guid(bytes(key)) for key, _ in transaction.cursor(database)]


def harvest_to_the_end(site: Site) -> None:
    """Register what is left; a keystore that was just started is waited for."""
    configuration = HospitalConfiguration.read(site.hospital_file)
    progress = trio.run(harvest_project, configuration, PROJECT)
    assert (progress.depositing, progress.failures) == (0, [])


def test_killed_at_random_instants_nothing_shows_without_its_key(site: tuple[Site, Processes]) -> None:
    """Each time everything is killed and looked at as it lies; in the end all is registered, every share is there."""
    where, processes = site
    dice = random.Random(5)  # noqa: S311 no secret
    configuration = HospitalConfiguration.read(where.hospital_file)
    start(processes, *VICTIMS)
    counts = []
    for _ in range(ROUNDS):
        trio.run(harvest_until, configuration, dice.randrange(MOST_OCTETS))
        victim = dice.choice(VICTIMS)
        processes.stop(victim, signal.SIGKILL)
        time.sleep(dice.uniform(0.0, 0.1))
        for name in VICTIMS:
            if name != victim:
                processes.stop(name, signal.SIGKILL)
        files = files_kept(where)
        visible = [file.guid for file in files if file.state is FileState.VISIBLE]
        assert all(count >= THRESHOLD for count in shares_kept(where, visible))
        counts.append(len(files))
        start(processes, *VICTIMS)
    harvest_to_the_end(where)
    assert any(0 < count < REGISTERED for count in counts), f"no kill came in the middle: {counts}"
    found = keys(where, KeyTask.REPAIR)
    assert (found.failure, found.lost, found.silent) == ("", 0, {})
    found = keys(where, KeyTask.VERIFY)
    assert (found.faults, found.lost, found.silent) == ({}, 0, {})
    assert found.files == REGISTERED


def test_a_keystore_that_lost_its_shelf_is_filled_again(site: tuple[Site, Processes]) -> None:
    """An empty disk in the place of one keystore: named, repaired, and clean."""
    where, processes = site
    start(processes, *VICTIMS)
    processes.start_metadata()  # what is destroyed is destroyed there, too
    harvest_to_the_end(where)
    processes.stop("keystore-2", signal.SIGKILL)
    shelf = where.keystore_file(2).parent / "shelf"
    shelf.rename(shelf.with_name("lost"))
    start(processes, "keystore-2")
    code, told = command(where, "verify", "--repair")
    assert (code, f"{REGISTERED} missing" in told, f"sent anew for {REGISTERED} files" in told) == (1, True, True)
    code, told = command(where, "verify")
    assert (code, told.strip()) == (0, f"{REGISTERED} files: no fault, 0 without a key")
    (gone, *_) = keys_listed(where)
    audit_is_asked(where, gone)
    code, told = command(where, "destroy", "--guid", str(gone))
    assert code == 0, told
    destroyed = json.loads(told)
    assert (destroyed["state"], destroyed["files"], destroyed["without_a_certificate"]) == ("destroyed", 1, {})
    assert len(destroyed["certificates"]) == KEYSTORES
    for certificate in destroyed["certificates"]:
        assert str(gone) in json.loads(certificate["document"])["destroyed"]
        assert is_signed(where.state, certificate)
    destroyed["certificates"][0]["document"] += " "
    assert not is_signed(where.state, destroyed["certificates"][0])
    assert command(where, "verify")[0] == 0
    assert processes.stop("hospital") == 0
    for number in NUMBERS:
        assert processes.stop(f"keystore-{number}") == 0
    assert shares_kept(where, [gone]) == [0]
