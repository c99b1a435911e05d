"""Decoders for compressed frames in which something must be blanked; all others pass without being decoded.

RLE is decoded here, JPEG, JPEG-LS and JPEG 2000 by Pillow and pyjpegls, which the extra ``pixels`` brings; neither is
under the GPL. A frame leaves as native pixels, colour by pixel: nothing is ever compressed with loss again.
"""

from __future__ import annotations

import dataclasses
import importlib
import io
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from mdmfs.hospital.deid.codestream import FORMS
from mdmfs.hospital.deid.encode import encode, head
from mdmfs.hospital.deid.header import IdentifiedHeader
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.deid.rle import NO_CODE, RLE_HEADER_SIZE
from mdmfs.hospital.deid.segments import Form

MAX_FRAME: Final = 256 * 2**20
"""Bytes of a frame, decoded or not."""
MAX_NATIVE: Final = 2**32 - 2

_SAMPLES: Final = 0x00280002
_PHOTOMETRIC: Final = 0x00280004
_PLANAR: Final = 0x00280006
_ROWS: Final = 0x00280010
_COLUMNS: Final = 0x00280011
_BITS_ALLOCATED: Final = 0x00280100
_SIGNED: Final = 0x00280103
_INTEGER_PIXELS: Final = 0x7FE00010
_BYTE: Final = 8
_COLOURS: Final = 3
_LOSSLESS_JPEG: Final = frozenset({"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})
"""Their decoder converts no colours."""
_BY_PLANE: Final = 0
"""Interleave mode of JPEG-LS (ISO/IEC 14495-1 C.2.3)."""
_PRECISION: Final = 42
_NO_SIGN: Final = 0x7F
"""Where a JPEG 2000 stream has the bits of its first component, less 1, with a sign on top (ISO/IEC 15444-1 A.5.1)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """What a frame must be when it is decoded."""

    rows: int
    columns: int
    samples: int
    cell: int
    """Bytes of a sample."""
    is_signed: bool
    photometric: str
    transfer_syntax: str

    @property
    def size(self) -> int:
        """Bytes of the decoded frame."""
        return self.rows * self.columns * self.samples * self.cell

    @property
    def native_photometric(self) -> str:
        """Photometric Interpretation of the decoded frame: JPEG's colours are converted, RLE's are not."""
        is_converted = self.photometric.startswith("YBR") and FORMS[self.transfer_syntax] is not Form.RLE
        return "RGB" if is_converted else self.photometric


Find = Callable[[str], Any]
"""Imports a module by its name."""
Decode = Callable[[bytes, Frame], bytes]
"""Gives a frame's pixels, colour by pixel, each sample little endian; raises what the library raises."""


def open_decoder(header: IdentifiedHeader, find: Find = importlib.import_module) -> tuple[Frame, Decode]:
    """Find the decoder of an instance; raises ``RefusedError`` where there is none for pixels like these."""
    allocated = header.number(_BITS_ALLOCATED)
    frame = Frame(
        header.number(_ROWS),
        header.number(_COLUMNS),
        header.number(_SAMPLES),
        allocated // _BYTE,
        is_signed=bool(header.number(_SIGNED)),
        photometric=header.raw(_PHOTOMETRIC),
        transfer_syntax=header.transfer_syntax,
    )
    if allocated not in {8, 16} or frame.samples not in {1, _COLOURS} or not 0 < frame.size <= MAX_FRAME:
        raise RefusedError(Reason.COMPRESSED_REGION)
    form = FORMS[header.transfer_syntax]
    if form is Form.RLE:
        return frame, decode_rle
    is_subsampled = frame.photometric in {"YBR_FULL_422", "YBR_FULL", "YBR_PARTIAL_420", "YBR_PARTIAL_422"}
    is_unclear = (form is Form.JPEG_LS or header.transfer_syntax in _LOSSLESS_JPEG) and is_subsampled
    is_signed_picture = form is not Form.JPEG_LS and frame.is_signed
    if is_unclear or is_signed_picture or (form is Form.JPEG and allocated != _BYTE):
        raise RefusedError(Reason.COMPRESSED_REGION)
    try:
        if form is Form.JPEG_LS:
            return frame, _JpegLs(find("jpeg_ls"))
        return frame, _Picture(find("PIL.Image"))
    except ImportError:
        raise RefusedError(Reason.COMPRESSED_REGION) from None


def native_length(header: IdentifiedHeader) -> int:
    """Tell how long the value of Pixel Data becomes, of even length; raises where a native one cannot be as long."""
    length = open_decoder(header)[0].size * header.frames
    if length > MAX_NATIVE:
        raise RefusedError(Reason.TOO_LARGE, _INTEGER_PIXELS)
    return length + (length & 1)


def native_form(header: IdentifiedHeader) -> list[tuple[int, bytes]]:
    """Write the elements that say how decoded frames lie, each with its tag."""
    frame, _ = open_decoder(header)
    elements = [(_PHOTOMETRIC, encode(head(_PHOTOMETRIC, b"CS"), frame.native_photometric.encode()))]
    if frame.samples > 1:
        elements.append((_PLANAR, encode(head(_PLANAR, b"US"), b"\0\0")))
    return elements


def decoded(octets: bytes, frame: Frame, decode: Decode) -> bytes:
    """Decode one frame, whose rows and columns were looked at; raises ``RefusedError`` for one of another size."""
    try:
        pixels = decode(octets, frame)
    except Exception as error:
        raise RefusedError(Reason.CODESTREAM, _INTEGER_PIXELS) from error
    if len(pixels) != frame.size:
        raise RefusedError(Reason.CODESTREAM, _INTEGER_PIXELS)
    return pixels


def decode_rle(octets: bytes, frame: Frame) -> bytes:
    """Decode a frame of RLE (PS3.5 Annex G): a segment for each byte of each sample, the highest byte first."""
    count = frame.samples * frame.cell
    starts = [int.from_bytes(octets[4 * place + 4 : 4 * place + 8], "little") for place in range(count)]
    pixels = bytearray(frame.size)
    for number, (start, stop) in enumerate(zip(starts, [*starts[1:], len(octets)], strict=True)):
        sample, byte = divmod(number, frame.cell)
        place = sample * frame.cell + frame.cell - 1 - byte
        pixels[place::count] = _unpacked(octets[max(start, RLE_HEADER_SIZE) : stop], frame.rows * frame.columns)
    return bytes(pixels)


def _unpacked(segment: bytes, size: int) -> bytearray:
    """Undo PackBits; what comes behind ``size`` bytes is padding, as ``RleFrame`` has made sure."""
    out = bytearray()
    position = 0
    while len(out) < size and position + 1 < len(segment):
        count = segment[position]
        if count < NO_CODE:
            out += segment[position + 1 : position + 2 + count]
            position += 2 + count
        elif count == NO_CODE:
            position += 1
        else:
            out += segment[position + 1 : position + 2] * (257 - count)
            position += 2
    return out


class _JpegLs:
    """JPEG-LS by pyjpegls."""

    def __init__(self, library: Any) -> None:  # noqa: ANN401 - an optional module
        self._library = library

    def __call__(self, octets: bytes, frame: Frame) -> bytes:
        pixels, told = self._library.decode_buffer(octets)
        if told["interleave_mode"] == _BY_PLANE and frame.samples > 1:
            plane = frame.size // frame.samples
            planes, pixels = pixels, bytearray(frame.size)
            for sample in range(frame.samples):
                for byte in range(frame.cell):
                    part = planes[sample * plane + byte : (sample + 1) * plane : frame.cell]
                    pixels[sample * frame.cell + byte :: frame.samples * frame.cell] = part
        return bytes(pixels)


class _Picture:
    """JPEG and JPEG 2000 by Pillow, which gives colours as RGB."""

    def __init__(self, library: Any) -> None:  # noqa: ANN401 - an optional module
        self._library = library

    def __call__(self, octets: bytes, frame: Frame) -> bytes:
        formats = ["JPEG2000"] if FORMS[frame.transfer_syntax] is Form.JPEG_2000 else ["JPEG"]
        with self._library.open(io.BytesIO(octets), formats=formats) as picture:
            if self._is_raw(frame, picture):
                picture.draft("YCbCr", picture.size)  # gives the components as they are, which are red, green, blue
            pixels: bytes = picture.tobytes()
        if FORMS[frame.transfer_syntax] is not Form.JPEG_2000:
            return pixels
        # Pillow scales samples up to the whole of their bytes
        precision = (octets[_PRECISION] & _NO_SIGN) + 1
        cells = np.frombuffer(pixels, f"<u{frame.cell}")
        return (cells >> (_BYTE * frame.cell - precision)).tobytes()

    @staticmethod
    def _is_raw(frame: Frame, picture: Any) -> bool:  # noqa: ANN401 - of an optional module
        """Tell whether a JPEG's components are colours that nothing in the stream says are no YCbCr."""
        is_baseline = FORMS[frame.transfer_syntax] is Form.JPEG and frame.transfer_syntax not in _LOSSLESS_JPEG
        return is_baseline and frame.photometric == "RGB" and "adobe_transform" not in picture.info
