"""``mdmfs unseal`` over the whole chain: ciphertext of the hospital, shares of keystores, and who may have them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import trio

from mdmfs.cli.harvest import harvest_project
from mdmfs.demo.processes import running
from mdmfs.demo.site import PROJECT, READER, STRANGER, Site, fill_pacs, make_site
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.model.names import Guid, Lfn
from mdmfs.pki.trust import TrustAnchors
from mdmfs.worker.callers.credential import own_credential
from mdmfs.worker.callers.peers import Peers
from mdmfs.worker.configuration import MountConfiguration
from mdmfs.worker.hospital.remote import RemoteHospital


async def fetch_first(site: Site) -> tuple[Guid, bytes, bytes]:
    """Fetch the first image as the reader: GUID, sealed object, and the digest that the hospital tells."""
    configuration = MountConfiguration.read(site.mount_file(READER))
    anchors = TrustAnchors(configuration.path(configuration.trust))
    async with trio.open_nursery() as nursery:
        peers = Peers(configuration.hospital, configuration.keystores, own_credential(configuration), anchors, nursery)
        hospital = RemoteHospital(peers.hospital, deadline=20)
        guid = await first_below(hospital, site.project)
        found = await hospital.describe(guid)
        async with hospital.fetch(guid) as download:
            sealed = bytearray(download.length)
            at = 0
            while count := await download.receive_into(memoryview(sealed)[at:]):
                at += count
        await peers.hospital().aclose()
        nursery.cancel_scope.cancel()
    return guid, bytes(sealed), found.sha256


async def first_below(hospital: RemoteHospital, directory: Lfn) -> Guid:
    """Go down to the first file."""
    page = await hospital.list_directory(directory, "")
    first = page.entries[0]
    return Guid(first.guid) if first.guid else await first_below(hospital, directory / first.name)


def unseal(site: Site, user: str, file: Path, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user."""
    typed = ["unseal", str(file), "--mount-config", str(site.mount_file(user)), "-o", str(output), *options]
    command = [sys.executable, "-m", "mdmfs.cli", *typed]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def test_the_reader_unseals_a_copy_and_nobody_else_does(tmp_path: Path) -> None:
    """By the file's name or by options, also when the hospital is away; a stranger with the same copy gets nothing."""
    site = make_site(tmp_path / "site", pacs="", inclusion=None, deadline=5.0)
    fill_pacs(site)
    with running(site) as processes:
        processes.start_pacs()
        processes.start_keystores()
        processes.start_hospital()
        trio.run(harvest_project, HospitalConfiguration.read(site.hospital_file), PROJECT)
        guid, sealed, digest = trio.run(fetch_first, site)
        file = tmp_path / f"{guid}.copy"
        file.write_bytes(sealed)
        assert unseal(site, READER, file, tmp_path / "one").returncode == 0
        assert hashlib.sha256((tmp_path / "one").read_bytes()).digest() == digest
        processes.stop("hospital")
        size = str((tmp_path / "one").stat().st_size)
        given = ["--guid", str(guid), "--generation", "1", "--size", size]
        assert unseal(site, READER, file, tmp_path / "two", *given).returncode == 0
        assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()
        refused = unseal(site, STRANGER, file, tmp_path / "three", *given)
        assert refused.returncode == 1
        assert "denied" in refused.stderr
        assert not (tmp_path / "three").exists()
