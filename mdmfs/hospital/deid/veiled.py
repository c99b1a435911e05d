"""Texts that are written in letters and digits of hex, base32 or base64 (RFC 4648): what programs make of octets."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Final

from mdmfs.hospital.deid.tokens import ORDINARY

_HEX: Final = re.compile(rb"[0-9A-Fa-f](?:[ :.-]?[0-9A-Fa-f]){7,}")
"""From four letters on, as the search for residue has it; a dump parts digits."""
_PARTING: Final = b" :.-"
_BASE_64: Final = re.compile(rb"[0-9A-Za-z+/_-]{6,}")
_USUAL: Final = bytes.maketrans(b"-_", b"+/")
_BASE_32: Final = re.compile(rb"[A-Z2-7]{7,}|[a-z2-7]{7,}")
_DIGITS_OF_32: Final = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789ABCDEFGHIJKLMNOPQRSTUV")
"""As ``int`` has them."""
_DIGITS: Final = b"0123456789"
_ORDINARY: Final = frozenset(word.encode() for word in ORDINARY)
_PLAIN: Final = re.compile(rb"(?:[ -~]|[\xc3-\xf4][\x80-\xbf]{1,3}){4,}")
"""ASCII, and what is probably UTF-8."""
SLICE: Final = 2**18
"""Bytes that are decoded at once, which takes up to 36 MiB of memory however long a table is."""
_OVERLAP: Final = 2**10
"""Bytes that stand in two slices: 64 letters of 16 bits in hex, and what parts their digits."""


def sliced(octets: bytes) -> Iterator[bytes]:
    """Cut octets so that what is written in them stands whole in one of the slices."""
    return (octets[start : start + SLICE + _OVERLAP] for start in range(0, len(octets) or 1, SLICE))


def unveiled_octets(octets: bytes) -> bytes:
    """Give what runs of such letters and digits stand for, whatever that is."""
    return b"\0".join(_decoded(octets))


def unveiled(octets: bytes) -> str:
    """Give what runs of such letters and digits stand for, wherever in the run it begins, in lower case.

    Letters, and what they stand for, may have a zero behind each. Ordinary words stand for themselves. What stands
    before and behind in the same run may have become letters, too.
    """
    readings = {octets, octets.replace(b"\0", b"")}
    decoded = [text.replace(b"\0", b"") for reading in readings for text in _decoded(reading)]
    return b"\0".join(_PLAIN.findall(b"\0".join(decoded))).decode("utf-8", "replace").lower()


def _decoded(octets: bytes) -> Iterator[bytes]:
    """Decode all runs at once, with ones between them in every bit, which are no text."""
    hexadecimal = b"ffff".join(run.translate(None, _PARTING) for run in _HEX.findall(octets))
    for start in range(2 if hexadecimal else 0):
        yield bytes.fromhex(_filled(hexadecimal[start:], 2, b"f").decode())
    runs = [run for run in _BASE_64.findall(octets) if run.rstrip(_DIGITS).lower() not in _ORDINARY]
    joined = b"////////".join(runs).translate(_USUAL)
    for start in range(4 if joined else 0):
        yield base64.b64decode(_filled(joined[start:], 4, b"/"))
    digits = b"77777777".join(_BASE_32.findall(b" ".join(runs))).upper().translate(_DIGITS_OF_32)
    number = int(digits or b"0", 32)
    for shift in range(8 if digits else 0):
        yield (number >> shift).to_bytes(len(digits), "big")


def _filled(run: bytes, size: int, ones: bytes) -> bytes:
    return run + ones * (-len(run) % size)
