"""One image is one file on the mount, however it comes: by C-GET or C-MOVE, as Implicit or Explicit, from two PACSs.

A site registers slices from Orthanc. Then, for each way, everything that is sealed is thrown away, the hospital is
started with another PACS or service, and asks for another transfer syntax; the files are read through a fresh mount.
The ratio is the number of files that differ or do not come.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import trio
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mdmfs.cli.harvest import harvest_project
from mdmfs.daemon.formats import MARK
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import PROJECT, READER, Site, make_site, mountpoint_of
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.dicom.pacs import PacsAddress, RetrievalService
from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.hospital.store import Transaction
from tests.bench._frame import Bench, Measured
from tests.twins.clinic import slice_of
from tests.twins.servers import dcmqrscp, orthanc, store

SLICES = 3
AE_TITLE = "MDMFS"
SYNTAXES = {"Explicit VR": str(ExplicitVRLittleEndian), "Implicit VR": str(ImplicitVRLittleEndian)}
_NOWHERE = "NOWHERE@127.0.0.1:1"


class Way(NamedTuple):
    """How images come."""

    pacs: str
    service: RetrievalService
    syntax: str


def measure() -> Measured:
    """Read every file in every way, and count what is not as it was at first."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        images = [slice_of(number, size=256) for number in range(1, SLICES + 1)]
        listed = folder / "list"
        listed.write_text(f"study {images[0].StudyInstanceUID}\n")
        site = make_site(folder / "site", pacs=_NOWHERE, inclusion=listed, deadline=60.0)
        pacs = stack.enter_context(_archives(folder, site.ports.dicom, images))
        template = site.hospital_file.read_text(encoding="utf-8")
        processes = stack.enter_context(running(site))
        processes.start_keystores()
        first = Way("orthanc", RetrievalService.GET, "Explicit VR")
        _configure(site, template, pacs[first.pacs], first)
        processes.start_hospital()
        trio.run(harvest_project, HospitalConfiguration.read(site.hospital_file), PROJECT)
        expected = _read(site, processes)
        assert len(expected) == SLICES, list(expected)
        rows, wrong = [], 0
        for way in itertools.starmap(Way, itertools.product(pacs, RetrievalService, SYNTAXES)):
            processes.stop("hospital")
            _forget(site)
            _configure(site, template, pacs[way.pacs], way)
            trio.run(_record, site, SYNTAXES[way.syntax])
            processes.start_hospital()
            came = _read(site, processes)
            staged = sum(1 for path in (site.hospital_directory / "staging").iterdir() if path.name != MARK)
            differing = sum(came.get(name) != octets for name, octets in expected.items()) + SLICES - staged
            wrong += differing
            rows.append((way.pacs, f"C-{way.service.upper()}", way.syntax, str(len(came)), str(differing)))
    return Measured(("from", "by", "asked for as", "files", "that differ"), rows, wrong)


@contextlib.contextmanager
def _archives(folder: Path, port: int, images: list[Dataset]) -> Iterator[dict[str, PacsAddress]]:
    """Run both PACSs with the same images, and our SCP as a place to move to."""
    known = {"DicomModalities": {"ours": [AE_TITLE, "127.0.0.1", port]}}
    with orthanc(folder, known) as one, dcmqrscp(folder, [], {AE_TITLE: port}) as other:
        for address in (one, other):
            store(address, images)
        yield {"orthanc": one, "dcmqrscp": other}


def _configure(site: Site, template: str, address: PacsAddress, way: Way) -> None:
    entry = f'{address}"\nretrieval = "{way.service}'
    assert _NOWHERE in template
    site.hospital_file.write_text(template.replace(_NOWHERE, entry), encoding="utf-8")


def _forget(site: Site) -> None:
    """Throw away what is sealed, at the hospital; the mount's cache goes with each mount."""
    for name in ("staging", "headers"):
        shutil.rmtree(site.hospital_directory / name)


async def _record(site: Site, syntax: str) -> None:
    """Have the hospital believe that the PACS holds the images in this transfer syntax."""

    def act(tx: Transaction) -> None:
        files = tx.catalogue.files(after=0)
        for guid in (file.guid for file in files):
            record = tx.uidmap.resolve(guid)
            assert record is not None
            tx.uidmap.untie(guid)
            tx.uidmap.tie(guid, msgspec.structs.replace(record, transfer_syntax=syntax))

    opened = LmdbStore.open(site.hospital_directory / "store")
    await opened.write(act)
    await opened.aclose()


def _read(site: Site, processes: Processes) -> dict[str, bytes]:
    """Read all files through a mount that knows nothing of them yet; one that fails is left out."""
    shutil.rmtree(site.mount_file(READER).parent / f"{READER}-cache", ignore_errors=True)
    mountpoint = mountpoint_of(site.state, READER)
    processes.start_mount(READER, mountpoint)
    found = {}
    for path in sorted(mountpoint.rglob("*.dcm")):
        with contextlib.suppress(OSError):
            found[path.name] = path.read_bytes()
    processes.stop(f"mount-{READER}")
    return found


BENCH = Bench(measure, bar=0, at_most=True)
