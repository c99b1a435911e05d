"""Programs, unchanged: gfal2, davix and rclone with a VOMS proxy; coreutils, changing names on two real mounts."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import signal
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mdmfs.cli.facl import PENDING
from mdmfs.demo.site import PROJECT, READER
from mdmfs.model.names import Guid
from tests.twins.grid_site import LISTER, MEMBER, GridSite, grid_site

SECONDS = 30.0


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridSite]:
    """One site for all tests; the lister may not read any file."""
    with grid_site(tmp_path_factory.mktemp("grid")) as site:
        allowed = site.mdmfs(
            "member",
            *("setfacl", "--configuration", str(site.mount_file("hospital")), "-R", "--timeout", "0"),
            *("-m", f"u:{LISTER.dn}:x", f"/grid/medical/amc/{PROJECT}"),
        )
        assert allowed.returncode in {0, PENDING}, allowed.stdout.decode()  # the hospital decides by it at once
        yield site


def files_below(grid: GridSite, url: str) -> list[str]:
    """Walk with davix-ls as the member."""
    listed = grid.run("member", *davix(grid, "davix-ls"), url)
    assert listed.returncode == 0, listed.stdout.decode()
    found = []
    for name in listed.stdout.decode().split():
        below = f"{url}/{name}"
        found += [below] if name.endswith(".sealed") else files_below(grid, below)
    return found


def davix(grid: GridSite, program: str, user: str = "member") -> list[str]:
    """Type a program of davix."""
    return [program, "--cert", str(grid.proxy(user)), "--capath", str(grid.anchors)]


def rclone(grid: GridSite, user: str = "member") -> list[str]:
    """Type rclone."""
    configuration = grid.folder / "rclone.conf"
    configuration.write_text(f"[mdm]\ntype = webdav\nurl = {grid.url}\nvendor = other\n")
    proxy, authorities = str(grid.proxy(user)), str(grid.site.state / "pki" / "ca.pem")
    credential = ("--client-cert", proxy, "--client-key", proxy, "--ca-cert", authorities)
    return ["rclone", "--config", str(configuration), *credential, "--retries", "1", "--low-level-retries", "1"]


@pytest.fixture(scope="module")
def urls(grid: GridSite) -> list[str]:
    """Every file, as a URL."""
    return files_below(grid, f"{grid.url}/amc/{PROJECT}")


def works(done: subprocess.CompletedProcess[bytes]) -> str:
    """Make sure that a program is content, and give what it said."""
    text = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{done.args}: {text}"
    return text


def unsealed(grid: GridSite, url: str, sealed: Path) -> None:
    """Unseal a copy with the member's proxy: what comes out is what was registered."""
    output = sealed.with_suffix(".dcm")
    status, told = grid.ask("member", "PROPFIND", path_of(url), {"Depth": "0"})
    assert status == 207
    guid = Guid.parse(told.decode().partition("<l:guid>")[2].partition("<")[0])
    typed = ("unseal", str(sealed), "--mount-config", str(grid.mount_file("member")), "--guid", str(guid))
    works(grid.mdmfs("member", *typed, "-o", str(output)))
    assert hashlib.sha256(output.read_bytes()).digest() == grid.digest(guid)


def path_of(url: str) -> str:
    """Give the path of a URL."""
    return "/" + url.split("/", 3)[3]


def test_gfal2_lists_copies_and_sums(grid: GridSite, urls: list[str], tmp_path: Path) -> None:
    """gfal-ls, gfal-stat, gfal-sum and gfal-copy with its checksum; the copy unseals."""
    url = urls[0]
    assert url.rpartition("/")[2] in works(grid.run("member", "gfal-ls", "-l", url.rpartition("/")[0]))
    assert "regular file" in works(grid.run("member", "gfal-stat", url))
    copy = tmp_path / "copy.sealed"
    works(grid.run("member", "gfal-copy", "-K", "ADLER32", url, f"file://{copy}"))
    octets = copy.read_bytes()
    assert f"{zlib.adler32(octets):08x}" in works(grid.run("member", "gfal-sum", url, "ADLER32"))
    assert hashlib.md5(octets).hexdigest() in works(grid.run("member", "gfal-sum", url, "MD5"))  # noqa: S324
    unsealed(grid, url, copy)


def test_gfal2_brings_online_polls_and_evicts(grid: GridSite, urls: list[str]) -> None:
    """The Tape REST API, found by itself; many files at once from a list."""
    url = urls[-1]
    assert "taperestapi.version = v1" in works(grid.run("member", "gfal-xattr", url))
    assert "READY" in works(grid.run("member", "gfal-archivepoll", url))
    listed = grid.folder / "urls.txt"
    listed.write_text("\n".join(urls))
    told = works(grid.run("member", "gfal-bringonline", "--polling-timeout", "30", "--from-file", str(listed)))
    assert told.count("READY") == len(urls)
    assert "ONLINE_AND_NEARLINE" in works(grid.run("member", "gfal-xattr", url, "user.status"))
    works(grid.run("member", "gfal-evict", url))


def test_davix_lists_and_gets(grid: GridSite, urls: list[str], tmp_path: Path) -> None:
    """davix-ls has walked here; davix-get brings the object that is staged."""
    copy = tmp_path / "copy.sealed"
    works(grid.run("member", *davix(grid, "davix-get"), urls[0], str(copy)))
    assert grid.ask("member", "GET", path_of(urls[0])) == (200, copy.read_bytes())


def test_rclone_copies_and_mounts(grid: GridSite, urls: list[str], tmp_path: Path) -> None:
    """A whole project; then through its own mount, the same bytes by ranges."""
    works(grid.run("member", *rclone(grid), "copy", f"mdm:amc/{PROJECT}", str(tmp_path / "copies")))
    copies = sorted((tmp_path / "copies").rglob("*.sealed"))
    assert len(copies) == len(urls)
    with rclone_mount(grid, tmp_path / "mount") as mounted:
        for copy in copies:
            same = mounted / "amc" / PROJECT / copy.relative_to(tmp_path / "copies")
            assert same.read_bytes() == copy.read_bytes()


@contextlib.contextmanager
def rclone_mount(grid: GridSite, mountpoint: Path) -> Iterator[Path]:
    """Mount with rclone; unmounted at the end."""
    mountpoint.mkdir()
    command = [*rclone(grid), "mount", "--read-only", "mdm:", str(mountpoint)]
    process = subprocess.Popen(command, env=grid.environment("member"), stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + SECONDS
        while not os.path.ismount(mountpoint):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        yield mountpoint
    finally:
        subprocess.run(["fusermount3", "-u", str(mountpoint)], check=False)
        process.terminate()
        process.wait(SECONDS)


def test_a_denied_dn_is_denied_everywhere(grid: GridSite, urls: list[str], tmp_path: Path) -> None:
    """403 for whoever may see the name and not read; 404 for whoever may not see it; no byte is written."""
    url, copy = urls[0], tmp_path / "copy.sealed"
    for user, status in (("lister", "403"), ("outsider", "404")):
        failed = grid.run(user, *davix(grid, "davix-get", user), url, str(copy))
        assert failed.returncode != 0
        assert status in failed.stdout.decode()
        for program in (
            ("gfal-copy", url, f"file://{copy}"),
            ("gfal-sum", url, "ADLER32"),
            (*rclone(grid, user), "copy", "mdm:" + url.removeprefix(grid.url + "/"), str(tmp_path / "copies")),
        ):
            assert grid.run(user, *program).returncode != 0, program
        assert status in grid.run(user, "gfal-bringonline", url).stdout.decode()  # which exits with 0
        for method in ("GET", "HEAD"):
            assert grid.ask(user, method, path_of(url))[0] == int(status)
    # davix-get makes its file before it asks
    assert b"".join(file.read_bytes() for file in tmp_path.rglob("*.sealed")) == b""


def test_mdmfs_stage_watches_through_a_restart(grid: GridSite, urls: list[str]) -> None:
    """Staged, told and released by the command, with the proxy that the VO's member has; a stranger finds nothing."""
    configuration = ("--configuration", str(grid.mount_file("member")))
    project = f"/grid/medical/amc/{PROJECT}"
    told = works(grid.mdmfs("member", "stage", project, *configuration, "--lifetime", "PT1H"))
    request = re.findall(r"^[0-9a-f]{32}$", told, re.MULTILINE)[0]
    assert f"{len(urls)} completed; {len(urls)} of {len(urls)} staged now" in told
    grid.processes.stop("hospital")
    grid.processes.start_hospital()
    assert request in works(grid.mdmfs("member", "stage", "status", *configuration))
    assert f"{len(urls)} completed" in works(grid.mdmfs("member", "stage", "release", request, *configuration))
    stranger = ("--configuration", str(grid.mount_file("outsider")))
    for typed in (("stage", project), ("stage", "status", request), ("stage", "cancel", request)):
        assert grid.mdmfs("outsider", *typed, *stranger).returncode == 1


class Mounts(NamedTuple):
    """Two mounts: one of somebody who may write, one of somebody who may read."""

    site: GridSite
    writer: Path
    reader: Path
    series: str
    """Of images, below the project."""


@pytest.fixture(scope="module")
def mounts(grid: GridSite) -> Mounts:
    """Let the member write, and mount it for him and for a reader."""
    allowed = grid.mdmfs(
        "member",
        *("setfacl", "--configuration", str(grid.mount_file("hospital")), "--timeout", "0"),
        *("-m", f"u:{MEMBER.dn}:rwx,d:u:{MEMBER.dn}:rwx", f"/grid/medical/amc/{PROJECT}"),
    )
    assert allowed.returncode in {0, PENDING}, allowed.stdout.decode()
    grid.site.mount_file("member").write_text(grid.mount_file("member").read_text())
    points = {}
    for user in (READER, "member"):
        grid.processes.start_mount(user, grid.folder / f"mount-{user}")
        points[user] = grid.folder / f"mount-{user}" / "amc" / PROJECT
    image = next(points[READER].rglob("*.dcm"))
    return Mounts(grid, points["member"], points[READER], str(image.parent.relative_to(points[READER])))


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a program that is content."""
    done = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, (command, done.stderr)
    assert not done.stderr, (command, done.stderr)
    return done.stdout


def error_of(*command: object, cwd: Path | None = None) -> str:
    """Run a program that fails, and give what it says."""
    done = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True, cwd=cwd)
    assert done.returncode != 0, command
    return done.stderr


def soon(is_there: Callable[[], bool]) -> float:
    """Wait for something on another mount, and tell how long that took."""
    begin = time.monotonic()
    while not is_there():
        assert time.monotonic() < begin + SECONDS
        time.sleep(0.01)
    return time.monotonic() - begin


def test_coreutils_make_move_copy_and_remove_names(mounts: Mounts) -> None:
    """``mkdir``, ``ln -s``, ``mv``, ``cp -a``, ``rm -r``, ``rmdir``; the other mount shows each, and reads by it."""
    mine, theirs = mounts.writer, mounts.reader
    image = min((mine / mounts.series).iterdir()).name
    run("mkdir", "-p", mine / "cohort" / "t1")
    run("ln", "-s", f"../../{mounts.series}/{image}", mine / "cohort" / "t1" / "one.dcm")
    run("ln", "-s", mine / mounts.series, mine / "cohort" / "series")  # an absolute path below the mount point
    assert (mine / "cohort" / "t1" / "one.dcm").readlink() == Path(f"../../{mounts.series}/{image}")
    assert (mine / "cohort" / "series").readlink() == Path(f"../{mounts.series}")
    plain = (mine / mounts.series / image).read_bytes()
    soon((theirs / "cohort" / "series").is_dir)
    assert (theirs / "cohort" / "t1" / "one.dcm").read_bytes() == plain
    assert (theirs / "cohort" / "series" / image).read_bytes() == plain
    run("cp", "-a", mine / "cohort", mine / "copy")
    assert run("ls", "-R", mine / "copy") == run("ls", "-R", mine / "cohort").replace("cohort", "copy")
    run("mv", mine / "copy" / "t1", mine / "t1")
    assert (mine / "t1" / "one.dcm").read_bytes() == plain  # its path is another from there, what it leads to the same
    soon(lambda: (theirs / "t1" / "one.dcm").is_file() and not (theirs / "copy" / "t1").exists())
    assert "not empty" in error_of("rmdir", mine / "t1")
    run("rm", "-r", mine / "t1", mine / "copy", mine / "cohort" / "t1")
    run("rm", mine / "cohort" / "series")
    run("rmdir", mine / "cohort")
    soon(lambda: not (theirs / "cohort").exists() and not (theirs / "t1").exists())
    assert {path.name[:4] for path in mine.iterdir()} == {"sub-"}


def test_what_is_refused_says_so(mounts: Mounts) -> None:
    """Images and what registration made are read-only; hard links, targets outside and reserved names are refused."""
    mine, theirs = mounts.writer, mounts.reader
    image = min((mine / mounts.series).iterdir())
    assert "Read-only file system" in error_of("rm", "-f", image)
    assert "Read-only file system" in error_of("mkdir", image.parent / "mine")
    assert "Read-only file system" in error_of("mv", image.parent, mine / "other")
    assert "Operation not permitted" in error_of("ln", image, mine / "second")
    assert "Invalid argument" in error_of("ln", "-s", "/etc/passwd", mine / "out")
    assert "Invalid argument" in error_of("ln", "-s", "../../../../etc/passwd", mine / "out")
    assert "Invalid argument" in error_of("mkdir", mine / "sub-mine")
    assert "Permission denied" in error_of("mkdir", theirs / "mine")
    run("ln", "-s", "nowhere/at/all", mine / "dangling")
    assert not (mine / "dangling").exists()
    run("rm", mine / "dangling")


def test_comments_are_set_listed_and_taken_back(mounts: Mounts) -> None:
    """``setfattr`` and ``getfattr -d``, on a collection by its maker; on an image it takes the right w on it."""
    mine, theirs = mounts.writer, mounts.reader
    image = min((mine / mounts.series).iterdir())
    run("mkdir", mine / "said")
    run("setfattr", "-n", "user.comment", "-v", "all with contrast", mine / "said")
    assert 'user.comment="all with contrast"' in run("getfattr", "-d", "--absolute-names", mine / "said")
    soon(lambda: (theirs / "said").exists() and "user.comment" in os.listxattr(theirs / "said"))
    assert os.getxattr(theirs / "said", "user.comment") == b"all with contrast"
    assert "Permission denied" in error_of("setfattr", "-n", "user.comment", "-v", "x", image)
    with pytest.raises(PermissionError):
        os.setxattr(theirs / "said", "user.comment", b"no")
    run("setfattr", "-x", "user.comment", mine / "said")
    assert os.listxattr(mine / "said") == ["user.mdmfs.acl"]
    with pytest.raises(OSError, match="No data") as refused:
        os.removexattr(mine / "said", "user.comment")
    assert refused.value.errno == errno.ENODATA
    run("rmdir", mine / "said")


def test_a_hospital_that_is_killed_leaves_all_or_nothing_and_nobody_sees_an_error(mounts: Mounts) -> None:
    """``mkdir`` waits for it and succeeds, once, whether it was made before the answer was lost or not."""
    mine = mounts.writer
    run("mkdir", mine / "many")
    script = "import os, sys\nfor n in range(60): os.mkdir(os.path.join(sys.argv[1], f'{n:03}'))"
    making = subprocess.Popen(["python3", "-c", script, str(mine / "many")])
    theirs = mounts.reader / "many"
    soon(lambda: theirs.exists() and len(list(theirs.iterdir())) > 5)
    mounts.site.processes.stop("hospital", signal.SIGKILL)
    mounts.site.processes.start_hospital()
    assert making.wait(SECONDS) == 0
    soon(lambda: len(list(theirs.iterdir())) == 60)
    run("rm", "-r", mine / "many")
