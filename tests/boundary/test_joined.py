"""Two hospitals with keystores and hospitald of their own in one mount: one is killed and comes back."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import datetime as dt
import errno
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives import serialization

from mdmfs.cli.facl import PENDING, setfacl
from mdmfs.cli.harvest import harvest_project
from mdmfs.demo.patients import write_patients
from mdmfs.demo.people import KNEE
from mdmfs.demo.pki import LOOPBACK, Authority, Validity, name_of
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import HOSPITAL, KEYSTORES, PROJECT, READER, Site, make_site
from mdmfs.hospital.configuration import HospitalConfiguration
from tests.twins.as_hospital import as_hospital
from tests.twins.waiting import until
from tests.twins.wire_cutter import WireCutter, wire_cutter

SECONDS = 40.0
WAIT = 6.0
"""Seconds that a reader waits for a hospital that is away: meanwhile a busy machine reads elsewhere, too."""
SILENT = 1.0
"""Seconds in which it has to be waited."""
NEARBY = 6
"""Of the files: what the first two opened bring along lies before it."""
CUT_AFTER = 60_000
"""Bytes: in the middle of a file."""
OUTAGE = {errno.EHOSTUNREACH, errno.ETIMEDOUT}
OTHER = "umc"
READ_AGAIN = "the configuration was read again"
SERVERS = "servers.pem"
"""The CA of a hospital's servers, apart from that of users."""
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
trust = "{site.state / "pki" / SERVERS}"

{_PEERS.sub("[[hospitals.keystores]]" + chr(10), keystores)}"""


@dataclasses.dataclass
class Joined:
    """Two hospitals, both read by one mount; the wire to the second one can be cut."""

    first: Site
    there: Processes
    """Of the second."""
    wire: WireCutter
    point: Path
    mine: list[Path]
    """The files at the first hospital."""
    theirs: list[Path]

    def misplace(self) -> None:
        """Tell the mount that the second hospital is where the first one is."""
        self._tell(self.wire.port, self.first.ports.hospital)

    def place_rightly(self) -> None:
        """Tell the mount where it is."""
        self._tell(self.first.ports.hospital, self.wire.port)

    def _tell(self, before: int, after: int) -> None:
        file = self.first.mount_file(READER)
        head, mark, second = file.read_text().partition(f'name = "{OTHER}"')
        file.write_text(head + mark + second.replace(f":{before}", f":{after}", 1))
        log = self.first.logs / f"mount-{READER}.log"
        heard = log.read_text().count(READ_AGAIN)
        os.kill(int(os.getxattr(self.point, "user.mdmfs.pid")), signal.SIGHUP)
        until(lambda: log.read_text().count(READ_AGAIN) > heard, SECONDS)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Joined]:
    """Everything runs and is mounted."""
    folder = tmp_path_factory.mktemp("joined")
    sites = [make_site(folder / name, pacs="", inclusion=None, deadline=5.0) for name in (HOSPITAL, OTHER)]
    first, second = sites
    second.hospital_file.write_text(second.hospital_file.read_text().replace(f'"{HOSPITAL}"', f'"{OTHER}"', 1))
    trust_apart(first, second)
    told, point = first.mount_file(READER), folder / "grid"
    head = re.sub(r"\[hospital\]\n(?:[a-z].*\n)+", "", told.read_text()).partition("[[")[0]
    head = head.replace("[mount]\n", f"[mount]\nlease_wait = {WAIT}\n")
    for site in sites:
        write_patients(site.pacs_directory, (KNEE,))
    with running(first) as here, running(second) as there, wire_cutter(second.ports.hospital) as wire:
        text = head + joined(HOSPITAL, first) + joined(OTHER, second)
        for processes, site in ((here, first), (there, second)):
            processes.start_pacs()
            processes.start_keystores()
            processes.start_hospital()
            trio.run(harvest_project, HospitalConfiguration.read(site.hospital_file), PROJECT)
        told.write_text(text.replace(f":{second.ports.hospital}", f":{wire.port}"))
        here.start_mount(READER, point)
        assert sorted(os.listdir(point)) == sorted([HOSPITAL, OTHER])  # noqa: PTH208 names
        mine, theirs = (sorted((point / name).rglob("*.dcm")) for name in (HOSPITAL, OTHER))
        assert mine
        assert len(mine) == len(theirs)
        assert mine[0].read_bytes() != theirs[0].read_bytes()
        yield Joined(first, there, wire, point, mine, theirs)


def trust_apart(first: Site, second: Site) -> None:
    """Let each hospital's servers be of a CA of its own, under the very same names; users are of the first one's."""
    shutil.copytree(first.state / "pki", second.state / "pki", dirs_exist_ok=True)
    validity = Validity.lasting(dt.datetime.now(dt.UTC))
    other = Authority.make(name_of("authorities", "Another CA"), validity)
    for name in ("hospital", *(f"keystore-{number}" for number in range(1, KEYSTORES + 1))):
        issued = other.issue(name_of("hosts", name), validity, LOOPBACK)
        assert issued.dn == first.pki.dns[name]
        issued.save(second.state / "pki", name)
    pem = other.certificate.public_bytes(serialization.Encoding.PEM)
    users = second.state / "pki" / "ca.pem"
    (first.state / "pki" / SERVERS).write_bytes(users.read_bytes())
    (second.state / "pki" / SERVERS).write_bytes(pem)
    users.write_bytes(users.read_bytes() + pem)


def test_one_hospitald_is_killed_and_the_other_is_read_on(both: Joined) -> None:
    """What lies at the dead one is an error and no ENOENT; the root lists both; started again, it is read again."""
    mine, theirs = both.mine, both.theirs
    alias = link_across(both.first, both.point, theirs[0])
    os.kill(both.there.pid("hospital"), 9)
    assert error_of(theirs[1]) in OUTAGE
    subprocess.run(["ls", "-l", both.point], check=True, capture_output=True)
    assert mine[1].read_bytes()
    assert os.listdir(alias.parent) == [alias.name]  # noqa: PTH208 nobody is asked who is away
    assert alias.is_symlink()
    (alias.parent / "another").symlink_to(mine[0])
    assert (alias.parent / "another").read_bytes() == mine[0].read_bytes()
    both.there.stop("hospital")
    both.there.start_hospital()
    until_readable(theirs[1])
    assert alias.read_bytes() == theirs[0].read_bytes()


def test_a_wire_that_falls_silent_makes_readers_wait_and_then_fail_and_costs_the_others_nothing(both: Joined) -> None:
    """In a transfer and before one, with every connection left open; when it is mended, all is as before.

    So does another hospital in its place, of the same name: it is not believed, since each has a trust of its own.
    """
    # far from each other, and from those that others have opened, so that nothing is fetched ahead
    mine, theirs, wire = iter(both.mine[:NEARBY:-4]), iter(both.theirs[:NEARBY:-4]), both.wire
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for cut, mend in (
            (wire.cut, wire.mend),
            (lambda: wire.cut_after(CUT_AFTER), wire.mend),
            (both.misplace, both.place_rightly),
        ):
            cut()
            waiting = pool.submit(next(theirs).read_bytes)
            time.sleep(SILENT)
            assert next(mine).read_bytes()
            subprocess.run(["ls", "-l", both.point, both.mine[0].parent], check=True, capture_output=True)
            assert not waiting.done()
            mend()
            assert waiting.result(SECONDS)
    wire.cut()
    unread = next(theirs)
    assert error_of(unread) in OUTAGE
    assert error_of(unread.with_name("nothing.dcm")) in OUTAGE | {errno.ENOENT}
    assert next(mine).read_bytes()
    wire.mend()
    until_readable(unread)


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


def error_of(file: Path) -> int:
    """Try to read a file, and give the errno, 0 where it can be read."""
    try:
        file.read_bytes()
    except OSError as error:
        return error.errno or -1
    return 0


def until_readable(file: Path) -> None:
    """Wait, but not for ever."""
    until(lambda: error_of(file) == 0, SECONDS)
