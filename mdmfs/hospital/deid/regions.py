"""Clean Pixel Data by rules (PS3.15 E.3.1): which rectangles of which machine's images are blanked, as they pass.

A rule is somebody's review of what a machine writes into its pictures. Nothing looks for text.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import operator
import re
from typing import Final

from mdmfs.hospital.deid.elements import Elements
from mdmfs.hospital.deid.header import NATIVE_SYNTAXES, IdentifiedHeader
from mdmfs.hospital.deid.policy import Kind, Policy, Rectangle, RegionRule
from mdmfs.hospital.deid.refusal import Reason, RefusedError

_MANUFACTURER: Final = 0x00080070
_MODEL: Final = 0x00081090
_ULTRASOUND_REGIONS: Final = 0x00186011
_CORNERS: Final = (0x00186018, 0x0018601A, 0x0018601C, 0x0018601E)
"""Region Location Min X0, Min Y0, Max X1, Max Y1."""
_SAMPLES: Final = 0x00280002
_PLANAR: Final = 0x00280006
_ROWS: Final = 0x00280010
_COLUMNS: Final = 0x00280011
_BITS_ALLOCATED: Final = 0x00280100
_INTEGER_PIXELS: Final = 0x7FE00010
_BYTE: Final = 8
_RUN: Final = re.compile(b"\x01+")
_STOP: Final = operator.itemgetter(1)


def region_rule(header: IdentifiedHeader, policy: Policy) -> RegionRule | None:
    """Find the first rule of a policy that fits an instance."""
    return next((rule for rule in policy.regions if _fits(rule.kind, header)), None)


def is_reviewed(header: IdentifiedHeader, policy: Policy) -> bool:
    """Tell whether people have looked at a sample of such instances, as the policy records."""
    return any(_fits(review.kind, header) for review in policy.reviews)


def _fits(kind: Kind, header: IdentifiedHeader) -> bool:
    if kind.sop_class != header.sop_class:
        return False
    asked = [
        (_squeezed(kind.manufacturer), _squeezed(header.raw(_MANUFACTURER))),
        (_squeezed(kind.model), _squeezed(header.raw(_MODEL))),
        (kind.rows, header.number(_ROWS)),
        (kind.columns, header.number(_COLUMNS)),
    ]
    return all(not want or want == seen for want, seen in asked)


@dataclasses.dataclass(frozen=True, slots=True)
class _Layout:
    """How the pixels of one frame lie."""

    rows: int
    columns: int
    cell: int
    """Bytes of one pixel in one plane."""
    planes: int

    @property
    def size(self) -> int:
        """Bytes of a frame."""
        return self.rows * self.columns * self.cell * self.planes


class Blanking:
    """Blanks the same places of frame after frame; holds a copy of the piece that it was given, and no more."""

    def __init__(self, size: int, runs: list[tuple[int, int]]) -> None:
        """Begin with the bytes of a frame, and which of them are blanked, in order."""
        self._size: Final = size
        self._runs: Final = runs
        self._position = 0

    def blank(self, data: memoryview) -> bytearray:
        """Give the next bytes with what is blanked in them set to zero."""
        out = bytearray(data)
        start = -self._position
        while start < len(out):
            for first, stop in self._runs[bisect.bisect_right(self._runs, -start, key=_STOP) :]:
                if start + first >= len(out):
                    break
                begin, end = max(0, start + first), min(len(out), start + stop)
                out[begin:end] = bytes(end - begin)
            start += self._size
        self._position = (self._position + len(out)) % self._size
        return out


def open_blanking(header: IdentifiedHeader, rule: RegionRule) -> Blanking:
    """Begin to blank an instance, of which compressed frames are decoded before; raises if there is nothing to keep."""
    if header.pixels is None or header.pixels[0] != _INTEGER_PIXELS:
        raise RefusedError(Reason.PIXEL_LENGTH)
    layout = _layout(header)
    marks = [(rectangle, 1) for rectangle in rule.blank]
    if rule.keep_ultrasound:
        whole = Rectangle(0, 0, layout.columns, layout.rows)
        marks = [(whole, 1), *((kept, 0) for kept in _ultrasound_regions(header)), *marks]
    return Blanking(layout.size, _runs(marks, layout))


def _layout(header: IdentifiedHeader) -> _Layout:
    samples, allocated = header.number(_SAMPLES), header.number(_BITS_ALLOCATED)
    rows, columns = header.number(_ROWS), header.number(_COLUMNS)
    if allocated % _BYTE or not (samples and allocated and rows and columns):
        raise RefusedError(Reason.PIXEL_LENGTH, _BITS_ALLOCATED)
    if header.number(_PLANAR) and header.transfer_syntax in NATIVE_SYNTAXES:
        return _Layout(rows, columns, allocated // _BYTE, samples)
    return _Layout(rows, columns, samples * allocated // _BYTE, 1)


def _ultrasound_regions(header: IdentifiedHeader) -> list[Rectangle]:
    element = header.by_tag.get(_ULTRASOUND_REGIONS)
    items: list[Elements] = (element[4] if element is not None else None) or []
    regions = []
    for item in items:
        values = {tag: int.from_bytes(header.whole[start:stop], "little") for tag, _, start, stop, _ in item}
        left, top, right, bottom = (values.get(tag, -1) for tag in _CORNERS)
        if not (0 <= left <= right and 0 <= top <= bottom):
            raise RefusedError(Reason.NO_REGION, _ULTRASOUND_REGIONS)
        regions.append(Rectangle(left, top, right - left + 1, bottom - top + 1))
    if not regions:
        raise RefusedError(Reason.NO_REGION, _ULTRASOUND_REGIONS)
    return regions


def _runs(marks: list[tuple[Rectangle, int]], layout: _Layout) -> list[tuple[int, int]]:
    """List what is blanked of one frame, by bytes; neighbours are one run. Later marks count more."""
    edges = {0, layout.rows}
    for rectangle, _ in marks:
        edges |= {min(rectangle.y, layout.rows), min(rectangle.y + rectangle.height, layout.rows)}
    pixels: list[tuple[int, int]] = []
    for first, stop in itertools.pairwise(sorted(edges)):
        in_row = _runs_in_row(marks, first, layout.columns)
        for row in range(first * layout.columns, stop * layout.columns, layout.columns):
            for left, right in in_row:
                if pixels and pixels[-1][1] == row + left:
                    pixels[-1] = pixels[-1][0], row + right
                else:
                    pixels.append((row + left, row + right))
    planes = range(0, layout.size, layout.rows * layout.columns * layout.cell)
    return [(plane + start * layout.cell, plane + stop * layout.cell) for plane in planes for start, stop in pixels]


def _runs_in_row(marks: list[tuple[Rectangle, int]], row: int, columns: int) -> list[tuple[int, int]]:
    blanked = bytearray(columns)
    for rectangle, mark in marks:
        if rectangle.y <= row < rectangle.y + rectangle.height:
            stop = min(columns, rectangle.x + rectangle.width)
            blanked[rectangle.x : stop] = bytes([mark]) * max(0, stop - rectangle.x)
    return [match.span() for match in _RUN.finditer(blanked)]


def _squeezed(text: str) -> str:
    return " ".join(text.split()).lower()
