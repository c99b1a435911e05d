"""Audit records as DICOM audit messages (PS3.15 A.5) in syslog messages (RFC 5424), for the hospital's own repository.

They name the patient: whoever sends them on sends patients' data.
"""

from __future__ import annotations

import base64
import datetime as dt
import socket
from collections.abc import Iterable
from typing import Final, NamedTuple
from xml.etree import ElementTree as ET

from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.kept.audit import AuditRecord, Event
from mdmfs.hospital.projects import escaped_patient
from mdmfs.hospital.store import Transaction
from mdmfs.model.names import Guid

PRIORITY: Final = 10 * 8 + 5
"""Facility 10 (security/authorization), severity 5 (notice): PS3.15 A.6."""
_WARNING: Final = PRIORITY - 1
MSGID: Final = "DICOM+RFC3881"
_BOM: Final = b"\xef\xbb\xbf"
FQAN_SYSTEM: Final = "VOMS FQAN"
"""The code system of an FQAN that is told as a RoleIDCode."""
DETAILS: Final = ("uid", "project", "path", "purpose", "ahead", "count")
"""What is told as ParticipantObjectDetail, for want of an element of its own: named as in the JSON lines."""

SUCCESS, MINOR_FAILURE = "0", "4"
_DCM: Final = {
    "110100": "Application Activity",
    "110103": "DICOM Instances Accessed",
    "110106": "Export",
    "110113": "Security Alert",
    "110120": "Application Start",
    "110132": "Use of Restricted Function",
    "110135": "Object Security Attributes Changed",
    "110150": "Application",
    "110152": "Destination Role ID",
    "110153": "Source Role ID",
    "110154": "Destination Media",
    "110037": "URI",
    "110180": "Study Instance UID",
}


class Kind(NamedTuple):
    """Which DICOM event an event is."""

    code: str
    action: str
    type: str = ""
    outcome: str = SUCCESS


def kind_of(event: Event) -> Kind:  # noqa: C901, PLR0911 a table that the type checker completes
    """Say which DICOM event an event is; the type checker asks for a line for each new one."""
    match event:
        case Event.BEGIN | Event.FORMAT | Event.SIGNER:
            return Kind("110100", "E", "110120")
        case Event.RELEASE | Event.HEADER:
            return Kind("110106", "R")
        case Event.REFUSAL:
            return Kind("110106", "R", outcome=MINOR_FAILURE)
        case Event.CACHED_OPENS | Event.REGISTRATION | Event.STAGING | Event.REPLICA:
            return Kind("110103", "R")
        case Event.REPLICA_GONE:
            return Kind("110103", "D")
        case Event.QUARANTINE | Event.LOSS:
            return Kind("110103", "R", outcome=MINOR_FAILURE)
        case Event.MERGE | Event.NAME:
            return Kind("110103", "U")
        case Event.ACL | Event.DESTRUCTION | Event.ROTATION | Event.RESPLIT | Event.REPAIR:
            return Kind("110113", "E", "110135")
        case Event.WRONG_SHARE:
            return Kind("110113", "E", "110135", MINOR_FAILURE)
        case Event.IDENTIFICATION | Event.FORGETTING:
            return Kind("110113", "E", "110132")


class Subject(NamedTuple):
    """Whose image a record speaks of, as the PACS knows it."""

    patient_id: str
    issuer: str
    study_uid: str
    class_uid: str
    instance_uid: str


def subject_of(tx: Transaction, record: AuditRecord) -> Subject | None:
    """Find whose image a record speaks of; None where it speaks of none, or the subject was forgotten."""
    instance = tx.uidmap.resolve(Guid.parse(record.guid)) if record.guid else None
    row = None if instance is None else tx.subjects.by_id(instance.subject)
    if instance is None or row is None:
        return None
    return Subject(row.patient_id, row.issuer, instance.study_uid, instance.class_uid, instance.instance_uid)


def audit_message(record: AuditRecord, subject: Subject | None, hospital: str) -> bytes:
    """Write a record as an audit message of PS3.15 A.5; a release is that of Table A.5.3.4-1, Data Export.

    Who asked has a RoleIDCode for each of the FQANs; `DETAILS` are with the first object.
    """
    kind = kind_of(record.event)
    message = ET.Element("AuditMessage")
    event = ET.SubElement(
        message,
        "EventIdentification",
        EventActionCode=kind.action,
        EventDateTime=_time(record.time),
        EventOutcomeIndicator=kind.outcome,
    )
    _code(event, "EventID", kind.code)
    if kind.type:
        _code(event, "EventTypeCode", kind.type)
    if record.outcome:
        ET.SubElement(event, "EventOutcomeDescription").text = _xml(record.outcome)
    is_export = kind.code == "110106"
    if record.dn:
        who = _participant(message, record.dn, "110152", is_requestor=True, address=record.address)
        for fqan in record.fqans:
            _code(who, "RoleIDCode", fqan, FQAN_SYSTEM, fqan)
    _participant(message, hospital, "110153" if is_export else "110150", is_requestor=not record.dn)
    if is_export:
        media = _participant(message, f"urn:uuid:{record.guid}", "110154", is_requestor=False)
        _code(ET.SubElement(media, "MediaIdentifier"), "MediaType", "110037")
    ET.SubElement(message, "AuditSourceIdentification", AuditSourceID=_xml(hospital), code="4")
    if subject is not None:
        _study(message, subject, record)
        _patient(message, subject)
    elif record.guid or record.path or record.project:
        name = record.path or record.project or record.guid
        named = f"urn:uuid:{record.guid}" if record.guid else name
        _detail(_object(message, named, ("2", "3"), ("12", "RFC-3881", "URI"), name), record)
    octets: bytes = ET.tostring(message, encoding="utf-8", xml_declaration=False)
    return octets


def syslog_message(record: AuditRecord, message: bytes, hospital: str, host: str = "") -> bytes:
    """Wrap an audit message as RFC 5424 section 6 says."""
    priority = PRIORITY if kind_of(record.event).outcome == SUCCESS else _WARNING
    name = "".join(c for c in host or socket.gethostname() if "!" <= c <= "~")[:255] or "-"
    source = "".join(c for c in f"mdmfs-{hospital}" if "!" <= c <= "~")[:48]
    head = f"<{priority}>1 {_time(record.time)} {name} {source} {record.n or '-'} {MSGID} - "
    return head.encode() + _BOM + message


def framed(messages: Iterable[bytes]) -> Iterable[bytes]:
    """Frame syslog messages for TLS by counting octets (RFC 5425 section 4.3)."""
    return (b"%d %b" % (len(message), message) for message in messages)


def _study(message: ET.Element, subject: Subject, record: AuditRecord) -> None:
    study = _object(message, subject.study_uid, ("2", "3"), ("110180", "DCM", _DCM["110180"]), subject.study_uid)
    _detail(study, record)
    sop_class = ET.SubElement(study, "SOPClass", UID=_xml(subject.class_uid), NumberOfInstances="1")
    ET.SubElement(sop_class, "Instance", UID=_xml(subject.instance_uid))
    ET.SubElement(study, "Encrypted").text = "true"
    ET.SubElement(study, "Anonymized").text = "true"


def _patient(message: ET.Element, subject: Subject) -> None:
    patient = escaped_patient(PatientKey(subject.issuer, subject.patient_id))
    _object(message, patient, ("1", "1"), ("2", "RFC-3881", "Patient Number"), subject.patient_id)


def _detail(found: ET.Element, record: AuditRecord) -> None:
    defaults = AuditRecord(time=record.time, event=record.event)
    for name in DETAILS:
        value = getattr(record, name)
        if value != getattr(defaults, name):
            told = base64.b64encode(str(value).encode()).decode()
            ET.SubElement(found, "ParticipantObjectDetail", {"type": name, "value": told})


def _object(
    message: ET.Element, name: str, types: tuple[str, str], id_type: tuple[str, str, str], text: str
) -> ET.Element:
    found = ET.SubElement(
        message,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_xml(name),
        ParticipantObjectTypeCode=types[0],
        ParticipantObjectTypeCodeRole=types[1],
    )
    _code(found, "ParticipantObjectIDTypeCode", *id_type)
    ET.SubElement(found, "ParticipantObjectName").text = _xml(text)
    return found


def _participant(message: ET.Element, user: str, role: str, *, is_requestor: bool, address: str = "") -> ET.Element:
    told = {"UserID": _xml(user), "UserIsRequestor": str(is_requestor).lower()}
    if address:
        told |= {"NetworkAccessPointID": _xml(address), "NetworkAccessPointTypeCode": "2"}
    participant = ET.SubElement(message, "ActiveParticipant", told)
    _code(participant, "RoleIDCode", role)
    return participant


def _code(parent: ET.Element, name: str, code: str, system: str = "DCM", meaning: str = "") -> None:
    told = {"csd-code": code, "codeSystemName": system, "originalText": meaning or _DCM[code]}
    ET.SubElement(parent, name, {key: _xml(value) for key, value in told.items()})


def _time(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _xml(text: str) -> str:
    """Leave out what XML 1.0 cannot hold."""
    return "".join(character for character in text if character.isprintable())
