"""The ports of the UID map: what a storage engine has to offer of subjects and instances, inside one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from mdmfs.hospital.uidmap.records import InstanceRecord, SeriesKey, SubjectRow
from mdmfs.model.names import Guid
from mdmfs.model.subject import SubjectId


class Subjects(Protocol):
    """The rows that say which subject a patient is: one for (project, issuer, Patient ID), found by it and by its id.

    After a merge several subjects are one patient; ``find`` then gives the one under whom new images come.
    """

    def admit(self, project: str, issuer: str, patient_id: str, make: Callable[[], SubjectRow]) -> SubjectRow:
        """Give the row of this patient; where there is none, keep the one that ``make`` makes.

        Raises ``StoreError`` if the row made is of another patient, or its id is taken.
        """

    def find(self, project: str, issuer: str, patient_id: str) -> SubjectRow | None:
        """Give the row of this patient, or None."""

    def by_id(self, subject: SubjectId) -> SubjectRow | None:
        """Give the row of this subject, or None."""

    def hand_over(self, subject: SubjectId, issuer: str, patient_id: str) -> SubjectRow:
        """Say that a subject is another patient by now, because the hospital merged the two; give the row.

        ``find`` of the patient before gives nothing any more. Raises ``StoreError`` for an id that is not known.
        """

    def page(self, limit: int, after: SubjectId | None = None) -> list[SubjectRow]:
        """Give some of all rows, in one order."""

    def begin_merge(self, subject: SubjectId) -> None:
        """Keep in mind that a subject has been handed over whose series are not all shown again."""

    def merging(self) -> list[SubjectId]:
        """Give the subjects whose merges have begun and not ended."""

    def end_merge(self, subject: SubjectId) -> bool:
        """Say that a merge has ended; False where none had begun."""

    def delete(self, subject: SubjectId) -> bool:
        """Forget who this subject is, for ever, and that he is being merged; False where there was no row."""


class UidMap(Protocol):
    """GUID to instance and back."""

    def tie(self, guid: Guid, record: InstanceRecord) -> None:
        """Keep what a GUID stands for; again with the same record changes nothing.

        Raises ``StoreError`` if the GUID stands for something else.
        """

    def resolve(self, guid: Guid) -> InstanceRecord | None:
        """Give what a GUID stands for, or None."""

    def guids_of(self, project: str, instance_uid: str) -> list[Guid]:
        """Give the GUIDs of an instance in a project, newest first."""

    def untie(self, guid: Guid) -> bool:
        """Forget what a GUID stands for; False where it stood for nothing."""

    def of_series(self, series: SeriesKey) -> Iterator[tuple[Guid, InstanceRecord]]:
        """Go through the GUIDs of a series; nothing is written while this runs.

        Those of one class and transfer syntax come in the order in which they were tied.
        """

    def count_of_series(self, series: SeriesKey) -> int:
        """Count the GUIDs of a series."""
