"""The quarantine as its owners see it: grouped, explained, identifying nobody unless asked to, which is audited."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from mdmfs.hospital.deid.refusal import Reason
from mdmfs.hospital.pages import PAGE
from mdmfs.hospital.quarantined import EXPLANATIONS, MAX_GROUPS, Quarantined, quarantine_routes
from mdmfs.hospital.registration.not_included import remember_not_included
from mdmfs.hospital.registration.reconcile import Reconciliation
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import AccessDeniedError, UnknownNameError
from mdmfs.wire.messages.administration import (
    QUARANTINE_EXPLAIN_PATH,
    QUARANTINE_PATH,
    ExplainQuarantine,
    ListQuarantine,
)
from mdmfs.wire.messages.message import Message
from mdmfs.wire.service import Request
from mdmfs.wire.stream import Address
from tests.twins.clinic import OWNER, PROJECT, READER, Clinic, slice_of, slices
from tests.twins.images import ROOT


def refused_clinic(folder: Path) -> Clinic:
    """Hold a series with two refused images, and one that is well."""
    held = [*slices((1, 2, 3)), *slices((1,), series=2)]
    for instance in held[:2]:
        instance.BurnedInAnnotation = "YES"
    return Clinic(folder, held)


async def test_a_group_tells_why_and_names_nobody(tmp_path: Path) -> None:
    """By series and reason; no UID, no Patient ID, nothing of a handle that a UID could make."""
    clinic = refused_clinic(tmp_path)
    async with clinic.open() as hospital:
        await hospital.harvest()
        (group,) = (await Quarantined(hospital.hospital).groups("")).groups
        assert (group.images, group.reason, group.project) == (2, "burned-in-annotation", PROJECT)
        assert not group.is_registered
        assert group.directory.startswith("/grid/medical/amc/neuro/sub-")
        told = msgspec.json.encode(await Quarantined(hospital.hospital).groups(PROJECT)).decode()
        assert ROOT not in told
        assert "TEST-1" not in told
        assert (await Quarantined(hospital.hospital).groups("")).groups[0].handle != group.handle


async def test_an_unknown_project_is_an_error_that_names_those_that_there_are(tmp_path: Path) -> None:
    """To a slip of the pen nothing at all would look like good news."""
    clinic = refused_clinic(tmp_path)
    async with clinic.open() as hospital:
        assert (await Quarantined(hospital.hospital).groups(PROJECT)).groups == []
        with pytest.raises(UnknownNameError, match=f"no project cardio; this hospital has {PROJECT}"):
            await Quarantined(hospital.hospital).groups("cardio")


async def test_what_is_left_of_a_project_that_is_gone_is_listed(tmp_path: Path) -> None:
    """Its file was taken away; what it had refused is known still."""
    clinic = refused_clinic(tmp_path)
    async with clinic.open() as hospital:
        await hospital.harvest()
        without = dataclasses.replace(hospital.hospital, projects={})
        (group,) = (await Quarantined(without).groups(PROJECT)).groups
        assert group.images == 2


async def test_a_series_that_no_project_includes_is_told_as_one(tmp_path: Path) -> None:
    """With how many images were told of; of thousands of refusals the latest are listed, and the rest counted."""
    clinic = Clinic(tmp_path)
    async with clinic.open() as hospital:
        count = 2 * MAX_GROUPS + PAGE + 1

        def fill(tx: Transaction) -> None:
            for number in range(count):
                remember_not_included(tx, "1.2", f"1.2.{number}", images=number % 9 + 1, now=float(number))

        await hospital.hospital.store.write(fill)
        quarantined = Quarantined(hospital.hospital)
        found = await quarantined.groups("")
        assert [it.latest for it in found.groups] == [float(count - 1 - place) for place in range(MAX_GROUPS)]
        assert found.left_out == count - MAX_GROUPS
        group = found.groups[0]
        assert (group.project, group.reason, group.images) == ("", "not-included", (count - 1) % 9 + 1)
        explained = await quarantined.explain(group.handle, "/CN=somebody", is_identified=True)
        (uids,) = explained.uids
        assert (uids.study, uids.series, uids.instance) == ("1.2", f"1.2.{count - 1}", "")
        assert hospital.audited()[-1]["count"] == group.images
        assert await quarantined.retry(group.handle) == group.images
        with pytest.raises(UnknownNameError, match="nothing is quarantined under"):
            await quarantined.retry(group.handle)


async def test_real_uids_are_a_second_question_and_audited(tmp_path: Path) -> None:
    """Without it an explanation has none; the audit log names who asked and for how many, and no UID."""
    clinic = refused_clinic(tmp_path)
    async with clinic.open() as hospital:
        await hospital.harvest()
        quarantined = Quarantined(hospital.hospital)
        (group,) = (await quarantined.groups("")).groups
        before = len(hospital.audited())
        found = await quarantined.explain(group.handle, "/CN=somebody", is_identified=False)
        assert found.uids == []
        assert "burned into the pixels" in found.what
        assert len(hospital.audited()) == before
        found = await quarantined.explain(group.handle, "/CN=somebody", is_identified=True)
        assert {it.instance for it in found.uids} == {str(it.SOPInstanceUID) for it in clinic.pacs.held[:2]}
        assert ROOT not in repr(found)
        (entry,) = hospital.audited()[before:]
        assert (entry["event"], entry["dn"], entry["count"]) == ("identification", "/CN=somebody", 2)
        assert ROOT not in str(entry)
        with pytest.raises(UnknownNameError, match="nothing is quarantined under"):
            await quarantined.explain("0000000000", "/CN=somebody", is_identified=False)


async def test_what_was_registered_says_so(tmp_path: Path) -> None:
    """A series that was put away keeps its place and its keys."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        for instance in clinic.pacs.held:
            instance.PatientID = "TEST-2"
        await Reconciliation(hospital.hospital.projects[PROJECT]).run(hospital.hospital)
        (group,) = (await Quarantined(hospital.hospital).groups("")).groups
        assert (group.reason, group.images, group.is_registered) == ("moved-patient", 2, True)


async def test_what_was_mended_can_be_tried_again(tmp_path: Path) -> None:
    """Only what was never registered; the rest of the series appears with it."""
    clinic = refused_clinic(tmp_path)
    async with clinic.open() as hospital:
        await hospital.harvest()
        assert len(hospital.names()) == 1
        quarantined = Quarantined(hospital.hospital)
        (group,) = (await quarantined.groups("")).groups
        for instance in clinic.pacs.held:
            instance.BurnedInAnnotation = "NO"
        assert (await hospital.harvest()).registered == 0
        assert await quarantined.retry(group.handle) == 2
        assert (await hospital.harvest()).registered == 2
        assert len(hospital.names()) == 4
        for instance in clinic.pacs.held[:3]:
            instance.PatientID = "TEST-2"
        await Reconciliation(hospital.hospital.projects[PROJECT]).run(hospital.hospital)
        (group,) = (await quarantined.groups("")).groups
        assert await quarantined.retry(group.handle) == 0


async def test_only_the_hospitals_own_certificate_asks(tmp_path: Path) -> None:
    """Nobody else learns even that there is anything."""
    clinic = Clinic(tmp_path, [slice_of(1)])
    async with clinic.open() as hospital:
        routes = quarantine_routes(hospital.hospital)
        messages: dict[str, Message] = {
            QUARANTINE_PATH: ListQuarantine(),
            QUARANTINE_EXPLAIN_PATH: ExplainQuarantine("0000000000"),
        }
        for path, message in messages.items():

            async def body(message: Message = message) -> bytes:
                return msgspec.msgpack.encode(message)

            request = Request("POST", path, {}, READER, Address("192.0.2.7", 1), body)
            with pytest.raises(AccessDeniedError):
                await routes["POST", path](request)
        assert OWNER.dn == hospital.hospital.dn


def test_every_reason_is_explained() -> None:
    """And none is empty."""
    assert set(EXPLANATIONS) == set(Reason)
    assert all(it.what and it.advice for it in EXPLANATIONS.values())
