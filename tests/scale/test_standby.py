"""Two hospitald over one PostgreSQL: both answer readers, one works, and when that one is killed the other goes on."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import trio

from mdmfs.cli.harvest import harvest_project
from mdmfs.cli.mounted import open_hospital
from mdmfs.demo.processes import running
from mdmfs.demo.site import PROJECT, READER, Site, make_site, mountpoint_of
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.model.names import Guid
from mdmfs.wire.client import Client
from mdmfs.wire.messages.files import SEALED_PATH
from mdmfs.worker.configuration import HospitalPeer, MountConfiguration
from tests.twins.clinic import slice_of
from tests.twins.postgresql import running_postgresql
from tests.twins.servers import notify, pynetdicom_scp
from tests.twins.waiting import until

IMAGES = 3
OPENERS = 100
KEYS = ("outbox.key", "signing.key")
AT_ONCE = 25
"""Of one client."""
PATIENCE = 60.0


class Second:
    """The other hospitald: its configuration, and its process."""

    def __init__(self, site: Site) -> None:
        self.folder = site.state / "hospital-2"
        self.file = self.folder / "hospital.toml"
        self.log = site.logs / "hospital-2.log"
        first = site.hospital_file.parent
        shutil.copytree(first / "projects", self.folder / "projects")
        with contextlib.ExitStack() as stack:
            self.port, dicom, self.reads, self.metrics = (
                stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(4)
            )
        text = site.hospital_file.read_text().replace(f":{site.ports.hospital}", f":{self.port}")
        told = f'reads = "127.0.0.1:{self.reads}"\nmetrics = "127.0.0.1:{self.metrics}"\n'
        text = text.replace("directory = ", f"{told}directory = ", 1)
        self.file.write_text(text.replace(f":{site.ports.dicom}", f":{dicom}"))
        (self.folder / "data").mkdir(mode=0o700)

    def copy_keys(self, site: Site) -> None:
        """Do what whoever sets it up has to do."""
        for name in KEYS:
            shutil.copy(site.hospital_directory / name, self.folder / "data" / name)

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        """Run it until the end of the block."""
        command = [sys.executable, "-m", "mdmfs.cli", "hospitald", str(self.file)]
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            yield
        finally:
            process.terminate()
            process.wait()

    def let_out(self) -> list[str]:
        """Give the GUIDs of what it let out itself, by its own audit log."""
        lines = (self.folder / "data" / "audit.jsonl").read_text().splitlines()
        records = [msgspec.json.decode(line) for line in lines]
        return [told["guid"] for told in records if told.get("event") == "release"]

    def wait_until_it_listens(self) -> None:
        """Wait until it passes on, and answers readers."""
        until(lambda: _listens(self.port) and _listens(self.reads), PATIENCE)


def name_database(site: Site, url: str) -> None:
    """Say in the configuration where the store is."""
    text = site.hospital_file.read_text()
    site.hospital_file.write_text(text.replace("directory = ", f'store = "{url}"\ndirectory = ', 1))


def name_both(file: Path, first: int, second: Second) -> None:
    """Say in a mount's configuration where the hospital may be, and who else answers readers."""
    text = file.read_text()
    assert text.count(f':{first}"') == 1
    reads = f'\nreads = "127.0.0.1:{second.reads}"'
    file.write_text(text.replace(f':{first}"', f':{first},127.0.0.1:{second.port}"{reads}'))


async def opened_on_both(site: Site, second: int, guid: str) -> collections.Counter[bytes]:
    """Open a file a hundred times at once, half of them at each; give what came how often."""
    came: collections.Counter[bytes] = collections.Counter()
    told = MountConfiguration.read(site.mount_file(READER))

    async def open_one(client: Client) -> None:
        path = f"{SEALED_PATH}{Guid.parse(guid)}"
        async with client.get(path, deadline=trio.current_time() + PATIENCE) as download:
            came[bytes(await download.read())] += 1

    async with contextlib.AsyncExitStack() as clients, trio.open_nursery() as nursery:
        for port in (site.ports.hospital, second):
            peer = HospitalPeer(f"127.0.0.1:{port}", told.hospital.dn)
            for _ in range(OPENERS // 2 // AT_ONCE):
                client = open_hospital(msgspec.structs.replace(told, hospital=peer))
                clients.push_async_callback(client.aclose)
                for _ in range(AT_ONCE):
                    nursery.start_soon(open_one, client)
    return came


def read_beside(staged: Path, cold: Path, second: Second) -> None:
    """Read what is staged and what is not through the one that does not work, which decides and records it itself."""
    for path in (staged, cold):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == os.getxattr(path, "user.mdmfs.sha256").decode()
        assert os.getxattr(path, "user.guid").decode() in second.let_out()


def doctored(file: Path) -> list[tuple[str, str]]:
    """Let the doctor look at a configuration; give severity and text of what it says of where readers are answered."""
    command = [sys.executable, "-m", "mdmfs.cli", "--json", "doctor", str(file)]
    done = subprocess.run(command, capture_output=True, check=False)
    told = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    found = [it for one in told for it in one.get("findings", [one])]
    return [(it["severity"], it["text"]) for it in found if it.get("check") == "reads"]


def metric(port: int, name: str) -> float:
    """Ask a daemon as Prometheus does."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


def test_of_two_hospitalds_one_works_and_the_other_takes_over(tmp_path: Path) -> None:
    """A hundred openers on both are one recall, both let out; when the first is killed nothing is lost or doubled."""
    held = [slice_of(number, size=256) for number in range(1, IMAGES + 1)]  # more than comes with a header
    inclusion, sent = tmp_path / "inclusion.list", collections.Counter[str]()
    inclusion.write_text("patient TEST-1^^^AMC\n")
    with (
        running_postgresql() as url,
        pynetdicom_scp(held, sent=sent) as address,
        running(make_site(tmp_path / "site", pacs=str(address), inclusion=inclusion, deadline=PATIENCE)) as processes,
    ):
        site = processes.site
        name_database(site, url)
        second = Second(site)
        text = site.hospital_file.read_text()
        site.hospital_file.write_text(text.replace("settle = 0\n", "settle = 3600\n"))  # leaves notices to the other
        processes.start_hospital()
        for number in (1, 2):
            processes.start_keystore(number)
        second.copy_keys(site)
        with second.started():
            second.wait_until_it_listens()
            progress = trio.run(harvest_project, HospitalConfiguration.read(second.file), PROJECT)  # at the first
            assert (progress.registered, progress.depositing, progress.failures) == (IMAGES, 0, [])
            name_both(site.mount_file(READER), site.ports.hospital, second)
            mountpoint = mountpoint_of(site.state, READER)
            processes.start_mount(READER, mountpoint)
            opened, *others = sorted(mountpoint.rglob("*.dcm"))
            assert metric(second.metrics, 'mdmfs_role{role="beside"}') == 1
            assert metric(second.metrics, "mdmfs_copy_behind_changes") == 0
            (answers, role, behind) = doctored(second.file)
            assert {answers[0], role[0], behind[0]} == {"ok"}
            assert "follows the daemon that works" in role[1]
            assert behind[1].startswith("0 changes are not in its copy")
            before = sent.total()
            came = trio.run(opened_on_both, site, second.port, os.getxattr(opened, "user.guid").decode())
            assert list(came.values()) == [OPENERS]
            assert sent.total() == before + 1
            read_beside(opened, others[0], second)
            assert max(sent.values()) == 1 + 1  # registered and recalled once, those that are looked ahead for, too
            held.append(slice_of(1, series=2))
            notify(site.ports.dicom, held[-1])
            processes.stop("hospital", signal.SIGKILL)
            for path in (opened, *others):
                octets = path.read_bytes()  # the mount waits until the other one works
                assert hashlib.sha256(octets).hexdigest() == os.getxattr(path, "user.mdmfs.sha256").decode()
            until(
                lambda: len(list(mountpoint.rglob("*.dcm"))) == IMAGES + 1, PATIENCE
            )  # of which the first one was told
            progress = trio.run(harvest_project, HospitalConfiguration.read(second.file), PROJECT)
            assert (progress.registered, progress.known) == (0, IMAGES + 1)
            processes.start_hospital()  # stands by, and passes on
            progress = trio.run(harvest_project, HospitalConfiguration.read(site.hospital_file), PROJECT)
            assert (progress.registered, progress.known) == (0, IMAGES + 1)
            processes.stop(f"mount-{READER}")
