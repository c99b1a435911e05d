"""Two hundred kill -9 of a mount at random instants under load: it mounts again by itself, and nothing is wrong.

All that the mount may write to (cache, log, home and temporary files) lies on a file system of its own, whose image is
searched afterwards, at every byte, for what the files hold; a plain file there, which must be found wherever it begins,
shows that the search works. The ratio is the number of kills beside 200.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.bench._frame import Bench, Measured
from tests.fuse.test_fuse_mount import Mount
from tests.twins.octets import octets

KILLS = 200
READERS = 3
IMAGE_BYTES = 256 * 2**20
LONGEST_LIFE = 1.0
FOLDERS = [["/grid/medical/killed/s", 12, 300_007], ["/grid/medical/killed/b", 1, 5 * 2**20 + 5]]
PATTERN = 8
"""Bytes at the begin of each page of each file that are looked for; as many random ones are nowhere by chance."""
PAGE = 4096
BLOCK = 2**24
CONTROL, ODD = "control", 3001
READER = """
import hashlib, os, sys
while True:
    for path, digest in zip(sys.argv[1::2], sys.argv[2::2]):
        try:
            octets = open(path, "rb", buffering=0).read()
        except OSError:
            sys.exit(0)
        if octets and hashlib.sha256(octets).hexdigest() != digest:
            sys.exit(f"{path} is wrong: {len(octets)} bytes")
"""


def measure() -> Measured:
    """Kill, mount again, read, and search."""
    chance = random.Random(11)  # noqa: S311 no secret
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name, _own_disk(Path(name)) as disk:
        for home in ("home", "tmp"):
            (disk / home).mkdir()
        written = {"HOME": str(disk / "home"), "TMPDIR": str(disk / "tmp")}
        mount = Mount(disk, folders=FOLDERS, cache_size=6 * 2**20, environment=written)
        began = []
        try:
            for _ in range(KILLS):
                _live(mount, chance)
                begun = time.perf_counter()
                mount.start()
                began.append(time.perf_counter() - begun)
        finally:
            mount.abort()
        (disk / CONTROL).write_bytes(bytes(ODD) + octets(PATTERN, CONTROL))
        subprocess.run(["sync", "-f", str(disk)], check=True)
        found = _patterns_in(Path(name, "image"))
    if found != {CONTROL}:
        sys.exit(f"found on the disk: {sorted(found)}; the control alone should be")
    rows = [(f"{KILLS}", "0", "0", f"{max(began):.1f}")]
    return Measured(("kills", "wrong files", "plaintext found", "slowest start, s"), rows, len(began) / KILLS)


def _files() -> Iterator[tuple[str, int, int]]:
    for folder, count, size in FOLDERS:
        for number in range(1, int(count) + 1):
            yield str(folder), number, int(size)


def _live(mount: Mount, chance: random.Random) -> None:
    """Read from several processes, and kill the mount at some instant; no reader has seen a wrong byte."""
    pairs = []
    for folder, number, size in _files():
        digest = hashlib.sha256(octets(size, f"{folder}{number}")).hexdigest()
        pairs.append((str(mount.file(number, folder)), digest))
    readers = []
    for _ in range(READERS):
        chance.shuffle(pairs)
        words = [word for pair in pairs for word in pair]
        readers.append(subprocess.Popen([sys.executable, "-c", READER, *words]))
    time.sleep(chance.uniform(0.0, LONGEST_LIFE))
    mount.kill()
    if any(reader.wait(60) for reader in readers):
        sys.exit("a reader saw wrong bytes")


@contextlib.contextmanager
def _own_disk(folder: Path) -> Iterator[Path]:
    """Give a folder on an ext4 of its own, in an image."""
    image, disk = folder / "image", folder / "disk"
    with image.open("wb") as made:
        made.truncate(IMAGE_BYTES)
    disk.mkdir()
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _patterns_in(image: Path) -> set[str]:
    """Name the files of which the begin of a page lies anywhere in the image."""
    wanted = {octets(PATTERN, CONTROL): CONTROL}
    for folder, number, size in _files():
        plain = octets(size, f"{folder}{number}")
        for begin in range(0, size - PATTERN, PAGE):
            wanted[plain[begin : begin + PATTERN]] = f"{folder}/{number}"
    words = np.frombuffer(b"".join(wanted), "<u8")
    may_begin = np.zeros(2**16, bool)
    may_begin[(words >> 48).astype(np.uint16)] = True
    found, carried = set(), b""
    with image.open("rb") as opened:
        while block := opened.read(BLOCK):
            octets_here = carried + block
            for shift in range(PATTERN):
                here = np.frombuffer(octets_here, "<u8", (len(octets_here) - shift) // PATTERN, shift)
                likely = here[may_begin[(here >> 48).astype(np.uint16)]]
                found |= {wanted[word.tobytes()] for word in likely[np.isin(likely, words)]}
            carried = octets_here[1 - PATTERN :]
    return found


BENCH = Bench(measure, bar=1)
