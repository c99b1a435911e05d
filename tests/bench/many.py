"""A series of 20,000 small instances: registered whole, listed whole on a mount, in memory that does not grow with it.

The ratio is the most that hospitald's anonymous memory was beside what it was before. Between them lie what the first
images need, however many follow, and 300 bytes for each UID that the PACS names, 6 MiB for 20,000 (docs/operations.md).
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import trio
from pydicom import Dataset

from mdmfs.cli.hospital import INTERVAL, ask, asking
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import PROJECT, READER, Site, make_site, mountpoint_of
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.wire.messages.administration import (
    HARVEST_PATH,
    HARVEST_PROGRESS_PATH,
    AskHarvest,
    HarvestProgress,
    StartHarvest,
)
from tests.bench._chain import timed
from tests.bench._frame import Bench, Measured
from tests.twins.clinic import slice_of

INSTANCES = 20_000
SIZE = 8
"""Rows and columns: what is measured is how many there are."""
FIRST = 100_000
"""A number with as many digits as all that follow it."""
PATIENCE = 600.0
"""Seconds until the PACS has read all its files."""
LONGEST = 3600.0
"""Seconds until all are registered and listed."""

_ANONYMOUS = re.compile(r"RssAnon:\s+(\d+) kB")


class Look(NamedTuple):
    """What was seen at one moment of a harvest."""

    registered: int
    """Refused ones among them."""
    mib: float
    """Anonymous memory of hospitald."""


def measure(count: int = INSTANCES) -> Measured:
    """Register and list; memory is looked at five times a second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with site_of(folder, count, SIZE) as (site, processes):
            hospital = processes.pid("hospital")
            before = anonymous_mib(hospital)
            looks: list[Look] = []
            found: list[HarvestProgress] = []
            configuration = HospitalConfiguration.read(site.hospital_file)
            seconds = timed(lambda: found.append(trio.run(_harvest, configuration, hospital, looks)))
            assert found[0].registered == count, found[0].failures
            mountpoint = mountpoint_of(site.state, READER)
            processes.start_mount(READER, mountpoint)
            listing = timed(lambda: _expect(count, mountpoint))
            mount = anonymous_mib(processes.pid(f"mount-{READER}"))
    peak = max(look.mib for look in looks)
    rows = [
        ("registered", f"{count:,}", f"{seconds:.1f} s", f"{count / seconds:.0f}/s"),
        ("listed on the mount", f"{count:,}", f"{listing:.1f} s", f"{count / listing:.0f}/s"),
        ("hospitald, anonymous memory", "before", "", f"{before:.0f} MiB"),
        ("", "while the PACS lists", "at most", f"{max(look.mib for look in looks if not look.registered):.0f} MiB"),
        *(("", f"{part:,} registered", "", f"{_mib_at(looks, part):.0f} MiB") for part in _parts(count)),
        ("its peak", "", "", f"{peak:.0f} MiB"),
        ("mount, anonymous memory", "", "", f"{mount:.0f} MiB"),
    ]
    return Measured((f"{count:,} instances in one series", "", "", ""), rows, peak / before)


async def _harvest(configuration: HospitalConfiguration, process: int, looks: list[Look]) -> HarvestProgress:
    """Register until all is deposited, too, and look at the memory of a process meanwhile."""
    with trio.fail_after(LONGEST):
        async with asking(configuration) as client:
            progress = await ask(client, HARVEST_PATH, StartHarvest(PROJECT), HarvestProgress)
            while not progress.is_over or progress.depositing:
                looks.append(Look(progress.instances_done, anonymous_mib(process)))
                await trio.sleep(INTERVAL)
                progress = await ask(client, HARVEST_PROGRESS_PATH, AskHarvest(PROJECT), HarvestProgress)
            looks.append(Look(progress.instances_done, anonymous_mib(process)))
            return progress


def _parts(count: int) -> list[int]:
    return [count * quarter // 4 for quarter in (1, 2, 3, 4)]


def _mib_at(looks: list[Look], registered: int) -> float:
    """Give the memory when so many were registered."""
    return next(look.mib for look in looks if look.registered >= registered)


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


def anonymous_mib(process: int) -> float:
    """Read how much memory of its own a process has; the pages of its store are the kernel's cache."""
    found = _ANONYMOUS.search(Path(f"/proc/{process}/status").read_text())
    assert found
    return int(found[1]) / 1024


BENCH = Bench(measure, bar=1.25, at_most=True)
