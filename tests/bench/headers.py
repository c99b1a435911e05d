"""Scanning headers with pydicom through the mount, of a series never recalled, beside recalling all of its pixels."""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pydicom
import trio

from mdmfs.cli.harvest import harvest_project
from mdmfs.demo.site import PROJECT, READER, mountpoint_of
from mdmfs.hospital.configuration import HospitalConfiguration
from tests.bench._chain import timed
from tests.bench._floor import COPIES
from tests.bench._frame import Bench, Measured
from tests.bench._mounts import Floor
from tests.bench.many import site_of

INSTANCES = 5000
SIZE = 512
COPIED = 12 * 1024
"""Bytes of each file; a scan reads 8 KiB, the rest of a copy is a hole."""
RECALLED = 400
"""So many are read whole, since all of them would take minutes."""
AGAIN = 3
BAR_AGAIN = 0.8


def measure() -> Measured:
    """Compare the time for an instance's header by itself with that for an instance; no recall is allowed for it.

    The lines of pyfuse3 are a file system that decides nothing and passes on what it reads, by trio's loop and by ours.
    """
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as name,
        site_of(Path(name), INSTANCES, SIZE) as (site, processes),
    ):
        trio.run(harvest_project, HospitalConfiguration.read(site.hospital_file), PROJECT)
        processes.stop("hospital")  # its idle associations cost this PACS a sixth of a processor (pynetdicom)
        processes.start_hospital()
        mountpoint = mountpoint_of(site.state, READER)
        processes.start_mount(READER, mountpoint)
        files = sorted(mountpoint.rglob("*.dcm"))
        assert len(files) == INSTANCES
        first = _seconds(files)
        plain = Path(name) / "plain"
        copies = _copied(files, plain)
        with _floor(plain) as floor, _floor(plain, is_eager=True) as eager:
            again, beside, least, eagerly = _in_turn([files, copies, floor, eager])
        recalls = _released(site.hospital_directory)
        whole = timed(lambda: [path.read_bytes() for path in files[:RECALLED]]) / RECALLED
        assert _released(site.hospital_directory) >= RECALLED
    if recalls:
        sys.exit(f"{recalls} instances were recalled for their headers")
    rows = [
        ("headers, never recalled", f"{first * 1e6:.0f}", "no recall"),
        ("the same with all pixels", f"{whole * 1e6:.0f}", ""),
        ("headers again", f"{again * 1e6:.0f}", ""),
        ("headers in a plain directory", f"{beside * 1e6:.0f}", f"ratio {beside / again:.2f} (bar {BAR_AGAIN})"),
        ("the same through pyfuse3 alone", f"{least * 1e6:.0f}", f"ratio {beside / least:.2f}"),
        ("the same with our waits", f"{eagerly * 1e6:.0f}", f"ratio {beside / eagerly:.2f}"),
    ]
    return Measured((f"{INSTANCES} instances", "us each", ""), rows, whole / first)


def _copied(files: list[Path], folder: Path) -> list[Path]:
    """Copy what a scan reads of each file, with the size of the whole."""
    folder.mkdir()
    copies = [folder / path.name for path in files]
    for path, copy in zip(files, copies, strict=True):
        with path.open("rb", buffering=0) as opened:
            copy.write_bytes(opened.read(COPIED))
        os.truncate(copy, path.stat().st_size)
    return copies


@contextlib.contextmanager
def _floor(folder: Path, *, is_eager: bool = False) -> Iterator[list[Path]]:
    """Show the files of a folder by pyfuse3 alone."""
    with tempfile.TemporaryDirectory() as name:
        floor = Floor(Path(name), folder, is_eager=is_eager)
        floor.mount()
        try:
            yield [floor.root / COPIES / f"{number:06}.dcm" for number in range(1, INSTANCES + 1)]
        finally:
            floor.unmount()


def _in_turn(places: list[list[Path]]) -> list[float]:
    """Give for each place the seconds that an instance's header takes that was read before."""
    for files in places:
        _scan(files)
    return [statistics.median(laps) for laps in zip(*[map(_seconds, places) for _ in range(AGAIN)], strict=True)]


def _seconds(files: list[Path]) -> float:
    return timed(lambda: _scan(files)) / len(files)


def _scan(files: list[Path]) -> None:
    for path in files:
        assert pydicom.dcmread(path, stop_before_pixels=True).Rows


def _released(hospital: Path) -> int:
    """Count what the audit log says was let out whole."""
    return sum(path.read_text().count('"event":"release"') for path in hospital.glob("audit*.jsonl"))


BENCH = Bench(measure, bar=10)
"""The bar counts for the first ratio; the second stands in the table."""
