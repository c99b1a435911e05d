"""``mdmfs rerender`` and ``mdmfs withdraw`` as a steward types them, while daemons run and a reader has files open."""

from __future__ import annotations

import errno
import importlib.resources
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import click
import pytest
import trio
from click.testing import CliRunner

from mdmfs.cli.harvest import harvest_project
from mdmfs.cli.renewal import rerender, withdraw
from mdmfs.demo.patients import Fate, write_patients
from mdmfs.demo.people import SAMPLES
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import PROJECT, READER, Site, make_site, mountpoint_of
from mdmfs.hospital.assembly import read_policy
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.model.errors import MdmfsError
from mdmfs.wire.messages.administration import RERENDER_PROGRESS_PATH, AskRerender, RerenderProgress
from mdmfs.wire.peers import open_client
from tests.boundary.test_chain import is_whole
from tests.twins.waiting import until

SECONDS: Final = 20.0
GONE: Final = {errno.EIO, errno.ENOENT, errno.EACCES}
"""What a handle of a file whose key is destroyed gives, in place of old bytes."""


class Renewed:
    """A site with one patient, all of whose files a reader has read."""

    def __init__(self, site: Site, processes: Processes) -> None:
        self.site = site
        self.processes = processes
        self.reader: Final = str(site.pki.dns["reader"])

    @property
    def root(self) -> Path:
        """Where the reader has mounted."""
        return mountpoint_of(self.site.state, READER)

    def files(self) -> dict[Path, str]:
        """List the files on the mount, with their GUIDs."""
        found = sorted(path for path in self.root.rglob("*") if path.is_file())
        return {path: os.getxattr(path, "user.guid").decode() for path in found}

    def lfn(self, path: Path) -> str:
        """Give the name on the grid of what is on the mount."""
        return f"/grid/medical/{path.relative_to(self.root)}"

    def run(self, command: click.Command, *typed: str) -> tuple[int, dict[str, Any]]:
        """Run one to its end; gives exit code and what it says."""
        run = CliRunner().invoke(command, [str(self.site.hospital_file), *typed])
        told: dict[str, Any] = json.loads(run.stdout)
        return run.exit_code, told

    async def has_begun(self) -> bool:
        """Ask the daemon whether something is being made anew."""
        configuration = HospitalConfiguration.read(self.site.hospital_file)
        credential = configuration.credential
        client = open_client(str(configuration.public), str(credential.subject()), credential, configuration.anchors)
        try:
            deadline = trio.current_time() + SECONDS
            await client.call(RERENDER_PROGRESS_PATH, AskRerender(), RerenderProgress, deadline=deadline)
        except MdmfsError:
            return False
        finally:
            await client.aclose()
        return True

    def approve_another_policy(self) -> str:
        """Change the project's policy, have it approved, and start hospitald anew; gives the policy's name."""
        shipped = importlib.resources.files("mdmfs.hospital.deid").joinpath("policies/research.toml").read_text()
        policy = self.site.state / "second.toml"
        policy.write_text(shipped.replace('name = "research"', 'name = "second"'))
        project = self.site.hospital_file.parent / "projects" / f"{PROJECT}.toml"
        text = project.read_text().replace('policy = "research"', f'policy = "{policy}"')
        approved, asked_for = (read_policy(name).digest.hex() for name in ("research", str(policy)))
        project.write_text(text.replace(approved, asked_for))
        self.processes.stop("hospital")
        self.processes.start_hospital()
        return "second"


@pytest.fixture(scope="module")
def renewed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Renewed]:
    """Everything runs, and every file has been read on the mount."""
    site = make_site(tmp_path_factory.mktemp("renewed") / "site", pacs="", inclusion=None, deadline=10.0)
    planted = write_patients(site.pacs_directory, (SAMPLES,))
    with running(site) as processes:
        processes.start_pacs()
        processes.start_keystores()
        processes.start_metadata()
        processes.start_hospital()
        assert trio.run(harvest_project, HospitalConfiguration.read(site.hospital_file), PROJECT).failures == []
        processes.start_mount(READER, mountpoint_of(site.state, READER))
        made = Renewed(site, processes)
        until(lambda: len(made.files()) == sum(one.fate is Fate.RELEASED for one in planted))
        assert all(map(is_whole, made.files()))
        yield made


def test_files_are_made_anew_under_a_reader_even_when_the_daemon_is_killed(renewed: Renewed) -> None:
    """The names stay, all else is new, the old keys are gone, and the steward is told who had the old files."""
    old = renewed.files()
    inodes = {path: path.stat().st_ino for path in old}
    handle = os.open(largest(old), os.O_RDONLY)
    policy = renewed.approve_another_policy()
    typed = [sys.executable, "-m", "mdmfs.cli", "rerender", str(renewed.site.hospital_file), "--project", PROJECT]
    begun = subprocess.Popen(typed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: trio.run(renewed.has_begun) or begun.poll() is not None)
    renewed.processes.stop("hospital", signal.SIGKILL)
    begun.wait(4 * SECONDS)
    renewed.processes.start_hospital()
    code, told = renewed.run(rerender, "--project", PROJECT)
    assert (code, told["left"], told["failures"]) == (0, 0, [])
    assert [(had["dn"], had["files"]) for had in told["who_had_old_files"]] == [(renewed.reader, len(old))]
    until(lambda: set(renewed.files()) == set(old) and set(renewed.files().values()).isdisjoint(old.values()))
    for path in old:
        assert is_whole(path)
        assert path.stat().st_ino != inodes[path]
        assert f"policy {policy}".encode() in path.read_bytes()
    until(lambda: is_gone(handle))
    os.close(handle)


def test_what_is_withdrawn_is_gone_for_everybody_and_does_not_come_back(renewed: Renewed) -> None:
    """A file and then all of its study: names, open handles, cached bytes; who had it is told."""
    files = renewed.files()
    first = largest(files)
    assert is_whole(first)
    handle = os.open(first, os.O_RDONLY)
    code, told = renewed.run(withdraw, renewed.lfn(first))
    assert (code, told["files"], told["state"]) == (0, 1, "withdrawn")
    assert [(had["dn"], had["files"]) for had in told["who_had_them"]] == [(renewed.reader, 1)]
    until(lambda: not first.exists() and is_gone(handle))
    os.close(handle)
    assert all(map(is_whole, renewed.files()))
    below = first.parent.parent.parent
    code, told = renewed.run(withdraw, renewed.lfn(below))
    assert (code, told["files"], told["state"]) == (0, sum(below in path.parents for path in files) - 1, "withdrawn")
    until(lambda: not any(below in path.parents for path in renewed.files()))
    again = trio.run(harvest_project, HospitalConfiguration.read(renewed.site.hospital_file), PROJECT)
    assert (again.registered, again.failures) == (0, [])
    assert not any(below in path.parents for path in renewed.files())


def largest(files: Iterable[Path]) -> Path:
    """Give one whose end is not on the same page as its start."""
    return max(files, key=lambda path: path.stat().st_size)


def is_gone(handle: int) -> bool:
    """Tell whether nothing of a destroyed file is given through a handle that was open before."""
    try:
        os.pread(handle, 4096, 8192)
    except OSError as error:
        return error.errno in GONE
    return False
