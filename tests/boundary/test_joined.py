"""Two hospitals with keystores and hospitald of their own in one mount: one is killed and comes back."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import trio

from mdmfs.cli.facl import PENDING, setfacl
from mdmfs.cli.harvest import harvest_project
from mdmfs.demo.patients import write_patients
from mdmfs.demo.people import KNEE
from mdmfs.demo.processes import running
from mdmfs.demo.site import HOSPITAL, PROJECT, READER, Site, make_site
from mdmfs.hospital.configuration import HospitalConfiguration
from tests.twins.as_hospital import as_hospital

SECONDS = 40.0
OTHER = "umc"
_PEERS = re.compile(r"\[\[keystores\]\]\n")


def joined(name: str, site: Site) -> str:
    """Write a site's hospital and keystores as one of several."""
    text = site.mount_file(READER).read_text()
    (address, dn) = (re.search(rf'\[hospital\]\n(?:.*\n)*?{key} = "(.*)"', text) for key in ("address", "dn"))
    assert address
    assert dn
    keystores = "[[keystores]]" + text.partition("[[keystores]]")[2]
    return f"""
[[hospitals]]
name = "{name}"
address = "{address[1]}"
dn = "{dn[1]}"
trust = "{site.state / "pki" / "ca.pem"}"

{_PEERS.sub("[[hospitals.keystores]]" + chr(10), keystores)}"""


def test_one_hospitald_is_killed_and_the_other_is_read_on(tmp_path: Path) -> None:
    """What lies at the dead one is an error and no ENOENT; the root lists both; started again, it is read again."""
    sites = [make_site(tmp_path / name, pacs="", inclusion=None, deadline=5.0) for name in (HOSPITAL, OTHER)]
    first, second = sites
    second.hospital_file.write_text(second.hospital_file.read_text().replace(f'"{HOSPITAL}"', f'"{OTHER}"', 1))
    # one user, whom both know: their PKIs would call two authorities alike
    shutil.copytree(first.state / "pki", second.state / "pki", dirs_exist_ok=True)
    told = first.mount_file(READER)
    head = re.sub(r"\[hospital\]\n(?:[a-z].*\n)+", "", told.read_text()).partition("[[")[0]
    head = head.replace("[mount]\n", "[mount]\nlease_wait = 2.0\n")
    text = head + joined(HOSPITAL, first) + joined(OTHER, second)
    point = tmp_path / "grid"
    for site in sites:
        write_patients(site.pacs_directory, (KNEE,))
    with running(first) as here, running(second) as there:
        for processes, site in ((here, first), (there, second)):
            processes.start_pacs()
            processes.start_keystores()
            processes.start_hospital()
            trio.run(harvest_project, HospitalConfiguration.read(site.hospital_file), PROJECT)
        told.write_text(text)
        here.start_mount(READER, point)
        assert sorted(os.listdir(point)) == sorted([HOSPITAL, OTHER])  # noqa: PTH208 names
        mine, theirs = (sorted((point / name).rglob("*.dcm")) for name in (HOSPITAL, OTHER))
        assert mine
        assert len(mine) == len(theirs)
        assert mine[0].read_bytes() != theirs[0].read_bytes()
        alias = link_across(first, point, theirs[0])
        os.kill(there.pid("hospital"), 9)
        unread = theirs[1]
        try:
            unread.read_bytes()
        except OSError as error:
            assert not isinstance(error, FileNotFoundError)  # noqa: PT017 which one depends on the lease
        else:
            raise AssertionError
        subprocess.run(["ls", "-l", point], check=True, capture_output=True)
        assert mine[1].read_bytes()
        assert os.listdir(alias.parent) == [alias.name]  # noqa: PTH208 nobody is asked who is away
        assert alias.is_symlink()
        (alias.parent / "another").symlink_to(mine[0])
        assert (alias.parent / "another").read_bytes() == mine[0].read_bytes()
        there.stop("hospital")
        there.start_hospital()
        deadline = time.monotonic() + SECONDS
        while not is_readable(unread):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert alias.read_bytes() == theirs[0].read_bytes()


def link_across(site: Site, point: Path, image: Path) -> Path:
    """Make a collection at one hospital, and in it an alias of an image at the other one; it moves within the first."""
    project = point / HOSPITAL / PROJECT
    reader = site.pki.dns[READER]
    entries = f"u:{reader}:rwx,d:u:{reader}:rwx"
    # no metadata service runs, which would have to hear of it: the hospital decides by it at once
    typed = ("--timeout", "0", "-m", entries, f"/grid/medical/{HOSPITAL}/{PROJECT}")
    assert as_hospital(site, setfacl, *typed)[0] == PENDING
    chosen, kept = project / "chosen", project / "kept"
    chosen.mkdir()
    (chosen / "theirs.dcm").symlink_to(Path("../../..") / image.relative_to(point))
    assert (chosen / "theirs.dcm").read_bytes() == image.read_bytes()
    with pytest.raises(OSError, match=os.strerror(errno.EXDEV)):
        chosen.rename(point / OTHER / PROJECT / "chosen")
    with pytest.raises(OSError, match=os.strerror(errno.EACCES)):
        (point / OTHER / PROJECT / "chosen").mkdir()
    chosen.rename(kept)
    assert (kept / "theirs.dcm").read_bytes() == image.read_bytes()
    return kept / "theirs.dcm"


def is_readable(file: Path) -> bool:
    """Try to read a file."""
    try:
        return bool(file.read_bytes())
    except OSError:
        return False
