"""A site with a lease of five seconds whose mount reaches its hospital through a relay that can be cut."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import trio

from mdmfs.access.edit import Edit, EditKind
from mdmfs.access.text import parse_acl, parse_names
from mdmfs.cli.harvest import harvest_project
from mdmfs.demo.headers import planted_uid
from mdmfs.demo.people import CHEST
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import PROJECT, READER, Site, fill_pacs, make_site, mountpoint_of
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.model.names import Lfn
from mdmfs.wire.client import Client
from mdmfs.wire.messages.acls import ACL_EFFECT_PATH, CHANGE_ACL_PATH, AclEffect, AskAclEffect, ChangeAcl, ChangedAcls
from mdmfs.wire.peers import open_client
from tests.twins.wire_cutter import WireCutter, wire_cutter

CONNECTIONS = Path("/sys/fs/fuse/connections")
LEASE = 5.0
SECONDS = 60.0
EFFECTIVE_WITHIN = 30.0
"""Seconds, several leases: whoever has not heard by then never will."""


@dataclasses.dataclass(frozen=True)
class Ground:
    """What runs: everything registered, the reader's mount mounted."""

    site: Site
    processes: Processes
    wire: WireCutter
    mountpoint: Path

    def series(self) -> list[tuple[Lfn, Path]]:
        """Give each series: its directory's LFN, and its first file on the mount."""
        found = {path.parent: path for path in sorted(self.mountpoint.rglob("*.dcm"), reverse=True)}
        return [(Lfn(path.parent.relative_to(self.mountpoint).parts), path) for path in found.values()]

    def client(self) -> Client:
        """Speak to the hospital with its own certificate, and not over the relay."""
        configuration = HospitalConfiguration.read(self.site.hospital_file)
        credential = configuration.credential
        return open_client(str(configuration.public), str(credential.subject()), credential, configuration.anchors)

    def reader(self) -> str:
        """Give the reader's DN."""
        return str(self.site.pki.dns[READER])


@contextlib.contextmanager
def ground(extra_series: int = 0, *, cache: str = "", staging: int = 0) -> Iterator[Ground]:
    """Run a site on the demonstration's synthetic patients, with so many series more of one slice each.

    ``cache`` is what the mount keeps, ``staging`` what the hospital does; as much as it wants unless they are given.
    """
    if not CONNECTIONS.is_mount():
        message = "mount -t fusectl none /sys/fs/fuse/connections: else 12 reads that wait hold up all others"
        raise RuntimeError(message)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        site = make_site(folder / "site", pacs="", inclusion=None, deadline=20.0)
        project = site.hospital_file.parent / "projects" / f"{PROJECT}.toml"
        project.write_text(f"lease = {LEASE}\n" + project.read_text())
        if staging:
            replace_in(site.hospital_file, "[hospital]\n", f"[hospital]\nstaging_bytes = {staging}\n")
        fill_pacs(site)
        add_series(site, extra_series)
        processes = stack.enter_context(running(site))
        processes.start_pacs()
        processes.start_keystores()
        processes.start_metadata()
        processes.start_hospital()
        trio.run(harvest_project, HospitalConfiguration.read(site.hospital_file), PROJECT)
        wire = stack.enter_context(wire_cutter(site.ports.hospital))
        replace_in(site.mount_file(READER), f"127.0.0.1:{site.ports.hospital}", f"127.0.0.1:{wire.port}")
        if cache:
            replace_in(site.mount_file(READER), 'size = "2 GiB"', f'size = "{cache}"')
        mountpoint = mountpoint_of(site.state, READER)
        processes.start_mount(READER, mountpoint)
        yield Ground(site, processes, wire, mountpoint)


def replace_in(file: Path, before: str, after: str) -> None:
    """Change a configuration file."""
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def add_series(site: Site, count: int) -> None:
    """Let the PACS have more series of the one patient, each of one slice."""
    one = min((site.pacs_directory / CHEST.key).rglob("*.dcm"))
    for number in range(count):
        dataset = pydicom.dcmread(one)
        dataset.SeriesInstanceUID = planted_uid("bench", "series", number)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = planted_uid("bench", "one", number)
        dataset.SeriesNumber = 100 + number
        dataset.save_as(one.with_name(f"more-{number:04}.dcm"), enforce_file_format=True)


async def change(client: Client, lfn: Lfn, edit: Edit) -> ChangedAcls:
    """Change an ACL."""
    deadline = trio.current_time() + SECONDS
    return await client.call(CHANGE_ACL_PATH, ChangeAcl(str(lfn), [edit]), ChangedAcls, deadline=deadline)


async def wait_until_effective(client: Client, changed: ChangedAcls) -> float:
    """Wait until a change holds everywhere; gives the seconds."""
    begun = time.monotonic()
    while True:
        asked = AskAclEffect(changed.epoch, changed.version)
        effect = await client.call(ACL_EFFECT_PATH, asked, AclEffect, deadline=trio.current_time() + SECONDS)
        if effect.is_effective:
            return time.monotonic() - begun
        if time.monotonic() - begun > EFFECTIVE_WITHIN:
            message = f"after {EFFECTIVE_WITHIN:g} s the change does not hold at {[*effect.keystores, *effect.mounts]}"
            raise TimeoutError(message)
        await trio.sleep(0.02)


def allow(dn: str) -> Edit:
    """Let somebody pass a directory."""
    return Edit(EditKind.MODIFY, parse_acl(f"u:{dn}:rx").entries)


def deny(dn: str) -> Edit:
    """Let him pass no longer."""
    return Edit(EditKind.REMOVE, parse_names(f"u:{dn}").entries)


def start_probe(path: Path, notes: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start a reader."""
    return subprocess.Popen([sys.executable, "-m", "tests.bench._probe", str(path), str(notes), *options])
