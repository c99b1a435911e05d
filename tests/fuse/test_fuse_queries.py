"""Query directories on a real mount, looked at by unchanged programs."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuse.test_fuse_mount import COUNT, FOLDER, Mount, error_of, mounted, plaintext, run

QUERY = 'Modality == "MR"'
ELSEWHERE = "/grid/medical/umc/005-MR"
FRESH_SECONDS = 5.0


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """Give a mount of one hospital, whose users ask two."""
    found = {"amc": [[FOLDER, "MR"], ["/grid/medical/amc/big", "CT"]], "umc": [[ELSEWHERE, "MR"]]}
    with mounted(tmp_path_factory.mktemp("queries"), found=found) as made:
        yield made


def names(directory: Path) -> list[str]:
    """List a directory, sorted."""
    return sorted(entry.name for entry in directory.iterdir())


def test_a_query_is_a_directory_whose_entries_read_as_the_images_themselves(mount: Mount) -> None:
    """Links lead to the series: names, sizes and bytes are the catalogue's. ``ls`` of the mount shows none of it."""
    directory = mount.point / ".find" / QUERY
    assert names(directory) == ["amc+003-MR", "umc+005-MR"]
    assert str((directory / "amc+003-MR").readlink()) == "../../amc/003-MR"
    files = sorted((directory / "amc+003-MR").iterdir())
    assert [file.read_bytes() for file in files] == [plaintext(number) for number in range(1, COUNT + 1)]
    assert files[0].stat().st_ino == mount.file().stat().st_ino
    assert ".find" not in names(mount.point)
    assert names(mount.point / ".find") == []


def test_programs_walk_through_it(mount: Mount) -> None:
    """``find -L``, ``ls -l``, ``tar -h``."""
    directory = mount.point / ".find" / "Modality%20==%20%22CT%22"
    found = subprocess.run(["find", "-L", directory, "-type", "f"], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == [str(directory / "amc+big" / "0001.dcm")]
    subprocess.run(["ls", "-l", directory], capture_output=True, check=True)
    subprocess.run(["tar", "-chf", "/dev/null", directory], capture_output=True, check=True)


def test_what_is_no_query_and_what_cannot_be_written_say_so(mount: Mount) -> None:
    """EINVAL, ENOENT for what is not found, EROFS."""
    assert error_of(mount.point / ".find" / "Modality = 3") == errno.EINVAL
    assert error_of(mount.point / ".find" / QUERY / "amc+big") == errno.ENOENT
    with pytest.raises(OSError, match="Read-only"):
        (mount.point / ".find" / QUERY / "x").mkdir()
    with pytest.raises(OSError, match="Read-only"):
        (mount.point / ".find" / QUERY / "amc+003-MR").unlink()
    assert os.listxattr(mount.point / ".find" / QUERY) == []


def test_a_snapshot_reads_as_it_was_and_says_what_has_gone(mount: Mount) -> None:
    """A file that is withdrawn keeps its name in it, and opening it is ENODATA; new files are not in it."""
    mount.tell("freeze trial")
    directory = mount.point / ".snapshots" / "trial"
    series = directory / "series" / "amc+003-MR"
    assert names(mount.point / ".snapshots") == ["trial"]
    assert names(directory) == ["ABOUT.json", "manifest", "series"]
    assert [file.read_bytes() for file in sorted(series.iterdir())] == [plaintext(n) for n in range(1, COUNT + 1)]
    assert (series / "0001.dcm").stat().st_ino == mount.file().stat().st_ino
    held = (series / "0002.dcm").open("rb", buffering=0)
    mount.tell(f"withdraw {FOLDER}/0001.dcm")
    assert len(names(series)) == COUNT
    begun = time.monotonic()
    while error_of(series / "0001.dcm") != errno.ENODATA:
        assert time.monotonic() - begun < FRESH_SECONDS
        time.sleep(0.1)
    assert b"taken it away" in os.getxattr(series / "0001.dcm", "user.mdmfs.why")
    assert "gone: its hospital" in (directory / "manifest" / "amc+003-MR.tsv").read_text()
    assert held.read() == plaintext(2)
    held.close()
    run("tar", "-cf", "/dev/null", "--ignore-failed-read", directory)


def test_a_gap_is_named_and_what_is_hidden_goes_within_five_seconds(mount: Mount) -> None:
    """The last one: it leaves the services as it made them."""
    directory = mount.point / ".find" / QUERY
    assert names(directory) == ["amc+003-MR", "umc+005-MR"]
    begun = time.monotonic()
    mount.tell(f"hide {FOLDER}")
    while (directory / "amc+003-MR").is_symlink():
        assert time.monotonic() - begun < FRESH_SECONDS
        time.sleep(0.1)
    assert names(directory) == ["umc+005-MR"]
    mount.tell("silent umc")
    assert names(directory) == ["INCOMPLETE"]
    assert "umc did not answer" in (directory / "INCOMPLETE").read_text()
    assert error_of(directory / "umc+006-MR") == errno.ETIMEDOUT
