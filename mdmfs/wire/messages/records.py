"""The messages by which a hospital's own people bring records in, and find out who a subject is; hospital zone only.

These name patients: they go to hospitald, from the hospital's own network, and nowhere else.
"""

from __future__ import annotations

from typing import Final

from mdmfs.wire.messages.message import Message

DEFINE_RECORDS_PATH: Final = "/v1/define-records"
COLLECTION_PATH: Final = "/v1/collection"
IMPORT_RECORDS_PATH: Final = "/v1/import-records"
RECORDS_WAITING_PATH: Final = "/v1/records-waiting"
IDENTIFY_PATH: Final = "/v1/identify"


class RecordAttribute(Message, frozen=True):
    """One attribute of a collection."""

    name: str
    type: str
    column: str
    """What files that are imported call it."""
    group: str = ""


class DefineRecords(Message, frozen=True):
    """Make or alter a collection of records of a project."""

    project: str
    name: str
    readers: list[str]
    """DNs."""
    groups: list[str]
    """FQANs."""
    attributes: list[RecordAttribute]
    key: list[str]
    narrow: dict[str, list[str]]
    """For each attribute group the DNs that may read it."""


class Barred(Message, frozen=True):
    """One who may read a collection, and may not pass a directory above it by that name alone."""

    entry: str
    """That would let him, as ``setfacl`` takes it."""
    lfn: str


class DefinedRecords(Message, frozen=True):
    """It is made, or altered, and on its way to the metadata service."""

    barred: list[Barred]


class AskCollection(Message, frozen=True):
    """Ask what the files that are imported into a collection may have."""

    project: str
    collection: str


class CollectionTold(Message, frozen=True):
    """What a collection has, from those above it too."""

    columns: dict[str, str]
    """For each column its attribute."""


class PatientRecord(Message, frozen=True):
    """One row to import. No repr shows it."""

    patient_id: str
    issuer: str
    values: dict[str, str | int | float | bool]
    """By attribute; attachments as Base64."""

    def __repr__(self) -> str:
        """Show nothing of a patient."""
        return "PatientRecord(...)"


class ImportRecords(Message, frozen=True):
    """Bring records of patients in."""

    project: str
    collection: str
    rows: list[PatientRecord]


class ImportedRecords(Message, frozen=True):
    """What became of each row, in order: empty where it was taken, else the reason, without any value of it."""

    reasons: list[str]


class AskRecordsWaiting(Message, frozen=True):
    """Ask how much the metadata service has yet to hear."""


class RecordsWaiting(Message, frozen=True):
    """How much is on its way."""

    is_empty: bool


class Identify(Message, frozen=True):
    """Ask who a subject is; two people have to, each with the right to, for the same purpose."""

    subject: str
    purpose: str


class Identified(Message, frozen=True):
    """The patient, for the second of the two; the first learns that a second is waited for. No repr shows it."""

    is_pending: bool
    patient_id: str = ""
    issuer: str = ""
    date_offset_days: int = 0

    def __repr__(self) -> str:
        """Show nothing of a patient."""
        return f"Identified(is_pending={self.is_pending})"
