"""Readers of a real mount: in every way that there is to read, and freed when they are killed while they wait."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuse.test_fuse_mount import (
    BIG_FOLDER,
    BIG_SIZE,
    COUNT,
    EDGE_FOLDER,
    Mount,
    mounted,
    plaintext,
)
from tests.twins.random_reader import read_at_random
from tests.twins.waiting import OPEN, READ, start_reader, wait_until_in

STEPS = 400


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Mount]:
    """Mount for one test."""
    with mounted(tmp_path) as mount:
        yield mount


def test_whatever_way_a_program_reads_it_gets_the_same_bytes(own: Mount) -> None:
    """Pread, readv, mmap, O_DIRECT, sendfile and splice in random order, pages forgotten in between."""
    files = [(own.file(number), plaintext(number)) for number in range(1, COUNT + 1)]
    files.append((own.file(1, BIG_FOLDER), plaintext(1, BIG_FOLDER, BIG_SIZE)))
    files.append((own.file(1, EDGE_FOLDER), plaintext(1, EDGE_FOLDER, 32 * 1024)))
    read_at_random(files, 1, STEPS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("call", [OPEN, READ])
def test_a_fatal_signal_frees_a_reader_who_waits(own: Mount, call: str, number: signal.Signals) -> None:
    """In open and in read, though what he waits for never comes; `./run bench interrupts` measures how soon."""
    own.tell("slow 60" if call == OPEN else "stop_after 3000000")
    reader = start_reader(own.file(1, BIG_FOLDER))
    wait_until_in(reader.pid, call)
    reader.send_signal(number)
    assert reader.wait(3) == -number


def test_a_signal_that_is_ignored_cancels_nothing(own: Mount) -> None:
    """Neither one that the reader ignores nor one that nobody needs to handle: he gets his bytes."""
    own.tell("slow 1.5")
    reader = subprocess.Popen(
        ["sh", "-c", f"trap '' INT; exec cat {own.file(1)}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    wait_until_in(reader.pid, OPEN)
    for number in (signal.SIGINT, signal.SIGWINCH, signal.SIGCHLD):
        reader.send_signal(number)
        time.sleep(0.2)
    out, err = reader.communicate(timeout=10)
    assert (out, err, reader.returncode) == (plaintext(1), b"", 0)
