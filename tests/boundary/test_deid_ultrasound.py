"""Real ultrasounds with names burned in: refused without a rule, and with one nothing outside their regions is left."""

from __future__ import annotations

import functools
import importlib.util
import io
import os
import pathlib
import re
import shutil
import subprocess
from typing import Final

import numpy as np
import pydicom
import pytest
from PIL import Image

from mdmfs.hospital.deid.encode import encode, head
from mdmfs.hospital.deid.policy import Policy
from mdmfs.hospital.deid.refusal import RefusedError
from tests.twins.deidentified import RESEARCH, deidentified

SPEC: Final = importlib.util.find_spec("deid_data")
FOLDER: Final = pathlib.Path(SPEC.origin or "").parent / "data" / "ultrasounds" if SPEC else None
FILES: Final = ("GREYSCALE_IMAGE.dcm", "RGB_IMAGE.dcm", "ultrasound-multiframe.dcm")
POLICY: Final = Policy.parse("""
name = "ultrasound"
heads = "agreement"

[[regions]]
sop_class = "1.2.840.10008.5.1.4.1.1.6.1"
keep_ultrasound = true

[[regions]]
sop_class = "1.2.840.10008.5.1.4.1.1.3.1"
manufacturer = "Philips Medical Systems"
model = "Affiniti 70G"
keep_ultrasound = true
""")

pytestmark = [
    pytest.mark.skipif(FOLDER is None, reason="deid-data is not installed"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # pydicom warns of what is wrong with the files
]


@pytest.mark.parametrize("name", FILES)
def test_nothing_outside_the_regions_is_left(name: str) -> None:
    """What machines write around the picture is gone in every frame and plane; the picture is untouched."""
    assert FOLDER is not None
    file = (FOLDER / name).read_bytes()
    with pytest.raises(RefusedError, match="sop-class"):
        deidentified(file, RESEARCH)
    before, after = pydicom.dcmread(io.BytesIO(file)), pydicom.dcmread(io.BytesIO(deidentified(file, POLICY)))
    kept = np.zeros((before.Rows, before.Columns), bool)
    for region in before.SequenceOfUltrasoundRegions:
        left, top = region.RegionLocationMinX0, region.RegionLocationMinY0
        kept[top : region.RegionLocationMaxY1 + 1, left : region.RegionLocationMaxX1 + 1] = True
    frames = int(before.get("NumberOfFrames", 1))
    shape = (frames, before.Rows, before.Columns, before.SamplesPerPixel)
    was, became = before.pixel_array.reshape(shape), after.pixel_array.reshape(shape)
    assert was[:, ~kept].any()
    assert not became[:, ~kept].any()
    assert np.array_equal(was[:, kept], became[:, kept])
    assert after.BurnedInAnnotation == "NO"


def test_names_in_the_header_go_too() -> None:
    """As everywhere."""
    assert FOLDER is not None
    file = (FOLDER / FILES[0]).read_bytes()
    before, out = pydicom.dcmread(io.BytesIO(file)), deidentified(file, POLICY)
    assert encode(head(0x00100020, b"LO"), before.PatientID.encode()) in file
    assert before.PatientID.encode() not in out


ENCODERS: Final = {
    "native": None,
    "JPEG lossless": ["dcmcjpeg", "+e1"],
    "JPEG baseline": ["dcmcjpeg", "+eb"],
    "RLE": ["dcmcrle"],
    "JPEG-LS": ["dcmcjpls"],
    "JPEG 2000": ["gdcmconv", "--j2k", "-i"],
}
"""What other programs compress a file with."""


def compressed(name: str, encoder: list[str] | None, folder: pathlib.Path) -> bytes:
    """Compress a file by another program."""
    assert FOLDER is not None
    if encoder is None:
        return (FOLDER / name).read_bytes()
    target = folder / "compressed.dcm"
    to = ["-o", str(target)] if encoder[0] == "gdcmconv" else [str(target)]
    subprocess.run([*encoder, str(FOLDER / name), *to], check=True, capture_output=True)
    return target.read_bytes()


@functools.cache
def words_in(file: bytes) -> frozenset[str]:
    """Let tesseract read the first frame, twice as large; gives words of three characters and more."""
    dataset = pydicom.dcmread(io.BytesIO(file))
    shape = (int(dataset.get("NumberOfFrames", 1)), dataset.Rows, dataset.Columns, dataset.SamplesPerPixel)
    frame = dataset.pixel_array.reshape(shape)[0]
    picture = Image.fromarray(frame.squeeze()).convert("L")
    image = io.BytesIO()
    picture.resize((2 * picture.width, 2 * picture.height)).save(image, "png")
    alone = {**os.environ, "OMP_THREAD_LIMIT": "1"}  # its threads wait for each other where others work, too
    run = subprocess.run(
        ["tesseract", "-", "-", "--psm", "11"], input=image.getvalue(), check=True, capture_output=True, env=alone
    )
    return frozenset(word.upper() for word in re.findall(r"[A-Za-z0-9]{3,}", run.stdout.decode()))


def burned_in(dataset: pydicom.Dataset, words: frozenset[str]) -> frozenset[str]:
    """Give those words in the picture that the header calls the patient's or the hospital's, too."""
    keywords = ("PatientName", "PatientID", "InstitutionName", "StudyDate", "OperatorsName", "ReferringPhysicianName")
    told = " ".join(str(dataset.get(keyword, "")) for keyword in keywords).upper()
    return words & set(re.findall(r"[A-Z0-9]{3,}", told))


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed")
@pytest.mark.parametrize("encoder", ENCODERS)
def test_no_token_can_be_read_afterwards(encoder: str, tmp_path: pathlib.Path) -> None:
    """What tesseract reads outside of the regions before, it does not read afterwards, however it was compressed."""
    name = FILES[0]
    file = compressed(name, ENCODERS[encoder], tmp_path)
    with pytest.raises(RefusedError, match="sop-class"):
        deidentified(file, RESEARCH)
    original, out = compressed(name, None, tmp_path), deidentified(file, POLICY)
    before, after = words_in(original), words_in(out)
    inside = words_in(outside_blanked(original))
    assert len(before - inside) >= 3
    assert not (before - inside) & after
    assert not burned_in(pydicom.dcmread(io.BytesIO(original)), after)


def outside_blanked(file: bytes) -> bytes:
    """Blank by numpy what lies outside of the regions: what is read then is a part of the picture."""
    dataset = pydicom.dcmread(io.BytesIO(file))
    pixels = dataset.pixel_array.copy()
    kept = np.zeros((dataset.Rows, dataset.Columns), bool)
    for region in dataset.SequenceOfUltrasoundRegions:
        left, top = region.RegionLocationMinX0, region.RegionLocationMinY0
        kept[top : region.RegionLocationMaxY1 + 1, left : region.RegionLocationMaxX1 + 1] = True
    pixels[~kept] = 0
    dataset.PixelData = pixels.tobytes()
    target = io.BytesIO()
    dataset.save_as(target)
    return target.getvalue()
