"""Rendering: the same bytes at registration and recall, in segments and constant memory; a change is named."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import trio
from pydicom import Dataset, Sequence
from pydicom.uid import ExplicitVRLittleEndian

from mdmfs.hospital.assembly import read_policy
from mdmfs.hospital.catalogue.records import Rendition
from mdmfs.hospital.deid.header import IdentifiedHeader
from mdmfs.hospital.deid.pseudonyms import Subject
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.release.render import Admission, Rendering, Verification, measure
from mdmfs.model.errors import InstanceChangedError
from mdmfs.model.subject import SubjectId
from mdmfs.sealing.layout import SEGMENT_SIZE
from tests.twins.clinic import slice_of
from tests.twins.pacs import TwinInstance, encoded_data_set
from tests.twins.records import guid_of

POLICY = read_policy("research")
SUBJECT = Subject(SubjectId("a" * 16), -364, 7, b"k" * 32)
GUID = guid_of(1)
BIG = 2112
"""Rows of an image whose pixels fill more than two segments."""


class StreamedInstance:
    """An instance that is made as it is read."""

    def __init__(self, instance: Dataset, octets: Iterator[bytes]) -> None:
        self.class_uid = str(instance.SOPClassUID)
        self.instance_uid = str(instance.SOPInstanceUID)
        self.transfer_syntax = str(ExplicitVRLittleEndian)
        self.is_complete = False
        self._octets = octets

    def __aiter__(self) -> AsyncIterator[memoryview]:
        """Step through it once."""
        return self

    async def __anext__(self) -> memoryview:
        """Give the next buffer."""
        await trio.lowlevel.checkpoint()
        piece = next(self._octets, None)
        if piece is None:
            self.is_complete = True
            raise StopAsyncIteration
        return memoryview(piece)


async def admit(header: IdentifiedHeader) -> Admission:
    """Let everything in."""
    assert header.patient.patient_id
    await trio.lowlevel.checkpoint()
    return Admission(POLICY, SUBJECT)


def rendering_of(instance: Dataset) -> Rendering:
    """Render what a PACS sends."""
    return Rendering(TwinInstance(instance, lambda: False, is_cut=False), admit)


async def segments_of(rendering: Rendering) -> list[bytes]:
    """Take it all."""
    return [bytes(segment) async for segment in rendering.segments()]


async def verified(rendering: Rendering, registered: Rendition) -> AsyncIterator[bytes]:
    """Give the segments that are what was registered."""
    verification = Verification(GUID, registered)
    async with contextlib.aclosing(rendering.segments()) as segments:
        async for segment in segments:
            verification.verify(segment)
            yield bytes(segment)
    verification.finish()


async def changed(instance: Dataset, registered: Rendition) -> tuple[str, int]:
    """Render an instance against what was registered; give what is said of the change, and how many bytes came out."""
    given = 0
    with pytest.raises(InstanceChangedError) as raised:  # noqa: PT012 what came before counts
        async for segment in verified(rendering_of(instance), registered):
            given += len(segment)
    return ("header" if "another header" in str(raised.value) else "pixels"), given


def with_long_header(fill: int = 0) -> Dataset:
    """Make a slice with 5 MiB of lookup tables in front of its pixels."""
    instance = slice_of(1)
    instance.ModalityLUTSequence = Sequence([lookup_table(fill) for _ in range(40)])
    return instance


def lookup_table(fill: int) -> Dataset:
    """Make the longest one that there is."""
    table = Dataset()
    table.LUTDescriptor = [0, 0, 16]
    table.add_new(0x00283006, "OW", bytes([fill]) * 2**17)
    table.ModalityLUTType = "US"
    return table


@pytest.mark.parametrize("make", [lambda: slice_of(1), lambda: slice_of(1, size=BIG), with_long_header])
async def test_what_is_measured_is_what_comes_out(make: Callable[[], Dataset]) -> None:
    """Size, header length and every digest, whether the file has one segment or three, or a header of more than one."""
    segments = await segments_of(rendering_of(make()))
    assert {len(segment) for segment in segments[:-1]} <= {SEGMENT_SIZE}
    rendering = rendering_of(make())
    measured = await measure(rendering, POLICY.digest)
    whole = b"".join(segments)
    assert (measured.size, measured.sha256) == (len(whole), hashlib.sha256(whole).digest())
    assert measured.segment_sha256 == b"".join(hashlib.sha256(segment).digest() for segment in segments)
    assert whole[measured.header_length :] == make().PixelData
    assert measured.header_sha256 == hashlib.sha256(whole[: measured.header_length]).digest()
    assert [one async for one in verified(rendering_of(make()), measured)] == segments


async def test_a_changed_header_gives_nothing_at_all() -> None:
    """The first segment is compared before it is given."""
    measured = await measure(rendering_of(slice_of(1)), POLICY.digest)
    other = slice_of(1)
    other.InstanceNumber = 5
    assert await changed(other, measured) == ("header", 0)


@pytest.mark.parametrize("at", [0, SEGMENT_SIZE + 10, -1])
async def test_changed_pixels_stop_at_their_segment(at: int) -> None:
    """What came before the change had been verified; of the changed segment nothing comes out."""
    measured = await measure(rendering_of(slice_of(1, size=BIG)), POLICY.digest)
    other = slice_of(1, size=BIG)
    pixels = bytearray(other.PixelData)
    pixels[at] ^= 1
    other.PixelData = bytes(pixels)
    position = measured.header_length + at % len(pixels)
    assert await changed(other, measured) == ("pixels", position // SEGMENT_SIZE * SEGMENT_SIZE)


async def test_a_long_header_is_told_from_pixels_in_every_segment() -> None:
    """With a header of 5 MiB the second segment holds its end and the pixels' begin."""
    measured = await measure(rendering_of(with_long_header()), POLICY.digest)
    assert measured.header_length > SEGMENT_SIZE
    assert await changed(with_long_header(fill=1), measured) == ("header", 0)
    pixels = with_long_header()
    pixels.PixelData = bytes(len(pixels.PixelData))
    assert await changed(pixels, measured) == ("pixels", SEGMENT_SIZE)
    end = with_long_header()
    table = bytearray(2**17)
    table[-1] ^= 1
    end.ModalityLUTSequence[-1].add_new(0x00283006, "OW", bytes(table))
    assert await changed(end, measured) == ("header", SEGMENT_SIZE)


class SeenTerms(frozenset[str]):
    """Terms of a policy that know which threads look at them: the engine does, and the search for residue."""

    __slots__ = ("threads",)

    threads: set[int]

    def __len__(self) -> int:
        """Know of a look."""
        self.threads.add(threading.get_ident())
        return super().__len__()


async def threads_that_look(instance: Dataset) -> set[int]:
    """Render an instance, and tell which threads looked at its policy's terms."""
    terms = SeenTerms({"zqterm"})
    terms.threads = set()

    async def admit_under_terms(header: IdentifiedHeader) -> Admission:
        admission = await admit(header)
        return admission._replace(policy=dataclasses.replace(admission.policy, terms=terms))

    await segments_of(Rendering(TwinInstance(instance, lambda: False, is_cut=False), admit_under_terms))
    return terms.threads


async def test_a_long_header_holds_up_nobody() -> None:
    """Nor does the search for residue in it, which takes longer than all else: for that one lookup table is long."""
    threads = await threads_that_look(with_long_header())
    assert threads
    assert threading.get_ident() not in threads
    one_table = slice_of(1)
    one_table.ModalityLUTSequence = Sequence([lookup_table(0)])
    assert await threads_that_look(one_table) - {threading.get_ident()}
    assert await threads_that_look(slice_of(1)) == {threading.get_ident()}


@pytest.mark.parametrize("size", [1, SEGMENT_SIZE, 2 * SEGMENT_SIZE])
async def test_a_shorter_or_longer_instance_is_changed(size: int) -> None:
    """Also where the difference begins at a segment's edge, as far as digests go."""
    segments = await segments_of(rendering_of(slice_of(1, size=BIG)))
    whole = b"".join(segments)[:size]
    pieces = [whole[at : at + SEGMENT_SIZE] for at in range(0, size, SEGMENT_SIZE)]
    measured = await measure(rendering_of(slice_of(1, size=BIG)), POLICY.digest)
    digests = b"".join(hashlib.sha256(piece).digest() for piece in pieces)
    shorter = Rendition(
        size,
        measured.header_length,
        hashlib.sha256(whole).digest(),
        measured.header_sha256,
        digests,
        POLICY.digest,
        1,
        "",
    )
    await changed(slice_of(1, size=BIG), shorter)
    longer = Rendition(
        measured.size + 1,
        measured.header_length,
        measured.sha256,
        measured.header_sha256,
        measured.segment_sha256,
        POLICY.digest,
        1,
        "",
    )
    await changed(slice_of(1, size=BIG), longer)


async def test_a_refused_admission_gives_nothing() -> None:
    """The header is looked at before anything of the instance is taken in."""

    async def refuse(_: IdentifiedHeader) -> Admission:
        await trio.lowlevel.checkpoint()
        raise RefusedError(Reason.OTHER_PATIENT)

    rendering = Rendering(TwinInstance(slice_of(1), lambda: False, is_cut=False), refuse)
    with pytest.raises(RefusedError):
        await segments_of(rendering)
    with pytest.raises(RuntimeError):
        _ = rendering.deidentification


async def test_memory_does_not_grow_with_the_number_of_frames() -> None:
    """Ninety-six MiB go through in the memory of a few segments."""
    frames, rows = 12, 2048
    instance = slice_of(1)
    instance.Rows = instance.Columns = rows
    instance.NumberOfFrames = frames
    length = frames * rows * rows * 2
    del instance.PixelData
    head = encoded_data_set(instance) + bytes.fromhex("e07f10004f570000") + length.to_bytes(4, "little")
    buffer = bytes(2**20)
    octets = itertools.chain([head], itertools.repeat(buffer, length // len(buffer)))
    tracemalloc.start()
    try:
        measured = await measure(Rendering(StreamedInstance(instance, octets), admit), POLICY.digest)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert measured.size == measured.header_length + length
    assert peak < 5 * SEGMENT_SIZE
