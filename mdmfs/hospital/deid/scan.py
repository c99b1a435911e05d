"""Finding the end of a header in bytes that arrive in pieces: one pass, whatever the pieces."""

from __future__ import annotations

from typing import Final

from mdmfs.hospital.deid.elements import (
    ITEM,
    ITEM_END,
    MAX_DEPTH,
    PIXELS,
    SEQUENCE_END,
    SHORT_VRS,
    UNDEFINED,
    Elements,
    Head,
    Octets,
    ReadHead,
    read_delimiter,
    read_explicit_head,
    undefined_encoding,
    unpack_short_head,
)
from mdmfs.hospital.deid.refusal import Reason, RefusedError

FIRST_TAG: Final = 0x00080000
"""Below stand commands, file meta information and directories, none of which belongs in a data set."""
DIRECTORY_GROUP: Final = 0x0004
SMALLEST: Final = 8
"""Bytes of the shortest element, item or delimiter."""
ITEM_END_OCTETS: Final = b"\xfe\xff\x0d\xe0"


_MAY_NEST: Final = frozenset({b"SQ", b"UN"})


class Scanner:
    """Lists the top level of a data set up to Pixel Data; what lies in sequences is stepped over, not read."""

    def __init__(self, read_head: ReadHead) -> None:
        self.elements: Elements = []
        """What was found so far, the last one perhaps not yet whole; sequences have no items yet."""
        self.nesting: list[int] = []
        """Which of them are sequences, or may be, by their place in the list."""
        self.pixels: Head | None = None
        """The head of Pixel Data, once it was reached."""
        self.position = 0
        """Where the next element begins, perhaps beyond what is there; in the end, the value of Pixel Data."""
        self._read_head = read_head
        self._short_vrs = SHORT_VRS if read_head is read_explicit_head else frozenset()
        self._previous = -1
        self._open: list[tuple[bool, ReadHead]] = []
        """What of undefined length is open, innermost last: whether it is an item, and how elements in it are read."""

    def advance(self, octets: Octets) -> bool:
        """Go as far as the bytes reach; True when the head of Pixel Data was read."""
        limit = len(octets)
        while self.pixels is None and limit - self.position >= SMALLEST:
            if not (self._step_inside if self._open else self._walk)(octets, limit):
                return False
        return self.pixels is not None

    def finish(self, octets: Octets) -> None:
        """Say that no more bytes come; raises unless an element has just ended."""
        if self._open or (self.pixels is None and self.position != len(octets)):
            raise RefusedError(Reason.TRUNCATED)

    def _walk(self, octets: Octets, limit: int) -> bool:
        """Go over elements of the top level until one of undefined length, Pixel Data, or the end of what is there."""
        position, previous, read_head, found = self.position, self._previous, self._read_head, self.elements.append
        short_vrs, last = self._short_vrs, limit - SMALLEST
        is_short = False
        while position <= last:
            group, number, vr, length = unpack_short_head(octets, position)
            if vr in short_vrs:  # nearly all are, and a call for each is dear
                tag, start = group << 16 | number, position + SMALLEST
            else:
                head = read_head(octets, position, limit)
                if head is None:
                    is_short = True
                    break
                tag, vr, length, start = head
                if vr in _MAY_NEST and tag not in PIXELS:
                    self.nesting.append(len(self.elements))
            if tag <= previous or (tag < FIRST_TAG and tag >> 16 != DIRECTORY_GROUP):
                raise RefusedError(Reason.MALFORMED, tag)
            previous = tag
            if length & 1 or tag in PIXELS:
                if length != UNDEFINED and tag not in PIXELS:
                    raise RefusedError(Reason.MALFORMED, tag)
                self._stop_at((tag, vr, length, start))
                position = start
                break
            position = start + length
            found((tag, vr, start, position, None))
        self.position, self._previous = position, previous
        return not is_short

    def _stop_at(self, head: Head) -> None:
        tag, vr, _, start = head
        if tag in PIXELS:
            self.pixels = head
        else:
            self._open.append((False, undefined_encoding(tag, vr, self._read_head)))
            if not vr:
                self.nesting.append(len(self.elements))
            self.elements.append((tag, vr or b"SQ", start, start, None))

    def _step_inside(self, octets: Octets, limit: int) -> bool:
        """Step over an item, an element or a delimiter inside a value of undefined length."""
        is_item, read_head = self._open[-1]
        if not is_item or octets[self.position : self.position + 4] == ITEM_END_OCTETS:
            self._step_delimiter(octets, limit)
            return True
        head = read_head(octets, self.position, limit)
        if head is None:
            return False
        tag, vr, length, start = head
        self.position = start
        if length == UNDEFINED:
            self._enter(undefined_encoding(tag, vr, read_head), is_item=False)
        else:
            self.position += length
        return True

    def _step_delimiter(self, octets: Octets, limit: int) -> None:
        is_item, read_head = self._open[-1]
        tag, length = read_delimiter(octets, self.position, limit)
        self.position += SMALLEST
        if tag == ITEM and not is_item:
            if length == UNDEFINED:
                self._enter(read_head, is_item=True)
            else:
                self.position += length
        elif tag == (ITEM_END if is_item else SEQUENCE_END):
            self._leave()
        else:
            raise RefusedError(Reason.MALFORMED, tag)

    def _enter(self, read_head: ReadHead, *, is_item: bool) -> None:
        if len(self._open) > 2 * MAX_DEPTH:
            raise RefusedError(Reason.TOO_DEEP)
        self._open.append((is_item, read_head))

    def _leave(self) -> None:
        self._open.pop()
        if not self._open:
            tag, vr, start, _, items = self.elements[-1]
            self.elements[-1] = tag, vr, start, self.position - SMALLEST, items
