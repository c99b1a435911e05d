"""A mount for many users as its own process, over the wire: each is known to the hospital by his own proxy.

What is asked, changed and exported here is typed as its owners type it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import click
import pytest
import trio
from click.testing import CliRunner
from cryptography import x509

from mdmfs.cli.audit import export, what_read, who_read, who_read_patient
from mdmfs.cli.facl import PENDING, getfacl, setfacl
from mdmfs.cli.harvest import harvest_project
from mdmfs.demo.patients import write_patients
from mdmfs.demo.people import KNEE
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import KEYSTORES, PROJECT, READER, STRANGER, Site, make_site
from mdmfs.hospital.audit.export import MSGID
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.kept.audit import Audit, AuditRecord, Event, records_of
from mdmfs.hospital.signing import SigningKey
from mdmfs.model.errors import PeerUnreachableError
from mdmfs.worker.service import umount
from tests.twins.as_hospital import as_hospital
from tests.twins.grid import Grid, crl_of
from tests.twins.syslog import repository
from tests.twins.users import FIRST_UID, User
from tests.twins.waiting import until

SECONDS = 20.0
BOM = b"\xef\xbb\xbf"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts for everybody")


@dataclasses.dataclass
class Shared:
    """A site with one patient, mounted for everybody; reader and stranger both may read."""

    site: Site
    processes: Processes
    point: Path
    log: Path
    """Of the mount."""
    reader: User
    stranger: User
    grid: Grid
    """The CA directory of hospital and keystores."""

    def files(self) -> list[Path]:
        """Name every file, as the reader finds them."""
        found = self.reader.does("run", f"find {self.point} -type f | sort")
        assert isinstance(found, list)
        return [Path(line) for line in found]

    def lfn(self, path: Path) -> str:
        """Give the name on the grid of what is on the mount."""
        return f"/grid/medical/{path.relative_to(self.point)}"

    def entry(self, who: str, rights: str) -> str:
        """Write an entry of an ACL."""
        return f"u:{self.site.pki.dns[who]}:{rights}"

    @property
    def audit(self) -> Path:
        """The hospital's log."""
        return self.site.hospital_directory / "audit.jsonl"

    def facl(self, command: click.Command, *typed: str) -> tuple[int, str, str]:
        """Type a command about ACLs as the hospital; gives its exit code and what it says."""
        return as_hospital(self.site, command, *typed)

    def let(self, who: str) -> int:
        """Let somebody read everything."""
        return self.facl(setfacl, "-R", "-m", self.entry(who, "rx"), f"/grid/medical/amc/{PROJECT}")[0]

    def ask(self, command: click.Command, *typed: str, given: str = "") -> str:
        """Type a command about the audit log; gives what it says."""
        run = CliRunner().invoke(command, [str(self.site.hospital_file), *typed], input=given, catch_exceptions=False)
        assert run.exit_code == 0, run.output
        return run.stdout


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    """Everything runs."""
    folder = Path(tempfile.mkdtemp(prefix="mdmfs-many-"))
    folder.chmod(0o711)  # every user can pass it
    site = make_site(folder / "site", pacs="", inclusion=None, deadline=10.0)
    project = site.hospital_file.parent / "projects" / f"{PROJECT}.toml"
    project.write_text(f"lease = 5\n{project.read_text()}")  # so long may mounts from before a start be there
    write_patients(site.pacs_directory, (KNEE,))
    grid = Grid(site.state / "ca")
    grid.trust(site.pki.authority)
    for server in (site.hospital_file, *map(site.keystore_file, range(1, KEYSTORES + 1))):
        server.write_text(server.read_text().replace('"../pki/ca.pem"', f'"{grid.certificates}"'))
    point, log = folder / "grid", folder / "log"
    point.mkdir()
    users: list[User] = []
    try:
        with running(site) as processes:
            processes.start_pacs()
            processes.start_keystores()
            processes.start_metadata()
            processes.start_hospital()
            trio.run(harvest_project, HospitalConfiguration.read(site.hospital_file), PROJECT)
            daemon = mount(site, point, log)
            try:
                users += [
                    User(FIRST_UID + number, proxy(site, who, FIRST_UID + number, folder))
                    for number, who in enumerate((READER, STRANGER))
                ]
                made = Shared(site, processes, point, log, *users, grid)
                assert made.stranger.does("list", point) == []
                assert made.let(STRANGER) == 0
                until(lambda: made.stranger.does("list", point) == ["amc"])
                yield made
            finally:
                for user in users:
                    user.end()
                if daemon.poll() is None:
                    umount(point)
                assert daemon.wait(SECONDS) == 0, log.read_text()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def mount(site: Site, point: Path, log: Path) -> subprocess.Popen[bytes]:
    """Mount for everybody."""
    text = site.mount_file(READER).read_text()
    many = site.mount_file("many")
    without = re.sub(r"\[credential\]\n(?:[a-z].*\n)+", "", text)
    many.write_text(without.replace("[mount]\n", "[mount]\nmulti_user = true\n"))
    with log.open("wb") as told:
        command = [sys.executable, "-m", "mdmfs.cli", "mount", str(many), str(point)]
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=told, stderr=told)
    deadline = time.monotonic() + SECONDS
    while not os.path.ismount(point) and time.monotonic() < deadline and daemon.poll() is None:
        time.sleep(0.05)
    return daemon


def proxy(site: Site, who: str, uid: int, folder: Path) -> Path:
    """Give a user of this machine somebody's proxy."""
    path = folder / f"proxy-{uid}"
    path.write_bytes(site.pki.proxies[who].certificate_file.read_bytes())
    path.chmod(0o600)
    os.chown(path, uid, uid)
    return path


def test_one_file_is_taken_from_one_user_and_nobody_else_notices(shared: Shared) -> None:
    """By ``setfacl``, which returns when it is so: also through an open handle; the audit names the entry."""
    first, second, *_ = shared.files()
    whole = {path: shared.reader.does("read", path) for path in (first, second)}
    assert shared.stranger.does("read", first) == whole[first]
    assert shared.stranger.does("hold", first) is None
    size = shared.stranger.does("stat", first)
    denied = shared.entry(STRANGER, "-")
    before = shared.facl(getfacl, shared.lfn(first))[1]
    code, told, _ = shared.facl(setfacl, "--test", "-m", denied, shared.lfn(first))
    assert (code, f"{shared.entry(STRANGER, '-----')[2:]}\n" in told) == (0, True)
    assert shared.stranger.does("read", first) == whole[first]
    assert shared.facl(setfacl, "-m", denied, shared.lfn(first)) == (0, "", "")
    assert shared.stranger.does("give", first) == "EACCES"
    for operation in ("read", "map"):
        assert shared.stranger.does(operation, first) == "EACCES"
    assert shared.stranger.does("stat", first) == size
    assert shared.stranger.does("read", second) == whole[second]
    assert shared.reader.does("read", first) == whole[first]
    asked = f"getfattr --absolute-names --only-values -n user.mdmfs.acl {first}"
    assert shared.stranger.does("run", asked) == shared.facl(getfacl, shared.lfn(first))[1].split()
    last = [one for one in records_of(shared.audit) if one.event is Event.REFUSAL][-1]
    assert (last.dn, last.guid) == (str(shared.site.pki.dns[STRANGER]), guid_of(shared, first))
    assert last.outcome == f"the deciding entry does not allow it (user:{shared.site.pki.dns[STRANGER]})"
    old, now = shared.site.state / "old.acl", shared.site.state / "now.acl"
    old.write_text(before)
    now.write_text(
        shared.facl(getfacl, shared.lfn(first))[1].replace(
            shared.entry(STRANGER, "-----")[2:], shared.entry(STRANGER, "r----")[2:]
        )
    )
    assert shared.facl(setfacl, "--set-file", str(old), shared.lfn(first))[0] == 1  # it was changed meanwhile
    assert shared.facl(setfacl, "--set-file", str(now), shared.lfn(first)) == (0, "", "")
    until(lambda: shared.stranger.does("read", first) == whole[first])


def guid_of(shared: Shared, path: Path) -> str:
    """Read a file's GUID."""
    [guid] = shared.reader.does("run", f"getfattr --absolute-names --only-values -n user.guid {path}")  # type: ignore[misc]
    return str(guid)


def test_what_does_not_hold_everywhere_yet_is_pending_and_who_is_missing_is_named(shared: Shared) -> None:
    """Two of three keystores hang: the hospital refuses at once, and the command says who has not heard."""
    first, *_ = shared.files()
    hanging = [shared.processes.pid(f"keystore-{number}") for number in (1, 2)]
    for pid in hanging:
        os.kill(pid, signal.SIGSTOP)
    try:
        typed = ("--timeout", "0", "-m", shared.entry(STRANGER, "-"), shared.lfn(first))
        code, told, missing = shared.facl(setfacl, *typed)
        assert (code, told) == (PENDING, "")
        assert missing.startswith(f"PENDING: {shared.lfn(first)} ")
        assert {"keystore-1", "keystore-2"} <= set(missing.split())
    finally:
        for pid in hanging:
            os.kill(pid, signal.SIGCONT)
    assert shared.facl(setfacl, "-m", shared.entry(STRANGER, "r"), shared.lfn(first)) == (0, "", "")


def test_each_is_served_by_his_own_proxy_and_revoked_by_his_own_name(shared: Shared) -> None:
    """What the reader opened from the cache is on record; revoked, he has nothing, and the other all the same.

    Nor does he find anything: a query's directory is another for each of them.
    """
    path = shared.files()[0]
    query = shared.point / ".find" / 'Modality == "MR"'
    until(lambda: shared.reader.does("list", query) == [f"amc+{'+'.join(path.relative_to(shared.point).parts[1:-1])}"])
    found = shared.reader.does("list", query)
    assert shared.stranger.does("list", query) == found
    first = shared.reader.does("read", path)
    assert [shared.reader.does("read", path) for _ in range(3)] == [first] * 3
    assert shared.reader.does("digest", path) == first[1]  # type: ignore[index]
    project, entry = f"/grid/medical/amc/{PROJECT}", shared.entry(READER, "").removesuffix(":")
    assert shared.facl(setfacl, "-R", "-x", entry, project) == (0, "", "")
    assert shared.reader.does("stat", path) == "ENOENT"
    assert shared.reader.does("list", shared.point) == []
    assert shared.reader.does("list", query) == []
    assert shared.stranger.does("list", query) == found
    assert shared.stranger.does("read", path) == first
    opened = [one for one in records_of(shared.audit) if one.event is Event.CACHED_OPENS]
    reader = str(shared.site.pki.dns[READER])
    assert sum(one.count for one in opened if one.dn == reader) >= 3
    assert shared.let(READER) == 0
    until(lambda: shared.reader.does("read", path) == first)
    assert shared.reader.does("list", query) == found


def test_a_user_whose_certificate_is_revoked_by_its_ca_has_nothing_any_more(shared: Shared) -> None:
    """A list of the CA, replaced on hospital and keystores: names, pages and open files go; the others read on."""
    path, authority = shared.files()[0], shared.site.pki.authority
    whole = shared.reader.does("read", path)
    assert shared.stranger.does("read", path) == whole
    assert shared.stranger.does("hold", path) is None
    revoked = x509.load_pem_x509_certificate(shared.site.pki.users[STRANGER].certificate_file.read_bytes())
    shared.grid.write_crl(authority, crl_of(authority, [revoked]))
    until(lambda: shared.stranger.does("give", path) == "EACCES")
    for operation, asked in (("read", path), ("map", path), ("stat", path), ("list", path.parent), ("digest", path)):
        assert shared.stranger.does(operation, asked) == "EACCES", operation
    assert shared.reader.does("read", path) == whole
    shared.grid.write_crl(authority, crl_of(authority))
    until(lambda: shared.stranger.does("read", path) == whole)


def test_names_that_one_user_makes_are_for_the_others_to_see_and_not_to_change(shared: Shared) -> None:
    """Collections, aliases and comments; through an alias nobody reads what he may not read by its name."""
    project, image = shared.point / "amc" / PROJECT, shared.files()[0]
    rights = ((READER, "rwx"), (STRANGER, "rx"))
    entries = ",".join(default + shared.entry(who, what) for default in ("", "d:") for who, what in rights)
    assert shared.facl(setfacl, "-m", entries, f"/grid/medical/amc/{PROJECT}")[0] == 0
    chosen, kept = project / "chosen", project / "kept"
    assert shared.reader.does("make", chosen) is None
    alias = chosen / "first.dcm"
    assert done(shared.reader, f"ln -s ../{image.relative_to(project)} {alias}")
    whole = shared.reader.does("read", image)
    until(lambda: shared.stranger.does("read", alias) == whole)
    assert shared.stranger.does("link", alias) == shared.reader.does("link", alias)
    for operation, path in (("make", project / "mine"), ("make", chosen / "mine"), ("remove", alias)):
        assert shared.stranger.does(operation, path) == "EACCES"
    assert not done(shared.stranger, f"mv {chosen} {kept}")
    assert done(shared.reader, f"setfattr -n user.comment -v best {chosen}")
    asked = f"getfattr --absolute-names --only-values -n user.comment {chosen}"
    until(lambda: shared.stranger.does("run", asked) == ["best"])
    assert not done(shared.stranger, f"setfattr -n user.comment -v worst {chosen}")
    assert shared.facl(setfacl, "-m", shared.entry(STRANGER, "-"), shared.lfn(image)) == (0, "", "")
    assert (shared.stranger.does("read", alias), shared.reader.does("read", alias)) == ("EACCES", whole)
    assert shared.facl(setfacl, "-m", shared.entry(STRANGER, "r"), shared.lfn(image)) == (0, "", "")
    assert done(shared.reader, f"mv {chosen} {kept}")
    until(lambda: shared.stranger.does("list", kept) == ["first.dcm"])
    assert shared.stranger.does("stat", chosen) == "ENOENT"
    assert done(shared.reader, f"rm -r {kept}")
    until(lambda: shared.stranger.does("stat", kept) == "ENOENT")


def done(user: User, command: str) -> bool:
    """Let a user run a command, and tell whether it succeeded."""
    return user.does("run", f"{command} 2>&1 >/dev/null; echo $?")[-1] == "0"  # type: ignore[index]


def test_the_log_is_verified_asked_and_sent_to_a_repository_whole(shared: Shared) -> None:
    """By the commands, the daemon being away: who read, what somebody did, a patient's images; rsyslog gets it all."""
    first, second, *_ = shared.files()
    assert shared.facl(setfacl, "-m", shared.entry(STRANGER, "-"), shared.lfn(second))[0] == 0
    found = [[who.does("read", path) for path in (first, second)] for who in (shared.reader, shared.stranger)]
    assert (found[1][0], found[1][1]) == (found[0][0], "EACCES")
    shared.processes.stop("hospital")
    reader, stranger = (str(shared.site.pki.dns[who]) for who in (READER, STRANGER))
    verify = [sys.executable, "-m", "mdmfs.cli", "audit", "verify", str(shared.site.hospital_file)]
    told = subprocess.run(verify, check=True, capture_output=True, text=True).stdout
    assert "0 faults; vouched for by keystore-1 up to" in told
    readers = dict(line.split("  ", 1) for line in shared.ask(who_read, f"/grid/medical/amc/{PROJECT}").splitlines())
    assert set(readers) == {reader, stranger}
    assert re.search(r"[1-9][0-9]* refusals", readers[stranger])
    of_patient = shared.ask(who_read_patient, given=f"{KNEE.patient_id}^^^{KNEE.issuer}\n")
    assert {line.split("  ")[0] for line in of_patient.splitlines()} == {reader, stranger}
    did = [json.loads(line) for line in shared.ask(what_read, stranger).splitlines()]
    assert {one["event"] for one in did} >= {"release", "refusal"}
    trio.run(record_of_each, shared)
    send_to_a_repository(shared)


async def record_of_each(shared: Shared) -> None:
    """Write a record of each event, with texts that are long or not of plain letters."""
    audit = Audit(shared.audit, SigningKey(shared.site.hospital_directory / "signing.key"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(audit.run)
        for event in Event:
            outcome = f"<&\"'> J\u00fcrgen \u674e {event}"
            await audit.record(AuditRecord(time=1.25, event=event, dn="/CN=J\u00e4ne", outcome=outcome))
        await audit.record(AuditRecord(time=1.25, event=Event.ACL, outcome="long " * 20_000))
        nursery.cancel_scope.cancel()
    audit.close()


def send_to_a_repository(shared: Shared) -> None:
    """Export twice, to a file and over TLS: the same messages, in order, each read as what it is."""
    folder = shared.site.state / "repository"
    folder.mkdir()
    shared.ask(export, "--format", "jsonl", "-o", str(folder / "lines"))
    assert (folder / "lines").read_bytes() == shared.audit.read_bytes()
    shared.ask(export, "--format", "dicom", "-o", str(folder / "messages"))
    messages = (folder / "messages").read_bytes().splitlines()
    records = list(records_of(shared.audit))
    assert len(messages) == len(records)
    with repository(folder, shared.site.pki.keystores[0], shared.site.pki.anchors.path) as receiver:
        shared.ask(export, "--format", "dicom", "--syslog", str(receiver.address))
        assert receiver.came(len(messages)) == messages
        read = receiver.read(len(messages))
        shared.ask(export, "--format", "dicom", "--syslog", str(receiver.address), "--after", str(len(records) - 1))
        assert receiver.came(len(messages) + 1)[-1] == messages[-1]
    refused = CliRunner().invoke(
        export, [str(shared.site.hospital_file), "--format", "dicom", "--syslog", str(receiver.address)]
    )
    assert isinstance(refused.exception, PeerUnreachableError)
    named = 0
    for record, (fields, message) in zip(records, read, strict=True):
        assert fields[1] == "1"
        assert fields[4:] == ["mdmfs-amc", str(record.n), MSGID]
        assert fields[0] in {"85", "84"}
        told = ET.fromstring(message.removeprefix(BOM))  # noqa: S314 our own
        assert told.tag == "AuditMessage"
        named += f'"{KNEE.patient_id}^^^{KNEE.issuer}"'.encode() in message
    assert named >= 2


def test_a_patient_who_opts_out_is_gone_from_mounts_with_names_pages_and_ciphertext(shared: Shared) -> None:
    """At the start that reads the list: an open file gives no byte more, and the keys are destroyed."""
    with contextlib.suppress(KeyError):  # a test before has stopped it
        shared.processes.stop("hospital")
    shared.processes.start_hospital()
    until(lambda: shared.reader.does("list", shared.point) == ["amc"])
    path = shared.files()[0]
    assert isinstance(shared.reader.does("read", path), list)
    assert shared.reader.does("hold", path) is None
    guid = guid_of(shared, path)

    def ciphertext() -> list[Path]:
        return list(shared.site.cache(READER).rglob(f"{guid}.*"))

    assert ciphertext()
    shared.processes.stop("hospital")
    listed = shared.site.hospital_file.with_name("opt-out.list")
    listed.write_text(f"patient {KNEE.patient_id}^^^{KNEE.issuer}\n")
    text = shared.site.hospital_file.read_text()
    shared.site.hospital_file.write_text(text.replace("[hospital]\n", f'[hospital]\nopt_out = "{listed}"\n', 1))
    shared.processes.start_hospital()
    until(lambda: shared.reader.does("give", path) == "EACCES")
    until(lambda: shared.reader.does("stat", path) == "ENOENT")
    assert shared.files() == []
    until(lambda: not ciphertext())
    assert guid in {one.guid for one in records_of(shared.audit) if one.event is Event.DESTRUCTION}
