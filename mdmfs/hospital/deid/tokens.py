"""Tokens: the parts of a value that would give somebody away if they stood elsewhere."""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from mdmfs.hospital.deid import hangul, hanzi, kana
from mdmfs.hospital.deid.charsets import readings, spellings
from mdmfs.hospital.deid.codes import CODE_TEXTS, UNKNOWN_CODE
from mdmfs.hospital.deid.profile import SAFE_CREATORS
from mdmfs.hospital.deid.terms import CODE_STRINGS, EQUIPMENT, FURTHER_CODE_STRINGS, TECHNIQUE, UNITS

MIN_LETTERS: Final = 4
_RUNS: Final = re.compile(rf"[^\W_]{{{MIN_LETTERS},}}")
BETWEEN: Final = re.compile(r"(?:[^\w^=\\\0\n]|_)+")
"""What may part a name or a number, or not: any punctuation but that between the parts of a name, and values."""
_PARTS: Final = re.compile(r"[^\W\d_]{4,}|\d{5,}")
MIN_DIGITS: Final = 5
MIN_MIXED: Final = 6
MIN_MIXED_DIGITS: Final = 3
MIN_NUMBER_DIGITS: Final = 7
"""A number in a numeric element, or in octets, is as long as this before it counts as somebody's record number."""
MIN_WITHIN: Final = 7
"""Letters of a name from which on it is found within a longer word."""
MIN_VEILED: Final = 5
"""Letters of a name from which on it is found within what was written in hex, base32 or base64."""
MIN_JOINED: Final = 6
"""Letters of a family and a given name, or of its initial, from which on they are found as one word."""
_GROUPS: Final = re.compile(r"[=\\]")
"""What parts the groups of a name, and several names."""
_NAMES: Final = re.compile(r"[\0\n=\\]")
"""The same in a text of several values."""
_NAME_PARTS: Final = 3
"""Family, given and middle name; prefix and suffix follow (PS3.5 section 6.2.1.1)."""
_DATE: Final = re.compile(r"\d{8}")
_DIGIT: Final = re.compile(r"\d")
_STRETCH: Final = re.compile(r".{1,65536}[^\W_]*", re.DOTALL)
"""What of a long text is taken apart at once, up to the end of a run: what that takes of memory has a bound."""
_MONTHS: Final = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)


def tokens(text: str) -> set[str]:
    """Give the tokens of a text, in lower case: whole runs of at least 4 letters of any script or 5 digits.

    A run of at least 6 letters and digits, 3 of them digits, such as AB1234, is a token beside those in it.
    """
    found = set()
    for run in set(_RUNS.findall(text.lower())):
        if run.isalpha() or (run.isdigit() and len(run) >= MIN_DIGITS):
            found.add(run)
        elif not run.isdigit():
            found.update(_PARTS.findall(run))
            if len(run) >= MIN_MIXED and sum(map(str.isdigit, run)) >= MIN_MIXED_DIGITS:
                found.add(run)
    return found


class Identity(NamedTuple):
    """What would tell whose an instance is."""

    tokens: frozenset[str]
    """Of names, numbers, addresses and dates that were taken away, however they are parted, joined or turned round."""
    long_names: frozenset[str]
    """Those names that are long enough to be found in the middle of a word."""
    long_numbers: frozenset[str]
    """Those numbers, also of letters and digits, that are long enough to be found in parts."""
    long_tokens: frozenset[str]
    """Those names and numbers that are no coincidence within anything."""
    foreign: frozenset[str]
    """Those names that are not of ASCII alone: in octets they may stand in any encoding."""
    octets: frozenset[bytes]
    """What is looked for where octets may be text: the names, and numbers that are no coincidence there."""


@functools.lru_cache(maxsize=8)
def identity_of(names: tuple[bytes, ...], others: tuple[bytes, ...], codec: str) -> Identity:
    """Take apart what was taken away: once for a series."""
    named, told = _named(names, codec), _text_of(others, codec)
    words, found = parted(named), parted(f"{named}\0{told}") | joined_names(named)
    found.update(order for token in [*found] for order in orders_of(token))
    bare = {token.lstrip("0") for token in found}
    found |= {token for token in bare if len(token) >= MIN_DIGITS}
    plain = filter(str.isascii, found - IN_CODES)
    return Identity(
        frozenset(found),
        frozenset(word for word in words - IN_CODES if word.isalpha() and len(word) >= MIN_WITHIN),
        frozenset(token for token in found - ORDINARY if len(token) >= MIN_MIXED and not token.isalpha()),
        frozenset(each for each in found if len(each) >= (MIN_VEILED if each.isalpha() else MIN_NUMBER_DIGITS)),
        frozenset(each for each in found if not each.isascii()),
        frozenset(each.encode() for each in plain if not each.isdigit() or len(each) >= MIN_NUMBER_DIGITS),
    )


def parted(text: str) -> set[str]:
    """Give the tokens of a text, also as they are when nothing parts them."""
    return tokens(text) | tokens(BETWEEN.sub("", text))


def orders_of(date: str) -> set[str]:
    """Give the other ways to write a date ``YYYYMMDD`` in letters and digits; none of what is no date."""
    if not _DATE.fullmatch(date):
        return set()
    year, month, day = date[:4], date[4:6], date[6:]
    try:
        dt.date(int(year), int(month), int(day))
    except ValueError:
        return set()
    orders = {date[2:], day + month + date[2:4], month + day + date[2:4]}
    name = _MONTHS[int(month) - 1]
    for d, m in ((day, month), (day.lstrip("0"), month.lstrip("0"))):
        orders |= {d + m + year, m + d + year, year + m + d}
        orders |= {each for word in (name, name[:3]) for each in (d + word + year, word + d + year)}
    return orders - {date}


def joined_names(names: str) -> set[str]:
    """Give family and given names of a text as one word, in either order, the given ones also as initials.

    Of a name without carets, ``Doe, Jane`` or ``Jane Doe``, the first or the last word is that of the family.
    """
    found = set()
    for name in _NAMES.split(names.lower()):
        if "^" in name:
            found |= _joined(*name.split("^"))
        else:
            words = BETWEEN.split(name.strip())
            found |= _joined(*words) | _joined(words[-1], *words[:-1])
    return {joined for joined in found if len(joined) >= MIN_JOINED}


def _joined(family: str, *given: str) -> set[str]:
    family, *bare = (BETWEEN.sub("", part) for part in (family, *given))
    firsts = {"".join(part[:size] for part in bare[:count]) for size in (None, 1) for count in (1, 2)} - {""}
    return {joined for first in firsts for joined in (family + first, first + family)}


def tokens_among(wanted: set[str], texts: Iterable[bytes], codec: str) -> set[str]:
    """Give those of some tokens that stand in free texts."""
    return {token for stretch in _STRETCH.finditer(_text_of(texts, codec)) for token in wanted & tokens(stretch[0])}


def _named(names: Iterable[bytes], codec: str) -> str:
    """Join names without what tells nothing, in all their spellings."""
    return spelled("\0".join(_bare_name(reading) for name in names for reading in readings(name, codec)))


def spelled(names: str) -> str:
    """Give names in lower case, a line for each way in which they are spelled in Latin letters."""
    return spellings("\0".join([names, *kana.romanized(names), *hangul.romanized(names), *hanzi.romanized(names)]))


def _bare_name(name: str) -> str:
    """Leave prefixes and suffixes out, where a name is not all that there is and no number stands in them.

    The octets of a character may be those of a caret, so a name is parted when it has been read.
    """
    groups = [group.split("^") for group in _GROUPS.split(name)]
    return "\\".join("^".join(parts if _is_more(parts) else parts[:_NAME_PARTS]) for parts in groups)


def _is_more(parts: list[str]) -> bool:
    return not any(parts[:_NAME_PARTS]) or any(_DIGIT.search(part) for part in parts[_NAME_PARTS:])


def _text_of(values: Iterable[bytes], codec: str) -> str:
    """Join values, each as it may be spelled where only ASCII can be written."""
    joined = b"\0".join(values)
    if joined.isascii() and b"\x1b" not in joined:
        return joined.decode("ascii")
    return spellings("\0".join(reading for value in joined.split(b"\0") for reading in readings(value, codec)))


IN_CODES: Final = frozenset(
    {
        *(word.decode() for word in TECHNIQUE | EQUIPMENT | UNITS | CODE_STRINGS | FURTHER_CODE_STRINGS),
        *(token for creator in SAFE_CREATORS for token in tokens(creator)),
    }
)
"""Defined terms and reviewed words: that they stand in an output says nothing, even if somebody has such a name."""
ORDINARY: Final = IN_CODES | {token for text in (*CODE_TEXTS, UNKNOWN_CODE.scheme.decode()) for token in tokens(text)}
"""What may stand in texts beside: values and meanings of PS3.16, which hold surnames and numbers of any kind."""
