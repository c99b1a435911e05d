"""Headers of CT and MR images as a scanner writes them: all that PS3.3 wants beside the person."""

from __future__ import annotations

from typing import Final

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from mdmfs.demo.headers import code, fill, identify, items, planted_uid, reference
from mdmfs.demo.people import Person

CT_SIZE: Final = 512
CT_SLICES: Final = 60
MR_SIZE: Final = 256
MR_SLICES: Final = 24
_CT_SPACING = 2.5
_MR_SPACING = 4.0


def ct_slice(person: Person, series: int, number: int, slices: int = CT_SLICES) -> Dataset:
    """Make the header of one slice of a chest CT (PS3.3 section A.3), the first one lowest; no pixels."""
    dataset = _image(person, series, number, CTImageStorage)
    lowest = -_CT_SPACING * slices / 2
    position = lowest + _CT_SPACING * (number - 1)
    fill(
        dataset,
        {
            "Modality": "CT",
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "ManufacturerModelName": "Ellipse 64",
            "BodyPartExamined": "CHEST",
            "PatientPosition": "HFS",
            "SliceThickness": _CT_SPACING,
            "SpacingBetweenSlices": _CT_SPACING,
            "ImagePositionPatient": [-200.0, -200.0, position],
            "SliceLocation": position,
            "PixelSpacing": [0.78125, 0.78125],
            "KVP": "120",
            "XRayTubeCurrent": 210,
            "ExposureTime": 500,
            "Exposure": 105,
            "GantryDetectorTilt": 0,
            "TableHeight": "152.5",
            "ReconstructionDiameter": 400,
            "ConvolutionKernel": "STANDARD",
            "FilterType": "BODY FILTER",
            "RescaleIntercept": -1024,
            "RescaleSlope": 1,
            "RescaleType": "HU",
            "WindowCenter": 40,
            "WindowWidth": 400,
        },
    )
    return _pixel_description(dataset, CT_SIZE)


def mr_slice(person: Person, series: int, number: int) -> Dataset:
    """Make the header of one slice of a knee MR (PS3.3 section A.4), the first one lowest; no pixels."""
    dataset = _image(person, series, number, MRImageStorage)
    position = -_MR_SPACING * MR_SLICES / 2 + _MR_SPACING * (number - 1)
    fill(
        dataset,
        {
            "Modality": "MR",
            "ImageType": ["ORIGINAL", "PRIMARY", "M", "SE"],
            "ManufacturerModelName": "Ellipse 3T",
            "BodyPartExamined": "KNEE",
            "Laterality": "L",
            "PatientPosition": "FFS",
            "ScanningSequence": "SE",
            "SequenceVariant": "SK",
            "ScanOptions": "FS",
            "MRAcquisitionType": "2D",
            "SequenceName": "tse2d1_7",
            "SliceThickness": _MR_SPACING - 0.5,
            "SpacingBetweenSlices": _MR_SPACING,
            "RepetitionTime": 3120,
            "EchoTime": 34,
            "EchoNumbers": 1,
            "EchoTrainLength": 7,
            "FlipAngle": 150,
            "NumberOfAverages": 1,
            "MagneticFieldStrength": 3,
            "ImagingFrequency": "123.253",
            "ImagedNucleus": "1H",
            "PixelBandwidth": 180,
            "PercentSampling": 80,
            "PercentPhaseFieldOfView": 100,
            "InPlanePhaseEncodingDirection": "ROW",
            "ReceiveCoilName": person.detector[:16],
            "ImagePositionPatient": [-80.0, -80.0, position],
            "SliceLocation": position,
            "PixelSpacing": [0.625, 0.625],
            "WindowCenter": 800,
            "WindowWidth": 1600,
        },
    )
    return _pixel_description(dataset, MR_SIZE)


def new_dataset(sop_class: UID, sop_instance: UID) -> Dataset:
    """Start a data set that will be written as Explicit VR Little Endian."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = sop_instance
    return dataset


def _image(person: Person, series: int, number: int, sop_class: UID) -> Dataset:
    """Make what all single-frame images of a scanner share."""
    dataset = new_dataset(sop_class, planted_uid(person.key, series, number))
    identify(dataset, person, series)
    source = reference(sop_class, planted_uid(person.key, series, "localizer"))
    return fill(
        dataset,
        {
            "InstanceCreationDate": person.study_date,
            "InstanceCreationTime": person.study_time,
            "InstanceCreatorUID": planted_uid(person.key, "creator"),
            "StudyInstanceUID": planted_uid(person.key, "study"),
            "SeriesInstanceUID": planted_uid(person.key, series),
            "FrameOfReferenceUID": planted_uid(person.key, "frame of reference"),
            "PositionReferenceIndicator": "",
            "ContentDate": person.study_date,
            "ContentTime": person.study_time,
            "AcquisitionDate": person.study_date,
            "AcquisitionTime": person.study_time,
            "AcquisitionDateTime": person.study_date + person.study_time,
            "AcquisitionNumber": 1,
            "InstanceNumber": number,
            "Manufacturer": "Phantom Works",
            "SoftwareVersions": "1.0",
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "ReferencedImageSequence": items(
                {**source, "PurposeOfReferenceCodeSequence": code("121311", "DCM", "Localizer")}
            ),
        },
    )


def _pixel_description(dataset: Dataset, size: int) -> Dataset:
    """Describe square pictures of 12 bits in 16 (PS3.3 section C.7.6.3)."""
    return fill(
        dataset,
        {
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": size,
            "Columns": size,
            "BitsAllocated": 16,
            "BitsStored": 12,
            "HighBit": 11,
            "PixelRepresentation": 0,
            "BurnedInAnnotation": "NO",
        },
    )
