"""What is over is taken away: names, keys and copies, each in the audit log."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.projects import PatientList
from mdmfs.hospital.registration.ending import end_some
from tests.twins.clinic import PATIENT, Clinic, including, slices
from tests.twins.images import ROOT

DAY = 86_400.0


async def states_after(clinic: Clinic) -> tuple[int, set[FileState], list[str]]:
    """Open the hospital again, let it end what is over, and give how many, all states, and the last audit events."""
    before = epoch_of(clinic)
    async with clinic.open() as hospital:
        ended = await end_some(hospital.hospital)
        assert await end_some(hospital.hospital) == 0
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
