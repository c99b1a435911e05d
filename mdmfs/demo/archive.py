"""What the demonstration's PACS holds and how it answers a query: an index in memory of the headers in one directory.

Matching follows PS3.4 section C.2.2.2: single value, list of UIDs, universal, wildcard and range. Sequence keys are
returned empty and match everything. A PACS for some thousand instances: every query looks at each of them.
"""

from __future__ import annotations

import dataclasses
import enum
import fnmatch
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pydicom
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from mdmfs.model.errors import MalformedMessageError


class Root(enum.Enum):
    """The information model that a query is put to."""

    PATIENT = "patient root"
    STUDY = "study root"


UNIQUE_KEYS: Final = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
"""Levels from the top down, each with its unique key (PS3.4 Tables C.6-1 to C.6-5)."""

_INDEXED: Final = """
    SpecificCharacterSet ImageType SOPClassUID SOPInstanceUID StudyDate SeriesDate AcquisitionDate ContentDate StudyTime
    SeriesTime AcquisitionTime ContentTime AccessionNumber Modality Manufacturer InstitutionName ReferringPhysicianName
    StationName StudyDescription SeriesDescription NameOfPhysiciansReadingStudy OperatorsName ManufacturerModelName
    PatientName PatientID IssuerOfPatientID PatientBirthDate PatientSex PatientAge PatientComments BodyPartExamined
    ProtocolName StudyInstanceUID SeriesInstanceUID StudyID SeriesNumber AcquisitionNumber InstanceNumber
    FrameOfReferenceUID NumberOfFrames Rows Columns BitsAllocated PerformedProcedureStepStartDate
    PerformedProcedureStepStartTime
""".split()  # noqa: SIM905 - 45 keywords read better without 90 quotation marks
_ABOUT_THE_QUERY: Final = frozenset({"QueryRetrieveLevel", "SpecificCharacterSet", "TimezoneOffsetFromUTC"})
_WILDCARDS = re.compile(r"[*?]")
_RANGE_VRS: Final = frozenset({"DA", "TM", "DT"})
_WILDCARD_VRS: Final = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_NUMBER_VRS: Final = frozenset({"DS", "IS", "FD", "FL", "SL", "SS", "UL", "US"})


@dataclasses.dataclass(frozen=True, slots=True)
class Holding:
    """One stored instance: where its file lies, how it is encoded, and what of its header is indexed."""

    path: Path
    transfer_syntax: str
    header: Dataset
    keys: Mapping[str, str]
    """Of each level by keyword; looked at of every instance for every question."""

    def key(self, level: str) -> str:
        """Give the unique key of the entity that holds this instance at a level."""
        return self.keys[UNIQUE_KEYS[level]]


class Archive:
    """The index of a directory of Part 10 files. May be used from several threads."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._holdings: dict[str, Holding] = {}
        self._lock = threading.Lock()
        self.scan()

    def __len__(self) -> int:
        return len(self._holdings)

    def scan(self) -> None:
        """Read the directory again; files that are no DICOM objects are passed over."""
        found = (read_holding(path) for path in sorted(self.directory.rglob("*.dcm")))
        holdings = {holding.key("IMAGE"): holding for holding in found if holding is not None}
        with self._lock:
            self._holdings = holdings

    def add(self, sop_instance_uid: str, octets: bytes) -> None:
        """Keep a Part 10 file, in the place of one with the same UID; the UID must have been checked to be one.

        Raises ``MalformedMessageError`` if the file holds another instance, or none.
        """
        held = self._holdings.get(sop_instance_uid)
        path = held.path if held else self.directory / "received" / f"{sop_instance_uid}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{threading.get_ident()}.part")
        try:
            unfinished.write_bytes(octets)
            holding = read_holding(unfinished)
            if holding is None or holding.key("IMAGE") != sop_instance_uid:
                message = "a stored data set is not the instance that its command names, or cannot be read"
                raise MalformedMessageError(message)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        with self._lock:
            self._holdings[sop_instance_uid] = dataclasses.replace(holding, path=path)

    def find(self, root: Root, identifier: Dataset) -> Iterator[Dataset]:
        """Yield an answer for each entity that matches, with every key that was asked for."""
        level = checked_level(root, identifier)
        above = {key: values for key, values in _unique_values(identifier).items() if key != UNIQUE_KEYS[level]}
        grouped: dict[str, list[Holding]] = {}
        for holding in self._holding(above):
            grouped.setdefault(holding.key(level), []).append(holding)
        for holdings in grouped.values():
            answer = describe(level, holdings, identifier)
            if all(matches(key, answer.get(key.tag)) for key in identifier if key.keyword not in _ABOUT_THE_QUERY):
                yield answer

    def select(self, root: Root, identifier: Dataset) -> list[Holding]:
        """List the instances that a C-GET or C-MOVE asks for by unique keys; the lowest may be a list of UIDs."""
        level = checked_level(root, identifier)
        if not identifier.get(UNIQUE_KEYS[level]):
            message = f"a retrieval at level {level} needs {UNIQUE_KEYS[level]}"
            raise MalformedMessageError(message)
        return self._holding(_unique_values(identifier))

    def transfer_syntaxes(self) -> dict[str, set[str]]:
        """Tell which transfer syntaxes are held of each SOP class."""
        held: dict[str, set[str]] = {}
        for holding in self._holding({}):
            held.setdefault(str(holding.header.SOPClassUID), set()).add(holding.transfer_syntax)
        return held

    def _holding(self, wanted: Mapping[str, set[str]]) -> list[Holding]:
        """List the instances whose unique keys are among these."""
        with self._lock:
            holdings = list(self._holdings.values())
        return [
            holding
            for holding in holdings
            if all(holding.keys[keyword] in values for keyword, values in wanted.items())
        ]


def read_holding(path: Path) -> Holding | None:
    """Read what the index needs of a file; None if it is no Part 10 file with a SOP Instance UID."""
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*_INDEXED])
    except (InvalidDicomError, EOFError):
        return None
    if not dataset.get("SOPInstanceUID") or "TransferSyntaxUID" not in dataset.file_meta:
        return None
    keys = {keyword: str(dataset.get(keyword, "")) for keyword in UNIQUE_KEYS.values()}
    return Holding(path, str(dataset.file_meta.TransferSyntaxUID), dataset, keys)


def checked_level(root: Root, identifier: Dataset) -> str:
    """Give the level of a query; refuse one that the model lacks, or without the unique keys of the levels above.

    PS3.4 section C.4.1.2.2.1: there is no relational query here, as on many a PACS.
    """
    level = str(identifier.get("QueryRetrieveLevel", ""))
    levels = list(UNIQUE_KEYS)[0 if root is Root.PATIENT else 1 :]
    if level not in levels:
        message = f"the {root.value} has no such level"
        raise MalformedMessageError(message)
    for above in levels[: levels.index(level)]:
        values = _texts(identifier.get(UNIQUE_KEYS[above]))
        if len(values) != 1 or _WILDCARDS.search(values[0]):
            message = f"a query at level {level} needs one {UNIQUE_KEYS[above]}"
            raise MalformedMessageError(message)
    return level


def _unique_values(identifier: Dataset) -> dict[str, set[str]]:
    """Give the values of the unique keys that a query holds, but for a Patient ID to be matched as a pattern."""
    found = {keyword: set(_texts(identifier.get(keyword))) for keyword in UNIQUE_KEYS.values()}
    return {key: values for key, values in found.items() if values and not any(_WILDCARDS.search(v) for v in values)}


def describe(level: str, holdings: list[Holding], identifier: Dataset) -> Dataset:
    """Answer each key of a query from the instances of one entity; a key that is not known comes back empty."""
    header = holdings[0].header
    counted = _counted(level, holdings)
    answer = Dataset()
    for key in identifier:
        if key.keyword in _ABOUT_THE_QUERY or key.tag.is_private:
            continue
        if key.keyword in counted:
            setattr(answer, key.keyword, counted[key.keyword])
        elif key.tag in header:
            answer.add(header[key.tag])
        else:
            answer.add(_empty(key.tag, key.VR))
    answer.QueryRetrieveLevel = level
    if "SpecificCharacterSet" in header:
        answer.SpecificCharacterSet = header.SpecificCharacterSet
    return answer


def matches(key: DataElement, held: DataElement | None) -> bool:
    """Tell whether a held value answers a key (PS3.4 section C.2.2.2)."""
    if key.VR == "SQ" or key.is_empty or held is None:
        return True
    wanted = _texts(key.value)
    values = _texts(held.value)
    if key.VR == "UI":
        return not set(wanted).isdisjoint(values)
    return any(_matches_one(key.VR, pattern, value) for pattern in wanted for value in values or [""])


def _matches_one(vr: str, pattern: str, value: str) -> bool:
    if vr in _RANGE_VRS:
        return _is_within(pattern, value)
    if vr in _NUMBER_VRS:
        return bool(value) and float(pattern) == float(value)
    if vr not in _WILDCARD_VRS:
        return pattern == value
    if vr == "PN":
        pattern, value = pattern.casefold(), value.casefold()
        groups = value.split("=")
        return any(_matches_wildcard(pattern, text) for text in (value, *groups))
    return _matches_wildcard(pattern, value)


def _matches_wildcard(pattern: str, value: str) -> bool:
    """Match with ``*`` and ``?``; a bracket is a letter like any other."""
    return fnmatch.fnmatchcase(value.rstrip(" "), pattern.rstrip(" ").replace("[", "[[]"))


def _is_within(pattern: str, value: str) -> bool:
    """Match a date or time with a single value or a range; a bound stands for all that it is the beginning of."""
    if not value:
        return False
    first, dash, last = pattern.partition("-")
    if not dash:
        return value.startswith(pattern)
    return (not first or value >= first) and (not last or value[: len(last)] <= last)


def _counted(level: str, holdings: list[Holding]) -> dict[str, object]:
    """Give the attributes that an entity has by what it holds (PS3.4 sections C.3.4, C.6.1.1 and C.6.2.1)."""
    counts: dict[str, object] = {"InstanceAvailability": "ONLINE"}
    studies, series = ({holding.key(lower) for holding in holdings} for lower in ("STUDY", "SERIES"))
    classes = sorted({str(holding.header.SOPClassUID) for holding in holdings})
    match level:
        case "PATIENT":
            counts["NumberOfPatientRelatedStudies"] = len(studies)
            counts["NumberOfPatientRelatedSeries"] = len(series)
            counts["NumberOfPatientRelatedInstances"] = len(holdings)
        case "STUDY":
            counts["NumberOfStudyRelatedSeries"] = len(series)
            counts["NumberOfStudyRelatedInstances"] = len(holdings)
            counts["ModalitiesInStudy"] = sorted({str(holding.header.get("Modality", "")) for holding in holdings})
            counts["SOPClassesInStudy"] = classes
        case "SERIES":
            counts["NumberOfSeriesRelatedInstances"] = len(holdings)
            counts["SOPClassUID"] = classes
        case _:  # IMAGE
            counts["AvailableTransferSyntaxUID"] = holdings[0].transfer_syntax
    return counts


def _empty(tag: BaseTag, vr: str) -> DataElement:
    return DataElement(Tag(tag), vr, None if vr != "SQ" else [])


def _texts(value: object) -> list[str]:
    """Give the values of an element as texts, none for an empty one."""
    if value is None or value == "":
        return []
    if isinstance(value, (MultiValue, list)):
        return [str(one) for one in value]
    return [str(value)]
