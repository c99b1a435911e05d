"""What programs write into compressed frames does not come out: comments, applications' own, thumbnails, trailers."""

from __future__ import annotations

import struct
from typing import Final

import pytest

from mdmfs.hospital.deid.codestream import FORMS
from mdmfs.hospital.deid.encode import encode, encode_items, head
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.deid.tables.uids import ENCAPSULATED_SYNTAXES
from tests.twins.deidentified import deidentification_of, deidentified, elements_of_example, part10, with_elements
from tests.twins.frames import (
    CODED,
    CODED_LS,
    END,
    JPEG,
    JPEG_2000,
    JPEG_LS,
    RLE,
    encapsulated,
    frames,
    item,
    jpeg,
    jpeg_2000,
    rle,
    segment,
)

PLANTED: Final = b"Zqsmuggledxv"
SCAN: Final = segment(0xDA, b"\1\1\0\1\0\0")
JFIF: Final = b"JFIF\0\1\2\0\0\1\0\1"
SHORT_TILE: Final = segment(0x90, struct.pack(">HIBB", 0, 3, 0, 1)) + b"\xff\x93"
RLE_FRAME: Final = rle(b"\xf1\0", b"\xf1\7")
"""16 pixels of 16 bits."""


def reason_of(file: bytes) -> Reason:
    """Tell why a file is refused; fails if it is not."""
    with pytest.raises(RefusedError) as caught:
        deidentified(file)
    return caught.value.reason


STREAMS: Final = {
    "JPEG comment": (JPEG, jpeg(segment(0xFE, PLANTED)) + END),
    "JPEG comment behind the frame header": (JPEG, jpeg() + segment(0xFE, PLANTED) + END),
    "JPEG comment between scans": (
        JPEG,
        jpeg() + segment(0xFE, PLANTED) + segment(0xDA, b"\1\1\0\1\0\0") + CODED + END,
    ),
    "Exif": (JPEG, jpeg(segment(0xE1, b"Exif\0\0" + PLANTED)) + END),
    "a thumbnail in JFIF": (JPEG, jpeg(segment(0xE0, JFIF + b"\2\2" + PLANTED)) + END),
    "JFXX": (JPEG, jpeg(segment(0xE0, b"JFXX\0" + PLANTED)) + END),
    "behind Adobe": (JPEG, jpeg(segment(0xEE, b"Adobe\0\x64\0\0\0\0\0" + PLANTED)) + END),
    "in the place of Adobe": (JPEG, jpeg(segment(0xEE, PLANTED)) + END),
    "behind the end of JPEG": (JPEG, jpeg() + END + PLANTED),
    "JPEG-LS comment": (JPEG_LS, jpeg(segment(0xFE, PLANTED), coded=CODED_LS, frame=0xF7) + END),
    "JPEG-LS application": (JPEG_LS, jpeg(segment(0xE8, PLANTED), coded=CODED_LS, frame=0xF7) + END),
    "JPEG 2000 comment": (JPEG_2000, jpeg_2000(segment(0x64, b"\0\1" + PLANTED)) + END),
    "JPEG 2000 comment in a tile": (JPEG_2000, jpeg_2000(in_tile=segment(0x64, b"\0\1" + PLANTED)) + END),
    "behind the end of JPEG 2000": (JPEG_2000, jpeg_2000() + END + PLANTED),
}


@pytest.mark.parametrize(("syntax", "stream"), STREAMS.values(), ids=STREAMS)
def test_what_is_planted_in_a_stream_is_blanked(syntax: str, stream: bytes) -> None:
    """Nothing of it is left, and no other byte is moved or changed, however the stream is cut into fragments."""
    assert PLANTED in stream
    end = stream.rfind(END) + len(END)
    for cut in range(0, end, 2):
        file = encapsulated(syntax, item(stream[:cut]), item(stream[cut:]))
        out = deidentified(file)
        assert not any(PLANTED[place : place + 3] in out for place in range(len(PLANTED) - 2))
        pixels, before = out[-len(stream) - 40 :], file[-len(stream) - 40 :]
        changed = {place for place in range(len(pixels)) if pixels[place] != before[place]}
        assert len(changed) <= len(PLANTED) + len(b"\0\1JFXX\0Exif")
        assert all(pixels[place] == 0 for place in changed)


@pytest.mark.parametrize(("syntax", "stream"), STREAMS.values(), ids=STREAMS)
def test_pieces_of_a_stream_may_come_cut_anywhere(syntax: str, stream: bytes) -> None:
    """Byte by byte the same comes out."""
    file = encapsulated(syntax, item(stream))
    size = len(item(stream)) + 16
    run = deidentification_of(file[:-size])
    pieces = run.feed(b"")
    for place in range(len(file) - size, len(file)):
        pieces += run.feed(file[place : place + 1])
    assert b"".join(piece.octets for piece in [*pieces, *run.finish()]) == deidentified(file)


CLEAN: Final = {
    "JPEG": (JPEG, jpeg(segment(0xE0, JFIF + b"\0\0"), segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")) + END),
    "fill bytes": (JPEG, b"\xff\xd8\xff\xff" + jpeg()[3:] + b"\xff\xff" + END),
    "JPEG-LS": (JPEG_LS, jpeg(segment(0xF8, b"\1" + bytes(10)), coded=CODED_LS, frame=0xF7) + END),
    "JPEG 2000": (JPEG_2000, jpeg_2000(segment(0x52, bytes(10))) + END),
    "JPEG 2000 with an empty tile": (JPEG_2000, jpeg_2000(body=b"") + END),
    "RLE": (RLE, RLE_FRAME),
}


@pytest.mark.parametrize(("syntax", "stream"), CLEAN.values(), ids=CLEAN)
def test_what_decoders_need_stays(syntax: str, stream: bytes) -> None:
    """Of a stream that holds nothing else no byte is changed."""
    file = encapsulated(syntax, item(stream))
    assert deidentified(file).endswith(item(stream) + b"\xfe\xff\xdd\xe0\0\0\0\0")


def test_a_tile_of_unknown_length_reaches_to_the_end() -> None:
    """ISO/IEC 15444-1 A.4.2: Psot may be 0 in the last tile part."""
    stream = bytearray(jpeg_2000(body=b"\x12\xff\x91\0\4\0\0\x34"))
    place = stream.index(b"\xff\x90")
    stream[place + 6 : place + 10] = bytes(4)
    out = deidentified(encapsulated(JPEG_2000, item(bytes(stream) + END + PLANTED)))
    assert bytes(stream) + END in out
    assert PLANTED not in out


BROKEN: Final = {
    "no stream": (JPEG, PLANTED + jpeg() + END),
    "JP2 boxes": (JPEG_2000, b"\0\0\0\x0cjP  \r\n\x87\n" + jpeg_2000() + END),
    "bytes between segments": (JPEG, jpeg(PLANTED) + END),
    "a marker nobody knows": (JPEG, jpeg(segment(0xF3, PLANTED)) + END),
    "a start within": (JPEG, jpeg() + jpeg() + END),
    "a marker of JPEG in JPEG 2000": (JPEG_2000, jpeg_2000(segment(0xFE, PLANTED)) + END),
    "a length of less than its own": (JPEG, jpeg(b"\xff\xfe\0\1") + END),
    "an empty frame header": (JPEG, jpeg(segment(0xC3, b"")) + END),
    "an empty tile header": (JPEG_2000, jpeg_2000(segment(0x90, b"")) + END),
    "a tile shorter than its header": (
        JPEG_2000,
        jpeg_2000(segment(0x90, struct.pack(">HIBB", 0, 3, 0, 1)) + b"\xff\x93"),
    ),
    "RLE without segments": (RLE, bytes(64)),
    "RLE with too many segments": (RLE, rle(b"\xf1\0", b"\xf1\7", PLANTED)),
    "RLE with a gap behind its header": (RLE, rle(b"\xf1\0", b"\xf1\7").replace(b"\x40\0\0\0", b"\x42\0\0\0")),
    "RLE with text in unused offsets": (RLE, RLE_FRAME[:52] + PLANTED + RLE_FRAME[64:]),
    "RLE with segments out of order": (RLE, RLE_FRAME.replace(b"\x42\0\0\0", b"\x40\0\0\0")),
    "RLE shorter than its header": (RLE, RLE_FRAME[:62]),
}


@pytest.mark.parametrize(("syntax", "stream"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_stream_is_refused(syntax: str, stream: bytes) -> None:
    """What decoders would skip or guess at is refused: text may lie there."""
    assert reason_of(encapsulated(syntax, item(stream))) is Reason.CODESTREAM


@pytest.mark.parametrize("stream", [(JPEG, jpeg() + END), (JPEG_2000, jpeg_2000() + END)])
def test_samples_of_more_bits_than_allocated_are_refused(stream: tuple[str, bytes]) -> None:
    """Decoders would cut them off, each in its own way."""
    allocated = {0x00280100: encode(head(0x00280100, b"US"), b"\x08\0")}
    assert reason_of(encapsulated(stream[0], item(stream[1]), extra=allocated)) is Reason.CODESTREAM


def test_frames_are_counted() -> None:
    """A frame that the header does not speak of would be seen by somebody."""
    one, two = item(RLE_FRAME), item(jpeg() + END)
    assert reason_of(encapsulated(RLE, one, one)) is Reason.PIXEL_LENGTH
    assert reason_of(encapsulated(RLE)) is Reason.PIXEL_LENGTH
    assert reason_of(encapsulated(JPEG, two, two)) is Reason.PIXEL_LENGTH
    assert reason_of(encapsulated(JPEG, two, extra=frames(2))) is Reason.PIXEL_LENGTH
    assert reason_of(encapsulated(JPEG, item(jpeg()))) is Reason.TRUNCATED
    assert deidentified(encapsulated(JPEG, two, two, extra=frames(2)))


def test_offset_tables_say_where_frames_are_or_nothing_comes_out() -> None:
    """A table is numbers that nobody reads as text only if they are checked (PS3.5 section A.4)."""
    one = item(jpeg() + END)
    table = struct.pack("<2I", 0, len(one))
    assert deidentified(encapsulated(JPEG, one, one, table=table, extra=frames(2)))
    for wrong in (struct.pack("<2I", 0, len(one) + 2), struct.pack("<2I", 2, len(one)), b"Jane Doe", b"Jane"):
        assert reason_of(encapsulated(JPEG, one, one, table=wrong, extra=frames(2))) is Reason.CODESTREAM
    large = encapsulated(JPEG, one, extra=frames(2**23)).replace(item(b"") + one, item(b"")[:4] + b"\0\0\0\2")
    assert reason_of(large) is Reason.TOO_LARGE


def test_extended_offset_tables_are_checked_too() -> None:
    """Offsets and lengths of 64 bits (PS3.3 section C.7.6.3.1.8); a length does not count the padding."""
    stream = jpeg(coded=CODED + b"\0") + END
    one = item(stream)

    def extended(offsets: bytes, lengths: bytes) -> bytes:
        tables = {
            0x7FE00001: encode(head(0x7FE00001, b"OV"), offsets),
            0x7FE00002: encode(head(0x7FE00002, b"OV"), lengths),
        }
        return encapsulated(JPEG, one, one, extra=frames(2) | tables)

    right = struct.pack("<2Q", 0, len(one)), struct.pack("<2Q", len(stream), len(stream))
    assert len(stream) & 1
    assert deidentified(extended(*right))
    for wrong in (
        (b"Jane Doe" * 2, right[1]),
        (right[0], b"Jane Doe" * 2),
        (right[0], right[1][:8]),
        (right[0][:8], right[1]),
        (right[0], b"Jane"),
        (right[0] + b"Jane Doe", right[1]),
    ):
        assert reason_of(extended(*wrong)) in {Reason.CODESTREAM, Reason.PIXEL_LENGTH}


@pytest.mark.parametrize("tag", [0x7FE00001, 0x7FE00002])
def test_an_offset_table_that_no_frames_can_be_compared_with_goes(tag: int) -> None:
    """Beside native pixels, and within a sequence, it could be any text."""
    table = encode(head(tag, b"OV"), b"Jane Doe" * 2)
    assert b"Jane" not in deidentified(with_elements(table))
    nested = encode_items(head(0x00081115, b"SQ"), [table])
    assert b"Jane" not in deidentified(with_elements(nested))
    assert b"Jane" not in deidentified(encapsulated(JPEG, item(jpeg() + END), extra={0x00081115: nested}))


def test_every_syntax_that_is_let_through_has_a_form() -> None:
    """A new one does not pass before somebody has said what may hide in it."""
    assert FORMS.keys() == ENCAPSULATED_SYNTAXES


def native(stored: int, signed: int, *pixels: int, allocated: int = 16, high: int | None = None) -> bytes:
    """Write the example with 16 pixels, the first of which are given."""
    octets = b"".join(
        (pixel % (1 << allocated)).to_bytes(allocated // 8, "little") for pixel in (*pixels, *[0] * (16 - len(pixels)))
    )
    numbers = {
        0x00280100: allocated,
        0x00280101: stored,
        0x00280102: stored - 1 if high is None else high,
        0x00280103: signed,
    }
    elements = {tag: encode(head(tag, b"US"), number.to_bytes(2, "little")) for tag, number in numbers.items()}
    return part10(elements_of_example() | elements | {0x7FE00010: encode(head(0x7FE00010, b"OW"), octets)})


@pytest.mark.parametrize(
    "file",
    [
        native(12, 0, 4095, 0, 2048),
        native(12, 1, 2047, -2048, -1),
        native(15, 1, 16383, -16384),
        native(16, 1, 32767, -32768),
        native(8, 1, 127, -128),
        native(8, 0, 255),
        native(7, 0, 127, allocated=8),
        native(7, 1, 63, -64, allocated=8),
        native(24, 0, 2**24 - 1, allocated=32),
        native(31, 1, -(2**30), allocated=32),
        native(4, 0, 15),
    ],
)
def test_pixels_within_their_stored_bits_pass(file: bytes) -> None:
    """They do so byte for byte."""
    assert deidentified(file)[-16:] == file[-16:]


@pytest.mark.parametrize(
    "file",
    [
        native(12, 0, 0, 0, 4096),
        native(12, 0, 0x8000),
        native(12, 1, 2048),
        native(12, 1, 0x0FFF),
        native(8, 0, 256),
        native(4, 0, 16),
        native(4, 0, 256),
        native(7, 0, 128, allocated=8),
        native(7, 1, 64, allocated=8),
        native(24, 0, 2**24, allocated=32),
        native(8, 1, 128),
        native(8, 1, -129),
        native(12, 0, 16, high=15),
        native(20, 0, 1),
    ],
)
def test_bits_outside_the_stored_ones_are_refused(file: bytes) -> None:
    """Also layouts in which nobody can say which bits are the pixel's."""
    assert reason_of(file) is Reason.UNUSED_BITS


def test_unused_bits_are_found_however_the_pixels_are_cut() -> None:
    """A pixel whose bytes come apart is the same pixel."""
    file = native(12, 0, *[0x0FFF] * 15, 0x1FFF)
    run = deidentification_of(file[:-32])
    run.feed(b"")
    for place in range(len(file) - 32, len(file) - 1):
        run.feed(file[place : place + 1])
    with pytest.raises(RefusedError, match="unused-bits"):
        run.feed(file[-1:])
