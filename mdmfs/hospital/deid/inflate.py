"""Deflated Explicit VR Little Endian (PS3.5 section A.5), inflated in pieces of bounded size."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from mdmfs.hospital.deid.refusal import Reason, RefusedError

MAX_PIECE: Final = 2**20
_PADDING: Final = b"\0"


class Inflation:
    """One deflated stream; what a caller does not take out of ``feed`` waits for the next one."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._waiting = b""

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """Give what the bytes inflate to, in pieces of at most 1 MiB; raises ``RefusedError`` for a broken stream."""
        self._waiting += data
        while not self._stream.eof:
            try:
                piece = self._stream.decompress(self._waiting, MAX_PIECE)
            except zlib.error as error:
                raise RefusedError(Reason.MALFORMED) from error
            self._waiting = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            if not piece and not self._waiting:
                return
            yield piece
        if len(self._waiting) > len(_PADDING):
            raise RefusedError(Reason.MALFORMED)

    def finish(self) -> None:
        """Say that no more bytes come; raises unless the stream has ended, with a byte of padding at most."""
        if not self._stream.eof or self._waiting not in {b"", _PADDING}:
            raise RefusedError(Reason.TRUNCATED)
