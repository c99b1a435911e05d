"""A whole series and what refers to it: the same bytes wherever they are made, and references that still lead there."""

from __future__ import annotations

import io
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Final

import pydicom
import pytest
from pydicom import Dataset, Sequence
from pydicom.uid import UID

from tests.twins.deidentified import OTHER_SUBJECT, RESEARCH, SUBJECT, deidentified, reviewed
from tests.twins.images import ct_slice
from tests.twins.planted import Kind, OtherKind, planted, written

SCRIPT: Final = """
import hashlib
from tests.twins.deidentified import RESEARCH, deidentified
from tests.twins.planted import Kind, planted_file
for kind in (Kind.CT, Kind.SEG):
    print(hashlib.sha256(deidentified(planted_file(kind, depth=1, outside=False)[0], RESEARCH)).hexdigest())
"""


def pythons() -> list[str]:
    """List this Python, and others that have what the engine needs."""
    others = filter(None, map(shutil.which, ("python3.12", "python3.13", "python3.14")))
    needs = "import pydicom, numpy, msgspec"
    able = [each for each in others if subprocess.run([each, "-c", needs], check=False).returncode == 0]
    return [sys.executable, *able]


FRAME_OF_REFERENCE: Final = "1.2.3.4.77"


def slices() -> list[Dataset]:
    """Make a CT series of three slices."""
    made = []
    for number in (1, 2, 3):
        image = ct_slice(number, size=32)
        image.ImageType, image.BodyPartExamined = ["ORIGINAL", "PRIMARY", "AXIAL"], "CHEST"
        image.FrameOfReferenceUID, image.PositionReferenceIndicator = FRAME_OF_REFERENCE, ""
        image.PatientBirthDate, image.PatientSex, image.StudyTime = "19500101", "F", "101500"
        image.AccessionNumber = image.ReferringPhysicianName = image.Manufacturer = ""
        image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
        image.PixelSpacing, image.SliceThickness = [1, 1], "1"
        image.RescaleIntercept, image.RescaleSlope, image.KVP, image.AcquisitionNumber = "0", "1", "120", "1"
        made.append(image)
    return made


def reference(image: Dataset) -> Dataset:
    """Refer to an instance."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


def referring(kind: Kind | OtherKind, image: Dataset) -> Dataset:
    """Make an object of the same study that refers to an image, at the top level and deeper."""
    made, _ = planted(kind, depth=0, outside=False)
    made.PatientID, made.IssuerOfPatientID = image.PatientID, image.IssuerOfPatientID
    made.StudyInstanceUID, made.FrameOfReferenceUID = image.StudyInstanceUID, image.FrameOfReferenceUID
    series = Dataset()
    series.SeriesInstanceUID = image.SeriesInstanceUID
    series.ReferencedInstanceSequence = Sequence([reference(image)])
    series.ReferencedImageSequence = Sequence([reference(image)])
    made.ReferencedSeriesSequence = Sequence([series])
    if kind is OtherKind.SR:
        item = Dataset()
        item.RelationshipType, item.ValueType = "CONTAINS", "IMAGE"
        item.ReferencedSOPSequence = Sequence([reference(image)])
        made.ContentSequence = Sequence([item])
    return made


def uids_in(dataset: Dataset) -> set[str]:
    """Give all UIDs in an object."""
    return {
        str(uid)
        for element in dataset.iterall()
        if element.VR == "UI"
        for uid in (element.value if element.VM > 1 else [element.value])
    }


@pytest.mark.parametrize("kind", [Kind.RT_PLAN, Kind.SEG, OtherKind.SR, OtherKind.PR])
def test_what_refers_to_an_image_still_does(kind: Kind | OtherKind) -> None:
    """Plan, segmentation, report and presentation state: study, series, instance and frame of reference."""
    image = slices()[0]
    policy = reviewed(kind.value)
    one = pydicom.dcmread(io.BytesIO(deidentified(written(image), policy)))
    other = pydicom.dcmread(io.BytesIO(deidentified(written(referring(kind, image)), policy)))
    assert other.StudyInstanceUID == one.StudyInstanceUID
    assert {one.SOPInstanceUID, one.SeriesInstanceUID} <= uids_in(other)
    assert one.FrameOfReferenceUID == other.FrameOfReferenceUID != FRAME_OF_REFERENCE
    if kind is OtherKind.SR:
        (item,) = other.ContentSequence
        assert item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == one.SOPInstanceUID


def test_two_projects_have_no_uid_date_or_name_in_common() -> None:
    """Of a whole series, at every depth; class and syntax are nobody's."""
    outs = [
        [pydicom.dcmread(io.BytesIO(deidentified(written(image), RESEARCH, subject))) for image in slices()]
        for subject in (SUBJECT, OTHER_SUBJECT)
    ]
    mine, theirs = (set[str]().union(*map(uids_in, series)) for series in outs)
    assert all(UID(uid).is_private is False for uid in mine & theirs)
    for keyword in ("PatientID", "PatientName", "StudyDate", "StudyTime"):
        assert not {str(one[keyword].value) for one in outs[0]} & {str(one[keyword].value) for one in outs[1]}


@pytest.mark.skipif(shutil.which("dcentvfy") is None, reason="dicom3tools is not installed")
def test_a_series_is_consistent_across_its_instances(tmp_path: pathlib.Path) -> None:
    """Dcentvfy finds nothing that differs between the files of one patient, study, series and frame of reference."""
    for number, image in enumerate(slices()):
        (tmp_path / f"{number}.dcm").write_bytes(deidentified(written(image)))
    files = sorted(str(path) for path in tmp_path.iterdir())
    run = subprocess.run(["dcentvfy", *files], capture_output=True, text=True, check=False)
    assert (run.stdout + run.stderr).strip() == ""


@pytest.mark.parametrize("python", pythons())
def test_the_same_bytes_are_made_everywhere(python: str) -> None:
    """In another process, time zone, locale and hash seed, and by another Python where one is at hand."""
    places = [("UTC", "C.UTF-8", "1"), ("Pacific/Kiritimati", "tr_TR.UTF-8", "2")]
    told = set()
    for zone, locale, seed in places:
        environment = {
            **os.environ,
            "TZ": zone,
            "LC_ALL": locale,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": str(pathlib.Path.cwd()),
        }
        run = subprocess.run(
            [python, "-W", "ignore", "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
        )
        told.add(run.stdout)
    assert len(told) == 1
    assert len(told.pop().split()) == 2
