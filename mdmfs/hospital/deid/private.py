"""Elements that no rule speaks of: private ones, repeating groups, group lengths, and tags that PS3.6 does not know."""

from __future__ import annotations

import functools
from typing import Final

from mdmfs.hospital.deid import actions
from mdmfs.hospital.deid.csa import rewrite
from mdmfs.hospital.deid.elements import PRIVATE_BIT, Element
from mdmfs.hospital.deid.encode import encode, head
from mdmfs.hospital.deid.profile import CSA_CREATOR, PROFILE, SAFE_CREATORS, SAFE_PRIVATE
from mdmfs.hospital.deid.terms import TECHNIQUE
from mdmfs.hospital.deid.walk import NUMBER_SIZES, TEXT_VRS, Apply, Rule, Trace, Walk, trace_of

_TRACED: Final = frozenset({b"SQ", b"UI"})
_CSA: Final = (CSA_CREATOR, 0x0029, 0x10)
"""The CSA image header; that of the series (0029,xx20) holds the whole protocol, and goes."""
_UNTOLD: Final = frozenset({b"", b"UN"})
"""How an element comes whose VR the sender did not know, or did not say."""
_SAFE_CREATORS: Final = frozenset(creator.encode() for creator in SAFE_CREATORS)
_FIRST_CREATOR: Final = 0x10
_LAST_CREATOR: Final = 0xFF
_KEEPERS: Final[dict[bytes, Apply]] = {
    **dict.fromkeys(NUMBER_SIZES, actions.keep_binary),
    b"DS": actions.keep_numbers,
    b"IS": actions.keep_numbers,
    b"CS": actions.keep_codes,
    b"LO": actions.keep_words,
    b"SH": actions.keep_words,
    b"SQ": actions.recurse,
    b"UI": actions.map_uids,
}
"""What may stay of a safe private element, by VR; dates, long texts and octets do not."""


def unruled(walk: Walk, element: Element, out: list[bytes]) -> bytes:
    """Keep a safe private element if the policy retains them (PS3.15 E.3.10); take everything else away."""
    tag, vr, start, stop, _ = element
    if tag & PRIVATE_BIT and walk.keeps_private:
        rule = walk.scope.safe.get(tag)
        if rule is not None:
            if vr == rule.vr or not rule.vr or vr in _UNTOLD:
                return _keep_safe(walk, element, rule, out)
        elif _FIRST_CREATOR <= tag & 0xFFFF <= _LAST_CREATOR:
            return _reserve(walk, element, len(out))
    if vr in TEXT_VRS:
        kind = Trace.DESCRIPTION if tag & PRIVATE_BIT else _trace_of_unknown(tag)
        walk.traces.add(kind, walk.octets[start:stop].strip(b" \0"))
    elif vr in _TRACED:
        walk.note(element, trace_of(element))
    return b""


def _trace_of_unknown(tag: int) -> Trace:
    """Tell how to remember a text of a tag that PS3.6 does not know; some of Table E.1-1 are younger than our PS3.6."""
    row = PROFILE.get(tag)
    return Trace.IDENTITY if row is not None and row.is_identity else Trace.DESCRIPTION


def _keep_safe(walk: Walk, element: Element, rule: Rule, out: list[bytes]) -> bytes:
    creator, place = walk.scope.creators[element[0] >> 8]
    kept = rule.apply(walk, element, rule)
    if kept and not out[place]:
        out[place] = creator
    return kept


def _rewrite_csa(walk: Walk, element: Element, rule: Rule) -> bytes:
    content = rewrite(walk.octets[element[2] : element[3]])
    return encode(rule.head, content) if content else b""


def _reserve(walk: Walk, element: Element, place: int) -> bytes:
    """Remember which creator has a block; it is written when something of the block stays (PS3.5 section 7.8.1)."""
    creator = walk.value(element)
    tag = element[0]
    if creator in _SAFE_CREATORS:
        block = (tag >> 16) << 8 | tag & 0xFF
        walk.scope.creators[block] = encode(head(tag, b"LO"), creator), place
        walk.scope.safe.update(_safe_rules(creator, block))
    else:
        walk.note(element, Trace.DESCRIPTION)
    return b""


@functools.lru_cache(maxsize=4096)
def _safe_rules(creator: bytes, block: int) -> dict[int, Rule]:
    """Make the rules of what may stay of a creator in a block: group, and the high byte of the elements."""
    group = block >> 8
    rules = {
        block << 8 | number: _safe_rule(block << 8 | number, vr)
        for (name, its_group, number), vr in SAFE_PRIVATE.items()
        if name.encode() == creator and its_group == group and vr in _KEEPERS
    }
    if (creator.decode(), group) == _CSA[:2]:
        tag = block << 8 | _CSA[2]
        rules[tag] = Rule(_rewrite_csa, b"", head(tag, b"OB"))
    return rules


def _safe_rule(tag: int, vr: bytes) -> Rule:
    return Rule(_KEEPERS[vr], vr, head(tag, vr), b"", Trace.DESCRIPTION, TECHNIQUE)
