"""The demonstration's patients as DICOM files: what a PACS holds before anyone de-identifies it, the same every time.

Three patients are painted (a CT, an MR, an enhanced multi-frame MR), a fourth lends an identity to real files that
pydicom ships, and a fifth is on no inclusion list. Two more files are of kinds that the policy refuses.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from mdmfs.demo import phantom
from mdmfs.demo.enhanced import FRAMES, SIZE, enhanced_mr
from mdmfs.demo.headers import date_all, fill, identify, planted_uid
from mdmfs.demo.iods import CT_SIZE, CT_SLICES, MR_SIZE, MR_SLICES, ct_slice, mr_slice
from mdmfs.demo.people import ABDOMEN, ABSENT, CHEST, KNEE, PEOPLE, SAMPLES, SHORTEST_IDENTIFIER, Person

ABSENT_SLICES: Final = 4
_STANDARD_ROOT = "1.2.840.10008."
_PIXELS = 0x7FE00010
_TRAILING_PADDING = 0xFFFCFFFC


class Kind(enum.StrEnum):
    """What sort of image a file holds."""

    CT = "ct"
    MR = "mr"
    ENHANCED_MR = "enhanced-mr"
    REAL_CT = "real-ct"
    REAL_MR = "real-mr"
    SECONDARY_CAPTURE = "secondary-capture"
    ULTRASOUND = "ultrasound"


class Fate(enum.StrEnum):
    """What the demonstration's project does with a file."""

    RELEASED = "released"
    REFUSED = "refused"
    """The patient is included, but the policy refuses the kind: it is quarantined."""
    NOT_INCLUDED = "not-included"


@dataclasses.dataclass(frozen=True, slots=True)
class PlantedFile:
    """One file that was written, and what should become of it."""

    path: Path
    kind: Kind
    fate: Fate
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


@dataclasses.dataclass(frozen=True, slots=True)
class IncludedPatient:
    """An entry of a project's inclusion list: the Patient ID and who gave it."""

    issuer: str
    patient_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Planned:
    """A file to be: its header, and where its pixels come from (None where they are in it already)."""

    person: Person
    series: int
    number: int
    kind: Kind
    fate: Fate
    dataset: Dataset
    pixels: Callable[[], bytes] | None = None


def write_patients(directory: Path, people: Collection[Person] = PEOPLE) -> tuple[PlantedFile, ...]:
    """Write the files of these people as Part 10 files below ``directory``, over what is there; 88 MB for all."""
    return tuple(_write(planned, directory) for planned in _planned() if planned.person in people)


def included_patients() -> tuple[IncludedPatient, ...]:
    """List whose images enter the demonstration's project: everyone but the last."""
    return tuple(IncludedPatient(person.issuer, person.patient_id) for person in PEOPLE if person is not ABSENT)


@functools.cache
def planted_identifiers() -> frozenset[str]:
    """List every string of the files that points to a person, place or original object, real UIDs among them.

    At least 6 bytes each in UTF-8, and found nowhere else by chance.
    """
    people = frozenset[str]().union(*(person.identifiers() for person in PEOPLE))
    return people.union(*(_uids(planned.dataset) for planned in _planned()))


@functools.cache
def planted_octets() -> frozenset[bytes]:
    """List the same as bytes, in each encoding that a file, name or log may use."""
    identifiers = planted_identifiers()
    latin = (text.encode("latin-1") for text in identifiers if all(ord(letter) < 256 for letter in text))  # noqa: PLR2004 - what Latin-1 can hold
    wide = (text.encode("utf-16-le") for text in identifiers)
    encoded = itertools.chain((text.encode() for text in identifiers), latin, wide)
    return frozenset(octets for octets in encoded if len(octets) >= SHORTEST_IDENTIFIER)


def _planned() -> Iterator[_Planned]:
    """Plan every file, one patient after the other; headers are made as they are asked for, pixels when written."""
    ct, mr = phantom.noise_strips(phantom.CT_TISSUES), phantom.noise_strips(phantom.MR_TISSUES)
    yield from _ct_series(CHEST, CT_SLICES, Fate.RELEASED, ct)
    for number in range(1, MR_SLICES + 1):
        paint = functools.partial(_paint, phantom.knee, mr, MR_SIZE, number, MR_SLICES)
        dataset = mr_slice(KNEE, 2, number)
        dataset.add_new(_TRAILING_PADDING, "OB", f"{KNEE.name} ".encode().ljust(128, b"\0"))
        yield _Planned(KNEE, 2, number, Kind.MR, Fate.RELEASED, dataset, paint)
    yield _Planned(ABDOMEN, 3, 1, Kind.ENHANCED_MR, Fate.RELEASED, enhanced_mr(ABDOMEN, 3), _frames(mr))
    yield from _real_files()
    yield from _ct_series(ABSENT, ABSENT_SLICES, Fate.NOT_INCLUDED, ct)


def _ct_series(person: Person, slices: int, fate: Fate, strips: dict[str, bytes]) -> Iterator[_Planned]:
    for number in range(1, slices + 1):
        paint = functools.partial(_paint, phantom.chest, strips, CT_SIZE, number, slices)
        dataset = ct_slice(person, 1, number, slices)
        yield _Planned(person, 1, number, Kind.CT, fate, dataset, paint)


def _real_files() -> Iterator[_Planned]:
    """Lend an identity to files that pydicom ships: their pixels, private elements and transfer syntaxes stay theirs.

    The image type of the small MR is set to what an original has, as a policy refuses derived, secondary images.
    """
    original = {"ImageType": ["ORIGINAL", "PRIMARY", "OTHER"], "BodyPartExamined": "PELVIS"}
    yield _real("CT_small", Kind.REAL_CT, Fate.RELEASED, SAMPLES, 1, {"BodyPartExamined": "TSPINE"})
    yield _real("MR_small", Kind.REAL_MR, Fate.RELEASED, SAMPLES, 2, original)
    yield _real("MR_small_implicit", Kind.REAL_MR, Fate.RELEASED, SAMPLES, 3, original)
    yield _real("MR_small_RLE", Kind.REAL_MR, Fate.RELEASED, SAMPLES, 4, original)
    yield _real("MR_small_jp2klossless", Kind.REAL_MR, Fate.RELEASED, SAMPLES, 5, original)
    yield _real("SC_rgb_rle", Kind.SECONDARY_CAPTURE, Fate.REFUSED, CHEST, 90, {"Manufacturer": ""})
    yield _real("examples_rgb_color", Kind.ULTRASOUND, Fate.REFUSED, KNEE, 91, {"Laterality": "L"})


def _real(name: str, kind: Kind, fate: Fate, person: Person, series: int, values: Mapping[str, object]) -> _Planned:
    path = get_testdata_file(f"{name}.dcm", download=False)
    if path is None:
        message = f"the installed pydicom does not hold {name}.dcm: install the pinned version"
        raise FileNotFoundError(message)
    dataset = pydicom.dcmread(str(path))
    identify(dataset, person, series)
    if person is not SAMPLES or name not in {"CT_small", "MR_small"}:
        # Other variants of one image, or images that join a painted patient's study: UIDs of their own.
        dataset.SOPInstanceUID = planted_uid(person.key, name)
        dataset.SeriesInstanceUID = planted_uid(person.key, series)
    dataset.StudyInstanceUID = planted_uid(person.key, "study")
    fill(dataset, values)
    if not dataset.get("Laterality") and "BodyPartExamined" in dataset:
        del dataset.Laterality  # may stand only with a body part that there are two of (PS3.3 section C.7.3.1)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset["PixelData"].VR = "OB"  # one of the files says OW, against PS3.5 section A.4
    date_all(dataset, person)
    return _Planned(person, series, 1, kind, fate, dataset)


def _paint(scene: phantom.Scene, strips: dict[str, bytes], size: int, number: int, slices: int) -> bytes:
    """Paint slice ``number`` of 1 to ``slices``."""
    return phantom.paint(scene((number - 1) / (slices - 1)), strips, size, number)


def _frames(strips: dict[str, bytes]) -> Callable[[], bytes]:
    return lambda: b"".join(_paint(phantom.abdomen, strips, SIZE, number, FRAMES) for number in range(1, FRAMES + 1))


def _write(planned: _Planned, directory: Path) -> PlantedFile:
    path = directory / planned.person.key / str(planned.series) / f"{planned.number:04}.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = planned.dataset
    if planned.pixels is not None:
        dataset.add_new(_PIXELS, "OW", planned.pixels())
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    unfinished = path.with_suffix(".part")
    dataset.save_as(unfinished, enforce_file_format=True)
    unfinished.replace(path)
    return PlantedFile(
        path=path,
        kind=planned.kind,
        fate=planned.fate,
        patient_id=str(dataset.PatientID),
        study_instance_uid=str(dataset.StudyInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
    )


def _uids(dataset: Dataset) -> Iterator[str]:
    """Yield the UIDs of a data set that name an object, at any depth; the standard's own name none."""
    for element in dataset.iterall():
        if element.VR == "UI" and element.value:
            values = [element.value] if isinstance(element.value, str) else element.value
            yield from (str(value) for value in values if not str(value).startswith(_STANDARD_ROOT))
