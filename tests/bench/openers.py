"""Two hundred readers open one cold file at once, through a mount: how often the PACS is asked for it.

They are threads of this process, each with a handle of its own, and read from the pixels to the end. The ratio is the
number of times that the PACS has sent the image since it was registered.
"""

from __future__ import annotations

import collections
import contextlib
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import trio

from mdmfs.cli.harvest import harvest_project
from mdmfs.demo.processes import running
from mdmfs.demo.site import PROJECT, READER, make_site, mountpoint_of
from mdmfs.hospital.configuration import HospitalConfiguration
from tests.bench._frame import Bench, Measured
from tests.twins.clinic import slice_of
from tests.twins.servers import pynetdicom_scp

READERS = 200
SIZE = 512
BEHIND_HEADER = 2**18


def measure() -> Measured:
    """Register one image, throw away what is sealed of it, and let all read."""
    image, sent = slice_of(1, size=SIZE), collections.Counter[str]()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        listed = folder / "list"
        listed.write_text(f"study {image.StudyInstanceUID}\n")
        address = stack.enter_context(pynetdicom_scp([image], sent=sent))
        site = make_site(folder / "site", pacs=str(address), inclusion=listed, deadline=60.0)
        processes = stack.enter_context(running(site))
        processes.start_keystores()
        processes.start_hospital()
        trio.run(harvest_project, HospitalConfiguration.read(site.hospital_file), PROJECT)
        mountpoint = mountpoint_of(site.state, READER)
        processes.start_mount(READER, mountpoint)
        (path,) = mountpoint.rglob("*.dcm")
        registered = sent.total()
        with ThreadPoolExecutor(READERS) as threads:
            came = collections.Counter(threads.map(_pixels, [path] * READERS))
        recalls = sent.total() - registered
    rows = [
        ("readers", str(READERS)),
        ("different contents that they read", str(len(came))),
        ("sent by the PACS", str(recalls)),
    ]
    assert len(came) == 1, f"they read {len(came)} different contents"
    return Measured(("one cold file", ""), rows, recalls)


def _pixels(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, 2 * SIZE * SIZE, BEHIND_HEADER)
    finally:
        os.close(descriptor)


BENCH = Bench(measure, bar=1, at_most=True)
