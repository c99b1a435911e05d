"""Why: the entries that decide, to those who see them; a stranger learns nothing that the refusal did not tell."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mdmfs.hospital.ledger.records import LossCause, LossRecord
from mdmfs.hospital.rights.face import rights_routes
from mdmfs.model.errors import AccessDeniedError, NoSuchFileError
from mdmfs.model.identity import Principal
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.acls import WHY_PATH, AskWhy, Why
from mdmfs.wire.service import Service
from tests.twins.clinic import OWNER, PROJECT_LFN, READER, STRANGER, Clinic, OpenClinic, slices

UNKNOWN = "there is no such name, or it is not for this identity"


@pytest.fixture
async def hospital(tmp_path: Path) -> AsyncIterator[OpenClinic]:
    """Make a hospital with one series."""
    async with Clinic(tmp_path, slices((1, 2))).open() as opened:
        await opened.harvest()
        opened.face = Service("hospital", {**opened.face.routes, **rights_routes(opened.hospital)})
        yield opened


def file_of(hospital: OpenClinic) -> Lfn:
    """Name a file."""
    return Lfn((*PROJECT_LFN.parts, *hospital.names()[0].split("/")))


async def ask(hospital: OpenClinic, lfn: Lfn, who: Principal, dn: str = "") -> Why:
    """Ask."""
    told = await hospital.told(WHY_PATH, AskWhy(str(lfn), dn), who)
    assert isinstance(told, Why)
    return told


async def test_a_reader_sees_the_entry_that_decides_at_each_step(hospital: OpenClinic) -> None:
    """From the root to the file, with where the bytes are."""
    lfn = file_of(hospital)
    told = await ask(hospital, lfn, READER)
    assert [step.right for step in told.steps] == ["x"] * len(lfn.parts) + ["r"]
    assert all(step.is_allowed for step in told.steps)
    assert told.steps[0].reason == "other::--x--"
    assert told.steps[-1].reason == f"user:{READER.dn}:r-x--"
    assert told.guid == hospital.files()[hospital.names()[0]].octets
    assert (told.locality, told.pacs) == ("NEARLINE", "is asked: it has not failed several times in a row")
    lost = LossRecord(LossCause.GONE, 0.0)
    await hospital.hospital.store.write(lambda tx: tx.losses.put(Guid(told.guid), lost))
    assert (await ask(hospital, lfn, READER)).locality == "LOST"


async def test_what_keeps_a_file_in_that_its_acls_would_let_out_is_told(hospital: OpenClinic) -> None:
    """Here the project's end, with the words that an open gets; a policy that was changed is told likewise."""
    hospital.clinic.now += 2 * 86400
    *above, last = (await ask(hospital, file_of(hospital), READER)).steps
    assert all(step.is_allowed for step in above)
    assert (last.right, last.is_allowed) == ("r", False)
    assert "has ended; its files are no longer released" in last.reason


async def test_a_stranger_is_told_the_same_of_what_is_there_and_what_is_not(hospital: OpenClinic) -> None:
    """No name, no GUID, no entry: the way ends at the same step with the same words."""
    there = await ask(hospital, file_of(hospital), STRANGER)
    nowhere = await ask(hospital, Lfn(("amc", "neuro", "nothing", "0001.dcm")), STRANGER)
    elsewhere = await ask(hospital, Lfn(("umc", "x")), STRANGER)
    for told in (there, nowhere, elsewhere):
        assert [step.is_allowed for step in told.steps] == [True, False]
        assert told.steps[1].reason == UNKNOWN
        assert (told.guid, told.locality, told.pacs) == (b"", "", "")
    assert there == nowhere


async def test_for_another_dn_asks_who_may_change_the_rights(hospital: OpenClinic) -> None:
    """A reader may not, a stranger sees nothing at all."""
    lfn = file_of(hospital)
    told = await ask(hospital, lfn, OWNER, str(STRANGER.dn))
    assert (told.dn, told.steps[-1].is_allowed) == (str(STRANGER.dn), False)
    assert told.steps[-1].reason == "no entry names the principal"
    assert (await ask(hospital, lfn, OWNER, str(READER.dn))).steps[-1].is_allowed
    with pytest.raises(AccessDeniedError, match="right a"):
        await ask(hospital, lfn, READER, str(STRANGER.dn))
    with pytest.raises(NoSuchFileError):
        await ask(hospital, lfn, STRANGER, str(READER.dn))
