"""What programs write into compressed frames does not come out: comments, applications' own, thumbnails, trailers."""

from __future__ import annotations

import base64
import contextlib
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
    HTJ2K,
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
HUFFMAN: Final = b"\0" + bytes([0, 2, 1, *[0] * 13]) + b"\0\1\2"
"""A table of three values: two with codes of 2 bits, one of 3."""
QUANTIZATION: Final = b"\1" + bytes(range(1, 65))
FRAME: Final = struct.pack(">BHHB", 16, 4, 4, 1) + b"\1\x11\0"
SIZE: Final = struct.pack(">HIIIIIIIIH", 0, 4, 4, 0, 0, 4, 4, 0, 0, 1) + b"\x0f\1\1"
COD: Final = bytes([0, 0, 0, 1, 0, 1, 4, 4, 0, 1])


def reason_of(file: bytes) -> Reason:
    """Tell why a file is refused; fails if it is not."""
    with pytest.raises(RefusedError) as caught:
        deidentified(file)
    return caught.value.reason


def sized(height: int = 4, left: int = 0, components: int = 1, more: bytes = b"") -> bytes:
    """Write a JPEG 2000 stream with another SIZ."""
    size = struct.pack(">HIIIIIIIIH", 0, 4, height, left, 0, 4, 4, 0, 0, components) + b"\x0f\1\1" * components + more
    return b"\xff\x4f" + segment(0x51, size) + jpeg_2000()[2 + len(segment(0x51, SIZE)) :] + END


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
    "JPEG's tables": (
        JPEG,
        jpeg(
            segment(0xC4, HUFFMAN + b"\x11" + bytes(16)),
            segment(0xDB, QUANTIZATION + b"\x12" + bytes(128)),
            segment(0xCC, b"\0\x10\x10\5"),
            segment(0xDD, b"\0\4"),
        )
        + segment(0xDC, b"\0\4")
        + END,
    ),
    "a height that comes behind": (
        JPEG,
        jpeg().replace(b"\x10\0\4\0\4", b"\x10\0\0\0\4") + segment(0xDC, b"\0\4") + END,
    ),
    "JPEG-LS with intervals": (JPEG_LS, jpeg(segment(0xDD, b"\0\0\4"), coded=CODED_LS, frame=0xF7) + END),
    "JPEG 2000 with precincts": (JPEG_2000, jpeg_2000(segment(0x52, b"\1" + COD[1:] + b"\xff\xff")) + END),
    "JPEG 2000 of a component": (
        JPEG_2000,
        jpeg_2000(segment(0x53, b"\0\0\1\4\4\0\1"), segment(0x5D, b"\0\x42\1\2"), segment(0x5E, b"\0\0\3")) + END,
    ),
    "JPEG 2000 without quantization": (JPEG_2000, jpeg_2000(segment(0x5C, b"\x40\x48\x48\x50")) + END),
    "JPEG 2000 with derived steps": (JPEG_2000, jpeg_2000(segment(0x5C, b"\x41\x48\x48")) + END),
    "JPEG 2000 with lengths": (
        JPEG_2000,
        jpeg_2000(
            segment(0x55, b"\0\x50\0\0\0\0\x20"),
            segment(0x55, b"\0\0\0\x20"),
            segment(0x5F, bytes(14)),
            segment(0x63, bytes(4)),
            in_tile=segment(0x58, b"\0\4"),
        )
        + END,
    ),
    "HTJ2K": (HTJ2K, jpeg_2000(segment(0x50, b"\0\2\0\0\0\0"), segment(0x59, b"\0\1")) + END),
    "RLE": (RLE, RLE_FRAME),
    "RLE of codes of each kind": (RLE, rle(b"\x80\xf8\0\6ABCDEFG", b"\xf2\7\x80\0\7")),
    "RLE filled up": (RLE, rle(b"\xf1\0", b"\xf1\7\0\0")),
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
    "JPEG of other lines": (JPEG, jpeg().replace(b"\x10\0\4\0\4", b"\x10\0\5\0\4") + END),
    "JPEG of other columns": (JPEG, jpeg().replace(b"\x10\0\4\0\4", b"\x10\0\4\0\5") + END),
    "JPEG of other components": (JPEG, jpeg(segment(0xC3, FRAME[:5] + b"\2" + 2 * FRAME[6:])) + END),
    "behind a frame header": (JPEG, jpeg(segment(0xC3, FRAME + PLANTED)) + END),
    "behind a scan header": (JPEG, jpeg() + segment(0xDA, b"\1\1\0\1\0\0" + PLANTED) + CODED + END),
    "a scan of no component": (JPEG, jpeg() + segment(0xDA, b"\0\1\0\0") + CODED + END),
    "a scan of five components": (JPEG, jpeg() + segment(0xDA, b"\5" + bytes(13)) + CODED + END),
    "an empty scan header": (JPEG, jpeg() + segment(0xDA, b"") + CODED + END),
    "behind a Huffman table": (JPEG, jpeg(segment(0xC4, HUFFMAN + PLANTED)) + END),
    "a Huffman table that is cut": (JPEG, jpeg(segment(0xC4, HUFFMAN[:-1])) + END),
    "counts of a Huffman table that are cut": (JPEG, jpeg(segment(0xC4, b"\0" + bytes(15))) + END),
    "a Huffman table with a value twice": (JPEG, jpeg(segment(0xC4, HUFFMAN[:-1] + b"\1")) + END),
    "a Huffman table with more values than codes": (
        JPEG,
        jpeg(segment(0xC4, b"\x10" + bytes([3, *[0] * 15]) + b"\0\1\2")) + END,
    ),
    "a fifth Huffman table": (JPEG, jpeg(segment(0xC4, b"\4" + HUFFMAN[1:])) + END),
    "letters in the place of lengths": (JPEG, jpeg(segment(0xC4, HUFFMAN[:-3] + b"Zqx")) + END),
    "behind a table of quantization": (JPEG, jpeg(segment(0xDB, QUANTIZATION + PLANTED)) + END),
    "a table of quantization that is cut": (JPEG, jpeg(segment(0xDB, QUANTIZATION[:-1])) + END),
    "a fifth table of quantization": (JPEG, jpeg(segment(0xDB, b"\4" + QUANTIZATION[1:])) + END),
    "behind a conditioning": (JPEG, jpeg(segment(0xCC, b"\0\x10\0")) + END),
    "behind an interval": (JPEG, jpeg(segment(0xDD, b"\0\4" + PLANTED)) + END),
    "another height that comes behind": (
        JPEG,
        jpeg().replace(b"\x10\0\4\0\4", b"\x10\0\0\0\4") + segment(0xDC, b"\0\5") + END,
    ),
    "another height behind JPEG-LS": (
        JPEG_LS,
        jpeg(coded=CODED_LS, frame=0xF7) + segment(0xDC, b"\0\5") + END,
    ),
    "behind a height": (JPEG, jpeg() + segment(0xDC, b"\0\4" + PLANTED) + END),
    "a mapping table": (JPEG_LS, jpeg(segment(0xF8, b"\2\1\1" + PLANTED[:8]), coded=CODED_LS, frame=0xF7) + END),
    "behind parameters": (JPEG_LS, jpeg(segment(0xF8, b"\1" + bytes(11)), coded=CODED_LS, frame=0xF7) + END),
    "a Huffman table in JPEG-LS": (JPEG_LS, jpeg(segment(0xC4, HUFFMAN), coded=CODED_LS, frame=0xF7) + END),
    "JPEG 2000 of other lines": (JPEG_2000, sized(height=5)),
    "JPEG 2000 of other columns": (JPEG_2000, sized(left=1)),
    "JPEG 2000 of other components": (JPEG_2000, sized(components=2)),
    "JPEG 2000 of no component": (JPEG_2000, sized(components=0)),
    "JPEG 2000 of less components than it counts": (JPEG_2000, sized(more=b"\7\1\1")),
    "JPEG 2000 with a short size": (JPEG_2000, b"\xff\x4f" + segment(0x51, SIZE[:35]) + END),
    "behind coding styles": (JPEG_2000, jpeg_2000(segment(0x52, COD + PLANTED)) + END),
    "coding styles that are cut": (JPEG_2000, jpeg_2000(segment(0x52, COD[:-1])) + END),
    "coding styles of 33 levels": (JPEG_2000, jpeg_2000(segment(0x52, COD[:5] + b"\x21" + COD[6:])) + END),
    "behind a component's": (JPEG_2000, jpeg_2000(segment(0x53, b"\0\0\1\4\4\0\1" + PLANTED)) + END),
    "steps for nothing": (JPEG_2000, jpeg_2000(segment(0x5C, b"")) + END),
    "no steps": (JPEG_2000, jpeg_2000(segment(0x5C, b"\x40")) + END),
    "more steps than bands": (JPEG_2000, jpeg_2000(segment(0x5C, b"\x40" + bytes(98))) + END),
    "half a step": (JPEG_2000, jpeg_2000(segment(0x5C, b"\x42" + bytes(3))) + END),
    "more than one step": (JPEG_2000, jpeg_2000(segment(0x5C, b"\x41" + bytes(4))) + END),
    "steps of a style that nobody knows": (JPEG_2000, jpeg_2000(segment(0x5C, b"\x43" + bytes(2))) + END),
    "behind lengths of tiles": (JPEG_2000, jpeg_2000(segment(0x55, b"\0\x50\0\0\0\0\x20\0")) + END),
    "lengths of tiles that are cut": (JPEG_2000, jpeg_2000(segment(0x55, b"\0")) + END),
    "lengths of tiles of three bytes": (JPEG_2000, jpeg_2000(segment(0x55, b"\0\x30" + bytes(5))) + END),
    "behind a region": (JPEG_2000, jpeg_2000(segment(0x5E, b"\0\0\3" + PLANTED)) + END),
    "behind an order": (JPEG_2000, jpeg_2000(segment(0x5F, bytes(7) + PLANTED)) + END),
    "behind an offset of components": (JPEG_2000, jpeg_2000(segment(0x63, bytes(4) + PLANTED)) + END),
    "behind capabilities": (HTJ2K, jpeg_2000(segment(0x50, b"\0\2\0\0\0\0" + PLANTED)) + END),
    "half a profile": (HTJ2K, jpeg_2000(segment(0x59, b"\0\1\0")) + END),
    "behind a tile's header": (JPEG_2000, jpeg_2000(segment(0x90, struct.pack(">HIBB", 0, 99, 0, 1) + PLANTED)) + END),
    "behind the codes of RLE": (RLE, rle(b"\xf1\0" + PLANTED, b"\xf1\7")),
    "behind the last codes of RLE": (RLE, rle(b"\xf1\0", b"\xf1\7" + PLANTED)),
    "in a code of RLE that gives too much": (RLE, rle(b"\xf2\0\x0b" + PLANTED, b"\xf1\7")),
    "RLE with a code that is cut": (RLE, rle(b"\xf1\0", b"\xf8\7\x0c" + PLANTED)),
    "RLE of too few pixels": (RLE, rle(b"\xf1\0", b"\xf2\7")),
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


def test_pixels_of_no_sample_are_refused() -> None:
    """A stream may say so, too."""
    none = {0x00280002: encode(head(0x00280002, b"US"), b"\0\0")}
    assert reason_of(encapsulated(JPEG_2000, item(sized(components=0)), extra=none)) is Reason.CODESTREAM


@pytest.mark.parametrize("cut", range(1, 90, 7))
def test_codes_of_rle_may_come_cut_anywhere(cut: int) -> None:
    """What lies behind them is found, however few bytes come at once."""
    for stream, is_clean in ((rle(b"\xf8\0\6ABCDEFG", b"\xf1\7\0\0"), True), (rle(b"\xf1\0\0\0Z\0", b"\xf1\7"), False)):
        file = encapsulated(RLE, item(stream))
        size = len(item(stream)) + 16
        run = deidentification_of(file[:-size])
        with contextlib.nullcontext() if is_clean else pytest.raises(RefusedError, match="codestream"):
            for place in range(len(file) - size, len(file), cut):
                run.feed(file[place : place + cut])
            run.finish()


LEAKS: Final = {
    "a table of JPEG": (JPEG, jpeg(segment(0xDB, b"\3" + b"Vandermeulen".ljust(64, b"\1"))) + END),
    "lengths of packets": (JPEG_2000, jpeg_2000(in_tile=segment(0x58, b"\0Vandermeulen")) + END),
    "numbers of JFIF": (JPEG, jpeg(segment(0xE0, b"JFIF\0" + b"Meulende\0")) + END),
    "numbers of Adobe": (JPEG, jpeg(segment(0xEE, b"Adobe" + b"Meulend")) + END),
    "a transform": ("1.2.840.10008.1.2.4.92", jpeg_2000(segment(0x74, b"\0\0\0\1Vandermeulen")) + END),
    "base64 in a table": (
        JPEG,
        jpeg(segment(0xDB, b"\3" + base64.b64encode(b"Vandermeulen").ljust(64, b"\1"))) + END,
    ),
}


@pytest.mark.parametrize(("syntax", "stream"), LEAKS.values(), ids=LEAKS)
def test_what_stays_of_segments_is_searched(syntax: str, stream: bytes) -> None:
    """Numbers of 8 bits can be letters, and a table that no scan uses can be any."""
    named = {0x00100010: encode(head(0x00100010, b"PN"), b"Vandermeulen^Meulend^Meulende")}
    for file in (
        encapsulated(syntax, item(stream), extra=named),
        encapsulated(syntax, item(stream[:20]), item(stream[20:]), extra=named),
    ):
        assert reason_of(file) is Reason.RESIDUE
    assert deidentified(encapsulated(syntax, item(stream)))


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
