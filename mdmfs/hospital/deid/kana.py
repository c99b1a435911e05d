"""Names in kana as they stand in Latin letters: by Hepburn's system, as people type them and as passports have them."""

from __future__ import annotations

import re
import unicodedata
from typing import Final, TypeAlias

_Rules: TypeAlias = list[tuple[re.Pattern[str], str]]

_KANA: Final = re.compile("[\u3041-\u3096\u30a1-\u30fa\u30fc]")
_LETTER: Final = re.compile(r"(?:HIRAGANA|KATAKANA) LETTER (SMALL )?(.*)")
_OTHERWISE: Final = {"U": "wu", "I": "yi", "SMALL TU": "ッ", "SMALL KA": "ka", "SMALL KE": "ke"}
"""Two vowels with the consonants that they are before a small one, and what is small and no vowel."""


def _rules(*rules: tuple[str, str]) -> _Rules:
    return [(re.compile(pattern), latin) for pattern, latin in rules]


_SYLLABLES: Final = _rules(
    ("hu", "fu"),
    ("tu", "tsu"),
    ("du", "zu"),
    ("si", "shi"),
    ("ti", "chi"),
    ("[zd]i", "ji"),
    ("(sh|ch|j)iァy", r"\1"),
)
"""From the names of Unicode, which are by another system; ァ stands before what is written small."""
_NATIVE: Final = _rules(("y?iァ(?=y)", ""), ("ァ", ""), ("w(?=[ieo])", ""))
"""Each vowel is written, as in passports of Japan: fue, shie, tei; and wi, we and wo are i, e and o."""
_FOREIGN: Final = _rules(("(?<=[kg])uァw?(?=[aieo])", "w"), ("y?[aiueo]ァ(?=y)|[aiueo]?ァ", ""))
"""A small vowel takes the place of the one before it, as in the names that are written so: fe, she, ti, kwe, we, ye."""
_SPELLED: Final = _rules(("wu", "u"), ("yi", "i"), ("ッ(?=ch)", "t"), (r"ッ([a-z]?)", r"\1\1"))
_BEFORE_LIPS: Final = re.compile("n(?=[bmp])")
_LONG: Final = re.compile("o[ouー]|uu|ー")
_NAME: Final = re.compile(r"([^\0=\\^]*)([^\0=\\]*)")
"""A family name, and what follows."""


def _latin(kana: str) -> str:
    letter = _LETTER.match(unicodedata.name(kana))
    if letter is None:  # the mark of a long vowel
        return kana
    small, name = letter.groups(default="")
    return _OTHERWISE.get(small + name) or ("ァ" if small else "") + name.lower()


_LATIN: Final = {ord(kana): _latin(kana) for kana in map(chr, range(0x3041, 0x30FD)) if _KANA.match(kana)}


def romanized(text: str) -> list[str]:
    """Give a text with its kana in Latin letters, in each of at most 16 ways; nothing if it has none.

    Small vowels are read in two ways. Before b, m and p an n may be an m: Honma and Homma. Long vowels may be written
    or not, an o also with an h, be it in the family name alone: Oono, Ono and Ohno.
    """
    typed = unicodedata.normalize("NFKC", text)
    if not _KANA.search(typed):
        return []
    syllables = _follow(_SYLLABLES, typed.translate(_LATIN))
    spelled = [_follow(_SPELLED, _follow(rules, syllables)) for rules in (_NATIVE, _FOREIGN)]
    nasal = [each for name in spelled for each in (name, _BEFORE_LIPS.sub("m", name))]
    return [*dict.fromkeys(each for name in nasal for each in _lengths(name))]


def _follow(rules: _Rules, text: str) -> str:
    for pattern, latin in rules:
        text = pattern.sub(latin, text)
    return text


def _lengths(text: str) -> list[str]:
    in_family = _NAME.sub(lambda name: _shortened(name[1], "oh") + _shortened(name[2], "o"), text)
    return [text.replace("ー", ""), _shortened(text, "o"), _shortened(text, "oh"), in_family]


def _shortened(text: str, long_o: str) -> str:
    return _LONG.sub(lambda found: {"o": long_o, "u": "u"}.get(found[0][0], ""), text)
