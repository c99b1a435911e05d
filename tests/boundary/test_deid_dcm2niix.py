"""A converter makes the same volume, geometry and gradients of an image before and after de-identification."""

from __future__ import annotations

import gzip
import importlib.resources
import io
import json
import pathlib
import shutil
import subprocess
from typing import Final, NamedTuple

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import MRImageStorage

from mdmfs.demo.enhanced import FRAMES, enhanced_mr
from mdmfs.demo.people import ABDOMEN
from tests.twins.deidentified import deidentified
from tests.twins.images import ct_slice
from tests.twins.planted import written

pytestmark = [
    pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def original(name: str) -> bytes:
    """Read a file that comes with nibabel, and give it the Patient ID that it lacks."""
    octets = importlib.resources.files("nibabel.nicom").joinpath(f"tests/data/{name}.dcm.gz").read_bytes()
    dataset = pydicom.dcmread(io.BytesIO(gzip.decompress(octets)))
    dataset.PatientID = dataset.PatientID or "H1234567"
    file = io.BytesIO()
    dataset.save_as(file)
    return file.getvalue()


SIDECAR_KEYS_THAT_CHANGE: Final = frozenset(
    [
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "PatientAge",
        "AccessionNumber",
        "StudyID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "ReferringPhysicianName",
        "InstitutionName",
        "InstitutionAddress",
        "InstitutionalDepartmentName",
        "StationName",
        "DeviceSerialNumber",
        "SoftwareVersions",
        "SeriesDescription",
        "ProtocolName",
        "ProcedureStepDescription",
        "AcquisitionTime",
        "AcquisitionDateTime",
        "ImageComments",
        "BodyPartExamined",
        "CoilString",
        "ReceiveCoilName",
        "PulseSequenceDetails",
        "SequenceName",
        "ImageType",
        "TxRefAmp",
        "DerivedVendorReportedEchoSpacing",
        "DiffusionScheme",
        "RefLinesPE",
        "MatrixCoilMode",
        "ShimSetting",
        "PartialFourier",
        "CoilCombinationMethod",
        "ParallelReductionFactorInPlane",
        "PhaseResolution",
        "DwellTime",
        "ImageOrientationText",
        "BaseResolution",
        "InversionTime",
        "UsePhilipsFloatNotDisplayScaling",
        "PhilipsRescaleIntercept",
        "PhilipsRescaleSlope",
        "PhilipsScaleSlope",
        "PhaseEncodingSteps",
        "ScanningSequence",
        "SequenceVariant",
    ]
)
"""Who, when, where and what people typed; then what Siemens says in its series header alone, which goes as a whole, and
Philips in private elements that are on no list. All others say how the image was made, and stay.
"""


class Converted(NamedTuple):
    """What came out of a folder."""

    image: nibabel.Nifti1Image
    gradients: list[str]
    """b-values and directions, as text."""
    sidecar: dict[str, object]
    """Without the keys that may change."""


def converted(files: list[bytes], folder: pathlib.Path) -> Converted:
    """Convert the files of a series."""
    folder.mkdir()
    for number, octets in enumerate(files):
        (folder / f"{number}.dcm").write_bytes(octets)
    command = ["dcm2niix", "-z", "n", "-b", "y", "-ba", "n", "-f", "volume", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    told = json.loads((folder / "volume.json").read_text())
    return Converted(
        nibabel.Nifti1Image.from_filename(str(folder / "volume.nii")),
        [path.read_text() for path in sorted(folder.glob("*.bv*"))],
        {key: value for key, value in told.items() if key not in SIDECAR_KEYS_THAT_CHANGE},
    )


def assert_equal(before: Converted, after: Converted) -> None:
    """Compare voxels, geometry, gradients, and how the image was made."""
    assert np.array_equal(before.image.affine, after.image.affine)
    assert np.array_equal(np.asanyarray(before.image.dataobj), np.asanyarray(after.image.dataobj))
    assert before.gradients == after.gradients
    assert before.sidecar == after.sidecar


@pytest.mark.parametrize("name", ["siemens_dwi_0", "siemens_dwi_1000", "philips_mprage"])
def test_a_converter_sees_the_same_image(name: str, tmp_path: pathlib.Path) -> None:
    """Mosaics with their CSA headers, diffusion and an enhanced multi-frame object."""
    octets = original(name)
    before, after = converted([octets], tmp_path / "before"), converted([deidentified(octets)], tmp_path / "after")
    assert_equal(before, after)


def ge_slice(volume: int, place: int) -> bytes:
    """Make a slice of a diffusion series as GE writes it: b-value and gradients in private elements."""
    image = ct_slice(10 * volume + place, size=32)
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = MRImageStorage
    image.Modality, image.BodyPartExamined = "MR", "ABDOMEN"
    image.Manufacturer, image.ManufacturerModelName = "GE MEDICAL SYSTEMS", "SIGNA Premier"
    image.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    image.ScanningSequence, image.SequenceVariant, image.ScanOptions = "EP", "NONE", "EPI_GEMS"
    image.MRAcquisitionType, image.InPlanePhaseEncodingDirection = "2D", "ROW"
    image.SliceThickness = image.SpacingBetweenSlices = "4"
    image.RepetitionTime, image.EchoTime, image.FlipAngle, image.MagneticFieldStrength = "5000", "60", "90", "3"
    image.ImagePositionPatient, image.SliceLocation = [-16, -16, 4 * place], 4 * place
    image.ImageOrientationPatient, image.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
    image.AcquisitionTime, image.InstanceNumber = f"1015{volume:02d}", volume * 3 + place + 1
    image.add_new(0x00190010, "LO", "GEMS_ACQU_01")
    for number, part in zip((0xBB, 0xBC, 0xBD), ([0, 0, 0], [1, 0, 0], [0, 0.6, 0.8])[volume], strict=True):
        image.add_new(0x00191000 + number, "DS", f"{part:.6f}")
    image.add_new(0x00430010, "LO", "GEMS_PARM_01")
    image.add_new(0x00431039, "IS", [1000 if volume else 0, 8, 0, 0])
    return written(image)


def test_a_converter_sees_the_same_diffusion_series_of_ge(tmp_path: pathlib.Path) -> None:
    """Three volumes, two directions."""
    files = [ge_slice(volume, place) for volume in range(3) for place in range(3)]
    before = converted(files, tmp_path / "before")
    assert before.gradients[0].split() == ["0", "1000", "1000"]
    assert_equal(before, converted([deidentified(file) for file in files], tmp_path / "after"))


def test_a_converter_sees_the_same_enhanced_object(tmp_path: pathlib.Path) -> None:
    """A made one, with its geometry in functional groups."""
    image = enhanced_mr(ABDOMEN, 1)
    image.Manufacturer, image.ManufacturerModelName = "SIEMENS", "Prisma"
    image.Rows = image.Columns = 16
    pixels = np.random.default_rng(1).integers(0, 2**image.BitsStored, (FRAMES, 16, 16), dtype=np.uint16)
    image.add_new(0x7FE00010, "OW", pixels.tobytes())
    image.file_meta = FileMetaDataset()
    file = written(image)
    before = converted([file], tmp_path / "before")
    assert_equal(before, converted([deidentified(file)], tmp_path / "after"))
