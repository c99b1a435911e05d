"""What comes out of the engine: one canonical file, the same however the instance arrived."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import tracemalloc
from typing import Final

import pydicom
import pytest
from pydicom import Dataset, Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from mdmfs.hospital.deid.charsets import CHARACTER_SET_TAG
from mdmfs.hospital.deid.deidentify import ENGINE_GENERATION, Part, deidentify
from mdmfs.hospital.deid.elements import PIXELS, read_elements, read_explicit_head
from mdmfs.hospital.deid.encode import encode, encode_items, head
from mdmfs.hospital.deid.header import IncomingHeader
from mdmfs.hospital.deid.part10 import read_file_meta
from mdmfs.hospital.deid.policy import Policy
from mdmfs.hospital.deid.rules import compile_rules
from mdmfs.hospital.deid.tables import codes, safe_private, types
from mdmfs.hospital.deid.tables.dictionary import VRS
from mdmfs.hospital.deid.tables.uids import KNOWN_UIDS
from mdmfs.hospital.deid.terms import DESCRIPTORS, EQUIPMENT, TECHNIQUE
from mdmfs.hospital.deid.walk import Traces, Walk
from tests.twins.deidentified import (
    RESEARCH,
    STRICT,
    SUBJECT,
    deidentification_of,
    deidentified,
    deidentified_in_pieces,
    elements_of_example,
    example,
    header_of,
    part10,
    reviewed,
    with_elements,
    without,
)
from tests.twins.frames import END, JPEG, JPEG_2000, RLE, encapsulated, item, jpeg, jpeg_2000, rle, segment
from tests.twins.planted import Kind, OtherKind, planted, planted_file, written

GOLDEN: Final = {
    14: "278149977192ea8cbf0562b6956878cddd1e9afaf41f7db86da51b34a888ceef",
}
"""SHA-256 of what comes out, by engine generation; a new digest needs a new generation."""
KINDS_IN_GOLDEN: Final = (Kind.CT, Kind.ENHANCED_MR, Kind.SEG, Kind.RT_PLAN, OtherKind.SR)
CLASSES_IN_GOLDEN: Final = [kind.value for kind in KINDS_IN_GOLDEN]
APPROVED: Final = '[approvals]\nretain-full-dates = "the board"\nretain-institution = "the board"\n'
OTHERS: Final = '["clean-structured-content", "retain-full-dates", "retain-institution", "retain-device"]'
EVERY_OTHER: Final = Policy.parse(f'name = "o"\nheads = "agreement"\ntimes = "keep"\noptions = {OTHERS}\n{APPROVED}')
BLANKED: Final = Policy.parse(
    f'name = "b"\nheads = "agreement"\n[[regions]]\nsop_class = "{Kind.CT.value}"\nblank = [[0, 0, 2, 2]]'
)
VALUES: Final = {
    **dict.fromkeys((b"DS", b"IS"), b"12"),
    b"AS": b"095Y",
    b"DA": b"20180312",
    b"TM": b"101530.5",
    b"DT": b"20180312101530.5",
    b"UI": b"1.2.840.10008.1.1\0",
    **dict.fromkeys((b"US", b"SS"), b"\1\0"),
    **dict.fromkeys((b"UL", b"SL", b"FL", b"AT", b"OL", b"OF"), b"\1\0\2\0"),
    **dict.fromkeys((b"UV", b"SV", b"FD", b"OV", b"OD"), b"\1\0\2\0\3\0\4\0"),
}
"""A value for each VR."""


def parsed(file: bytes) -> Dataset:
    """Read an output with the oracle."""
    return pydicom.dcmread(io.BytesIO(file))


def test_the_output_bytes_change_only_with_the_engine_generation() -> None:
    """Files are registered by digest: an engine that writes other bytes must say so.

    The inputs hold every tag of PS3.6 at two levels, under five classes, the shipped policies and what else a policy
    can say; and the tables that outputs are written from.
    """
    digest = hashlib.sha256(repr([codes.CODES, codes.LEGACY, safe_private.ROWS, types.ROWS]).encode())
    digest.update(repr([sorted(KNOWN_UIDS), sorted(TECHNIQUE), sorted(EQUIPMENT), sorted(DESCRIPTORS)]).encode())
    for sop_class in CLASSES_IN_GOLDEN:
        for policy in (STRICT, RESEARCH, EVERY_OTHER):
            walk = Walk(b"", read_explicit_head, compile_rules(policy, sop_class), policy, SUBJECT, Traces("ascii"))
            digest.update(b"".join(everything_through(walk)))
    code = code_item(b"818981001", b"SCT", b"Abdomen")
    private = encode(head(0x00190010, b"LO"), b"SIEMENS MR HEADER") + encode(head(0x0019100A, b"US"), b"\x24\0")
    words = encode(head(0x0008103E, b"LO"), b"t1_mprage Jane Doe")
    digest.update(deidentified(with_elements(encode_items(head(0x00081032, b"SQ"), [code]), private, words)))
    digest.update(deidentified(encapsulated(JPEG, item(jpeg(segment(0xFE, b"Jane Doe")) + END))))
    digest.update(deidentified(encapsulated(JPEG_2000, item(jpeg_2000(segment(0x64, b"\0\1Jane Doe")) + END))))
    number, text = struct.pack("<d", 1000.0), "Müller A".encode("latin_1")
    untold = (0x00189073, text), (0x00189082, b"Jane Do?"), (0x00189087, number)
    digest.update(deidentified(with_elements(*(encode(head(tag, b"UN"), value) for tag, value in untold))))
    report, _ = planted_file(OtherKind.SR, depth=0, outside=False)
    digest.update(deidentified(report, reviewed(OtherKind.SR.value)))
    frame = encapsulated(RLE, item(rle(b"\xf1\1", b"\xf1\7")))
    digest.update(deidentified(frame, BLANKED))
    place = encode(head(0x00080005, b"CS"), b"ISO_IR 192") + encode(head(0x00081040, b"LO"), "Müllerhaus".encode())
    own_characters = encode_items(head(0x00321064, b"SQ"), [place])
    digest.update(deidentified(with_elements(own_characters), EVERY_OTHER))
    assert GOLDEN[ENGINE_GENERATION] == digest.hexdigest()


def everything_through(walk: Walk) -> list[bytes]:
    """Walk over one element of each tag of PS3.6, at the top level and in an item."""
    octets = b"".join(
        encode(head(tag, choice[0]), VALUES.get(choice[0], b"TEXT"))
        for tag, choice in sorted(VRS.items())
        if choice != (b"SQ",) and tag not in PIXELS | {CHARACTER_SET_TAG}
    )
    elements = read_elements(octets, 0, len(octets), read_explicit_head)
    whole = Walk(octets, walk.read_head, walk.rules, walk.policy, walk.subject, walk.traces)
    return [*whole.dataset(elements, walk.rules.top), *whole.dataset(elements, walk.rules.nested)]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("is_reused", [False, True])
def test_pieces_of_any_size_give_the_same_bytes(syntax: str, is_reused: bool) -> None:  # noqa: FBT001 - a parameter
    """Where the network cuts an instance changes nothing, nor does one buffer for all pieces."""
    file, _ = planted_file(Kind.ENHANCED_MR, depth=1, outside=False, transfer_syntax=syntax)
    size = len(file) - read_file_meta(file).size
    whole = deidentified(file)
    chosen = random.Random(7)  # noqa: S311 - a seeded choice of cuts
    for count in (1, 5, 200):
        cuts = [chosen.randrange(size) for _ in range(count)]
        assert deidentified_in_pieces(file, cuts, is_reused=is_reused) == whole


def test_single_bytes_give_the_same_bytes() -> None:
    """An instance that trickles in byte by byte is no other instance."""
    file, _ = planted_file(Kind.MR, depth=0, outside=False)
    size = len(file) - read_file_meta(file).size
    assert deidentified_in_pieces(file, range(1, size)) == deidentified(file)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("kind", [Kind.CT, Kind.ENHANCED_MR, Kind.RT_PLAN])
def test_native_transfer_syntaxes_give_one_output(kind: Kind, syntax: str) -> None:
    """A PACS may send what it likes: the file is the same."""
    dataset, _ = planted(kind, depth=0, outside=False)
    for tag in (0x00080FF0, 0x00191010, 0x00191011):
        del dataset[tag]
    explicit = deidentified(written(dataset))
    assert deidentified(converted(written(dataset), syntax)) == explicit


def converted(file: bytes, syntax: str) -> bytes:
    """Write a file in another native transfer syntax."""
    dataset = pydicom.dcmread(io.BytesIO(file))
    for element in dataset.iterall():
        element.value  # noqa: B018 - decoded before the encoding changes
    target = io.BytesIO()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    is_little = syntax != ExplicitVRBigEndian
    if not is_little and "PixelData" in dataset:
        swap_pixels(dataset)
    pydicom.dcmwrite(
        target, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=is_little, force_encoding=True
    )
    return target.getvalue()


def swap_pixels(dataset: Dataset) -> None:
    """Swap the bytes of 16-bit words, as a big endian writer does."""
    for tag in (0x7FE00010, 0x60003000, 0x50003000):
        if tag in dataset:
            octets = bytearray(dataset[tag].value)
            octets[::2], octets[1::2] = octets[1::2], octets[::2]
            dataset[tag].value = bytes(octets)


def test_sequences_of_undefined_length_are_written_with_defined_ones() -> None:
    """A PACS writes lengths as it likes: PS3.5 section 7.5.1 allows both."""
    dataset, _ = planted(Kind.CT, depth=2, outside=False)
    defined = written(dataset)
    for element in dataset.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
    undefined = written(dataset)
    assert undefined != defined
    assert b"\xff\xff\xff\xff" in undefined
    out = deidentified(undefined)
    assert out == deidentified(defined)
    assert b"\xff\xff\xff\xff" not in out[: deidentification_of(undefined).header_length]


def test_group_lengths_and_trailing_padding_do_not_come_out() -> None:
    """They depend on who wrote the file last."""
    padded = with_elements(encode(head(0x00080000, b"UL"), b"\x40\0\0\0"), encode(head(0xFFFCFFFC, b"OB"), bytes(64)))
    assert deidentified(padded) == deidentified(example())


def test_value_padding_does_not_come_out() -> None:
    """Spaces around a code or number mean nothing, and systems add and remove them."""
    spaced = with_elements(
        encode(head(0x00080008, b"CS"), b"ORIGINAL \\PRIMARY\\AXIAL  "), encode(head(0x00200011, b"IS"), b" 3  ")
    )
    assert deidentified(spaced) == deidentified(example())


def test_the_file_is_complete_and_names_no_software() -> None:
    """Preamble, meta information and marks are the engine's own (PS3.10 section 7.1)."""
    file = deidentified(example())
    out = parsed(file)
    assert file[:132] == bytes(128) + b"DICM"
    assert out.file_meta.MediaStorageSOPInstanceUID == out.SOPInstanceUID
    assert out.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert "ImplementationVersionName" not in out.file_meta
    assert out.PatientIdentityRemoved == "YES"
    codes = [item.CodeValue for item in out.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113105", "113103", "113107", "113108", "113111"]
    assert out.LongitudinalTemporalInformationModified == "MODIFIED"
    assert out.PatientID == out.PatientName == f"sub-{SUBJECT.id}"


def test_the_strict_policy_keeps_no_date() -> None:
    """The Basic Profile empties, removes or replaces dates; nothing says when."""
    out = parsed(deidentified(example(), STRICT))
    assert out.StudyDate == out.StudyTime == ""
    assert out.LongitudinalTemporalInformationModified == "REMOVED"
    assert deidentification_of(example(), STRICT).study_date == ""


def test_dates_and_times_move_together() -> None:
    """104 weeks back, 2 hours and 17 minutes on; DT, DA with TM, and a time alone."""
    file = with_elements(
        encode(head(0x00080023, b"DA"), b"20180312"),
        encode(head(0x00080033, b"TM"), b"235500"),
        encode(head(0x0008002A, b"DT"), b"20180312235500.5+0100"),
        encode(head(0x00080031, b"TM"), b"2355"),
    )
    out = parsed(deidentified(file))
    assert (out.StudyDate, out.StudyTime) == ("20160314", "123251.250")
    assert (out.ContentDate, out.ContentTime) == ("20160315", "021221")
    assert out.AcquisitionDateTime == "20160315021221.5+0100"
    assert out.SeriesTime == "0212"
    assert deidentification_of(file).study_date == "20160314"


@pytest.mark.parametrize(
    ("age", "written_age"), [(b"051Y", "051Y"), (b"089Y", "089Y"), (b"090Y", "090Y"), (b"103Y", "090Y"), (b"18M ", "")]
)
def test_ages_above_89_are_one_age(age: bytes, written_age: str) -> None:
    """45 CFR 164.514(b)(2)(i)(C); what is no age string goes."""
    out = parsed(deidentified(with_elements(encode(head(0x00101010, b"AS"), age))))
    assert out.get("PatientAge", "") == written_age


def test_descriptions_keep_reviewed_words_only() -> None:
    """Sequence and region stay, names and numbers of people go, even names that are words of the list."""
    file = with_elements(
        encode(head(0x0008103E, b"LO"), b"t1_mprage sag 1.5mm Muller, White 12345 for Long mueller7"),
        encode(head(0x00100010, b"PN"), b"White^Walter"),
        encode(head(0x00080090, b"PN"), b"Long^T"),
        encode(head(0x00181210, b"SH"), b"B30f"),
        encode(head(0x00180024, b"SH"), b"*tfl3d1_16ns"),
        encode(head(0x00081090, b"LO"), b"SOMATOM Definition Flash"),
    )
    out = parsed(deidentified(file))
    assert out.SeriesDescription == "t1 mprage sag 1.5mm"
    assert out.ConvolutionKernel == "B30f"
    assert out.SequenceName == "*tfl3d1_16ns"
    assert out.ManufacturerModelName == "SOMATOM Definition Flash"
    assert "SeriesDescription" not in parsed(deidentified(file, STRICT))


def test_codes_are_kept_if_the_standard_lists_them() -> None:
    """The meaning comes from the table; what is not in it is replaced by a code that says so."""
    known = code_item(b"818981001", b"SCT", b"Abdomen of Jane Doe")
    unknown = code_item(b"77", b"99HOSP", b"Jane Doe's plan")
    out = parsed(deidentified(with_elements(encode_items(head(0x00081032, b"SQ"), [known, unknown]))))
    first, second = out.ProcedureCodeSequence
    assert (first.CodeValue, first.CodingSchemeDesignator, first.CodeMeaning) == ("818981001", "SCT", "Abdomen")
    assert (second.CodeValue, second.CodingSchemeDesignator, second.CodeMeaning) == ("REMOVED", "99MDMFS", "Removed")


def code_item(value: bytes, scheme: bytes, meaning: bytes) -> bytes:
    """Write an item of a code sequence."""
    parts = [(0x00080100, b"SH", value), (0x00080102, b"SH", scheme), (0x00080104, b"LO", meaning)]
    return b"".join(encode(head(tag, vr), text) for tag, vr, text in parts)


def test_safe_private_numbers_stay_with_their_creator() -> None:
    """Mosaics need the number of their tiles; the block's creator stays because something of it does."""
    file = with_elements(
        encode(head(0x00190010, b"LO"), b"SIEMENS MR HEADER"),
        encode(head(0x00190011, b"LO"), b"SOMEBODY'S BLOCK"),
        encode(head(0x0019100A, b"US"), b"\x24\0"),
        encode(head(0x0019100B, b"DS"), b"12.5"),
        encode(head(0x0019110A, b"US"), b"\x24\0"),
    )
    out = parsed(deidentified(file))
    private = {element.tag: element.value for element in out if element.tag.is_private}
    assert private == {0x00190010: "SIEMENS MR HEADER", 0x0019100A: 36}
    assert not any(element.tag.is_private for element in parsed(deidentified(file, STRICT)))


def test_references_and_instances_stay_consistent() -> None:
    """The UID that one instance has is the one by which another refers to it; registered UIDs stay."""
    reference = encode(head(0x00081150, b"UI"), b"1.2.840.10008.5.1.4.1.1.2", b"\0") + encode(
        head(0x00081155, b"UI"), b"1.2.3.4.5.1", b"\0"
    )
    out = parsed(deidentified(with_elements(encode_items(head(0x00081140, b"SQ"), [reference]))))
    assert out.ReferencedImageSequence[0].ReferencedSOPInstanceUID == out.SOPInstanceUID
    assert out.ReferencedImageSequence[0].ReferencedSOPClassUID == out.SOPClassUID
    assert out.SOPInstanceUID.startswith("2.25.")


def test_pixels_pass_untouched_and_uncopied() -> None:
    """The pieces are views into what was fed; header_length is where they begin."""
    file = example()
    meta = read_file_meta(file)
    octets = file[meta.size :]
    header = header_of(file)
    run = deidentify(header, RESEARCH, SUBJECT)
    first, *_ = run.feed(b"")
    incoming = IncomingHeader(meta.transfer_syntax, meta.sop_class, meta.sop_instance)
    found = incoming.feed(octets[:-32])
    assert found is not None
    run = deidentify(found, RESEARCH, SUBJECT)
    buffer = bytearray(octets[-32:])
    pixels = run.feed(buffer)[-1]
    assert pixels.part is Part.PIXELS
    assert isinstance(pixels.octets, memoryview)
    assert pixels.octets.obj is buffer
    assert len(first.octets) == run.header_length
    assert deidentified(file)[run.header_length :] == bytes(range(32))


def test_encapsulated_pixels_leave_as_they_came() -> None:
    """Fragments are not decoded; the transfer syntax stays."""
    dataset, _ = planted(Kind.CT, depth=0, outside=False)
    for tag in (0x7FE10010, 0x7FE11001, 0xFFFCFFFC):
        del dataset[tag]
    dataset = pydicom.dcmread(io.BytesIO(written(dataset)))
    dataset.compress(RLELossless, generate_instance_uid=False)
    file = io.BytesIO()
    dataset.save_as(file)
    out = deidentified(file.getvalue())
    assert parsed(out).file_meta.TransferSyntaxUID == RLELossless
    assert parsed(out).PixelData == dataset.PixelData
    assert out[deidentification_of(file.getvalue()).header_length :][:4] == b"\xfe\xff\x00\xe0"


def test_memory_does_not_grow_with_the_pixels() -> None:
    """A large multi-frame goes through in pieces; nothing of it is kept."""
    frames, piece = 2000, bytes(2**16)
    size = frames * 512 * 512 * 2
    elements = elements_of_example() | {
        0x00280008: encode(head(0x00280008, b"IS"), b"2000"),
        0x00280010: encode(head(0x00280010, b"US"), b"\0\2"),
        0x00280011: encode(head(0x00280011, b"US"), b"\0\2"),
        0x7FE00010: head(0x7FE00010, b"OW") + b"\0\0" + size.to_bytes(4, "little"),
    }
    run = deidentification_of(part10(elements))
    tracemalloc.start()
    for _ in range(size // len(piece) // 20):
        run.feed(piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_what_the_oracle_reads_differs_only_where_a_rule_says_so() -> None:
    """Numbers and geometry of an enhanced MR, read by pydicom before and after, are equal."""
    dataset, _ = planted(Kind.ENHANCED_MR, depth=0, outside=False)
    measures = Dataset()
    measures.PixelSpacing = [0.5, 0.25]
    measures.SliceThickness = 2.5
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([measures])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.EffectiveEchoTime = 12.5
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    out = parsed(deidentified(written(dataset)))
    assert out.SharedFunctionalGroupsSequence == dataset.SharedFunctionalGroupsSequence
    for keyword in ("EffectiveEchoTime", "ImageOrientationPatient", "Rows", "NumberOfFrames", "PixelData"):
        assert out[keyword].value == dataset[keyword].value


def test_an_object_without_pixels_is_a_header_only() -> None:
    """An RT plan ends where its last element does."""
    file = written(planted(Kind.RT_PLAN, depth=0, outside=False)[0])
    run = deidentification_of(file)
    assert run.header_length == len(deidentified(file))


def test_nothing_shows_a_patient_in_its_repr() -> None:
    """Reprs end in logs."""
    header = header_of(example())
    run = deidentify(header, RESEARCH, SUBJECT)
    shown = "".join(map(repr, [header, header.patient, run, run.traces, *run.finish(), SUBJECT]))
    assert "Doe" not in shown
    assert "H1234567" not in shown
    assert "1.2.3.4" not in shown


def test_a_missing_optional_element_is_not_made_up() -> None:
    """The engine replaces; it adds nothing but its marks."""
    assert "Manufacturer" not in parsed(deidentified(without(0x00080070)))


@pytest.mark.parametrize("signed", [0, 1])
def test_numbers_whose_vr_other_elements_choose_are_read_alike(signed: int) -> None:
    """US or SS by Pixel Representation, OW for the data of a lookup table: as pydicom chooses in Implicit VR."""
    dataset, _ = planted(Kind.CT, depth=0, outside=False)
    for tag in (0x00080FF0, 0x00191010, 0x00191011):
        del dataset[tag]
    table = Dataset()
    table.add_new(0x00283002, "SS" if signed else "US", [4, -2 if signed else 2, 16])
    table.add_new(0x00283006, "OW", bytes(range(8)))
    table.ModalityLUTType = "HU"
    dataset.ModalityLUTSequence = Sequence([table])
    dataset.PixelRepresentation = signed
    dataset.add_new(0x00280106, "SS" if signed else "US", -5 if signed else 5)
    dataset.add_new(0x00280120, "SS" if signed else "US", -2000 if signed else 2000)
    explicit = deidentified(written(dataset))
    assert deidentified(converted(written(dataset), ImplicitVRLittleEndian)) == explicit
    out = parsed(explicit)
    assert (out.SmallestImagePixelValue, out.PixelPaddingValue) == (-5, -2000) if signed else (5, 2000)
    assert out.ModalityLUTSequence[0].LUTData == bytes(range(8))
    assert out.ModalityLUTSequence[0].LUTDescriptor == table.LUTDescriptor
