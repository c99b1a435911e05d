"""The bytes of a staged object as an answer sends them."""

from __future__ import annotations

from typing import Self

from mdmfs.hospital.kept.staged import StagedReader
from mdmfs.sealing.layout import Buffer


class StagedOctets:
    """A range of a staged object; closes its file even where nobody ever takes a step."""

    def __init__(self, reader: StagedReader, begin: int, end: int) -> None:
        self._reader = reader
        self._pieces = reader.octets(begin, end)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Buffer:
        return await anext(self._pieces)

    async def aclose(self) -> None:
        """Close the file."""
        await self._pieces.aclose()
        self._reader.close()
