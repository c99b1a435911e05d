"""What real PACSs store to us: by C-MOVE byte for byte what C-GET brings, as notices, and never from a modality."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian, JPEGLSLossless, RLELossless

from mdmfs.hospital.dicom.move import Destination, Moves
from mdmfs.hospital.dicom.pacs import InstanceKey, PacsAddress, Politeness, RetrievalService
from mdmfs.hospital.dicom.pool import Surroundings
from mdmfs.hospital.dicom.remote import RemotePacs, open_pacs
from mdmfs.model.errors import RecallFailedError
from tests.twins.images import ct_slice
from tests.twins.pacs import keys_of
from tests.twins.receiver import AE_TITLE, Reception, receiving
from tests.twins.receiver import PACS as PACS_NAME
from tests.twins.servers import dcmqrscp, free_port, orthanc, store

SLICES = 40


@dataclasses.dataclass(frozen=True)
class Site:
    """A PACS that knows our SCP, the port where it expects it, and what was stored in it."""

    name: str
    address: PacsAddress
    port: int
    held: list[Dataset]

    def series(self, number: int) -> list[Dataset]:
        """Give the instances of a series."""
        return [it for it in self.held if it.SeriesNumber == number]


@contextlib.contextmanager
def running(name: str, directory: Path) -> Iterator[Site]:
    """Start a PACS and fill it."""
    # dcmqrscp knows one compressed transfer syntax at a time.
    syntaxes = [ImplicitVRLittleEndian, JPEGLSLossless, *([RLELossless] if name == "orthanc" else [])]
    held = [ct_slice(number, size=256) for number in range(1, SLICES + 1)]
    for series, syntax in enumerate(syntaxes, start=2):
        held += [ct_slice(number, series=series, syntax=syntax) for number in (1, 2)]
    port = free_port()
    destinations = {"ours": [AE_TITLE, "127.0.0.1", port]}
    with contextlib.ExitStack() as stack:
        if name == "orthanc":
            address = stack.enter_context(orthanc(directory, {"DicomModalities": destinations}))
        else:
            options = {"dcmqrscp": ["+xt", "-xt"], "dcmqrscp-move": ["+xt", "-xt", "--disable-get"]}[name]
            address = stack.enter_context(dcmqrscp(directory, options, {AE_TITLE: port}))
        for series in {int(it.SeriesNumber) for it in held}:
            store(address, [it for it in held if it.SeriesNumber == series])
        yield Site(name, address, port, held)


@pytest.fixture(scope="module", params=["orthanc", "dcmqrscp", "dcmqrscp-move"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give each PACS in turn."""
    with running(request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


@pytest.fixture
async def reception(site: Site) -> AsyncIterator[Reception]:
    """Listen where the PACS expects us."""
    async with receiving(site.address, port=site.port) as opened:
        yield opened


@contextlib.asynccontextmanager
async def opened(site: Site, reception: Reception, by: RetrievalService | None) -> AsyncIterator[RemotePacs]:
    """Open a PACS to be retrieved from in one way."""
    politeness = Politeness(progress_timeout=10, retrieval=by)
    async with open_pacs(site.address, politeness, reception.surroundings) as pacs:
        yield pacs


async def recall(pacs: RemotePacs, keys: list[InstanceKey]) -> dict[str, bytes]:
    """Retrieve instances whole."""
    came = {}
    async with pacs.retrieve(keys) as arriving:
        async for it in arriving:
            came[it.instance_uid] = b"".join([bytes(buffer) async for buffer in it])
    return came


async def harvest(pacs: RemotePacs, instances: list[Dataset]) -> tuple[dict[str, str], dict[str, bytes]]:
    """Retrieve a whole series of which nothing is known: transfer syntaxes and bytes."""
    uids = {"study_uid": str(instances[0].StudyInstanceUID), "series_uid": str(instances[0].SeriesInstanceUID)}
    syntaxes, came = {}, {}
    found = await pacs.find_instances(**uids)
    async with pacs.retrieve_series(**uids, instances=found) as arriving:
        async for it in arriving:
            came[it.instance_uid] = b"".join([bytes(buffer) async for buffer in it])
            syntaxes[it.instance_uid] = it.transfer_syntax
    return syntaxes, came


async def test_the_service_is_negotiated_and_remembered(site: Site, reception: Reception) -> None:
    """C-GET where the PACS has it, else C-MOVE."""
    async with opened(site, reception, None) as pacs:
        assert pacs.retrieval is None
        await recall(pacs, list(keys_of(site.series(1)[:1])))
        expected = RetrievalService.MOVE if site.name == "dcmqrscp-move" else RetrievalService.GET
        assert pacs.retrieval is expected


@pytest.mark.parametrize("number", [1, 2, 3, 4])
async def test_a_move_brings_the_bytes_that_a_get_brings(site: Site, reception: Reception, number: int) -> None:
    """In lists and as a series: or a digest would depend on the service."""
    if not (instances := site.series(number)):
        assert site.name != "orthanc"
        return
    keys = list(keys_of(instances))
    async with opened(site, reception, RetrievalService.MOVE) as moving:
        moved = await recall(moving, keys)
        syntaxes, harvested = await harvest(moving, instances)
    assert len(moved) == len(keys)
    assert set(harvested) == set(moved)
    if site.name != "dcmqrscp-move":
        async with opened(site, reception, RetrievalService.GET) as getting:
            assert await recall(getting, keys) == moved
    recorded = {key.instance_uid: key.transfer_syntax for key in keys}
    for uid, content in harvested.items():
        assert syntaxes[uid] == recorded[uid] or site.name != "orthanc"
        assert content == moved[uid] or syntaxes[uid] != recorded[uid]
    assert reception.noted == []


async def test_moves_share_the_associations(site: Site, reception: Reception) -> None:
    """At once, abandoned and complete; each gets its own instances, and nothing is taken for a notice."""
    keys = list(keys_of(site.series(1)))
    results = []
    async with opened(site, reception, RetrievalService.MOVE) as pacs, trio.open_nursery() as nursery:

        async def whole() -> None:
            results.append(await recall(pacs, keys))

        async def abandoned() -> None:
            async with pacs.retrieve(keys[:8]) as arriving:
                await anext(aiter(await anext(arriving)))

        for _ in range(3):
            nursery.start_soon(whole)
            nursery.start_soon(abandoned)
    assert [len(result) for result in results] == [SLICES] * 3
    assert results[0] == results[1] == results[2]


async def test_an_unknown_destination_is_told(site: Site) -> None:
    """With what to do about it."""
    nowhere = Surroundings(Destination(Moves("NOBODY"), PACS_NAME))
    async with open_pacs(site.address, Politeness(retrieval=RetrievalService.MOVE), nowhere) as pacs:
        said = "does not send it" if site.name == "orthanc" else "does not know the AE title NOBODY"
        with pytest.raises(RecallFailedError, match=said):
            await recall(pacs, list(keys_of(site.series(1)[:1])))


async def storescu(port: int, directory: Path, *, calling: str, called: str = AE_TITLE) -> int:
    """Send two slices as dcmtk's storescu does; the exit status."""
    program = shutil.which("storescu")
    if program is None:
        pytest.fail("storescu is missing: apt-get install dcmtk")
    files = []
    for number in (1, 2):
        instance = ct_slice(number)
        instance.save_as(directory / f"{number}.dcm", enforce_file_format=True)
        files.append(str(directory / f"{number}.dcm"))
    command = [program, "-aet", calling, "-aec", called, "127.0.0.1", str(port), *files]
    ended = await trio.run_process(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return ended.returncode


PACS = PacsAddress("ARCHIVE", "127.0.0.1", 104)


async def test_what_a_pacs_stores_is_noted(tmp_path: Path) -> None:
    """Study, series, instances and class; the data set is gone."""
    async with receiving(PACS) as reception:
        assert await storescu(reception.port, tmp_path, calling="ARCHIVE") == 0
    expected = [
        (str(it.StudyInstanceUID), str(it.SeriesInstanceUID), str(it.SOPInstanceUID), str(it.SOPClassUID))
        for it in map(ct_slice, (1, 2))
    ]
    assert [tuple(noted)[1:] for noted in reception.noted] == expected


@pytest.mark.parametrize(("calling", "called"), [("CT-SCANNER", AE_TITLE), ("ARCHIVE", "OTHER")])
async def test_a_modality_is_refused(tmp_path: Path, calling: str, called: str) -> None:
    """From the very address of the PACS, and a PACS that means somebody else too."""
    async with receiving(PACS) as reception:
        assert await storescu(reception.port, tmp_path, calling=calling, called=called) != 0
    assert reception.noted == []


async def test_a_pacs_at_another_address_is_refused(tmp_path: Path) -> None:
    """Anybody can call himself by its AE title."""
    async with receiving(PACS, hosts=("192.0.2.1",)) as reception:
        assert await storescu(reception.port, tmp_path, calling="ARCHIVE") != 0
    assert reception.noted == []


async def test_a_notice_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    """So that the PACS sends again."""
    async with receiving(PACS) as reception:
        reception.is_full = True
        assert await storescu(reception.port, tmp_path, calling="ARCHIVE") != 0
        reception.is_full = False
        assert await storescu(reception.port, tmp_path, calling="ARCHIVE") == 0
    assert len(reception.noted) == 2
