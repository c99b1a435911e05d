"""Real ultrasounds with names burned in: refused without a rule, and with one nothing outside their regions is left."""

from __future__ import annotations

import importlib.util
import io
import pathlib
from typing import Final

import numpy as np
import pydicom
import pytest

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
