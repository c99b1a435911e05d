"""Scanning headers with pydicom through the mount, of a series never recalled, beside recalling all of its pixels."""

from __future__ import annotations

import statistics
import sys
import tempfile
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
RECALLED = 400
"""So many are read whole, since all of them would take minutes."""
AGAIN = 3
BAR_AGAIN = 0.8


def measure() -> Measured:
    """Compare the time for an instance's header by itself with that for an instance; no recall is allowed for it.

    The line of pyfuse3 is a file system that decides nothing and passes on what it reads.
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
        first = timed(lambda: _scan(files)) / INSTANCES
        again = statistics.median(timed(lambda: _scan(files)) for _ in range(AGAIN)) / INSTANCES
        recalls = _released(site.hospital_directory)
        whole = timed(lambda: [path.read_bytes() for path in files[:RECALLED]]) / RECALLED
        assert _released(site.hospital_directory) >= RECALLED
        folder, floor = Path(name) / "plain", Floor(Path(name) / "floor", Path(name) / "plain")
        folder.mkdir()
        for path in files[:RECALLED]:
            (folder / path.name).write_bytes(path.read_bytes())
        beside = _again(sorted(folder.iterdir()))
        floor.root.mkdir()
        floor.mount()
        try:
            least = _again([floor.root / COPIES / f"{number:06}.dcm" for number in range(1, RECALLED + 1)])
        finally:
            floor.unmount()
    if recalls:
        sys.exit(f"{recalls} instances were recalled for their headers")
    rows = [
        ("headers, never recalled", f"{first * 1e6:.0f}", "no recall"),
        ("the same with all pixels", f"{whole * 1e6:.0f}", ""),
        ("headers again", f"{again * 1e6:.0f}", ""),
        ("headers in a plain directory", f"{beside * 1e6:.0f}", f"ratio {beside / again:.2f} (bar {BAR_AGAIN})"),
        ("the same through pyfuse3 alone", f"{least * 1e6:.0f}", f"ratio {beside / least:.2f}"),
    ]
    return Measured((f"{INSTANCES} instances", "us each", ""), rows, whole / first)


def _again(files: list[Path]) -> float:
    """Give the seconds that an instance's header takes that was read before."""
    _scan(files)
    return statistics.median(timed(lambda: _scan(files)) for _ in range(AGAIN)) / len(files)


def _scan(files: list[Path]) -> None:
    for path in files:
        assert pydicom.dcmread(path, stop_before_pixels=True).Rows


def _released(hospital: Path) -> int:
    """Count what the audit log says was let out whole."""
    return sum(path.read_text().count('"event":"release"') for path in hospital.glob("audit*.jsonl"))


BENCH = Bench(measure, bar=10)
"""The bar counts for the first ratio; the second stands in the table."""
