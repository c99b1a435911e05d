"""What a policy does to each element of one object, and which clause says so; found by doing it, and never a value."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Mapping
from typing import Final

from pydicom.datadict import keyword_for_tag

from mdmfs.hospital.deid.charsets import CHARACTER_SET_TAG
from mdmfs.hospital.deid.deidentify import open_walk
from mdmfs.hospital.deid.elements import HEAD_SIZE, LONG_HEAD_SIZE, LONG_VRS, Element, Elements
from mdmfs.hospital.deid.header import IdentifiedHeader
from mdmfs.hospital.deid.policy import Option, Policy
from mdmfs.hospital.deid.profile import PROFILE
from mdmfs.hospital.deid.pseudonyms import Subject
from mdmfs.hospital.deid.rules import compile_rules
from mdmfs.hospital.deid.tables.dictionary import VRS
from mdmfs.hospital.deid.walk import Rule, Traces, Walk

_OPTIONS: Final = {
    Option.CLEAN_GRAPHICS: "E.3.3 Clean Graphics",
    Option.CLEAN_DESCRIPTORS: "E.3.5 Clean Descriptors",
    Option.STRUCTURED_CONTENT: "E.3.4 Clean Structured Content",
    Option.FULL_DATES: "E.3.6 Retain Longitudinal Temporal Information, Full Dates",
    Option.MODIFIED_DATES: "E.3.6 Retain Longitudinal Temporal Information, Modified Dates",
    Option.PATIENT_CHARACTERISTICS: "E.3.7 Retain Patient Characteristics",
    Option.DEVICE: "E.3.8 Retain Device Identity",
    Option.INSTITUTION: "E.3.11 Retain Institution Identity",
    Option.SAFE_PRIVATE: "E.3.10 Retain Safe Private",
}
_GROUPS: Final = {0x5000: "Table E.1-1 Curve Data: X", 0x6000: "Table E.1-1 Overlay Data: X"}
_GROUP_MASK: Final = 0xFF01


class Effect(enum.StrEnum):
    """What became of an element."""

    KEPT = "kept"
    CHANGED = "changed"
    EMPTIED = "emptied"
    REMOVED = "removed"


@dataclasses.dataclass(frozen=True, slots=True)
class Explained:
    """One element, where it stands, and what became of it."""

    depth: int
    tag: int
    keyword: str
    """Of PS3.6; empty for private and unknown elements."""
    effect: Effect
    clause: str


def explain(header: IdentifiedHeader, policy: Policy, subject: Subject) -> Iterator[Explained]:
    """Explain each element before Pixel Data, at every depth; raises ``RefusedError`` where the engine does."""
    rules = compile_rules(policy, header.sop_class)
    walk = open_walk(header, policy, subject, Traces(header.codec))
    return _explained(walk, header.elements, rules.top, 0)


def _explained(walk: Walk, elements: Elements, rules: Mapping[int, Rule], depth: int) -> Iterator[Explained]:
    written = walk.dataset(elements, rules, depth)
    for element, octets in zip(elements, written, strict=True):
        tag = element[0]
        effect = _effect(walk, element, octets)
        keyword = "" if tag >> 16 & 1 else keyword_for_tag(tag)
        yield Explained(depth, tag, keyword, effect, _clause(tag, rules.get(tag), effect))
        if octets:
            for item in element[4] or ():
                yield from _explained(walk, item, walk.rules.nested, depth + 1)


def _effect(walk: Walk, element: Element, octets: bytes) -> Effect:
    before = walk.octets[element[2] : element[3]]
    if not octets:
        return Effect.REMOVED
    after = octets[LONG_HEAD_SIZE if octets[4:6] in LONG_VRS else HEAD_SIZE :]
    if element[4] is not None or after == before or after.strip(b" \0") == before.strip(b" \0"):
        return Effect.KEPT
    return Effect.CHANGED if after else Effect.EMPTIED


def _clause(tag: int, rule: Rule | None, effect: Effect) -> str:
    group = tag >> 16
    if group & 1:
        is_kept = effect is not Effect.REMOVED
        return _OPTIONS[Option.SAFE_PRIVATE] if is_kept else "Table E.1-1 Private Attributes: X"
    if group & _GROUP_MASK in _GROUPS:
        return _GROUPS[group & _GROUP_MASK]
    row = PROFILE.get(tag)
    if row is None:
        return _outside(tag)
    if rule is not None and rule.option is not None and effect is not Effect.REMOVED:
        return _OPTIONS[rule.option]
    return f"Table E.1-1 Basic Profile: {row.action}"


def _outside(tag: int) -> str:
    if tag == CHARACTER_SET_TAG:
        return "ours: what comes out is ASCII"
    if tag not in VRS:
        return "ours: not in PS3.6, closed"
    return "ours: not in Table E.1-1, by VR and reviewed words"
