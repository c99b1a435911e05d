"""Three hospitals' metadatad as real processes, one dead and one slow: the third is heard, and the gap is named."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from mdmfs.demo.ground import files_with
from mdmfs.demo.metadata_trials import look_at_everything, planted_in_records
from mdmfs.demo.people import CHEST
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import READER, Site, make_site, mountpoint_of
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.wire.client import Client
from mdmfs.wire.peers import open_client
from tests.twins.metadata_filled import let_read, register

HOSPITALS = ("amc", "lumc", "umc")
DEADLINE = 2.0
LEEWAY = 6.0
"""For processes to start, on a busy machine."""
PATIENCE = 20.0


def path_of(hospital: str) -> str:
    """Give its one series."""
    return f"/grid/medical/{hospital}/neuro/sub-aaaabbbbccccdddd/ses-20170101/001-MR"


class Ground:
    """One mount, whose user asks three services."""

    def __init__(self, site: Site, processes: Processes) -> None:
        self.site = site
        self.processes = processes
        self.mountpoint = mountpoint_of(site.state, READER)
        self.ports = {"amc": site.ports.metadata}
        self.services: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start the services, the hospital, fill all, and mount."""
        for name in HOSPITALS[1:]:
            with socket.create_server(("127.0.0.1", 0)) as taken:
                self.ports[name] = taken.getsockname()[1]
        for name in HOSPITALS:
            folder = self.site.state / f"metadata-{name}"
            folder.mkdir(mode=0o700)
            told = self.site.metadata_file.read_text()
            told = told.replace(f":{self.ports['amc']}", f":{self.ports[name]}")
            (folder / "metadata.toml").write_text(told)
            with (self.site.logs / f"{name}.log").open("ab") as log:
                command = [sys.executable, "-m", "mdmfs.cli", "metadatad", str(folder / "metadata.toml")]
                self.services[name] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        file = self.site.mount_file(READER)
        dn = self.site.pki.dns["metadata"]
        peers = [
            f'[[metadata]]\nname = "{name}"\naddress = "127.0.0.1:{port}"\ndn = "{dn}"\n'
            for name, port in self.ports.items()
        ]
        own = re.compile(r"\[\[metadata\]\]\nname = .*\naddress = .*\ndn = .*\n")
        changed, count = own.subn("\n".join(peers), file.read_text())
        assert count == 1
        file.write_text(changed)
        for name in HOSPITALS:
            trio.run(self._fill, name)
        self.processes.start_hospital()
        self.processes.start_mount(READER, self.mountpoint)

    async def _fill(self, name: str) -> None:
        async with self._as_hospital(name) as client:
            await let_read(client, self.site.pki.dns["hospital"], self.site.pki.dns["reader"])
            await register(client, path_of(name), {"Modality": "MR", "SeriesDescription": CHEST.comment})

    @contextlib.asynccontextmanager
    async def _as_hospital(self, name: str) -> AsyncIterator[Client]:
        configuration = HospitalConfiguration.read(self.site.hospital_file)
        begun = time.monotonic()
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.ports[name]), 1).close()
                break
            assert time.monotonic() - begun < PATIENCE, (self.site.logs / f"{name}.log").read_text()
            await trio.sleep(0.05)
        client = open_client(
            f"127.0.0.1:{self.ports[name]}",
            str(self.site.pki.dns["metadata"]),
            configuration.credential,
            configuration.anchors,
        )
        try:
            yield client
        finally:
            await client.aclose()

    def stop(self) -> None:
        """End the services."""
        for process in self.services.values():
            process.kill()
            process.wait()

    def find(self) -> tuple[subprocess.CompletedProcess[str], float]:
        """Run ``mdmfs find``; gives its end, and how long it took."""
        begun = time.monotonic()
        file = str(self.site.mount_file(READER))
        command = [sys.executable, "-m", "mdmfs.cli", "find", 'Modality == "MR"', "--configuration", file]
        done = subprocess.run([*command, "--timeout", str(DEADLINE)], check=False, capture_output=True, text=True)
        return done, time.monotonic() - begun


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """Make a site, and two hospitals more."""
    site = make_site(tmp_path / "site", pacs="", inclusion=None, deadline=DEADLINE)
    with running(site) as processes:
        made = Ground(site, processes)
        try:
            made.start()
            yield made
        finally:
            made.stop()


def refuse_blindness(ground: Ground, said: Path) -> None:
    """Look as the demonstration does, where hospitals tell what they must not: it is seen wherever it can stand."""
    said.mkdir()
    look_at_everything(ground.site.mount_file(READER), ground.mountpoint, said, ['Modality == "MR"'])
    found = {Path(file) for file in files_with(planted_in_records(), [said, ground.site.state / "metadata-amc"])}
    assert {file.name for file in found if file.parent == said} == {
        *("find-csv-0", "find-json-0", "find-table-0", "images-0"),
    }
    assert any(file.parent.name == "data" for file in found)


def test_one_dead_and_one_slow_hospital_take_nothing_from_the_third_and_are_named(
    ground: Ground, tmp_path: Path
) -> None:
    """By the command and by the directory of a query on a real mount, within the deadline."""
    directory = ground.mountpoint / ".find" / 'Modality == "MR"'
    aliases = sorted(path_of(name).removeprefix("/grid/medical/").replace("/", "+") for name in HOSPITALS)
    whole, _ = ground.find()
    assert (whole.returncode, whole.stdout.split()) == (0, sorted(map(path_of, HOSPITALS))), whole.stderr
    assert sorted(entry.name for entry in directory.iterdir()) == aliases
    refuse_blindness(ground, tmp_path / "said")
    ground.services["lumc"].kill()
    ground.services["lumc"].wait()
    ground.services["umc"].send_signal(signal.SIGSTOP)
    partial, seconds = ground.find()
    assert (partial.returncode, partial.stdout.split()) == (3, [path_of("amc")])
    assert "lumc did not answer" in partial.stderr
    assert "umc did not answer" in partial.stderr.replace("lumc", "")
    assert seconds < DEADLINE + LEEWAY
    assert sorted(entry.name for entry in directory.iterdir()) == ["INCOMPLETE", aliases[0]]
    told = (directory / "INCOMPLETE").read_text()
    assert told.startswith("lumc did not answer")
    assert "\numc did not answer" in told
