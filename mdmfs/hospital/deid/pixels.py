"""Pixel Data on its way through: its end is found, and nothing hides in it; no pixel is decoded or kept."""

from __future__ import annotations

import struct
from typing import Final, Protocol

from mdmfs.hospital.deid.codestream import FORMS, Codestream
from mdmfs.hospital.deid.decode import MAX_FRAME, Decode, Frame, decoded, open_decoder
from mdmfs.hospital.deid.elements import ITEM, SEQUENCE_END, UNDEFINED, Head
from mdmfs.hospital.deid.header import Buffer, IdentifiedHeader
from mdmfs.hospital.deid.policy import RegionRule
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.deid.regions import Blanking, open_blanking
from mdmfs.hospital.deid.rle import RleFrame
from mdmfs.hospital.deid.segments import Form, Picture
from mdmfs.hospital.deid.unusedbits import UnusedBits

MAX_OFFSET_TABLE: Final = 16 * 2**20

_HEAD: Final = struct.Struct("<HHI")
_SAMPLES: Final = 0x00280002
_ROWS: Final = 0x00280010
_COLUMNS: Final = 0x00280011
_BITS_ALLOCATED: Final = 0x00280100
_BITS_STORED: Final = 0x00280101
_HIGH_BIT: Final = 0x00280102
_SIGNED: Final = 0x00280103
_EXTENDED_OFFSETS: Final = 0x7FE00001
_EXTENDED_LENGTHS: Final = 0x7FE00002
_INTEGER_PIXELS: Final = 0x7FE00010


class PixelStream(Protocol):
    """The value of Pixel Data as it passes."""

    @property
    def has_ended(self) -> bool:
        """Whether the last byte of the value has been seen."""

    def take(self, data: memoryview) -> tuple[int, list[Buffer]]:
        """Tell how many bytes at the start of the data belong to the value, and give what passes of them."""


def open_pixels(header: IdentifiedHeader, pixels: Head, rule: RegionRule | None, kept: list[bytes]) -> PixelStream:
    """Begin with the pixels of an instance that was accepted; raises ``RefusedError`` as their streams do.

    What stays of the segments of compressed frames is appended to ``kept`` as it passes.
    """
    tag, _, length, _ = pixels
    blanking = None if rule is None else open_blanking(header, rule)
    if length == UNDEFINED:
        fragments = EncapsulatedPixels(header, FORMS[header.transfer_syntax], kept)
        if blanking is None:
            return fragments
        return DecodedPixels(fragments, *open_decoder(header), blanking, _unused_bits(header))
    return NativePixels(length, _unused_bits(header) if tag == _INTEGER_PIXELS else None, blanking)


def _unused_bits(header: IdentifiedHeader) -> UnusedBits:
    allocated = header.number(_BITS_ALLOCATED)
    stored = header.number(_BITS_STORED) or allocated
    high_bit = header.number(_HIGH_BIT) if header.octets(_HIGH_BIT) else stored - 1
    return UnusedBits(allocated, stored, high_bit, is_signed=bool(header.number(_SIGNED)))


class NativePixels:
    """Pixels of a length that the header tells; they pass as views, unless something in them is blanked."""

    def __init__(self, length: int, unused_bits: UnusedBits | None, blanking: Blanking | None) -> None:
        self._remaining = length
        self._unused_bits: Final = unused_bits
        self._blanking: Final = blanking
        self.has_ended = not length

    def take(self, data: memoryview) -> tuple[int, list[Buffer]]:
        """See ``PixelStream``."""
        taken = data[: self._remaining]
        if self._blanking is not None:
            taken = memoryview(self._blanking.blank(taken))
        if self._unused_bits is not None:
            self._unused_bits.check(taken)
        self._remaining -= len(taken)
        self.has_ended = not self._remaining
        return len(taken), [taken] if taken else []


class EncapsulatedPixels:
    """Fragments (PS3.5 section A.4): as many frames as the header says, each where the offset tables say, cleaned."""

    def __init__(self, header: IdentifiedHeader, form: Form, kept: list[bytes]) -> None:
        self._form: Final = form
        self._kept: Final = kept
        self._frames: Final = header.frames
        rows, columns, samples, allocated = map(header.number, (_ROWS, _COLUMNS, _SAMPLES, _BITS_ALLOCATED))
        self._picture: Final = Picture(rows, columns, samples, allocated)
        self._extended: Final = _numbers(header.octets(_EXTENDED_OFFSETS), "Q")
        self._lengths: Final = _numbers(header.octets(_EXTENDED_LENGTHS), "Q")
        self._offsets: tuple[int, ...] | None = None
        """The basic offset table, once it has been read."""
        self._head = b""
        self._table = bytearray()
        """The basic offset table, as far as it has come."""
        self.remaining = 0
        """Bytes that are still to come of a fragment or of the offset table."""
        self._offset = 0
        """Behind the offset table, of the next fragment."""
        self.frame = 0
        """How many have begun."""
        self._codestream: Codestream | None = None
        self._rle: RleFrame | None = None
        self.has_ended = False

    def take(self, data: memoryview) -> tuple[int, list[Buffer]]:
        """See ``PixelStream``."""
        out: list[Buffer] = []
        start = position = 0
        while position < len(data) and not self.has_ended:
            if not self.remaining:
                position += self._take_head(data[position:])
                continue
            fragment = data[position : position + self.remaining]
            self.remaining -= len(fragment)
            if self._codestream is not None:
                out += [data[start:position], *self._codestream.clean(fragment)]
                start = position + len(fragment)
            elif self._rle is not None:
                self._rle.check(fragment)
            else:
                self._collect(fragment)
            position += len(fragment)
        out.append(data[start:position])
        return position, [piece for piece in out if len(piece)]

    def _take_head(self, data: memoryview) -> int:
        """Read the head of a fragment, or as much as there is of it."""
        part = bytes(data[: _HEAD.size - len(self._head)])
        self._head += part
        if len(self._head) == _HEAD.size:
            group, number, length = _HEAD.unpack(self._head)
            self._head = b""
            tag = group << 16 | number
            if tag not in {ITEM, SEQUENCE_END} or length & 1 or (tag == SEQUENCE_END and length):
                raise RefusedError(Reason.MALFORMED, _INTEGER_PIXELS)
            if tag == SEQUENCE_END:
                self._end()
            elif self._offsets is None:
                self._begin_table(length)
            else:
                self._begin_fragment(length)
        return len(part)

    def _begin_table(self, length: int) -> None:
        if length not in {0, 4 * self._frames}:
            raise RefusedError(Reason.CODESTREAM)
        if length > MAX_OFFSET_TABLE:
            raise RefusedError(Reason.TOO_LARGE)
        self.remaining = length
        self._collect(memoryview(b""))

    def _begin_fragment(self, length: int) -> None:
        if self._form is Form.RLE or self._codestream is None or self._codestream.has_ended:
            self._begin_frame(length)
        self._offset += _HEAD.size + length
        self.remaining = length

    def _begin_frame(self, length: int) -> None:
        for offsets in (self._offsets, self._extended):
            if offsets and offsets[self.frame : self.frame + 1] != (self._offset,):
                raise RefusedError(Reason.CODESTREAM)
        if self._lengths and (self.frame >= len(self._lengths) or not 0 <= length - self._lengths[self.frame] <= 1):
            raise RefusedError(Reason.CODESTREAM)
        self.frame += 1
        if self._form is Form.RLE:
            self._rle = RleFrame(length, self._picture)
        else:
            self._codestream = Codestream(self._form, self._picture, self._kept)

    def _collect(self, data: memoryview) -> None:
        """Collect the basic offset table."""
        self._table += data
        if not self.remaining:
            self._offsets = _numbers(bytes(self._table), "I")

    def _end(self) -> None:
        tables = [table for table in (self._offsets, self._extended, self._lengths) if table]
        if self._codestream is not None and not self._codestream.has_ended:
            raise RefusedError(Reason.TRUNCATED, _INTEGER_PIXELS)
        if self.frame != self._frames or any(len(table) != self._frames for table in tables):
            raise RefusedError(Reason.PIXEL_LENGTH, _INTEGER_PIXELS)
        self.has_ended = True


class DecodedPixels:
    """Frames that are decoded one by one, because something in them is blanked; they leave as native pixels."""

    def __init__(
        self,
        fragments: EncapsulatedPixels,
        frame: Frame,
        decode: Decode,
        blanking: Blanking,
        unused_bits: UnusedBits,
        *,
        most: int = MAX_FRAME,
    ) -> None:
        """Bound what is collected of a frame, and what comes of one piece, by ``most`` bytes."""
        self._most: Final = most
        self._fragments: Final = fragments
        self._frame: Final = frame
        self._decode: Final = decode
        self._blanking: Final = blanking
        self._unused_bits: Final = unused_bits
        self._octets = bytearray()
        self._number = 0
        """Of the frame that is being collected, from 1."""

    @property
    def has_ended(self) -> bool:
        """See ``PixelStream``."""
        return self._fragments.has_ended

    def take(self, data: memoryview) -> tuple[int, list[Buffer]]:
        """See ``PixelStream``."""
        out: list[Buffer] = []
        position = 0
        while position < len(data) and not self.has_ended:
            content = self._fragments.remaining
            taken, cleaned = self._fragments.take(data[position : position + (content or 1)])
            position += taken
            if self._fragments.frame != self._number or self.has_ended:
                out += self._finished()
                self._number = self._fragments.frame
            if sum(map(len, out)) > self._most:
                raise RefusedError(Reason.TOO_LARGE, _INTEGER_PIXELS)
            if content and self._number:
                self._collect(cleaned)
        return position, out

    def _collect(self, cleaned: list[Buffer]) -> None:
        for piece in cleaned:
            self._octets += piece
        if len(self._octets) > self._most:
            raise RefusedError(Reason.TOO_LARGE, _INTEGER_PIXELS)

    def _finished(self) -> list[Buffer]:
        """Decode, blank and give the frame that has been collected, if there is one."""
        if not self._number:
            return []
        pixels = decoded(bytes(self._octets), self._frame, self._decode)
        self._octets.clear()
        blanked = memoryview(self._blanking.blank(memoryview(pixels)))
        self._unused_bits.check(blanked)
        return [blanked]


def _numbers(octets: bytes, kind: str) -> tuple[int, ...]:
    if len(octets) % struct.calcsize(kind):
        raise RefusedError(Reason.CODESTREAM)
    count = len(octets) // struct.calcsize(kind)
    return struct.unpack(f"<{count}{kind}", octets)
