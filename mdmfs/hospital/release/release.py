"""Release: the hospital's act of letting one file out, in the order that nobody may change.

Decide, record, recall, de-identify, refuse residue, compare with what was registered, seal. This page decides and
records; ``recall`` and ``render`` do the rest.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from mdmfs.access.acl import Acl
from mdmfs.access.decide import Granted, Refusal, grant
from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.deid.deidentify import ENGINE_GENERATION
from mdmfs.hospital.deid.header import IdentifiedHeader
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.hospital import Hospital, subject_of
from mdmfs.hospital.ledger.records import QuarantineRecord, SeriesState
from mdmfs.hospital.projects import Partial
from mdmfs.hospital.release.audit import AuditRecord, Event
from mdmfs.hospital.release.queue import Source
from mdmfs.hospital.release.recall import Recalls
from mdmfs.hospital.release.render import Admission
from mdmfs.hospital.release.staging import StagedObject
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import (
    AccessDeniedError,
    BusyError,
    CredentialExpiredError,
    InstanceRefusedError,
    MdmfsError,
    NoSuchFileError,
    PacsUnreachableError,
)
from mdmfs.model.identity import Principal
from mdmfs.model.names import Guid

_OPENABLE: Final = {FileState.VISIBLE, FileState.SUPERSEDED}
ATTEMPTS: Final = 3
"""How often a file is brought online for one request, should its key be renewed meanwhile."""


class Bar(enum.StrEnum):
    """Why a file stays in although its ACLs let the caller have it."""

    GONE = "the file is gone"
    PROJECT_OVER = "the project has ended"
    OPTED_OUT = "the patient has opted out"
    OTHER_RULES = "registered under another policy or engine"
    NO_PACS = "its PACS is not configured"


async def release(
    principal: Principal, guid: Guid, hospital: Hospital, recalls: Recalls, *, address: str, is_ahead: bool = False
) -> StagedObject:
    """Let one file out to a principal at an address; gives the staged object, whole or on its way.

    With ``is_ahead`` a mount asks for it before any program does: then the PACS is spared in its clinical hours.

    A recall may take a minute, and what was decided before it is decided again after it. Raises ``NoSuchFileError`` and
    ``AccessDeniedError`` as decided, ``StoreError`` if the decision cannot be recorded, and what a recall raises.
    """
    granted, source = await _decide(principal, guid, hospital, address)
    if is_ahead and hospital.staging.find(guid, source.file.generation) is None:
        recalls.refuse_impolite(source)
    await hospital.audit.record(_record(principal, guid, hospital, address, Event.RELEASE, _deciding(granted)))
    for _ in range(ATTEMPTS):
        staged = hospital.staging.find(guid, source.file.generation)
        if staged is not None:
            return staged
        await recalls.bring_online(source, is_ahead=is_ahead)
        granted, source = await _decide(principal, guid, hospital, address)
    message = f"the key or the copy of {guid} was renewed again and again while it was brought online; open it again"
    raise BusyError(message)


async def _decide(principal: Principal, guid: Guid, hospital: Hospital, address: str) -> tuple[Granted, Source]:
    """Decide by ACLs, project, patient and rules; a refusal is recorded, then raised."""
    granted = await admit(principal, guid, hospital, address=address)
    source = source_of(granted, hospital)
    if isinstance(source, Bar):
        await hospital.audit.record(_record(principal, guid, hospital, address, Event.REFUSAL, source.value))
        raise _barred(guid, source)
    return granted, source


async def admit(principal: Principal, guid: Guid, hospital: Hospital, *, address: str) -> Granted:
    """Decide whether the principal may read the file; a refusal is recorded, then raised."""
    aliases = hospital.store.read(lambda tx: _acls_of(tx, guid))
    decision = grant(principal, guid, aliases, hospital.clock())
    if isinstance(decision, Granted):
        return decision
    await hospital.audit.record(_record(principal, guid, hospital, address, Event.REFUSAL, decision.value))
    if decision is Refusal.CREDENTIAL_EXPIRED:
        message = "the credential has expired; renew the proxy"
        raise CredentialExpiredError(message)
    if decision in {Refusal.NO_TRAVERSE, Refusal.NO_ACL}:
        raise NoSuchFileError(_no_such_file(guid))
    message = f"reading {guid} is not allowed to this identity; the owner of its directory can grant it"
    raise AccessDeniedError(message)


def source_of(granted: Granted, hospital: Hospital) -> Source | Bar:
    """Find where a granted file comes from, unless its project or its patient no longer allow it."""
    guid = granted.guid
    file, instance = hospital.store.read(lambda tx: (tx.catalogue.file(guid), tx.uidmap.resolve(guid)))
    if file is None or instance is None or file.state not in _OPENABLE:
        return Bar.GONE
    row = hospital.store.read(lambda tx: tx.subjects.by_id(instance.subject))
    project = hospital.projects.get(file.project)
    if row is None or project is None or project.is_over(hospital.clock()):
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

    return Source(file, instance, admit_header, lambda: is_current(hospital, guid, file.generation))


def is_current(hospital: Hospital, guid: Guid, generation: int) -> bool:
    """Tell whether a file may still be opened under this generation of its key."""
    file = hospital.store.read(lambda tx: tx.catalogue.file(guid))
    return file is not None and file.state in _OPENABLE and file.generation == generation


async def quarantine(hospital: Hospital, guid: Guid, refused: RefusedError) -> None:
    """Take the name of a file away that was refused when it was recalled; the reason is kept, and no value.

    With it go those of its whole series, unless the project shows parts: half a volume is worse than none.
    """

    def act(tx: Transaction) -> None:
        instance = tx.uidmap.resolve(guid)
        if instance is not None:
            tx.quarantine.put(
                QuarantineRecord(
                    project=instance.project,
                    study_uid=instance.study_uid,
                    series_uid=instance.series_uid,
                    instance_uid=instance.instance_uid,
                    reason=refused.reason.value,
                    tag=refused.where,
                    when=now,
                )
            )
            hidden = [guid]
            project, series = hospital.projects.get(instance.project), tx.series.get(instance.series)
            if series is not None and (project is None or project.partial is Partial.HIDE):
                hidden = [sibling for sibling, _ in tx.uidmap.of_series(instance.series)]
                tx.series.put(msgspec.structs.replace(series, state=SeriesState.HIDDEN))
            tx.catalogue.quarantine(hidden, now=now)

    now = hospital.clock()
    await hospital.store.write(act)
    hospital.feed.bell.ring()
    await hospital.audit.record(
        AuditRecord(time=now, event=Event.QUARANTINE, guid=str(guid), outcome=refused.reason.value)
    )


def _acls_of(tx: Transaction, guid: Guid) -> list[list[Acl | None]]:
    file = tx.catalogue.file(guid)
    if file is None or file.state not in _OPENABLE:
        raise NoSuchFileError(_no_such_file(guid))
    return [[acl_of(tx, acl_id) for acl_id in chain] for chain in tx.catalogue.aliases_of(guid)]


def acl_of(tx: Transaction, acl_id: bytes) -> Acl | None:
    """Give what an ACL says now; None closes."""
    found = tx.catalogue.acl(acl_id)
    return None if found is None else found.acl


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


def _deciding(granted: Granted) -> str:
    return "owner" if granted.entry is None else f"{granted.entry.kind}:{granted.entry.qualifier}"


def _record(
    principal: Principal, guid: Guid, hospital: Hospital, address: str, event: Event, outcome: str
) -> AuditRecord:
    return AuditRecord(
        time=hospital.clock(),
        event=event,
        dn=str(principal.dn),
        fqans=tuple(map(str, principal.fqans)),
        guid=str(guid),
        address=address,
        outcome=outcome,
    )


def _no_such_file(guid: Guid) -> str:
    return f"there is no file {guid}, or it is not for this identity"
