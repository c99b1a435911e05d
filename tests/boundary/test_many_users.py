"""A mount for many users as its own process, over the wire: whoever asks is known to the hospital by his own proxy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from mdmfs.access.edit import Edit, EditKind
from mdmfs.access.text import parse_names
from mdmfs.cli.harvest import harvest_project
from mdmfs.demo.patients import write_patients
from mdmfs.demo.people import KNEE
from mdmfs.demo.processes import running
from mdmfs.demo.site import PROJECT, READER, Site, make_site
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.release.audit import Event, records_of
from mdmfs.model.names import Lfn
from mdmfs.wire.messages import CHANGE_ACL_PATH, ChangeAcl, ChangedAcls
from mdmfs.wire.peers import open_client
from mdmfs.worker.service import umount
from tests.twins.users import FIRST_UID, User

SECONDS = 20.0
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts for everybody")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Make a folder that every user can pass."""
    made = Path(tempfile.mkdtemp(prefix="mdmfs-many-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def proxy(site: Site, who: str, uid: int, folder: Path) -> Path:
    """Give a user of this machine somebody's proxy."""
    path = folder / f"proxy-{uid}"
    path.write_bytes(site.pki.proxies[who].certificate_file.read_bytes())
    path.chmod(0o600)
    os.chown(path, uid, uid)
    return path


def test_each_is_served_by_his_own_proxy_and_revoked_by_his_own_name(folder: Path) -> None:
    """A stranger sees nothing; what the reader opened from the cache is on record; revoked, he has nothing either."""
    site = make_site(folder / "site", pacs="", inclusion=None, deadline=10.0)
    write_patients(site.pacs_directory, (KNEE,))
    text = site.mount_file(READER).read_text()
    many = site.mount_file("many")
    without = re.sub(r"\[credential\]\n(?:[a-z].*\n)+", "", text)
    many.write_text(without.replace("[mount]\n", "[mount]\nmulti_user = true\n"))
    point, log = folder / "grid", folder / "log"
    point.mkdir()
    with running(site) as processes:
        processes.start_pacs()
        processes.start_keystores()
        processes.start_hospital()
        trio.run(harvest_project, HospitalConfiguration.read(site.hospital_file), PROJECT)
        with log.open("wb") as told:
            command = [sys.executable, "-m", "mdmfs.cli", "mount", str(many), str(point)]
            daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=told, stderr=told)
        users: list[User] = []
        try:
            deadline = time.monotonic() + SECONDS
            while not os.path.ismount(point) and time.monotonic() < deadline and daemon.poll() is None:
                time.sleep(0.05)
            reader = User(FIRST_UID, proxy(site, READER, FIRST_UID, folder))
            stranger = User(FIRST_UID + 1, proxy(site, "stranger", FIRST_UID + 1, folder))
            users = [reader, stranger]
            assert stranger.does("list", point) == [], log.read_text()
            [path] = [Path(line) for line in reader.does("run", f"find {point} -type f | sort | head -1")]  # type: ignore[attr-defined]
            first = reader.does("read", path)
            assert [reader.does("read", path) for _ in range(3)] == [first] * 3
            assert reader.does("digest", path) == first[1]  # type: ignore[index]
            assert stranger.does("stat", path) == "ENOENT"
            trio.run(_revoke, site)
            deadline = time.monotonic() + SECONDS
            while reader.does("stat", path) != "ENOENT" and time.monotonic() < deadline:
                time.sleep(0.05)
            assert reader.does("list", point) == []
        finally:
            for user in users:
                user.end()
            if daemon.poll() is None:
                umount(point)
            assert daemon.wait(SECONDS) == 0, log.read_text()
        configuration = HospitalConfiguration.read(site.hospital_file)
        records = list(records_of(configuration.path(configuration.hospital.directory) / "audit.jsonl"))
    opened = [one for one in records if one.event is Event.CACHED_OPENS]
    assert sum(one.count for one in opened) >= 3
    assert {one.dn for one in opened} == {str(site.pki.dns[READER])}


async def _revoke(site: Site) -> None:
    configuration = HospitalConfiguration.read(site.hospital_file)
    credential = configuration.credential
    client = open_client(str(configuration.public), str(credential.subject()), credential, configuration.anchors)
    edit = Edit(EditKind.REMOVE, parse_names(f"u:{site.pki.dns[READER]}").entries)
    wish = ChangeAcl(str(Lfn((configuration.hospital.name, PROJECT))), [edit], recursive=True)
    await client.call(CHANGE_ACL_PATH, wish, ChangedAcls, deadline=trio.current_time() + SECONDS)
    await client.aclose()
