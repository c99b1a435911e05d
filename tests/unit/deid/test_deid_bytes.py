"""Encodings at their edges: heads, items, delimiters and fragments as they should not be, and as they may be."""

from __future__ import annotations

import struct
import zlib
from typing import Final

import pytest

from mdmfs.hospital.deid.encode import encode, encode_items, head
from mdmfs.hospital.deid.header import IdentifiedHeader, IncomingHeader
from mdmfs.hospital.deid.part10 import read_file_meta
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from tests.twins.deidentified import (
    deidentification_of,
    deidentified,
    elements_of_example,
    example,
    header_of,
    part10,
    with_elements,
)
from tests.twins.frames import item, rle

IMPLICIT: Final = "1.2.840.10008.1.2"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
BIG: Final = "1.2.840.10008.1.2.2"
RLE: Final = "1.2.840.10008.1.2.5"

ITEM: Final = b"\xfe\xff\x00\xe0"
ITEM_END: Final = b"\xfe\xff\x0d\xe0\0\0\0\0"
SEQUENCE_END: Final = b"\xfe\xff\xdd\xe0\0\0\0\0"
OPEN: Final = b"\xff\xff\xff\xff"
CODE: Final = encode(head(0x00080068, b"CS"), b"FOR")


def sequence(content: bytes, vr: bytes = b"SQ", tag: int = 0x00081115) -> bytes:
    """Write a sequence of undefined length with this content."""
    return head(tag, vr) + b"\0\0" + OPEN + content


def defined(content: bytes) -> bytes:
    """Write a sequence of defined length with this content."""
    return head(0x00081115, b"SQ") + b"\0\0" + len(content).to_bytes(4, "little") + content


def reason_of(file: bytes) -> Reason:
    """Tell why a file is refused; fails if it is not."""
    with pytest.raises(RefusedError) as caught:
        deidentified(file)
    return caught.value.reason


@pytest.mark.parametrize(
    "content",
    [
        SEQUENCE_END,
        ITEM + b"\0\0\0\0" + SEQUENCE_END,
        ITEM + OPEN + ITEM_END + SEQUENCE_END,
        ITEM + OPEN + CODE + ITEM_END + ITEM + len(CODE).to_bytes(4, "little") + CODE + SEQUENCE_END,
        ITEM + OPEN + sequence(ITEM + OPEN + CODE + ITEM_END + SEQUENCE_END) + ITEM_END + SEQUENCE_END,
        ITEM + OPEN + sequence(ITEM + b"\2\0\0\0ab" + SEQUENCE_END, b"OB", 0x7FE00010) + ITEM_END + SEQUENCE_END,
    ],
)
def test_sequences_of_undefined_length_are_read(content: bytes) -> None:
    """PS3.5 section 7.5.2: items and sequences end at delimiters or by their length, at any depth."""
    assert deidentified(with_elements(sequence(content)))


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        (sequence(ITEM_END + SEQUENCE_END), Reason.MALFORMED),
        (sequence(b"\xfe\xff\xdd\xe0\2\0\0\0ab"), Reason.MALFORMED),
        (sequence(ITEM + b"\3\0\0\0abc" + SEQUENCE_END), Reason.MALFORMED),
        (sequence(ITEM + OPEN + CODE + CODE + ITEM_END + SEQUENCE_END), Reason.MALFORMED),
        (sequence(ITEM + OPEN + sequence(ITEM_END, b"LT") + ITEM_END + SEQUENCE_END), Reason.MALFORMED),
        (sequence(ITEM + OPEN + sequence(ITEM_END, b"OB") + ITEM_END + SEQUENCE_END), Reason.MALFORMED),
        (sequence(ITEM + OPEN + CODE + SEQUENCE_END), Reason.MALFORMED),
        (sequence(SEQUENCE_END, b"UT"), Reason.MALFORMED),
        (sequence(ITEM + b"\xf0\xff\xff\x7f"), Reason.TOO_LARGE),
        (defined(ITEM_END), Reason.MALFORMED),
        (defined(ITEM + b"\x08\0\0\0" + b"\0\0"), Reason.TRUNCATED),
        (defined(ITEM + OPEN + CODE), Reason.TRUNCATED),
        (defined(ITEM + b"\x06\0\0\0" + CODE[:6]), Reason.TRUNCATED),
        (defined(ITEM + b"\x0a\0\0\0" + head(0x00082111, b"UT") + b"\0\0\1\0"), Reason.TRUNCATED),
        (defined(ITEM[:4]), Reason.TRUNCATED),
        (defined(ITEM + len(CODE[:-2]).to_bytes(4, "little") + CODE[:-2]), Reason.TRUNCATED),
    ],
)
def test_what_does_not_nest_is_refused(element: bytes, reason: Reason) -> None:
    """Wrong delimiters, odd lengths, items that are cut, elements out of order or twice."""
    assert reason_of(with_elements(element)) is reason


def test_elements_out_of_order_are_refused() -> None:
    """A second element of one tag would be read by somebody as the only one (PS3.5 section 7.1)."""
    assert reason_of(part10({0x00080001: CODE + CODE})) is Reason.MALFORMED


def test_sequences_that_nobody_knew_are_read_in_implicit_vr() -> None:
    """PS3.5 section 6.2.2: UN of undefined length holds items in Implicit VR Little Endian."""
    implicit = b"\x08\0\x68\0\x04\0\0\0FOR "
    for vr_and_length in (b"\0\0" + OPEN, None):
        content = ITEM + len(implicit).to_bytes(4, "little") + implicit
        if vr_and_length is None:
            unknown = encode(head(0x00081115, b"UN"), content)
        else:
            unknown = head(0x00081115, b"UN") + vr_and_length + content + SEQUENCE_END
        assert deidentified(with_elements(unknown)) == deidentified(
            with_elements(encode_items(head(0x00081115, b"SQ"), [CODE]))
        )


def encapsulated(*fragments: bytes, end: bytes = SEQUENCE_END) -> bytes:
    """Write the example with fragments for pixels."""
    pixels = head(0x7FE00010, b"OB") + b"\0\0" + OPEN + b"".join(fragments) + end
    return part10(elements_of_example() | {0x7FE00010: pixels}, RLE.encode())


def test_fragments_pass_however_they_are_cut() -> None:
    """The engine steps from fragment to fragment, also when a head comes in two pieces."""
    file = encapsulated(ITEM + b"\0\0\0\0", item(rle(b"\xf1\0", b"\xf1\7")))
    whole = deidentified(file)
    run = deidentification_of(file[:-30])
    pieces = run.feed(b"")
    for place in range(len(file) - 30, len(file)):
        pieces += run.feed(file[place : place + 1])
    assert b"".join(piece.octets for piece in [*pieces, *run.finish()]) == whole
    assert whole.endswith(file[-30:])


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (encapsulated(ITEM + b"\3\0\0\0abc"), Reason.MALFORMED),
        (encapsulated(b"\xfe\xff\x0d\xe0\0\0\0\0"), Reason.MALFORMED),
        (encapsulated(ITEM + b"\0\0\0\0", end=b"\xfe\xff\xdd\xe0\2\0\0\0ab"), Reason.MALFORMED),
        (encapsulated(ITEM + b"\4\0\0\0ab", end=b""), Reason.TRUNCATED),
        (encapsulated(ITEM + b"\0\0\0\0", end=b""), Reason.TRUNCATED),
        (part10(elements_of_example(), RLE.encode()), Reason.PIXEL_LENGTH),
        (part10(elements_of_example() | {0x7FE00010: encode(head(0x7FE00010, b"UN"), bytes(32))}), Reason.MALFORMED),
    ],
)
def test_fragments_that_are_none_are_refused(file: bytes, reason: Reason) -> None:
    """Odd, cut and unended fragments, and native pixels where fragments should be."""
    assert reason_of(file) is reason


def deflated(octets: bytes) -> bytes:
    """Deflate a data set as PS3.5 section A.5 says."""
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = stream.compress(octets) + stream.flush()
    return packed + b"\0" * (len(packed) & 1)


def read(syntax: str, octets: bytes) -> IdentifiedHeader:
    """Read a data set to its header."""
    incoming = IncomingHeader(syntax, "", "")
    return incoming.feed(octets) or incoming.finish()


def test_deflated_instances_end_where_their_stream_does() -> None:
    """Broken streams, cut ones and ones with something behind them are refused."""
    file = example()
    packed = deflated(file[read_file_meta(file).size :])
    assert read(DEFLATED, packed).patient == header_of(file).patient
    meta = part10({}, DEFLATED.encode())
    assert deidentified(meta + packed) == deidentified(file)
    assert reason_of(meta + packed + b"Jane Doe") is Reason.MALFORMED
    assert reason_of(meta + packed[:-6]) is Reason.TRUNCATED
    assert reason_of(meta + b"\xff" * 40) is Reason.MALFORMED


def big(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Write an element in Explicit VR Big Endian."""
    size = len(value) if length is None else length
    start = struct.pack(">HH2s", tag >> 16, tag & 0xFFFF, vr)
    return start + (struct.pack(">HI", 0, size) if vr in {b"SQ", b"OW", b"UT"} else struct.pack(">H", size)) + value


BIG_ITEM: Final = b"\xff\xfe\xe0\x00"
BIG_ITEM_END: Final = b"\xff\xfe\xe0\x0d\0\0\0\0"
BIG_SEQUENCE_END: Final = b"\xff\xfe\xe0\xdd\0\0\0\0"


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (big(0x00081115, b"SQ", BIG_ITEM + OPEN + BIG_ITEM_END + BIG_SEQUENCE_END, 0xFFFFFFFF), Reason.NO_IDENTITY),
        (big(0x00081115, b"SQ", BIG_ITEM + b"\0\0\0\0"), Reason.NO_IDENTITY),
        (big(0x00081115, b"SQ", BIG_ITEM + OPEN, 0xFFFFFFFF), Reason.TRUNCATED),
        (big(0x00081115, b"SQ", BIG_ITEM + OPEN + BIG_ITEM_END, 0xFFFFFFFF), Reason.TRUNCATED),
        (big(0x00081115, b"SQ", BIG_ITEM + b"\0\0\0\x08"), Reason.TRUNCATED),
        (big(0x00081115, b"SQ", BIG_ITEM_END), Reason.MALFORMED),
        (big(0x00081115, b"SQ", b"12345678"), Reason.MALFORMED),
        (big(0x00081115, b"SQ", b"1234"), Reason.TRUNCATED),
        (big(0x00081115, b"SQ", b"", 8), Reason.TRUNCATED),
        (big(0x00082111, b"UT", b"", 0xFFFFFFFF), Reason.MALFORMED),
        (big(0x00082111, b"UT", b"")[:-2], Reason.TRUNCATED),
        (big(0x00080001, b"UL", b"123456"), Reason.MALFORMED),
        (big(0x00280100, b"US", b"\0\x20") + big(0x7FE00010, b"OW", b"12"), Reason.TRANSFER_SYNTAX),
        (b"\0\x08\0\x01", Reason.TRUNCATED),
        (b"\0\x08\0\x01XX\0\0", Reason.MALFORMED),
        (BIG_ITEM_END, Reason.MALFORMED),
        (
            b"".join(big(0x00081115, b"SQ", BIG_ITEM + OPEN, 0xFFFFFFFF) for _ in range(40)),
            Reason.TOO_DEEP,
        ),
    ],
)
def test_big_endian_is_read_as_strictly(octets: bytes, reason: Reason) -> None:
    """What passes the turning is refused as a header without identity; the rest by name."""
    with pytest.raises(RefusedError) as caught:
        read(BIG, octets)
    assert caught.value.reason is reason


def test_the_header_tells_what_registration_needs() -> None:
    """Numbers are digits or empty, the modality is a defined term or empty; nothing of it is a name."""
    header = header_of(example())
    assert (header.modality, header.series_number, header.instance_number) == ("CT", "3", "12")
    assert (header.raw(0x00080020), header.raw(0x00080030)) == ("20180312", "101530.250")
    assert (header.study_instance, header.series_instance, header.sop_instance) == (
        "1.2.3.4.5.2",
        "1.2.3.4.5.3",
        "1.2.3.4.5.1",
    )
    odd = header_of(with_elements(encode(head(0x00080060, b"CS"), b"SMITH"), encode(head(0x00200011, b"IS"), b"Jane")))
    assert (odd.modality, odd.series_number) == ("", "")


def test_numbers_too_long_for_their_vr_are_written_as_un() -> None:
    """Contours in Implicit VR may be longer than Explicit VR can say (PS3.5 section 6.2.2)."""
    contour = b"1.25\\" * 16000 + b"1.25"
    element = struct.pack("<HHI", 0x3006, 0x0050, len(contour)) + contour
    file = part10(elements_of_example())
    meta = read_file_meta(file)
    implicit = b"".join(
        struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value
        for tag, value in sorted((tag, bare(octets)) for tag, octets in elements_of_example().items())
        if tag != 0x7FE00010
    )
    pixels = struct.pack("<HHI", 0x7FE0, 0x0010, 32) + bytes(range(32))
    out = deidentified(part10({}, IMPLICIT.encode()) + implicit + element + pixels)
    assert head(0x30060050, b"UN") in out
    assert meta.transfer_syntax == "1.2.840.10008.1.2.1"


def bare(octets: bytes) -> bytes:
    """Give the value of an element of the example."""
    return octets[12:] if octets[4:6] in {b"OW", b"SQ"} else octets[8:]
