"""Names in hangul as they stand in Latin letters: by the Revised Romanization, and as people spell their own."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Mapping
from typing import Final

_HANGUL: Final = re.compile("[가-힣]")
_UNPARTED: Final = re.compile(r"(?<![^\0=\\])([가-힣])([가-힣]{1,3})(?![^\0=\\])")
"""Family and given name as they are mostly written, with nothing between them."""
_FAMILY: Final = re.compile(r"(?<![^\0=\\])[가-힣](?=\^)")
_LETTERS: Final = """
g kk n d tt r m b pp s ss - j jj ch k t p h
a ae ya yae eo e yeo ye o wa wae oe yo u wo we wi yu eu ui i
- k k k n n n t l k m l l l p l m p p t t ng t t k t p t
"""
_INITIALS, _VOWELS, _FINALS = ([letter.strip("-") for letter in line.split()] for line in _LETTERS.strip().splitlines())
"""What the syllables of Unicode are made of, in its order (Unicode section 3.12)."""
_INITIAL_WAYS: Final[tuple[Mapping[str, str], ...]] = ({}, {"g": "k", "d": "t", "b": "p", "j": "ch", "r": "l"})
_VOWEL_WAYS: Final = tuple(
    {"yeo": yeo, "eo": eo} | others
    for yeo, eo in (("yeo", "eo"), ("yu", "u"), ("you", "u"), ("yo", "o"))
    for others in ({}, {"u": "oo", "ui": "ee", "oe": "oi"})
)
"""Yeong, Yung, Young and Yong; Su and Soo, Hui and Hee."""
_FAMILIES: Final = """
이 lee yi, 박 park pak, 최 choi choe, 정 jung chung, 조 jo cho, 임 lim rim, 오 oh, 서 suh seo, 신 shin, 안 ahn,
유 yoo ryu, 류 yoo ryu, 고 koh ko, 손 sohn, 백 paik baek, 허 huh hur, 심 shim, 노 noh roh, 우 woo, 나 na ra,
라 ra na, 구 koo, 주 joo, 석 suk, 변 byun, 염 yum, 김 kim, 강 kang, 권 kwon, 곽 kwak, 공 kong, 장 jang chang,
전 jun chun, 배 bae pae, 진 chin
"""
_USUAL: Final = {family: ways for family, *ways in map(str.split, _FAMILIES.split(","))}
"""Family names in the way, or the two, in which they are written whatever the given name is."""


def romanized(text: str) -> list[str]:
    """Give a text with its hangul in Latin letters, in each of at most 48 ways; nothing if it has none.

    Within one text each sound is written in one way, but for the family names.
    """
    typed = unicodedata.normalize("NFKC", text)
    syllables = set(_HANGUL.findall(typed))
    if not syllables:
        return []
    parted = _UNPARTED.sub(r"\1^\2", typed)
    families = dict.fromkeys((parted, *(_with_families(parted, way) for way in (0, -1))))
    ways = itertools.product(_INITIAL_WAYS, _VOWEL_WAYS)
    latin = [{ord(syllable): _latin(syllable, *way) for syllable in syllables} for way in ways]
    return [*dict.fromkeys(family.translate(each) for family in families for each in latin)]


def _with_families(text: str, way: int) -> str:
    return _FAMILY.sub(lambda found: _USUAL.get(found[0], [found[0]])[way], text)


def _latin(syllable: str, initials: Mapping[str, str], vowels: Mapping[str, str]) -> str:
    rest, final = divmod(ord(syllable) - ord("가"), len(_FINALS))
    first, second = divmod(rest, len(_VOWELS))
    initial, vowel = _INITIALS[first], _VOWELS[second]
    spelled = vowels.get(vowel, vowel)
    return initials.get(initial, initial) + ("woo" if spelled == "oo" and not initial else spelled) + _FINALS[final]
