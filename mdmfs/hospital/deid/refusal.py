"""Why an instance is not released: one named reason for each thing the engine does not accept, and never a value."""

from __future__ import annotations

import enum
from typing import Final

from mdmfs.hospital.deid.tables.dictionary import VRS
from mdmfs.model.errors import InstanceRefusedError

NO_TAG: Final = -1


class Reason(enum.StrEnum):
    """The reasons, as the audit log names them."""

    TRANSFER_SYNTAX = "transfer-syntax"
    """A transfer syntax that PS3.6 does not list, or that the engine does not read."""
    MALFORMED = "malformed"
    """The bytes do not parse as PS3.5 says: lengths, order of tags, delimiters, value representations."""
    TRUNCATED = "truncated"
    """The object ends inside an element."""
    TOO_LARGE = "too-large"
    """The header or the part after Pixel Data is larger than the engine holds in memory, or has too many words."""
    TOO_DEEP = "too-deep"
    """Sequences are nested deeper than any IOD does."""
    CHARACTER_SET = "character-set"
    """A character set that PS3.3 C.12.1.1.2 does not define, or a Patient ID that does not decode in it."""
    NOT_INCLUDED = "not-included"
    """No project's inclusion list names the patient or the study, or the opt-out list does."""
    NO_PATIENT = "no-patient"
    """The Patient ID is empty or missing."""
    OTHER_PATIENT = "other-patient"
    """The header names another patient than the one registered."""
    MOVED_PATIENT = "moved-patient"
    """The PACS has it under another patient now than the one registered."""
    OTHER_INSTANCE = "other-instance"
    """SOP Class or SOP Instance UID of the header are not those announced."""
    NO_IDENTITY = "no-identity"
    """A UID of the study, series, instance or class is missing or malformed."""
    SOP_CLASS = "sop-class"
    """The policy has no rule for this class of objects (PS3.15 E.3.1: pixels and documents that nobody reviewed)."""
    IMAGE_TYPE = "image-type"
    """Neither ORIGINAL nor DERIVED\\PRIMARY, or named a screenshot or report."""
    PHOTOMETRIC = "photometric-interpretation"
    """Not monochrome: colour is where text is burned in."""
    CONVERSION_TYPE = "conversion-type"
    """Digitised, scanned or captured from a screen."""
    BURNED_IN = "burned-in-annotation"
    """The header says that identifying text is burned into the pixels."""
    NO_REGION = "no-region"
    """The policy has region rules for this class, but none for this machine, or the image names no regions to keep."""
    COMPRESSED_REGION = "compressed-region"
    """A region rule fits, but the frames are compressed in a way that nothing here decodes."""
    EMBEDDED_OVERLAY = "embedded-overlay"
    """An overlay lies in unused bits of Pixel Data, where it cannot be dropped without touching the pixels."""
    HEAD = "head"
    """A head, or nothing says that it is none, and the policy refuses heads."""
    PIXEL_LENGTH = "pixel-length"
    """Pixel Data is missing, unexpected, or not exactly as long as rows, columns, frames and bits say."""
    UNUSED_BITS = "unused-bits"
    """A bit of a pixel outside Bits Stored is set: an overlay may lie there."""
    CODESTREAM = "codestream"
    """Compressed frames are not what their transfer syntax says, or hold what no decoder needs."""
    UNKNOWN_UID = "unknown-uid"
    """A class, transfer syntax, coding scheme or context group UID that neither PS3.6 nor the policy lists."""
    INVALID_VALUE = "invalid-value"
    """A number, code or UID that the image needs is not one."""
    RESIDUE = "residue"
    """A value that was removed stands somewhere else in the output."""


_UNPARSED: Final = frozenset({Reason.MALFORMED, Reason.TRUNCATED, Reason.TOO_LARGE, Reason.TOO_DEEP})
"""Where the bytes did not parse, what stands in place of a tag may be text: only tags of PS3.6 are told then."""


class RefusedError(InstanceRefusedError):
    """An instance is refused; says why and at which tag, never a value."""

    def __init__(self, reason: Reason, tag: int = NO_TAG) -> None:
        if reason in _UNPARSED and tag not in VRS:
            tag = NO_TAG
        where = "" if tag == NO_TAG else f" at ({tag >> 16:04x},{tag & 0xFFFF:04x})"
        super().__init__(f"the instance is refused: {reason}{where}")
        self.reason: Final = reason
        self.tag: Final = tag

    @property
    def where(self) -> str:
        """The tag as ``(gggg,eeee)``; empty where it is not one element's fault."""
        return "" if self.tag == NO_TAG else f"({self.tag >> 16:04x},{self.tag & 0xFFFF:04x})"
