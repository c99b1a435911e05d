"""Bits of native pixels outside Bits Stored: overlays and text once lay there, so nothing may."""

from __future__ import annotations

from typing import Final

import numpy as np

from mdmfs.hospital.deid.refusal import Reason, RefusedError

_BYTE: Final = 8
_ALLOCATED: Final = frozenset({8, 16, 32, 64})


class UnusedBits:
    """Looks through native pixels as they pass; raises ``RefusedError`` where a bit outside Bits Stored is set.

    Of signed pixels the bits above the highest must repeat its sign. Pixels are refused, not masked: programs that do
    not know Bits Stored would read other values than before.
    """

    def __init__(self, allocated: int, stored: int, high_bit: int, *, is_signed: bool) -> None:
        """Raise for a layout in which the pixels are not the low bits of their cells (PS3.5 section 8.1.1)."""
        self._is_looking: Final = stored != allocated
        if not self._is_looking:
            return
        if allocated not in _ALLOCATED or not 0 < stored < allocated or high_bit != stored - 1:
            raise RefusedError(Reason.UNUSED_BITS)
        self._cell: Final = allocated // _BYTE
        self._dtype: Final = np.dtype(f"<{'i' if is_signed else 'u'}{self._cell}")
        self._highest: Final = (1 << stored - 1) - 1 if is_signed else (1 << stored) - 1
        self._lowest: Final = -self._highest - 1 if is_signed else 0
        self._cut = b""
        """The start of a pixel whose other bytes are still to come."""

    def check(self, data: memoryview) -> None:
        """Look through the next bytes."""
        if not self._is_looking:
            return
        if self._cut:
            missing = self._cell - len(self._cut)
            self._cut += data[:missing]
            data = data[missing:]
            if len(self._cut) < self._cell:
                return
            self._look_at(self._cut)
        whole = len(data) - len(data) % self._cell
        self._cut = bytes(data[whole:])
        self._look_at(data[:whole])

    def _look_at(self, octets: bytes | memoryview) -> None:
        pixels = np.frombuffer(octets, self._dtype)
        if not pixels.size:
            return
        if pixels.max() > self._highest or (self._lowest and pixels.min() < self._lowest):
            raise RefusedError(Reason.UNUSED_BITS)
