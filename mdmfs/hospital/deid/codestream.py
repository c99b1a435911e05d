"""Compressed frames on their way through: comments and application segments are blanked, nothing is decoded.

JPEG (ISO/IEC 10918-1), JPEG-LS (14495-1) and JPEG 2000 (15444-1) streams hold segments for whatever a program likes to
say: software, user, time of scanning, a thumbnail of the picture before it was cropped. They keep their place and
length and lose their content, so that no offset table and no fragment changes. What decoders need stays: the numbers of
JFIF (APP0) and Adobe (APP14). What comes behind the end of a stream is blanked too.
"""

from __future__ import annotations

import enum
import itertools
import re
from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn

from mdmfs.hospital.deid.header import Buffer
from mdmfs.hospital.deid.refusal import Reason, RefusedError

_END: Final = 0xD9
"""EOI and EOC."""
_FILL: Final = 0xFF
_MARKER_SIZE: Final = 2
_LENGTH_SIZE: Final = 2


class _Segment(NamedTuple):
    """A segment with a length: what of its content stays, and how much of it is looked at."""

    name: bytes = b""
    """What the content begins with; from the first byte on that is another one, all is blanked."""
    keeps: int = 0xFFFF
    """How many bytes stay."""
    looks_at: int = 0


class Form(enum.Enum):
    """How the streams of a transfer syntax are written."""

    JPEG = "jpeg"
    JPEG_LS = "jpeg-ls"
    JPEG_2000 = "jpeg-2000"
    RLE = "rle"


_PASSED: Final = _Segment()
_BLANKED: Final = _Segment(keeps=0)
_FRAME: Final = _Segment(looks_at=1)
_APPLICATIONS: Final = {
    **dict.fromkeys(range(0xE0, 0xF0), _BLANKED),
    0xE0: _Segment(b"JFIF\0", 14),
    0xEE: _Segment(b"Adobe", 12),
    0xFE: _BLANKED,
}
_TABLES: Final = dict.fromkeys((0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD), _PASSED)
"""DHT, DAC, SOS, DQT, DNL, DRI."""
_SEGMENTS: Final = {
    Form.JPEG: {**_APPLICATIONS, **dict.fromkeys((*range(0xC0, 0xC4), *range(0xC5, 0xCC), 0xCD, 0xCE, 0xCF), _FRAME)}
    | _TABLES,
    Form.JPEG_LS: {**_APPLICATIONS, **_TABLES, 0xF7: _FRAME, 0xF8: _PASSED},
    Form.JPEG_2000: {
        **dict.fromkeys(
            # CAP COD COC TLM PLM PLT CPF QCD QCC RGN POC PPM PPT CRG
            (
                0x50,
                0x52,
                0x53,
                0x55,
                0x57,
                0x58,
                0x59,
                0x5C,
                0x5D,
                0x5E,
                0x5F,
                0x60,
                0x61,
                0x63,
                0x74,
                0x75,
                0x77,
                0x78,
            ),
            _PASSED,
        ),
        0x51: _Segment(looks_at=37),
        0x64: _BLANKED,
        0x90: _Segment(looks_at=6),
    },
}
_START: Final = {Form.JPEG: 0xD8, Form.JPEG_LS: 0xD8, Form.JPEG_2000: 0x4F}
_SCAN: Final = 0xDA
_SIZE: Final = 0x51
_TILE: Final = 0x90
_TILE_BODY: Final = 0x93
_PRECISION: Final = 36
"""Where SIZ has the bits of the first component, less 1 and with a sign on top."""
_NO_SIGN: Final = 0x7F
_INTERRUPTION: Final = {
    Form.JPEG: re.compile(rb"\xff[\x01-\xcf\xd8-\xff]"),
    Form.JPEG_LS: re.compile(rb"\xff[\x80-\xcf\xd8-\xff]"),
    Form.JPEG_2000: re.compile(rb"\xff[\x93-\xff]"),
}
"""A marker that ends coded data; restart markers and what is stuffed are part of them."""
_STUFFED: Final = {
    form: frozenset(byte for byte in range(256) if not pattern.fullmatch(bytes([_FILL, byte])))
    for form, pattern in _INTERRUPTION.items()
}

FORMS: Final = {
    **{f"1.2.840.10008.1.2.4.{number}": Form.JPEG for number in (*range(50, 67), 70)},
    **{f"1.2.840.10008.1.2.4.{number}": Form.JPEG_LS for number in (80, 81)},
    **{f"1.2.840.10008.1.2.4.{number}": Form.JPEG_2000 for number in (90, 91, 92, 93, 201, 202, 203)},
    "1.2.840.10008.1.2.5": Form.RLE,
}
"""The form of each transfer syntax with encapsulated pixels that is let through."""

_Step = Callable[[memoryview], "tuple[int, bool]"]
"""Takes some bytes at the start of a piece; tells how many, and whether they stay."""


class Codestream:
    """One JPEG, JPEG-LS or JPEG 2000 stream that comes in pieces; holds a few bytes of it at most.

    Raises ``RefusedError`` with ``Reason.CODESTREAM`` for what such a stream does not consist of, and for samples of
    more bits than Bits Allocated. Those between Bits Stored and Bits Allocated are not seen without decoding, and
    encoders in wide use write them.
    """

    def __init__(self, form: Form, bits_allocated: int) -> None:
        self._form: Final = form
        self._bits_allocated: Final = bits_allocated
        self._segments: Final = _SEGMENTS[form]
        self._step: _Step = self._take_start
        self._segment = _PASSED
        self._code = 0
        self._looked_at = bytearray()
        self._length = 0
        self._offset = 0
        """Into the content of a segment."""
        self._position = 0
        """Into the stream."""
        self._tile_start = 0
        self._tile_length = 0
        self.has_ended = False
        """Whether its end marker has been seen."""

    def clean(self, data: memoryview) -> list[Buffer]:
        """Give the next bytes as they may pass: views into what came, and zeros where something is taken out."""
        out: list[Buffer] = []
        start = position = 0
        while position < len(data):
            count, stays = self._step(data[position:])
            self._position += count
            if not stays:
                out += [data[start:position], bytes(count)]
                start = position + count
            position += count
        return [piece for piece in (*out, data[start:]) if len(piece)]

    def _take_start(self, data: memoryview) -> tuple[int, bool]:
        expected = (_FILL, _START[self._form])[self._position]
        if data[0] != expected:
            self._refuse()
        if self._position:
            self._step = self._take_fill
        return 1, True

    def _take_fill(self, data: memoryview) -> tuple[int, bool]:
        if data[0] != _FILL:
            self._refuse()
        self._step = self._take_code
        return 1, True

    def _take_code(self, data: memoryview) -> tuple[int, bool]:
        """Read the code behind a fill byte; there may be more of those."""
        if data[0] != _FILL:
            self._begin(data[0])
        return 1, True

    def _begin(self, code: int) -> None:
        self._code, self._length, self._offset = code, 0, 0
        self._looked_at.clear()
        if code == _END:
            self.has_ended = True
            self._step = self._blank_trailer
        elif code == _TILE_BODY and self._form is Form.JPEG_2000:
            self._begin_tile_body()
        elif code in self._segments:
            self._segment = self._segments[code]
            if code == _TILE:
                self._tile_start = self._position + 1 - _MARKER_SIZE
            self._step = self._take_length
        else:
            self._refuse()

    def _take_length(self, data: memoryview) -> tuple[int, bool]:
        self._length = self._length << 8 | data[0]
        self._offset += 1
        if self._offset == _LENGTH_SIZE:
            if self._length < _LENGTH_SIZE:
                self._refuse()
            self._length -= _LENGTH_SIZE
            self._offset = 0
            self._step = self._take_content
            self._end_of_content()
        return 1, True

    def _take_content(self, data: memoryview) -> tuple[int, bool]:
        """Take a part of a segment that stays or goes as a whole."""
        segment, offset = self._segment, self._offset
        if offset < len(segment.name):
            count, stays = 1, data[0] == segment.name[offset]
            if not stays:
                self._segment = _BLANKED
        elif offset < segment.keeps:
            count, stays = min(len(data), min(segment.keeps, self._length) - offset), True
            self._looked_at += data[: min(count, max(0, segment.looks_at - offset))]
        else:
            count, stays = min(len(data), self._length - offset), False
        self._offset += count
        self._end_of_content()
        return count, stays

    def _end_of_content(self) -> None:
        if self._offset < self._length:
            return
        if len(self._looked_at) < self._segment.looks_at:
            self._refuse()
        self._step = self._take_fill
        if self._code == _TILE and self._form is Form.JPEG_2000:
            self._tile_length = int.from_bytes(self._looked_at[2:6], "big")
        elif self._code == _SIZE and self._form is Form.JPEG_2000:
            self._check_precision((self._looked_at[_PRECISION] & _NO_SIGN) + 1)
        elif self._code == _SCAN:
            self._step = self._take_coded
        elif self._segment is _FRAME:
            self._check_precision(self._looked_at[0])

    def _check_precision(self, bits: int) -> None:
        if bits > self._bits_allocated:
            self._refuse()

    def _begin_tile_body(self) -> None:
        """Step over the body by its length; 0 says that it reaches to the end of the stream."""
        if not self._tile_length:
            self._step = self._take_coded
            return
        self._length = self._tile_start + self._tile_length - (self._position + 1)
        if self._length < 0:
            self._refuse()
        self._step = self._take_tile_body if self._length else self._take_fill

    def _take_tile_body(self, data: memoryview) -> tuple[int, bool]:
        count = min(len(data), self._length)
        self._length -= count
        if not self._length:
            self._step = self._take_fill
        return count, True

    def _take_coded(self, data: memoryview) -> tuple[int, bool]:
        """Step over coded data and the fill byte of the marker behind it."""
        found = _INTERRUPTION[self._form].search(data)
        if found is not None:
            self._step = self._take_code
            return found.start() + 1, True
        if data[-1] == _FILL:
            self._step = self._take_code_or_stuffing
        return len(data), True

    def _take_code_or_stuffing(self, data: memoryview) -> tuple[int, bool]:
        """Go on behind a fill byte that ended a piece of coded data."""
        if data[0] in _STUFFED[self._form]:
            self._step = self._take_coded
            return 1, True
        self._step = self._take_code
        return self._take_code(data)

    def _blank_trailer(self, data: memoryview) -> tuple[int, bool]:
        return len(data), False

    def _refuse(self) -> NoReturn:
        raise RefusedError(Reason.CODESTREAM)


def check_rle_header(octets: bytes | bytearray, length: int, segments: int) -> None:
    """Refuse a frame of RLE whose header (PS3.5 section G.5) leaves room for something else than its segments."""
    numbers = [int.from_bytes(octets[place : place + 4], "little") for place in range(0, RLE_HEADER_SIZE, 4)]
    count, offsets, unused = numbers[0], numbers[1 : numbers[0] + 1], numbers[numbers[0] + 1 :]
    edges = [*offsets, length]
    is_ordered = all(start < stop for start, stop in itertools.pairwise(edges))
    if count != segments or edges[0] != RLE_HEADER_SIZE or not is_ordered or any(unused):
        raise RefusedError(Reason.CODESTREAM)


RLE_HEADER_SIZE: Final = 64
