"""The command below an automounter, which makes everybody wait who is not of its process group."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mdmfs.worker.fuse.mount import entry_of
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


@needs_autofs
def test_an_automounter_gets_its_mount_and_the_daemon_leaves_its_group(tmp_path: Path) -> None:
    """Who looked is let in when the command has returned, and the daemon outlives the automounter's group."""
    (tmp_path / "ca.pem").write_bytes(authority().certificate.public_bytes(Encoding.PEM))
    (tmp_path / "mount.toml").write_text(CONFIGURATION)
    folder = tmp_path / "auto"
    folder.mkdir()
    point = folder / "medical"
    command = [sys.executable, "-m", "mdmfs.cli", "mount", "--daemon", "--log", str(tmp_path / "log")]
    with automounter(folder, point.name, [*command, str(tmp_path / "mount.toml"), str(point)]):
        looked = subprocess.run(
            ["stat", "--format=%F", f"{point}/."],
            capture_output=True,
            text=True,
            start_new_session=True,
            timeout=SECONDS,
            check=False,
        )
        try:
            assert looked.stdout == "directory\n", looked.stderr
            assert entry_of(point) is not None
            daemon = int(os.getxattr(point, "user.mdmfs.pid"))
            assert os.getsid(daemon) == os.getpgid(daemon) == daemon
            with pytest.raises(OSError, match=os.strerror(errno.EACCES)):
                list(point.iterdir())  # nobody has a proxy here
        finally:
            umount(point)
