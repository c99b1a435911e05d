"""Readers of a real mount: in every way that there is to read, and freed when they are killed while they wait."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fuse.test_fuse_mount import (
    BIG_FOLDER,
    BIG_SIZE,
    COUNT,
    EDGE_FOLDER,
    FOLDER,
    SECONDS,
    SIZE,
    Mount,
    mounted,
    plaintext,
    run,
)
from tests.twins.random_reader import read_at_random
from tests.twins.waiting import OPEN, READ, start_reader, wait_until_in

STEPS = 400
HEADERS = "/grid/medical/amc/headers"
NEVER_READ = "/grid/medical/amc/wait"
DROPPED = [f"/grid/medical/amc/dropped-{number}" for number in range(7)]
"""With one file each, of which the kernel drops the pages."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """One mount for all of them; it ends in order, whoever waited."""
    files = [[FOLDER, COUNT, SIZE], [BIG_FOLDER, 1, BIG_SIZE], [EDGE_FOLDER, 1, 32 * 1024], [NEVER_READ, 6, BIG_SIZE]]
    files.append([HEADERS, 2, SIZE])
    files.extend([folder, 1, SIZE] for folder in DROPPED)
    with mounted(tmp_path_factory.mktemp("readers"), folders=files) as mount:
        yield mount


def test_whatever_way_a_program_reads_it_gets_the_same_bytes(shared: Mount) -> None:
    """Pread, readv, mmap, O_DIRECT, sendfile and splice in random order, pages forgotten in between."""
    files = [(shared.file(number), plaintext(number)) for number in range(1, COUNT + 1)]
    files.append((shared.file(1, BIG_FOLDER), plaintext(1, BIG_FOLDER, BIG_SIZE)))
    files.append((shared.file(1, EDGE_FOLDER), plaintext(1, EDGE_FOLDER, 32 * 1024)))
    read_at_random(files, 1, STEPS)


def test_what_people_do_all_day_works(shared: Mount, tmp_path: Path) -> None:
    """``df``, ``du``, ``find -size``, ``rsync``, ``tar``, ``cp --reflink=auto``, ``getfattr -d``, ``flock``."""
    folder, file, wanted = shared.file().parent, shared.file(), plaintext()
    assert run("df", "--output=fstype,itotal,iavail", shared.point).split()[3:] == ["fuse.mdmfs", "23", "0"]
    assert run("du", "--apparent-size", "-b", "-s", file).split()[0] == str(SIZE)
    found = run("find", folder, "-type", "f", "-size", f"{SIZE}c").splitlines()
    assert len(found) == COUNT
    run("rsync", "-a", "--no-owner", "--no-group", f"{folder}/", tmp_path / "rsync")
    assert run("rsync", "-ain", "--no-owner", "--no-group", f"{folder}/", tmp_path / "rsync") == ""
    run("tar", "-cf", tmp_path / "all.tar", "-C", folder, ".")
    (tmp_path / "tar").mkdir()
    run("tar", "-xf", tmp_path / "all.tar", "-C", tmp_path / "tar")
    run("cp", "--reflink=auto", file, tmp_path / "copy")
    for copy in (tmp_path / "rsync" / file.name, tmp_path / "tar" / file.name, tmp_path / "copy"):
        assert copy.read_bytes() == wanted
    assert "user.guid=" in run("getfattr", "-d", file)
    run("flock", "--shared", file, "true")
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
        assert mapped[:] == wanted


def test_a_signal_that_is_ignored_cancels_nothing(shared: Mount) -> None:
    """Neither one that the reader ignores nor one that nobody needs to handle: he gets his bytes."""
    shared.tell("slow 1.5")
    command = f"trap '' INT; exec cat {shared.file(5, NEVER_READ)}"
    reader = subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until_in(reader.pid, OPEN)
    for number in (signal.SIGINT, signal.SIGWINCH, signal.SIGCHLD):
        reader.send_signal(number)
        time.sleep(0.2)
    out, err = reader.communicate(timeout=SECONDS)
    assert (out, err, reader.returncode) == (plaintext(5, NEVER_READ, BIG_SIZE), b"", 0)


def test_a_header_read_by_python_in_its_usual_pieces_recalls_no_pixels(shared: Mount) -> None:
    """As pydicom reads: what Python reads ahead of its own is not more than comes with a header."""
    shared.tell("headers yes")
    before = shared.tell("fetches")
    with shared.file(1, HEADERS).open("rb") as opened:
        assert opened.read(900) == plaintext(1, HEADERS)[:900]
    assert shared.tell("fetches") == before
    shared.tell("headers no")


def test_who_reads_the_end_of_a_file_that_is_open_by_its_header_recalls_no_pixels(shared: Mount) -> None:
    """The last page is not pushed, since few read it; the kernel asks for it alone."""
    shared.tell("headers yes")
    before = shared.tell("fetches")
    wanted = plaintext(2, HEADERS)
    with shared.file(2, HEADERS).open("rb", buffering=0) as opened:
        assert opened.read(900) == wanted[:900]
        assert opened.seek(-500, os.SEEK_END) == len(wanted) - 500
        assert opened.read() == wanted[-500:]
    assert shared.tell("fetches") == before
    shared.tell("headers no")


@contextlib.contextmanager
def opened_by_its_header(mount: Mount, folder: str) -> Iterator[int]:
    """Open a file of which the kernel drops at once what was pushed, as it does where memory is short."""
    mount.tell("headers yes")
    opened = os.open(mount.file(1, folder), os.O_RDONLY)
    try:
        os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
        yield opened
    finally:
        os.close(opened)
        mount.tell("headers no")


@pytest.mark.parametrize("count", [900, 16_000])
def test_a_header_whose_pages_the_kernel_dropped_is_read_without_pixels(shared: Mount, count: int) -> None:
    """What the kernel reads ahead goes beyond the header, or goes on from there, and is asked for by nobody."""
    folder = DROPPED[count > 900]
    before = shared.tell("fetches")
    with opened_by_its_header(shared, folder) as opened, os.fdopen(opened, "rb", closefd=False) as stream:
        assert stream.read(900) + stream.read(count - 900) == plaintext(1, folder)[:count]
    assert shared.tell("fetches") == before


def read_in_order(opened: int) -> bytes:
    """Read as ``cat`` does."""
    return b"".join(iter(lambda: os.read(opened, 2**17), b""))


def read_mapped(opened: int) -> bytes:
    """Read by faults."""
    with mmap.mmap(opened, 0, mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
        return mapped[:]


def read_by_sendfile(opened: int) -> bytes:
    """Have it copied in the kernel."""
    copy = os.memfd_create("copy")
    try:
        while os.sendfile(copy, opened, None, SIZE):
            pass
        return os.pread(copy, SIZE + 1, 0)
    finally:
        os.close(copy)


def read_past_the_cache_from_now_on(opened: int) -> bytes:
    """Read by O_DIRECT, of which the mount was not told when it was opened."""
    fcntl.fcntl(opened, fcntl.F_SETFL, os.O_DIRECT)
    return read_in_order(opened)


@pytest.mark.parametrize(
    ("read", "folder"),
    [
        (read_in_order, DROPPED[2]),
        (read_mapped, DROPPED[3]),
        (read_by_sendfile, DROPPED[4]),
        (read_past_the_cache_from_now_on, DROPPED[5]),
    ],
)
def test_a_file_whose_header_the_kernel_dropped_is_read_whole(
    shared: Mount, read: Callable[[int], bytes], folder: str
) -> None:
    """No READ that is refused is an error to a program."""
    with opened_by_its_header(shared, folder) as opened:
        assert read(opened) == plaintext(1, folder)


def test_no_read_past_the_page_cache_is_refused(shared: Mount) -> None:
    """A program that reads by O_DIRECT would get the error itself, and not every one asks again after EINTR."""
    shared.tell("headers yes")
    libc = ctypes.CDLL(None, use_errno=True)
    opened = os.open(shared.file(1, DROPPED[6]), os.O_RDONLY | os.O_DIRECT)
    room = mmap.mmap(-1, 2**16)
    try:
        address = ctypes.addressof(ctypes.c_char.from_buffer(room))
        assert libc.read(opened, ctypes.c_void_p(address), len(room)) == len(room), os.strerror(ctypes.get_errno())
        assert room[:] == plaintext(1, DROPPED[6])[: len(room)]
    finally:
        os.close(opened)
        shared.tell("headers no")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("call", [OPEN, READ])
def test_a_fatal_signal_frees_a_reader_who_waits(shared: Mount, call: str, number: signal.Signals) -> None:
    """In open and in read, though what he waits for never comes; `./run bench interrupts` measures how soon."""
    shared.tell("slow 60" if call == OPEN else "slow 0")
    shared.tell("stop_after 3000000")
    reader = start_reader(shared.file(1 + 2 * (call == READ) + (number == signal.SIGKILL), NEVER_READ))
    wait_until_in(reader.pid, call)
    reader.send_signal(number)
    assert reader.wait(SECONDS) == -number


def test_ctrl_c_frees_a_program_that_handles_it_from_a_waiting_open(shared: Mount) -> None:
    """As Python does: no signal that it handles is fatal, so the kernel does not free it."""
    shared.tell("slow 60")
    command = [sys.executable, "-I", "-c", "import sys; open(sys.argv[1])", str(shared.file(6, NEVER_READ))]
    reader = subprocess.Popen(command, stderr=subprocess.PIPE)
    wait_until_in(reader.pid, OPEN, program="python")
    reader.send_signal(signal.SIGINT)
    _, err = reader.communicate(timeout=SECONDS)
    assert err.splitlines()[-1] == b"KeyboardInterrupt"
    shared.tell("slow 0")
