"""Names in kana as they stand in Latin letters: by Hepburn's system, as people type them and as passports have them."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_KANA: Final = re.compile("[\u3041-\u3096\u30a1-\u30fa\u30fc]")
_LETTER: Final = re.compile(r"(?:HIRAGANA|KATAKANA) LETTER (.*)")
_SMALL: Final = {"SMALL TU": "+", "SMALL YA": "~ya", "SMALL YU": "~yu", "SMALL YO": "~yo"}
"""What doubles the consonant that comes, and what is one syllable with the i before it."""
_HEPBURN: Final = [
    (re.compile(pattern), latin)
    for pattern, latin in (
        ("hu", "fu"),
        ("tu", "tsu"),
        ("du", "zu"),
        ("si~y", "sh"),
        ("ti~y", "ch"),
        ("[zd]i~y", "j"),
        ("i?~", ""),
        ("si", "shi"),
        ("ti", "chi"),
        ("[zd]i", "ji"),
        (r"\+(?=ch)", "t"),
        (r"\+([a-z]?)", r"\1\1"),
    )
]
"""How to get there, in this order, from the names of Unicode, which are by another system."""
_BEFORE_LIPS: Final = re.compile("n(?=[bmp])")
_LONG: Final = re.compile("(?<=o)[ou]|(?<=u)u")


def _latin(kana: str) -> str:
    letter = _LETTER.match(unicodedata.name(kana))
    if letter is None:  # the mark of a long vowel
        return ""
    return _SMALL.get(letter[1], letter[1].removeprefix("SMALL ").lower())


_LATIN: Final = {ord(kana): _latin(kana) for kana in map(chr, range(0x3041, 0x30FD)) if _KANA.match(kana)}


def romanized(text: str) -> list[str]:
    """Give a text with its kana in Latin letters, in each of four ways; nothing if it has none.

    Before b, m and p an n may be an m, and long vowels may be written or not: Honma and Homma, Tarou and Taro.
    """
    typed = unicodedata.normalize("NFKC", text)
    if not _KANA.search(typed):
        return []
    typed = typed.translate(_LATIN)
    for pattern, latin in _HEPBURN:
        typed = pattern.sub(latin, typed)
    return [each for spelled in (typed, _BEFORE_LIPS.sub("m", typed)) for each in (spelled, _LONG.sub("", spelled))]
