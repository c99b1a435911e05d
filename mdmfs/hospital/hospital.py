"""A hospital: the parts that release and registration work with, in one value."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from mdmfs.access.acl import Acl
from mdmfs.hospital.bell import Bell
from mdmfs.hospital.catalogue.records import FileRecord
from mdmfs.hospital.deid.header import IdentifiedHeader
from mdmfs.hospital.deid.pseudonyms import PatientKey, Subject
from mdmfs.hospital.dicom.pacs import Pacs
from mdmfs.hospital.feed import Feed
from mdmfs.hospital.kept.audit import Audit
from mdmfs.hospital.kept.escrow import Seal
from mdmfs.hospital.kept.headers import Headers
from mdmfs.hospital.kept.shares import Shares
from mdmfs.hospital.kept.staging import Staging
from mdmfs.hospital.leases import Leases
from mdmfs.hospital.moment import Answers
from mdmfs.hospital.projects import PatientList, Project
from mdmfs.hospital.storage.replicas import Replicas
from mdmfs.hospital.store import Store
from mdmfs.hospital.turns import Turns
from mdmfs.hospital.uidmap.records import SubjectRow
from mdmfs.model.identity import Dn
from mdmfs.model.names import Guid
from mdmfs.model.subject import SubjectId
from mdmfs.wire.keystores.keystores import Keystores

MAX_READ: Final = 4096
"""Of what decisions read, by files and by the entries of ACLs: some 10 MiB, with the longest DNs 24."""


_WEIGHED: Final = 2560
"""Bytes of one."""


def weight_of(read: object) -> int:
    """Count an ACL by its entries, and a file by the digests of its segments: those of 2 GiB take 16 KiB."""
    match read:
        case Acl():
            return 1 + len(read.entries) + len(read.defaults)
        case (FileRecord(rendition=rendition), *_):
            return 1 + len(rendition.segment_sha256) // _WEIGHED
        case _:
            return 1


class KnownPacs(NamedTuple):
    """A PACS and how it names patients."""

    pacs: Pacs
    issuer: str
    """Stands for the issuer in images that name none."""

    def patient_of(self, header: IdentifiedHeader) -> PatientKey:
        """Give whose image it is, as the hospital knows patients."""
        return PatientKey(header.patient.issuer or self.issuer, header.patient.patient_id)


@dataclasses.dataclass(frozen=True, slots=True)
class Hospital:
    """One hospital at work. ``clock`` gives seconds since the epoch."""

    name: str
    dn: Dn
    """Of its own certificate."""
    store: Store
    pacs: Mapping[str, KnownPacs]
    projects: Mapping[str, Project]
    opted_out: PatientList
    keystores: Keystores
    seal: Seal
    threshold: int
    required: int
    """Keystores that must have acknowledged before a file is visible."""
    staging: Staging
    headers: Headers
    shares: Shares
    """What recalls collect."""
    audit: Audit
    outbox: Bell
    """Rings when something for the keystores is committed."""
    feed: Feed
    clock: Callable[[], float]
    is_beside: bool = False
    """Whether another daemon works on its store, and this one only answers."""
    has_metadata: bool = False
    """Whether a metadata service is told of images and records."""
    leases: Leases = dataclasses.field(default_factory=Leases)
    told: Answers = dataclasses.field(default_factory=Answers)
    """What mounts were told of changes in this second."""
    read: Answers = dataclasses.field(default_factory=lambda: Answers(MAX_READ, weight_of))
    """What decisions have read since the last commit: files, ACLs, and where series come from."""
    replicas: Replicas = dataclasses.field(default_factory=Replicas)
    turns: Turns = dataclasses.field(default_factory=Turns)
    """Who registers a series: harvest and trigger may come upon the same one."""
    forgetting: Counter[SubjectId] = dataclasses.field(default_factory=Counter)
    """Of which subjects nothing is registered just now, by how many forget them."""

    def discard(self, guid: Guid) -> None:
        """Drop what is here of a file that is gone, or has another key: the hospital serves none of it any more."""
        self.staging.discard(guid)
        self.headers.discard(guid)
        self.shares.drop(guid)
        self.replicas.doubt(guid)


def subject_of(row: SubjectRow) -> Subject:
    """Give the engine the values of a subject's row."""
    return Subject(
        id=row.id, date_offset_days=row.date_offset_days, extra_minutes=row.extra_minutes, uid_key=row.uid_key
    )
