"""kill -9 of hospital and keystores at random instants of 10,000 registrations: what remains of the keys."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import trio
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from mdmfs.demo.iods import ct_slice
from mdmfs.demo.people import CHEST
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import Site, make_site
from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.wire.messages import KeyTask
from tests.bench._frame import Bench, Measured
from tests.twins.killed import THRESHOLD, VICTIMS, files_at_rest, harvest_until, keys, shares_at_rest, start
from tests.twins.servers import orthanc

REGISTRATIONS = int(os.environ.get("MDMFS_REGISTRATIONS", "10000"))
"""Fewer where somebody only tries the bench."""
SERIES = 25
SIZE = 16
MOST_OCTETS = REGISTRATIONS * 300
"""Of new images between two kills; each has some 1,500."""


def image_of(number: int) -> Dataset:
    """Make one small image of a series of 400."""
    series, place = divmod(number, REGISTRATIONS // SERIES)
    image = ct_slice(CHEST, 1 + series, 1 + place)
    image.Rows = image.Columns = SIZE
    image.PixelData = random.Random(number).randbytes(2 * SIZE * SIZE)  # noqa: S311 noise
    image["PixelData"].VR = "OW"
    image.BitsStored, image.HighBit = 16, 15
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    return image


@contextlib.contextmanager
def filled_site(folder: Path) -> Iterator[tuple[Site, Processes]]:
    """Run Orthanc with the images, and know a site before it."""
    with orthanc(folder) as address:
        first = image_of(0)
        images = folder / "images"
        images.mkdir()
        for number in range(REGISTRATIONS):
            image_of(number).save_as(images / f"{number}.dcm", enforce_file_format=True)
        send = ["storescu", "-aec", address.ae_title, "+sd", address.host, str(address.port), str(images)]
        subprocess.run(send, check=True, capture_output=True)
        listed = folder / "list"
        listed.write_text(f"study {first.StudyInstanceUID}\n")
        site = make_site(folder / "site", pacs=str(address), inclusion=listed, deadline=60.0)
        with running(site) as processes:
            yield site, processes


def measure() -> Measured:
    """Kill, look at what lies there, go on; the ratio is that of files with their key in the end."""
    dice = random.Random(5)  # noqa: S311 no secret
    rows: list[tuple[str, ...]] = []
    killed: dict[str, int] = dict.fromkeys(VICTIMS, 0)
    shown_without = 0
    with tempfile.TemporaryDirectory() as folder, filled_site(Path(folder)) as (site, processes):
        configuration = HospitalConfiguration.read(site.hospital_file)
        start(processes, *VICTIMS)
        while True:
            progress = trio.run(harvest_until, configuration, dice.randrange(1, MOST_OCTETS))
            if progress.is_over and progress.registered + progress.known == REGISTRATIONS and not progress.depositing:
                break
            victim = dice.choice(VICTIMS)
            killed[victim] += 1
            processes.stop(victim, signal.SIGKILL)
            time.sleep(dice.uniform(0.0, 0.2))
            for name in VICTIMS:
                if name != victim:
                    processes.stop(name, signal.SIGKILL)
            files = files_at_rest(site)
            visible = [file.guid for file in files if file.state is FileState.VISIBLE]
            without = sum(count < THRESHOLD for count in shares_at_rest(site, visible))
            shown_without += without
            rows.append((victim, str(len(files)), str(len(visible)), str(without)))
            start(processes, *VICTIMS)
        repaired = keys(site, KeyTask.REPAIR)
        found = keys(site, KeyTask.VERIFY)
    clean = not (found.faults or found.lost or found.silent or found.failure)
    rows.append(
        (f"in the end, {sum(killed.values())} kills", str(found.files), f"{found.lost} lost", f"clean: {clean}")
    )
    rows.append((f"repair found {dict(repaired.faults)}", "", "", str(shown_without)))
    kept = found.files - found.lost - shown_without if clean else 0
    return Measured(("killed first", "files", "visible", "without k shares"), rows, kept / REGISTRATIONS)


BENCH = Bench(measure, bar=1.0)
