"""What the engine writes of its own: the file meta information, and the marks that say what was done (PS3.15 E.1.1)."""

from __future__ import annotations

import functools
from typing import Final

from mdmfs.hospital.deid.codes import Code
from mdmfs.hospital.deid.encode import encode, encode_items, head
from mdmfs.hospital.deid.policy import Option, Policy

PREAMBLE: Final = bytes(128) + b"DICM"
IMPLEMENTATION_CLASS: Final = b"2.25.226173290174392884180375193022846211437"
"""Names the engine (0002,0012), as PS3.10 demands; the same for all its versions."""

IDENTITY_REMOVED: Final = 0x00120062
METHOD: Final = 0x00120063
METHOD_CODES: Final = 0x00120064
BURNED_IN: Final = 0x00280301
RECOGNIZABLE_FEATURES: Final = 0x00280302
TIMES_MODIFIED: Final = 0x00280303

_BASIC: Final = Code(b"113100", b"DCM", b"Basic Application Confidentiality Profile")
_PIXELS: Final = Code(b"113101", b"DCM", b"Clean Pixel Data Option")
_OPTIONS: Final = {
    Option.CLEAN_GRAPHICS: Code(b"113103", b"DCM", b"Clean Graphics Option"),
    Option.CLEAN_DESCRIPTORS: Code(b"113105", b"DCM", b"Clean Descriptors Option"),
    Option.STRUCTURED_CONTENT: Code(b"113104", b"DCM", b"Clean Structured Content Option"),
    Option.FULL_DATES: Code(b"113106", b"DCM", b"Retain Longitudinal Temporal Information Full Dates Option"),
    Option.MODIFIED_DATES: Code(b"113107", b"DCM", b"Retain Longitudinal Temporal Information Modified Dates Option"),
    Option.PATIENT_CHARACTERISTICS: Code(b"113108", b"DCM", b"Retain Patient Characteristics Option"),
    Option.DEVICE: Code(b"113109", b"DCM", b"Retain Device Identity Option"),
    Option.INSTITUTION: Code(b"113112", b"DCM", b"Retain Institution Identity Option"),
    Option.SAFE_PRIVATE: Code(b"113111", b"DCM", b"Retain Safe Private Option"),
}
"""Codes of PS3.16 CID 7050."""


def file_meta(sop_class: bytes, sop_instance: bytes, transfer_syntax: bytes) -> bytes:
    """Write preamble and file meta information (PS3.10 section 7.1), naming no application and no version."""
    elements = b"".join(
        [
            encode(head(0x00020001, b"OB"), b"\0\1"),
            encode(head(0x00020002, b"UI"), sop_class, b"\0"),
            encode(head(0x00020003, b"UI"), sop_instance, b"\0"),
            encode(head(0x00020010, b"UI"), transfer_syntax, b"\0"),
            encode(head(0x00020012, b"UI"), IMPLEMENTATION_CLASS, b"\0"),
        ]
    )
    return PREAMBLE + encode(head(0x00020000, b"UL"), len(elements).to_bytes(4, "little")) + elements


@functools.lru_cache(maxsize=128)
def marks(policy: Policy, *, is_head: bool, is_blanked: bool) -> tuple[tuple[int, bytes], ...]:
    """Write the elements that mark an object as de-identified, each with its tag, in order."""
    codes = [_BASIC, *([_PIXELS] if is_blanked else []), *(_OPTIONS[option] for option in sorted(policy.options))]
    times = b"REMOVED"
    if Option.MODIFIED_DATES in policy:
        times = b"MODIFIED"
    elif Option.FULL_DATES in policy:
        times = b"UNMODIFIED"
    written = [
        (IDENTITY_REMOVED, encode(head(IDENTITY_REMOVED, b"CS"), b"YES")),
        (METHOD, encode(head(METHOD, b"LO"), b"PS3.15 Annex E, policy " + policy.name.encode())),
        (METHOD_CODES, encode_items(head(METHOD_CODES, b"SQ"), [_item(code) for code in codes])),
    ]
    if is_blanked:
        written.append((BURNED_IN, encode(head(BURNED_IN, b"CS"), b"NO")))
    if is_head:
        written.append((RECOGNIZABLE_FEATURES, encode(head(RECOGNIZABLE_FEATURES, b"CS"), b"YES")))
    return (*written, (TIMES_MODIFIED, encode(head(TIMES_MODIFIED, b"CS"), times)))


def _item(code: Code) -> bytes:
    return b"".join(
        [
            encode(head(0x00080100, b"SH"), code.value),
            encode(head(0x00080102, b"SH"), code.scheme),
            encode(head(0x00080104, b"LO"), code.meaning),
        ]
    )
