"""Two hospitals on one real mount: one that is dead is in nobody's way but its own."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuse.test_fuse_mount import FOLDER, SECONDS, Mount, error_of, mounted, plaintext

UMC = b"umc" * 1000


@pytest.fixture
def joined(tmp_path: Path) -> Iterator[Mount]:
    """Give a mount of ``amc``, which obeys, and ``umc``."""
    with mounted(tmp_path, beside=["umc"], lease=1.0, lease_wait=1.0) as made:
        yield made


def how_all_are(mount: Mount) -> str:
    """Ask the mount how its hospitals are."""
    return os.getxattr(mount.point, "user.mdmfs.why").decode()


def test_one_hospital_dies_and_the_other_goes_on(joined: Mount) -> None:
    """The root lists both, at once; what lies at the dead one is an error that is no ENOENT, until it is back."""
    theirs = joined.point / "umc" / "p" / "0001.dcm"
    assert sorted(os.listdir(joined.point)) == ["amc", "umc"]  # noqa: PTH208 names
    assert joined.file().read_bytes() == plaintext(1)
    assert theirs.read_bytes() == UMC
    before = os.statvfs(joined.point).f_files
    joined.tell("dead yes")
    other = joined.point / FOLDER.removeprefix("/grid/medical/") / "0002.dcm"
    assert error_of(other) in {errno.ETIMEDOUT, errno.EHOSTUNREACH}
    subprocess.run(["ls", "-l", joined.point], capture_output=True, check=True)
    subprocess.run(["cp", theirs, joined.point.parent / "copy"], check=True)
    assert (joined.point.parent / "copy").read_bytes() == UMC
    assert os.statvfs(joined.point).f_files == before
    begun = time.monotonic()
    while "amc: heard" in how_all_are(joined):
        assert time.monotonic() - begun < SECONDS
        time.sleep(0.1)
    assert "umc: heard" in how_all_are(joined)
    assert theirs.read_bytes() == UMC
    joined.tell("dead no")
    while "umc: heard" in how_all_are(joined) and "amc: heard" not in how_all_are(joined):
        assert time.monotonic() - begun < SECONDS
        time.sleep(0.1)
    assert other.read_bytes() == plaintext(2)
