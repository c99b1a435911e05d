"""A PACS that answers more than was asked, or in another way than was recorded."""

from __future__ import annotations

import pytest

from mdmfs.hospital.dicom import identifier as tags
from mdmfs.hospital.dicom.connection import open_connection
from mdmfs.hospital.dicom.pacs import InstanceKey, Politeness
from mdmfs.hospital.dicom.remote import open_pacs
from mdmfs.hospital.dicom.retrieve import Exchange
from mdmfs.model.errors import RecallFailedError
from tests.twins.scripted_pacs import CT, EXPLICIT, FIND, PENDING, ScriptedPeer, encode_identifier, serving

JPEG = "1.2.840.10008.1.2.4.70"
STUDIES = [("TEST-1", "1.2.1"), ("test-1", "1.2.2"), ("TEST-11", "1.2.3"), ("TEST-1 ", "1.2.4"), ("", "1.2.5")]


async def loose(peer: ScriptedPeer) -> None:
    """Answer every query at STUDY level with all studies, and at SERIES level with the series of two patients."""
    await peer.accept()
    while True:
        _, identifier = await peer.read_request()
        if b"STUDY " in identifier.split(b"\x52\x00")[1][:20]:
            answers = [{tags.PATIENT_ID: patient, tags.STUDY_INSTANCE_UID: uid} for patient, uid in STUDIES]
        else:
            answers = [
                {tags.PATIENT_ID: "TEST-1", tags.SERIES_INSTANCE_UID: "1.2.1.1"},
                {tags.SERIES_INSTANCE_UID: "1.2.1.4"},
                {tags.PATIENT_ID: "OTHER", tags.SERIES_INSTANCE_UID: "1.2.1.2"},
                {tags.STUDY_INSTANCE_UID: "9.9.9", tags.SERIES_INSTANCE_UID: "1.2.1.3"},
            ]
        for answer in answers:
            await peer.respond(0x8020, FIND, PENDING, encode_identifier(answer))
        await peer.respond(0x8020, FIND, 0)


async def test_answers_about_others_are_left_out() -> None:
    """Another case, a longer identifier, none at all, another study, another patient: none of them was asked for."""
    async with serving(loose) as site, open_pacs(site.address) as pacs:
        by_patient = await pacs.find_series(patient_id="TEST-1")
        by_study = await pacs.find_series(study_uid="1.2.3")
    assert {it.study_uid for it in by_patient} == {"1.2.1", "1.2.4"}
    assert {it.series_uid for it in by_patient} == {"1.2.1.1", "1.2.1.4"}
    assert [(it.study_uid, it.series_uid, it.patient_id) for it in by_study] == [("1.2.3", "1.2.1.4", "TEST-11")]


async def test_a_patient_whom_a_study_does_not_name_is_he_whom_its_series_names() -> None:
    """Or nobody; the series is there, and its headers will say whose it is."""
    async with serving(loose) as site, open_pacs(site.address) as pacs:
        found = await pacs.find_series(study_uid="1.2.5")
    assert [(it.series_uid, it.patient_id) for it in found] == [
        ("1.2.1.1", "TEST-1"),
        ("1.2.1.4", ""),
        ("1.2.1.2", "OTHER"),
    ]


async def test_instances_of_another_series_are_left_out() -> None:
    """A PACS that ignores the series lists the study."""

    async def answering(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.read_request()
        for series, uid in (("1.2.3", "1.2.3.1"), ("1.2.4", "1.2.4.1"), ("1.2.3", "1.2.3.1"), ("1.2.3", "1.2.3.2")):
            answer = {tags.SERIES_INSTANCE_UID: series, tags.SOP_INSTANCE_UID: uid, tags.SOP_CLASS_UID: CT}
            extra = {tags.AVAILABLE_TRANSFER_SYNTAX_UID: JPEG if uid.endswith("1") else f"{JPEG}\\{EXPLICIT}"}
            await peer.respond(0x8020, FIND, PENDING, encode_identifier(answer | extra))
        await peer.respond(0x8020, FIND, 0)

    async with serving(answering) as site, open_pacs(site.address) as pacs:
        found = await pacs.find_instances(study_uid="1.2", series_uid="1.2.3")
    assert [(it.instance_uid, it.class_uid, it.transfer_syntax) for it in found] == [
        ("1.2.3.1", CT, JPEG),
        ("1.2.3.2", CT, None),
    ]


@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xC001, 0xFE00])
async def test_a_query_that_fails_has_no_answer(status: int) -> None:
    """Half a list would look like a stable count."""

    async def failing(peer: ScriptedPeer) -> None:
        await peer.accept()
        while True:
            await peer.read_request()
            await peer.respond(0x8020, FIND, PENDING, encode_identifier({tags.SOP_INSTANCE_UID: "1.2.3.1"}))
            await peer.respond(0x8020, FIND, status)

    async with serving(failing) as site, open_pacs(site.address) as pacs:
        for _ in range(2):
            with pytest.raises(RecallFailedError, match=f"0x{status:04X}"):
                await pacs.find_instances(study_uid="1.2", series_uid="1.2.3")
        assert site.connections == 1


OTHERWISE = [(CT, JPEG, CT, "another transfer syntax"), ("", None, FIND, "context of another SOP class")]


@pytest.mark.parametrize(("class_uid", "syntax", "sent_as", "said"), OTHERWISE)
async def test_an_instance_that_comes_otherwise_than_agreed_is_refused(
    class_uid: str, syntax: str | None, sent_as: str, said: str
) -> None:
    """Even where the association would have had a context for it, and where nothing is recorded yet."""

    async def choosing(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.read_request()
        await peer.send(peer.store_request("1.2.3.4", b"content", class_uid=sent_as))  # in the explicit context
        await peer.read_request()

    async with serving(choosing) as site:
        connection = await open_connection(site.address, {CT: (EXPLICIT, JPEG)}, Politeness())
        exchange = Exchange(connection, site.address, [InstanceKey("1.2", "1.2.3", "1.2.3.4", class_uid, syntax)])
        await exchange.ask("IMAGE")
        with pytest.raises(RecallFailedError, match=said):
            await exchange.next_instance()
        connection.abort()
