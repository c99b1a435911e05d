"""The chain of a journal: each line holds a hash of itself and of all before it; no I/O.

A line is ``{"n":N,...,"link":"L"}``: a JSON object whose first member is its number, from 1, and whose last is its
*link*, SHA-256 of the link before it and of the line's own bytes up to ``,"link"``. The link before the first line is
SHA-256 of ``LABEL``. So a line that was changed, put elsewhere or left out is found by whoever has the lines; a journal
that was written anew from some line on is found by whoever kept a later link of the old one (a *checkpoint*).
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

LABEL: Final = b"mdmfs journal 1"
_LINE: Final = re.compile(rb'(\{"n":([1-9][0-9]{0,18}),.*),"link":"([0-9a-f]{64})"\}', re.DOTALL)


class Head(NamedTuple):
    """Up to where a journal goes: the number and link of its last line."""

    number: int
    link: bytes


BEGINNING: Final = Head(0, hashlib.sha256(LABEL).digest())


class Line(NamedTuple):
    """A line as it stands, believed in nothing."""

    number: int
    hashed: bytes
    """What the link covers beside the link before."""
    link: bytes

    @classmethod
    def parse(cls, octets: bytes) -> Line | None:
        """Read a line, without the newline at its end; None for what is no line of a journal."""
        match = _LINE.fullmatch(octets)
        return None if match is None else cls(int(match[2]), match[1], bytes.fromhex(match[3].decode()))

    @property
    def head(self) -> Head:
        """Where a journal is that ends with this line."""
        return Head(self.number, self.link)


def append(head: Head, body: bytes) -> tuple[bytes, Head]:
    """Chain a JSON object that is not empty to what there is; gives the line, with its newline, and the new head."""
    number = head.number + 1
    hashed = b'{"n":%d,' % number + body[1:-1]
    link = _link(head.link, hashed)
    return b'%b,"link":"%b"}\n' % (hashed, link.hex().encode()), Head(number, link)


class Kind(enum.StrEnum):
    """What is wrong with a journal."""

    ALTERED = "altered"
    """These records are not what was written, or not in its place."""
    MISSING = "missing"
    OUT_OF_ORDER = "out of order"
    """A record stands where later ones stand, or twice."""
    GARBLED = "garbled"
    """What stands after this record is no record."""
    REWRITTEN = "rewritten"
    """They fit each other, and not a checkpoint that was kept elsewhere."""
    CUT = "cut off"
    """A checkpoint tells of records that the journal does not have."""


class Fault(NamedTuple):
    """What is wrong, and where: somewhere from the first to the last of these records."""

    kind: Kind
    first: int
    last: int

    def __str__(self) -> str:
        """Say it."""
        return f"{self.kind}: record {self.first}" + (f" to {self.last}" if self.last != self.first else "")


class Verifier:
    """Follows a journal line by line, and says what is wrong; after a fault it goes on with what the next line says."""

    def __init__(self, checkpoints: Mapping[int, bytes] | None = None, head: Head = BEGINNING) -> None:
        """``checkpoints`` are links that others kept, by number; ``head`` is where to begin, if not before line 1."""
        self._checkpoints = dict(checkpoints or {})
        self.head = head
        self._vouched = head.number
        """The last record that a checkpoint fits, or 0."""

    def follow(self, octets: bytes) -> Iterator[Fault]:
        """Take the next line, without its newline; give what is wrong with it."""
        line, known = Line.parse(octets), self.head.number
        if line is None:
            yield Fault(Kind.GARBLED, known, known + 1)
            return
        if line.number <= known:
            yield Fault(Kind.OUT_OF_ORDER, line.number, line.number)
            return
        if line.number > known + 1:
            yield Fault(Kind.MISSING, known + 1, line.number - 1)
        elif not hmac.compare_digest(_link(self.head.link, line.hashed), line.link):
            yield Fault(Kind.ALTERED, max(1, known), line.number)
        self.head = line.head
        kept = self._checkpoints.get(line.number)
        if kept is None:
            return
        if kept != line.link:
            yield Fault(Kind.REWRITTEN, self._vouched + 1, line.number)
        self._vouched = line.number

    def end(self) -> Iterator[Fault]:
        """Say what is missing at the end, as far as checkpoints tell."""
        latest = max(self._checkpoints, default=0)
        if latest > self.head.number:
            yield Fault(Kind.CUT, self.head.number + 1, latest)


def _link(before: bytes, hashed: bytes) -> bytes:
    return hashlib.sha256(before + hashed).digest()
