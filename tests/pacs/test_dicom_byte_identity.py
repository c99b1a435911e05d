"""One instance is one file, however it comes: by C-GET or C-MOVE, Implicit or Explicit VR, from Orthanc or dcmqrscp.

The mount shows nothing but bytes of the digests that a registration has measured, so these are what is compared.
"""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mdmfs.hospital.assembly import read_policy
from mdmfs.hospital.catalogue.records import Rendition
from mdmfs.hospital.deid.header import IdentifiedHeader
from mdmfs.hospital.deid.pseudonyms import Subject
from mdmfs.hospital.dicom.pacs import IncomingInstance, InstanceKey, PacsAddress, Politeness, RetrievalService
from mdmfs.hospital.dicom.remote import open_pacs
from mdmfs.hospital.release.render import Admission, Rendering, measure
from mdmfs.model.subject import SubjectId
from tests.twins.clinic import slice_of
from tests.twins.pacs import TwinInstance, keys_of
from tests.twins.receiver import AE_TITLE, receiving
from tests.twins.servers import dcmqrscp, free_port, orthanc, store

POLICY = read_policy("research")
SUBJECT = Subject(SubjectId("a" * 16), -364, 7, b"k" * 32)
SYNTAXES = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
WAYS = list(itertools.product(RetrievalService, SYNTAXES))


def instances() -> list[Dataset]:
    """Make slices that are stored in Explicit and in Implicit VR."""
    explicit = [slice_of(number, size=64) for number in (1, 2, 3)]
    implicit = [slice_of(number, series=2, size=64, syntax=ImplicitVRLittleEndian) for number in (1, 2, 3)]
    return explicit + implicit


async def rendition(incoming: IncomingInstance) -> Rendition:
    """Measure what a registration would."""

    async def admit(_: IdentifiedHeader) -> Admission:
        return Admission(POLICY, SUBJECT)

    return await measure(Rendering(incoming, admit), POLICY.digest)


async def as_they_are(held: list[Dataset]) -> dict[str, Rendition]:
    """Measure instances that no PACS had in its hands."""
    twins = [TwinInstance(it, lambda: False, is_cut=False) for it in held]
    return {twin.instance_uid: await rendition(twin) for twin in twins}


async def retrieved(
    address: PacsAddress, port: int, keys: list[InstanceKey], way: RetrievalService
) -> dict[str, Rendition]:
    """Retrieve instances, and measure each while it arrives."""
    found = {}
    async with receiving(address, port=port) as reception:
        politeness = Politeness(progress_timeout=10, retrieval=way)
        async with open_pacs(address, politeness, reception.surroundings) as pacs, pacs.retrieve(keys) as arriving:
            async for incoming in arriving:
                found[incoming.instance_uid] = await rendition(incoming)
    return found


@pytest.mark.parametrize("name", ["orthanc", "dcmqrscp"])
async def test_an_instance_is_the_same_file_whatever_way_it_comes(name: str, tmp_path: Path) -> None:
    """Sixteen ways in all, and each gives size, header length and digests of what was stored."""
    held = instances()
    port = free_port()
    with contextlib.ExitStack() as stack:
        if name == "orthanc":
            known = {"DicomModalities": {"ours": [AE_TITLE, "127.0.0.1", port]}}
            address = stack.enter_context(orthanc(tmp_path, known))
        else:
            address = stack.enter_context(dcmqrscp(tmp_path, [], {AE_TITLE: port}))
        for stored in (held[:3], held[3:]):
            store(address, stored)
        expected = await as_they_are(held)
        for way, syntax in WAYS:
            for stored in (held[:3], held[3:]):
                keys = [
                    InstanceKey(it.study_uid, it.series_uid, it.instance_uid, it.class_uid, syntax)
                    for it in keys_of(stored)
                ]
                came = await retrieved(address, port, keys, way)
                assert came == {key.instance_uid: expected[key.instance_uid] for key in keys}, (way, syntax)


async def test_native_instances_are_one_file_in_either_encoding() -> None:
    """Before any PACS: the canonical encoding does not tell how an instance was stored."""
    explicit = slice_of(1, size=64)
    implicit = slice_of(1, size=64, syntax=ImplicitVRLittleEndian)
    (one,), (other,) = [list((await as_they_are([it])).values()) for it in (explicit, implicit)]
    assert one == other
