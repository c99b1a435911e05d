"""Who read what, by the audit log; and its records as DICOM audit messages."""

from __future__ import annotations

import base64
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import trio

from mdmfs.hospital.audit.export import FQAN_SYSTEM, audit_message, framed, subject_of, syslog_message
from mdmfs.hospital.audit.questions import files_below, files_of_patient, names_of, what, who
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.kept.audit import AuditRecord, Event, records_of
from mdmfs.model.errors import AccessDeniedError, MalformedNameError, NoSuchFileError
from mdmfs.model.identity import Dn
from tests.twins.clinic import PATIENT, READER, STRANGER, Clinic, slices


async def test_who_read_a_file_a_directory_or_a_patients_images(tmp_path: Path) -> None:
    """Readers and refused ones are told apart and counted; a name that never was is an error."""
    async with Clinic(tmp_path, slices((1, 2))).open() as clinic:
        await clinic.harvest()
        one, two = clinic.files().values()
        await clinic.release(one)
        await clinic.release(one)
        await clinic.release(two)
        with pytest.raises((AccessDeniedError, NoSuchFileError)):
            await clinic.release(one, STRANGER)
        clinic.hospital.audit.note(
            AuditRecord(
                time=clinic.hospital.clock() + 9, event=Event.CACHED_OPENS, dn=str(READER.dn), guid=str(one), count=4
            )
        )
        await clinic.hospital.audit.record(AuditRecord(time=1.0, event=Event.REPAIR, guid=str(one)))
        log, store = tmp_path / "audit.jsonl", clinic.hospital.store
        (lfn, _), (series,) = clinic.files().items(), clinic.series()
        del lfn
        for path, files in ((str(one), 1), (str(series.lfn), 2), (str(series.lfn.parent), 2)):
            found = store.read(lambda tx, path=path: files_below(tx, path))  # type: ignore[misc]
            assert len(found) == files
        refused, read = who(log, store.read(lambda tx: files_below(tx, str(series.lfn))))
        assert (refused.dn, refused.refusals, refused.releases) == (str(STRANGER.dn), 1, 0)
        assert (read.dn, read.releases, read.cached, len(read.guids)) == (str(READER.dn), 3, 4, 2)
        assert who(log, [two])[0].releases == 1
        for patient, files in ((PATIENT, 2), (PatientKey("", PATIENT.patient_id), 2), (PatientKey("ELSE", "X"), 0)):
            assert len(store.read(lambda tx, patient=patient: files_of_patient(tx, patient))) == files  # type: ignore[misc]
        for unknown, error in (("/grid/medical/amc/nowhere", NoSuchFileError), ("nonsense", MalformedNameError)):
            with pytest.raises(error):
                store.read(lambda tx, unknown=unknown: files_below(tx, unknown))  # type: ignore[misc]
        records = list(what(log, Dn.parse(str(READER.dn))))
        assert [record.event for record in records] == ["release", "release", "release", "cached-opens"]
        assert store.read(lambda tx: names_of(tx, [str(one)])) == {str(one): str(series.lfn)}


async def test_a_release_is_a_data_export_with_the_real_patient(tmp_path: Path) -> None:
    """Table A.5.3.4-1 of PS3.15: who exported, to whom, by which medium, whose study."""
    async with Clinic(tmp_path, slices((1,))).open() as clinic:
        await clinic.harvest()
        (guid,) = clinic.files().values()
        await clinic.release(guid)
        (record,) = [record for record in records_of(tmp_path / "audit.jsonl") if record.event is Event.RELEASE]
        subject = clinic.hospital.store.read(lambda tx: subject_of(tx, record))
        assert subject is not None
        octets = audit_message(record, subject, "/CN=hospital")
        message = ET.fromstring(octets)  # noqa: S314 our own
        event = message.find("EventIdentification")
        assert event is not None
        assert (event.attrib["EventActionCode"], event.attrib["EventOutcomeIndicator"]) == ("R", "0")
        code = event.find("EventID")
        assert code is not None
        assert code.attrib == {"csd-code": "110106", "codeSystemName": "DCM", "originalText": "Export"}
        roles = {one.attrib["UserID"]: one.find("RoleIDCode") for one in message.findall("ActiveParticipant")}
        told = {user: role.attrib["csd-code"] for user, role in roles.items() if role is not None}
        assert told == {str(READER.dn): "110152", "/CN=hospital": "110153", f"urn:uuid:{guid}": "110154"}
        objects = [one.attrib["ParticipantObjectID"] for one in message.findall("ParticipantObjectIdentification")]
        assert objects == [subject.study_uid, f"{PATIENT.patient_id}^^^{PATIENT.issuer}"]
        wrapped = syslog_message(record, octets, "amc", "host")
        head, _, body = wrapped.partition(b"\xef\xbb\xbf")
        assert head.split(b" ")[:1] == [b"<85>1"]
        assert head.split(b" ")[2:] == [b"host", b"mdmfs-amc", str(record.n).encode(), b"DICOM+RFC3881", b"-", b""]
        assert body == octets
        assert list(framed([wrapped, b"x"])) == [str(len(wrapped)).encode() + b" " + wrapped, b"1 x"]
        assert PATIENT.patient_id not in (tmp_path / "audit.jsonl").read_text()


def test_a_message_says_with_which_fqans_and_what_for() -> None:
    """What PS3.15 A.5 has no element for is with the first object, named as in the JSON lines."""
    record = AuditRecord(
        time=1.0,
        event=Event.IDENTIFICATION,
        dn="/CN=who",
        fqans=("/vo.example/neuro", "/vo.example/Role=doctor"),
        project="/grid/medical/amc/neuro",
        path="sub-1",
        purpose="a finding, für die Ärztin",
        count=3,
    )
    message = ET.fromstring(audit_message(record, None, "/CN=h"))  # noqa: S314 our own
    asking, _hospital = message.findall("ActiveParticipant")
    roles = {role.attrib["csd-code"]: role.attrib["codeSystemName"] for role in asking.findall("RoleIDCode")}
    assert roles == {"110152": "DCM"} | dict.fromkeys(record.fqans, FQAN_SYSTEM)
    (named,) = message.findall("ParticipantObjectIdentification")
    details = {one.attrib["type"]: one.attrib["value"] for one in named.findall("ParticipantObjectDetail")}
    assert named.attrib["ParticipantObjectID"] == record.path
    assert {name: base64.b64decode(value).decode() for name, value in details.items()} == {
        "project": record.project,
        "path": record.path,
        "purpose": record.purpose,
        "count": "3",
    }


def test_every_event_has_its_dicom_event() -> None:
    """Whatever is recorded can be exported, whatever its texts hold."""
    for event in Event:
        record = AuditRecord(time=1.0, event=event, dn="/CN=a & b", outcome="<\x00>", guid="g")
        assert ET.fromstring(audit_message(record, None, "/CN=h")).tag == "AuditMessage"  # noqa: S314 our own


async def test_a_forgotten_subject_leaves_the_file_in_the_message(tmp_path: Path) -> None:
    """Nobody can name the patient any more, and the record is exported all the same."""
    async with Clinic(tmp_path, slices((1,))).open() as clinic:
        await clinic.harvest()
        (guid,) = clinic.files().values()
        (series,) = clinic.series()
        await clinic.hospital.store.write(lambda tx: tx.subjects.delete(series.subject))
        record = AuditRecord(time=1.0, event=Event.DESTRUCTION, guid=str(guid))
        assert clinic.hospital.store.read(lambda tx: subject_of(tx, record)) is None
        assert str(guid) in audit_message(record, None, "/CN=h").decode()
        await trio.lowlevel.checkpoint()
