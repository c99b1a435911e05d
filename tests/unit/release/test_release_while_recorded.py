"""What changes while a decision is on its way to the disk: nothing is let out by a decision that no longer holds."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio.testing

from mdmfs.access.acl import Acl
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.keys import amends
from mdmfs.hospital.ledger.records import LossCause, LossRecord
from mdmfs.hospital.projects import Placement
from mdmfs.hospital.release.audit import Audit
from mdmfs.hospital.release.release import release_headers
from mdmfs.hospital.release.transfers import release_transfers
from mdmfs.hospital.replicas.records import ReplicaState
from mdmfs.hospital.signing import SigningKey
from mdmfs.hospital.store import Transaction
from mdmfs.model.names import Guid
from mdmfs.wire.messages.files import AskTransfers, SealedHeader, Transfer
from tests.twins.clinic import NOW, READER, STRANGER, Clinic, OpenClinic, slices, until
from tests.twins.storage import TwinElement

ADDRESS = "192.0.2.7"
T = TypeVar("T")
Act = Callable[[Transaction, Guid, Hospital], object]


def close(tx: Transaction, guid: Guid, _: Hospital) -> None:
    """Take the file from everybody but its owner."""
    tx.catalogue.set_file_acl(guid, Acl(str(STRANGER.dn), ()))


def destroy(tx: Transaction, guid: Guid, _: Hospital) -> None:
    """Destroy its key."""
    amends.destroy(tx, [guid], NOW)


def lose(tx: Transaction, guid: Guid, _: Hospital) -> None:
    """Find that the PACS has it no more."""
    tx.losses.put(guid, LossRecord(LossCause.GONE, NOW))


def rotate(tx: Transaction, guid: Guid, hospital: Hospital) -> None:
    """Give it a new key."""
    amends.rotate(tx, hospital=hospital, guids=[guid])


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
