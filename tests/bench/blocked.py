"""Two hundred opens and two hundred reads that wait, while others list and read what is at hand.

The ratio is the longer of the two times, each beside that of the same mount with nobody waiting.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench._frame import Bench, Measured
from tests.fuse.test_fuse_mount import Mount, mounted

WAITING = 200
ROUNDS = 41
SIZE = 300_007
OPENS, READS, AT_HAND = "/grid/medical/opens", "/grid/medical/reads", "/grid/medical/hand"
BEYOND = 200_000


def measure() -> Measured:
    """Measure before, and while all of them wait."""
    folders = [[OPENS, WAITING, SIZE], [READS, WAITING, SIZE], [AT_HAND, 20, SIZE]]
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as name,
        mounted(Path(name), folders=folders, deadline=300.0) as mount,
    ):
        for path in mount.file(1, AT_HAND).parent.iterdir():
            path.read_bytes()
        alone = _measured(mount)
        mount.tell("headers yes")
        mount.tell("slow 600")
        threads = _block(mount)
        beside = _measured(mount)
        assert all(thread.is_alive() for thread in threads)
        mount.process.send_signal(signal.SIGTERM)
        assert mount.process.wait(30) == 0
    rows = [
        (name, f"{alone[name] * 1e3:.2f}", f"{beside[name] * 1e3:.2f}", f"{beside[name] / alone[name]:.2f}")
        for name in alone
    ]
    return Measured(("", "alone ms", "beside 400 ms", "ratio"), rows, max(beside[name] / alone[name] for name in alone))


def _block(mount: Mount) -> list[threading.Thread]:
    """Let threads wait: half of them in a read behind a header, then half of them in an open."""
    entered = threading.Semaphore(0)

    def wait_in_read(number: int) -> None:
        descriptor = os.open(mount.file(number, READS), os.O_RDONLY)
        entered.release()
        with contextlib.suppress(OSError):  # the end of the mount
            os.pread(descriptor, 10, BEYOND)

    def wait_in_open(number: int) -> None:
        entered.release()
        with contextlib.suppress(OSError):
            os.open(mount.file(number, OPENS), os.O_RDONLY)

    threads = []
    for target in (wait_in_read, wait_in_open):
        some = [threading.Thread(target=target, args=(n,), daemon=True) for n in range(1, WAITING + 1)]
        for thread in some:
            thread.start()
        for _ in some:
            assert entered.acquire(timeout=60)
        mount.tell("headers no")
        threads += some
        time.sleep(3)
    return threads


def _measured(mount: Mount) -> dict[str, float]:
    folder = mount.file(1, AT_HAND).parent
    paths = sorted(folder.iterdir())

    def listing() -> None:
        subprocess.run(["ls", "-l", str(folder)], check=True, stdout=subprocess.DEVNULL)

    def reading() -> None:
        for path in paths:
            assert len(path.read_bytes()) == SIZE

    def reading_through_us() -> None:
        for path in paths:
            mount.forget_pages(path)
            assert len(path.read_bytes()) == SIZE

    works = {"ls -l": listing, "20 files in the page cache": reading, "20 files in our cache": reading_through_us}
    return {name: _median(work) for name, work in works.items()}


def _median(work: Callable[[], None]) -> float:
    seconds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


BENCH = Bench(measure, bar=2, at_most=True)
