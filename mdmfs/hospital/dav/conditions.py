"""Ranges and conditions of a GET (RFC 9110 sections 13 and 14.2), as values. Pure.

Each sealing has a salt of its own, which is its entity tag: bytes of two sealings never belong together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

_RANGE: Final = re.compile(r"bytes=(?P<first>[0-9]{0,18})-(?P<last>[0-9]{0,18})")
_TAG: Final = re.compile(r'(?P<weak>W/)?"(?P<opaque>[^"]*)"')


class Part(NamedTuple):
    """The bytes from ``begin`` to before ``end``."""

    begin: int
    end: int


class Unsatisfiable(NamedTuple):
    """A range that begins behind the end."""


def part_of(headers: Mapping[str, str], tag: str, length: int) -> Part | Unsatisfiable | None:
    """Give the part that is asked for; None for the whole.

    A server may ignore a range (section 14.2): so are several at once, malformed ones, and one whose ``If-Range`` names
    another sealing.
    """
    match = _RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if match is None or not (match["first"] or match["last"]):
        return None
    if "if-range" in headers and headers["if-range"] != f'"{tag}"':
        return None
    if not match["first"]:
        return Part(max(length - int(match["last"]), 0), length) if int(match["last"]) else Unsatisfiable()
    begin, end = int(match["first"]), int(match["last"]) + 1 if match["last"] else length
    if match["last"] and end <= begin:
        return None
    return Part(begin, min(end, length)) if begin < length else Unsatisfiable()


def fails_match(headers: Mapping[str, str], tag: str) -> bool:
    """Whether ``If-Match`` asks for another sealing; an empty ``tag`` stands for one that is still to be made."""
    return "if-match" in headers and not _names(headers["if-match"], tag, takes_weak=False)


def is_known(headers: Mapping[str, str], tag: str) -> bool:
    """Whether ``If-None-Match`` says that the caller has this sealing already."""
    return "if-none-match" in headers and _names(headers["if-none-match"], tag, takes_weak=True)


def _names(value: str, tag: str, *, takes_weak: bool) -> bool:
    if value.strip() == "*":
        return True
    return any(it["opaque"] == tag and (takes_weak or not it["weak"]) for it in _TAG.finditer(value)) and bool(tag)
