"""The whole chain in its own processes: a PACS, a hospital, keystores and a mount, some killed again and again."""

from __future__ import annotations

import collections
import concurrent.futures
import datetime as dt
import errno
import hashlib
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from mdmfs.cli.doctor import checks_for
from mdmfs.cli.harvest import harvest_project
from mdmfs.cli.reconcile import reconcile_project
from mdmfs.daemon.diagnosis import examine
from mdmfs.demo.patients import Fate, PlantedFile, write_patients
from mdmfs.demo.people import CHEST, KNEE
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import KEYSTORES, PROJECT, READER, Site, make_site, mountpoint_of
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.model.errors import AccessDeniedError
from mdmfs.model.finding import Finding, Severity
from mdmfs.wire.messages.administration import (
    HARVEST_PATH,
    HARVEST_PROGRESS_PATH,
    HEALTH_PATH,
    AskHarvest,
    AskHealth,
    HarvestProgress,
    Health,
    StartHarvest,
    StartReconciliation,
)
from mdmfs.wire.peers import open_client
from mdmfs.worker.callers.credential import own_credential
from mdmfs.worker.configuration import MountConfiguration
from tests.architecture.test_docs import rows, section

OUTAGE = {errno.EHOSTUNREACH, errno.ETIMEDOUT}
SECONDS = 20.0


class Chain:
    """A site whose PACS holds two patients."""

    def __init__(self, site: Site, processes: Processes, planted: tuple[PlantedFile, ...]) -> None:
        self.site = site
        self.processes = processes
        self.expected = sum(one.fate is Fate.RELEASED for one in planted)

    @property
    def configuration(self) -> HospitalConfiguration:
        """The hospital's."""
        return HospitalConfiguration.read(self.site.hospital_file)

    def harvest_until(self, instances: int) -> None:
        """Start to register, and come back once so many instances were done, or all."""

        async def start() -> None:
            credential, anchors = self.configuration.credential, self.configuration.anchors
            client = open_client(str(self.configuration.public), str(credential.subject()), credential, anchors)
            deadline = trio.current_time() + SECONDS
            progress = await client.call(HARVEST_PATH, StartHarvest(PROJECT), HarvestProgress, deadline=deadline)
            while progress.instances_done < instances and not progress.is_over:
                ask = AskHarvest(PROJECT)
                progress = await client.call(HARVEST_PROGRESS_PATH, ask, HarvestProgress, deadline=deadline)
            await client.aclose()

        trio.run(start)

    def harvest(self) -> HarvestProgress:
        """Register to the end."""
        return trio.run(harvest_project, self.configuration, PROJECT)

    def mount(self) -> list[Path]:
        """Mount for the reader, and list every file."""
        self.processes.start_mount(READER, mountpoint_of(self.site.state, READER))
        return self.files()

    def files(self) -> list[Path]:
        """List every file on the mount."""
        return sorted(path for path in mountpoint_of(self.site.state, READER).rglob("*") if path.is_file())

    def shown(self) -> list[Path]:
        """Wait until the mount shows all that can be shown, and list it."""
        deadline = time.monotonic() + SECONDS
        while len(files := self.files()) < self.expected and time.monotonic() < deadline:
            time.sleep(0.2)
        assert len(files) == self.expected
        return files


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    """Everything but the mount, and nothing registered yet."""
    site = make_site(tmp_path / "site", pacs="", inclusion=None, deadline=10.0)
    planted = write_patients(site.pacs_directory, (CHEST, KNEE))
    with running(site) as processes:
        processes.start_pacs()
        processes.start_keystores()
        processes.start_metadata()
        processes.start_hospital()
        yield Chain(site, processes, planted)


def is_whole(path: Path) -> bool:
    """Read a file and compare it with the size and digest that are told of it."""
    size, digest = path.stat().st_size, os.getxattr(path, "user.mdmfs.sha256").decode()
    octets = path.read_bytes()
    return len(octets) == size and hashlib.sha256(octets).hexdigest() == digest


def test_a_registration_killed_at_any_moment_is_finished_by_the_next(chain: Chain) -> None:
    """Kill -9 of the hospital and of keystores: then every file is there once and opens with its digest."""
    chance = random.Random(20180312)  # noqa: S311 instants, no secrets
    for turn, instances in enumerate((1, 12, 25, 40, 60, 84)):
        chain.harvest_until(instances)
        time.sleep(chance.uniform(0, 0.02))
        if turn % 2:
            chain.processes.stop("keystore-1", signal.SIGKILL)
        chain.processes.stop("hospital", signal.SIGKILL)
        if turn % 2:
            chain.processes.start_keystore(1)
        chain.processes.start_hospital()
    progress = chain.harvest()
    assert progress.failures == []
    assert progress.depositing == 0
    files = chain.mount()
    guids = collections.Counter(os.getxattr(path, "user.guid") for path in files)
    assert len(files) == len(guids) == chain.expected
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(is_whole, files))
    again = chain.harvest()
    assert (again.registered, again.failures) == (0, [])
    assert sorted(path.name for path in (chain.site.hospital_directory / "staging").glob("*.part")) == []


def test_what_a_mount_shows_has_the_day_of_its_image_and_never_that_of_its_registration(chain: Chain) -> None:
    """As ``stat`` and ``ls -l`` tell it, of files, and of directories the latest below; nothing came today."""
    assert chain.harvest().failures == []
    assert chain.mount()
    files, top = chain.shown(), mountpoint_of(chain.site.state, READER)
    for path in files:
        (session,) = [part for part in path.parts if part.startswith("ses-")]
        day = dt.datetime.strptime(session, "ses-%Y%m%d").replace(tzinfo=dt.UTC)
        told = path.stat()
        assert {told.st_mtime, told.st_ctime, told.st_atime} == {day.timestamp()}
        line = subprocess.check_output(
            ["ls", "-l", "--time-style=full-iso", str(path)], env={**os.environ, "TZ": "UTC"}, text=True
        )
        assert f" {day:%Y-%m-%d} 00:00:00.000000000 +0000 " in line
    for directory in {above for path in files for above in path.parents if above.is_relative_to(top)}:
        latest = max(path.stat().st_mtime for path in files if path.is_relative_to(directory))
        assert directory.stat().st_mtime == latest, directory


def test_a_hospital_restarted_under_its_readers_gives_no_wrong_byte(chain: Chain) -> None:
    """What is cached reads on all the while; what is not fails as an outage, never as missing, and heals by itself."""
    assert chain.mount() == []
    assert chain.harvest().failures == []
    files = chain.shown()  # by the mount that was there before: nobody mounts again
    compared = trio.run(reconcile_project, chain.configuration, StartReconciliation(PROJECT))
    assert (compared.series_done, compared.lost, compared.moved, compared.failures) == (compared.series, 0, 0, [])
    warm, cold = files[:10], files[10:]
    assert all(map(is_whole, warm))
    ended = threading.Event()
    seen: collections.Counter[str] = collections.Counter()

    def read_warm() -> None:
        while not ended.is_set():
            for path in warm:
                seen["warm" if is_whole(path) else "wrong"] += 1

    def read_cold() -> None:
        waiting = collections.deque(cold * 3)
        while waiting and not ended.is_set():
            path = waiting.popleft()
            try:
                seen["cold" if is_whole(path) else "wrong"] += 1
            except OSError as error:
                seen["outage" if error.errno in OUTAGE else str(error)] += 1
                waiting.append(path)  # however long the hospital takes to come back
                time.sleep(0.05)

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read_warm), pool.submit(read_cold)]
        try:
            for ending in (signal.SIGTERM, signal.SIGKILL):
                time.sleep(0.3)
                chain.processes.stop("hospital", ending)
                time.sleep(0.5)
                chain.processes.start_hospital()
            readers[1].result(4 * SECONDS)
        finally:
            ended.set()
        readers[0].result(SECONDS)
    assert set(seen) <= {"warm", "cold", "outage"}, seen
    assert seen["warm"] >= len(warm)
    assert seen["cold"] == 3 * len(cold)
    assert all(map(is_whole, files))
    assert faults(chain.site) == []


def test_no_process_leaves_a_core_file_and_a_reader_may_ask_nothing_of_the_hospitals_own_people(chain: Chain) -> None:
    """As they run, and for every path that the documentation says is for the hospital's own certificate."""
    chain.mount()
    named = ["hospital", "metadata", f"mount-{READER}", *(f"keystore-{number}" for number in range(1, KEYSTORES + 1))]
    for name in named:
        limits = Path(f"/proc/{chain.processes.pid(name)}/limits").read_text()
        assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE), name
    table = rows(section("architecture.md", "Who talks to whom"))
    (row,) = (row for row in table if row[1:2] == ["the hospital's own certificate"])
    paths = re.findall(r"`(/v1/[a-z-]+)`", row[0])
    mount = MountConfiguration.read(chain.site.mount_file(READER))
    told = chain.configuration

    async def ask() -> None:
        client = open_client(str(told.public), str(told.credential.subject()), own_credential(mount), told.anchors)
        for path in paths:
            with pytest.raises(AccessDeniedError):
                await client.call(path, AskHealth(), Health, deadline=trio.current_time() + SECONDS)
        await client.aclose()

    trio.run(ask)
    assert HEALTH_PATH in paths


def faults(site: Site) -> list[Finding]:
    """Look at a site as ``mdmfs doctor`` does, from each of its configurations."""
    keystores = [site.keystore_file(number) for number in range(1, KEYSTORES + 1)]
    files = [site.hospital_file, *keystores, site.metadata_file, site.mount_file(READER)]
    found = [finding for file in files for finding in trio.run(examine, checks_for(file))]
    return [finding for finding in found if finding.severity is Severity.FAULT]
