"""A project: whose images leave the hospital, under which policy, for whom and how long (one TOML file each)."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import functools
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Final

import msgspec

from mdmfs.access.acl import Acl, Entry, EntryKind, parse_rights
from mdmfs.daemon.configuration import Settings, at_key, beside, read_configuration
from mdmfs.hospital.deid.policy import Policy
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.model.errors import AccessDeniedError, ConfigurationError
from mdmfs.model.identity import Dn
from mdmfs.model.names import Lfn
from mdmfs.pki.health import DAY

NAME_PARTS: Final = 2
"""Of the name of a project's directory: its hospital's and its own."""
_PATIENT_ID: Final = re.compile(r"[^\\\x00-\x1f\x7f]{1,64}")
"""What VR LO holds: a backslash begins another value."""
_WILDCARD: Final = re.compile(r"[*?]")
"""In what a PACS is asked for (PS3.4 C.2.2.2.4)."""
_SLIP: Final = re.compile(r"\^|\s#")
_ESCAPE: Final = re.compile(r"\\(?:S|X(?P<octet>[2-7][0-9A-F]))\\")
_ESCAPED: Final = re.compile(r"[\\^*?]|(?:^|(?<=\s))#")
HOW_TO_WRITE: Final = (
    r"escape as HL7 v2 does what belongs to a Patient ID: \S\ for ^, \X2A\ for *, \X3F\ for ?, \X23\ for #"
)
_UID: Final = re.compile(r"(?=.{1,64}\Z)[0-9]+(?:\.[0-9]+)*")

Text = Annotated[str, msgspec.Meta(pattern=r"\S")]
"""Not left empty."""

PolicyReader = Callable[[str], Policy]
"""Finds a policy by the name of a shipped one or the path of a file."""


class Partial(enum.StrEnum):
    """What becomes of a series with a quarantined instance."""

    HIDE = "hide"
    SHOW = "show"


class Approval(Settings, frozen=True):
    """Who signed, and exactly what."""

    approver: Text
    date: dt.date
    policy_digest: str
    """SHA-256 of the policy in hexadecimal digits (``mdmfs policy digest``)."""


class ProjectAccess(Settings, frozen=True):
    """The ACL that the project's directory begins with; principals by DN, groups by FQAN."""

    owner: str
    readers: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


class Placement(Settings, frozen=True):
    """Which storage elements keep sealed objects of what is let out of the project, and for how long."""

    at: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """Names of ``[[storage]]``, those preferred first."""
    copies: Annotated[int, msgspec.Meta(ge=1)] = 1
    """At how many of them."""
    on_release: bool = True
    """Whether they are put there when they are let out, and not only where ``mdmfs stage --to`` asks for it."""
    days: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    """For how long."""

    @property
    def seconds(self) -> float:
        """For how long."""
        return self.days * DAY


class ProjectFile(Settings, frozen=True):
    """A project's TOML file."""

    name: Text
    purpose: Text
    legal_reference: Text
    policy: str
    """``strict`` or ``research``, or the path of a policy file."""
    pacs: tuple[str, ...]
    inclusion: str
    """Path of the inclusion list."""
    until: dt.date
    """The last day."""
    approval: Approval
    access: ProjectAccess
    replicas: Placement | None = None
    """Where sealed objects are kept besides; nowhere where it is left out."""
    partial: Partial = Partial.HIDE
    lease: Annotated[float, msgspec.Meta(ge=5, le=3600)] = 60.0
    """Seconds for which a mount that hears nothing from the hospital serves what it holds."""


@dataclasses.dataclass(frozen=True, slots=True)
class PatientList:
    """Patients and studies, read from a file that never leaves the hospital; ``repr`` tells nothing of it."""

    patients: frozenset[PatientKey] = dataclasses.field(repr=False)
    studies: frozenset[str] = dataclasses.field(repr=False)

    def holds(self, patient: PatientKey, study_uid: str) -> bool:
        """Whether the list names the patient, or the study."""
        return patient in self.patients or study_uid in self.studies

    def may_mean(self, patient: PatientKey, study_uid: str) -> bool:
        """Whether the list could mean the patient, or names the study: where an issuer is missing, any may be meant.

        For opt-outs, where a doubt counts as a no.
        """
        if not patient.issuer and any(listed.patient_id == patient.patient_id for listed in self.patients):
            return True
        return self.holds(patient, study_uid) or PatientKey("", patient.patient_id) in self.patients


NOBODY: Final = PatientList(frozenset(), frozenset())


@dataclasses.dataclass(frozen=True, slots=True)
class Project:
    """A project as the daemon works with it."""

    name: str
    lfn: Lfn
    policy: Policy
    acl: Acl
    pacs: tuple[str, ...]
    inclusion: PatientList
    until: dt.date
    partial: Partial
    lease: float = 60.0
    """Seconds."""
    replicas: Placement | None = None

    def is_over(self, now: float) -> bool:
        """Whether its last day is past, in UTC."""
        return now >= _end_of(self.until)

    def refuse_over(self, now: float) -> None:
        """Raise ``AccessDeniedError`` where its last day is past: nothing more may be registered."""
        if self.is_over(now):
            message = f"the last day of project {self.name} is past: nothing more of it is registered"
            raise AccessDeniedError(message, what_to_do="have it approved for longer, then change its last day")


@functools.cache
def _end_of(day: dt.date) -> float:
    """Give the end of a day in UTC, in seconds since the epoch."""
    return dt.datetime.combine(day, dt.time(), dt.UTC).timestamp() + DAY


def read_projects(folder: pathlib.Path, hospital: str, policy: PolicyReader) -> Mapping[str, Project]:
    """Read every ``*.toml`` of a folder; raises ``ConfigurationError`` that names the file."""
    if not folder.is_dir():
        message = f"the folder of projects {folder} is not there"
        raise ConfigurationError(message, what_to_do="make it, or mend hospital.projects")
    projects: dict[str, Project] = {}
    for path in sorted(folder.glob("*.toml")):
        project = read_project(path, hospital, policy)
        if project.name in projects:
            message = f"{path}: a second project named {project.name}"
            raise ConfigurationError(message)
        projects[project.name] = project
    return projects


def read_project(path: pathlib.Path, hospital: str, policy: PolicyReader) -> Project:
    """Read one project and check that what was approved is what would be done; raises ``ConfigurationError``."""
    file = read_configuration(path, ProjectFile)
    if file.name.startswith("."):
        message = f"{path}: name is that of a directory, and none begins with a dot: mounts keep those for themselves"
        raise ConfigurationError(message)
    try:
        chosen = policy(file.policy if "/" not in file.policy else str(beside(path, file.policy)))
    except ConfigurationError as error:
        raise error.about(path) from error
    approved = file.approval.policy_digest.lower()
    if chosen.digest.hex() != approved:
        message = (
            f"{path}: {file.approval.approver} approved the policy with digest {approved}, but {file.policy} now has "
            f"{chosen.digest.hex()}; have the change approved, then write the new digest into [approval]"
        )
        raise ConfigurationError(message)
    with at_key(str(path)):
        lfn, acl = Lfn((hospital, file.name)), _acl_of(file.access)
    inclusion = read_patient_list(beside(path, file.inclusion))
    if any(_WILDCARD.search(patient.patient_id) for patient in inclusion.patients):
        message = f"{path}: its inclusion list names a patient by a number with * or ?, wildcards to every PACS"
        raise ConfigurationError(message, what_to_do="name his studies instead, each as 'study UID'")
    return Project(
        file.name, lfn, chosen, acl, file.pacs, inclusion, file.until, file.partial, file.lease, file.replicas
    )


def read_patient_list(path: pathlib.Path) -> PatientList:
    """Read a list of ``patient ID^^^ISSUER`` (HL7 v2 type CX) and ``study UID`` lines; ``#`` begins a comment line.

    Raises ``ConfigurationError`` that names file and line, never what stands there.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        message = f"the list {path} cannot be read: {reason}"
        raise ConfigurationError(message) from error
    return _parse_list(path, lines)


def _parse_list(path: pathlib.Path, lines: Iterable[str]) -> PatientList:
    patients: set[PatientKey] = set()
    studies: set[str] = set()
    for number, line in enumerate(lines, 1):
        kind, _, value = line.strip().partition(" ")
        patient = parse_patient(value)
        if kind == "patient" and patient is not None:
            patients.add(patient)
        elif kind == "study" and _UID.fullmatch(value.strip()):
            studies.add(value.strip())
        elif kind and not kind.startswith("#"):
            message = f"{path} line {number}: a line is 'patient ID^^^ISSUER', 'study UID' or a # comment"
            raise ConfigurationError(message, what_to_do=HOW_TO_WRITE)
    return PatientList(frozenset(patients), frozenset(studies))


def parse_patient(text: str) -> PatientKey | None:
    """Read ``ID^^^ISSUER``, the issuer being optional; None for what is no patient, or may be a slip.

    So are a caret too few, a wildcard, a remark behind the patient, an escape that is none of ours, and characters that
    nobody sees: they would make him another one, who is never found, and an opt-out that holds for nobody. Who means
    them escapes them.
    """
    identifier, _, issuer = (part.strip() for part in text.partition("^^^"))
    patient = unescaped_patient(text)
    is_slip = _SLIP.search(f"{identifier} {issuer}") or _WILDCARD.search(identifier) or "\\" in _ESCAPE.sub("", text)
    is_seen = patient.patient_id.isprintable() and patient.issuer.isprintable()
    return patient if _PATIENT_ID.fullmatch(patient.patient_id) and is_seen and not is_slip else None


def unescaped_patient(text: str) -> PatientKey:
    """Read ``ID^^^ISSUER`` with the escapes of HL7 v2 (section 2.7), whoever that may be."""
    identifier, _, issuer = (_ESCAPE.sub(_character, part).strip() for part in text.partition("^^^"))
    return PatientKey(issuer=issuer, patient_id=identifier)


def escaped_patient(patient: PatientKey) -> str:
    """Write ``ID^^^ISSUER`` as a list takes it."""
    identifier, issuer = (_ESCAPED.sub(_escape, part) for part in (patient.patient_id, patient.issuer))
    return f"{identifier}^^^{issuer}" if issuer else identifier


def _character(escape: re.Match[str]) -> str:
    octet = escape["octet"]
    return "^" if octet is None else chr(int(octet, 16))


def _escape(character: re.Match[str]) -> str:
    return "\\S\\" if character[0] == "^" else f"\\X{ord(character[0]):02X}\\"


def _acl_of(access: ProjectAccess) -> Acl:
    with at_key(f"access.owner: {access.owner!r}"):
        Dn.parse(access.owner)
    entries = (
        Entry(EntryKind.OWNER, "", parse_rights("rwxa").value),
        *(_reading(EntryKind.USER, "readers", reader) for reader in access.readers),
        *(_reading(EntryKind.GROUP, "groups", group) for group in access.groups),
        Entry(EntryKind.MASK, "", parse_rights("rx").value),
    )
    return Acl(access.owner, entries, entries)


def _reading(kind: EntryKind, key: str, who: str) -> Entry:
    with at_key(f"access.{key}: {who!r}"):
        return Entry(kind, who, parse_rights("rx").value)
