"""What happens to a mount in its life: unmounted lazily, stopped and continued, its clock set, read in every way."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdmfs.cli.find import shown_path
from mdmfs.cli.mounted import find_place
from mdmfs.model.errors import ConfigurationError, NameTakenError, PeerTimedOutError, UnusableFileError
from mdmfs.model.names import Lfn
from mdmfs.worker.fuse.control import CONNECTIONS
from mdmfs.worker.fuse.mount import clean_up_stale, unmount
from mdmfs.worker.fuse.mountinfo import entries, entry_of
from tests.boundary.test_full_disk import full, small_disk
from tests.fuse.test_fuse_mount import (
    BIG_FOLDER,
    BIG_SIZE,
    COUNT,
    FOLDER,
    SECONDS,
    SIZE,
    Mount,
    error_of,
    mounted,
    plaintext,
    run,
)
from tests.twins.waiting import start_reader, until

LEASE = 1.0
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="umount -l and open_by_handle_at are root's")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """One mount for all tests that leave it as it was."""
    with mounted(tmp_path_factory.mktemp("life")) as mount:
        yield mount


# Unmounted while somebody reads


@needs_root
def test_after_umount_l_who_has_a_file_open_reads_on_and_the_daemon_ends_with_him(tmp_path: Path) -> None:
    """The name is gone at once, the handle not; nothing stays, neither a mount nor a process."""
    with mounted(tmp_path) as mount:
        descriptor = os.open(mount.file(), os.O_RDONLY)
        run("umount", "-l", mount.point)
        assert list(mount.point.iterdir()) == []
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(descriptor, SIZE, 0) == plaintext()
        assert mount.process.poll() is None
        os.close(descriptor)
        assert mount.process.wait(SECONDS) == 0, mount.log.read_text()
        assert entry_of(mount.point) is None


# What is given back, and what is not


def given_back(mount: Mount) -> list[int]:
    """Wait for the end, and tell after how many reported opens the lease was given back."""
    assert mount.process.wait(SECONDS) == 0, mount.log.read_text()
    assert mount.process.stdout is not None
    told = re.fullmatch(r"given back after (.*) opens", mount.process.stdout.read().strip())
    assert told is not None
    return list(json.loads(told[1]))


@pytest.mark.parametrize("end", ["umount", "SIGTERM"])
def test_a_mount_that_ends_in_order_gives_its_lease_back_after_its_last_report(tmp_path: Path, end: str) -> None:
    """A change of rights need not wait for it then."""
    with mounted(tmp_path) as mount:
        for _ in range(2):  # the second open is not seen by the hospital
            assert mount.file().read_bytes() == plaintext()
        if end == "SIGTERM":
            mount.process.send_signal(signal.SIGTERM)
        else:
            mount.end()
        assert given_back(mount) == [1]


@pytest.mark.parametrize("how", ["descriptor", "mapping"])
def test_a_daemon_told_to_end_under_an_open_file_keeps_the_lease(tmp_path: Path, how: str) -> None:
    """Who has it open reads on what the kernel has: he is shown to, and whoever takes his right away is to know."""
    with mounted(tmp_path) as mount:
        descriptor = os.open(mount.file(), os.O_RDONLY)
        view = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) if how == "mapping" else None
        if view is not None:
            assert view[:] == plaintext()
            os.close(descriptor)
        else:
            assert os.pread(descriptor, SIZE, 0) == plaintext()
        mount.process.send_signal(signal.SIGTERM)
        assert given_back(mount) == []
        if view is not None:
            view.close()
        else:
            assert os.pread(descriptor, 4096, 0) == plaintext()[:4096]
            with contextlib.suppress(OSError):
                os.close(descriptor)


@needs_root
def test_a_lease_is_given_back_after_umount_l_only_when_the_last_handle_is_closed(tmp_path: Path) -> None:
    """Until then it is held, and renewed."""
    with mounted(tmp_path, lease=1.0) as mount:
        descriptor = os.open(mount.file(), os.O_RDONLY)
        run("umount", "-l", mount.point)
        time.sleep(2.0)
        assert os.pread(descriptor, SIZE, 0) == plaintext()
        assert mount.process.poll() is None
        os.close(descriptor)
        assert given_back(mount) == [0]


@needs_root
@pytest.mark.parametrize("end", ["abort", "SIGTERM after umount -l", "umount -f"])
def test_a_connection_that_was_cut_under_an_open_file_keeps_the_lease(tmp_path: Path, end: str) -> None:
    """For the daemon it looks as if all had gone: nobody asks it anything any more, and some read on."""
    with mounted(tmp_path) as mount:
        descriptor = os.open(mount.file(), os.O_RDONLY)
        assert os.pread(descriptor, SIZE, 0) == plaintext()
        if end == "abort":
            number = os.minor(os.fstat(descriptor).st_dev)
            (CONNECTIONS / str(number) / "abort").write_text("1")
        elif end == "umount -f":
            subprocess.run(["umount", "-f", mount.point], check=False, capture_output=True)
        else:
            run("umount", "-l", mount.point)
            mount.process.send_signal(signal.SIGTERM)
        assert given_back(mount) == []
        assert os.pread(descriptor, 4096, 0) == plaintext()[:4096]
        with contextlib.suppress(OSError):
            os.close(descriptor)


@needs_root
@pytest.mark.parametrize("end", ["close", "SIGTERM"])
def test_a_mount_that_ends_late_leaves_the_next_one_at_its_place_alone(tmp_path: Path, end: str) -> None:
    """Unmounted lazily, its daemon lives on for an open handle; at its end only its own mount goes."""
    with mounted(tmp_path) as old:
        descriptor = os.open(old.file(), os.O_RDONLY)
        run("umount", "-l", old.point)
        with mounted(tmp_path) as new:
            if end == "SIGTERM":
                old.process.send_signal(signal.SIGTERM)
                assert old.process.wait(SECONDS) == 0, old.log.read_text()
            os.close(descriptor)
            assert old.process.wait(SECONDS) == 0, old.log.read_text()
            assert new.file(2).read_bytes() == plaintext(2)


@needs_root
def test_a_daemon_that_hangs_holds_up_neither_umount_nor_who_would_mount_there(tmp_path: Path) -> None:
    """Its mount is taken away, and who does that is told that something stays."""
    with mounted(tmp_path) as mount:
        mount.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(NameTakenError, match="mounted already"):
                clean_up_stale(mount.point, patience=1.0)
            with pytest.raises(PeerTimedOutError, match="is unmounted, but"):
                unmount(mount.point, patience=1.0)
            assert entry_of(mount.point) is None
        finally:
            mount.process.send_signal(signal.SIGCONT)
        assert mount.process.wait(SECONDS) == 0, mount.log.read_text()


def test_a_daemon_that_fails_leaves_what_answers_nothing_and_no_empty_directory(tmp_path: Path) -> None:
    """Somebody's ``rsync --delete`` would take that for images that are gone; the next mount takes its place."""
    with mounted(tmp_path) as mount:
        mount.tell("fault")
        assert mount.process.wait(SECONDS) != 0
        assert error_of(mount.file()) == errno.ENOTCONN
        with pytest.raises(OSError, match="not connected"):
            list(mount.point.iterdir())
        mount.kill()
        mount.start()
        assert mount.file().read_bytes() == plaintext()


def test_a_mount_below_a_link_is_found_where_the_kernel_has_it(tmp_path: Path) -> None:
    """A second one is refused, what a killed one left goes before the next, and SIGTERM takes it away."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    place = tmp_path / "real" / "mnt"
    with mounted(tmp_path / "link") as mount:
        with pytest.raises(NameTakenError, match="mounted already"):
            clean_up_stale(mount.point)
        mount.kill()
        mount.start()
        assert [entry.mountpoint for entry in entries()].count(place) == 1
        mount.process.send_signal(signal.SIGTERM)
        assert mount.process.wait(SECONDS) == 0, mount.log.read_text()
        assert entry_of(place) is None


def test_a_mount_whose_directory_got_another_name_is_taken_away_where_it_is(tmp_path: Path) -> None:
    """The kernel moves it along: what was left in the old place is not looked for."""
    (tmp_path / "before").mkdir()
    with mounted(tmp_path / "before") as mount:
        (tmp_path / "before").rename(tmp_path / "after")
        assert (tmp_path / "after" / "mnt" / "amc").is_dir()
        mount.process.send_signal(signal.SIGTERM)
        assert mount.process.wait(SECONDS) == 0
        assert entry_of(tmp_path / "after" / "mnt") is None


def test_the_unit_of_a_mount_starts_over_what_a_killed_daemon_left(tmp_path: Path) -> None:
    """What it does last leaves that; only what it does first may fail on a mount that answers nothing."""
    with mounted(tmp_path) as mount:
        mount.kill()
        for command in commands_of_unit("ExecStop", mount.point):
            assert subprocess.run(command, check=False, env={}).returncode == 0
        assert error_of(mount.file()) == errno.ENOTCONN
        for command in commands_of_unit("ExecStartPre", mount.point):
            done = subprocess.run([command[0].removeprefix("-"), *command[1:]], check=False, capture_output=True)
            assert done.returncode == 0 or command[0].startswith("-"), done.stderr
        mount.start()
        assert mount.file().read_bytes() == plaintext()
        for command in commands_of_unit("ExecStop", mount.point):
            assert subprocess.run(command, check=False, env={"MAINPID": str(mount.process.pid)}).returncode == 0
        assert entry_of(mount.point) is None


def commands_of_unit(kind: str, point: Path) -> list[list[str]]:
    """Read the commands of a mount's unit as systemd does, with the program that is tested."""
    unit = (Path(__file__).parents[2] / "systemd" / "mdmfs-mount@.service").read_text()
    told = [line.partition("=")[2] for line in unit.splitlines() if line.startswith(f"{kind}=")]
    program = f"{sys.executable} -m mdmfs.cli"
    spelled = [it.replace("/opt/mdmfs/bin/mdmfs", program).replace("%t/mdmfs/%i", str(point)) for it in told]
    return [shlex.split(command.replace("$$", "$")) for command in spelled]


# A disk that does not answer


@contextlib.contextmanager
def stuck(mount: Mount) -> Iterator[subprocess.Popen[bytes]]:
    """Have the disk answer no more, and give who waits for it; he ends with the block at the latest."""
    big = mount.file(folder=BIG_FOLDER)
    assert big.read_bytes()[:1000] == plaintext(1, BIG_FOLDER, BIG_SIZE)[:1000]
    mount.forget_pages(big)
    mount.tell("stuck")
    reader = start_reader(big)
    try:
        until(lambda: "stuck" in mount.log.read_text())
        yield reader
    finally:
        reader.kill()
        reader.wait(SECONDS)


@needs_root
@pytest.mark.parametrize("end", ["umount -l", "SIGTERM"])
def test_a_daemon_whose_disk_does_not_answer_leaves_and_says_what_it_leaves(tmp_path: Path, end: str) -> None:
    """Python would wait for the thread that reads; neither the mount nor its readers stay."""
    with mounted(tmp_path, leave=0.5) as mount:
        with stuck(mount) as reader:
            if end == "SIGTERM":
                mount.process.send_signal(signal.SIGTERM)
                assert reader.wait(SECONDS) != 0
            else:
                run("umount", "-l", mount.point)
                reader.kill()
            assert mount.process.wait(SECONDS) == 0, mount.log.read_text()
        assert "wait_for_ever (disk.py:" in mount.log.read_text()
        assert entry_of(mount.point) is None


@needs_root
def test_a_daemon_that_fails_while_its_disk_does_not_answer_leaves_as_one_that_failed(tmp_path: Path) -> None:
    """Readers are freed, its mount stays and answers nothing, and its exit code lets systemd start it again."""
    with mounted(tmp_path, leave=0.5) as mount:
        with stuck(mount) as reader:
            mount.tell("fault")
            assert mount.process.wait(SECONDS) != 0
            assert reader.wait(SECONDS) != 0
        assert error_of(mount.file()) == errno.ENOTCONN
        mount.kill()
        mount.start()
        assert mount.file().read_bytes() == plaintext()


@needs_root
def test_a_daemon_that_ends_late_leaves_alone_what_is_mounted_meanwhile(tmp_path: Path) -> None:
    """The kernel may give the next mount the same number: what was taken away at SIGTERM is not looked for again."""
    with mounted(tmp_path, leave=5.0) as old, stuck(old) as reader:
        old.process.send_signal(signal.SIGTERM)
        assert reader.wait(SECONDS) != 0
        until(lambda: entry_of(old.point) is None)
        with mounted(tmp_path) as new:
            assert old.process.poll() is None
            assert old.process.wait(SECONDS) == 0
            assert new.file(2).read_bytes() == plaintext(2)


# Several mounts of one user


def test_two_mounts_with_one_cache_directory_hold_to_its_limit_together(tmp_path: Path) -> None:
    """Both read all files, over and over; one is killed and comes back; the disk never holds more."""
    most = 3 * SIZE + 2**16
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    scene = {"cache": str(tmp_path / "cache"), "cache_size": most}
    with mounted(folders[0], **scene) as one, mounted(folders[1], **scene) as two:

        def read_all() -> None:
            for number in range(1, COUNT + 1):
                for mount in (one, two):
                    assert mount.file(number).read_bytes() == plaintext(number)
                    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.*")) <= most

        read_all()
        one.kill()
        one.start()
        read_all()
        fetched = two.tell("fetches")
        assert two.file(COUNT).read_bytes() == plaintext(COUNT)  # the one that both have opened last
        assert two.tell("fetches") == fetched


# Time


@needs_root
def test_small_files_are_read_where_the_disk_of_the_cache_is_full(tmp_path: Path) -> None:
    """From memory, again and again; a large one says that there is no room."""
    with small_disk(tmp_path / "cache", "2m"), mounted(tmp_path) as mount, full(tmp_path / "cache"):
        for _ in range(2):
            for number in range(1, COUNT + 1):
                assert mount.file(number).read_bytes() == plaintext(number)
                mount.forget_pages(mount.file(number))
        assert error_of(mount.file(1, BIG_FOLDER)) == errno.ENOSPC
        assert not list((tmp_path / "cache" / "complete").iterdir())


def test_a_daemon_stopped_for_longer_than_its_lease_goes_on_and_so_do_its_readers(tmp_path: Path) -> None:
    """As after a suspend: who reads meanwhile waits, gets the right bytes, and no error."""
    with mounted(tmp_path, lease=LEASE) as mount:
        path, got = mount.file(), []
        descriptor = os.open(path, os.O_RDONLY)
        assert os.pread(descriptor, 1000, 0) == plaintext()[:1000]
        mount.process.send_signal(signal.SIGSTOP)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        waiting = [
            threading.Thread(target=lambda: got.append(os.pread(descriptor, SIZE, 0))),
            threading.Thread(target=lambda: got.append(mount.file(2).read_bytes())),
        ]
        for one in waiting:
            one.start()
        time.sleep(2 * LEASE)
        assert got == []
        mount.process.send_signal(signal.SIGCONT)
        for one in waiting:
            one.join(SECONDS)
        assert sorted(got) == sorted([plaintext(), plaintext(2)])
        os.close(descriptor)


FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


@pytest.mark.skipif(FAKETIME is None, reason="the package libfaketime is not installed")
def test_a_wall_clock_that_is_set_changes_nothing_for_readers(tmp_path: Path) -> None:
    """Ten years forward, twenty back: lease, listings and pages go by clocks that nobody sets."""
    told = tmp_path / "clock"
    told.write_text("+0")
    clock = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(told),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with mounted(tmp_path, lease=LEASE, environment=clock) as mount, mount.file().open("rb", buffering=0) as opened:
        year = int(mount.tell("year"))
        for number, (jump, years) in enumerate([("+10y", 10), ("-10y", -10)], 2):
            told.write_text(jump)
            assert abs(int(mount.tell("year")) - year - years) <= 1
            time.sleep(1.5 * LEASE)
            mount.forget_pages(mount.file())
            assert os.pread(opened.fileno(), SIZE, 0) == plaintext()
            assert mount.file(number).read_bytes() == plaintext(number)
            assert mount.file(number).stat().st_size == SIZE


@needs_root
def test_umount_says_which_process_keeps_a_mount_that_a_container_or_job_was_started_under(tmp_path: Path) -> None:
    """It has mounts of its own, and still sees it; its end is the daemon's."""
    with mounted(tmp_path) as mount:
        keeper = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", "echo begun; read -r line"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with keeper:
            assert keeper.stdout is not None
            keeper.stdout.readline()
            with pytest.raises(PeerTimedOutError, match=f"process {keeper.pid} ") as refused:
                unmount(mount.point, patience=1.0)
            assert f"kill {mount.process.pid} " in refused.value.what_to_do
            assert entry_of(mount.point) is None
        assert mount.process.wait(SECONDS) == 0


@needs_root
def test_umount_of_another_users_mount_says_whose_it_is(tmp_path: Path) -> None:
    """Nobody need look for programs that use it."""
    with mounted(tmp_path) as mount:
        os.setresuid(65534, 65534, 0)
        try:
            with pytest.raises(UnusableFileError, match="is the mount of user 0"):
                unmount(mount.point, patience=1.0)
        finally:
            os.setresuid(0, 0, 0)
        assert mount.file(1).exists()


# Other ways to it

CONFIGURATION = """trust = "ca.pem"
[hospital]
address = "127.0.0.1:1"
dn = "/CN=hospital"
[[keystores]]
name = "one"
address = "127.0.0.1:2"
dn = "/CN=one"
"""


@needs_root
def test_a_path_on_a_bind_mount_or_through_a_link_names_what_it_shows(tmp_path: Path) -> None:
    """A link on the mount is a name like others; whoever takes the bind mount away waits for no daemon."""
    (tmp_path / "mount.toml").write_text(CONFIGURATION)
    bound, link = tmp_path / "bound", tmp_path / "link"
    with mounted(tmp_path, configuration=str(tmp_path / "mount.toml")) as mount:
        below = mount.file().relative_to(mount.point)
        bound.mkdir()
        link.symlink_to("mnt/amc")
        (tmp_path / "round").symlink_to("round")
        run("mount", "--bind", mount.point / "amc", bound)
        try:
            lfn = Lfn.parse(f"/grid/medical/{below}")
            for path in (mount.file(), bound / below.relative_to("amc"), link / below.relative_to("amc")):
                place = find_place(str(path), None)
                assert place.lfn == lfn
                assert Path(shown_path(str(lfn), place)).samefile(path)
            for path in (tmp_path, tmp_path / "round" / "amc"):
                with pytest.raises(ConfigurationError, match="is not on a mount"):
                    find_place(str(path), None)
        finally:
            unmount(bound)
        assert entry_of(bound) is None
        assert mount.file().read_bytes() == plaintext()


# Listing

MANY, MANY_COUNT = "/grid/medical/amc/many", 3000


def test_two_listings_at_once_show_each_name_once_while_names_come_and_go(tmp_path: Path) -> None:
    """One that was begun shows the directory as it was then, the next one as it is."""
    with mounted(tmp_path, folders=[[MANY, MANY_COUNT, 10]]) as mount:
        folder = mount.file(1, MANY).parent
        before = [f"{number:04}.dcm" for number in range(1, MANY_COUNT + 1)]
        with os.scandir(folder) as first, os.scandir(folder) as second:
            seen = [[next(one).name for _ in range(count)] for one, count in ((first, 10), (second, 1000))]
            mount.tell(f"remove {MANY}/0001.dcm")
            mount.tell(f"remove {MANY}/2900.dcm")
            mount.tell(f"add {MANY}/new.dcm")
            now = sorted({*before, "new.dcm"} - {"0001.dcm", "2900.dcm"})
            deadline = time.monotonic() + SECONDS
            while sorted(os.listdir(folder)) != now:  # noqa: PTH208 names
                assert time.monotonic() < deadline
                time.sleep(0.05)
            seen[1] += [next(second).name]
            seen[0] += [one.name for one in first]
            seen[1] += [one.name for one in second]
        assert [sorted(names) for names in seen] == [before, before]


# Ways to read

_SETUP, _ENTER = 425, 426
_GET_EVENTS, _READ = 1, 22
_PARAMS = struct.Struct("=10I 10I 10I")
_REQUEST = struct.Struct("=BBHiQQIIQ24x")


def read_by_io_uring(path: Path, length: int) -> bytes:
    """Read a file by one request of io_uring(7), without a library; raises ``OSError``."""
    libc = ctypes.CDLL(None, use_errno=True)
    params = ctypes.create_string_buffer(_PARAMS.size)
    ring = libc.syscall(_SETUP, 1, params)
    if ring < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        told = _PARAMS.unpack(params.raw)
        submitted, completed = told[10:20], told[20:30]
        buffer = mmap.mmap(-1, length)
        address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        with mmap.mmap(ring, 4096) as queue, mmap.mmap(ring, 4096, offset=0x10000000) as requests:
            requests[: _REQUEST.size] = _REQUEST.pack(_READ, 0, 0, descriptor, 0, address, length, 0, 7)
            queue[submitted[6] : submitted[6] + 4] = struct.pack("=I", 0)
            queue[submitted[1] : submitted[1] + 4] = struct.pack("=I", 1)
            assert libc.syscall(_ENTER, ring, 1, 1, _GET_EVENTS, None, 0) == 1
            tag, result = struct.unpack_from("=Qi", queue, completed[5])
        assert tag == 7
        if result < 0:
            raise OSError(-result, "io_uring read")
        return bytes(buffer.read(result))
    finally:
        os.close(descriptor)
        os.close(ring)


def read_by_sendfile(path: Path, length: int) -> bytes:
    """Let the kernel copy to another file, as ``cp`` and web servers do."""
    descriptor, copy = os.open(path, os.O_RDONLY), os.memfd_create("copy")
    offset = 0
    while offset < length:
        offset += os.sendfile(copy, descriptor, offset, length - offset)
    os.close(descriptor)
    found = os.pread(copy, length + 1, 0)
    os.close(copy)
    return found


def read_by_splice(path: Path, length: int) -> bytes:
    """Let the kernel move pages to a pipe."""
    descriptor, (end, begin) = os.open(path, os.O_RDONLY), os.pipe()
    found = b""
    while len(found) < length:
        found += os.read(end, os.splice(descriptor, begin, 65536))
    for one in (descriptor, end, begin):
        os.close(one)
    return found


def read_by_copy_file_range(path: Path, length: int) -> bytes:
    """Ask for a copy without going through the program; across file systems it may be refused."""
    descriptor, copy = os.open(path, os.O_RDONLY), os.memfd_create("copy")
    try:
        while os.copy_file_range(descriptor, copy, 2**20):
            pass
        return os.pread(copy, length + 1, 0)
    except OSError as error:
        assert error.errno in {errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL}  # noqa: PT017 programs fall back
        return path.read_bytes()
    finally:
        os.close(descriptor)
        os.close(copy)


@pytest.mark.parametrize("read", [read_by_io_uring, read_by_sendfile, read_by_splice, read_by_copy_file_range])
@pytest.mark.parametrize(("folder", "size"), [(FOLDER, SIZE), (BIG_FOLDER, BIG_SIZE)])
def test_every_system_call_that_reads_gives_the_same_bytes(shared: Mount, read: object, folder: str, size: int) -> None:
    """Cold pages and warm ones."""
    assert callable(read)
    path = shared.file(1, folder)
    for _ in range(2):
        try:
            assert read(path, size) == plaintext(1, folder, size)
        except OSError as error:
            if read is read_by_io_uring and error.errno in {errno.ENOSYS, errno.EPERM}:
                pytest.skip("this kernel does not allow io_uring")
            raise
        shared.forget_pages(path)


def test_a_file_can_be_locked_like_any_other(shared: Mount) -> None:
    """``flock`` and ``fcntl`` keep others on this machine out."""
    with shared.file().open("rb") as first, shared.file().open("rb") as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(first, fcntl.LOCK_UN)
        fcntl.flock(second, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.lockf(first, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert run("flock", "--nonblock", "--shared", shared.file(), "echo", "held").strip() == "held"


def test_programs_that_copy_and_count_find_the_exact_sizes(shared: Mount, tmp_path: Path) -> None:
    """``cp --reflink=auto``, ``du``, ``df`` and ``find -size``, none of them having opened a file before."""
    folder, fetches = shared.file(3).parent, shared.tell("fetches")
    assert int(run("du", "--apparent-size", "--bytes", "--summarize", folder).split()[0]) >= COUNT * SIZE
    assert int(run("du", "--block-size=512", shared.file(3)).split()[0]) == -(-SIZE // 512)
    assert len(run("find", folder, "-type", "f", "-size", f"{SIZE}c").splitlines()) == COUNT
    kind, size = run("df", "--block-size=1", "--output=fstype,size", shared.point).splitlines()[1].split()
    assert (kind, int(size) >= COUNT * SIZE + BIG_SIZE) == ("fuse.mdmfs", True)
    assert shared.tell("fetches") == fetches
    run("cp", "--reflink=auto", "--preserve=all", shared.file(3), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == plaintext(3)
    assert (tmp_path / "copy").stat().st_mtime == shared.file(3).stat().st_mtime


@pytest.mark.skipif(shutil.which("rsync") is None, reason="the package rsync is not installed")
def test_rsync_copies_once_and_finds_nothing_to_do_the_second_time(shared: Mount, tmp_path: Path) -> None:
    """By size and time alone; and by checksum, too."""
    source = f"{shared.file().parent}/"
    run("rsync", "--archive", source, tmp_path / "copy")
    assert (tmp_path / "copy/0004.dcm").read_bytes() == plaintext(4)
    for how in ("--archive", "--checksum"):
        assert run("rsync", "--recursive", how, "--itemize-changes", source, tmp_path / "copy") == ""


@pytest.mark.skipif(shutil.which("getfattr") is None, reason="the package attr is not installed")
def test_getfattr_shows_all_there_is_and_tar_takes_it_along(shared: Mount, tmp_path: Path) -> None:
    """As ``gfal-xattr`` would: the names that are listed all have a value."""
    told = run("getfattr", "--absolute-names", "-d", shared.file(5))
    guid = os.getxattr(shared.file(5), "user.guid").decode()
    assert f'user.guid="{guid}"' in told
    assert len([line for line in told.splitlines() if "=" in line]) == len(os.listxattr(shared.file(5)))
    run("tar", "--xattrs", "-C", shared.file(5).parent, "-cf", tmp_path / "one.tar", "0005.dcm")
    assert guid.encode() in (tmp_path / "one.tar").read_bytes()


REOPEN = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
handle = ctypes.create_string_buffer((128).to_bytes(4, sys.byteorder) + bytes(132))
number = ctypes.c_int()
if libc.name_to_handle_at(-100, sys.argv[1].encode(), handle, ctypes.byref(number), 0) < 0:
    sys.exit(errno.errorcode[ctypes.get_errno()])
point = os.open(sys.argv[2], os.O_RDONLY)
print(handle.raw.hex())
for line in sys.stdin:
    handle = ctypes.create_string_buffer(bytes.fromhex(line))
    found = libc.open_by_handle_at(point, handle, os.O_RDONLY)
    print(errno.errorcode[ctypes.get_errno()] if found < 0 else "opened", flush=True)
"""


@needs_root
def test_what_a_file_server_remembers_of_a_file_is_stale_when_the_kernel_has_forgotten_it(shared: Mount) -> None:
    """NFS servers name files by handles. We give none that last: ESTALE, cleanly, and never another file."""
    command = [sys.executable, "-c", REOPEN, str(shared.file(6)), str(shared.point)]
    first = subprocess.run(command, input="", capture_output=True, text=True, check=False, timeout=SECONDS)
    if first.returncode == 0:
        handle = bytearray(bytes.fromhex(first.stdout.strip()))
        handle[8:16] = (2**40 + 5).to_bytes(8, sys.byteorder)
        second = subprocess.run(
            command, input=handle.hex(), capture_output=True, text=True, check=True, timeout=SECONDS
        )
        assert second.stdout.split()[-1] == "ESTALE"
    else:
        assert first.stderr.strip() in {"EOPNOTSUPP", "EACCES"}
    assert error_of(shared.file(6)) == 0
