"""Of what is lost no copy stays, whatever breaks while that is written down."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mdmfs.hospital.ledger.records import LossCause
from mdmfs.hospital.release.loss import note_lost
from mdmfs.model.errors import StoreError
from mdmfs.model.names import Guid
from tests.twins.clinic import Clinic, OpenClinic, slices
from tests.twins.disk import no_room_behind
from tests.unit.registration.test_register import CuttingStore, PowerCutError


async def all_staged(hospital: OpenClinic) -> list[Guid]:
    """Bring all files online."""
    await hospital.harvest()
    guids = list(hospital.files().values())
    for guid in guids:
        await hospital.read(guid)
    assert staged(hospital, guids) == guids
    return guids


def staged(hospital: OpenClinic, guids: list[Guid]) -> list[Guid]:
    """Name those of which a copy is here."""
    return [guid for guid in guids if hospital.hospital.staging.find(guid, 1) is not None]


async def test_no_copy_of_what_is_lost_stays_where_the_audit_log_is_full(tmp_path: Path) -> None:
    """A series that was taken out of the PACS: its loss is known, so nobody would look again."""
    async with Clinic(tmp_path, slices((1, 2, 3))).open() as hospital:
        guids = await all_staged(hospital)
        with no_room_behind(tmp_path / "audit.jsonl"), pytest.raises(StoreError):
            await note_lost(hospital.hospital, guids, LossCause.GONE)
        assert staged(hospital, guids) == []


async def test_no_copy_of_what_is_lost_stays_after_a_kill(tmp_path: Path) -> None:
    """Between the commit and all that comes behind it."""
    async with Clinic(tmp_path, slices((1, 2, 3))).open() as hospital:
        guids = await all_staged(hospital)
        cut = dataclasses.replace(hospital.hospital, store=CuttingStore(hospital.hospital.store, 1, is_kept=True))
        with pytest.raises(PowerCutError):
            await note_lost(cut, guids, LossCause.GONE)
        assert hospital.hospital.store.read(lambda tx: tx.losses.count()) == 3
        assert staged(hospital, guids) == []


async def test_the_loss_of_many_files_is_on_record_at_once(tmp_path: Path) -> None:
    """A line for each; they wait for the disk together."""
    async with Clinic(tmp_path, slices((1, 2, 3))).open() as hospital:
        guids = await all_staged(hospital)
        assert await note_lost(hospital.hospital, guids, LossCause.GONE) == 3
        told = [it["guid"] for it in hospital.audited() if it["event"] == "loss"]
        assert told == list(map(str, guids))
        assert await note_lost(hospital.hospital, guids, LossCause.GONE) == 0
