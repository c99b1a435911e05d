"""Whether a principal may have a file now: ACLs, project, patient, rules; decided purely, on one view of the store."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, NamedTuple

from mdmfs.access.acl import Acl
from mdmfs.access.decide import Granted, Grants, Refusal, Refused
from mdmfs.hospital.catalogue.records import FileRecord, FileState
from mdmfs.hospital.deid.deidentify import ENGINE_GENERATION
from mdmfs.hospital.deid.header import IdentifiedHeader
from mdmfs.hospital.deid.pseudonyms import PatientKey, Subject
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.hospital import Hospital, subject_of
from mdmfs.hospital.kept.known import claim_of
from mdmfs.hospital.projects import Project
from mdmfs.hospital.release.queue import Source
from mdmfs.hospital.release.render import Admission
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import InstanceRecord
from mdmfs.model.errors import (
    AccessDeniedError,
    CredentialExpiredError,
    InstanceRefusedError,
    MdmfsError,
    NoSuchFileError,
    PacsUnreachableError,
)
from mdmfs.model.identity import Principal
from mdmfs.model.names import Guid

_OPENABLE: Final = {FileState.VISIBLE, FileState.SUPERSEDED}


class Bar(enum.StrEnum):
    """Why a file stays in although its ACLs let the caller have it."""

    GONE = "the file is gone"
    PROJECT_OVER = "the project has ended"
    OPTED_OUT = "the patient has opted out"
    OTHER_RULES = "registered under another policy or engine"
    NO_PACS = "its PACS is not configured"


class Standing(NamedTuple):
    """A decision for a principal, and what it rests on."""

    granted: Granted | None
    """None where no ACL was asked."""
    source: Source
    project: Project
    version: int
    """Of the store, before it was read."""
    is_lost: bool
    """Whether the PACS was last found not to have it as it was registered."""
    until: float
    """When a credential or an entry of an ACL ends that may have decided."""


class Denial(NamedTuple):
    """A decision against him."""

    outcome: str
    """For the audit log; empty where there is no such file, and nothing to decide."""
    error: MdmfsError
    uid: str = ""
    """The pseudonymous SOP Instance UID, for the audit log."""
    project: str = ""


def deciding(answer: Granted | Refused | None) -> str:
    """Name the entry that decided, for the audit log; empty where none did."""
    return "" if answer is None or answer.entry is None else f"{answer.entry.kind}:{answer.entry.qualifier}"


def decide(principal: Principal, guids: Sequence[Guid], hospital: Hospital) -> list[Standing | Denial]:
    """Decide by ACLs, projects, patients and rules, about all files as they are at one moment."""
    return hospital.store.read(lambda tx: decide_in(tx, principal, guids, hospital))


def decide_in(
    tx: Transaction, principal: Principal, guids: Sequence[Guid], hospital: Hospital
) -> list[Standing | Denial]:
    """Decide as ``decide``, in a view that shows what else is asked for."""
    moment = _Moment(tx, principal, hospital)
    return [moment.decide(guid) for guid in guids]


def stand(guids: Sequence[Guid], hospital: Hospital) -> list[Standing | Denial]:
    """Decide as ``decide`` by all but ACLs: who asks is this hospital itself, and decides about his readers."""
    own = Principal(hospital.dn, (), float("inf"))

    def read(tx: Transaction) -> list[Standing | Denial]:
        moment = _Moment(tx, own, hospital)
        return [moment.stand(guid) for guid in guids]

    return hospital.store.read(read)


def hold_still(standing: Iterable[Standing], hospital: Hospital) -> bool:
    """Tell whether deciding again would come to the same: nothing was committed and nothing has ended since."""
    now, version = hospital.clock(), hospital.store.version()
    return all(now < it.until and not it.project.is_over(now) and it.version == version for it in standing)


class _Way(NamedTuple):
    """What files have in common whose names are in the same directories, and that share an ACL."""

    aliases: list[tuple[bytes, ...]]
    """For each of the names the ids of the ACLs above it, and last the file's own."""
    until: float
    """When the first of what may have decided by them ends."""


class _Whence(NamedTuple):
    """Where a file comes from."""

    project: Project
    instance: InstanceRecord
    origin: _Origin
    uid: str
    is_lost: bool


class _Known(NamedTuple):
    """What the store says of a file, whoever asks and whenever."""

    file: FileRecord
    whence: _Whence | Bar


class _Origin(NamedTuple):
    """What the files of a series have in common of where they come from, when nothing keeps them in."""

    subject: Subject
    admit: Callable[[IdentifiedHeader], Awaitable[Admission]]
    claim: bytes


class _Moment:
    """One view of the store for one principal; what siblings share is decided once.

    What the store says, whoever asks and whenever, is looked up once a commit.
    """

    def __init__(self, tx: Transaction, principal: Principal, hospital: Hospital) -> None:
        self._tx = tx
        self._hospital = hospital
        self._version = tx.version
        self._now = hospital.clock()
        self._not_after = principal.not_after
        self._grants = Grants(principal, self._acl, self._now)
        self._ways: dict[tuple[object, ...], _Way] = {}
        self._read = hospital.read

    def decide(self, guid: Guid) -> Standing | Denial:
        """Decide about one file."""
        known = self._known_of(guid)
        if known is None or known.file.state not in _OPENABLE:
            return Denial("", NoSuchFileError(_no_such_file(guid)))
        way = self._way_to(known.file)
        granted = self._grants.grant(guid, way.aliases)
        if isinstance(granted, Refused):
            by = f" ({named})" if (named := deciding(granted)) else ""
            error = _refused(guid, granted.refusal)
            uid = pseudonymous_uid_of(self._tx, guid)
            return Denial(f"{granted.refusal.value}{by}", error, uid, known.file.project)
        return self._admit(known, granted, way.until)

    def stand(self, guid: Guid) -> Standing | Denial:
        """Decide about one file by all but its ACLs."""
        known = self._known_of(guid)
        if known is None or known.file.state not in _OPENABLE:
            return Denial("", NoSuchFileError(_no_such_file(guid)))
        return self._admit(known, None, self._not_after)

    def _admit(self, known: _Known, granted: Granted | None, until: float) -> Standing | Denial:
        file, whence = known
        project = self._hospital.projects.get(file.project)
        if whence is not Bar.GONE and (project is None or project.is_over(self._now)):
            whence = Bar.PROJECT_OVER
        if isinstance(whence, Bar):
            uid = pseudonymous_uid_of(self._tx, file.guid)
            return Denial(whence.value, _barred(file.guid, whence), uid, file.project)
        origin, currency = whence.origin, _Currency(self._hospital, file, self._version)
        source = Source(file, whence.instance, origin.admit, currency.holds, whence.uid, origin.claim)
        return Standing(granted, source, whence.project, self._version, whence.is_lost, until)

    def _acl(self, acl_id: bytes) -> Acl | None:
        return self._read.of(self._version, acl_id, lambda: acl_of(self._tx, acl_id))

    def _ids_above(self, directory: int) -> list[bytes]:
        return self._read.of(self._version, directory, lambda: self._tx.acls.ids_above(directory))

    def _way_to(self, file: FileRecord) -> _Way:
        shared = file.acl, *[place.parent for place in file.places]
        way = self._ways.get(shared)
        if way is None:
            aliases = [(*self._ids_above(place.parent), file.acl) for place in file.places]
            way = self._ways[shared] = _Way(aliases, min([self._not_after, *map(self._end_of, aliases)]))
        return way

    def _end_of(self, ids: tuple[bytes, ...]) -> float:
        """Give when the first entry ends that may have decided."""
        acls = [found for found in map(self._acl, ids) if found is not None]
        ends = [entry.not_after for found in acls for entry in found.entries if entry.not_after is not None]
        return min(ends, default=float("inf"))

    def _known_of(self, guid: Guid) -> _Known | None:
        """Give what the store says of a file; its GUID alone may name its ACL."""
        return self._read.of(self._version, ("file", guid.octets), lambda: self._look_up(guid))

    def _look_up(self, guid: Guid) -> _Known | None:
        tx = self._tx
        file = tx.catalogue.file(guid)
        if file is None:
            return None
        instance, project = tx.uidmap.resolve(guid), self._hospital.projects.get(file.project)
        if instance is None:
            return _Known(file, Bar.GONE)
        if project is None:
            return _Known(file, Bar.PROJECT_OVER)
        rules = file.project, file.rendition.policy, file.rendition.engine_generation
        shared = *rules, instance.subject.text, instance.study_uid, instance.pacs, instance.transfer_syntax
        origin = self._read.of(self._version, shared, lambda: self._find_origin(file, instance, project))
        if isinstance(origin, Bar):
            return _Known(file, origin)
        uid = origin.subject.pseudonymous_uid(instance.instance_uid.encode()).decode()
        return _Known(file, _Whence(project, instance, origin, uid, tx.losses.get(guid) is not None))

    def _find_origin(self, file: FileRecord, instance: InstanceRecord, project: Project) -> _Origin | Bar:
        hospital, row = self._hospital, self._tx.subjects.by_id(instance.subject)
        if row is None:
            return Bar.PROJECT_OVER
        patient = PatientKey(row.issuer, row.patient_id)
        if hospital.opted_out.may_mean(patient, instance.study_uid):
            return Bar.OPTED_OUT
        if (file.rendition.policy, file.rendition.engine_generation) != (project.policy.digest, ENGINE_GENERATION):
            return Bar.OTHER_RULES
        known, subject = hospital.pacs.get(instance.pacs), subject_of(row)
        if known is None:
            return Bar.NO_PACS

        async def admit_header(header: IdentifiedHeader) -> Admission:
            if known.patient_of(header) != patient:
                raise RefusedError(Reason.OTHER_PATIENT)
            return Admission(project.policy, subject)

        return _Origin(subject, admit_header, claim_of(patient, known.issuer, instance.transfer_syntax))


def pseudonymous_uid_of(tx: Transaction, guid: Guid) -> str:
    """Give the SOP Instance UID of a file as its readers see it; empty where its subject was forgotten."""
    instance = tx.uidmap.resolve(guid)
    row = None if instance is None else tx.subjects.by_id(instance.subject)
    if instance is None or row is None:
        return ""
    return subject_of(row).pseudonymous_uid(instance.instance_uid.encode()).decode()


class _Currency:
    """Whether a file may still be opened under the key that it had; the store is only read when it has changed."""

    def __init__(self, hospital: Hospital, file: FileRecord, version: int) -> None:
        self._hospital = hospital
        self._file = file
        self._version = version

    def holds(self) -> bool:
        version = self._hospital.store.version()
        if version == self._version:
            return True
        does_hold = is_current(self._hospital, self._file.guid, self._file.generation)
        if does_hold:  # else, or where the store could not be read, whoever asks again would hear yes
            self._version = version
        return does_hold


def is_current(hospital: Hospital, guid: Guid, generation: int) -> bool:
    """Tell whether a file may still be opened under this generation of its key."""
    file = hospital.store.read(lambda tx: tx.catalogue.file(guid))
    return file is not None and is_open_under(file, generation)


def is_open_under(file: FileRecord, generation: int) -> bool:
    """Tell whether a file, as it is registered, may be opened under this generation of its key."""
    return file.state in _OPENABLE and file.generation == generation


def acl_of(tx: Transaction, acl_id: bytes) -> Acl | None:
    """Give what an ACL says now; None closes."""
    found = tx.acls.find(acl_id)
    return None if found is None else found.acl


def _refused(guid: Guid, refusal: Refusal) -> MdmfsError:
    if refusal is Refusal.CREDENTIAL_EXPIRED:
        return CredentialExpiredError(f"{guid} is not given for a credential that has expired")
    if refusal in {Refusal.NO_TRAVERSE, Refusal.NO_ACL}:
        return NoSuchFileError(_no_such_file(guid))
    return AccessDeniedError(f"reading {guid} is not allowed to this identity; the owner of its directory can grant it")


def _barred(guid: Guid, bar: Bar) -> MdmfsError:
    match bar:
        case Bar.GONE | Bar.OPTED_OUT:
            return NoSuchFileError(_no_such_file(guid))
        case Bar.PROJECT_OVER:
            return AccessDeniedError(f"the project of {guid} has ended; its files are no longer released")
        case Bar.OTHER_RULES:
            return InstanceRefusedError(
                f"{guid} was registered under another policy or engine; the hospital has to register it anew"
            )
        case Bar.NO_PACS:
            return PacsUnreachableError(f"the PACS of {guid} is no longer in the hospital's configuration")


def _no_such_file(guid: Guid) -> str:
    return f"there is no file {guid}, or it is not for this identity"
