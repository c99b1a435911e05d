"""Cuts what a PACS sends into PDUs and PDVs (PS3.8 section 9.3 and Annex E), in one buffer, used again and again."""

from __future__ import annotations

import enum
import mmap
import struct
from typing import Final, NamedTuple

from mdmfs.model.errors import RecallFailedError

MAX_PDU_BYTES: Final = 128 * 2**10
"""What we announce and accept at most: fewer, larger PDUs than the usual 16 KiB."""
BUFFER_BYTES: Final = 2**20
PDU_HEADER: Final = struct.Struct(">BxI")
PDV_HEADER: Final = struct.Struct(">IBB")
_PDV_LENGTH_BYTES: Final = 4
_ROOM_BYTES: Final = 2 * MAX_PDU_BYTES
_IS_COMMAND: Final = 0b01
_IS_LAST: Final = 0b10


class PduType(enum.IntEnum):
    """The seven PDUs (PS3.8 Table 9-11 and following)."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    P_DATA_TF = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


_KNOWN_TYPES: Final = {int(kind): kind for kind in PduType}
_FIXED_LENGTHS: Final = {PduType.ASSOCIATE_RJ: 4, PduType.RELEASE_RQ: 4, PduType.RELEASE_RP: 4, PduType.ABORT: 4}


class Pdv(NamedTuple):
    """One presentation data value: where its fragment lies in the buffer, and what it is a fragment of."""

    context_id: int
    is_command: bool
    is_last: bool
    start: int
    end: int


class PduBuffer:
    """Received bytes, and how far they are understood; never more than ``BUFFER_BYTES`` of them."""

    def __init__(self) -> None:
        self.view: Final = memoryview(mmap.mmap(-1, BUFFER_BYTES))  # a page becomes memory when it is used first
        self._at = 0  # the first byte not understood yet
        self._end = 0  # behind the last byte received
        self._pdv_end = 0  # behind the last PDV of the P-DATA-TF that ``_at`` stands in; 0 between PDUs

    def space(self) -> memoryview:
        """Give the room for the next bytes, at least one PDU's; views handed out before become invalid."""
        if self._at == self._end:
            self._at = self._end = 0
        elif BUFFER_BYTES - self._end < _ROOM_BYTES:
            rest = self._end - self._at
            self.view[:rest] = self.view[self._at : self._end]
            self._at, self._end = 0, rest
        return self.view[self._end :]

    def received(self, count: int) -> None:
        """Say how many bytes were written into ``space()``."""
        self._end += count

    def peek(self) -> PduType | None:
        """Tell the type of the PDU that is whole in the buffer; None if more bytes are needed first.

        Raises ``RecallFailedError`` as soon as the six bytes of the header show that no such PDU can be meant.
        """
        if self._pdv_end:
            return PduType.P_DATA_TF
        if self._end - self._at < PDU_HEADER.size:
            return None
        number, length = PDU_HEADER.unpack_from(self.view, self._at)
        kind = _KNOWN_TYPES.get(number)
        if kind is None:
            message = f"it sent a PDU of the unknown type {number}"
            raise RecallFailedError(message)
        if length > MAX_PDU_BYTES or length != _FIXED_LENGTHS.get(number, length):
            message = f"it sent a PDU of {length} bytes; at most {MAX_PDU_BYTES} are allowed, 4 for those of fixed size"
            raise RecallFailedError(message)
        return kind if self._end - self._at >= PDU_HEADER.size + length else None

    def take(self) -> bytes:
        """Take the whole PDU that ``peek`` saw, without its header; for all but P-DATA-TF."""
        start = self._at + PDU_HEADER.size
        self._at = start + PDU_HEADER.unpack_from(self.view, self._at)[1]
        return bytes(self.view[start : self._at])

    def peek_pdv(self) -> Pdv:
        """Look at the next PDV of the P-DATA-TF that ``peek`` saw; raises ``RecallFailedError`` if it does not fit."""
        if not self._pdv_end:
            self._enter()
        if self._pdv_end - self._at < PDV_HEADER.size:
            raise _malformed()
        length, context_id, control = PDV_HEADER.unpack_from(self.view, self._at)
        start, end = self._at + PDV_HEADER.size, self._at + _PDV_LENGTH_BYTES + length
        if end < start or end > self._pdv_end:
            raise _malformed()
        pdv = Pdv(context_id, bool(control & _IS_COMMAND), bool(control & _IS_LAST), start, end)
        if start == end and not pdv.is_last:
            raise _malformed()  # such fragments could follow one another for ever
        return pdv

    def take_pdv(self, pdv: Pdv) -> None:
        """Step over the PDV that ``peek_pdv`` gave."""
        self._at = pdv.end
        if self._at == self._pdv_end:
            self._pdv_end = 0

    def take_run(self, first: Pdv) -> Pdv:
        """Step over a PDV and all that follow it in the same data set and are here; make one fragment of them.

        The fragments move together in the buffer, over the headers between them.
        """
        self.take_pdv(first)
        end, is_last = first.end, first.is_last
        while not is_last and self.peek() is PduType.P_DATA_TF:
            pdv = self.peek_pdv()
            if pdv.context_id != first.context_id or pdv.is_command:
                break
            self.take_pdv(pdv)
            length = pdv.end - pdv.start
            self.view[end : end + length] = self.view[pdv.start : pdv.end]
            end, is_last = end + length, pdv.is_last
        return first._replace(end=end, is_last=is_last)

    def _enter(self) -> None:
        _, length = PDU_HEADER.unpack_from(self.view, self._at)
        self._at += PDU_HEADER.size
        self._pdv_end = self._at + length
        if not length:
            raise _malformed()


def encode_pdu(kind: PduType, body: bytes) -> bytes:
    """Write one PDU."""
    return PDU_HEADER.pack(kind, len(body)) + body


def encode_message(context_id: int, command: bytes, data_set: bytes | None, limit: int) -> bytes:
    """Write a command, and the data set that belongs to it, as P-DATA-TF PDUs of one PDV each.

    ``limit`` is the maximum length that the peer announced; 0 means that it has none (PS3.8 section D.1).
    """
    room = (min(limit, MAX_PDU_BYTES) if limit else MAX_PDU_BYTES) - PDV_HEADER.size
    pdus = list(_fragments(context_id, command, _IS_COMMAND, room))
    if data_set is not None:
        pdus += _fragments(context_id, data_set, 0, room)
    return b"".join(pdus)


def _fragments(context_id: int, message: bytes, control: int, room: int) -> list[bytes]:
    starts = range(0, len(message), room)
    pdus = []
    for start in starts:
        fragment = message[start : start + room]
        flags = control | (_IS_LAST if start == starts[-1] else 0)
        header = PDV_HEADER.pack(len(fragment) + 2, context_id, flags)
        pdus.append(encode_pdu(PduType.P_DATA_TF, header + fragment))
    return pdus


def _malformed() -> RecallFailedError:
    return RecallFailedError("it sent a P-DATA-TF PDU whose fragments do not fit it")
