"""Specific Character Set (0008,0005): reading identifiers and names in the repertoire that an object declares.

PS3.3 section C.12.1.1.2 defines the terms, PS3.5 section 6.1 how code extensions switch between them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from mdmfs.hospital.deid.elements import Elements
from mdmfs.hospital.deid.refusal import Reason, RefusedError

CHARACTER_SET_TAG: Final = 0x00080005

_LATIN: Final = {100: 1, 101: 2, 109: 3, 110: 4, 144: 5, 127: 6, 126: 7, 138: 8, 148: 9, 203: 15}
_CODECS: Final = {
    "": "ascii",
    "ISO_IR 6": "ascii",
    "ISO_IR 13": "shift_jis",
    "ISO_IR 166": "iso8859_11",
    "ISO_IR 192": "utf_8",
    "GB18030": "gb18030",
    "GBK": "gbk",
    **{f"ISO_IR {number}": f"iso8859_{part}" for number, part in _LATIN.items()},
}
_EXTENSIONS: Final = {
    "ISO 2022 IR 6": "ascii",
    "ISO 2022 IR 13": "shift_jis",
    "ISO 2022 IR 87": "iso2022_jp",
    "ISO 2022 IR 159": "iso2022_jp_2",
    "ISO 2022 IR 149": "euc_kr",
    "ISO 2022 IR 58": "gb2312",
    "ISO 2022 IR 166": "iso8859_11",
    **{f"ISO 2022 IR {number}": f"iso8859_{part}" for number, part in _LATIN.items()},
}
_ESCAPES: Final = {
    b"\x1b(B": "ascii",
    b"\x1b(J": "shift_jis",
    b"\x1b)I": "shift_jis",
    b"\x1b$B": "iso2022_jp",
    b"\x1b$(D": "iso2022_jp_2",
    b"\x1b$)C": "euc_kr",
    b"\x1b$)A": "gb2312",
    b"\x1b-A": "iso8859_1",
    b"\x1b-B": "iso8859_2",
    b"\x1b-C": "iso8859_3",
    b"\x1b-D": "iso8859_4",
    b"\x1b-F": "iso8859_7",
    b"\x1b-G": "iso8859_6",
    b"\x1b-H": "iso8859_8",
    b"\x1b-L": "iso8859_5",
    b"\x1b-M": "iso8859_9",
    b"\x1b-T": "iso8859_11",
    b"\x1b-b": "iso8859_15",
}
_ESCAPE: Final = re.compile(rb"(\x1b[\x20-\x2f]+[\x30-\x7e])")
_KEEPS_ESCAPE: Final = frozenset({"iso2022_jp", "iso2022_jp_2"})
_SCRIPTS: Final = (
    (0x430, "a b v g d e zh z i i k l m n o p r s t u f kh ts ch sh shch - y - e iu ia"),
    (0x450, "e e dj g e dz i i j lj nj c k i u dz"),
    (0x3B1, "a v g d e z i th i k l m n x o p r s s t u f ch ps o"),
)
"""Cyrillic and Greek from a letter on, as passports transliterate them (ICAO 9303, ISO 843), each letter by itself."""
_ONE_LETTER: Final = str.maketrans(
    {"ß": "ss", "ø": "o", "æ": "ae", "œ": "oe", "đ": "d", "ð": "d", "ł": "l", "þ": "th", "\u0131": "i"}
    | {"ħ": "h", "ŧ": "t", "ŋ": "n", "ə": "e", "\u02bb": "", "\u02bc": ""}
    | {chr(at): latin.strip("-") for first, each in _SCRIPTS for at, latin in enumerate(each.split(), first)}
)
"""Letters that are no others with an accent, apostrophes that are letters, and two other scripts."""
_TWO_LETTERS: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"})
"""How they are written where there are none, such as in code strings and names of devices."""


def codec_of(value: bytes) -> str:
    """Name the Python codec that a Specific Character Set begins with; raises for a term that is not defined."""
    terms = [term.strip(b" \0").decode("latin_1") for term in value.split(b"\\")]
    for term in terms[1:]:
        if term not in _EXTENSIONS:
            raise RefusedError(Reason.CHARACTER_SET, CHARACTER_SET_TAG)
    codec = _CODECS.get(terms[0]) or _EXTENSIONS.get(terms[0])
    if codec is None:
        raise RefusedError(Reason.CHARACTER_SET, CHARACTER_SET_TAG)
    return "ascii" if codec in _KEEPS_ESCAPE else codec


def codec_within(elements: Elements, octets: bytes, codec: str) -> str:
    """Name the codec of a data set or item: its own, or that of what it lies in (PS3.3 section C.12.1.1.2)."""
    for tag, _, start, stop, _ in elements:
        if tag >= CHARACTER_SET_TAG:
            return codec_of(octets[start:stop]) if tag == CHARACTER_SET_TAG else codec
    return codec


def decode(value: bytes, codec: str) -> str | None:
    """Decode a value, following its escape sequences (PS3.5 section 6.1.2.5.3); None where it does not decode."""
    try:
        if b"\x1b" not in value:
            return value.decode(codec)
        return "".join(_decode_parts(value, codec))
    except UnicodeDecodeError:
        return None


def readings(value: bytes, codec: str) -> list[str]:
    """Decode a value whatever it is in: many senders write names in UTF-8 or Latin 1 and declare another, or none."""
    found = dict.fromkeys(decode(value, each) for each in (codec, "utf_8"))
    return [text for text in found if text is not None] or [value.decode("latin_1")]


def in_utf_8(value: bytes, codec: str) -> list[bytes]:
    """Give what a value says in UTF-8, as which every value is also read; nothing of one in ASCII."""
    is_plain = value.isascii() and b"\x1b" not in value
    return [] if is_plain else [text.encode() for text in readings(value, codec)]


def without_accents(text: str) -> str:
    """Leave out what stands above and below letters."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))


def spellings(text: str) -> str:
    """Give a text in lower case, each way in which it may be spelled where only ASCII can be written a line."""
    lower = text.lower()
    if lower.isascii():
        return lower
    replaced = unicodedata.normalize("NFKC", lower).translate(_TWO_LETTERS)
    return "\n".join([lower, *(without_accents(each).translate(_ONE_LETTER) for each in (lower, replaced))])


def _decode_parts(value: bytes, codec: str) -> list[str]:
    first, *switches = _ESCAPE.split(value)
    parts = [first.decode(codec)]
    for escape, part in zip(switches[::2], switches[1::2], strict=True):
        switched = _ESCAPES.get(escape, "ascii")
        parts.append((escape + part if switched in _KEEPS_ESCAPE else part).decode(switched))
    return parts
