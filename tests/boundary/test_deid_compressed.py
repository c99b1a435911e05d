"""Frames of other people's encoders come out, and their decoders see the same pixels as before."""

from __future__ import annotations

import pathlib
import subprocess
from typing import Final

import numpy as np
import pydicom
import pytest

from tests.twins.deidentified import deidentified
from tests.twins.images import ct_slice

ENCODERS: Final = {
    "JPEG Lossless, dcmtk": ("dcmcjpeg", "+e1"),
    "JPEG Lossless with an offset table, dcmtk": ("dcmcjpeg", "+e1", "+ot"),
    "JPEG in small fragments, dcmtk": ("dcmcjpeg", "+e1", "-ot", "+fs", "1"),
    "JPEG Extended, dcmtk": ("dcmcjpeg", "+ee", "+q", "90"),
    "JPEG-LS, dcmtk": ("dcmcjpls",),
    "RLE, dcmtk": ("dcmcrle",),
    "JPEG 2000, GDCM": ("gdcmconv", "--j2k"),
    "JPEG 2000 lossy, GDCM": ("gdcmconv", "--j2k", "--lossy", "-q", "20"),
    "JPEG Lossless, GDCM": ("gdcmconv", "--jpeg"),
    "JPEG-LS, GDCM": ("gdcmconv", "--jpegls"),
    "RLE, GDCM": ("gdcmconv", "--rle"),
}


@pytest.mark.parametrize("command", ENCODERS.values(), ids=ENCODERS)
def test_the_frames_of_an_encoder_decode_as_before(command: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    """What is blanked is nothing that a decoder needs."""
    native, compressed, clean = (tmp_path / name for name in ("native.dcm", "compressed.dcm", "clean.dcm"))
    instance = ct_slice(1)
    instance.BitsStored, instance.HighBit = 12, 11
    instance.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    instance.save_as(native)
    subprocess.run([*command, native, compressed], check=True, capture_output=True)
    clean.write_bytes(deidentified(compressed.read_bytes()))
    before, after = decoded(compressed), decoded(clean)
    assert before.size == 64 * 64
    assert np.array_equal(before, after)


def decoded(file: pathlib.Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    """Decode with GDCM."""
    raw = file.with_suffix(".raw.dcm")
    subprocess.run(["gdcmconv", "--raw", file, raw], check=True, capture_output=True)
    return np.frombuffer(pydicom.dcmread(raw).PixelData, np.uint16)
