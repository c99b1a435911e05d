"""What changes while a decision is on its way to the disk: nothing is let out by a decision that no longer holds.

Nor is anything answered before it is there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
import trio
import trio.testing

from mdmfs.access.acl import Acl
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.audit import Audit, Event, records_of
from mdmfs.hospital.keys import amends
from mdmfs.hospital.ledger.records import LossCause, LossRecord
from mdmfs.hospital.ledger.replicas import ReplicaState
from mdmfs.hospital.projects import Placement
from mdmfs.hospital.release.arrivals import Bringing
from mdmfs.hospital.release.decision import Denial, Standing, decide, hold_still, stand
from mdmfs.hospital.release.elsewhere import FromAnother
from mdmfs.hospital.release.release import release_headers, stage_all
from mdmfs.hospital.release.reported import write_down
from mdmfs.hospital.replicas.transfers import release_transfers
from mdmfs.hospital.signing import SigningKey
from mdmfs.hospital.store import Transaction
from mdmfs.model.names import Guid
from mdmfs.wire.client import Client
from mdmfs.wire.messages.files import AskChanges, AskTransfers, CachedOpens, OpensReport, SealedHeader, Transfer
from tests.twins.clinic import NOW, READER, STRANGER, Clinic, OpenClinic, slices, until
from tests.twins.key_tasks import rotate_now
from tests.twins.storage import TwinElement

ADDRESS = "192.0.2.7"
T = TypeVar("T")
Act = Callable[[Transaction, Guid, Hospital], object]


def close(tx: Transaction, guid: Guid, _: Hospital) -> None:
    """Take the file from everybody but its owner."""
    tx.acls.set_of_file(guid, Acl(str(STRANGER.dn), ()))


def destroy(tx: Transaction, guid: Guid, _: Hospital) -> None:
    """Destroy its key."""
    amends.destroy(tx, [guid])


def lose(tx: Transaction, guid: Guid, _: Hospital) -> None:
    """Find that the PACS has it no more."""
    tx.losses.put(guid, LossRecord(LossCause.GONE, NOW))


def touch(tx: Transaction, _: Guid, hospital: Hospital) -> None:
    """Change what has nothing to do with it."""
    tx.losses.note_reconciled("another", hospital.clock())


def rotate(tx: Transaction, guid: Guid, hospital: Hospital) -> None:
    """Give it a new key."""
    rotate_now(tx, hospital=hospital, guids=[guid])


@pytest.fixture
async def hospital(tmp_path: Path) -> AsyncIterator[OpenClinic]:
    """Give a hospital with a file that is at a storage element."""
    clinic = Clinic(tmp_path, slices([1]))
    clinic.elements, clinic.placement = [TwinElement()], Placement(("tier1",))
    async with clinic.open() as hospital:
        await hospital.harvest()
        await hospital.read(file_of(hospital))
        await until(lambda: is_replicated(hospital))
        yield hospital


def file_of(hospital: OpenClinic) -> Guid:
    """Give the one file."""
    (guid,) = hospital.files().values()
    return guid


def is_replicated(hospital: OpenClinic) -> bool:
    """Tell whether it is at the storage element."""
    replicas = hospital.hospital.store.read(lambda tx: tx.replicas.of(file_of(hospital)))
    return [it.state for it in replicas] == [ReplicaState.THERE]


async def answered(
    hospital: OpenClinic, question: Callable[[Hospital, Guid], Awaitable[T]], act: Act | None = None
) -> T:
    """Have a question answered, of which the record waits for a slow disk until ``act`` has been committed."""
    audit = Audit(hospital.clinic.folder / "slow.jsonl", SigningKey(hospital.clinic.folder / "signing.key"))
    slow, guid = dataclasses.replace(hospital.hospital, audit=audit), file_of(hospital)
    answers: list[T] = []

    async def ask() -> None:
        answers.append(await question(slow, guid))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        if act is not None:
            await slow.store.write(lambda tx: act(tx, guid, slow))
        assert not answers
        nursery.start_soon(audit.run)
        await until(lambda: bool(answers))
        nursery.cancel_scope.cancel()
    audit.close()
    return answers[0]


async def transfer(hospital: Hospital, guid: Guid) -> Transfer:
    """Ask for the replica."""
    (told,) = await release_transfers(READER, AskTransfers([guid.octets], "a study"), hospital, address=ADDRESS)
    return told


async def header(hospital: Hospital, guid: Guid) -> SealedHeader:
    """Ask for the header."""
    (told,) = await release_headers(READER, [guid], hospital, address=ADDRESS)
    return told


async def report(hospital: Hospital, guid: Guid) -> int:
    """Tell of opens, and give how many are on record when that has been heard."""
    told = OpensReport(1, [CachedOpens(guid.octets, 1)])
    await write_down(READER, ADDRESS, AskChanges(0, 0.0, mount=bytes(16), report=told), hospital)
    return sum(it.event is Event.CACHED_OPENS for it in records_of(hospital.audit.path))


def nobody() -> Client:
    """Give no other daemon: what is staged already is not asked for."""
    raise AssertionError


async def staged(hospital: Hospital, guid: Guid) -> object:
    """Have it brought online for another daemon."""
    recalls: Bringing = FromAnother(hospital.staging, nobody, 60.0)
    staging = stage_all([guid], hospital, recalls, address=ADDRESS, are_ahead=False)
    async with contextlib.aclosing(staging) as arriving:
        return await anext(arriving)


@pytest.mark.parametrize("question", [report, staged])
async def test_nothing_is_answered_before_it_is_on_record(
    hospital: OpenClinic, question: Callable[[Hospital, Guid], Awaitable[object]]
) -> None:
    """Neither a mount that tells of its opens nor another daemon."""
    assert await answered(hospital, question)


async def test_a_replica_of_a_lost_file_is_not_named_and_not_on_record(hospital: OpenClinic) -> None:
    """An open asks the PACS again, and finds out whether it is back."""
    await hospital.hospital.store.write(lambda tx: lose(tx, file_of(hospital), hospital.hospital))
    before = len(hospital.audited())
    assert await transfer(hospital.hospital, file_of(hospital)) == Transfer()
    assert len(hospital.audited()) == before


@pytest.mark.parametrize(
    "other",
    [
        {"generation": 2},
        {"until": NOW},
        {"element": "tier2"},
        {"state": ReplicaState.COMING},
        {"state": ReplicaState.LEAVING},
    ],
    ids=str,
)
async def test_no_replica_is_named_that_is_not_whole_of_this_key_and_there(
    hospital: OpenClinic, other: dict[str, object]
) -> None:
    """Of another generation, past its time, at an element that is not the project's, under way or on its way out."""

    def change(tx: Transaction) -> None:
        (replica,) = tx.replicas.of(file_of(hospital))
        tx.replicas.remove(replica)
        tx.replicas.put(msgspec.structs.replace(replica, **other))

    assert (await transfer(hospital.hospital, file_of(hospital))).turl
    await hospital.hospital.store.write(change)
    assert await transfer(hospital.hospital, file_of(hospital)) == Transfer()


@pytest.mark.parametrize("placement", [None, Placement(("tier2",))], ids=["nowhere", "at an element that is no more"])
async def test_no_replica_is_named_where_the_project_has_none(
    hospital: OpenClinic, placement: Placement | None
) -> None:
    """Whatever is left of it."""
    projects = {name: dataclasses.replace(it, replicas=placement) for name, it in hospital.hospital.projects.items()}
    there = dataclasses.replace(hospital.hospital, projects=projects)
    (replica,) = there.store.read(lambda tx: tx.replicas.of(file_of(hospital)))
    await there.store.write(lambda tx: tx.replicas.put(msgspec.structs.replace(replica, element="tier2")))
    assert await transfer(there, file_of(hospital)) == Transfer()


async def test_a_header_that_is_not_at_hand_is_not_on_record(hospital: OpenClinic) -> None:
    """Nothing was let out; who opens the file is told why."""
    hospital.hospital.headers.discard(file_of(hospital))
    before = len(hospital.audited())
    assert await header(hospital.hospital, file_of(hospital)) == SealedHeader()
    assert len(hospital.audited()) == before


async def test_a_decision_holds_until_what_it_rests_on_ends(hospital: OpenClinic) -> None:
    """The first credential or entry, and the project; nobody commits anything for that."""
    (decision,) = decide(READER, [file_of(hospital)], hospital.hospital)
    assert isinstance(decision, Standing)
    midnight = dt.datetime.combine(decision.project.until + dt.timedelta(days=1), dt.time(), dt.UTC).timestamp()
    for standing, ends_at in [
        (decision._replace(until=NOW + 10), NOW + 10),
        (decision._replace(until=float("inf")), midnight),
    ]:
        hospital.clinic.now = ends_at - 1
        assert hold_still([standing], hospital.hospital)
        hospital.clinic.now = ends_at
        assert not hold_still([decision._replace(until=float("inf")), standing], hospital.hospital)


async def test_what_was_withdrawn_is_brought_online_for_no_other_daemon(hospital: OpenClinic) -> None:
    """Whatever that one knows."""
    guid = file_of(hospital)
    await hospital.hospital.store.write(lambda tx: tx.catalogue.withdraw([guid]))
    unknown = Guid(bytes(16))
    assert [type(it) for it in stand([guid, unknown], hospital.hospital)] == [Denial, Denial]


async def test_what_changes_elsewhere_takes_nothing_away(hospital: OpenClinic) -> None:
    """It is decided again, and comes to the same."""
    assert (await answered(hospital, transfer, touch)).turl
    assert (await answered(hospital, header, touch)).sealed


@pytest.mark.parametrize("act", [close, destroy, rotate, lose])
async def test_no_replica_is_named_of_what_was_taken_away_meanwhile(hospital: OpenClinic, act: Act) -> None:
    """As if it had been taken away before."""
    assert (await answered(hospital, transfer)).turl
    assert await answered(hospital, transfer, act) == Transfer()


@pytest.mark.parametrize("act", [close, destroy, rotate])
async def test_no_header_is_let_out_of_what_was_taken_away_meanwhile(hospital: OpenClinic, act: Act) -> None:
    """As if it had been taken away before."""
    assert (await answered(hospital, header)).sealed
    assert await answered(hospital, header, act) == SealedHeader()
