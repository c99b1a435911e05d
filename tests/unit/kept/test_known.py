"""Known headers: what arrives as it was registered needs no engine; whatever has changed goes through it again."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from mdmfs.hospital.deid.header import IdentifiedHeader
from mdmfs.hospital.deid.policy import Kind, Policy, Rectangle, RegionRule
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.kept.known import KnownHeader, Origin, claim_of, known_header
from mdmfs.hospital.release.render import Admission, Rendering, measure
from mdmfs.sealing.header import FileKey, ObjectContext, Role
from mdmfs.sealing.seal import seal
from tests.twins.clinic import Clinic, slice_of, slices
from tests.twins.key_tasks import rotate_now
from tests.twins.pacs import TwinInstance, encoded_data_set
from tests.twins.records import guid_of
from tests.unit.release.test_render import POLICY, SUBJECT, StreamedInstance, admit, segments_of

CLAIM = claim_of(PatientKey("AMC", "TEST-1"), "AMC", "1.2.840.10008.1.2.1")


async def refuse(header: IdentifiedHeader) -> Admission:
    """Fail the test: nobody may ask."""
    pytest.fail(f"the engine was asked for a header of {len(header.whole)} bytes")


async def registered(instance: Dataset, policy: Policy = POLICY) -> tuple[bytes, int, Origin | None]:
    """Render an instance; give the file, its header's length, and by what its header is known."""

    async def admit_under(_header: IdentifiedHeader) -> Admission:
        return Admission(policy, SUBJECT)

    rendering = Rendering(TwinInstance(instance, lambda: False, is_cut=False), admit_under)
    plain = b"".join(await segments_of(rendering))
    return plain, rendering.deidentification.header_length, rendering.origin(CLAIM, len(plain))


async def known_of(instance: Dataset) -> tuple[KnownHeader, bytes]:
    """Register an instance; give its known header and the file."""
    plain, length, origin = await registered(instance)
    assert origin is not None
    return KnownHeader(origin, CLAIM, plain[:length], len(plain)), plain


@pytest.mark.parametrize("step", [1_000_000, 700, 100])
async def test_an_unchanged_header_needs_no_engine(step: int) -> None:
    """In whatever pieces it arrives; what follows the pixels is left out, as the engine does."""
    instance = slice_of(1, size=64)
    known, plain = await known_of(instance)
    octets = encoded_data_set(instance) + bytes.fromhex("fcfffcff4f42000004000000") + bytes(4)
    pieces = (octets[start : start + step] for start in range(0, len(octets), step))
    assert b"".join(await segments_of(Rendering(StreamedInstance(instance, pieces), refuse, known))) == plain


@pytest.mark.parametrize("step", [1_000_000, 100])
async def test_a_changed_header_goes_through_the_engine(step: int) -> None:
    """From its first byte on, as if nothing were known."""
    known, _ = await known_of(slice_of(1, size=64))
    instance = slice_of(1, size=64)
    instance.PatientName = "Another^Spelling"
    octets = encoded_data_set(instance)

    def pieces() -> Iterator[bytes]:
        return (octets[start : start + step] for start in range(0, len(octets), step))

    expected = await segments_of(Rendering(StreamedInstance(instance, pieces()), admit))
    assert await segments_of(Rendering(StreamedInstance(instance, pieces()), admit, known)) == expected
    assert not known.has_matched


async def test_what_ends_before_a_known_header_does_is_judged_by_the_engine() -> None:
    """An instance that has lost its pixels, with the head of Pixel Data that counts as header."""
    known, _ = await known_of(slice_of(1, size=64))
    instance = slice_of(1, size=64)
    del instance.PixelData
    with pytest.raises(RefusedError) as raised:
        await segments_of(Rendering(StreamedInstance(instance, iter([encoded_data_set(instance)])), admit, known))
    assert raised.value.reason is Reason.PIXEL_LENGTH


def deflated(instance: Dataset) -> Dataset:
    """Give it as a stream that the engine inflates."""
    instance.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return instance


def with_padding(instance: Dataset) -> Dataset:
    """Put an element behind the pixels."""
    instance.add_new(0xFFFCFFFC, "OB", bytes(4))
    return instance


BLANKING = dataclasses.replace(
    POLICY, regions=(RegionRule(Kind(str(slice_of(1).SOPClassUID)), (Rectangle(0, 0, 4, 4),)),)
)


@pytest.mark.parametrize(
    ("make", "policy"),
    [(deflated, POLICY), (with_padding, POLICY), (lambda instance: instance, BLANKING)],
    ids=["deflated", "padding", "blanked"],
)
async def test_no_header_is_known_where_the_engine_does_more(
    make: Callable[[Dataset], Dataset], policy: Policy
) -> None:
    """The pixels would not be those that arrive."""
    _, _, origin = await registered(make(slice_of(1, size=64)), policy)
    assert origin is None


async def test_pixels_that_were_implicit_are_known_as_well() -> None:
    """Only the header is encoded in another way."""
    instance = slice_of(1, size=64)
    instance.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    known, plain = await known_of(instance)
    arriving = TwinInstance(instance, lambda: False, is_cut=False)
    assert b"".join(await segments_of(Rendering(arriving, refuse, known))) == plain


async def test_a_header_is_another_patients_under_another_claim() -> None:
    """The hospital's row of the patient, the issuer of the PACS and the encoding are part of what is compared."""
    instance = slice_of(1, size=64)
    plain, length, origin = await registered(instance)
    assert origin is not None
    for claim in (
        claim_of(PatientKey("AMC", "TEST-2"), "AMC", "1.2.840.10008.1.2.1"),
        claim_of(PatientKey("UMC", "TEST-1"), "AMC", "1.2.840.10008.1.2.1"),
        claim_of(PatientKey("AMC", "TEST-1"), "UMC", "1.2.840.10008.1.2.1"),
        claim_of(PatientKey("AMC", "TEST-1"), "AMC", "1.2.840.10008.1.2"),
    ):
        known = KnownHeader(origin, claim, plain[:length], len(plain))
        known.feed(encoded_data_set(instance))
        assert known.is_other


async def test_what_is_kept_under_another_key_is_not_used() -> None:
    """Damaged, cut, of another key or generation: the engine does it."""
    rendering = Rendering(TwinInstance(slice_of(1, size=64), lambda: False, is_cut=False), admit)
    rendition = await measure(rendering, POLICY.digest)
    origin, guid = rendering.origin(CLAIM, rendition.size), guid_of(1)
    assert origin is not None
    plain = bytes(rendition.header_length)
    with FileKey(b"k" * 32) as key, FileKey(b"o" * 32) as other:
        sealed = seal(plain, key, ObjectContext(Role.PREFIX, guid, 1, len(plain)), b"s" * 24)
        damaged = sealed[:-1] + bytes([sealed[-1] ^ 1])
        assert known_header((origin, sealed), key, guid, 1, rendition, CLAIM) is not None
        assert known_header(None, key, guid, 1, rendition, CLAIM) is None
        for octets, used, generation in (
            (damaged, key, 1),
            (sealed[:60], key, 1),
            (sealed, other, 1),
            (sealed, key, 2),
        ):
            assert known_header((origin, octets), used, guid, generation, rendition, CLAIM) is None


async def test_a_hospital_knows_its_headers_until_their_keys_change(tmp_path: Path) -> None:
    """They come with the prefix objects and go with them; a file opens either way, byte for byte the same."""
    async with Clinic(tmp_path, slices((1, 2))).open() as hospital:
        await hospital.harvest()
        first, second = hospital.files().values()
        headers = hospital.hospital.headers
        assert headers.origin(first, 1)
        assert headers.origin(second, 1)
        assert headers.origin(first, 2) is None
        whole = await hospital.read(first)
        await hospital.hospital.store.write(functools.partial(rotate_now, hospital=hospital.hospital, guids=[first]))
        hospital.hospital.discard(first)
        hospital.hospital.outbox.ring()
        assert headers.origin(first, 1) is None
        assert headers.origin(second, 1)
        await hospital.deliver()
        assert await hospital.read(first) == whole
        await headers.flush()
        assert headers.origin(first, 1) is None
