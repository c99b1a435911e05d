"""Tokens: the parts of a value that would give somebody away if they stood elsewhere."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Final

from mdmfs.hospital.deid.charsets import read, spellings
from mdmfs.hospital.deid.codes import CODE_TEXTS, UNKNOWN_CODE
from mdmfs.hospital.deid.profile import SAFE_CREATORS
from mdmfs.hospital.deid.terms import CODE_STRINGS, EQUIPMENT, TECHNIQUE, UNITS
from mdmfs.hospital.deid.walk import Trace, Traces

MIN_LETTERS: Final = 4
_RUNS: Final = re.compile(rf"[^\W_]{{{MIN_LETTERS},}}")
BETWEEN: Final = re.compile(r"[ '\u2019.,/_-]+")
"""What may part a name or a number, or not."""
_PARTS: Final = re.compile(r"[^\W\d_]{4,}|\d{5,}")
MIN_DIGITS: Final = 5
MIN_MIXED: Final = 6
MIN_MIXED_DIGITS: Final = 3
_GROUPS: Final = re.compile(rb"[=\\]")
"""What parts the groups of a name, and several names."""
_NAME_PARTS: Final = 3
"""Family, given and middle name; prefix and suffix follow (PS3.5 section 6.2.1.1)."""


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


def identity_tokens(traces: Traces) -> frozenset[str]:
    """Give the tokens of names, numbers, addresses and dates that were taken away, however they are parted.

    Of numbers also those without the zeros before them.
    """
    return _identity_tokens(tuple(traces.values(Trace.NAME)), tuple(traces.values(Trace.IDENTITY)), traces.codec)


@functools.lru_cache(maxsize=8)
def _identity_tokens(names: tuple[bytes, ...], others: tuple[bytes, ...], codec: str) -> frozenset[str]:
    """Take them apart, once for a series."""
    text = _text_of([*map(_bare_name, names), *others], codec)
    found = tokens(text) | tokens(BETWEEN.sub("", text))
    return frozenset(found | {bare for bare in (token.lstrip("0") for token in found) if len(bare) >= MIN_DIGITS})


def description_tokens(traces: Traces) -> set[str]:
    """Give the tokens of free text that was taken away."""
    return tokens(_text_of(traces.values(Trace.DESCRIPTION), traces.codec))


def _bare_name(name: bytes) -> bytes:
    return b"\\".join(b"^".join(group.split(b"^")[:_NAME_PARTS]) for group in _GROUPS.split(name))


def _text_of(values: Iterable[bytes], codec: str) -> str:
    """Join values, each as it may be spelled where only ASCII can be written."""
    joined = b"\0".join(values)
    if joined.isascii() and b"\x1b" not in joined:
        return joined.decode("ascii")
    return spellings("\0".join(read(value, codec) for value in joined.split(b"\0")))


ORDINARY: Final = frozenset(
    {
        *(word.decode() for word in TECHNIQUE | EQUIPMENT | UNITS | CODE_STRINGS),
        *(token for creator in SAFE_CREATORS for token in tokens(creator)),
        *(token for text in CODE_TEXTS for token in tokens(text)),
        *tokens(UNKNOWN_CODE.value.decode()),
    }
)
"""Defined terms and reviewed words: that they stand in an output says nothing, even if somebody has such a name."""
