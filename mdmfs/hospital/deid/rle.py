"""RLE Lossless frames (PS3.5 Annex G) on their way through: nothing lies between their segments, or behind codes."""

from __future__ import annotations

import itertools
import struct
from typing import Final, NoReturn

from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.deid.segments import Picture

RLE_HEADER_SIZE: Final = 64
NO_CODE: Final = 128
"""Below, so many bytes and one more follow as they are; above, one that is repeated 257 times less so many."""
_HEADER: Final = struct.Struct("<16I")
_TAKES: Final = tuple(code + 2 if code < NO_CODE else 1 + (code > NO_CODE) for code in range(256))
_GIVES: Final = tuple(code + 1 if code < NO_CODE else (257 - code) * (code > NO_CODE) for code in range(256))
"""How many bytes a code and what follows it take, and how many bytes of pixels they give."""


class RleFrame:
    """One frame that comes in pieces: each segment ends where the byte of every pixel has come, but for zeros.

    Raises ``RefusedError`` with ``Reason.CODESTREAM`` for anything else. Nothing is decoded, codes are stepped over.
    """

    def __init__(self, length: int, picture: Picture) -> None:
        """Begin with a frame of ``length`` bytes."""
        if length < RLE_HEADER_SIZE:
            self._refuse()
        self._length: Final = length
        self._segments: Final = picture.samples * (picture.bits_allocated // 8)
        self._pixels: Final = picture.rows * picture.columns
        self._header = b""
        self._stops: list[int] = []
        """Where the segments end that are still to come."""
        self._stop = RLE_HEADER_SIZE
        self._position = 0
        """Into the frame, of what comes next."""
        self._next = RLE_HEADER_SIZE
        """Where the next code is."""
        self._missing = 0
        """Bytes of pixels that are still to come of a segment."""

    def check(self, data: memoryview) -> None:
        """Look through the next bytes."""
        octets, start = bytes(data), self._position
        self._position += len(octets)
        if start < RLE_HEADER_SIZE:
            self._header += octets[: RLE_HEADER_SIZE - start]
            if len(self._header) < RLE_HEADER_SIZE:
                return
            self._stops = self._read_header()
        while self._next < self._position:
            if self._next == self._stop:
                self._stop, self._missing = self._stops.pop(0), self._pixels
            reach = min(self._stop, self._position)
            if self._missing:
                self._step_over(octets, start, reach)
            elif any(octets[self._next - start : reach - start]):
                self._refuse()
            else:
                self._next = reach

    def _read_header(self) -> list[int]:
        """Give where segments end; raises where the header leaves room for something else than them."""
        count, *offsets = _HEADER.unpack(self._header)
        edges = [*offsets[:count], self._length]
        is_ordered = all(start < stop for start, stop in itertools.pairwise(edges))
        if count != self._segments or edges[0] != RLE_HEADER_SIZE or not is_ordered or any(offsets[count:]):
            self._refuse()
        return edges[1:]

    def _step_over(self, octets: bytes, start: int, reach: int) -> None:
        """Step from code to code until a segment, the piece, or what is missing has ended."""
        place, end, missing = self._next - start, reach - start, self._missing
        while place < end and missing > 0:
            code = octets[place]
            place += _TAKES[code]
            missing -= _GIVES[code]
        self._next, self._missing = place + start, missing
        if missing < 0 or self._next > self._stop or (self._next == self._stop and missing):
            self._refuse()

    def _refuse(self) -> NoReturn:
        raise RefusedError(Reason.CODESTREAM)
