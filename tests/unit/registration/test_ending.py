"""What is over is taken away: names, keys and copies, each in the audit log."""

from __future__ import annotations

import dataclasses
import datetime as dt
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import structlog.testing
import trio
from trio.testing import MockClock

from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.projects import PatientList
from mdmfs.hospital.registration.ending import INTERVAL, Ending
from mdmfs.hospital.store import Store, Transaction
from mdmfs.model.errors import StoreError
from tests.twins.clinic import PATIENT, PROJECT, Clinic, including, slices, until
from tests.twins.images import ROOT
from tests.unit.registration.test_register import CuttingStore

DAY = 86_400.0
T = TypeVar("T")


async def states_after(clinic: Clinic) -> tuple[int, set[FileState], list[str]]:
    """Open the hospital again, let it end what is over, and give how many, all states, and the last audit events."""
    before = epoch_of(clinic)
    async with clinic.open() as hospital:
        ending = Ending(hospital.hospital)
        ended = await ending.look() + await ending.look()
        assert await ending.look() == 0
        assert (epoch_of(clinic) > before) == bool(ended)
        states = {file.state for file in clinic.store.read(lambda tx: tx.catalogue.files())}
        return ended, states, [line["event"] for line in hospital.audited()[-ended:]]


def epoch_of(clinic: Clinic) -> int:
    """Give the epoch that keystores have to reach."""
    return clinic.store.read(lambda tx: tx.epochs.latest().number)


async def registered(tmp_path: Path) -> Clinic:
    """Register two slices."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        assert len(hospital.files()) == 2
    return clinic


async def test_nothing_is_over(tmp_path: Path) -> None:
    """The last day is a day of the project."""
    assert (await states_after(await registered(tmp_path)))[:2] == (0, {FileState.VISIBLE})


async def test_a_project_past_its_last_day_loses_names_and_keys(tmp_path: Path) -> None:
    """For ever, and once."""
    clinic = await registered(tmp_path)
    clinic.now += 2 * DAY
    assert await states_after(clinic) == (2, {FileState.WITHDRAWN}, ["destruction", "destruction"])


@pytest.mark.parametrize("opted_out", [including(PATIENT), including(studies=[f"{ROOT}.1"])])
async def test_an_opt_out_takes_names_and_keys_away(tmp_path: Path, opted_out: PatientList) -> None:
    """By patient or by study."""
    clinic = await registered(tmp_path)
    clinic.opted_out = opted_out
    assert (await states_after(clinic))[:2] == (2, {FileState.WITHDRAWN})


@pytest.mark.parametrize("listed", [PatientKey("", "TEST-1"), PatientKey("ELSEWHERE", "TEST-1")])
async def test_a_doubt_destroys_nothing(tmp_path: Path, listed: PatientKey) -> None:
    """A line without an issuer may mean another patient: the file is withheld, and its key stays."""
    clinic = await registered(tmp_path)
    clinic.opted_out = including(listed)
    assert (await states_after(clinic))[:2] == (0, {FileState.VISIBLE})


async def test_a_clock_that_is_wrong_for_a_moment_destroys_nothing(tmp_path: Path) -> None:
    """A machine that comes up in another year is put right by NTP before the second look, and keys never come back."""
    clinic = await registered(tmp_path)
    async with clinic.open() as hospital:
        ending = Ending(hospital.hospital)
        for _ in range(2):
            clinic.now += 1000 * DAY
            assert await ending.look() == 0
            clinic.now -= 1000 * DAY
            assert await ending.look() == 0
        assert len(hospital.files()) == 2


async def test_a_project_that_is_over_takes_no_other_one_along(tmp_path: Path) -> None:
    """Their files have inode numbers of one row; keys never come back. The other is ended when it is over, too."""
    clinic = await registered(tmp_path)
    async with clinic.open() as hospital:
        lasting = hospital.hospital.projects[PROJECT]
        over = dataclasses.replace(lasting, name="over", until=lasting.until - dt.timedelta(days=30))
        projects = {PROJECT: lasting, "over": over}
        ending = Ending(dataclasses.replace(hospital.hospital, projects=projects))
        assert [await ending.look() for _ in range(3)] == [0, 0, 0]
        assert len(hospital.files()) == 2
        clinic.now += 2 * DAY
        assert [await ending.look() for _ in range(2)] == [0, 2]
        assert hospital.files() == {}


class CountingStore(CuttingStore):
    """A store that notes each time that it is looked into."""

    def __init__(self, store: Store, reads: list[int]) -> None:
        super().__init__(store, sys.maxsize, is_kept=True)
        self._reads = reads

    def read(self, act: Callable[[Transaction], T]) -> T:
        """Read."""
        self._reads.append(1)
        return super().read(act)


async def test_what_comes_after_the_end_is_ended_too_and_what_is_ended_is_not_looked_at_again(tmp_path: Path) -> None:
    """A clock that is put back for a moment adds files; a hospital has millions of those that are gone."""
    clinic = await registered(tmp_path)
    clinic.pacs.held += slices((3,), series=2)
    clinic.now += 2 * DAY
    async with clinic.open() as hospital:
        reads: list[int] = []
        ending = Ending(dataclasses.replace(hospital.hospital, store=CountingStore(clinic.store, reads)), batch=1)
        assert [await ending.look() for _ in range(2)] == [0, 2]
        assert len(reads) > 2 * 2
        clinic.now -= 2 * DAY
        await hospital.harvest()
        clinic.now += 2 * DAY
        assert await ending.look() == 1
        assert {file.state for file in clinic.store.read(lambda tx: tx.catalogue.files())} == {FileState.WITHDRAWN}
        reads.clear()
        assert await ending.look() == 0
        assert len(reads) <= 2


class Failing(Ending):
    """An ending whose store does not work at first."""

    looks = 0

    async def look(self) -> int:
        """Look, but not the first time."""
        self.looks += 1
        if self.looks == 1:
            message = "the disk is away"
            raise StoreError(message)
        return await super().look()


async def test_what_cannot_be_ended_now_is_ended_at_a_later_look(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A project that is over, and a patient who has opted out, do not stay for a moment in which a disk was away."""
    clinic = await registered(tmp_path)
    clinic.opted_out = including(PATIENT)
    async with clinic.open() as hospital:
        begun, ending = autojump_clock.current_time(), Failing(hospital.hospital)

        def is_ended() -> bool:
            return {file.state for file in clinic.store.read(lambda tx: tx.catalogue.files())} == {FileState.WITHDRAWN}

        with structlog.testing.capture_logs() as lines:
            hospital.nursery.start_soon(ending.run)
            await trio.sleep(INTERVAL + 1)
            await until(is_ended)
        assert [line["reason"] for line in lines if line["log_level"] == "error"] == ["the disk is away"]
        assert ending.looks == 2
        assert autojump_clock.current_time() - begun < 2 * INTERVAL
