"""Reception of a CT series that Orthanc moves, beside pynetdicom's storage SCP with a function that does nothing."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import trio
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association

from mdmfs.hospital.dicom.negotiation import STUDY_ROOT_MOVE
from mdmfs.hospital.dicom.pacs import PacsAddress, Politeness, RetrievalService
from mdmfs.hospital.dicom.remote import open_pacs
from tests.bench._frame import Bench, Measured
from tests.twins.images import ct_slice
from tests.twins.receiver import AE_TITLE, receiving
from tests.twins.servers import free_port, orthanc, store

SLICES = 400
ROUNDS = 3
THEIR_TITLE = "PEER-SCP"


async def ours(address: PacsAddress, port: int, first: Dataset) -> list[float]:
    """Move the series to our SCP, to be read by whoever asked and dropped."""
    seconds = []
    polite = Politeness(retrieval=RetrievalService.MOVE)
    uids = {"study_uid": str(first.StudyInstanceUID), "series_uid": str(first.SeriesInstanceUID)}
    async with (
        receiving(address, port=port) as reception,
        open_pacs(address, polite, reception.surroundings) as pacs,
    ):
        found = await pacs.find_instances(**uids)
        for _ in range(ROUNDS):
            count, start = 0, time.perf_counter()
            async with pacs.retrieve_series(**uids, instances=found) as instances:
                async for instance in instances:
                    async for _buffer in instance:
                        pass
                    count += instance.is_complete
            seconds.append(time.perf_counter() - start)
            assert count == SLICES
    return seconds


@contextlib.contextmanager
def storage_scp(port: int, counted: list[int]) -> Iterator[None]:
    """Run pynetdicom's storage SCP as it comes."""

    def count(_event: evt.Event) -> int:
        counted[0] += 1
        return 0

    entity = AE(ae_title=THEIR_TITLE)
    entity.maximum_pdu_size = 0
    entity.add_supported_context(CTImageStorage, ExplicitVRLittleEndian)
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, count)])
    assert server is not None
    try:
        yield
    finally:
        server.shutdown()


def theirs(address: PacsAddress, port: int, first: Dataset) -> list[float]:
    """Move the series to pynetdicom's SCP."""
    counted, seconds = [0], []
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.StudyInstanceUID, identifier.SeriesInstanceUID = first.StudyInstanceUID, first.SeriesInstanceUID
    entity = AE(ae_title=address.calling_ae_title)
    entity.add_requested_context(STUDY_ROOT_MOVE)
    with storage_scp(port, counted):
        association = entity.associate(address.host, address.port, ae_title=address.ae_title)
        for number in range(1, ROUNDS + 1):
            start = time.perf_counter()
            seconds.append(_moved(association, identifier) - start)
            assert counted == [number * SLICES]
        association.release()
    return seconds


def _moved(association: Association, identifier: Dataset) -> float:
    for status, _ in association.send_c_move(identifier, THEIR_TITLE, STUDY_ROOT_MOVE):
        assert status.Status in {0, 0xFF00}
    return time.perf_counter()


def measure() -> Measured:
    """Let Orthanc move 400 slices of 512 KiB to each, the best of three."""
    first = ct_slice(1, size=512)
    megabytes = SLICES * 512 * 512 * 2 / 1e6
    our_port, their_port = free_port(), free_port()
    destinations = {"ours": [AE_TITLE, "127.0.0.1", our_port], "theirs": [THEIR_TITLE, "127.0.0.1", their_port]}
    with (
        tempfile.TemporaryDirectory() as directory,
        orthanc(Path(directory), {"DicomModalities": destinations}) as address,
    ):
        store(address, [ct_slice(number, size=512) for number in range(1, SLICES + 1)])
        mine = min(trio.run(ours, address, our_port, first))
        peer = min(theirs(address, their_port, first))
    rows = [("mdmfs", f"{megabytes / mine:.0f}"), ("pynetdicom", f"{megabytes / peer:.0f}")]
    return Measured(("received by C-MOVE by", "series, MB/s"), rows, peer / mine)


BENCH = Bench(measure, bar=3.0)
