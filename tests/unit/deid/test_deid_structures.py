"""A structure set refers to the images it was drawn on: by study, series, instance and frame of reference."""

from __future__ import annotations

import io
from typing import Final

import pydicom
import pytest
from pydicom import Dataset, Sequence
from pydicom.uid import UID, RTStructureSetStorage

from mdmfs.hospital.deid.policy import Policy
from mdmfs.hospital.deid.pseudonyms import Subject
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from tests.twins.deidentified import OTHER_SUBJECT, RESEARCH, STRICT, SUBJECT, deidentified
from tests.twins.images import ct_slice
from tests.twins.planted import written

FRAME: Final = "1.2.3.4.77"
OTHER_FRAME: Final = "1.2.3.4.78"
STUDY_CLASS: Final = "1.2.840.10008.3.1.2.3.1"
CONTOUR: Final = ["1.5", "2", "3", "4", "5.25", "6", "7", "8", "9"]


def series() -> list[Dataset]:
    """Make a CT series of three slices."""
    made = [ct_slice(number, size=32) for number in (1, 2, 3)]
    for image in made:
        image.FrameOfReferenceUID = FRAME
        image.ImageType, image.BodyPartExamined = ["ORIGINAL", "PRIMARY", "AXIAL"], "CHEST"
    return made


def reference(image: Dataset) -> Dataset:
    """Refer to an image."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


def structures(images: list[Dataset], number: int = 1) -> Dataset:
    """Draw a contour on each image, and register another frame of reference (PS3.3 C.8.8.5, C.8.8.6)."""
    made = ct_slice(90 + number, size=32)
    del made.PixelData
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.4.90.{number}")
    made.Modality, made.SeriesInstanceUID, made.FrameOfReferenceUID = "RTSTRUCT", "1.2.3.4.91", FRAME
    made.StructureSetLabel, made.StructureSetDate, made.StructureSetTime = "Jane", images[0].StudyDate, "101500"
    drawn_on, study, frame, related = Dataset(), Dataset(), Dataset(), Dataset()
    drawn_on.SeriesInstanceUID = images[0].SeriesInstanceUID
    drawn_on.ContourImageSequence = Sequence(map(reference, images))
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = STUDY_CLASS, images[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = Sequence([drawn_on])
    related.RelatedFrameOfReferenceUID, related.FrameOfReferenceTransformationComment = OTHER_FRAME, "of Jane"
    frame.FrameOfReferenceUID = FRAME
    frame.RTReferencedStudySequence = Sequence([study])
    frame.FrameOfReferenceRelationshipSequence = Sequence([related])
    made.ReferencedFrameOfReferenceSequence = Sequence([frame])
    region, roi = Dataset(), Dataset()
    region.ROINumber, region.ReferencedFrameOfReferenceUID, region.ROIName = "1", FRAME, "Jane's heart"
    roi.ReferencedROINumber, roi.ContourSequence = "1", Sequence(map(contour, images))
    made.StructureSetROISequence, made.ROIContourSequence = Sequence([region]), Sequence([roi])
    return made


def contour(image: Dataset) -> Dataset:
    """Draw a triangle on an image."""
    item = Dataset()
    item.ContourImageSequence = Sequence([reference(image)])
    item.ContourGeometricType, item.NumberOfContourPoints, item.ContourData = "CLOSED_PLANAR", "3", CONTOUR
    return item


def read(made: Dataset, subject: Subject = SUBJECT, policy: Policy = RESEARCH) -> Dataset:
    """De-identify an object and read it with the oracle."""
    return pydicom.dcmread(io.BytesIO(deidentified(written(made), policy, subject)))


def uids_in(dataset: Dataset) -> set[str]:
    """Give all UIDs in an object."""
    return {str(element.value) for element in dataset.iterall() if element.VR == "UI"}


def test_contours_lead_to_the_images_they_were_drawn_on() -> None:
    """At every depth, each to its own image; the frame of reference is that of the images, and the points stay."""
    images = [read(image) for image in series()]
    out = read(structures(series()))
    (frame,) = out.ReferencedFrameOfReferenceSequence
    (study,) = frame.RTReferencedStudySequence
    (drawn_on,) = study.RTReferencedSeriesSequence
    (region,) = out.StructureSetROISequence
    (roi,) = out.ROIContourSequence
    frames = {image.FrameOfReferenceUID for image in images}
    assert {out.FrameOfReferenceUID, frame.FrameOfReferenceUID, region.ReferencedFrameOfReferenceUID} == frames
    assert len(frames) == 1
    assert (study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID) == (STUDY_CLASS, images[0].StudyInstanceUID)
    assert drawn_on.SeriesInstanceUID == images[0].SeriesInstanceUID
    names = [image.SOPInstanceUID for image in images]
    assert [item.ReferencedSOPInstanceUID for item in drawn_on.ContourImageSequence] == names
    assert [item.ContourImageSequence[0].ReferencedSOPInstanceUID for item in roi.ContourSequence] == names
    assert {item.ReferencedSOPClassUID for item in drawn_on.ContourImageSequence} == {images[0].SOPClassUID}
    assert [str(number) for number in roi.ContourSequence[0].ContourData] == CONTOUR
    assert out.StructureSetDate == images[0].StudyDate
    assert roi.ReferencedROINumber == region.ROINumber


def test_two_structure_sets_name_one_frame_of_reference_alike() -> None:
    """Also one that no image of the series has; and not as it was named before."""
    one, other = (read(structures(series(), number)) for number in (1, 2))
    related = [
        out.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceRelationshipSequence[0].RelatedFrameOfReferenceUID
        for out in (one, other)
    ]
    assert related[0] == related[1] != OTHER_FRAME
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert uids_in(one) ^ uids_in(other) == {one.SOPInstanceUID, other.SOPInstanceUID}


def test_a_structure_set_has_nothing_in_common_with_that_of_another_project() -> None:
    """But classes, which are nobody's; and nothing with what came in."""
    made = structures(series())
    mine, theirs = uids_in(read(made)), uids_in(read(made, OTHER_SUBJECT))
    classes = {RTStructureSetStorage, STUDY_CLASS, str(series()[0].SOPClassUID)}
    assert mine & theirs == classes
    assert mine & uids_in(made) == classes
    assert b"Jane" not in deidentified(written(made))


def test_contours_from_which_a_face_could_be_rebuilt_follow_the_policy_for_heads() -> None:
    """A structure set names no body part."""
    with pytest.raises(RefusedError) as refused:
        read(structures(series()), policy=STRICT)
    assert refused.value.reason is Reason.HEAD
