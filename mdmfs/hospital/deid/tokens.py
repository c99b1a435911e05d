"""Tokens: the parts of a value that would give somebody away if they stood elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from mdmfs.hospital.deid.charsets import decode
from mdmfs.hospital.deid.codes import CODE_TEXTS, UNKNOWN_CODE
from mdmfs.hospital.deid.profile import SAFE_CREATORS
from mdmfs.hospital.deid.terms import CODE_STRINGS, EQUIPMENT, TECHNIQUE, UNITS
from mdmfs.hospital.deid.walk import Trace, Traces

_RUNS: Final = re.compile(r"[^\W_]{4,}")
_PARTS: Final = re.compile(r"[^\W\d_]{4,}|\d{5,}")
MIN_DIGITS: Final = 5
MIN_MIXED: Final = 6
MIN_MIXED_DIGITS: Final = 3
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


def identity_tokens(traces: Traces) -> set[str]:
    """Give the tokens of names, numbers, addresses and dates that were taken away."""
    names = (_bare_name(name) for name in traces.values(Trace.NAME))
    return _tokens_of([*names, *traces.values(Trace.IDENTITY)], traces.codec)


def description_tokens(traces: Traces) -> set[str]:
    """Give the tokens of free text that was taken away."""
    return _tokens_of(traces.values(Trace.DESCRIPTION), traces.codec)


def _bare_name(name: bytes) -> bytes:
    return b"=".join(b"^".join(group.split(b"^")[:_NAME_PARTS]) for group in name.split(b"="))


def _tokens_of(values: Iterable[bytes], codec: str) -> set[str]:
    joined = b"\0".join(values)
    if joined.isascii() and b"\x1b" not in joined:
        return tokens(joined.decode("ascii"))
    texts = [decode(value, codec) or value.decode("latin_1") for value in joined.split(b"\0")]
    return tokens("\0".join(texts))


ORDINARY: Final = frozenset(
    {
        *(word.decode() for word in TECHNIQUE | EQUIPMENT | UNITS | CODE_STRINGS),
        *(token for creator in SAFE_CREATORS for token in tokens(creator)),
        *(token for text in CODE_TEXTS for token in tokens(text)),
        *tokens(UNKNOWN_CODE.value.decode()),
    }
)
"""Defined terms and reviewed words: that they stand in an output says nothing, even if somebody has such a name."""
