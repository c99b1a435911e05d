"""Random readers (pread, readv, mmap, O_DIRECT, sendfile, splice) of a real mount, several processes at once.

A byte that is wrong ends the run. The ratio is the number of reads beside 100,000.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench._frame import Bench, Measured
from tests.fuse.test_fuse_mount import mounted
from tests.twins.octets import octets

READS = 100_000
READERS = 4
SIZES = (0, 1, 4096, 16_384, 16_385, 300_007, 2**20 + 1, 5 * 2**20 + 3)
FOLDER = "/grid/medical/fsx"


def measure() -> Measured:
    """Run readers over files of many sizes, all of the same ones."""
    folders = [[f"{FOLDER}/{size}", 1, size] for size in SIZES]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name, mounted(Path(name), folders=folders) as mount:
        pairs = []
        for folder, _, size in folders:
            copy = Path(name, f"copy-{size}")
            copy.write_bytes(octets(int(size), f"{folder}1"))
            pairs += [str(mount.file(1, str(folder))), str(copy)]
        begun = time.perf_counter()
        command = [sys.executable, "-m", "tests.twins.random_reader"]
        readers = [
            subprocess.Popen([*command, str(seed), str(READS // READERS), *pairs]) for seed in range(1, READERS + 1)
        ]
        failed = [reader.returncode for reader in readers if reader.wait()]
        seconds = time.perf_counter() - begun
    if failed:
        sys.exit(f"{len(failed)} readers found a wrong byte")
    rows = [(f"{READERS} processes, {len(SIZES)} files", f"{READS:,}", f"{READS / seconds:.0f}")]
    return Measured(("readers", "reads", "a second"), rows, READS / READS)


BENCH = Bench(measure, bar=1)
