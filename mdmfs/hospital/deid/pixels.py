"""Pixel Data on its way through: its end is found without looking at a pixel and without copying one."""

from __future__ import annotations

import struct
from typing import Final

from mdmfs.hospital.deid.elements import ITEM, SEQUENCE_END, UNDEFINED
from mdmfs.hospital.deid.refusal import Reason, RefusedError

_HEAD: Final = struct.Struct("<HHI")


class PixelStream:
    """Counts through the value of Pixel Data, native or in fragments (PS3.5 section A.4)."""

    def __init__(self, tag: int, length: int) -> None:
        self._tag = tag
        self._is_encapsulated = length == UNDEFINED
        self._remaining = 0 if self._is_encapsulated else length
        self._head = b""
        self.has_ended = not self._is_encapsulated and not length
        """Whether the last byte of the value has been seen."""

    def take(self, data: memoryview) -> int:
        """Tell how many bytes at the start of the data belong to the value."""
        position = 0
        while position < len(data) and not self.has_ended:
            if self._remaining:
                step = min(self._remaining, len(data) - position)
                self._remaining -= step
                position += step
                self.has_ended = not self._is_encapsulated and not self._remaining
            else:
                position += self._take_head(data[position:])
        return position

    def _take_head(self, data: memoryview) -> int:
        """Read the head of a fragment, or as much as there is of it."""
        part = bytes(data[: _HEAD.size - len(self._head)])
        self._head += part
        if len(self._head) == _HEAD.size:
            group, number, length = _HEAD.unpack(self._head)
            self._head = b""
            tag = group << 16 | number
            if tag not in {ITEM, SEQUENCE_END} or length & 1 or (tag == SEQUENCE_END and length):
                raise RefusedError(Reason.MALFORMED, self._tag)
            self._remaining = length
            self.has_ended = tag == SEQUENCE_END
        return len(part)
