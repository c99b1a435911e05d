"""What hardly ever happens, each once: limits, odd encodings, streams that end where nothing should."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from typing import Final

import pydicom
import pytest

from mdmfs.hospital.deid.bigendian import MAX_BYTES, BigEndianInstance
from mdmfs.hospital.deid.codestream import Form
from mdmfs.hospital.deid.csa import rewrite
from mdmfs.hospital.deid.decode import decoded, open_decoder
from mdmfs.hospital.deid.deidentify import DeidentifiedPiece, Part
from mdmfs.hospital.deid.elements import HEAD_SIZES, MAX_DEPTH, read_elements, read_explicit_head
from mdmfs.hospital.deid.encode import encode, encode_items, head
from mdmfs.hospital.deid.explain import Effect, explain
from mdmfs.hospital.deid.header import IdentifiedHeader, IncomingHeader
from mdmfs.hospital.deid.inflate import MAX_PIECE, Inflation
from mdmfs.hospital.deid.part10 import read_file_meta
from mdmfs.hospital.deid.pixels import DecodedPixels, EncapsulatedPixels
from mdmfs.hospital.deid.pseudonyms import Times, shift_date_time
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.deid.regions import Blanking
from mdmfs.hospital.deid.residue import ResidueGate
from mdmfs.hospital.deid.unusedbits import UnusedBits
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
from tests.twins.frames import RLE, encapsulated, item, rle
from tests.twins.planted import OtherKind

OPEN: Final = b"\xff\xff\xff\xff"
ITEM: Final = b"\xfe\xff\x00\xe0"
SEQUENCE_END: Final = b"\xfe\xff\xdd\xe0\0\0\0\0"
IMPLICIT: Final = "1.2.840.10008.1.2"


def reason_of(file: bytes) -> Reason:
    """Tell why a file is refused; fails if it is not."""
    with pytest.raises(RefusedError) as caught:
        deidentified(file)
    return caught.value.reason


def test_a_plan_with_pixels_is_none() -> None:
    """Its class has none."""
    plan = encode(head(0x00080016, b"UI"), b"1.2.840.10008.5.1.4.1.1.481.5", b"\0")
    assert reason_of(with_elements(plan)) is Reason.PIXEL_LENGTH


def test_an_image_without_pixels_is_none() -> None:
    """Its class has some."""
    assert reason_of(without(0x7FE00010)) is Reason.PIXEL_LENGTH


@pytest.mark.parametrize(
    ("elements", "is_refused"),
    [
        ([(0x60000010, b"\4\0")], True),
        ([(0x60000100, b"\1\0"), (0x60003000, b"\0\0")], False),
        ([(0x60000100, b"\x10\0"), (0x60003000, b"\0\0")], True),
        ([(0x60020102, b"\x0c\0")], True),
        ([(0x60020011, b"\4\0")], False),
        ([(0x70010010, b"\4\0")], False),
    ],
)
def test_overlays_within_the_pixels_are_refused(elements: list[tuple[int, bytes]], *, is_refused: bool) -> None:
    """Those with data of their own go, as all do."""
    written = [encode(head(tag, b"OW" if tag & 0xFFFF == 0x3000 else b"US"), value) for tag, value in elements]
    if is_refused:
        assert reason_of(with_elements(*written)) is Reason.EMBEDDED_OVERLAY
    else:
        assert deidentified(with_elements(*written)) == deidentified(example())


@pytest.mark.parametrize(
    "element",
    [
        encode(head(0x00281050, b"DS"), b"forty"),
        encode(head(0x00280106, b"US"), b"1234")[:8] + b"123",
    ],
)
def test_numbers_that_are_none_are_refused(element: bytes) -> None:
    """Written ones, and bytes that make no whole number."""
    assert reason_of(with_elements(element)) in {Reason.INVALID_VALUE, Reason.MALFORMED}


def test_odd_bytes_in_place_of_a_chosen_number_are_refused() -> None:
    """Values of US or SS have an even number of bytes even where the element came as OB."""
    lut = head(0x00281101, b"OB") + b"\0\0" + (3).to_bytes(4, "little") + b"abc"
    assert reason_of(with_elements(lut)) is Reason.MALFORMED


@pytest.mark.parametrize("tag", [0x00189073, 0x00280106, 0x00280120, 0x00281101])
def test_a_sequence_of_undefined_length_in_place_of_a_number_goes(tag: int) -> None:
    """As UN, or in Implicit VR: no VR says that it is one, its length does; and a name may stand in it."""
    name = b"\x10\0\0\x10" + (14).to_bytes(4, "little") + b"Janet Dijkstra"
    items = OPEN + ITEM + OPEN + name + b"\xfe\xff\x0d\xe0\0\0\0\0" + SEQUENCE_END
    assert b"Dijkstra" not in deidentified(with_elements(head(tag, b"UN") + b"\0\0" + items))
    implicit = {known: implicitly(element) for known, element in elements_of_example().items()}
    out = deidentified(part10(implicit | {tag: struct.pack("<HH", tag >> 16, tag & 0xFFFF) + items}, IMPLICIT.encode()))
    assert b"Dijkstra" not in out


def implicitly(element: bytes) -> bytes:
    """Write an element in Implicit VR."""
    value = element[HEAD_SIZES[element[4:6]] :]
    return element[:4] + len(value).to_bytes(4, "little") + value


def test_a_number_with_spaces_around_is_that_number() -> None:
    """Padding inside of a list of values goes."""
    out = deidentified(with_elements(encode(head(0x00281050, b"DS"), b" 40 \\ 50")))
    assert encode(head(0x00281050, b"DS"), b"40\\50") in out


def test_an_instance_in_big_endian_is_not_held_beyond_its_bound() -> None:
    """It is turned as a whole, so it has one."""
    instance = BigEndianInstance()
    instance.feed(bytes(MAX_BYTES))
    with pytest.raises(RefusedError, match="too-large"):
        instance.feed(b"x")


def test_a_csa_header_of_endless_items_is_none() -> None:
    """The count is not believed."""
    element = struct.pack("<64sI4sIII", b"B_value", 1, b"DS", 3, 100_000, 77)
    assert rewrite(struct.pack("<4s4sII", b"SV10", b"\4\3\2\1", 1, 77) + element) == b""


def whole_header(syntax: str, octets: bytes) -> IdentifiedHeader:
    """Read a data set to the end of its header."""
    incoming = IncomingHeader(syntax, "", "")
    return incoming.feed(octets) or incoming.finish()


@pytest.mark.parametrize(
    "octets",
    [
        b"\x08\0\x15\x11" + OPEN + ITEM + OPEN + b"\x08\0\x15\x11",
        b"\x08\0\x15\x11" + OPEN + ITEM + OPEN + ITEM + b"\0\0\0\0" + b"\xfe\xff\x0d\xe0\0\0\0\0" + SEQUENCE_END,
        b"\x08\0\x15\x11" + (16).to_bytes(4, "little") + ITEM + (8).to_bytes(4, "little") + b"\xfe\xff\x00\xe0\0\0\0\0",
    ],
)
def test_delimiters_in_implicit_vr_are_no_elements(octets: bytes) -> None:
    """An item cannot stand where an element should, nor end inside of one's head."""
    with pytest.raises(RefusedError):
        whole_header(IMPLICIT, octets)


def test_an_implicit_item_that_ends_inside_a_head_is_refused() -> None:
    """Four bytes are no element."""
    octets = b"\x08\0\x15\x11" + (12).to_bytes(4, "little") + ITEM + (4).to_bytes(4, "little") + b"\x08\0\x50\x11"
    with pytest.raises(RefusedError, match="truncated"):
        whole_header(IMPLICIT, octets)


def test_sequences_nested_too_deep_are_refused() -> None:
    """By their lengths as by their delimiters."""
    inner = b""
    for _ in range(MAX_DEPTH + 2):
        inner = encode_items(head(0x00081115, b"SQ"), [inner])
    with pytest.raises(RefusedError, match="too-deep"):
        read_elements(inner, 0, len(inner), read_explicit_head)


@pytest.mark.parametrize(
    "content",
    [
        b"\xfe\xff\x0d\xe0\0\0\0\0",
        ITEM + OPEN,
    ],
)
def test_items_of_undefined_length_in_a_value_nobody_knew_are_checked(content: bytes) -> None:
    """UN of undefined length, with what is no item, or no end."""
    file = with_elements(head(0x00081115, b"UN") + b"\0\0" + OPEN + content)
    with pytest.raises(RefusedError):
        deidentified(file)


@pytest.mark.parametrize(("vr", "reason"), [(b"OB", Reason.MALFORMED), (b"UN", Reason.MALFORMED)])
def test_fragments_outside_of_pixel_data_are_checked(vr: bytes, reason: Reason) -> None:
    """A sequence of fragments has items of defined length, and nothing else."""
    nested = head(0x7FE00010, vr) + b"\0\0" + OPEN + ITEM + OPEN + SEQUENCE_END
    item = ITEM + len(nested).to_bytes(4, "little") + nested
    file = with_elements(head(0x00081115, b"SQ") + b"\0\0" + len(item).to_bytes(4, "little") + item)
    with pytest.raises(RefusedError) as caught:
        deidentified(file)
    assert caught.value.reason in {reason, Reason.TRUNCATED}


def test_a_deflated_stream_may_come_in_more_than_one_piece() -> None:
    """Both ways: pieces of input that inflate to nothing yet, and output of more than a piece."""
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = stream.compress(bytes(3 * MAX_PIECE)) + stream.flush()
    inflation = Inflation()
    sizes = [len(piece) for place in range(len(packed)) for piece in inflation.feed(packed[place : place + 1])]
    inflation.finish()
    assert sum(sizes) == 3 * MAX_PIECE
    assert max(sizes) <= MAX_PIECE


def test_a_file_can_be_read_by_what_its_head_says() -> None:
    """Class, instance and syntax of the file meta information are asked for."""
    file = example()
    meta = read_file_meta(file)
    assert meta.incoming().feed(file[meta.size :]) is not None


def test_pixels_that_come_after_the_last_one_are_no_pixels() -> None:
    """A value of no length ends before it begins; what follows are elements."""
    empty = elements_of_example() | {
        0x00280010: encode(head(0x00280010, b"US"), b"\0\0"),
        0x7FE00010: encode(head(0x7FE00010, b"OW"), b""),
        0xFFFCFFFC: encode(head(0xFFFCFFFC, b"OB"), b"\0\0"),
    }
    run = deidentification_of(part10(empty))
    pieces = [*run.feed(b""), *run.finish()]
    assert {piece.part for piece in pieces} == {Part.HEAD}


def test_a_year_that_stands_for_none_is_not_moved() -> None:
    """Nor is there a date that it could be moved to."""
    assert shift_date_time(b"00010101", SUBJECT, Times.SHIFT) is None


def test_where_a_refusal_arose_is_told_if_one_element_is_at_fault() -> None:
    """As a tag, or not at all."""
    assert RefusedError(Reason.RESIDUE, 0x00100010).where == "(0010,0010)"
    assert RefusedError(Reason.SOP_CLASS).where == ""


def test_what_stands_behind_the_pixels_is_searched_too() -> None:
    """A safe private element may stand there, and a removed value in it."""
    creator = encode(head(0x7FE30010, b"LO"), b"GEMS_PARM_01")
    gate = ResidueGate(deidentification_of(with_elements(creator, encode(head(0xFFFCFFFC, b"OB"), b"\0\0"))))
    assert not gate.is_slow
    assert b"".join(piece.octets for piece in [*gate.feed(b""), *gate.finish()])


@pytest.mark.parametrize(
    ("text", "kept"),
    [(b"te 1234 ax", b"te ax"), (b"t1 12345", b"t1"), (b"b1000 t2", b"b1000 t2"), (b"b12345 t2", b"t2")],
)
def test_long_numbers_in_descriptions_go(text: bytes, kept: bytes) -> None:
    """A b-value has four digits; a record number has more."""
    out = pydicom.dcmread(io.BytesIO(deidentified(with_elements(encode(head(0x0008103E, b"LO"), text)))))
    assert out.SeriesDescription == kept.decode()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (b"CT12.03.18 axial", b"axial"),
        (b"t1 v12.03.69", b"t1"),
        (b"t1.2.840.113.45.6 sag", b"sag"),
        (b"H12.345.678 t2", b"t2"),
        (b"t1 5.0mm 3.0x3.0x3.0 t1.5", b"t1 5.0mm 3.0x3.0x3.0 t1.5"),
    ],
)
def test_dates_uids_and_numbers_with_points_in_descriptions_go(text: bytes, kept: bytes) -> None:
    """With a letter or a word before them, too, which makes a measure of a number."""
    out = pydicom.dcmread(io.BytesIO(deidentified(with_elements(encode(head(0x0008103E, b"LO"), text)))))
    assert out.SeriesDescription == kept.decode()
    version = encode(head(0x00181020, b"LO"), b"syngo R1.2.5")
    assert pydicom.dcmread(io.BytesIO(deidentified(with_elements(version)))).SoftwareVersions == "syngo R1.2.5"


@pytest.mark.parametrize("age", [b"45Y", b"f45y", b"092Y", b"F92", b"92F", b"W103", b"101w", b"D099"])
def test_ages_in_descriptions_go(age: bytes) -> None:
    """Above 89 years also one that only the letter for a sex beside it gives away."""
    out = pydicom.dcmread(io.BytesIO(deidentified(with_elements(encode(head(0x0008103E, b"LO"), b"CT chest " + age)))))
    assert out.SeriesDescription == "CT chest"


def test_what_is_no_age_in_a_description_stays() -> None:
    """Isotopes, kernels, flip angles, b-values."""
    for text in (b"PET F18 Y90", b"B70f", b"fa90", b"b92", b"t1 3d f45"):
        out = deidentified(with_elements(encode(head(0x0008103E, b"LO"), text)))
        assert pydicom.dcmread(io.BytesIO(out)).SeriesDescription == text.decode()


@pytest.mark.parametrize("number", [b"H12-V345-B678", b"H12 V345 B678", b"T69.B304", b"V12S345"])
def test_a_number_of_the_patient_in_a_description_goes_whatever_parts_it(number: bytes) -> None:
    """Each part alone would be a measure."""
    numbered = encode(head(0x00100020, b"LO"), number)
    for text in (number, number.replace(b" ", b"-") + b" sag", b"ax " + number.lower()):
        description = encode(head(0x0008103E, b"LO"), text)
        out = pydicom.dcmread(io.BytesIO(deidentified(with_elements(numbered, description))))
        assert "SeriesDescription" not in out


def test_pixels_cut_into_single_bytes_are_looked_at_whole() -> None:
    """Of 32 bits each: three pieces say nothing yet."""
    bits = UnusedBits(32, 20, 19, is_signed=False)
    for octet in b"\xff\xff\x0f\x00" * 2 + b"\0\0\xf0":
        bits.check(memoryview(bytes([octet])))
    with pytest.raises(RefusedError):
        bits.check(memoryview(b"\1"))
    UnusedBits(16, 16, 15, is_signed=False).check(memoryview(b"\xff\xff"))


def test_a_sequence_that_came_as_text_goes() -> None:
    """So does a number that came as a sequence: neither is what PS3.6 says."""
    out = deidentified(
        with_elements(encode(head(0x00081115, b"LO"), b"Jane"), encode(head(0x00280106, b"FD"), bytes(8)))
    )
    assert b"Jane" not in out


def test_every_element_of_an_object_is_explained() -> None:
    """With what became of it and the clause that says so, at every depth, and never a value."""
    elements = [
        encode(head(0x0008103E, b"LO"), b"t1 Jane"),
        encode(head(0x00080000, b"UL"), b"\0\0\0\0"),
        encode(head(0x00080005, b"CS"), b"ISO_IR 100"),
        encode(head(0x00080FF0, b"LO"), b"what is this"),
        encode_items(head(0x00081115, b"SQ"), [encode(head(0x0020000E, b"UI"), b"1.2.3.4", b"\0")]),
        encode(head(0x00190010, b"LO"), b"SIEMENS MR HEADER") + encode(head(0x0019100A, b"US"), b"\x24\0"),
        encode(head(0x00101010, b"AS"), b"040Y"),
        encode(head(0x50000022, b"LO"), b"a curve"),
        encode(head(0x60000022, b"LO"), b"an overlay"),
    ]
    told = {one.tag: one for one in explain(header_of(with_elements(*elements)), RESEARCH, SUBJECT)}
    assert told[0x0008103E].clause == "E.3.5 Clean Descriptors"
    assert told[0x00100010].clause == "Table E.1-1 Basic Profile: Z"
    assert (told[0x0019100A].effect, told[0x0019100A].clause) == (Effect.KEPT, "E.3.10 Retain Safe Private")
    assert told[0x00081115].effect is Effect.KEPT
    assert told[0x00080FF0].clause == "ours: not in PS3.6, closed"
    assert told[0x00080005].clause == "ours: what comes out is ASCII"
    assert told[0x00280010].clause == "ours: not in Table E.1-1, by VR and reviewed words"
    assert told[0x50000022].clause == "Table E.1-1 Curve Data: X"
    assert told[0x60000022].clause == "Table E.1-1 Overlay Data: X"
    assert told[0x00101010].clause == "E.3.7 Retain Patient Characteristics"
    strict = {one.tag: one for one in explain(header_of(with_elements(*elements)), STRICT, SUBJECT)}
    assert strict[0x0019100A].clause == "Table E.1-1 Private Attributes: X"
    assert (strict[0x00080020].effect, strict[0x00080020].clause) == (Effect.EMPTIED, "Table E.1-1 Basic Profile: Z")


def test_a_report_is_explained_by_the_option_that_cleans_it() -> None:
    """Its items too."""
    item = encode(head(0x0040A160, b"UT"), b"seen by Jane")
    tree = encode_items(head(0x0040A730, b"SQ"), [item])
    report = encode(head(0x00080016, b"UI"), OtherKind.SR.value.encode(), b"\0")
    told = {one.tag: one for one in explain(header_of(with_elements(report, tree)), reviewed("1.2"), SUBJECT)}
    assert told[0x0040A730].clause == "E.3.4 Clean Structured Content"
    assert told[0x0040A160].effect is Effect.CHANGED


def test_an_image_that_says_that_it_shows_a_face_is_one() -> None:
    """Whatever body part it names."""
    with pytest.raises(RefusedError, match="head"):
        deidentified(with_elements(encode(head(0x00280302, b"CS"), b"YES")), STRICT)


@pytest.mark.parametrize("tag", [0x0008103E, 0x00181030])
@pytest.mark.parametrize(
    ("text", "is_head"),
    [
        ("CT HEAD 5.0 H31s", True),
        ("t1_brain_sag", True),
        ("Sch\u00e4del nativ", True),
        ("SCHAEDEL", True),
        ("cr\u00e2ne", True),
        ("femoral head, head first", False),
        ("overhead, surface", False),
        ("Thorax", False),
    ],
)
def test_an_image_that_is_called_one_of_a_head_is_one(tag: int, text: str, *, is_head: bool) -> None:
    """Whatever body part it names: that is often the one of the image before."""
    for encoded in (text.encode(), text.encode("latin_1")):
        file = with_elements(encode(head(tag, b"LO"), encoded))
        assert deidentification_of(file).is_head is is_head
        with pytest.raises(RefusedError, match="head") if is_head else contextlib.nullcontext():
            deidentified(file, STRICT)


def floats(*more: bytes) -> bytes:
    """Write an image of 16 pixels in floating point, with what follows them."""
    elements = elements_of_example() | {
        0x00280100: encode(head(0x00280100, b"US"), b"\x20\0"),
        0x7FE00008: encode(head(0x7FE00008, b"OF"), bytes(range(64))),
    }
    del elements[0x7FE00010]
    return part10(elements) + b"".join(more)


def test_pixels_in_floating_point_have_no_unused_bits() -> None:
    """They pass as they are."""
    assert deidentified(floats()).endswith(bytes(range(64)))


def test_other_pixels_behind_the_first_ones_are_refused() -> None:
    """An object has one kind of them."""
    assert reason_of(floats(encode(head(0x7FE00010, b"OW"), bytes(32)))) is Reason.PIXEL_LENGTH


def test_sequences_of_undefined_length_do_not_nest_without_end() -> None:
    """Nor do they hold what is no item."""
    start = head(0x00081115, b"SQ") + b"\0\0" + OPEN
    deep = (start + ITEM + OPEN) * (MAX_DEPTH + 2)
    with pytest.raises(RefusedError, match="too-deep"):
        read_elements(deep, 0, len(deep), read_explicit_head)
    wrong = start + b"\xfe\xff\x0d\xe0\0\0\0\0"
    with pytest.raises(RefusedError, match="malformed"):
        read_elements(wrong, 0, len(wrong), read_explicit_head)


def test_a_head_within_an_open_item_may_come_in_pieces() -> None:
    """Its length has twelve bytes, of which eight are there."""
    text = encode(head(0x00082111, b"UT"), b"Jane")
    nested = head(0x00081115, b"SQ") + b"\0\0" + OPEN + ITEM + OPEN + text + b"\xfe\xff\x0d\xe0\0\0\0\0" + SEQUENCE_END
    file = with_elements(nested)
    assert deidentified_in_pieces(file, range(1, len(file) - 340)) == deidentified(file)


def test_a_number_of_another_width_stays_that_number() -> None:
    """A private UID goes and is remembered."""
    wide = encode(head(0x00189073, b"FL"), b"\0\0\x80\x3f")
    private = encode(head(0x00110010, b"LO"), b"ACME") + encode(head(0x00111001, b"UI"), b"1.2.3.4.5.99", b"\0")
    out = deidentified(with_elements(wide, private))
    assert wide in out
    assert b"1.2.3.4.5.99" not in out


class Trailing:
    """A de-identification that has something left to say after its pixels."""

    pixel_head_length = 0
    header_length = 0
    is_decoded = False

    def __init__(self, rest: bytes) -> None:
        run = deidentification_of(with_elements(encode(head(0x00100010, b"PN"), b"Vandermeulen^Jan")))
        self.traces, self.policy, self.label = run.traces, run.policy, run.label
        self.short_number = 0
        self.rest = rest

    @staticmethod
    def take_kept() -> list[bytes]:
        """No frames, nothing that stays of them."""
        return []

    def finish(self) -> list[DeidentifiedPiece]:
        """Give the rest."""
        return [DeidentifiedPiece(self.rest, Part.REST)]


def test_what_would_follow_the_pixels_is_searched_as_the_header_is() -> None:
    """No rule keeps anything there today; a rule of tomorrow meets the same gate."""
    clean = encode(head(0x7FE30010, b"LO"), b"SOMETHING")
    assert [piece.octets for piece in ResidueGate(Trailing(clean)).finish()] == [clean]  # type: ignore[arg-type]
    leak = encode(head(0x7FE30010, b"LO"), b"VANDERMEULEN")
    with pytest.raises(RefusedError, match="residue"):
        ResidueGate(Trailing(leak)).finish()  # type: ignore[arg-type]
    with pytest.raises(RefusedError, match="malformed"):
        ResidueGate(Trailing(clean[:-2])).finish()  # type: ignore[arg-type]


def test_a_decoder_that_gives_less_or_more_than_a_frame_is_not_believed() -> None:
    """Whatever the stream said of its size."""
    frame, _ = open_decoder(header_of(encapsulated(RLE, item(rle(b"\xf1\0", b"\xf1\7")))))
    assert len(decoded(b"", frame, lambda _, given: bytes(given.size))) == frame.size
    for wrong in (frame.size - 1, frame.size + 1):
        with pytest.raises(RefusedError, match="codestream"):
            decoded(b"", frame, lambda _, __, size=wrong: bytes(size))


@pytest.mark.parametrize("most", [10, 100])
def test_what_one_piece_of_frames_may_become_is_bounded(most: int) -> None:
    """In what has been collected of a frame, and in what came of it."""
    stream = rle(b"\xf1\0", b"\xf1\7")
    file = encapsulated(RLE, *([item(stream)] * 4), extra={0x00280008: encode(head(0x00280008, b"IS"), b"4")})
    header = header_of(file)
    frame, decode = open_decoder(header)
    bits = UnusedBits(16, 16, 15, is_signed=False)
    stream_of_frames = DecodedPixels(
        EncapsulatedPixels(header, Form.RLE, []), frame, decode, Blanking(frame.size, []), bits, most=most
    )
    with pytest.raises(RefusedError, match="too-large"):
        stream_of_frames.take(memoryview(header.rest))
