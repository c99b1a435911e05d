"""Synthetic instances for tests of the DICOM layer: CT slices with made-up identifiers."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

ROOT = "1.2.826.0.1.3680043.10.9999"


def ct_slice(
    number: int, *, patient_id: str = "TEST-1", study: int = 1, series: int = 1, size: int = 64, syntax: str = ""
) -> Dataset:
    """Make one slice of ``size`` x ``size`` pixels of 16 bits; the same arguments give the same bytes."""
    instance = Dataset()
    instance.SpecificCharacterSet = "ISO_IR 192"
    instance.SOPClassUID = CTImageStorage
    instance.SOPInstanceUID = f"{ROOT}.{study}.{series}.{number}"
    instance.StudyDate = "20180312"
    instance.Modality = "CT"
    instance.PatientName = "Test^Synthetic"
    instance.PatientID = patient_id
    instance.IssuerOfPatientID = "AMC"
    instance.StudyInstanceUID = f"{ROOT}.{study}"
    instance.SeriesInstanceUID = f"{ROOT}.{study}.{series}"
    instance.StudyID = str(study)
    instance.SeriesNumber = series
    instance.InstanceNumber = number
    instance.SamplesPerPixel = 1
    instance.PhotometricInterpretation = "MONOCHROME2"
    instance.Rows = instance.Columns = size
    instance.BitsAllocated = instance.BitsStored = 16
    instance.HighBit = 15
    instance.PixelRepresentation = 0
    pixels = np.random.default_rng(number).integers(0, 4096, (size, size), dtype=np.uint16)
    instance.file_meta = FileMetaDataset()
    native = ImplicitVRLittleEndian if syntax == ImplicitVRLittleEndian else ExplicitVRLittleEndian
    instance.file_meta.TransferSyntaxUID = native
    instance.file_meta.MediaStorageSOPClassUID = instance.SOPClassUID
    instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
    instance.PixelData = pixels.tobytes()
    instance["PixelData"].VR = "OW"
    if syntax not in {"", native}:
        instance.compress(syntax, generate_instance_uid=False)
    return instance
