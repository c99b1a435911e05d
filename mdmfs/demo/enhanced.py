"""The header of an enhanced multi-frame MR object (PS3.3 section A.36.2): one file, a belly of 96 frames."""

from __future__ import annotations

from typing import Final

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage

from mdmfs.demo.headers import code, fill, identify, item, items, planted_uid
from mdmfs.demo.iods import new_dataset
from mdmfs.demo.people import Person

FRAMES: Final = 96
SIZE: Final = 512
_SPACING = 2.5
_FRAME_CONTENT_SEQUENCE: Final = 0x00209111
_STACK_ID: Final = 0x00209056
_IN_STACK_POSITION: Final = 0x00209057


def enhanced_mr(person: Person, series: int) -> Dataset:
    """Make the header of the multi-frame object; no pixels."""
    dataset = new_dataset(EnhancedMRImageStorage, planted_uid(person.key, series, 1))
    identify(dataset, person, series)
    organization = planted_uid(person.key, series, "dimensions")
    fill(dataset, _general(person, series))
    fill(dataset, _enhanced_image(person))
    fill(dataset, _pulse_sequence())
    fill(dataset, _dimensions(organization))
    dataset.SharedFunctionalGroupsSequence = Sequence([_shared_groups(person)])
    dataset.PerFrameFunctionalGroupsSequence = Sequence([_frame_groups(person, n) for n in range(1, FRAMES + 1)])
    del dataset.GantryID
    return dataset


def _general(person: Person, series: int) -> dict[str, object]:
    return {
        "Modality": "MR",
        "InstanceCreationDate": person.study_date,
        "InstanceCreationTime": person.study_time,
        "StudyInstanceUID": planted_uid(person.key, "study"),
        "SeriesInstanceUID": planted_uid(person.key, series),
        "FrameOfReferenceUID": planted_uid(person.key, "frame of reference"),
        "PositionReferenceIndicator": "",
        "PatientPosition": "HFS",
        "BodyPartExamined": "ABDOMEN",
        "Manufacturer": "Phantom Works",
        "ManufacturerModelName": "Ellipse 3T",
        "SoftwareVersions": "1.0",
        "InstanceNumber": 1,
        "ContentDate": person.study_date,
        "ContentTime": person.study_time,
        "AcquisitionContextSequence": Sequence(),
    }


def _enhanced_image(person: Person) -> dict[str, object]:
    """PS3.3 sections C.8.13.1, C.8.13.2 and C.7.6.3."""
    return {
        "ImageType": ["ORIGINAL", "PRIMARY", "T1", "NONE"],
        "AcquisitionNumber": 1,
        "AcquisitionDateTime": person.study_date + person.study_time,
        "AcquisitionDuration": 192.5,
        "ContentQualification": "RESEARCH",
        "ResonantNucleus": "1H",
        "KSpaceFiltering": "NONE",
        "MagneticFieldStrength": 3,
        "ApplicableSafetyStandardAgency": "IEC",
        "PixelPresentation": "MONOCHROME",
        "VolumetricProperties": "VOLUME",
        "VolumeBasedCalculationTechnique": "NONE",
        "ComplexImageComponent": "MAGNITUDE",
        "AcquisitionContrast": "T1",
        "PresentationLUTShape": "IDENTITY",
        "LossyImageCompression": "00",
        "BurnedInAnnotation": "NO",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "NumberOfFrames": FRAMES,
        "Rows": SIZE,
        "Columns": SIZE,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
    }


def _pulse_sequence() -> dict[str, object]:
    """PS3.3 section C.8.13.4."""
    return {
        "PulseSequenceName": "vibe3d",
        "MRAcquisitionType": "3D",
        "EchoPulseSequence": "GRADIENT",
        "MultiPlanarExcitation": "NO",
        "PhaseContrast": "NO",
        "TimeOfFlightContrast": "NO",
        "SteadyStatePulseSequence": "NONE",
        "EchoPlanarPulseSequence": "NO",
        "SaturationRecovery": "NO",
        "SpectrallySelectedSuppression": "NONE",
        "OversamplingPhase": "NONE",
        "GeometryOfKSpaceTraversal": "RECTILINEAR",
        "RectilinearPhaseEncodeReordering": "LINEAR",
        "SegmentedKSpaceTraversal": "SINGLE",
        "CoverageOfKSpace": "FULL",
        "NumberOfKSpaceTrajectories": 1,
    }


def _dimensions(organization: str) -> dict[str, object]:
    """PS3.3 section C.7.6.17: stack, then position in the stack."""
    return {
        "DimensionOrganizationSequence": items({"DimensionOrganizationUID": organization}),
        "DimensionOrganizationType": "3D",
        "DimensionIndexSequence": items(
            *(
                {
                    "DimensionOrganizationUID": organization,
                    "DimensionIndexPointer": pointer,
                    "FunctionalGroupPointer": _FRAME_CONTENT_SEQUENCE,
                    "DimensionDescriptionLabel": label,
                }
                for pointer, label in ((_STACK_ID, "Stack"), (_IN_STACK_POSITION, "Position"))
            )
        ),
    }


def _shared_groups(person: Person) -> Dataset:
    """Make the functional groups that all frames share (PS3.3 Table A.36-2)."""
    region = code("818982008", "SCT", "Abdomen")
    frame_type = {
        "FrameType": ["ORIGINAL", "PRIMARY", "T1", "NONE"],
        "PixelPresentation": "MONOCHROME",
        "VolumetricProperties": "VOLUME",
        "VolumeBasedCalculationTechnique": "NONE",
        "ComplexImageComponent": "MAGNITUDE",
        "AcquisitionContrast": "T1",
    }
    spacing = {"PixelSpacing": [0.75, 0.75], "SliceThickness": _SPACING, "SpacingBetweenSlices": _SPACING}
    return item(
        {
            "PixelMeasuresSequence": items(spacing),
            "PlaneOrientationSequence": items({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}),
            "FrameAnatomySequence": items({"FrameLaterality": "U", "AnatomicRegionSequence": region}),
            "PixelValueTransformationSequence": items({"RescaleIntercept": 0, "RescaleSlope": 1, "RescaleType": "US"}),
            "FrameVOILUTSequence": items({"WindowCenter": 800, "WindowWidth": 1600}),
            "MRImageFrameTypeSequence": items(frame_type),
            **_shared_scanning(person),
        }
    )


def _shared_scanning(person: Person) -> dict[str, object]:
    """Make the groups of timing, coils and modifiers (PS3.3 sections C.8.13.5.2 to C.8.13.5.12)."""
    receive = {
        "ReceiveCoilName": person.detector[:16],
        "ReceiveCoilManufacturerName": "",
        "ReceiveCoilType": "BODY",
        "QuadratureReceiveCoil": "NO",
    }
    transmit = {"TransmitCoilName": "BODY", "TransmitCoilManufacturerName": "", "TransmitCoilType": "BODY"}
    return {
        "MRTimingAndRelatedParametersSequence": items(_timing()),
        "MRFOVGeometrySequence": items(
            {
                "InPlanePhaseEncodingDirection": "ROW",
                "MRAcquisitionFrequencyEncodingSteps": SIZE,
                "MRAcquisitionPhaseEncodingStepsInPlane": SIZE,
                "MRAcquisitionPhaseEncodingStepsOutOfPlane": FRAMES,
                "PercentSampling": 100,
                "PercentPhaseFieldOfView": 100,
            }
        ),
        "MREchoSequence": items({"EffectiveEchoTime": 1.4}),
        "MRModifierSequence": items(_modifiers()),
        "MRImagingModifierSequence": items(
            {
                "MagnetizationTransfer": "NONE",
                "BloodSignalNulling": "NO",
                "Tagging": "NONE",
                "TransmitterFrequency": 123.253,
                "PixelBandwidth": 490,
            }
        ),
        "MRReceiveCoilSequence": items(receive),
        "MRTransmitCoilSequence": items(transmit),
        "MRAveragesSequence": items({"NumberOfAverages": 1}),
    }


def _timing() -> dict[str, object]:
    """PS3.3 section C.8.13.5.2."""
    return {
        "RepetitionTime": 3.9,
        "FlipAngle": 9,
        "EchoTrainLength": 1,
        "RFEchoTrainLength": 0,
        "GradientEchoTrainLength": 1,
        "SpecificAbsorptionRateSequence": items(
            {"SpecificAbsorptionRateDefinition": "IEC_WHOLE_BODY", "SpecificAbsorptionRateValue": 0.6}
        ),
        "GradientOutputType": "DB_DT",
        "GradientOutput": 31.5,
        "OperatingModeSequence": items(
            {"OperatingModeType": "STATIC FIELD", "OperatingMode": "IEC_NORMAL"},
            {"OperatingModeType": "RF", "OperatingMode": "IEC_NORMAL"},
            {"OperatingModeType": "GRADIENT", "OperatingMode": "IEC_NORMAL"},
        ),
    }


def _modifiers() -> dict[str, object]:
    """PS3.3 section C.8.13.5.5."""
    return {
        "InversionRecovery": "NO",
        "FlowCompensation": "NONE",
        "Spoiling": "RF",
        "T2Preparation": "NO",
        "SpectrallySelectedExcitation": "NONE",
        "SpatialPresaturation": "NONE",
        "PartialFourier": "NO",
        "ParallelAcquisition": "NO",
    }


def _frame_groups(person: Person, number: int) -> Dataset:
    """Make what differs from frame to frame: where it lies, when it was taken, and a comment with a name in it."""
    content = {
        "FrameAcquisitionNumber": 1,
        "FrameReferenceDateTime": person.study_date + person.study_time,
        "FrameAcquisitionDateTime": person.study_date + person.study_time,
        "FrameAcquisitionDuration": 2000.0,
        "StackID": "1",
        "InStackPositionNumber": number,
        "DimensionIndexValues": [1, number],
        "FrameComments": f"frame {number} of {person.family}",
    }
    return item(
        {
            "FrameContentSequence": items(content),
            "PlanePositionSequence": items({"ImagePositionPatient": [-192.0, -192.0, _SPACING * number - 120.0]}),
        }
    )
