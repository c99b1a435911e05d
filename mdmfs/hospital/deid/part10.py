"""The head of a DICOM file (PS3.10 section 7): what the engine needs of it, and where the data set begins."""

from __future__ import annotations

import dataclasses
from typing import Final

from mdmfs.hospital.deid.elements import UNDEFINED, read_explicit_head
from mdmfs.hospital.deid.header import Buffer, IncomingHeader
from mdmfs.hospital.deid.refusal import Reason, RefusedError

PREAMBLE_SIZE: Final = 128
MAGIC: Final = b"DICM"
MAX_META_BYTES: Final = 64 * 2**10

_GROUP: Final = 0x0002
_SOP_CLASS: Final = 0x00020002
_SOP_INSTANCE: Final = 0x00020003
_TRANSFER_SYNTAX: Final = 0x00020010


@dataclasses.dataclass(frozen=True, slots=True)
class FileMeta:
    """What the file meta information says; the rest of it, and the preamble, are never looked at."""

    transfer_syntax: str
    sop_class: str
    sop_instance: str = dataclasses.field(repr=False)
    size: int
    """Where the data set begins."""

    def incoming(self) -> IncomingHeader:
        """Begin to read the data set; class and instance must be those that are named here."""
        return IncomingHeader(self.transfer_syntax, self.sop_class, self.sop_instance)


def read_file_meta(start: Buffer) -> FileMeta:
    """Read the start of a file, all of it or its first 64 KiB; raises ``RefusedError`` if it is no DICOM file."""
    octets = bytes(start[:MAX_META_BYTES])
    position = PREAMBLE_SIZE + len(MAGIC)
    if octets[PREAMBLE_SIZE:position] != MAGIC:
        raise RefusedError(Reason.MALFORMED)
    values: dict[int, bytes] = {}
    while octets[position : position + 2] == _GROUP.to_bytes(2, "little"):
        head = read_explicit_head(octets, position, len(octets))
        if head is None or head[2] == UNDEFINED or head[3] + head[2] > len(octets):
            raise RefusedError(Reason.TRUNCATED)
        tag, _, length, value = head
        position = value + length
        values[tag] = octets[value:position]
    if _TRANSFER_SYNTAX not in values:
        raise RefusedError(Reason.TRANSFER_SYNTAX, _TRANSFER_SYNTAX)
    syntax, sop_class, sop_instance = (
        values.get(tag, b"").strip(b" \0").decode("latin_1") for tag in (_TRANSFER_SYNTAX, _SOP_CLASS, _SOP_INSTANCE)
    )
    return FileMeta(syntax, sop_class, sop_instance, position)
