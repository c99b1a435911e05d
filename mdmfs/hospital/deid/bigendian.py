"""Explicit VR Big Endian (retired, PS3.5-2016b section A.3), turned into Little Endian as a whole before it is read."""

from __future__ import annotations

import array
import struct
from typing import Final

from mdmfs.hospital.deid.elements import (
    DELIMITERS,
    ITEM,
    LONG_VRS,
    MAX_DEPTH,
    SEQUENCE_END,
    SHORT_VRS,
    UNDEFINED,
)
from mdmfs.hospital.deid.refusal import Reason, RefusedError

MAX_BYTES: Final = 512 * 2**20

_SWAPPED: Final = {
    **dict.fromkeys((b"US", b"SS", b"OW", b"AT"), "H"),
    **dict.fromkeys((b"UL", b"SL", b"FL", b"OL", b"OF"), "I"),
    **dict.fromkeys((b"UV", b"SV", b"FD", b"OV", b"OD"), "Q"),
}
"""How wide the words are that a VR consists of; all others are bytes."""
_HEAD: Final = struct.Struct(">HH2sH")
_ITEM_HEAD: Final = struct.Struct(">HHI")
_LENGTH: Final = struct.Struct(">I")
_ITEM_SIZE: Final = 8
_BITS_ALLOCATED: Final = 0x00280100
_WORD_BITS: Final = 16
_PIXEL_DATA: Final = 0x7FE00010
"""Of pixels wider than a word of OW systems have swapped either words or pixels: they are refused."""


class BigEndianInstance:
    """Collects an instance; ``finish`` gives it in Explicit VR Little Endian."""

    def __init__(self) -> None:
        self._octets = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes; raises ``RefusedError`` when there are too many to hold."""
        self._octets += data
        if len(self._octets) > MAX_BYTES:
            raise RefusedError(Reason.TOO_LARGE)

    def finish(self) -> bytes:
        """Turn the whole data set; raises ``RefusedError`` where it does not parse."""
        turned = bytearray()
        stop = len(self._octets)
        if self._turn_elements(turned, 0, stop, 0) != stop:
            raise RefusedError(Reason.MALFORMED)
        return bytes(turned)

    def _turn_elements(self, turned: bytearray, position: int, stop: int, depth: int) -> int:
        """Turn elements up to ``stop``, or up to an item delimiter, at which it stays."""
        if depth > MAX_DEPTH:
            raise RefusedError(Reason.TOO_DEEP)
        bits = 0
        while position < stop and not self._is_delimiter(position):
            tag, vr, length, start = self._read_head(position, stop)
            position = start + length
            _write_head(turned, tag, vr, length)
            if length != UNDEFINED and position > stop:
                raise RefusedError(Reason.TRUNCATED, tag)
            if vr == b"SQ":
                end = stop if length == UNDEFINED else position
                position = self._turn_items(turned, start, end, depth + 1, is_delimited=length == UNDEFINED)
                continue
            if length == UNDEFINED:
                raise RefusedError(Reason.MALFORMED, tag)
            if tag == _PIXEL_DATA and bits > _WORD_BITS:
                raise RefusedError(Reason.TRANSFER_SYNTAX, tag)
            value = _turned(bytes(self._octets[start:position]), tag, vr)
            if tag == _BITS_ALLOCATED:
                bits = int.from_bytes(value, "little")
            turned += value
        return position

    def _turn_items(self, turned: bytearray, position: int, stop: int, depth: int, *, is_delimited: bool) -> int:
        """Turn items up to ``stop``, or up to and with a sequence delimiter."""
        while position < stop:
            tag, length = self._read_item_head(position, stop)
            turned += struct.pack("<HHI", tag >> 16, tag & 0xFFFF, length)
            position += _ITEM_SIZE
            if tag == SEQUENCE_END and is_delimited:
                return position
            if tag != ITEM:
                raise RefusedError(Reason.MALFORMED, tag)
            end = stop if length == UNDEFINED else position + length
            if end > stop:
                raise RefusedError(Reason.TRUNCATED)
            position = self._turn_elements(turned, position, end, depth)
            if length == UNDEFINED:
                self._read_item_head(position, stop)
                turned += b"\xfe\xff\x0d\xe0\0\0\0\0"
                position += _ITEM_SIZE
        if is_delimited:
            raise RefusedError(Reason.TRUNCATED)
        return position

    def _is_delimiter(self, position: int) -> bool:
        return self._octets[position : position + 4] == b"\xff\xfe\xe0\x0d"

    def _read_item_head(self, position: int, stop: int) -> tuple[int, int]:
        if stop - position < _ITEM_SIZE:
            raise RefusedError(Reason.TRUNCATED)
        group, number, length = _ITEM_HEAD.unpack_from(self._octets, position)
        tag = group << 16 | number
        if tag not in DELIMITERS:
            raise RefusedError(Reason.MALFORMED, tag)
        return tag, length

    def _read_head(self, position: int, stop: int) -> tuple[int, bytes, int, int]:
        if stop - position < _HEAD.size:
            raise RefusedError(Reason.TRUNCATED)
        group, number, vr, length = _HEAD.unpack_from(self._octets, position)
        tag, start = group << 16 | number, position + _HEAD.size
        if vr in SHORT_VRS:
            return tag, vr, length, start
        if vr not in LONG_VRS:
            raise RefusedError(Reason.MALFORMED, tag)
        if stop - start < _LENGTH.size:
            raise RefusedError(Reason.TRUNCATED)
        return tag, vr, _LENGTH.unpack_from(self._octets, start)[0], start + _LENGTH.size


def _write_head(turned: bytearray, tag: int, vr: bytes, length: int) -> None:
    turned += struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    turned += struct.pack("<HI", 0, length) if vr in LONG_VRS else struct.pack("<H", length)


def _turned(value: bytes, tag: int, vr: bytes) -> bytes:
    kind = _SWAPPED.get(vr)
    if kind is None:
        return value
    words = array.array(kind)
    if len(value) % words.itemsize:
        raise RefusedError(Reason.MALFORMED, tag)
    words.frombytes(value)
    words.byteswap()
    return words.tobytes()
