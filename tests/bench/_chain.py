"""A whole site before a real PACS that holds one long CT series, for the benches that measure the chain."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, build_role, evt

from mdmfs.demo.iods import ct_slice
from mdmfs.demo.people import CHEST
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import READER, Site, make_site, mountpoint_of
from mdmfs.hospital.dicom.negotiation import STUDY_ROOT_GET
from mdmfs.hospital.dicom.pacs import PacsAddress
from tests.twins.servers import orthanc, store

SLICES = 400
SIZE = 512
SLICE_BYTES = SIZE * SIZE * 2


@dataclasses.dataclass(frozen=True)
class Chain:
    """What runs: a PACS with the series, and a site that knows it, with nothing registered or mounted yet."""

    pacs: PacsAddress
    first: Dataset
    site: Site
    processes: Processes

    @property
    def mountpoint(self) -> Path:
        """Where the reader's mount will be."""
        return mountpoint_of(self.site.state, READER)

    def files(self) -> list[Path]:
        """List the series on the mount."""
        return sorted(self.mountpoint.rglob("*.dcm"))


@contextlib.contextmanager
def chain(slices: int = SLICES) -> Iterator[Chain]:
    """Start Orthanc with a CT series of 512 KiB slices, and a hospital with its keystores beside it."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = stack.enter_context(orthanc(folder))
        images = [slice_of(number) for number in range(1, slices + 1)]
        store(address, images)
        listed = folder / "list"
        listed.write_text(f"study {images[0].StudyInstanceUID}\n")
        site = make_site(folder / "site", pacs=str(address), inclusion=listed, deadline=60.0)
        processes = stack.enter_context(running(site))
        processes.start_keystores()
        processes.start_hospital()
        yield Chain(address, images[0], site, processes)


def slice_of(number: int) -> Dataset:
    """Make one slice with a noisy image of 512 KiB."""
    image = ct_slice(CHEST, 1, number)
    image.PixelData = random.Random(number).randbytes(SLICE_BYTES)  # noqa: S311 noise, and the same in each run
    image["PixelData"].VR = "OW"
    image.BitsStored, image.HighBit = 16, 15
    return finished(image)


def finished(image: Dataset) -> Dataset:
    """Give an image the file meta information of Explicit VR Little Endian."""
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    return image


class Peer:
    """pynetdicom's bare C-GET on one open association, with a C-STORE function that does nothing."""

    def __init__(self, pacs: PacsAddress, first: Dataset) -> None:
        """Ask for the series of one of its instances."""
        entity = AE(ae_title="MDMFS")
        entity.dimse_timeout = entity.network_timeout = None  # a long object takes longer than 30 s
        entity.add_requested_context(STUDY_ROOT_GET)
        entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        self._association = entity.associate(
            pacs.host,
            pacs.port,
            ae_title=pacs.ae_title,
            ext_neg=[build_role(CTImageStorage, scp_role=True)],
            evt_handlers=[
                (evt.EVT_C_STORE, lambda _event: 0),
                (evt.EVT_CONN_OPEN, _hasten),
            ],
        )
        self._keys = {
            "StudyInstanceUID": first.StudyInstanceUID,
            "SeriesInstanceUID": first.SeriesInstanceUID,
        }

    def get_series(self) -> None:
        """Retrieve the whole series."""
        self._get(QueryRetrieveLevel="SERIES")

    def get_instance(self, uid: str) -> None:
        """Retrieve one slice."""
        self._get(QueryRetrieveLevel="IMAGE", SOPInstanceUID=uid)

    def close(self) -> None:
        """Release the association."""
        self._association.release()

    def _get(self, **keys: str) -> None:
        identifier = pydicom.Dataset()
        for keyword, value in {**self._keys, **keys}.items():
            setattr(identifier, keyword, value)
        for status, _ in self._association.send_c_get(identifier, STUDY_ROOT_GET):
            assert status.Status in {0, 0xFF00}


class _QuickSocket(socket.socket):
    """Acknowledges at once what it receives: without that a slice takes ten times as long."""

    def recv(self, *arguments: int) -> bytes:
        """Receive, and set TCP_QUICKACK again: the kernel forgets it."""
        octets = super().recv(*arguments)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return octets


def _hasten(event: evt.Event) -> None:
    """Make the peer's connection as quick as it can be."""
    transport = event.assoc.dul.socket
    slow = transport.socket
    transport.socket = _QuickSocket(slow.family, slow.type, slow.proto, fileno=slow.detach())
    transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def peers_seconds(chain: Chain) -> float:
    """Time the peer's retrieval of the series, on an association that is open.

    A host may be half as quick a few seconds later: a bench does this before and after what it compares, for the mean.
    """
    peer = Peer(chain.pacs, chain.first)
    seconds = timed(peer.get_series)
    peer.close()
    return seconds


def timed(act: Callable[[], object]) -> float:
    """Tell how many seconds something takes."""
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def median(acts: list[Callable[[], object]]) -> float:
    """Tell the median of what several things take."""
    return statistics.median(timed(act) for act in acts)
