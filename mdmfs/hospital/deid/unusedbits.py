"""Bits of native pixels outside Bits Stored: overlays and text once lay there, so nothing may."""

from __future__ import annotations

from typing import Final

from mdmfs.hospital.deid.refusal import Reason, RefusedError

_BYTE: Final = 8
_AT_ONCE: Final = 2**16
"""Bytes that are copied and looked at together; a core's cache holds them."""
_ALLOCATED: Final = frozenset({8, 16, 32, 64})


class UnusedBits:
    """Looks through native pixels as they pass; raises ``RefusedError`` where a bit outside Bits Stored is set.

    Of signed pixels the bits above the highest must repeat its sign. Pixels are refused, not masked: programs that do
    not know Bits Stored would read other values than before.
    """

    def __init__(self, allocated: int, stored: int, high_bit: int, *, is_signed: bool) -> None:
        """Raise for a layout in which the pixels are not the low bits of their cells (PS3.5 section 8.1.1)."""
        self._cell: Final = allocated // _BYTE
        self._phase = 0
        self._allowed: Final[dict[int, bytes]] = {}
        if stored == allocated:
            return
        if allocated not in _ALLOCATED or not 0 < stored < allocated or high_bit != stored - 1:
            raise RefusedError(Reason.UNUSED_BITS)
        if is_signed and stored <= allocated - _BYTE:
            raise RefusedError(Reason.UNUSED_BITS)
        for place in range(stored // _BYTE, self._cell):
            used = max(0, stored - place * _BYTE)
            half = 1 << used >> 1
            signs = range(256 - half, 256) if is_signed else range(half, 1 << used)
            self._allowed[place] = bytes([*range(max(half, 1)), *signs])

    def check(self, data: memoryview) -> None:
        """Look through the next bytes."""
        if not self._allowed:
            return
        for start in range(0, len(data), _AT_ONCE):
            octets = bytes(data[start : start + _AT_ONCE])
            for place, allowed in self._allowed.items():
                if octets[(place - self._phase) % self._cell :: self._cell].translate(None, allowed):
                    raise RefusedError(Reason.UNUSED_BITS)
            self._phase = (self._phase + len(octets)) % self._cell
