"""One long multi-frame object at a PACS, and a site that has registered it, for reading it through a mount."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import trio
from pydicom import Dataset

from mdmfs.cli.harvest import harvest_project
from mdmfs.daemon.formats import MARK
from mdmfs.demo.iods import ct_slice
from mdmfs.demo.people import CHEST
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import PACS_TITLE, PROJECT, READER, Site, make_site, mountpoint_of
from mdmfs.hospital.configuration import HospitalConfiguration
from tests.bench._chain import finished
from tests.twins.wire_cutter import WireCutter, wire_cutter

ROWS = 2048
FRAME_BYTES = 2 * ROWS * ROWS
_PIXEL_DATA = b"\xe0\x7f\x10\x00OW\0\0"

ALTERED_BEFORE_END = 64 * 2**10
"""The very last page is served as it was registered, with the header."""

PATIENCE = 60.0
"""Seconds after which `held_back` lets the rest of it go all the same."""

BEHIND_HEADER = 2**20
"""The header comes without a recall; here are pixels."""


class FirstByte(NamedTuple):
    """What had happened when the first byte of the pixels was read."""

    seconds: float
    """Since it was opened."""
    sent: int
    """Bytes that had come from the PACS by then."""


class LongObject:
    """A PACS of ours with one object of so many frames of 8 MiB, registered at a hospital; nothing is staged."""

    def __init__(self, site: Site, processes: Processes, to_pacs: WireCutter, frames: int) -> None:
        self.site = site
        self.processes = processes
        self.to_pacs = to_pacs
        self.held = site.pacs_directory / "long.dcm"
        self.pixels = frames * FRAME_BYTES
        self.mountpoint = mountpoint_of(site.state, READER)

    @property
    def file(self) -> Path:
        """Give the file on the mount."""
        (file,) = self.mountpoint.rglob("*.dcm")
        return file

    def write(self, image: Dataset, frames: int) -> None:
        """Write the object, pixels and all, without ever having it in memory."""
        image.Rows = image.Columns = ROWS
        image.BitsStored, image.HighBit, image.NumberOfFrames = 16, 15, frames
        self.held.parent.mkdir(parents=True)
        finished(image).save_as(self.held, enforce_file_format=True)
        frame = os.urandom(FRAME_BYTES)
        with self.held.open("ab") as file:
            file.write(_PIXEL_DATA + self.pixels.to_bytes(4, "little"))
            for _ in range(frames):
                file.write(frame)

    def register(self) -> None:
        """Harvest it."""
        trio.run(harvest_project, HospitalConfiguration.read(self.site.hospital_file), PROJECT)

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        """Let only half of it come from the PACS within a block."""
        patience = threading.Timer(PATIENCE, self.to_pacs.let_on)
        self.to_pacs.cut_after(self.pixels // 2)
        patience.start()
        try:
            yield
        finally:
            patience.cancel()
            self.to_pacs.let_on()

    def read_first_byte(self) -> FirstByte:
        """Open it cold and read one byte of its pixels."""
        before, begun = self.to_pacs.come_back, time.perf_counter()
        with self.file.open("rb", buffering=0) as file:
            assert os.pread(file.fileno(), 1, BEHIND_HEADER)
            return FirstByte(time.perf_counter() - begun, self.to_pacs.come_back - before)

    def read_all(self) -> int:
        """Read it to its end; gives its length."""
        length = 0
        with self.file.open("rb", buffering=0) as file:
            while octets := file.read(2**20):
                length += len(octets)
        return length

    def alter_near_the_end(self) -> None:
        """Change a byte of the object where it is held."""
        with self.held.open("r+b") as file:
            file.seek(-ALTERED_BEFORE_END, os.SEEK_END)
            last = file.read(1)
            file.seek(-ALTERED_BEFORE_END, os.SEEK_END)
            file.write(bytes([last[0] ^ 1]))

    def forget(self) -> None:
        """Begin anew with nothing staged or cached."""
        self.processes.stop(f"mount-{READER}")
        self.processes.stop("hospital")
        shutil.rmtree(self.site.hospital_directory / "staging")
        for cached in self.cached():
            cached.unlink()
        self.start()

    def start(self) -> None:
        """Start hospital and mount."""
        self.processes.start_hospital()
        self.processes.start_mount(READER, self.mountpoint)

    def staged(self) -> list[Path]:
        """List what the hospital keeps of it."""
        return [path for path in (self.site.hospital_directory / "staging").iterdir() if path.name != MARK]

    def cached(self) -> list[Path]:
        """List what the worker keeps of it."""
        return [path for path in (self.site.state / "worker").rglob("complete/*") if path.is_file()]

    def resident(self, process: str) -> int:
        """Give the most bytes that a process has ever had in memory."""
        status = Path(f"/proc/{self.processes.pid(process)}/status").read_text(encoding="ascii")
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024


@contextlib.contextmanager
def long_object(folder: Path, frames: int) -> Iterator[LongObject]:
    """Make the site, register the object, and mount; at the end nothing runs any more."""
    image, listed = ct_slice(CHEST, 1, 1), folder / "list"
    listed.write_text(f"study {image.StudyInstanceUID}\n")
    site = make_site(folder / "site", pacs="", inclusion=listed, deadline=600.0)
    mount = site.mount_file(READER)
    mount.write_text(mount.read_text().replace('size = "2 GiB"', 'size = "8 GiB"'))
    with wire_cutter(site.ports.pacs) as to_pacs, running(site) as processes:
        direct, relayed = (f"{PACS_TITLE}@127.0.0.1:{port}" for port in (site.ports.pacs, to_pacs.port))
        site.hospital_file.write_text(site.hospital_file.read_text().replace(direct, relayed))
        long = LongObject(site, processes, to_pacs, frames)
        long.write(image, frames)
        processes.start_pacs()
        processes.start_keystores()
        processes.start_hospital()
        long.register()
        processes.start_mount(READER, long.mountpoint)
        yield long
