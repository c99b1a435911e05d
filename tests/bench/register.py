"""Registering a series of 400 slices, keys and all, beside pynetdicom's bare C-GET."""

from __future__ import annotations

import trio

from mdmfs.cli.harvest import harvest_project
from mdmfs.demo.site import PROJECT
from mdmfs.hospital.configuration import HospitalConfiguration
from tests.bench._chain import SLICE_BYTES, SLICES, chain, peers_seconds, timed
from tests.bench._frame import Bench, Measured


def measure() -> Measured:
    """Compare the rates: above 1, registering is faster than the peer's mere retrieval."""
    with chain() as site:
        before = peers_seconds(site)
        configuration = HospitalConfiguration.read(site.site.hospital_file)
        ours = timed(lambda: trio.run(harvest_project, configuration, PROJECT))
        theirs = (before + peers_seconds(site)) / 2
    total = SLICES * SLICE_BYTES / 1e6
    rows = [
        ("pynetdicom, C-GET alone", f"{theirs:.2f}", f"{total / theirs:.0f}"),
        ("mdmfs, registered and visible", f"{ours:.2f}", f"{total / ours:.0f}"),
    ]
    return Measured(("400 slices of 512 KiB", "seconds", "MB/s"), rows, theirs / ours)


BENCH = Bench(measure, bar=2)
