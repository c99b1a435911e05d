"""The SOP classes that the engine lets through, and what each of them is; all others are refused."""

from __future__ import annotations

import enum
from typing import Final

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."


class Content(enum.Enum):
    """What an object of a class holds, which decides what is asked of it."""

    IMAGE = "image"
    """Acquired pixels: image type, photometric interpretation and the rest are checked."""
    DERIVED = "derived"
    """Pixels that were computed, not photographed: doses and segmentations."""
    GEOMETRY = "geometry"
    """No pixels, but contours from which a face could be rebuilt."""
    PLAN = "plan"
    """No pixels and no anatomy."""
    REVIEWED = "reviewed"
    """Pixels with text in them: let through where a region rule says what to blank, or a review that none is there."""
    REPORT = "report"
    """A tree of content items: let through where a review names the class and structured content is cleaned."""
    PRESENTATION = "presentation"
    """How images are shown: let through where a review names the class and graphics are cleaned."""


CLASSES: Final = {
    _STORAGE + "2": Content.IMAGE,  # CT
    _STORAGE + "2.1": Content.IMAGE,  # Enhanced CT
    _STORAGE + "2.2": Content.IMAGE,  # Legacy Converted Enhanced CT
    _STORAGE + "4": Content.IMAGE,  # MR
    _STORAGE + "4.1": Content.IMAGE,  # Enhanced MR
    _STORAGE + "4.4": Content.IMAGE,  # Legacy Converted Enhanced MR
    _STORAGE + "128": Content.IMAGE,  # PET
    _STORAGE + "130": Content.IMAGE,  # Enhanced PET
    _STORAGE + "128.1": Content.IMAGE,  # Legacy Converted Enhanced PET
    _STORAGE + "66.4": Content.DERIVED,  # Segmentation
    _STORAGE + "481.1": Content.IMAGE,  # RT Image
    _STORAGE + "481.2": Content.DERIVED,  # RT Dose
    _STORAGE + "481.3": Content.GEOMETRY,  # RT Structure Set
    _STORAGE + "481.4": Content.PLAN,  # RT Beams Treatment Record
    _STORAGE + "481.5": Content.PLAN,  # RT Plan
    _STORAGE + "481.6": Content.PLAN,  # RT Brachy Treatment Record
    _STORAGE + "481.7": Content.PLAN,  # RT Treatment Summary Record
    _STORAGE + "481.8": Content.PLAN,  # RT Ion Plan
    _STORAGE + "481.9": Content.PLAN,  # RT Ion Beams Treatment Record
    _STORAGE + "1": Content.REVIEWED,  # Computed Radiography
    _STORAGE + "1.1": Content.REVIEWED,  # Digital X-Ray, for presentation
    _STORAGE + "3.1": Content.REVIEWED,  # Ultrasound Multi-frame
    _STORAGE + "6.1": Content.REVIEWED,  # Ultrasound
    _STORAGE + "7": Content.REVIEWED,  # Secondary Capture
    _STORAGE + "12.1": Content.REVIEWED,  # X-Ray Angiographic
    _STORAGE + "12.2": Content.REVIEWED,  # X-Ray Radiofluoroscopic
    _STORAGE + "1.2": Content.REVIEWED,  # Digital Mammography X-Ray, for presentation
    _STORAGE + "88.11": Content.REPORT,  # Basic Text SR
    _STORAGE + "88.22": Content.REPORT,  # Enhanced SR
    _STORAGE + "88.33": Content.REPORT,  # Comprehensive SR
    _STORAGE + "88.34": Content.REPORT,  # Comprehensive 3D SR
    _STORAGE + "88.59": Content.REPORT,  # Key Object Selection
    _STORAGE + "88.67": Content.REPORT,  # X-Ray Radiation Dose SR
    _STORAGE + "88.68": Content.REPORT,  # Radiopharmaceutical Radiation Dose SR
    _STORAGE + "11.1": Content.PRESENTATION,  # Grayscale Softcopy Presentation State
}

MODALITIES: Final = frozenset(
    b"CT MR PT NM SEG RTIMAGE RTDOSE RTSTRUCT RTPLAN RTRECORD OT CR DX MG US XA RF SR KO PR REG".split()
)
"""Defined terms of Modality (PS3.3 C.7.3.1.1.1) that the accepted classes, and what refers to them, come with."""
