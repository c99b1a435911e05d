"""Segments of codestreams: what each consists of, so that nothing stands in one that no decoder reads.

After ISO/IEC 10918-1 B.2 (JPEG), 14495-1 C.2 (JPEG-LS), 15444-1 Annex A (JPEG 2000), 15444-2 A.3 (its second part) and
15444-15 Annex A (high throughput). Contents begin behind the length.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import Final, NamedTuple


class Form(enum.Enum):
    """How the streams of a transfer syntax are written."""

    JPEG = "jpeg"
    JPEG_LS = "jpeg-ls"
    JPEG_2000 = "jpeg-2000"
    RLE = "rle"


class Picture(NamedTuple):
    """What the header says of each frame."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int


class Segment(NamedTuple):
    """A segment with a length: what of its content stays."""

    fits: Callable[[bytes, Picture], bool] | None = None
    """Tells of the whole content whether it is one; such a content stays, and is searched."""
    name: bytes = b""
    """What other contents begin with; from the first byte on that is another one, all is blanked."""
    keeps: int = 0
    """How many bytes of those stay."""


BLANKED: Final = Segment()
SCAN: Final = 0xDA
TILE: Final = 0x90
_FRAME: Final = struct.Struct(">BHHB")
"""Precision, lines, samples per line, components; 3 bytes for each of these follow."""
_MAX_SCANNED: Final = 4
_COUNTS: Final = 16
_TABLE_OF: Final = 0x13
"""Bits of what names a Huffman table: its class, and one of four."""
_AC: Final = 0x10
_LONGEST: Final = 16
"""Bits of a difference in lossless JPEG."""
_SIZE: Final = struct.Struct(">HIIIIIIIIH")
"""Capabilities; size and offset of the picture, size and offset of tiles, in x and y; components, 3 bytes for each."""
_NO_SIGN: Final = 0x7F
_COD: Final = 10
_COC: Final = 7
_MAX_LEVELS: Final = 32
_MAX_BANDS: Final = 3 * _MAX_LEVELS + 1
_LS_PARAMETERS: Final = 11


def _is_frame(content: bytes, picture: Picture) -> bool:
    """SOF; a height of 0 is told by DNL."""
    if len(content) < _FRAME.size:
        return False
    bits, rows, columns, components = _FRAME.unpack_from(content)
    is_of_size = columns == picture.columns and rows in {0, picture.rows} and components == picture.samples
    return is_of_size and bits <= picture.bits_allocated and len(content) == _FRAME.size + 3 * components


def _is_height(content: bytes, picture: Picture) -> bool:
    """DNL: a decoder that knows it believes it."""
    return len(content) == 2 and int.from_bytes(content, "big") == picture.rows  # noqa: PLR2004 - bytes


def _is_scan(content: bytes, _picture: Picture) -> bool:
    return len(content) > 0 and 0 < content[0] <= _MAX_SCANNED and len(content) == 2 * content[0] + 4


def _are_huffman_tables(content: bytes, _picture: Picture) -> bool:
    """DHT: a value stands in a table once, and there is a code for it."""
    while content:
        which, counts = content[0], content[1 : 1 + _COUNTS]
        values = content[1 + _COUNTS : 1 + _COUNTS + sum(counts)]
        taken = sum(count << _COUNTS - length for length, count in enumerate(counts, 1))
        is_whole = len(counts) == _COUNTS and len(values) == sum(counts) == len(set(values))
        is_possible = which | _TABLE_OF == _TABLE_OF and taken <= 1 << _COUNTS
        if not is_whole or not is_possible or (which < _AC and max(values, default=0) > _LONGEST):
            return False
        content = content[1 + _COUNTS + len(values) :]
    return True


def _are_quantizations(content: bytes, _picture: Picture) -> bool:
    """DQT: 64 numbers of 8 or 16 bits in each table."""
    while content:
        which, size = content[0], 128 if content[0] & _AC else 64
        if which | _TABLE_OF != _TABLE_OF or len(content) <= size:
            return False
        content = content[1 + size :]
    return True


def _is_size(content: bytes, picture: Picture) -> bool:
    if len(content) < _SIZE.size:
        return False
    _, width, height, left, top, _, _, _, _, components = _SIZE.unpack_from(content)
    is_of_size = (width - left, height - top, components) == (picture.columns, picture.rows, picture.samples)
    bits = [(each & _NO_SIGN) + 1 for each in content[_SIZE.size :: 3]]
    is_whole = len(content) == _SIZE.size + 3 * components and components > 0
    return is_of_size and is_whole and max(bits) <= picture.bits_allocated


def _has_precincts(content: bytes, fixed: int, style: int, levels: int) -> bool:
    """Tell whether a byte for each resolution follows where a style says so, and nothing else."""
    if len(content) < fixed or content[levels] > _MAX_LEVELS:
        return False
    return len(content) == fixed + (content[levels] + 1 if content[style] & 1 else 0)


def _is_quantization(content: bytes, _picture: Picture) -> bool:
    """QCD: a byte for each band, two bytes for all, or two for each."""
    bands = len(content) - 1
    match content[0] & 0x1F if content else -1:
        case 0:
            return 0 < bands <= _MAX_BANDS
        case 1:
            return bands == 2  # noqa: PLR2004 - two bytes
        case 2:
            return bands % 2 == 0 and 0 < bands <= 2 * _MAX_BANDS
        case _:
            return False


def _are_lengths(content: bytes, _picture: Picture) -> bool:
    """TLM: for each tile part its tile, of 0 to 2 bytes, and its length, of 2 or 4."""
    if len(content) < 2:  # noqa: PLR2004 - its own two bytes
        return False
    of_tile, is_long = content[1] >> 4 & 3, content[1] >> 6 & 1
    return of_tile <= 2 and (len(content) - 2) % (of_tile + (4 if is_long else 2)) == 0  # noqa: PLR2004 - bytes


def _is_anything(_content: bytes, _picture: Picture) -> bool:
    """Headers and lengths of packets, and transforms: coded data."""
    return True


def _of(*sizes: int) -> Segment:
    """Make a segment of a fixed size."""
    return Segment(lambda content, _: len(content) in sizes)


_CODED: Final = Segment(_is_anything)
_OF_JPEG: Final = {
    **dict.fromkeys(range(0xE0, 0xF0), BLANKED),
    0xE0: Segment(None, b"JFIF\0", 14),
    0xEE: Segment(None, b"Adobe", 12),
    0xFE: BLANKED,
    SCAN: Segment(_is_scan),
    0xDC: Segment(_is_height),
}
SEGMENTS: Final = {
    Form.JPEG: {
        **dict.fromkeys((*range(0xC0, 0xC4), *range(0xC5, 0xCC), 0xCD, 0xCE, 0xCF), Segment(_is_frame)),
        **_OF_JPEG,
        0xC4: Segment(_are_huffman_tables),
        0xCC: Segment(lambda content, _: len(content) % 2 == 0),  # DAC: which, and what
        0xDB: Segment(_are_quantizations),
        0xDD: _of(2),  # DRI
    },
    Form.JPEG_LS: {
        **_OF_JPEG,
        0xDD: _of(2, 3, 4),
        0xF7: Segment(_is_frame),
        # LSE: of its kinds, mapping tables and pictures of more than 65535 lines are none of DICOM
        0xF8: Segment(lambda content, _: len(content) == _LS_PARAMETERS and content[0] == 1),
    },
    Form.JPEG_2000: {
        0x50: Segment(lambda it, _: len(it) == 4 + 2 * int.from_bytes(it[:4], "big").bit_count()),  # CAP
        0x51: Segment(_is_size),
        0x52: Segment(lambda content, _: _has_precincts(content, _COD, style=0, levels=5)),
        0x53: Segment(lambda content, _: _has_precincts(content, _COC, style=1, levels=2)),
        0x55: Segment(_are_lengths),
        **dict.fromkeys((0x57, 0x58, 0x60, 0x61), _CODED),  # PLM PLT PPM PPT
        0x59: Segment(lambda content, _: len(content) % 2 == 0),  # CPF
        0x5C: Segment(_is_quantization),
        0x5D: Segment(lambda content, picture: _is_quantization(content[1:], picture)),
        0x5E: _of(3),  # RGN
        0x5F: Segment(lambda content, _: len(content) % 7 == 0),  # POC
        0x63: Segment(lambda content, picture: len(content) == 4 * picture.samples),  # CRG
        0x64: BLANKED,
        **dict.fromkeys((0x74, 0x75, 0x77, 0x78), _CODED),  # MCT MCC MCO CBD
        TILE: _of(8),
    },
}
"""By form and the second byte of the marker."""
