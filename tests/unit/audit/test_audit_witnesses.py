"""Checkpoints at keystores: deposited as the log grows, and what they find when the log was tampered with."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog.testing
import trio

from mdmfs.hospital.audit.verify import Log, Report, ask_witnesses, verify
from mdmfs.hospital.audit.witnesses import deposit_checkpoints, deposit_one
from mdmfs.hospital.kept.audit import Audit, AuditRecord, Event, records_of
from mdmfs.hospital.signing import SigningKey
from mdmfs.journal.chain import Head, Kind
from mdmfs.journal.checkpoint import Checkpoint
from mdmfs.model.errors import AccessDeniedError, MalformedMessageError, StoreError
from mdmfs.wire.messages.keystores import WITNESS_PATH, WITNESSED_PATH, AskWitnessed, Outcomes, Witness, Witnessed
from mdmfs.wire.messages.message import Message
from tests.twins.clinic import KEYSTORES, OWNER, READER, Clinic, OpenClinic, slices, until
from tests.twins.keystores import unreachable


@contextlib.asynccontextmanager
async def opened(folder: Path, records: int = 5) -> AsyncIterator[OpenClinic]:
    """Give a hospital with some records, of which every keystore has heard."""
    async with Clinic(folder, slices((1,))).open() as clinic:
        for number in range(records):
            await note(clinic, number)
            clinic.clinic.now += 60
            for name in KEYSTORES:
                await deposit_one(name, clinic.hospital)
        yield clinic


async def note(clinic: OpenClinic, number: int, *, ahead: float = 0.0) -> None:
    """Write a record, by a clock that is so many seconds ahead."""
    await clinic.hospital.audit.record(AuditRecord(time=time.time() + ahead, event=Event.RELEASE, count=number + 1))


async def verified(clinic: OpenClinic, *older: Path) -> Report:
    """Verify as the command does."""
    witnessed, problems = await ask_witnesses(clinic.hospital.keystores)
    path = clinic.clinic.folder / "audit.jsonl"
    report = verify([Log.at(one) for one in (path, *older)], witnessed)
    return report._replace(problems=problems + report.problems)


async def test_a_log_that_nobody_touched_is_clean_and_vouched_for(tmp_path: Path) -> None:
    """By every keystore, up to its latest record."""
    async with opened(tmp_path) as clinic:
        assert await verified(clinic) == Report(6, [], [], dict.fromkeys(KEYSTORES, 6))
        await note(clinic, 6)
        assert (await verified(clinic)).vouched == dict.fromkeys(KEYSTORES, 6)


async def test_times_that_go_back_are_told_by_record_and_are_no_fault(tmp_path: Path) -> None:
    """An hour back where a clock was set right again, and not what was written a moment late."""
    async with opened(tmp_path) as clinic:
        for number, ahead in enumerate((0.0, 3600.0, 3600.0, 3597.0, 0.0, -1.0, 0.0), 7):
            await note(clinic, number, ahead=ahead)
        report = await verified(clinic)
        assert [(step.number, round(step.seconds, -2)) for step in report.steps_back] == [(11, 3600.0)]
        assert report.is_clean
        assert "record 11 is 359" in str(report.steps_back[0])


async def test_checkpoints_are_deposited_within_ten_seconds_of_a_record(tmp_path: Path, autojump_clock: object) -> None:
    """And by themselves; a keystore that was away gets the newest when it is back."""
    del autojump_clock
    async with Clinic(tmp_path, slices((1,))).open() as clinic:
        clinic.nursery.start_soon(deposit_checkpoints, clinic.hospital)
        away = clinic.clinic.keystores[KEYSTORES[0]]
        away.failure = unreachable
        for number in range(3):
            await note(clinic, number)
            await trio.sleep(10.5)
        found, problems = await ask_witnesses(clinic.hospital.keystores)
        assert len(problems) == 1
        assert {name: kept[-1].head for name, kept in found.items()} == dict.fromkeys(
            KEYSTORES[1:], clinic.hospital.audit.head
        )
        away.failure = None
        await trio.sleep(10.5)
        assert (await verified(clinic)).vouched == dict.fromkeys(KEYSTORES, 4)


async def test_a_log_written_anew_or_cut_is_found(tmp_path: Path) -> None:
    """Its links fit, and its keeper signs what he likes: the keystores know better."""
    async with opened(tmp_path) as clinic:
        path, key = tmp_path / "audit.jsonl", SigningKey(tmp_path / "signing.key")
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:4]))
        assert [fault.kind for fault in (await verified(clinic)).faults] == [Kind.CUT]
        forged = Audit(path, key)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forged.run)
            for number in (7, 8, 9):
                await forged.record(AuditRecord(time=float(number), event=Event.RELEASE, dn="/CN=nobody"))
            nursery.cancel_scope.cancel()
        forged.close()
        report = await verified(clinic)
        assert [(fault.kind, fault.first) for fault in report.faults] == [(Kind.REWRITTEN, 5), (Kind.REWRITTEN, 6)]
        assert not report.is_clean


async def test_another_log_in_its_place_is_found_and_an_older_one_can_be_shown(tmp_path: Path) -> None:
    """Deleting everything and beginning anew hides nothing."""
    async with opened(tmp_path) as clinic:
        (tmp_path / "audit.jsonl").rename(tmp_path / "old.jsonl")
        Audit(tmp_path / "audit.jsonl", SigningKey(tmp_path / "signing.key")).close()
        report = await verified(clinic)
        assert len(report.problems) == len(KEYSTORES) + 1
        assert all("another log" in problem and "6 records" in problem for problem in report.problems[:-1])
        assert "no keystore vouches" in report.problems[-1]
        assert len((await verified(clinic, tmp_path / "old.jsonl")).problems) == 1
        (tmp_path / "audit.jsonl").unlink()
        with pytest.raises(StoreError):
            await verified(clinic)


async def test_a_keystore_refuses_to_go_back_and_keeps_what_it_has(tmp_path: Path) -> None:
    """The same again is fine; less, or the same number with another link, is not."""
    async with opened(tmp_path) as clinic:
        keystore = clinic.clinic.keystores[KEYSTORES[0]]
        kept = await told(keystore.as_seen_by(OWNER), AskWitnessed())
        assert isinstance(kept, Witnessed)
        latest = kept.checkpoints[-1]
        for changed, outcome in (
            (latest, "done"),
            (Witness(latest.journal, latest.number, bytes(32), 1.0, bytes(64)), "conflict"),
            (Witness(latest.journal, latest.number - 1, latest.link, 1.0, bytes(64)), "conflict"),
        ):
            with structlog.testing.capture_logs() as logs:
                assert await told(keystore.as_seen_by(OWNER), changed) == Outcomes([outcome])  # type: ignore[list-item]
            alarms = [(it["log_level"], it["dn"]) for it in logs if it["event"] == "an audit log goes back"]
            assert alarms == [("error", str(OWNER.dn))] * (outcome == "conflict")
        assert await told(keystore.as_seen_by(OWNER), AskWitnessed()) == kept


async def test_a_keystore_that_shows_what_the_hospital_never_signed_is_named(tmp_path: Path) -> None:
    """It cannot make a good log look bad."""
    async with opened(tmp_path) as clinic:
        page = clinic.clinic.keystores[KEYSTORES[1]].shelf.page
        (key,) = [key for key in page.checkpoints if key[2] == 6]
        page.checkpoints[key] = type(page.checkpoints[key])(
            journal=key[1], number=6, link=bytes(32), when=1.0, signature=bytes(64)
        )
        report = await verified(clinic)
        assert not report.faults
        assert report.problems == [f"{KEYSTORES[1]} shows a checkpoint of record 6 that is not signed"]
        clinic.clinic.keystores[KEYSTORES[0]].failure = unreachable
        assert any("cannot be asked" in problem for problem in (await verified(clinic)).problems)


async def test_the_log_names_a_new_signing_key_and_keystores_go_on_vouching(tmp_path: Path) -> None:
    """What the new key signs counts from there on; what the old one, which was lost or seen, signs then does not."""
    place, lost = Clinic(tmp_path, slices((1,))), tmp_path / "lost.key"
    for is_another in (False, True, False):
        if is_another:
            (tmp_path / "signing.key").rename(lost)
        async with place.open() as clinic:
            await note(clinic, 1)
            for name in KEYSTORES:
                await deposit_one(name, clinic.hospital)
            report = await verified(clinic)
            assert report.is_clean, report
            assert report.vouched == dict.fromkeys(KEYSTORES, clinic.hospital.audit.head.number)
    path = tmp_path / "audit.jsonl"
    assert [record.event for record in records_of(path)] == ["begin", "release", "signer", "release", "release"]
    by_the_old = SigningKey(lost).sign_checkpoint(Checkpoint(Log.at(path).id, Head(5, bytes(32)), 1.0))
    told = verify([Log.at(path)], {KEYSTORES[0]: [by_the_old]})
    assert not told.faults
    assert told.problems[0] == f"{KEYSTORES[0]} shows a checkpoint of record 5 that is not signed"


async def test_of_old_checkpoints_one_a_minute_is_kept(tmp_path: Path) -> None:
    """A busy hospital fills no keystore; the newest is always there."""
    async with Clinic(tmp_path, slices((1,))).open() as clinic:
        keystore = clinic.clinic.keystores[KEYSTORES[0]].as_seen_by(OWNER)
        for number in range(1, 61):
            await told(keystore, Witness(bytes(16), number, bytes(32), number * 10.0, bytes(64)))
        kept = await told(keystore, AskWitnessed())
        assert isinstance(kept, Witnessed)
        numbers = [one.number for one in kept.checkpoints]
        assert numbers[-1] == 60
        assert all(later - earlier <= 7 for earlier, later in itertools.pairwise(numbers))
        assert len(numbers) <= 12


async def test_only_a_listed_hospital_deposits_and_asks_and_in_bounds(tmp_path: Path) -> None:
    """A reader learns nothing of the log, not even its length."""
    async with opened(tmp_path) as clinic:
        keystore = clinic.clinic.keystores[KEYSTORES[0]]
        good = Witness(bytes(16), 1, bytes(32), 1.0, bytes(64))
        for message in (good, AskWitnessed()):
            with pytest.raises(AccessDeniedError):
                await told(keystore.as_seen_by(READER), message)
        for bad in (
            Witness(b"", 1, bytes(32), 1.0, bytes(64)),
            Witness(bytes(16), 0, bytes(32), 1.0, bytes(64)),
            Witness(bytes(16), 2**63, bytes(32), 1.0, bytes(64)),
            Witness(bytes(16), 1, bytes(31), 1.0, bytes(64)),
            Witness(bytes(16), 1, bytes(32), float("nan"), bytes(64)),
            Witness(bytes(16), 1, bytes(32), 1.0, b""),
            AskWitnessed(b"x", 0),
            AskWitnessed(b"", -1),
            AskWitnessed(bytes(16), 2**63),
        ):
            with pytest.raises(MalformedMessageError):
                await told(keystore.as_seen_by(OWNER), bad)


async def test_a_keystore_that_knows_better_is_told_in_the_hospitals_own_log(tmp_path: Path) -> None:
    """The daemon goes on: what it has to record is not lost over it."""
    async with opened(tmp_path) as clinic:
        await told(
            clinic.clinic.keystores[KEYSTORES[0]].as_seen_by(OWNER),
            Witness(clinic.hospital.audit.id, 99, bytes(32), 1.0, bytes(64)),
        )
        assert await deposit_one(KEYSTORES[0], clinic.hospital) == 6
        await until(lambda: clinic.hospital.audit.head.number == 6)


async def told(client: object, message: Message) -> Message:
    """Ask a keystore."""
    path, kind = (WITNESS_PATH, Outcomes) if isinstance(message, Witness) else (WITNESSED_PATH, Witnessed)
    answer: Message = await client.call(path, message, kind, deadline=trio.current_time() + 5)  # type: ignore[attr-defined]
    return answer
