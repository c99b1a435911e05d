"""Readers of a real mount: in every way that there is to read, and freed when they are killed while they wait."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """One mount for all of them; it ends in order, whoever waited."""
    files = [[FOLDER, COUNT, SIZE], [BIG_FOLDER, 1, BIG_SIZE], [EDGE_FOLDER, 1, 32 * 1024], [NEVER_READ, 6, BIG_SIZE]]
    files.append([HEADERS, 2, SIZE])
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
    assert run("df", "--output=fstype,itotal,iavail", shared.point).split()[3:] == ["fuse.mdmfs", "16", "0"]
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
