"""Elements that no rule speaks of: private ones, repeating groups, group lengths, and tags that PS3.6 does not know."""

from __future__ import annotations

import functools
from typing import Final

from mdmfs.hospital.deid import actions
from mdmfs.hospital.deid.csa import rewrite
from mdmfs.hospital.deid.elements import Element
from mdmfs.hospital.deid.encode import encode, head
from mdmfs.hospital.deid.profile import CSA_CREATOR, PROFILE, SAFE_CREATORS, SAFE_PRIVATE
from mdmfs.hospital.deid.terms import TECHNIQUE
from mdmfs.hospital.deid.walk import NUMBER_SIZES, TEXT_VRS, Apply, Rule, Trace, Walk, trace_of

_TRACED: Final = frozenset({b"SQ", b"UI"})
_CSA: Final = (CSA_CREATOR, 0x0029, 0x10)
"""The CSA image header; that of the series (0029,xx20) holds the whole protocol, and goes."""
_UNTOLD: Final = frozenset({b"", b"UN"})
"""How an element comes whose VR the sender did not know, or did not say."""
_IS_PRIVATE: Final = 0x10000
"""The bit that makes a group odd (PS3.5 section 7.8)."""
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
    tag, vr = element[0], element[1]
    if walk.keeps_private and tag & _IS_PRIVATE:
        block = walk.scope.creators.get(tag >> 8)
        if block is not None:
            rule = _safe_rule(block[0], tag)
            if rule is not None and (vr == rule.vr or not rule.vr or vr in _UNTOLD):
                return _keep_safe(walk, element, rule, block, out)
        elif _FIRST_CREATOR <= tag & 0xFFFF <= _LAST_CREATOR:
            return _reserve(walk, element, len(out))
    if vr in TEXT_VRS:
        walk.traces.add(Trace.DESCRIPTION if tag & _IS_PRIVATE else _trace_of_unknown(tag), walk.value(element))
    elif vr in _TRACED:
        walk.note(element, trace_of(element))
    return b""


def _trace_of_unknown(tag: int) -> Trace:
    """Tell how to remember a text of a tag that PS3.6 does not know; some of Table E.1-1 are younger than our PS3.6."""
    row = PROFILE.get(tag)
    return Trace.IDENTITY if row is not None and row.is_identity else Trace.DESCRIPTION


def _keep_safe(walk: Walk, element: Element, rule: Rule, block: tuple[str, int], out: list[bytes]) -> bytes:
    creator, place = block
    tag = element[0]
    kept = rule.apply(walk, element, rule)
    if kept and not out[place]:
        out[place] = encode(head(tag >> 16 << 16 | tag >> 8 & 0xFF, b"LO"), creator.encode())
    return kept


def _rewrite_csa(walk: Walk, element: Element, rule: Rule) -> bytes:
    content = rewrite(walk.octets[element[2] : element[3]])
    return encode(rule.head, content) if content else b""


def _reserve(walk: Walk, element: Element, place: int) -> bytes:
    """Remember which creator has a block; it is written when something of the block stays (PS3.5 section 7.8.1)."""
    creator = walk.value(element).decode("latin_1")
    tag = element[0]
    if creator in SAFE_CREATORS:
        walk.scope.creators[(tag >> 16) << 8 | tag & 0xFF] = creator, place
    else:
        walk.note(element, Trace.DESCRIPTION)
    return b""


@functools.lru_cache(maxsize=4096)
def _safe_rule(creator: str, tag: int) -> Rule | None:
    """Make the rule of a private element of a creator; None if it is on no list, or nothing of its VR may stay."""
    place = creator, tag >> 16, tag & 0xFF
    if place == _CSA:
        return Rule(_rewrite_csa, b"", head(tag, b"OB"))
    vr = SAFE_PRIVATE.get(place, b"")
    return Rule(_KEEPERS[vr], vr, head(tag, vr), b"", Trace.DESCRIPTION, TECHNIQUE) if vr in _KEEPERS else None
