"""The rules of one policy for one SOP class: for each tag of PS3.6 what becomes of its element, compiled once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Final

from mdmfs.hospital.deid import actions
from mdmfs.hospital.deid.classes import MODALITIES
from mdmfs.hospital.deid.elements import OFFSET_TABLES, PIXELS
from mdmfs.hospital.deid.encode import encode, head
from mdmfs.hospital.deid.policy import Option, Policy
from mdmfs.hospital.deid.private import unruled
from mdmfs.hospital.deid.profile import PROFILE, TYPE_1, TYPE_2, Row, required_types
from mdmfs.hospital.deid.tables.dictionary import KIND_UIDS, VRS
from mdmfs.hospital.deid.terms import DESCRIPTORS, TECHNICAL, TECHNIQUE
from mdmfs.hospital.deid.walk import NUMBER_SIZES, TEXT_VRS, Apply, Rule, RuleSet, Trace

DUMMIES: Final = {
    **dict.fromkeys(TEXT_VRS | {b"CS"}, b"REMOVED"),
    b"AS": b"000Y",
    b"DA": b"19000101",
    b"TM": b"000000",
    b"DT": b"19000101000000",
    b"DS": b"0",
    b"IS": b"0",
    b"OB": b"\0\0",
    b"UN": b"\0\0",
}
"""What stands where a value was that an object must have: valid for the VR, the same for everybody."""

_MODALITY: Final = 0x00080060
_BODY_MASS_INDEX: Final = 0x00101022
"""Not in Table E.1-1, but made of size and weight, which are."""
_DROPPED: Final = frozenset(
    {
        0x00700001,  # Graphic Annotation Sequence: text, and lines that may write
        0x00700060,  # Graphic Layer Sequence: names of the layers of these
        0x00700002,  # Graphic Layer: one of these names
        0x00203402,  # Modified Image ID (retired)
        0x00080005,  # Specific Character Set: what comes out is ASCII
        0x00080103,  # Coding Scheme Version: free text beside a code that the table already knows
        0x00080416,  # Expiration DateTime
        0x00141020,  # Expiry Date, and Date and Time of Gain Calibration
        0x00143076,
        0x00143077,
        0x00100035,  # Patient's Alternative Calendar: tells a faith
        0x002000AA,  # Report Number and Other Study Numbers (retired): the hospital's, of which nothing else may tell
        0x00201070,
        0x00120062,  # Patient Identity Removed, and the others: the engine writes its own
        0x00120063,
        0x00120064,
        0x00280302,
        0x00280303,
    }
)
_SHARED_DATES: Final = frozenset(
    {
        0x00080015,  # Instance Coercion DateTime: what archives do with an image, on days known from elsewhere
        0x00080106,  # Context Group Version, and local version: dates of the standard's own tables
        0x00080107,
        0x00120086,  # Ethics Committee Approval Effectiveness Start and End Date
        0x00120087,
        0x0014407C,  # Calibration Time and Date
        0x0014407E,
        0x00181200,  # Date, time, and date and time of last calibration
        0x00181201,
        0x00181202,
        0x00181203,  # Calibration DateTime
        0x00181204,  # Date of Manufacture
        0x00181205,  # Date of Installation
        0x0018A002,  # Contribution DateTime
        0x00203403,  # Modified Image Date and Time
        0x00203405,
        0x0018700C,  # Date and Time of Last Detector Calibration
        0x0018700E,
        0x0040DB06,  # Template Version, and local version
        0x0040DB07,
        0x0044000B,  # Product Expiration DateTime
        0x00686226,  # Effective DateTime and Information Issue DateTime of an implant
        0x00686270,
        0x0072000A,  # Hanging Protocol Creation DateTime
        0x300A022C,  # Source Strength Reference Date and Time
        0x300A022E,
    }
)
"""Dates of no subject: others have them too, or they are known from elsewhere, so one that moved would tell how far."""
_SUBJECT: Final = frozenset(
    {
        0x00100010,  # Patient's Name
        0x00100020,  # Patient ID
        0x00120040,  # Clinical Trial Subject ID
        0x00120042,  # Clinical Trial Subject Reading ID
    }
)
_CODED: Final[dict[int, Apply]] = {
    0x00080100: actions.keep_code_value,
    0x00080102: actions.keep_code_scheme,
    0x00080104: actions.keep_code_meaning,
    0x00080119: actions.keep_code_value,
    0x00080120: actions.keep_code_value,
}
_TABLES: Final = frozenset(
    {
        0x00281201,  # Red, Green, Blue Palette Color Lookup Table Data and their segmented forms
        0x00281202,
        0x00281203,
        0x00281221,
        0x00281222,
        0x00281223,
        0x00283006,  # LUT Data
        *OFFSET_TABLES,
    }
)
"""Binary elements that images cannot be shown without; all other octets outside Pixel Data go."""
_KEEPERS: Final[dict[bytes, Apply]] = {
    **dict.fromkeys(NUMBER_SIZES, actions.keep_binary),
    b"DS": actions.keep_numbers,
    b"IS": actions.keep_numbers,
    b"CS": actions.keep_codes,
    b"AS": actions.keep_age,
    b"SQ": actions.recurse,
    b"UI": actions.map_uids,
}
_SHIFTERS: Final[dict[bytes, Apply]] = {
    b"DA": actions.shift_dates,
    b"TM": actions.shift_times,
    b"DT": actions.shift_date_times,
    b"SH": actions.keep_zone,
}
_DATE_KEEPERS: Final[dict[bytes, Apply]] = {
    **dict.fromkeys((b"DA", b"TM", b"DT"), actions.keep_dates),
    b"SH": actions.keep_zone,
}
_RETAINERS: Final[dict[bytes, Apply]] = {
    **dict.fromkeys(TEXT_VRS - {b"AE", b"PN", b"UR"}, actions.retain_text),
    **dict.fromkeys((b"DA", b"TM", b"DT"), actions.keep_dates),
    b"CS": actions.keep_codes,
    b"DS": actions.keep_numbers,
    b"SQ": actions.recurse,
    b"UI": actions.retain_uids,
}
"""What becomes of the attributes of devices and institutions that an option retains, by VR."""

_CHARACTERISTICS: Final[dict[int, Apply]] = {
    0x00100040: actions.keep_listed,
    0x00101010: actions.keep_age,
    0x00101020: actions.keep_measure,
    0x00101030: actions.keep_measure,
    0x001021A0: actions.keep_listed,
    0x001021C0: actions.keep_binary,
    0x00102203: actions.keep_listed,
}
"""What Retain Patient Characteristics keeps, and how; the free text among them, such as Ethnic Group, goes."""
_LISTED: Final = {
    0x00100040: frozenset({b"M", b"F", b"O"}),  # Patient's Sex
    0x001021A0: frozenset({b"YES", b"NO", b"UNKNOWN"}),  # Smoking Status
    0x00102203: frozenset({b"ALTERED", b"UNALTERED"}),  # Patient's Sex Neutered
}


@functools.lru_cache(maxsize=128)
def compile_rules(policy: Policy, sop_class: str) -> RuleSet:
    """Compile the rules of a policy for a class of ``classes.CLASSES``."""
    nested = _compile(policy, required_types(sop_class, is_nested=True))
    top = _compile(policy, required_types(sop_class, is_nested=False))
    for tag in _SUBJECT:
        top[tag] = Rule(actions.name_subject, VRS[tag][0], head(tag, VRS[tag][0]), trace=_trace(tag, VRS[tag][0]))
    for tag in PIXELS:
        top[tag] = Rule(actions.refuse_pixels, b"", b"", choice=(b"OB", b"OW", b"OF", b"OD"))
    for tag in OFFSET_TABLES:
        nested[tag] = _dropping(tag, "X")
    repeatable = frozenset(tag for tag, rule in top.items() if rule.apply in actions.SELF_CONTAINED)
    return RuleSet(top, nested, unruled, repeatable)


def prepare(policy: Policy) -> None:
    """Compile what all classes have in common under a policy, so that the first image need not wait for it."""
    _undemanded(policy)


def _compile(policy: Policy, required: Mapping[int, str]) -> dict[int, Rule]:
    demanded = {tag: _rule(tag, policy, kind) for tag, kind in required.items() if tag in VRS}
    return _undemanded(policy) | demanded


@functools.lru_cache(maxsize=16)
def _undemanded(policy: Policy) -> dict[int, Rule]:
    """Compile the rules of attributes that a class does not demand: most are the same for every class."""
    return {tag: _rule(tag, policy, None) for tag in VRS}


def _rule(tag: int, policy: Policy, required: str | None) -> Rule:
    if tag in _DROPPED or (tag == _BODY_MASS_INDEX and Option.PATIENT_CHARACTERISTICS not in policy):
        return _dropping(tag, "X")
    if tag == _MODALITY:
        other = encode(head(tag, b"CS"), b"OT")
        return Rule(actions.keep_listed, b"CS", head(tag, b"CS"), other, words=MODALITIES)
    if tag in _CODED:
        vr = VRS[tag][0]
        return Rule(_CODED[tag], vr, head(tag, vr))
    row = PROFILE.get(tag)
    if row is None:
        return _outside(tag, policy, required)
    if tag in _SHARED_DATES and Option.MODIFIED_DATES in policy:
        return _basic(tag, row, required)
    return _optional(tag, row, policy, required) or _basic(tag, row, required)


def _optional(tag: int, row: Row, policy: Policy, required: str | None) -> Rule | None:
    """Make the rule that an option gives; None where the Basic Profile decides."""
    fallback = _element(tag, VRS[tag][0], row.resolve(required))
    for option, action in row.option_actions(policy):
        rule = _of_option(tag, option, action, fallback)
        if rule is not None:
            return dataclasses.replace(rule, option=option)
    return None


def _of_option(tag: int, option: Option, action: str, fallback: bytes) -> Rule | None:
    vr, words = VRS[tag][0], frozenset[bytes]()
    apply: Apply | None = None
    match option, action:
        case Option.FULL_DATES, _:
            apply = _DATE_KEEPERS.get(vr)
        case Option.MODIFIED_DATES, _:
            apply = _SHIFTERS.get(vr)
        case ((Option.DEVICE | Option.INSTITUTION), "K"):
            apply = _RETAINERS.get(vr)
        case Option.STRUCTURED_CONTENT, _:
            apply = actions.recurse
        case Option.CLEAN_DESCRIPTORS, _ if tag in DESCRIPTORS:
            apply, words = actions.keep_words, TECHNIQUE
        case Option.PATIENT_CHARACTERISTICS, "K":
            apply, words = _CHARACTERISTICS.get(tag), _LISTED.get(tag, words)
        case _:
            pass
    return None if apply is None else Rule(apply, vr, head(tag, vr), fallback, _trace(tag, vr), words)


def _basic(tag: int, row: Row, required: str | None) -> Rule:
    vr = VRS[tag][0]
    action = row.resolve(required)
    if action in {"D", "U"} and vr in {b"UI", b"SQ"}:
        return Rule(_KEEPERS[vr], vr, head(tag, vr))
    return _dropping(tag, action)


def _outside(tag: int, policy: Policy, required: str | None) -> Rule:  # noqa: PLR0911 - a line for each kind of attribute
    """Make the rule of an attribute that is not in Table E.1-1: closed, but for what cannot hold a name."""
    choice = VRS[tag]
    vr = choice[0]
    action = {TYPE_1: "D", TYPE_2: "Z", None: "X"}[required]
    start, fallback = head(tag, vr), _element(tag, vr, action)
    if len(choice) > 1 and b"US" in choice:
        return Rule(actions.keep_chosen, b"", start, choice=choice)
    if tag in _TABLES:
        written = b"OW" if b"OW" in choice else vr
        return Rule(actions.keep_octets, b"", head(tag, written), choice=(*choice, b"OB"))
    if tag in KIND_UIDS:
        return Rule(actions.keep_registered_uids, vr, start)
    if tag in TECHNICAL:
        return Rule(actions.keep_words, vr, start, fallback, Trace.DESCRIPTION, TECHNICAL[tag])
    if vr in {b"DA", b"TM", b"DT"} and Option.MODIFIED_DATES in policy:
        return Rule(_SHIFTERS[vr], vr, start, fallback, _trace(tag, vr))
    if vr in {b"DA", b"TM", b"DT"} and Option.FULL_DATES in policy:
        return Rule(actions.keep_dates, vr, start, fallback)
    if vr in _KEEPERS and len(choice) == 1:
        return Rule(_KEEPERS[vr], vr, start, fallback)
    return _dropping(tag, action)


def _dropping(tag: int, action: str) -> Rule:
    choice = VRS[tag]
    vr = choice[0]
    return Rule(
        actions.drop, vr if len(choice) == 1 else b"", head(tag, vr), _element(tag, vr, action), _trace(tag, vr)
    )


def _element(tag: int, vr: bytes, action: str) -> bytes:
    """Write the element that an action leaves where there was a value: none, an empty one, or a dummy."""
    if action == "D" and vr in DUMMIES:
        return encode(head(tag, vr), DUMMIES[vr])
    return encode(head(tag, vr), b"") if action == "Z" else b""


def _trace(tag: int, vr: bytes) -> Trace:
    row = PROFILE.get(tag)
    if vr == b"PN":
        return Trace.NAME
    if vr == b"UI":
        return Trace.UID
    if vr == b"DA" and row is not None:
        return Trace.IDENTITY
    if vr not in TEXT_VRS:
        return Trace.NONE
    return Trace.IDENTITY if row is not None and row.is_identity else Trace.DESCRIPTION
