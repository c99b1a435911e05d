"""Opening one cold slice through the mount, to its first pixels, beside pynetdicom's bare C-GET of one slice."""

from __future__ import annotations

import os
from pathlib import Path

import trio

from mdmfs.cli.harvest import harvest_project
from mdmfs.demo.site import PROJECT, READER
from mdmfs.hospital.configuration import HospitalConfiguration
from tests.bench._chain import SLICES, Peer, chain, median, slice_of
from tests.bench._frame import Bench, Measured

OPENS = 50
FAR = 7
"""Between two opens: neighbours would be brought along."""
BEHIND_HEADER = 2**18
"""The header comes without a recall; here are pixels."""


def measure() -> Measured:
    """Compare the medians: the peer has its association open, TCP_NODELAY and TCP_QUICKACK set."""
    with chain() as site:
        peer = Peer(site.pacs, site.first)
        numbers = [1 + number * FAR for number in range(OPENS)]
        assert max(numbers) <= SLICES
        uids = [str(slice_of(number).SOPInstanceUID) for number in numbers]
        theirs = median([lambda uid=uid: peer.get_instance(uid) for uid in uids])
        peer.close()
        trio.run(harvest_project, HospitalConfiguration.read(site.site.hospital_file), PROJECT)
        site.processes.start_mount(READER, site.mountpoint)
        files = site.files()
        ours = median([lambda number=number: _first_pixel(files[number - 1]) for number in numbers])
    rows = [
        ("pynetdicom, C-GET of one slice", f"{theirs * 1e3:.1f}"),
        ("mdmfs, open and first pixel", f"{ours * 1e3:.1f}"),
    ]
    return Measured(("median of 50", "ms"), rows, ours / theirs)


def _first_pixel(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 1, BEHIND_HEADER)


BENCH = Bench(measure, bar=1.2, at_most=True)
