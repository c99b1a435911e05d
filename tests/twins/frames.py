"""Compressed frames written by hand: JPEG, JPEG-LS, JPEG 2000 and RLE streams with whatever segments a test wants."""

from __future__ import annotations

import io
import struct
from typing import Final

import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from mdmfs.hospital.deid.encode import encode, head
from tests.twins.deidentified import elements_of_example, part10

JPEG: Final = "1.2.840.10008.1.2.4.70"
JPEG_LS: Final = "1.2.840.10008.1.2.4.80"
JPEG_2000: Final = "1.2.840.10008.1.2.4.90"
HTJ2K: Final = "1.2.840.10008.1.2.4.201"
RLE: Final = "1.2.840.10008.1.2.5"

ITEM: Final = b"\xfe\xff\x00\xe0"
SEQUENCE_END: Final = b"\xfe\xff\xdd\xe0\0\0\0\0"
CODED: Final = b"\x12\xff\x00\x34\xff\xd0\x56\xff\x00"
"""Coded data of JPEG with stuffing and a restart marker."""
CODED_LS: Final = b"\x12\xff\x7f\x34\xff\x00\x56"
"""Coded data of JPEG-LS, where a 0 bit is stuffed."""
END: Final = b"\xff\xd9"


def segment(code: int, content: bytes) -> bytes:
    """Write a marker with a length and its content."""
    return bytes([0xFF, code]) + struct.pack(">H", len(content) + 2) + content


def jpeg(*segments: bytes, bits: int = 16, coded: bytes = CODED, frame: int = 0xC3) -> bytes:
    """Write a JPEG stream of one component, without its end marker, with segments in front."""
    return b"".join(
        [
            b"\xff\xd8",
            *segments,
            segment(frame, bytes([bits, 0, 4, 0, 4, 1, 1, 0x11, 0])),
            segment(0xDA, b"\1\1\0\1\0\0"),
            coded,
        ]
    )


def jpeg_2000(*segments: bytes, in_tile: bytes = b"", body: bytes = b"\xff\x64\x00\x04body", bits: int = 16) -> bytes:
    """Write a JPEG 2000 stream of one tile part, without its end marker, with segments in its headers."""
    size = struct.pack(">HIIIIIIIIH", 0, 4, 4, 0, 0, 4, 4, 0, 0, 1) + bytes([bits - 1, 1, 1])
    length = 12 + len(in_tile) + 2 + len(body)
    tile = segment(0x90, struct.pack(">HIBB", 0, length, 0, 1)) + in_tile + b"\xff\x93" + body
    return b"\xff\x4f" + segment(0x51, size) + b"".join(segments) + tile


def rle(*segments: bytes) -> bytes:
    """Write a frame of RLE Lossless from its segments."""
    place, offsets = 64, []
    for one in segments:
        offsets.append(place)
        place += len(one)
    numbers = [len(segments), *offsets]
    return struct.pack("<16I", *numbers, *[0] * (16 - len(numbers))) + b"".join(segments)


def item(content: bytes) -> bytes:
    """Write a fragment, padded."""
    content += b"\0" * (len(content) & 1)
    return ITEM + len(content).to_bytes(4, "little") + content


def encapsulated(
    syntax: str, *fragments: bytes, table: bytes = b"", end: bytes = SEQUENCE_END, extra: dict[int, bytes] | None = None
) -> bytes:
    """Write the example with these fragments, already items, behind an offset table."""
    pixels = head(0x7FE00010, b"OB") + b"\0\0\xff\xff\xff\xff" + item(table) + b"".join(fragments) + end
    return part10(elements_of_example() | {0x7FE00010: pixels} | (extra or {}), syntax.encode())


def commented(file: bytes, tokens: frozenset[str]) -> tuple[bytes, frozenset[str]]:
    """Put a JPEG 2000 stream with a comment in the place of an image's native pixels, with one token more."""
    dataset = pydicom.dcmread(io.BytesIO(file))
    added = "zqzzzzxv"
    stream = jpeg_2000(segment(0x64, b"\0\1" + added.encode())) + END
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = UID(JPEG_2000)
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue(), tokens | {added}


def frames(count: int) -> dict[int, bytes]:
    """Write Number of Frames, for ``extra``."""
    return {0x00280008: encode(head(0x00280008, b"IS"), str(count).encode())}
