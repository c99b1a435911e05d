"""Retrieval of a CT series from Orthanc to nowhere, beside pynetdicom's C-GET with a function that does nothing."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import trio
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, build_role, evt

from mdmfs.hospital.dicom.negotiation import STUDY_ROOT_GET
from mdmfs.hospital.dicom.pacs import InstanceFound, InstanceKey, PacsAddress
from mdmfs.hospital.dicom.remote import open_pacs
from tests.bench._frame import Bench, Measured
from tests.twins.images import ct_slice
from tests.twins.servers import orthanc, store

SLICES = 400
ROUNDS = 3
SINGLES = 20


class Peer:
    """pynetdicom as it comes, with a C-STORE function that does nothing."""

    def __init__(self, address: PacsAddress) -> None:
        entity = AE(ae_title="MDMFS")
        entity.add_requested_context(STUDY_ROOT_GET)
        entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        self.association = entity.associate(
            address.host,
            address.port,
            ae_title=address.ae_title,
            ext_neg=[build_role(CTImageStorage, scp_role=True)],
            evt_handlers=[(evt.EVT_C_STORE, lambda _event: 0)],
        )

    def get(self, **keys: str) -> None:
        """Run one C-GET to its end."""
        identifier = Dataset()
        for keyword, value in keys.items():
            setattr(identifier, keyword, value)
        for status, _ in self.association.send_c_get(identifier, STUDY_ROOT_GET):
            assert status.Status in {0, 0xFF00}


def timed(act: Callable[[], object]) -> float:
    """Return how many seconds it took."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def key_of(uids: dict[str, str], found: InstanceFound) -> InstanceKey:
    """Name an instance as a registration would."""
    return InstanceKey(
        **uids,
        instance_uid=found.instance_uid,
        class_uid=found.class_uid,
        transfer_syntax=str(ExplicitVRLittleEndian),
    )


async def ours(address: PacsAddress, first: Dataset) -> tuple[list[float], list[float], list[float]]:
    """Retrieve the series, at SERIES level and by lists, and single slices."""
    series, lists, singles = [], [], []
    async with open_pacs(address) as pacs:
        uids = {"study_uid": str(first.StudyInstanceUID), "series_uid": str(first.SeriesInstanceUID)}
        found = await pacs.find_instances(**uids)
        keys = [key_of(uids, it) for it in found]
        for _ in range(ROUNDS):
            start = time.perf_counter()
            async with pacs.retrieve_series(**uids, instances=found) as instances:
                async for instance in instances:
                    async for _buffer in instance:
                        pass
            series.append(time.perf_counter() - start)
            start = time.perf_counter()
            async with pacs.retrieve(keys) as instances:
                async for instance in instances:
                    async for _buffer in instance:
                        pass
            lists.append(time.perf_counter() - start)
        for key in keys[:SINGLES]:
            start = time.perf_counter()
            async with pacs.retrieve([key]) as instances:
                async for instance in instances:
                    async for _buffer in instance:
                        pass
            singles.append(time.perf_counter() - start)
    return series, lists, singles


def measure() -> Measured:
    """Retrieve 400 slices of 512 KiB both ways, the best of three; and single slices on an open association."""
    first = ct_slice(1, size=512)
    megabytes = SLICES * 512 * 512 * 2 / 1e6
    with tempfile.TemporaryDirectory() as directory, orthanc(Path(directory)) as address:
        store(address, [ct_slice(number, size=512) for number in range(1, SLICES + 1)])
        series, lists, singles = trio.run(ours, address, first)
        peer = Peer(address)
        keys = {"StudyInstanceUID": first.StudyInstanceUID, "SeriesInstanceUID": first.SeriesInstanceUID}
        their_series = min(timed(lambda: peer.get(QueryRetrieveLevel="SERIES", **keys)) for _ in range(ROUNDS))
        their_singles = [
            timed(lambda: peer.get(QueryRetrieveLevel="IMAGE", SOPInstanceUID=first.SOPInstanceUID, **keys))
            for _ in range(SINGLES)
        ]
        peer.association.release()
    mine, theirs = statistics.median(singles) * 1e3, statistics.median(their_singles) * 1e3
    rows = [
        ("mdmfs, one request", f"{megabytes / min(series):.0f}", f"{mine:.1f}"),
        ("mdmfs, lists of 32", f"{megabytes / min(lists):.0f}", ""),
        ("pynetdicom", f"{megabytes / their_series:.0f}", f"{theirs:.1f}"),
    ]
    return Measured(("retrieved by", "series, MB/s", "one slice, ms"), rows, their_series / min(series))


BENCH = Bench(measure, bar=4.0)
