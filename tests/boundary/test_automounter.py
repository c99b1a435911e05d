"""The command below an automounter, which makes everybody wait who is not of its process group."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mdmfs.worker.fuse.automounted import taken_away_when_killed
from mdmfs.worker.fuse.mountinfo import entry_of
from mdmfs.worker.service import umount
from tests.twins.automounter import automounter
from tests.twins.certificates import authority

SECONDS = 30
CONFIGURATION = """
trust = "ca.pem"

[mount]
multi_user = true

[cache]
directory = "cache"

[hospital]
address = "127.0.0.1:9"
dn = "/CN=hospital"

[[keystores]]
name = "keystore-1"
address = "127.0.0.1:9"
dn = "/CN=keystore"
"""
needs_autofs = pytest.mark.skipif(
    os.geteuid() != 0 or "autofs" not in Path("/proc/filesystems").read_text(), reason="needs root and autofs"
)


pytestmark = needs_autofs


@pytest.fixture(scope="module")
def point(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a place at which a mount is made when somebody looks."""
    tmp_path = tmp_path_factory.mktemp("automounted")
    (tmp_path / "ca.pem").write_bytes(authority().certificate.public_bytes(Encoding.PEM))
    (tmp_path / "mount.toml").write_text(CONFIGURATION)
    folder = tmp_path / "auto"
    folder.mkdir()
    point = folder / "medical"
    command = [sys.executable, "-m", "mdmfs.cli", "mount", "--daemon", "--log", str(tmp_path / "log")]
    with automounter(folder, point.name, [*command, str(tmp_path / "mount.toml"), str(point)]):
        try:
            yield point
        finally:
            umount(point)


def look(point: Path) -> int:
    """Look as somebody who is not of the automounter's group, and name the daemon that answers."""
    looked = subprocess.run(
        ["stat", "--format=%F", f"{point}/."],
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=SECONDS,
        check=False,
    )
    assert looked.stdout == "directory\n", looked.stderr
    assert entry_of(point) is not None
    return int(os.getxattr(point, "user.mdmfs.pid"))


def test_an_automounter_gets_its_mount_and_the_daemon_leaves_its_group(point: Path) -> None:
    """Who looked is let in when the command has returned, and the daemon outlives the automounter's group."""
    daemon = look(point)
    assert os.getsid(daemon) == os.getpgid(daemon) == daemon
    with pytest.raises(OSError, match=os.strerror(errno.EACCES)):
        list(point.iterdir())  # nobody has a proxy here


def test_where_a_daemon_is_killed_the_next_look_mounts_anew(point: Path) -> None:
    """Its mount goes with it: a mount that nobody serves would keep the automounter from making another."""
    daemon = look(point)
    os.kill(daemon, signal.SIGKILL)
    deadline = time.monotonic() + SECONDS
    while entry_of(point) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert look(point) != daemon


def test_who_has_taken_his_mount_away_leaves_the_next_one_alone(point: Path) -> None:
    """It may have the number that his had."""
    daemon = look(point)
    with taken_away_when_killed(point) as dismiss:
        dismiss()
        dismiss()
    assert look(point) == daemon
