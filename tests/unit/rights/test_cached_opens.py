"""Opens that a mount reports: on record once, before its lease, and only for what is there."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import msgspec
import pytest

from mdmfs.hospital.audit.questions import who
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.audit import Audit, AuditRecord
from mdmfs.hospital.rights.telling import tell
from mdmfs.model.errors import MalformedMessageError, StoreError
from mdmfs.model.identity import Fqan
from mdmfs.model.names import Guid
from mdmfs.wire.messages.files import CHANGES_PATH, MAX_REPORTED, AskChanges, CachedOpens, Changes, OpensReport
from mdmfs.wire.service import Reply
from tests.twins.clinic import READER, Clinic, OpenClinic, slices
from tests.twins.keystores import principal, random_guid

MOUNT = bytes(16)


@pytest.fixture
async def clinic(tmp_path: Path) -> AsyncIterator[OpenClinic]:
    """Make a hospital with two images."""
    async with Clinic(tmp_path, slices((1, 2))).open() as opened:
        await opened.harvest()
        yield opened


async def report(clinic: OpenClinic, number: int, opens: list[CachedOpens], mount: bytes = MOUNT) -> Changes:
    """Report as a mount does; gives the answer."""
    asked = AskChanges(0, 0, mount, report=OpensReport(number, opens), purpose="stroke\nstudy")
    answer = await clinic.ask(CHANGES_PATH, asked, READER)
    assert isinstance(answer, Reply)
    assert isinstance(answer.message, Changes)
    return answer.message


def reported(clinic: OpenClinic) -> list[dict[str, object]]:
    """Read what is on record."""
    return [record for record in clinic.audited() if record["event"] == "cached-opens"]


async def test_a_report_is_on_record_once_and_renews_the_lease(clinic: OpenClinic) -> None:
    """With DN, pseudonymous UID, project, address, purpose and count, as a release."""
    one, two = clinic.files().values()
    opens = [CachedOpens(one.octets, 4), CachedOpens(two.octets, 1)]
    assert (await report(clinic, 1, opens)).lease > 0
    assert (await report(clinic, 1, opens)).lease > 0
    found = reported(clinic)
    assert [(record["guid"], record.get("count", 1)) for record in found] == [(str(one), 4), (str(two), 1)]
    assert {record["dn"] for record in found} == {str(READER.dn)}
    assert {record["purpose"] for record in found} == {"strokestudy"}
    assert all(str(record["uid"]).startswith("2.25.") and record["project"] for record in found)
    await report(clinic, 2, opens[:1])
    [reader] = who(clinic.hospital.audit.path, {one})
    assert reader.cached == 8


async def test_a_report_that_is_made_again_with_another_credential_is_not_on_record_for_that_one(
    clinic: OpenClinic,
) -> None:
    """A mount whose proxy was replaced by another person's asks again what it has asked with the first."""
    guid, other = next(iter(clinic.files().values())), principal("/CN=other")
    first, second = (OpensReport(number, [CachedOpens(guid.octets, 4)]) for number in (1, 2))
    asked = AskChanges(0, 0, MOUNT, report=first)
    for one in (READER, other):
        await clinic.ask(CHANGES_PATH, asked, one)
    assert [record["dn"] for record in reported(clinic)] == [str(READER.dn)]
    await clinic.ask(CHANGES_PATH, msgspec.structs.replace(asked, report=second), other)
    assert [record["dn"] for record in reported(clinic)] == [str(READER.dn), str(other.dn)]


async def test_what_somebody_opened_counts_though_his_follower_has_reported_before_it_came(clinic: OpenClinic) -> None:
    """The hospital did not answer him for a while; each number is on record once, in whatever order they come."""
    guid, other = next(iter(clinic.files().values())), principal("/CN=other")
    numbers = [
        (3, other),
        (1, READER),
        (2, READER),
        (1, READER),
        (3, READER),
        (2000, other),
        (4, READER),
        (1999, READER),
    ]
    for number, who_asks in numbers:
        asked = AskChanges(0, 0, MOUNT, report=OpensReport(number, [CachedOpens(guid.octets, number)]))
        await clinic.ask(CHANGES_PATH, asked, who_asks)
    assert [(record["dn"], record.get("count", 1)) for record in reported(clinic)] == [
        (str(other.dn), 3),
        (str(READER.dn), 1),
        (str(READER.dn), 2),
        (str(other.dn), 2000),
        (str(READER.dn), 1999),
    ]


async def test_what_was_never_registered_fills_no_log(clinic: OpenClinic) -> None:
    """And who reports it learns nothing."""
    assert (await report(clinic, 1, [CachedOpens(random_guid().octets, 1)])).lease > 0
    assert reported(clinic) == []


@pytest.mark.parametrize("opens", [[(bytes(16), 0)], [(bytes(16), -1)], [(bytes(16), 2**40)], [(bytes(16), 1)] * 1001])
async def test_a_report_that_makes_no_sense_is_refused(clinic: OpenClinic, opens: list[tuple[bytes, int]]) -> None:
    """Counts below 1, and more than anybody may tell at once."""
    assert len(opens) in {1, MAX_REPORTED + 1}
    with pytest.raises(MalformedMessageError):
        await report(clinic, 1, [CachedOpens(*each) for each in opens])
    assert reported(clinic) == []


async def test_without_room_for_the_record_there_is_no_lease(clinic: OpenClinic) -> None:
    """And the same report counts when there is."""
    guid: Guid = next(iter(clinic.files().values()))
    good = clinic.hospital.audit
    await report(clinic, 1, [])
    full = on_a_full_disk(clinic)
    asked = AskChanges(0, 0, MOUNT, report=OpensReport(2, [CachedOpens(guid.octets, 3)]))
    with pytest.raises(StoreError):
        await tell(READER, "192.0.2.7", asked, full)
    assert clinic.hospital.audit is good
    await report(clinic, 2, [CachedOpens(guid.octets, 3)])
    assert [record.get("count") for record in reported(clinic)] == [3]


async def test_a_lost_group_is_told_though_the_record_before_it_could_not_be_written(clinic: OpenClinic) -> None:
    """A question that ends with an error has told nothing, and changed nothing."""
    guid: Guid = next(iter(clinic.files().values()))
    member = dataclasses.replace(READER, fqans=(Fqan.parse("/neuro/trial"),))
    told = await tell(member, "192.0.2.7", AskChanges(0, 0, MOUNT), clinic.hospital)
    report = OpensReport(1, [CachedOpens(guid.octets, 3)])
    asked = AskChanges(told.version, 0, MOUNT, report=report, groups=told.groups)
    with pytest.raises(StoreError):
        await tell(READER, "192.0.2.7", asked, on_a_full_disk(clinic))
    assert (await tell(READER, "192.0.2.7", asked, clinic.hospital)).is_reset


def on_a_full_disk(clinic: OpenClinic) -> Hospital:
    """Give the hospital, with an audit log that takes nothing."""

    class FullDisk:
        """Cannot write."""

        async def record(self, *_: AuditRecord) -> None:
            """See ``Audit``."""
            message = "no space left"
            raise StoreError(message)

    return dataclasses.replace(clinic.hospital, audit=cast("Audit", FullDisk()))
