"""A glance at a data set that passes by: which study and series it belongs to; nothing else of it is kept."""

from __future__ import annotations

from typing import Final

from mdmfs.hospital.deid.elements import read_explicit_head, read_implicit_head
from mdmfs.hospital.deid.header import DEFLATED_LITTLE, IMPLICIT_LITTLE
from mdmfs.hospital.deid.inflate import Inflation
from mdmfs.hospital.deid.refusal import RefusedError
from mdmfs.hospital.deid.scan import Scanner
from mdmfs.hospital.dicom.identifier import SERIES_INSTANCE_UID, STUDY_INSTANCE_UID
from mdmfs.hospital.dicom.query import check_uids
from mdmfs.model.errors import MalformedNameError

MAX_BYTES: Final = 4 * 2**20
"""Where the two UIDs are not within so many bytes, the instance is not understood."""


class Glance:
    """Takes the pieces of a data set in Little Endian; remembers no more than its beginning."""

    def __init__(self, transfer_syntax: str) -> None:
        read_head = read_implicit_head if transfer_syntax == IMPLICIT_LITTLE else read_explicit_head
        self._scanner: Final = Scanner(read_head)
        self._inflation = Inflation() if transfer_syntax == DEFLATED_LITTLE else None
        self._octets = bytearray()
        self._is_over = False

    def feed(self, piece: memoryview) -> None:
        """Look at the next bytes; they are copied where they are needed."""
        if self._is_over:
            return
        try:
            for octets in (piece,) if self._inflation is None else self._inflation.feed(piece):
                self._octets += octets
                self._scanner.advance(self._octets)
        except RefusedError:
            self._is_over = True
            return
        has_passed = bool(self._scanner.elements) and self._scanner.elements[-1][0] > SERIES_INSTANCE_UID
        self._is_over = has_passed or self._scanner.pixels is not None or len(self._octets) > MAX_BYTES

    def series(self) -> tuple[str, str] | None:
        """Give Study and Series Instance UID; None where the beginning did not tell them."""
        study, series = self._uid(STUDY_INSTANCE_UID), self._uid(SERIES_INSTANCE_UID)
        try:
            check_uids((study, series))
        except MalformedNameError:
            return None
        return study, series

    def _uid(self, tag: int) -> str:
        for found, _, start, end, _ in self._scanner.elements:
            if found == tag and end <= len(self._octets):
                return self._octets[start:end].rstrip(b"\0 ").decode("ascii", "replace")
        return ""
