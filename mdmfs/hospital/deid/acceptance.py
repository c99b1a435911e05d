"""Which instances are let through at all: classes, pixels that nobody can have written on, and heads.

The engine does not look into pixels. It accepts what comes from a scanner's detector and refuses, with a reason, what
may carry text in its pixels (PS3.15 E.3.1) or a face, unless the policy has an agreement for faces (PS3.15 E.3.2).
"""

from __future__ import annotations

import functools
import itertools
import re
from typing import Final

from mdmfs.hospital.deid.classes import CLASSES, Content
from mdmfs.hospital.deid.codes import UNKNOWN_CODE, known_code
from mdmfs.hospital.deid.elements import UNDEFINED, Elements
from mdmfs.hospital.deid.header import NATIVE_SYNTAXES, IdentifiedHeader
from mdmfs.hospital.deid.policy import Heads, Option, Policy
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.deid.regions import is_reviewed, region_rule

_IMAGE_TYPE: Final = 0x00080008
_CONVERSION_TYPE: Final = 0x00080064
_PHOTOMETRIC: Final = 0x00280004
_BURNED_IN: Final = 0x00280301
_RECOGNIZABLE: Final = 0x00280302
_FACTORS: Final = (0x00280002, 0x00280010, 0x00280011, 0x00280100)
"""Samples per Pixel, Rows, Columns, Bits Allocated."""

_REGION_SEQUENCE: Final = 0x00082218
_BODY_PART: Final = 0x00180015
_CODE_VALUE: Final = 0x00080100
_SCHEME: Final = 0x00080102

_WITHOUT_PIXELS: Final = frozenset({Content.GEOMETRY, Content.PLAN, Content.REPORT, Content.PRESENTATION})
_FACELESS_CONTENT: Final = _WITHOUT_PIXELS - {Content.GEOMETRY}
_CLEANED_BY: Final = {Content.REPORT: Option.STRUCTURED_CONTENT, Content.PRESENTATION: Option.CLEAN_GRAPHICS}

_OVERLAY_GROUPS: Final = range(0x6000, 0x6020, 2)
_OVERLAY_DATA: Final = 0x3000
_OVERLAY_PLACES: Final = (0x0010, 0x0100, 0x0102)
"""Overlay Rows, Overlay Bits Allocated, Overlay Bit Position."""

_PIXEL_VRS: Final = {
    0x7FE00008: frozenset({b"OF", b""}),
    0x7FE00009: frozenset({b"OD", b""}),
    0x7FE00010: frozenset({b"OB", b"OW", b""}),
}
_DRAWN: Final = frozenset(
    {b"SCREEN SAVE", b"SCREENSHOT", b"SCREEN", b"CAPTURE", b"REPORT", b"DOSE_INFO", b"PROT", b"TEXT", b"CSA REPORT"}
)
"""Values of Image Type that name pixels which a program has drawn."""
_FACELESS: Final = frozenset(
    b"""
    CHEST THORAX ABDOMEN PELVIS ABDOMENPELVIS CHESTABDOMEN CHESTABDOMENPELVIS CHESTABDPELVIS TSPINE LSPINE TLSPINE
    LSSPINE SSPINE COCCYX SACRUM HEART CARDIAC LUNG LIVER KIDNEY PANCREAS SPLEEN PROSTATE BLADDER UTERUS BREAST
    AORTA COLON RECTUM HIP KNEE ANKLE FOOT TOE CALCANEUS LEG THIGH FEMUR PATELLA SHOULDER SCAPULA CLAVICLE HUMERUS
    ELBOW FOREARM ARM WRIST HAND FINGER THUMB EXTREMITY RIB STERNUM MEDIASTINUM UPPERARM LOWERLEG ABDOMENANDPELVIS
    CHESTANDABDOMEN CHESTABDOMENANDPELVIS THORACICSPINE LUMBARSPINE LUMBOSACRALSPINE SACROILIACJOINT KNEEJOINT
    HIPJOINT ANKLEJOINT SHOULDERJOINT ELBOWJOINT WRISTJOINT LOWEREXTREMITY UPPEREXTREMITY LOWERLIMB UPPERLIMB
    """.split()
)
"""Body parts, without spaces, whose images show no face; whatever is not among them counts as a head."""
_CALLED: Final = (0x0008103E, 0x00181030)
"""Series Description and Protocol Name: the body part is often that of the image before."""
_HEADS: Final = re.compile(
    rb"(?<![a-z])(?:head|brain|skull|face|facial|crani(?:um|al|o)|cerebr(?:al|um|o)|kopf|g?e?hirn|gesicht|cerveau|cabeza"
    rb"|encefalo|hoofd|hersenen|(?:sch(?:ae?|[\x80-\xff]+)del)|(?:cr(?:a|[\x80-\xff]+)ne)|(?:t(?:e|[\x80-\xff]+)te))(?![a-z])"
)
_OTHER_HEADS: Final = re.compile(rb"(?:femoral|humeral|radial|fibular|metatarsal|metacarpal)[ _]*head|head[ _-]*first")
"""Bones have heads, and patients lie head first."""


def accept(header: IdentifiedHeader, policy: Policy) -> bool:
    """Raise unless the instance may be let through; tells whether its pixels must be marked as showing a face."""
    content = CLASSES.get(header.sop_class)
    if content is None:
        raise RefusedError(Reason.SOP_CLASS)
    if content in _WITHOUT_PIXELS:
        _check_documents(header, policy, content)
        if header.pixels is not None:
            raise RefusedError(Reason.PIXEL_LENGTH, header.pixels[0])
    else:
        _check_content(header, policy, content)
    is_head = content not in _FACELESS_CONTENT and _is_head(header)
    if is_head and policy.heads is Heads.REFUSE:
        raise RefusedError(Reason.HEAD)
    return is_head and content is not Content.GEOMETRY


def _check_documents(header: IdentifiedHeader, policy: Policy, content: Content) -> None:
    """Refuse reports and presentation states unless a review names them, and the option that cleans them is claimed."""
    option = _CLEANED_BY.get(content)
    if option is not None and not (option in policy and is_reviewed(header, policy)):
        raise RefusedError(Reason.SOP_CLASS)


def _check_content(header: IdentifiedHeader, policy: Policy, content: Content) -> None:
    """Refuse pixels that may carry text, unless a region rule says where."""
    _check_pixels(header)
    _check_overlays(header)
    if region_rule(header, policy) is not None:
        return
    has_review = is_reviewed(header, policy)
    if content is Content.REVIEWED and not has_review:
        named = {kind.sop_class for kind in policy.reviewed_kinds}
        raise RefusedError(Reason.NO_REGION if header.sop_class in named else Reason.SOP_CLASS)
    if header.value(_BURNED_IN) not in {b"", b"NO"}:
        raise RefusedError(Reason.BURNED_IN, _BURNED_IN)
    if has_review:
        return
    if header.value(_PHOTOMETRIC) not in {b"MONOCHROME1", b"MONOCHROME2"}:
        raise RefusedError(Reason.PHOTOMETRIC, _PHOTOMETRIC)
    if content is Content.IMAGE:
        _check_image(header)


def _check_image(header: IdentifiedHeader) -> None:
    kinds = [kind.strip() for kind in header.value(_IMAGE_TYPE).split(b"\\")]
    if kinds[0] != b"ORIGINAL" and kinds[:2] != [b"DERIVED", b"PRIMARY"]:
        raise RefusedError(Reason.IMAGE_TYPE, _IMAGE_TYPE)
    if not _DRAWN.isdisjoint(kinds):
        raise RefusedError(Reason.IMAGE_TYPE, _IMAGE_TYPE)
    if header.value(_CONVERSION_TYPE):
        raise RefusedError(Reason.CONVERSION_TYPE, _CONVERSION_TYPE)


def _check_pixels(header: IdentifiedHeader) -> None:
    """Refuse pixels of another VR or length than the header says."""
    if header.pixels is None:
        raise RefusedError(Reason.PIXEL_LENGTH)
    tag, vr, length, _ = header.pixels
    if vr not in _PIXEL_VRS[tag]:
        raise RefusedError(Reason.MALFORMED, tag)
    is_native = header.transfer_syntax in NATIVE_SYNTAXES
    if is_native != (length != UNDEFINED) or (is_native and length != _native_length(header)):
        raise RefusedError(Reason.PIXEL_LENGTH, tag)


def _native_length(header: IdentifiedHeader) -> int:
    bits = 1
    for tag in _FACTORS:
        bits *= header.number(tag)
    length = (bits * header.frames + 7) // 8
    return length + (length & 1)


def _check_overlays(header: IdentifiedHeader) -> None:
    """Refuse overlays in the unused bits of Pixel Data (retired, PS3.3-2004 C.9.2): they have a place but no data."""
    last = itertools.takewhile(lambda element: element[0] >> 16 >= _OVERLAY_GROUPS.start, reversed(header.elements))
    groups = {element[0] >> 16 for element in last}
    for group in sorted(groups.intersection(_OVERLAY_GROUPS)):
        has_data = group << 16 | _OVERLAY_DATA in header.by_tag
        has_place = any(group << 16 | number in header.by_tag for number in _OVERLAY_PLACES)
        if has_place and (not has_data or header.octets(group << 16 | 0x0100) not in {b"", b"\1\0"}):
            raise RefusedError(Reason.EMBEDDED_OVERLAY, group << 16 | _OVERLAY_DATA)


def _is_head(header: IdentifiedHeader) -> bool:
    if header.value(_RECOGNIZABLE) == b"YES" or any(_is_called_head(header.value(tag)) for tag in _CALLED):
        return True
    named = header.by_tag.get(_BODY_PART)
    regions = list(_regions([*([named] if named else []), *header.sequences], header.whole))
    return not regions or not _FACELESS.issuperset(regions)


@functools.lru_cache(maxsize=64)
def _is_called_head(text: bytes) -> bool:
    """Tell whether a text calls an image one of a head: once for a series."""
    return _HEADS.search(_OTHER_HEADS.sub(b"", text.lower())) is not None


def _regions(elements: Elements, octets: bytes) -> list[bytes]:
    """List the body parts that an object names at any depth, in capitals and without spaces."""
    regions = []
    for tag, _, start, stop, items in elements:
        if tag == _BODY_PART:
            regions.append(_squeezed(octets[start:stop]))
        elif items:
            for item in items:
                regions += [_coded_region(item, octets)] if tag == _REGION_SEQUENCE else _regions(item, octets)
    return [region for region in regions if region]


def _coded_region(item: Elements, octets: bytes) -> bytes:
    values = {tag: octets[start:stop].strip(b" \0") for tag, _, start, stop, _ in item}
    code = known_code(values.get(_SCHEME, b""), values.get(_CODE_VALUE, b""))
    return b"UNKNOWN" if code is UNKNOWN_CODE else _squeezed(code.meaning)


def _squeezed(text: bytes) -> bytes:
    return text.strip(b" \0").replace(b" ", b"").replace(b"_", b"").upper()
