"""A lease that lapses under a real mount: everyone waits, nobody is refused, and no page is read meanwhile."""

from __future__ import annotations

import concurrent.futures
import errno
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuse.test_fuse_mount import FOLDER, SIZE, mounted
from tests.twins.octets import octets

LEASE = 1.0
PLAIN = octets(SIZE, f"{FOLDER}1")
SOON = 2 * LEASE


MAPPER = """
import hashlib, mmap, os, sys
view = mmap.mmap(os.open(sys.argv[1], os.O_RDONLY), 0, prot=mmap.PROT_READ)
for line in iter(sys.stdin.readline, ""):
    print(hashlib.sha256(view).hexdigest(), flush=True)
"""
"""A program of its own: a page fault that waits would hold up every thread of this one."""


class Mapper:
    """A file mapped in another process."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", MAPPER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def read(self) -> bytes:
        """Read all of it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == hashlib.sha256(PLAIN).hexdigest()
        return PLAIN

    def end(self) -> None:
        """Leave nothing behind."""
        self.process.kill()
        self.process.communicate()


def uses(path: Path, descriptor: int, mapper: Mapper) -> list[Callable[[], bytes]]:
    """Give the ways to get at a file: an open handle, a mapping, its name, its attributes, and a fresh open."""

    def of_name() -> bytes:
        assert path in list(path.parent.iterdir())
        return PLAIN

    def of_attributes() -> bytes:
        assert path.stat().st_size == SIZE
        return PLAIN

    return [
        lambda: os.pread(descriptor, SIZE, 0),
        mapper.read,
        of_name,
        of_attributes,
        path.read_bytes,
    ]


def test_everyone_waits_for_a_hospital_that_is_away_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    """An open handle, a mapped page, a name, attributes, an open: none is answered, none refused, and all are right."""
    with mounted(tmp_path, lease=LEASE) as mount, concurrent.futures.ThreadPoolExecutor(8) as threads:
        path = mount.file()
        descriptor, mapper = os.open(path, os.O_RDONLY), Mapper(path)
        try:
            for use in uses(path, descriptor, mapper):
                assert use() == PLAIN
            mount.tell("dead yes")
            time.sleep(SOON)
            waiting = [threads.submit(use) for use in uses(path, descriptor, mapper)]
            done, _ = concurrent.futures.wait(waiting, timeout=1.5)
            assert not done
            mount.tell("dead no")
            assert [one.result(15) for one in waiting] == [PLAIN] * len(waiting)
        finally:
            mount.tell("dead no")
            mapper.end()
            os.close(descriptor)


def test_who_has_waited_long_enough_is_timed_out_and_not_refused(tmp_path: Path) -> None:
    """ETIMEDOUT, and afterwards all is as before."""
    with mounted(tmp_path, lease=LEASE, lease_wait=0.5) as mount:
        path = mount.file()
        descriptor = os.open(path, os.O_RDONLY)
        assert os.pread(descriptor, SIZE, 0) == PLAIN
        mount.tell("dead yes")
        time.sleep(SOON)
        for use in (lambda: os.pread(descriptor, SIZE, 0), lambda: os.open(path, os.O_RDONLY), path.stat):
            with pytest.raises(OSError, match="timed out") as caught:
                use()
            assert caught.value.errno == errno.ETIMEDOUT
        assert mount.point.stat()
        mount.tell("dead no")
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            try:
                assert os.pread(descriptor, SIZE, 0) == PLAIN
                break
            except TimeoutError:
                time.sleep(0.2)
        assert path.read_bytes() == PLAIN
        os.close(descriptor)


def test_a_read_that_failed_while_the_lease_lapsed_waits_for_no_other_one(tmp_path: Path) -> None:
    """The kernel repeats a READ that failed: whoever reads hears of the outage, and not twice as late."""
    with (
        mounted(tmp_path, lease=LEASE, patience=2 * LEASE, deadline=60.0) as mount,
        concurrent.futures.ThreadPoolExecutor(1) as threads,
    ):
        mount.tell("headers yes")
        descriptor = os.open(mount.file(), os.O_RDONLY)
        try:
            mount.tell("dead yes")
            with pytest.raises(OSError, match="No route to host"):
                threads.submit(os.pread, descriptor, SIZE, SIZE // 2).result(15)
        finally:
            mount.tell("dead no")
            os.close(descriptor)


def test_restarts_of_the_hospital_under_readers_fail_none_of_them(tmp_path: Path) -> None:
    """Cold and warm opens, names and reads, while it goes and comes; in full it is a bench."""
    with mounted(tmp_path, lease=LEASE, patience=30.0) as mount, concurrent.futures.ThreadPoolExecutor(6) as threads:
        assert mount.file().stat()  # a mount that never had a lease tells an outage at once
        stop = time.monotonic() + 6

        def read(number: int) -> int:
            count = 0
            while time.monotonic() < stop:
                path = mount.file(number)
                assert path.read_bytes() == octets(SIZE, f"{FOLDER}{number}")
                assert path.stat().st_size == SIZE
                mount.forget_pages(path)
                count += 1
            return count

        reading = [threads.submit(read, number) for number in range(1, 7)]
        for _ in range(3):
            mount.tell("dead yes")
            time.sleep(0.7)
            mount.tell("dead no")
            time.sleep(0.5)
        assert all(one.result(60) for one in reading)


def test_a_read_of_a_file_opened_by_its_header_goes_on_when_the_hospital_is_back(tmp_path: Path) -> None:
    """Whatever it covers, others open the file meanwhile, and attributes are asked for: nobody waits for himself."""
    with (
        mounted(tmp_path, patience=30.0, deadline=60.0) as mount,
        concurrent.futures.ThreadPoolExecutor(4) as threads,
    ):
        mount.tell("headers yes")
        path = mount.file()
        descriptor = os.open(path, os.O_RDONLY)
        try:
            mount.forget_pages(path)
            mount.tell("dead yes")
            waiting = [
                threads.submit(os.pread, descriptor, SIZE, 0),
                threads.submit(path.read_bytes),
                threads.submit(lambda: len(os.getxattr(path, "user.mdmfs.sha256")) and PLAIN),
            ]
            done, _ = concurrent.futures.wait(waiting, timeout=1.0)
            assert not done
            mount.tell("dead no")
            assert [one.result(15) for one in waiting] == [PLAIN] * len(waiting)
        finally:
            mount.tell("dead no")
            os.close(descriptor)
