"""Records of the hospital's store for tests: made of numbers, equal for equal numbers, no patient behind them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from mdmfs.access.acl import Acl, Entry, EntryKind, Right
from mdmfs.hospital.catalogue.records import FileRecord, FileState, NewFile, Rendition
from mdmfs.hospital.ledger.records import QuarantineRecord, SeriesRecord, SeriesState
from mdmfs.hospital.uidmap.records import InstanceRecord, SubjectRow
from mdmfs.model.names import Guid, Lfn
from mdmfs.model.subject import SubjectId

NOW = 1_700_000_000.0
CHECK = b"\x07" * 16
PROJECT = "neuro"
SERIES_LFN = Lfn.parse("/grid/medical/amc/neuro/sub-a/ses-20180312/003-MR")
OWNER_ONLY = Acl(
    "/DC=org/CN=owner",
    (Entry(EntryKind.OWNER, "", (Right.READ | Right.TRAVERSE).value),),
    (Entry(EntryKind.OWNER, "", Right.READ.value),),
)
NOBODY = Acl("/DC=org/CN=owner", ())


def counting_random() -> Callable[[int], bytes]:
    """Give octets that are never the same twice and always the same in the next run."""
    drawn = 0

    def draw(size: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return hashlib.sha256(b"%d" % drawn).digest()[:size]

    return draw


def guid_of(number: int) -> Guid:
    """Make a GUID; they sort unlike their numbers."""
    return Guid.from_random(hashlib.sha256(b"guid %d" % number).digest()[:16])


def subject_of(number: int) -> SubjectId:
    """Make a subject's id."""
    return SubjectId.from_random(hashlib.sha256(b"subject %d" % number).digest()[:10])


def subject_row(number: int, patient_id: str, *, project: str = PROJECT, issuer: str = "AMC") -> SubjectRow:
    """Make a row."""
    return SubjectRow(subject_of(number), project, issuer, patient_id, -364, 7, bytes([number % 256]) * 32, NOW)


def instance_of(number: int, *, series: int = 1, project: str = PROJECT, class_uid: str = "1.2.4") -> InstanceRecord:
    """Make what a GUID stands for."""
    return InstanceRecord(
        project, subject_of(1), "PACS", f"1.2.3.{series}", f"1.2.3.{series}.9", f"1.2.3.9.{number}", class_uid, "1.2.1"
    )


def rendition_of(number: int, *, size: int = 1000, segments: int = 1) -> Rendition:
    """Make a rendition."""
    digest = hashlib.sha256(b"%d" % number).digest()
    parts = digest if segments == 1 else digest * segments
    return Rendition(size, 100, digest, digest[::-1], parts, b"p" * 32, 1, "1.2.840.10008.1.2.1")


def new_file(number: int, *, size: int = 1000, project: str = PROJECT, segments: int = 1) -> NewFile:
    """Make a file about to be registered."""
    return NewFile(guid_of(number), project, rendition_of(number, size=size, segments=segments), 2, NOW + number, CHECK)


def file_record(number: int) -> FileRecord:
    """Make a registered file."""
    file = new_file(number)
    return FileRecord(
        file.guid, number + 2, PROJECT, b"", 1, 2, file.key_check, FileState.VISIBLE, 0.0, (), file.rendition
    )


def series_record(number: int, state: SeriesState = SeriesState.REGISTERING) -> SeriesRecord:
    """Make a series."""
    uid = f"1.2.3.{number}"
    return SeriesRecord(PROJECT, uid, uid + ".9", "PACS", subject_of(1), SERIES_LFN, state, 120, {"key1": 3}, NOW)


def quarantined(number: int, *, series: int = 1, project: str = PROJECT) -> QuarantineRecord:
    """Make a refusal."""
    uid = f"1.2.3.{series}"
    return QuarantineRecord(project, uid, uid + ".9", f"1.2.3.9.{number}", "residue", "(0010,0010)", NOW)
