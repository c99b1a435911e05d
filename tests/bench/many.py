"""A series of 20,000 small instances: registered whole, listed whole on a mount, in memory that does not grow with it.

The ratio is hospitald's anonymous memory when all are registered beside that when a quarter was.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import trio
from pydicom import Dataset

from mdmfs.cli.harvest import harvest_project
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import PROJECT, READER, Site, make_site, mountpoint_of
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.wire.messages.administration import HarvestProgress
from tests.bench._chain import timed
from tests.bench._frame import Bench, Measured
from tests.twins.clinic import slice_of

INSTANCES = 20_000
SIZE = 8
"""Rows and columns: what is measured is how many there are."""
FIRST = 100_000
"""A number with as many digits as all that follow it."""
INTERVAL = 0.2
PATIENCE = 600.0
"""Seconds until the PACS has read all its files."""

_ANONYMOUS = re.compile(r"RssAnon:\s+(\d+) kB")


def measure(count: int = INSTANCES) -> Measured:
    """Register and list; memory is looked at five times a second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with site_of(folder, count, SIZE) as (site, processes):
            hospital = processes.pid("hospital")
            watch = _Watch(hospital)
            found: list[HarvestProgress] = []
            configuration = HospitalConfiguration.read(site.hospital_file)
            seconds = timed(lambda: found.append(trio.run(harvest_project, configuration, PROJECT)))
            curve = watch.stop()
            assert found[0].registered == count, found[0].failures
            mountpoint = mountpoint_of(site.state, READER)
            processes.start_mount(READER, mountpoint)
            listing = timed(lambda: _expect(count, mountpoint))
            mount = anonymous_mib(processes.pid(f"mount-{READER}"))
    begin, quarter, end = curve[0], curve[len(curve) // 4], curve[-1]
    rows = [
        ("registered", f"{count:,}", f"{seconds:.1f} s", f"{count / seconds:.0f}/s"),
        ("listed on the mount", f"{count:,}", f"{listing:.1f} s", f"{count / listing:.0f}/s"),
        ("hospitald, anonymous memory", f"{begin:.0f} MiB before", f"{quarter:.0f} MiB at a quarter", f"{end:.0f} MiB"),
        ("its peak", "", "", f"{max(curve):.0f} MiB"),
        ("mount, anonymous memory", "", "", f"{mount:.0f} MiB"),
    ]
    return Measured((f"{count:,} instances in one series", "", "", ""), rows, end / quarter)


@contextlib.contextmanager
def site_of(folder: Path, count: int, size: int) -> Iterator[tuple[Site, Processes]]:
    """Run a site whose PACS, our own, has one series of so many instances of ``size`` rows and columns."""
    site = make_site(folder / "site", pacs="", inclusion=None, deadline=600.0)
    fill(site.pacs_directory, count, size=size)
    listed = f"study {slice_of(1, size=SIZE).StudyInstanceUID}\n"
    (site.hospital_file.parent / "projects" / f"{PROJECT}.list").write_text(listed, encoding="utf-8")
    with running(site) as processes:
        processes.start_pacs(PATIENCE)
        processes.start_keystores()
        processes.start_hospital()
        yield site, processes


def fill(folder: Path, count: int, *, series: int = 1, size: int = SIZE) -> None:
    """Write so many instances of a series: one is made, the others differ from it in their numbers alone."""
    folder.mkdir(parents=True, exist_ok=True)
    template = folder / "template"
    write_file(template, slice_of(FIRST, series=series, size=size))
    octets = template.read_bytes()
    template.unlink()
    number = str(FIRST).encode()
    for other in range(FIRST, FIRST + count):
        (folder / f"{series}-{other}.dcm").write_bytes(octets.replace(number, str(other).encode()))


def write_file(path: Path, instance: Dataset) -> None:
    """Write an instance as a file of PS3.10."""
    instance.file_meta.MediaStorageSOPClassUID = instance.SOPClassUID
    instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
    instance.save_as(path, enforce_file_format=True)


def _expect(count: int, mountpoint: Path) -> None:
    found = sum(len(files) for _, _, files in os.walk(mountpoint))
    assert found == count, f"{found} of {count} are listed"


class _Watch:
    """Looks at the memory of a process until it is told to stop."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._curve = [anonymous_mib(process)]
        self._is_over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> list[float]:
        """Give what was seen."""
        self._is_over = True
        self._thread.join()
        return [*self._curve, anonymous_mib(self._process)]

    def _run(self) -> None:
        while not self._is_over:
            time.sleep(INTERVAL)
            self._curve.append(anonymous_mib(self._process))


def anonymous_mib(process: int) -> float:
    """Read how much memory of its own a process has; the pages of its store are the kernel's cache."""
    found = _ANONYMOUS.search(Path(f"/proc/{process}/status").read_text())
    assert found
    return int(found[1]) / 1024


BENCH = Bench(measure, bar=1.25, at_most=True)
