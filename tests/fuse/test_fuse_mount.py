"""A real mount over the twin hospital, used by unchanged programs from other processes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime as dt
import errno
import hashlib
import json
import mmap
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdmfs.demo.pki import make_pki
from mdmfs.model.errors import NameTakenError
from mdmfs.sealing.layout import HEADER_SIZE, SEALED_CHUNK_SIZE
from mdmfs.worker.fuse.control import CONNECTIONS
from mdmfs.worker.fuse.mount import MAX_BACKGROUND, clean_up_stale
from mdmfs.worker.service import umount
from tests.twins.mount import HOLD_SECONDS
from tests.twins.octets import octets

FOLDER = "/grid/medical/amc/003-MR"
COUNT = 6
SIZE = 300_007
BIG_FOLDER = "/grid/medical/amc/big"
BIG_SIZE = 9 * 2**20 + 5
EDGE_FOLDER = "/grid/medical/amc/edge"
SECONDS = 15


class Mount:
    """A mount in a process of its own."""

    def __init__(self, folder: Path, *, environment: dict[str, str] | None = None, **scene: object) -> None:
        self._environment = environment or {}
        self.point = folder / "mnt"
        self.cache = folder / "cache"
        self.log = folder / "log"
        self.point.mkdir(exist_ok=True)
        self._scene = {
            "folders": [[FOLDER, COUNT, SIZE], [BIG_FOLDER, 1, BIG_SIZE], [EDGE_FOLDER, 1, 32 * 1024]],
            "cache": str(self.cache),
            "mountpoint": str(self.point),
            "deadline": 4.0,
            **scene,
        }
        self.start()

    def start(self) -> None:
        """Start the process and wait until it has mounted."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.twins.mount"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | self._environment,
            )
        assert self._say(json.dumps(self._scene)) == "ready", self.log.read_text()

    def tell(self, command: str) -> str:
        """Give the twins behind the mount a command."""
        return self._say(command)

    def kill(self) -> None:
        """Do what a crash does."""
        self.process.kill()
        self.process.wait(SECONDS)
        self._close_pipes()

    def end(self) -> None:
        """Unmount, wait, and see that it has ended in order."""
        if self.process.poll() is None:
            umount(self.point)
            assert self.process.wait(SECONDS) == 0, self.log.read_text()

    def abort(self) -> None:
        """Leave nothing behind, however the test went."""
        self.process.kill()
        self.process.wait(SECONDS)
        self._close_pipes()
        subprocess.run(["umount", "-l", str(self.point)], check=False, capture_output=True)

    def _close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def file(self, number: int = 1, folder: str = FOLDER) -> Path:
        """Name a file under the mount point."""
        return self.point / folder.removeprefix("/grid/medical/") / f"{number:04}.dcm"

    def cached(self, path: Path) -> Path:
        """Find the ciphertext of a file in the cache."""
        guid = os.getxattr(path, "user.guid").decode()
        (found,) = (self.cache / "complete").glob(f"{guid}.*")
        return found

    def forget_pages(self, path: Path) -> None:
        """Let the kernel drop a file's plaintext, so that reads come to the mount again."""
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)

    def _say(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@contextlib.contextmanager
def mounted(folder: Path, *, environment: dict[str, str] | None = None, **scene: object) -> Iterator[Mount]:
    """Mount for a block, with these variables in the environment of the daemon."""
    mount = Mount(folder, environment=environment, **scene)
    try:
        yield mount
        mount.end()
    finally:
        mount.abort()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """One mount for all tests that leave it as it was."""
    with mounted(tmp_path_factory.mktemp("shared")) as mount:
        yield mount


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Mount]:
    """Mount for one test, which may break it."""
    with mounted(tmp_path) as mount:
        yield mount


def plaintext(number: int = 1, folder: str = FOLDER, size: int = SIZE) -> bytes:
    """Give what a file must hold."""
    return octets(size, f"{folder}{number}")


def run(*command: object) -> str:
    """Run a program that must succeed, and give what it prints."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def error_of(path: Path, *, flags: int = os.O_RDONLY) -> int:
    """Give the errno of opening and reading a file, 0 where it can be read whole."""
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        return error.errno or -1
    try:
        while os.read(descriptor, 2**20):
            pass
    except OSError as error:
        return error.errno or -1
    finally:
        os.close(descriptor)
    return 0


# What programs see


def test_listing_shows_exact_sizes_times_and_modes_before_anything_was_opened(shared: Mount) -> None:
    """What ``ls -l`` and ``stat`` say is what was registered, and costs no fetch."""
    before = shared.tell("fetches")
    assert len(run("ls", "-l", shared.file().parent).splitlines()) == COUNT + 1
    status = shared.file(2).stat()
    assert (status.st_size, oct(status.st_mode), status.st_mtime) == (SIZE, "0o100444", 1_500_000_000.25)
    assert status.st_blocks == -(-SIZE // 512)
    assert shared.file().parent.stat().st_mode & 0o777 == 0o555
    assert shared.tell("fetches") == before


def test_inodes_are_the_catalogues_and_stay(shared: Mount) -> None:
    """The same number at every look, and another one for every file."""
    numbers = [shared.file(number).stat().st_ino for number in range(1, COUNT + 1)]
    assert len(set(numbers)) == COUNT
    assert [entry.inode() for entry in sorted(os.scandir(shared.file().parent), key=lambda one: one.name)] == numbers


@pytest.mark.parametrize(("folder", "size"), [(FOLDER, SIZE), (BIG_FOLDER, BIG_SIZE), (EDGE_FOLDER, 32 * 1024)])
def test_every_program_reads_the_same_bytes(shared: Mount, tmp_path: Path, folder: str, size: int) -> None:
    """Plain reads, ``cat``, ``cp``, ``tar`` and ``mmap``, whole files and their digests."""
    path, expected = shared.file(1, folder), plaintext(1, folder, size)
    assert path.read_bytes() == expected
    assert run("sha256sum", path).split()[0] == hashlib.sha256(expected).hexdigest()
    run("cp", path, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == expected
    run("tar", "-C", path.parent, "-cf", tmp_path / "all.tar", ".")
    with tarfile.open(tmp_path / "all.tar") as archive:
        member = archive.extractfile("./0001.dcm")
        assert member is not None
        assert member.read() == expected
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
        assert mapped[:] == expected


def test_any_range_reads_right_without_the_page_cache(shared: Mount) -> None:
    """Reads that come to the mount itself: at chunk edges, across them, at and behind the end."""
    path, expected = shared.file(1, BIG_FOLDER), plaintext(1, BIG_FOLDER, BIG_SIZE)
    ranges = [(0, 1), (16383, 2), (16384, 16384), (5_000_001, 300_000), (BIG_SIZE - 7, 100), (BIG_SIZE, 10)]
    for offset, length in ranges:
        shared.forget_pages(path)
        with path.open("rb", buffering=0) as opened:
            opened.seek(offset)
            assert opened.read(length) == expected[offset : offset + length]


def test_readers_at_once_share_one_fetch(own: Mount) -> None:
    """Sixteen readers of one file that is still in the PACS cause one recall."""
    own.tell("slow 0.3")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: own.file(3).read_bytes(), range(16)))
    assert found == [plaintext(3)] * 16
    assert own.tell("fetches") == "1"


def test_extended_attributes_name_guid_replicas_status_and_digest(shared: Mount) -> None:
    """The digest is that of the bytes; what is not ours is refused."""
    path = shared.file(4)
    assert os.getxattr(path, "user.mdmfs.sha256").decode() == hashlib.sha256(plaintext(4)).hexdigest()
    guid = os.getxattr(path, "user.guid").decode()
    assert os.getxattr(path, "user.replicas").decode().endswith(f"/mdm/{guid}")
    assert os.getxattr(path, "user.status") == os.getxattr(path, "user.mdmfs.locality") == b"NEARLINE"
    assert sorted(os.listxattr(path)) == [
        "user.guid",
        "user.mdmfs.acl",
        "user.mdmfs.locality",
        "user.mdmfs.sha256",
        "user.replicas",
        "user.status",
    ]
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(path, "user.other")
    with pytest.raises(OSError, match="not supported"):
        os.getxattr(path, "security.selinux")


def test_any_program_can_ask_for_staging(shared: Mount) -> None:
    """Of a file or of a directory; it changes nothing and is not read."""
    for path in (shared.file(4), shared.point):
        subprocess.run(["setfattr", "-n", "user.mdmfs.stage", "-v", "1", str(path)], check=True)
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(shared.file(4), "user.mdmfs.stage")


def test_statfs_shows_the_catalogues_totals(shared: Mount) -> None:
    """``df`` is true: all bytes, all files, nothing free."""
    totals = os.statvfs(shared.point)
    size = COUNT * SIZE + BIG_SIZE + 32 * 1024
    assert totals.f_blocks * totals.f_frsize == -(-size // 4096) * 4096
    assert (totals.f_files, totals.f_bavail, totals.f_namemax) == (COUNT + 2, 0, 255)


def test_a_name_that_cannot_be_there_is_not_there(shared: Mount) -> None:
    """ENOENT for what is not listed, ENAMETOOLONG as anywhere, ENOTDIR below a file."""
    assert error_of(shared.point / "nobody") == errno.ENOENT
    assert error_of(shared.point / ("n" * 256)) == errno.ENAMETOOLONG
    assert error_of(Path(os.fsdecode(bytes(shared.point) + b"/\xff\xfe"))) == errno.ENOENT
    assert error_of(shared.file() / "below") == errno.ENOTDIR


def test_every_write_is_refused_with_erofs(shared: Mount) -> None:
    """Whatever would change something: EROFS."""
    path, folder = shared.file(), shared.file().parent
    writes = [
        lambda: os.open(folder / "new", os.O_WRONLY | os.O_CREAT),
        lambda: os.open(path, os.O_WRONLY),
        lambda: os.open(path, os.O_RDWR),
        lambda: os.open(path, os.O_RDONLY | os.O_TRUNC),
        (folder / "new").mkdir,
        path.unlink,
        folder.rmdir,
        lambda: path.rename(folder / "new"),
        lambda: (folder / "new").symlink_to("x"),
        lambda: os.mknod(folder / "new"),
        lambda: path.chmod(0o600),
        lambda: os.utime(path),
        lambda: os.truncate(path, 0),
        lambda: os.setxattr(path, "user.x", b"y"),
        lambda: os.removexattr(path, "user.guid"),
    ]
    for write in writes:
        with pytest.raises(OSError) as refused:  # noqa: PT011 the errno is checked below
            write()
        assert refused.value.errno == errno.EROFS
    with pytest.raises(PermissionError) as linked:
        os.link(path, folder / "new")
    assert linked.value.errno == errno.EPERM
    assert not os.access(path, os.W_OK)


WITHOUT_CONTROL_FILES = """
import os, sys
from mdmfs.worker.fuse.control import CONNECTIONS, connections
with connections() as folder:
    print(CONNECTIONS.is_mount(), folder == CONNECTIONS, (folder / sys.argv[1] / "max_background").read_text().strip())
    print(*(line.split()[4] for line in open("/proc/self/mountinfo") if " fusectl " in line))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root opens the kernel's control files without a mount point")
def test_the_kernels_limits_are_raised_though_nobody_has_mounted_its_control_files(shared: Mount) -> None:
    """In a mount namespace without them root finds them, and mounts them nowhere."""
    number = str(os.minor(shared.point.stat().st_dev))
    hidden = f'umount {CONNECTIONS} 2>/dev/null; exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", hidden, "sh", sys.executable, "-c", WITHOUT_CONTROL_FILES, number]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert told.splitlines() == [f"False False {MAX_BACKGROUND}", ""]


def test_o_nonblock_is_ignored(own: Mount) -> None:
    """An open that tar, grep or file makes waits for the recall like any other."""
    own.tell("slow 0.2")
    assert error_of(own.file(5), flags=os.O_RDONLY | os.O_NONBLOCK) == 0


def test_new_files_appear_and_removed_ones_go(own: Mount) -> None:
    """The feed takes a removed name back from the kernel, which would have kept it for minutes."""
    own.file(6).stat()
    own.tell(f"remove {FOLDER}/0006.dcm")
    _soon(lambda: error_of(own.file(6)) == errno.ENOENT)
    assert len(list(own.file().parent.iterdir())) == COUNT - 1


def test_a_removed_file_is_not_read_on(own: Mount) -> None:
    """Who has it open gets EACCES, also for pages that were in the kernel."""
    with own.file(2).open("rb", buffering=0) as opened:
        assert opened.read(10) == plaintext(2)[:10]
        own.tell(f"remove {FOLDER}/0002.dcm")
        _soon(lambda: _errno_of_read(opened.fileno()) == errno.EACCES)


def _errno_of_read(descriptor: int) -> int:
    try:
        os.pread(descriptor, 10, 0)
    except OSError as error:
        return error.errno or -1
    return 0


def _soon(is_true: object) -> None:
    assert callable(is_true)
    deadline = time.monotonic() + 2
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# What goes wrong


def test_with_a_dead_hospital_cached_files_read_and_others_say_so(own: Mount) -> None:
    """EHOSTUNREACH, never ENOENT; listings and what is cached live on."""
    own.file(1).read_bytes()
    run("ls", "-lR", own.point)
    own.tell("dead yes")
    own.forget_pages(own.file(1))
    assert own.file(1).read_bytes() == plaintext(1)
    assert error_of(own.file(2)) == errno.EHOSTUNREACH
    assert len(run("ls", "-l", own.file().parent).splitlines()) == COUNT + 1
    own.tell("dead no")
    assert own.file(2).read_bytes() == plaintext(2)


def test_a_recall_that_takes_too_long_ends_with_etimedout(own: Mount) -> None:
    """Not when the PACS has sent it at last."""
    own.tell("slow 600")
    assert error_of(own.file(1)) == errno.ETIMEDOUT


def test_a_refusal_is_eacces_and_a_missing_key_is_ehostunreach(own: Mount) -> None:
    """The hospital's no; two of three keystores silent; and well again when one is back."""
    own.tell("refuse yes")
    assert error_of(own.file(1)) == errno.EACCES
    own.tell("refuse no")
    own.tell("silence k1")
    assert error_of(own.file(1)) == 0
    own.tell("silence k1 k2")
    time.sleep(HOLD_SECONDS + 0.1)
    assert error_of(own.file(2)) == errno.EHOSTUNREACH
    assert own.file(2).stat().st_size == SIZE


def test_a_stranger_is_refused_by_the_keystores_with_eacces(tmp_path: Path) -> None:
    """Ciphertext alone shows nothing."""
    with mounted(tmp_path, reader="/DC=org/DC=demo/CN=stranger") as mount:
        assert error_of(mount.file(1)) == errno.EACCES


def flip(sealed: bytearray) -> None:
    """Flip one bit in the middle."""
    sealed[len(sealed) // 2] ^= 1


def flip_header(sealed: bytearray) -> None:
    """Flip one bit of the commitment, when the key is gone that needs it no more."""
    time.sleep(HOLD_SECONDS)
    sealed[HEADER_SIZE - 1] ^= 1


def cut(sealed: bytearray) -> None:
    """Lose the end."""
    del sealed[-100:]


def cut_at_edge(sealed: bytearray) -> None:
    """Lose the whole last chunk."""
    del sealed[HEADER_SIZE + (len(sealed) - HEADER_SIZE) // SEALED_CHUNK_SIZE * SEALED_CHUNK_SIZE :]


def swap(sealed: bytearray) -> None:
    """Swap the second and the third chunk."""
    second = slice(HEADER_SIZE + SEALED_CHUNK_SIZE, HEADER_SIZE + 2 * SEALED_CHUNK_SIZE)
    third = slice(HEADER_SIZE + 2 * SEALED_CHUNK_SIZE, HEADER_SIZE + 3 * SEALED_CHUNK_SIZE)
    sealed[second], sealed[third] = sealed[third], sealed[second]


@pytest.mark.parametrize("damage", [flip, flip_header, cut, cut_at_edge, swap])
@pytest.mark.parametrize(("folder", "size"), [(FOLDER, SIZE), (BIG_FOLDER, BIG_SIZE)])
def test_damaged_ciphertext_in_the_cache_is_fetched_anew_never_read(
    shared: Mount, folder: str, size: int, damage: object
) -> None:
    """One fresh fetch, and the right bytes."""
    assert callable(damage)
    path = shared.file(1, folder)
    path.read_bytes()
    shared.forget_pages(path)
    cached = shared.cached(path)
    sealed = bytearray(cached.read_bytes())
    damage(sealed)
    cached.write_bytes(sealed)
    before = int(shared.tell("fetches"))
    assert path.read_bytes() == plaintext(1, folder, size)
    shared.forget_pages(path)
    assert path.read_bytes() == plaintext(1, folder, size)
    assert int(shared.tell("fetches")) == before + 1


def test_damage_with_a_dead_hospital_is_an_error_and_no_byte(own: Mount) -> None:
    """Where nothing sound can be had, nothing is given."""
    path = own.file(1)
    path.read_bytes()
    own.forget_pages(path)
    cached = own.cached(path)
    sealed = bytearray(cached.read_bytes())
    flip_header(sealed)
    cached.write_bytes(sealed)
    own.tell("dead yes")
    assert error_of(path) == errno.EHOSTUNREACH


def test_a_stream_cut_short_is_an_error_not_the_end_of_the_file(own: Mount) -> None:
    """What came before is not served as a whole file, nothing of it stays, and the next open fetches anew."""
    path = own.file(1, BIG_FOLDER)
    own.tell("cut 6000000")
    assert error_of(path) == errno.EHOSTUNREACH
    assert not list((own.cache / "complete").iterdir())
    own.tell("cut ")
    assert path.read_bytes() == plaintext(1, BIG_FOLDER, BIG_SIZE)


def test_the_head_of_a_large_file_reads_while_the_rest_is_still_coming(own: Mount) -> None:
    """Open returns with the first megabyte; a read beyond waits, and is not answered short."""
    whole = plaintext(1, BIG_FOLDER, BIG_SIZE)
    own.tell("stop_after 3000000")
    with own.file(1, BIG_FOLDER).open("rb", buffering=0) as opened, concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert opened.read(1000) == whole[:1000]
        end = pool.submit(os.pread, opened.fileno(), 1000, BIG_SIZE - 500)
        assert not concurrent.futures.wait([end], timeout=0.3).done
        own.tell("stop_after ")
        assert end.result(SECONDS) == whole[-500:]


def test_a_fault_of_the_program_costs_one_eio_not_the_mount(own: Mount) -> None:
    """An exception that nobody foresaw becomes EIO, with an incident in the log; the mount lives on."""
    own.file(1).read_bytes()
    own.tell("broken yes")
    assert error_of(own.file(2)) == errno.EIO
    own.tell("broken no")
    assert own.file(1).read_bytes() == plaintext(1)
    assert "incident" in own.log.read_text()


# Life


def test_a_killed_reader_is_freed_from_a_waiting_open(own: Mount) -> None:
    """Though the recall would take ten minutes."""
    own.tell("slow 600")
    reader = subprocess.Popen(["cat", str(own.file(1))], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    reader.send_signal(signal.SIGKILL)
    assert reader.wait(SECONDS) == -signal.SIGKILL


def test_listing_does_not_wait_behind_waiting_opens(own: Mount) -> None:
    """Two hundred blocked opens leave ``ls`` and cached files alone."""
    own.file(2).read_bytes()
    own.tell("slow 60")
    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        blocked = [pool.submit(error_of, own.file(1)) for _ in range(200)]
        time.sleep(0.7)
        run("ls", "-l", own.file().parent)
        assert own.file(2).read_bytes() == plaintext(2)
        assert not any(one.done() for one in blocked)
        assert {one.result() for one in blocked} == {errno.ETIMEDOUT}


def test_after_kill_9_the_same_mount_point_mounts_again_and_nothing_incomplete_stays(own: Mount) -> None:
    """No manual clean-up: neither of the mount point nor of the cache."""
    own.tell("stop_after 3000000")
    with contextlib.suppress(OSError), own.file(1, BIG_FOLDER).open("rb"):
        assert list((own.cache / "arriving").iterdir())
        own.kill()
    assert error_of(own.file(1)) == errno.ENOTCONN
    own.start()
    assert not list((own.cache / "arriving").iterdir())
    assert own.file(1).read_bytes() == plaintext(1)


def test_the_cache_holds_no_plaintext_and_belongs_to_its_owner_alone(own: Mount) -> None:
    """Not one page of any file can be found in it."""
    for number in range(1, COUNT + 1):
        own.file(number).read_bytes()
    stored = b"".join(path.read_bytes() for path in own.cache.rglob("*") if path.is_file())
    assert len(stored) > COUNT * SIZE
    for number in range(1, COUNT + 1):
        assert plaintext(number)[:64] not in stored
        assert plaintext(number)[-64:] not in stored
    assert {oct(path.stat().st_mode & 0o777) for path in own.cache.rglob("*") if path.is_file()} == {"0o600"}
    assert {oct(path.stat().st_mode & 0o777) for path in (own.cache, *own.cache.glob("*/"))} == {"0o700"}


def test_a_start_that_fails_leaves_what_a_killed_daemon_left(own: Mount, tmp_path: Path) -> None:
    """An empty directory in its place would look as if the images were gone."""
    own.kill()
    make_pki(tmp_path / "pki", keystores=1, now=dt.datetime.now(dt.UTC))
    file = tmp_path / "mount.toml"
    file.write_text(
        f"""trust = "{tmp_path / "pki" / "ca.pem"}"
[hospital]
address = "127.0.0.1:1"
dn = "/O=x/CN=hospital"
[credential]
proxy = "{tmp_path / "pki" / "reader.proxy"}"
[cache]
directory = "/proc/nothing"
[[keystores]]
name = "k1"
address = "127.0.0.1:1"
dn = "/O=x/CN=k1"
"""
    )
    started = subprocess.run(
        [sys.executable, "-m", "mdmfs.cli", "mount", file, own.point], check=False, capture_output=True, text=True
    )
    assert "the cache /proc/nothing cannot be used" in started.stderr
    assert error_of(own.file(1)) == errno.ENOTCONN


def test_a_live_mount_is_not_taken_for_a_stale_one(own: Mount) -> None:
    """Not even when its hospital is away: a second mount is refused, the first goes on."""
    assert own.file(2).read_bytes() == plaintext(2)  # it has been heard: else the first open says so at once
    own.tell("dead yes")
    with pytest.raises(NameTakenError, match="mounted already"):
        clean_up_stale(own.point)
    own.tell("dead no")
    assert own.file(1).read_bytes() == plaintext(1)


@pytest.mark.parametrize("way", ["a link to it", "a link above it"])
def test_what_a_link_leads_to_is_unmounted(own: Mount, way: str) -> None:
    """By whatever name somebody knows his mount."""
    link = own.point.parent / "link"
    link.symlink_to(own.point if way == "a link to it" else own.point.parent)
    try:
        umount(link if way == "a link to it" else link / own.point.name)
        assert own.process.wait(SECONDS) == 0, own.log.read_text()
        assert not own.point.is_mount()
    finally:
        link.unlink()


def test_sigterm_frees_a_reader_who_waits_for_bytes(own: Mount) -> None:
    """And threads that push, so that the process ends."""
    own.tell("stop_after 3000000")
    path = own.file(1, BIG_FOLDER)
    reader = subprocess.Popen(["cat", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.6)
    own.process.send_signal(signal.SIGTERM)
    assert own.process.wait(8) == 0, own.log.read_text()
    assert reader.wait(3) != 0


def test_sighup_ends_no_mount(own: Mount) -> None:
    """It is what people send to a daemon whose configuration they changed; programs read on."""
    with own.file().open("rb", buffering=0) as stream:
        beginning = stream.read(1000)
        own.process.send_signal(signal.SIGHUP)
        assert own.file(2).read_bytes() == plaintext(2)
        assert beginning + stream.read(SIZE) == plaintext()
    assert own.process.poll() is None


def test_sigterm_unmounts_and_ends(own: Mount) -> None:
    """Also while somebody has a file open."""
    own.file(1).read_bytes()
    with own.file(1).open("rb"):
        own.process.send_signal(signal.SIGTERM)
        assert own.process.wait(5) == 0, own.log.read_text()
    assert not os.path.ismount(own.point)
