"""Coded concepts: a code is kept if PS3.16 lists it, with the meaning that the table gives; all others are replaced."""

from __future__ import annotations

from typing import Final, NamedTuple

from mdmfs.hospital.deid.tables import codes

LEGACY_SCHEMES: Final = ("SRT", "SNM3", "99SDM")
"""How objects named SNOMED-RT before SNOMED CT (PS3.16 section 8.1)."""


class Code(NamedTuple):
    """A coded concept: Code Value, Coding Scheme Designator, Code Meaning."""

    value: bytes
    scheme: bytes
    meaning: bytes


UNKNOWN_CODE: Final = Code(b"REMOVED", b"99MDMFS", b"Removed")
"""Stands where a code was that is not in the table; 99 marks a private scheme (PS3.3 section 8.2)."""


def _read() -> dict[tuple[bytes, bytes], Code]:
    found = {}
    for line in codes.CODES.splitlines():
        scheme, value, meaning = line.encode().split(b" ", 2)
        found[scheme, value] = Code(value, scheme, meaning)
    for pair in codes.LEGACY.encode().split():
        old, new = pair.split(b"=")
        for name in LEGACY_SCHEMES:
            found[name.encode(), old] = Code(old, name.encode(), found[b"SCT", new].meaning)
    return found


_CODES: Final = _read()
_SCHEMES: Final = frozenset(scheme for scheme, _ in _CODES)


def known_code(scheme: bytes, value: bytes) -> Code:
    """Give the code of the table, or the one that stands for all that are not in it."""
    return _CODES.get((scheme, value), UNKNOWN_CODE)


def known_scheme(scheme: bytes) -> bytes:
    """Give a scheme's designator if codes of it can be kept."""
    return scheme if scheme in _SCHEMES else UNKNOWN_CODE.scheme


CODE_TEXTS: Final = frozenset(text.decode() for code in _CODES.values() for text in (code.value, code.meaning))
"""All values and meanings of the table."""
