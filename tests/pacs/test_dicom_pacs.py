"""Ours against real PACSs: Debian's orthanc and dcmqrscp, and pynetdicom's SCP."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from pydicom import Dataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)

from mdmfs.hospital.dicom.pacs import InstanceFound, InstanceKey, Pacs, PacsAddress, Politeness, SeriesFound
from mdmfs.hospital.dicom.remote import open_pacs
from mdmfs.model.errors import InstanceLostError, PacsUnreachableError, RecallFailedError
from tests.twins.images import ct_slice
from tests.twins.pacs import encoded_data_set, keys_of
from tests.twins.servers import dcmqrscp, orthanc, pynetdicom_scp, store

PIXEL_DATA = b"\xe0\x7f\x10\x00"
SLICES = 40
NATIVE = {ExplicitVRLittleEndian, ImplicitVRLittleEndian}


@dataclasses.dataclass(frozen=True)
class Site:
    """A PACS, and what was stored in it."""

    name: str
    address: PacsAddress
    held: list[Dataset]

    def series(self, number: int) -> list[Dataset]:
        """Give the instances of a series."""
        return [it for it in self.held if it.SeriesNumber == number]


def instances(*syntaxes: str) -> list[Dataset]:
    """Make a series of 40 slices, and a series of two slices in each transfer syntax."""
    held = [ct_slice(number, size=256) for number in range(1, SLICES + 1)]
    for series, syntax in enumerate(syntaxes, start=2):
        held += [ct_slice(number, series=series, syntax=syntax) for number in (1, 2)]
    return held


@contextlib.contextmanager
def running(name: str, directory: Path) -> Iterator[Site]:
    """Start a PACS and fill it."""
    # dcmqrscp knows one compressed transfer syntax at a time.
    syntaxes = [ImplicitVRLittleEndian, JPEGLSLossless, *([] if name == "dcmqrscp" else [RLELossless])]
    held = instances(*syntaxes)
    if name == "pynetdicom":
        with pynetdicom_scp(held) as address:
            yield Site(name, address, held)
    else:
        with orthanc(directory) if name == "orthanc" else dcmqrscp(directory, ["+xt"]) as address:
            for series in {int(it.SeriesNumber) for it in held}:
                store(address, [it for it in held if it.SeriesNumber == series])
            yield Site(name, address, held)


@pytest.fixture(scope="module", params=["orthanc", "dcmqrscp", "pynetdicom"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give each PACS in turn."""
    with running(request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


@pytest.fixture
async def pacs(site: Site) -> AsyncIterator[Pacs]:
    """Open it."""
    async with open_pacs(site.address, Politeness(progress_timeout=10)) as opened:
        yield opened


async def series_of(pacs: Pacs, number: int) -> tuple[SeriesFound, list[InstanceFound]]:
    """Find a series by its number, and its instances."""
    (series,) = [it for it in await pacs.find_series(patient_id="TEST-1") if it.series_number == str(number)]
    return series, await pacs.find_instances(study_uid=series.study_uid, series_uid=series.series_uid)


async def harvest(pacs: Pacs, number: int) -> tuple[list[InstanceKey], dict[str, bytes]]:
    """Find and retrieve a series: how its instances are to be recorded, and their bytes."""
    series, found = await series_of(pacs, number)
    uids = {"study_uid": series.study_uid, "series_uid": series.series_uid}
    keys, came = [], {}
    async with pacs.retrieve_series(**uids, instances=found) as arriving:
        async for it in arriving:
            came[it.instance_uid] = b"".join([bytes(buffer) async for buffer in it])
            keys.append(
                InstanceKey(
                    **uids, instance_uid=it.instance_uid, class_uid=it.class_uid, transfer_syntax=it.transfer_syntax
                )
            )
    return keys, came


async def recall(pacs: Pacs, keys: list[InstanceKey], into: dict[str, bytes] | None = None) -> dict[str, bytes]:
    """Retrieve instances whole."""
    came = {} if into is None else into
    async with pacs.retrieve(keys) as arriving:
        async for it in arriving:
            came[it.instance_uid] = b"".join([bytes(buffer) async for buffer in it])
    return came


async def test_it_answers(pacs: Pacs) -> None:
    """To the right AE title."""
    await pacs.echo()


async def test_a_series_is_harvested_whole(site: Site, pacs: Pacs) -> None:
    """Counted, found and brought in one go; the pixels are what was stored."""
    keys, came = await harvest(pacs, 1)
    assert len(keys) == len(came) == SLICES
    for instance in site.series(1):
        assert came[instance.SOPInstanceUID].endswith(instance.PixelData)
    series, found = await series_of(pacs, 1)
    assert (series.patient_id, series.modality, series.study_date) == ("TEST-1", "CT", "20180312")
    assert series.instance_count in {None, SLICES}
    assert {it.class_uid for it in found} <= {"", CTImageStorage}


@pytest.mark.parametrize("number", [2, 3, 4])
async def test_instances_come_as_they_are_stored(site: Site, pacs: Pacs, number: int) -> None:
    """Compressed ones are never decoded; dcmqrscp alone converts between the native ones."""
    if not (stored := site.series(number)):
        assert site.name == "dcmqrscp"
        return
    keys, came = await harvest(pacs, number)
    for instance in stored:
        content = encoded_data_set(instance)
        (key,) = [it for it in keys if it.instance_uid == instance.SOPInstanceUID]
        if site.name == "dcmqrscp" and instance.file_meta.TransferSyntaxUID in NATIVE:
            assert key.transfer_syntax in NATIVE
        else:
            assert key.transfer_syntax == instance.file_meta.TransferSyntaxUID
            start = content.index(PIXEL_DATA)
            assert content[start:].rstrip(b"\0") in came[key.instance_uid]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
async def test_a_recall_brings_the_bytes_of_the_harvest(site: Site, pacs: Pacs, number: int) -> None:
    """In lists, one by one, and from another association: or digests would be worth nothing."""
    if not site.series(number):
        assert site.name == "dcmqrscp"
        return
    keys, came = await harvest(pacs, number)
    assert await recall(pacs, keys) == came
    async with open_pacs(site.address) as other:
        for key in keys[:3]:
            assert await recall(other, [key]) == {key.instance_uid: came[key.instance_uid]}


async def test_what_the_pacs_does_not_hold_is_lost(pacs: Pacs) -> None:
    """And the others in the same list come."""
    keys, came = await harvest(pacs, 1)
    gone = dataclasses.replace(keys[0], instance_uid=keys[0].instance_uid + "9999")
    seen: dict[str, bytes] = {}
    with pytest.raises(InstanceLostError):
        await recall(pacs, [gone, *keys[:5]], into=seen)
    assert seen == {key.instance_uid: came[key.instance_uid] for key in keys[:5]}


async def test_what_is_recorded_as_another_class_is_not_lost(site: Site, pacs: Pacs) -> None:
    """The PACS holds it and cannot send it so."""
    (key, *_) = keys_of(site.series(1))
    with pytest.raises(RecallFailedError):
        await recall(pacs, [dataclasses.replace(key, class_uid=str(MRImageStorage))])


async def test_a_wrong_ae_title_is_rejected_with_the_reason(site: Site) -> None:
    """By those that look at it: all three do."""
    wrong = dataclasses.replace(site.address, ae_title="NOBODY")
    async with open_pacs(wrong) as pacs:
        with pytest.raises(PacsUnreachableError, match="rejected the association"):
            await pacs.echo()


async def test_many_recalls_share_two_associations(pacs: Pacs) -> None:
    """Interleaved, abandoned and complete ones."""
    keys, came = await harvest(pacs, 1)
    results: list[dict[str, bytes]] = []

    async def whole() -> None:
        results.append(await recall(pacs, keys))

    async def abandoned() -> None:
        async with pacs.retrieve(keys) as arriving:
            await anext(aiter(await anext(arriving)))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(whole)
            nursery.start_soon(abandoned)
    assert results == [came] * 4


async def test_an_unknown_patient_has_no_series(pacs: Pacs) -> None:
    """Nor has one whose identifier only begins alike."""
    assert await pacs.find_series(patient_id="TEST") == []
    assert await pacs.find_series(patient_id="test-1") == []
