"""Reading a series of 400 slices through the mount, everything cold, beside pynetdicom's bare C-GET."""

from __future__ import annotations

import subprocess

import trio

from mdmfs.cli.harvest import harvest_project
from mdmfs.demo.site import PROJECT, READER
from mdmfs.hospital.configuration import HospitalConfiguration
from tests.bench._chain import SLICE_BYTES, SLICES, chain, peers_seconds, timed
from tests.bench._frame import Bench, Measured


def measure() -> Measured:
    """Compare the rates: above 1, the whole chain is faster than the peer's mere retrieval."""
    with chain() as site:
        before = peers_seconds(site)
        trio.run(harvest_project, HospitalConfiguration.read(site.site.hospital_file), PROJECT)
        site.processes.start_mount(READER, site.mountpoint)
        files = [str(path) for path in site.files()]
        assert len(files) == SLICES
        ours = timed(lambda: subprocess.run(["cat", *files], stdout=subprocess.DEVNULL, check=True))
        theirs = (before + peers_seconds(site)) / 2
    total = SLICES * SLICE_BYTES / 1e6
    rows = [
        ("pynetdicom, C-GET alone", f"{theirs:.2f}", f"{total / theirs:.0f}"),
        ("mdmfs, cat through the mount", f"{ours:.2f}", f"{total / ours:.0f}"),
    ]
    return Measured(("400 slices of 512 KiB", "seconds", "MB/s"), rows, theirs / ours)


BENCH = Bench(measure, bar=2)
