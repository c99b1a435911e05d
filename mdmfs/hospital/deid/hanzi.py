"""Names in Chinese characters as they stand in Latin letters: in pinyin, and as passports of Taiwan have them."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable
from typing import Final

from mdmfs.hospital.deid.tables.readings import READINGS

_HANZI: Final = re.compile("[\u4e00-\u9fff]")
_UNPARTED: Final = re.compile(r"(?<![^\0=\\])([\u4e00-\u9fff])([\u4e00-\u9fff]{1,2})(?![^\0=\\])")
"""Family and given name as they are mostly written, without anything between them."""
_FAMILIES: Final = (
    "单單 shan, 解 xie, 查 zha, 仇 qiu, 区區 ou, 曾 zeng, 朴 piao, 盖 ge, 乐樂 yue, 覃 qin, 尉 yu, 缪繆 miao"
)
_FAMILY: Final = {
    character: syllable for characters, syllable in map(str.split, _FAMILIES.split(",")) for character in characters
}
"""Family names that are read in another way than the word."""
_WADE_GILES: Final = [
    (re.compile(pattern), latin)
    for pattern, latin in (
        ("^(zh|ch|sh|r)i$", r"\1ih"),
        ("^[zc]i$", "tzu"),
        ("^si$", "szu"),
        ("ong$", "ung"),
        ("(?<=i)an$|(?<=^y)an$", "en"),
        ("(?<=i)e$|(?<=^y)e$", "eh"),
        ("[uv]e$", "ueh"),
        ("^yi$", "i"),
        ("^you$", "yu"),
        ("(?<![gk])(?<!^h)(?<!sh)uo$", "o"),
        ("^([gk])ui$", r"\1uei"),
        ("^([gkh])e$", r"\1o"),
        ("^er$", "erh"),
        ("^b", "p"),
        ("^d", "t"),
        ("^g", "k"),
        ("^(?:zh|[jq])", "ch"),
        ("^x", "hs"),
        ("^r", "j"),
        ("^[zc](?!h)", "ts"),
        ("v", "u"),
    )
]
"""What becomes of pinyin, without apostrophes."""


def romanized(text: str) -> list[str]:
    """Give a text with its Chinese characters in Latin letters, in each of at most 8 ways; nothing if it has none.

    Each is read as Mandarin mostly reads it, and those of family names also as these are read.
    """
    typed = unicodedata.normalize("NFKC", text)
    characters = set(_HANZI.findall(typed))
    if not characters:
        return []
    parted = _UNPARTED.sub(r"\1^\2", typed)
    words = _words()
    readings = words, words | _FAMILY
    latin = (
        {ord(each): spell(reading.get(each, each)) for each in characters}
        for reading in readings
        for spell in _SPELLINGS
    )
    return [*dict.fromkeys(parted.translate(each) for each in latin)]


@functools.lru_cache(maxsize=1)
def _words() -> dict[str, str]:
    """Give the syllable of each character; read when the first such name comes."""
    rows = (row.split() for row in READINGS.splitlines())
    return {character: syllable for syllable, characters in rows for character in characters}


@functools.cache
def _wade_giles(syllable: str) -> str:
    for pattern, latin in _WADE_GILES:
        syllable = pattern.sub(latin, syllable)
    return syllable


_SPELLINGS: Final[tuple[Callable[[str], str], ...]] = (
    lambda syllable: syllable.replace("v", "u"),
    lambda syllable: syllable,
    lambda syllable: syllable.replace("v", "yu"),
    _wade_giles,
)
"""Lu, lv and lyu are one; a v is no other letter of pinyin."""
