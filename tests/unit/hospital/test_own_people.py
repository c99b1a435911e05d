"""What only a hospital's own people may ask: every such path, whoever else comes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio

from mdmfs.hospital.health import health_of, health_routes
from mdmfs.hospital.keys.face import key_routes
from mdmfs.hospital.keys.tasks import Tasks
from mdmfs.hospital.metadata.face import record_routes
from mdmfs.hospital.names.face import name_routes
from mdmfs.hospital.quarantined import quarantine_routes
from mdmfs.hospital.registration.face import renewal_routes
from mdmfs.hospital.registration.reconcile import Reconciliations
from mdmfs.hospital.registration.reconciliation_face import reconciliation_routes
from mdmfs.hospital.registration.rerender import Rerenderings
from mdmfs.hospital.replicas.face import replica_routes
from mdmfs.model.errors import AccessDeniedError, UnknownNameError
from mdmfs.model.identity import Principal
from mdmfs.wire.messages.administration import (
    MERGE_PATH,
    RECONCILE_PATH,
    RECONCILE_PROGRESS_PATH,
    AskReconciliation,
    Merged,
    MergeSubjects,
    ReconciliationProgress,
    StartReconciliation,
)
from mdmfs.wire.messages.message import Message
from mdmfs.wire.messages.names import CHANGE_NAME_PATH, READ_COMMENT_PATH
from mdmfs.wire.messages.records import IDENTIFY_PATH
from mdmfs.wire.service import Reply, Request, Respond
from mdmfs.wire.stream import Address
from tests.twins.clinic import OWNER, PATIENT, PROJECT, READER, STRANGER, Clinic, OpenClinic, including, slices, until

FOR_OTHERS = {CHANGE_NAME_PATH, READ_COMMENT_PATH, IDENTIFY_PATH}
"""Decided about by rights, or by two people, in tests of their own."""


def routes_of(opened: OpenClinic) -> dict[tuple[str, str], Respond]:
    """Give what hospitald answers beside readers and programs of the grid."""
    hospital, tasks = opened.hospital, Tasks(opened.hospital, opened.nursery)
    return {
        **key_routes(hospital, tasks),
        **renewal_routes(hospital, Rerenderings(hospital, opened.nursery), tasks),
        **health_routes(hospital, lambda: health_of(hospital)),
        **replica_routes(hospital),
        **record_routes(hospital, ()),
        **quarantine_routes(hospital),
        **name_routes(hospital),
        **reconciliation_routes(hospital, Reconciliations(hospital, opened.nursery, 0)),
    }


async def answer(
    routes: dict[tuple[str, str], Respond], path: str, message: Message, who: Principal = OWNER
) -> Message:
    """Ask."""

    async def body() -> bytes:
        await trio.lowlevel.checkpoint()
        return msgspec.msgpack.encode(message)

    told = await routes["POST", path](Request("POST", path, {}, who, Address("192.0.2.7", 1), body))
    assert isinstance(told, Reply)
    return told.message


async def unread() -> bytes:
    """Be a body that nobody has to read."""
    message = "it was read before it was known who asks"
    raise AssertionError(message)


@pytest.mark.parametrize("who", [READER, STRANGER])
async def test_everybody_else_is_refused_before_he_is_listened_to(tmp_path: Path, who: Principal) -> None:
    """Who could merge patients, destroy keys or see what was put away would need no other right."""
    async with Clinic(tmp_path, slices((1,))).open() as opened:
        for (method, path), respond in routes_of(opened).items():
            if path not in FOR_OTHERS:
                with pytest.raises(AccessDeniedError, match="own certificate only"):
                    await respond(Request(method, path, {}, who, Address("192.0.2.7", 1), unread))


async def test_a_hospital_has_its_images_compared_when_it_asks(tmp_path: Path) -> None:
    """And hears how far that is; a deep run is none that is not."""
    async with Clinic(tmp_path, slices((1,))).open() as opened:
        await opened.harvest()
        routes = routes_of(opened)
        recalls = opened.clinic.pacs.recalls
        await answer(routes, RECONCILE_PATH, StartReconciliation(PROJECT, is_deep=True))

        async def told() -> ReconciliationProgress:
            progress = await answer(routes, RECONCILE_PROGRESS_PATH, AskReconciliation(PROJECT))
            assert isinstance(progress, ReconciliationProgress)
            return progress

        with trio.fail_after(10):
            while not (await told()).is_over:  # noqa: ASYNC110 nothing tells of it
                await trio.sleep(0.01)
        assert (await told()).series_done == 1
        assert opened.clinic.pacs.recalls > recalls


@pytest.mark.parametrize(
    ("project", "patient", "into"),
    [
        ("another", "TEST-1^^^AMC", "TEST-2^^^AMC"),
        (PROJECT, "TEST-1", "TEST-2^^^AMC"),
        (PROJECT, "TEST-1^^^AMC", ""),
        (PROJECT, "TEST-1^^^AMC", "TEST-1^^^AMC"),
    ],
)
async def test_a_merge_that_does_not_say_of_whom_is_none(tmp_path: Path, project: str, patient: str, into: str) -> None:
    """Two patients of one project, each with his issuer."""
    async with Clinic(tmp_path, slices((1,))).open() as opened:
        await opened.harvest()
        with pytest.raises(UnknownNameError):
            await answer(routes_of(opened), MERGE_PATH, MergeSubjects(project, patient, into))
        assert not [record for record in opened.audited() if record["event"] == "merge"]


async def test_a_merge_is_tried_dry_and_then_made(tmp_path: Path) -> None:
    """The first says what would be; only the second is on record."""
    clinic = Clinic(tmp_path, slices((1,)))
    clinic.inclusion = including(PATIENT, type(PATIENT)(PATIENT.issuer, "TEST-2"))
    async with clinic.open() as opened:
        await opened.harvest()
        routes, asked = routes_of(opened), MergeSubjects(PROJECT, "TEST-1^^^AMC", "TEST-2^^^AMC", is_dry=True)
        dry = await answer(routes, MERGE_PATH, asked)
        assert isinstance(dry, Merged)
        assert not [record for record in opened.audited() if record["event"] == "merge"]
        made = await answer(routes, MERGE_PATH, msgspec.structs.replace(asked, is_dry=False))
        assert isinstance(made, Merged)
        assert made.subject == dry.subject
        await until(lambda: bool([record for record in opened.audited() if record["event"] == "merge"]))
