"""Compressed frames under a region rule: they come out native, blanked, and otherwise as the decoder gives them."""

from __future__ import annotations

import io
from typing import Any, Final

import jpeg_ls
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import UID

from mdmfs.hospital.deid.decode import MAX_NATIVE, open_decoder
from mdmfs.hospital.deid.policy import Policy
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from tests.twins.deidentified import deidentified, deidentified_in_pieces, header_of
from tests.twins.planted import OtherKind, planted, written

RLE: Final = "1.2.840.10008.1.2.5"
BASELINE: Final = "1.2.840.10008.1.2.4.50"
LOSSLESS: Final = "1.2.840.10008.1.2.4.70"
JPEG_LS: Final = "1.2.840.10008.1.2.4.80"
JPEG_2000: Final = "1.2.840.10008.1.2.4.90"
ROWS, COLUMNS = 24, 32
POLICY: Final = Policy.parse(
    f'name = "b"\nheads = "agreement"\n[[regions]]\nsop_class = "{OtherKind.US.value}"\nblank = [[0, 0, 32, 8]]'
)

Array = np.ndarray[Any, np.dtype[Any]]


def picture(samples: int = 1, bits: int = 8, frames: int = 1) -> Array:
    """Draw ramps that compression keeps well."""
    line = np.linspace(1, 2**bits - 1, COLUMNS)
    frame = np.repeat(np.tile(line, (ROWS, 1))[:, :, None], samples, axis=2)
    frame[:, :, 1:] //= 2
    return np.stack([frame / (number + 1) for number in range(frames)]).astype(np.uint8 if bits == 8 else np.uint16)


def compressed(syntax: str, pixels: Array) -> list[bytes]:
    """Compress each frame with a library that is not ours."""
    frames = []
    for frame in pixels:
        file = io.BytesIO()
        plain = frame[:, :, 0] if frame.shape[2] == 1 else frame
        if syntax == RLE:
            bits = {"bits_allocated": 8 * frame.itemsize, "bits_stored": 8 * frame.itemsize, "pixel_representation": 0}
            shape = {"rows": ROWS, "columns": COLUMNS, "samples_per_pixel": frame.shape[2], "number_of_frames": 1}
            colours = {"photometric_interpretation": "RGB" if frame.shape[2] > 1 else "MONOCHROME2"}
            layout = {"planar_configuration": 0} if frame.shape[2] > 1 else {}
            file.write(RLELosslessEncoder.encode(plain, **bits, **shape, **colours, **layout))
        elif syntax == JPEG_LS:
            file.write(jpeg_ls.encode_array(plain, interleave_mode=None if frame.shape[2] == 1 else 2))
        elif syntax == JPEG_2000:
            Image.fromarray(plain).save(file, "JPEG2000", irreversible=False, no_jp2=True)
        else:
            Image.fromarray(plain).save(file, "JPEG", quality=100, subsampling=0)
        frames.append(file.getvalue())
    return frames


BROKEN: Final = compressed(BASELINE, picture())[0].replace(b"\xff\xda\x00\x08\x01\x01", b"\xff\xda\x00\x08\x01\x07")
"""A stream whose scan is of a component that it does not have."""


def ultrasound(syntax: str, pixels: Array, frames: list[bytes] | None = None, **attributes: object) -> bytes:
    """Write an ultrasound of compressed frames."""
    image, _ = planted(OtherKind.US, depth=0, outside=False)
    for tag in [element.tag for element in image if element.tag >> 16 > 0x7FE0]:
        del image[tag]
    image.Rows, image.Columns, image.NumberOfFrames = ROWS, COLUMNS, len(pixels)
    image.SamplesPerPixel = pixels.shape[3]
    image.BitsAllocated = image.BitsStored = 8 * pixels.itemsize
    image.HighBit = image.BitsStored - 1
    if pixels.shape[3] > 1:
        image.PhotometricInterpretation, image.PlanarConfiguration = "YBR_FULL_422" if syntax == BASELINE else "RGB", 1
    image.PixelData = encapsulate(frames or compressed(syntax, pixels))
    image["PixelData"].VR, image["PixelData"].is_undefined_length = "OB", True
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    return written(image, UID(syntax))


def parsed(file: bytes) -> Dataset:
    """De-identify and read with the oracle."""
    return pydicom.dcmread(io.BytesIO(deidentified(file, POLICY)))


def reason_of(file: bytes) -> Reason:
    """Tell why a file is refused; fails if it is not."""
    with pytest.raises(RefusedError) as caught:
        deidentified(file, POLICY)
    return caught.value.reason


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize(
    ("syntax", "samples", "bits"),
    [
        *((RLE, samples, bits) for samples in (1, 3) for bits in (8, 16)),
        *((syntax, samples, 8) for syntax in (BASELINE, JPEG_LS, JPEG_2000) for samples in (1, 3)),
        (JPEG_LS, 1, 16),
        (JPEG_2000, 1, 16),
    ],
)
def test_frames_come_out_native_and_blanked(syntax: str, samples: int, bits: int, frames: int) -> None:
    """Exactly, but for JPEG with loss; in the colours and the layout that the header then says."""
    pixels = picture(samples, bits, frames)
    out = parsed(ultrasound(syntax, pixels))
    assert out.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert out.get("PlanarConfiguration", 0) == 0
    assert out.PhotometricInterpretation == ("RGB" if samples == 3 else "MONOCHROME2")
    became = out.pixel_array.reshape(pixels.shape).astype(int)
    assert not became[:, :8].any()
    assert np.abs(became[:, 8:] - pixels[:, 8:].astype(int)).max() <= (3 if syntax == BASELINE else 0)
    assert "113101" in [item.CodeValue for item in out.DeidentificationMethodCodeSequence]


def test_what_pillow_scales_up_is_scaled_down_again() -> None:
    """JPEG 2000 with 12 of 16 bits."""
    pixels = picture(1, 16) >> 4
    file = io.BytesIO()
    Image.fromarray(pixels[0, :, :, 0]).save(file, "JPEG2000", irreversible=False, no_jp2=True)
    octets = bytearray(file.getvalue())
    assert octets[42] == 15
    out = parsed(ultrasound(JPEG_2000, pixels, [bytes(octets)], BitsStored=12, HighBit=11))
    assert np.array_equal(out.pixel_array[8:], pixels[0, 8:, :, 0])


def test_planes_of_jpeg_ls_are_laid_out_by_pixel() -> None:
    """Interleave mode 0 has one component after the other."""
    pixels = picture(3)
    planes = jpeg_ls.encode_pixel_data(
        np.moveaxis(pixels[0], 2, 0).tobytes(),
        rows=ROWS,
        columns=COLUMNS,
        samples_per_pixel=3,
        bits_stored=8,
        planar_configuration=1,
        interleave_mode=0,
    )
    out = parsed(ultrasound(JPEG_LS, pixels, [bytes(planes)]))
    assert np.array_equal(out.pixel_array[8:], pixels[0, 8:])


def test_red_green_and_blue_that_nothing_in_the_stream_names_stay_what_they_are() -> None:
    """A JPEG stream without a marker of its colours would be taken for YCbCr; the header knows better."""
    pixels = picture(3)
    stream = compressed(BASELINE, pixels)[0]
    bare = stream[:2] + stream[2 + 2 + int.from_bytes(stream[4:6], "big") :]
    out = parsed(ultrasound(BASELINE, pixels, [bare], PhotometricInterpretation="RGB"))
    raw = Image.open(io.BytesIO(bare))
    raw.draft("YCbCr", raw.size)
    assert np.array_equal(out.pixel_array[8:], np.asarray(raw)[8:])


def test_one_frame_in_many_fragments_and_pieces_is_one_frame() -> None:
    """Fragments end anywhere in a stream (PS3.5 section A.4), and pieces of the network anywhere at all."""
    pixels = picture(1, frames=2)
    streams = compressed(BASELINE, pixels)
    whole = ultrasound(BASELINE, pixels, streams)
    image = pydicom.dcmread(io.BytesIO(whole))
    image.PixelData = encapsulate(streams, fragments_per_frame=3, has_bot=False)
    cut = written(image, UID(BASELINE))
    assert deidentified(cut, POLICY) == deidentified(whole, POLICY)
    for step in (1, 7, 1000):
        assert deidentified_in_pieces(cut, range(1, len(cut) - 500, step), policy=POLICY) == deidentified(whole, POLICY)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (ultrasound(BASELINE, picture(), Rows=25), Reason.CODESTREAM),
        (ultrasound(RLE, picture(), Rows=25), Reason.CODESTREAM),
        (ultrasound(JPEG_LS, picture(), Rows=25), Reason.CODESTREAM),
        (
            ultrasound(BASELINE, picture(3), SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2"),
            Reason.CODESTREAM,
        ),
        (ultrasound(BASELINE, picture(), [BROKEN]), Reason.CODESTREAM),
        (ultrasound(RLE, picture(1, 16), BitsStored=12, HighBit=11), Reason.UNUSED_BITS),
        (ultrasound(LOSSLESS, picture(1, 16), [b"\xff\xd8\xff\xd9"]), Reason.COMPRESSED_REGION),
        (ultrasound(LOSSLESS, picture(3), PhotometricInterpretation="YBR_FULL"), Reason.COMPRESSED_REGION),
        (ultrasound(JPEG_2000, picture(), PixelRepresentation=1), Reason.COMPRESSED_REGION),
        (ultrasound(RLE, picture(), SamplesPerPixel=2), Reason.COMPRESSED_REGION),
        (ultrasound(RLE, picture(), Rows=0), Reason.COMPRESSED_REGION),
        (ultrasound(RLE, picture(), Rows=65535, Columns=65535), Reason.COMPRESSED_REGION),
        (ultrasound(RLE, picture(), Rows=4096, Columns=4096, NumberOfFrames=MAX_NATIVE // 2**24 + 1), Reason.TOO_LARGE),
    ],
)
def test_frames_that_are_not_what_the_header_says_are_refused(file: bytes, reason: Reason) -> None:
    """Another size, fewer colours, broken streams, bits outside the stored ones, pixels that no decoder gives back."""
    assert reason_of(file) is reason


@pytest.mark.parametrize("syntax", [BASELINE, JPEG_LS])
def test_without_the_codecs_compressed_frames_are_refused(syntax: str) -> None:
    """They come with an extra."""

    def find(name: str) -> object:
        raise ImportError(name)

    with pytest.raises(RefusedError, match="compressed-region"):
        open_decoder(header_of(ultrasound(syntax, picture())), find)


def test_repeated_and_copied_bytes_are_unpacked() -> None:
    """PS3.5 section G.3.1, with a byte that says nothing between."""
    segment = b"\x80" + b"\x01\x05\x06" + b"\x81\x09" * 5 + b"\x83\x09"
    stream = b"".join(number.to_bytes(4, "little") for number in (1, 64, *[0] * 14)) + segment
    pixels = picture()
    out = parsed(ultrasound(RLE, pixels, [stream + b"\0" * (len(stream) & 1)]))
    assert out.pixel_array[8:].tolist() == [[9] * COLUMNS] * (ROWS - 8)
