"""What the hospital knows of a patient and of an instance: these records never leave the hospital zone."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from mdmfs.hospital.veil import Veiled
from mdmfs.model.subject import SubjectId

SERIES_KEY_SIZE: Final = 16


class SubjectRow(Veiled, frozen=True, array_like=True):
    """One patient in one project, and all that makes his pseudonym; deleting the row ends linkability."""

    id: SubjectId
    project: str
    issuer: str
    """Issuer of Patient ID, or the PACS where the PACS gives none."""
    patient_id: str
    date_offset_days: int
    """Added to every date; a negative multiple of 7."""
    extra_minutes: int
    uid_key: bytes
    """32 random bytes: the key of the HMAC that makes his UIDs."""
    created: float


class SeriesKey(Veiled, frozen=True, array_like=True):
    """One series in one project, by its real UIDs."""

    project: str
    study_uid: str
    series_uid: str

    def octets(self) -> bytes:
        """Give 16 bytes that stand for this key, inside the hospital only: a bare digest of UIDs is no pseudonym."""
        return hashlib.sha256(msgspec.msgpack.encode(self)).digest()[:SERIES_KEY_SIZE]


class InstanceRecord(Veiled, frozen=True, array_like=True):
    """What a GUID stands for in the PACS."""

    project: str
    subject: SubjectId
    pacs: str
    study_uid: str
    series_uid: str
    instance_uid: str
    class_uid: str
    transfer_syntax: str
    """In which the PACS holds it."""

    @property
    def series(self) -> SeriesKey:
        """The series that it belongs to."""
        return SeriesKey(self.project, self.study_uid, self.series_uid)
