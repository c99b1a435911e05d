"""Compressed frames on their way through: comments and application segments are blanked, nothing is decoded.

JPEG (ISO/IEC 10918-1), JPEG-LS (14495-1) and JPEG 2000 (15444-1) streams hold segments for whatever a program likes to
say: software, user, time of scanning, a thumbnail of the picture before it was cropped. They keep their place and
length and lose their content, so that no offset table and no fragment changes. What decoders need stays: the numbers of
JFIF (APP0) and Adobe (APP14). What comes behind the end of a stream is blanked too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NoReturn

from mdmfs.hospital.deid.header import RLE_LOSSLESS, Buffer
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.deid.segments import BLANKED, SCAN, SEGMENTS, TILE, Form, Picture

_END: Final = 0xD9
"""EOI and EOC."""
_FILL: Final = 0xFF
_MARKER_SIZE: Final = 2
_LENGTH_SIZE: Final = 2

_START: Final = {Form.JPEG: 0xD8, Form.JPEG_LS: 0xD8, Form.JPEG_2000: 0x4F}
_TILE_BODY: Final = 0x93
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
    RLE_LOSSLESS: Form.RLE,
}
"""The form of each transfer syntax with encapsulated pixels that is let through."""

_Step = Callable[[memoryview], "tuple[int, bool]"]
"""Takes some bytes at the start of a piece; tells how many, and whether they stay."""


class Codestream:
    """One JPEG, JPEG-LS or JPEG 2000 stream that comes in pieces; holds a few bytes of it at most.

    Raises ``RefusedError`` with ``Reason.CODESTREAM`` for what such a stream does not consist of, for a picture of
    another size than the header says, and for samples of more bits than Bits Allocated. Those between Bits Stored and
    Bits Allocated are not seen without decoding, and encoders in wide use write them.
    """

    def __init__(self, form: Form, picture: Picture, kept: list[bytes]) -> None:
        """Append to ``kept`` the contents of segments that stay, for whoever searches them."""
        self._form: Final = form
        self._picture: Final = picture
        self._kept: Final = kept
        self._segments: Final = SEGMENTS[form]
        self._step: _Step = self._take_start
        self._segment = BLANKED
        self._code = 0
        self._content = bytearray()
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
        self._content.clear()
        if code == _END:
            self.has_ended = True
            self._step = self._blank_trailer
        elif code == _TILE_BODY and self._form is Form.JPEG_2000:
            self._begin_tile_body()
        elif code in self._segments:
            self._segment = self._segments[code]
            if code == TILE:
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
        count, stays = min(len(data), self._length - offset), False
        if segment.fits is not None:
            stays = True
        elif offset < len(segment.name):
            count, stays = 1, data[0] == segment.name[offset]
            if not stays:
                self._segment = BLANKED
        elif offset < segment.keeps:
            count, stays = min(count, segment.keeps - offset), True
        if stays and offset >= len(segment.name):
            self._content += data[:count]
        self._offset += count
        self._end_of_content()
        return count, stays

    def _end_of_content(self) -> None:
        if self._offset < self._length:
            return
        self._step = self._take_fill
        content = bytes(self._content)
        if self._segment.fits is not None and not self._segment.fits(content, self._picture):
            self._refuse()
        if content:
            self._kept.append(content)
        if self._code == TILE:
            self._tile_length = int.from_bytes(content[2:6], "big")
        elif self._code == SCAN:
            self._step = self._take_coded

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
