"""A converter makes the same volume, geometry and gradients of an image before and after de-identification."""

from __future__ import annotations

import gzip
import importlib.resources
import io
import pathlib
import shutil
import subprocess

import nibabel
import numpy as np
import pydicom
import pytest

from tests.twins.deidentified import deidentified

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


def converted(octets: bytes, folder: pathlib.Path) -> tuple[nibabel.Nifti1Image, list[str]]:
    """Convert one file; gives the volume, and b-values and directions as text."""
    folder.mkdir()
    (folder / "image.dcm").write_bytes(octets)
    subprocess.run(["dcm2niix", "-z", "n", "-f", "volume", str(folder)], check=True, capture_output=True)
    image = nibabel.Nifti1Image.from_filename(str(folder / "volume.nii"))
    return image, [path.read_text() for path in sorted(folder.glob("*.bv*"))]


@pytest.mark.parametrize("name", ["siemens_dwi_0", "siemens_dwi_1000", "philips_mprage"])
def test_a_converter_sees_the_same_image(name: str, tmp_path: pathlib.Path) -> None:
    """Mosaics with their CSA headers, diffusion and an enhanced multi-frame object."""
    octets = original(name)
    before, gradients_before = converted(octets, tmp_path / "before")
    after, gradients_after = converted(deidentified(octets), tmp_path / "after")
    assert np.array_equal(before.affine, after.affine)
    assert np.array_equal(np.asanyarray(before.dataobj), np.asanyarray(after.dataobj))
    assert gradients_before == gradients_after
