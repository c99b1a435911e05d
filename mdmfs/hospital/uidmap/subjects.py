"""Subjects as rows: by their id, and by a digest of who the patient is."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from typing import Final

import msgspec

from mdmfs.hospital import tables
from mdmfs.hospital.rows import Stored, digest_key
from mdmfs.hospital.uidmap.records import SubjectRow
from mdmfs.model.errors import StoreError
from mdmfs.model.subject import SubjectId
from mdmfs.rows.port import Rows

_ROWS: Final = Stored(SubjectRow)


class Subjects:
    """The rows that say which subject a patient is: one for (project, issuer, Patient ID), found by it and by its id.

    After a merge several subjects are one patient; ``find`` then gives the one under whom new images come.

    ``s`` + the id's 10 bytes: the row. ``S`` + digest of (project, issuer, Patient ID): the id's 10 bytes. ``Y`` + the
    id's 10 bytes: nothing, until the subject's merge has ended.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def admit(self, project: str, issuer: str, patient_id: str, make: Callable[[], SubjectRow]) -> SubjectRow:
        """Give the row of this patient; where there is none, keep the one that ``make`` makes.

        Raises ``StoreError`` if the row made is of another patient, or its id is taken.
        """
        found = self.find(project, issuer, patient_id)
        if found is not None:
            return found
        row = make()
        if (row.project, row.issuer, row.patient_id) != (project, issuer, patient_id):
            message = "a subject row was made for another patient than the one to admit"
            raise StoreError(message)
        if self.by_id(row.id) is not None:
            message = "a new subject drew an id that is taken: the source of random numbers is broken"
            raise StoreError(message)
        self._rows.put(tables.SUBJECTS + _octets(row.id), _ROWS.encode(row))
        self._rows.put(tables.PATIENTS + digest_key(project, issuer, patient_id), _octets(row.id))
        return row

    def find(self, project: str, issuer: str, patient_id: str) -> SubjectRow | None:
        """Give the row of this patient, or None."""
        octets = self._rows.get(tables.PATIENTS + digest_key(project, issuer, patient_id))
        return None if octets is None else self._row(octets)

    def by_id(self, subject: SubjectId) -> SubjectRow | None:
        """Give the row of this subject, or None."""
        return self._row(_octets(subject))

    def hand_over(self, subject: SubjectId, issuer: str, patient_id: str) -> SubjectRow:
        """Say that a subject is another patient by now, because the hospital merged the two; give the row.

        ``find`` of the patient before gives nothing any more. Raises ``StoreError`` for an id that is not known.
        """
        row = self.by_id(subject)
        if row is None:
            message = f"there is no subject {subject}"
            raise StoreError(message)
        self._forget_patient(row)
        row = msgspec.structs.replace(row, issuer=issuer, patient_id=patient_id)
        self._rows.put(tables.SUBJECTS + _octets(subject), _ROWS.encode(row))
        if self.find(row.project, issuer, patient_id) is None:
            self._rows.put(tables.PATIENTS + digest_key(row.project, issuer, patient_id), _octets(subject))
        return row

    def page(self, limit: int, after: SubjectId | None = None) -> list[SubjectRow]:
        """Give some of all rows, in the order of the ids' bytes."""
        begin = b"" if after is None else _octets(after) + b"\0"
        return [_ROWS.decode(value) for _, value in itertools.islice(self._rows.scan(tables.SUBJECTS, begin), limit)]

    def begin_merge(self, subject: SubjectId) -> None:
        """Keep in mind that a subject has been handed over whose series are not all shown again."""
        self._rows.put(tables.MERGES + _octets(subject), b"")

    def merging(self) -> list[SubjectId]:
        """Give the subjects whose merges have begun and not ended."""
        return [SubjectId.from_random(octets) for octets, _ in self._rows.scan(tables.MERGES)]

    def end_merge(self, subject: SubjectId) -> bool:
        """Say that a merge has ended; False where none had begun."""
        return self._rows.delete(tables.MERGES + _octets(subject))

    def delete(self, subject: SubjectId) -> bool:
        """Forget who this subject is, for ever, and that he is being merged; False where there was no row."""
        row = self.by_id(subject)
        if row is None:
            return False
        self._forget_patient(row)
        self.end_merge(subject)
        return self._rows.delete(tables.SUBJECTS + _octets(subject))

    def _forget_patient(self, row: SubjectRow) -> None:
        """Find the patient under this subject no more, if he was; another subject may have taken over."""
        key = tables.PATIENTS + digest_key(row.project, row.issuer, row.patient_id)
        if self._rows.get(key) == _octets(row.id):
            self._rows.delete(key)

    def _row(self, octets: bytes) -> SubjectRow | None:
        value = self._rows.get(tables.SUBJECTS + octets)
        return None if value is None else _ROWS.decode(value)


def keep_merges_by_subject(rows: Rows) -> None:
    """To format 7: a merge that has not ended is kept by its subject, not by a digest of the patient that he was."""
    subjects = Subjects(rows)
    for key, octets in list(rows.scan(tables.PATIENTS)):
        row = subjects.by_id(SubjectId.from_random(octets))
        if row is not None and digest_key(row.project, row.issuer, row.patient_id) != key:
            subjects.begin_merge(row.id)
            rows.delete(tables.PATIENTS + key)


def _octets(subject: SubjectId) -> bytes:
    return base64.b32decode(subject.text.upper())
