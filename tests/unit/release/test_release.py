"""Release: decided, written down, and only then let out; what a project or patient no longer allows stays in."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import msgspec
import pytest
import trio

from mdmfs.access.acl import Acl
from mdmfs.hospital.assembly import read_policy
from mdmfs.hospital.catalogue.records import FileRecord, FileState
from mdmfs.hospital.deid.deidentify import ENGINE_GENERATION
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.projects import PatientList
from mdmfs.hospital.release.decision import Bar, Denial, Standing, decide, is_open_under
from mdmfs.hospital.release.release import release, stage_all
from mdmfs.hospital.store import Store, Transaction
from mdmfs.model.errors import (
    AccessDeniedError,
    CredentialExpiredError,
    InstanceRefusedError,
    MdmfsError,
    NoSuchFileError,
    PacsUnreachableError,
    StoreError,
)
from mdmfs.model.names import Guid
from tests.twins.clinic import NOW, PATIENT, PROJECT_LFN, READER, STRANGER, Clinic, OpenClinic, including, slices
from tests.twins.disk import no_room_behind
from tests.twins.images import ROOT
from tests.twins.keystores import principal
from tests.twins.records import file_record, guid_of
from tests.twins.store import MemoryStore

T = TypeVar("T")


class OvertakenStore(MemoryStore):
    """A store in which somebody may commit between the moment a question is put and the view it is answered by."""

    def __init__(self) -> None:
        super().__init__()
        self.overtaking: Callable[[Transaction], object] | None = None

    def read(self, act: Callable[[Transaction], T]) -> T:
        """Commit first what is to overtake, once."""
        if self.overtaking is not None:
            overtaking, self.overtaking = self.overtaking, None
            self._version += 1
            self._run(overtaking, is_writing=True)
        return super().read(act)


async def register(clinic: Clinic) -> Guid:
    """Register, and give the one file's GUID."""
    async with clinic.open() as hospital:
        await hospital.harvest()
        (guid,) = hospital.files().values()
        return guid


async def refused(hospital: OpenClinic, guid: Guid, kind: type[MdmfsError], who: object = READER) -> str:
    """Expect a refusal, before the PACS is asked; give what the audit log says of it."""
    recalls = hospital.clinic.pacs.recalls
    with pytest.raises(kind):
        await hospital.release(guid, who)  # type: ignore[arg-type]
    assert hospital.clinic.pacs.recalls == recalls
    last = hospital.audited()[-1]
    assert (last["event"], last["guid"]) == ("refusal", str(guid))
    return str(last["outcome"])


async def test_a_release_is_on_record_before_the_pacs_is_asked(tmp_path: Path) -> None:
    """Who, what, from where and by which entry; with the PACS down the record is there all the same."""
    clinic = Clinic(tmp_path, slices((1,)))
    guid = await register(clinic)
    async with clinic.open() as hospital:
        clinic.pacs.is_stopped = True
        with pytest.raises(PacsUnreachableError):
            await hospital.release(guid)
        last = hospital.audited()[-1]
        assert last == {
            "time": NOW,
            "event": "release",
            "dn": str(READER.dn),
            "guid": str(guid),
            "address": "192.0.2.7",
            "outcome": f"user:{READER.dn}",
            "project": "neuro",
            "uid": last["uid"],
        }
        assert str(last["uid"]).startswith("2.25.")


async def test_without_a_record_nothing_is_released(tmp_path: Path) -> None:
    """Also what is staged already, and an audit log on a full disk stops all of it."""
    clinic = Clinic(tmp_path, slices((1,)))
    guid = await register(clinic)
    async with clinic.open() as hospital:
        with no_room_behind(tmp_path / "audit.jsonl"):
            for _ in range(2):
                with pytest.raises(StoreError, match="nothing is released"):
                    await hospital.release(guid)
        await hospital.release(guid)


async def test_without_a_record_nothing_is_staged_for_another_daemon(tmp_path: Path) -> None:
    """It lets out by a record of its own; that it was given the file stands in ours."""
    clinic = Clinic(tmp_path, slices((1,)))
    guid = await register(clinic)
    async with clinic.open() as hospital:
        staged = stage_all([guid], hospital.hospital, hospital.recalls, address="192.0.2.8", are_ahead=False)
        with no_room_behind(tmp_path / "audit.jsonl"), pytest.raises(StoreError, match="nothing is released"):
            await anext(staged)


async def test_who_has_no_right_is_refused_on_record(tmp_path: Path) -> None:
    """A stranger learns nothing, not even that the file is there; an expired proxy is told so."""
    clinic = Clinic(tmp_path, slices((1,)))
    guid = await register(clinic)
    async with clinic.open() as hospital:
        assert "directory" in await refused(hospital, guid, NoSuchFileError, STRANGER)
        last = hospital.audited()[-1]
        assert (last["project"], str(last["uid"])[:5]) == ("neuro", "2.25.")
        expired = principal(READER.dn, not_after=NOW - 1)
        assert "expired" in await refused(hospital, guid, CredentialExpiredError, expired)
        with pytest.raises(NoSuchFileError) as known, trio.fail_after(5):
            await hospital.release(guid, STRANGER)
        with pytest.raises(NoSuchFileError) as unknown:
            await hospital.release(guid_of(5), STRANGER)
        assert str(known.value).replace(str(guid), "") == str(unknown.value).replace(str(guid_of(5)), "")


async def test_a_project_that_is_over_releases_nothing(tmp_path: Path) -> None:
    """Its last day counts whole, in UTC; staged files are no exception, nor are projects taken out of the folder."""
    clinic = Clinic(tmp_path, slices((1,)))
    guid = await register(clinic)
    async with clinic.open() as hospital:
        assert await hospital.read(guid)
        midnight = dt.datetime.combine(clinic.until, dt.time(), dt.UTC).timestamp() + 86_400
        clinic.now = midnight - 1
        assert await hospital.read(guid)
        clinic.now = midnight
        assert "project" in await refused(hospital, guid, AccessDeniedError)
        clinic.now = NOW
        without = dataclasses.replace(hospital.hospital, projects={})
        with pytest.raises(AccessDeniedError):
            await release(READER, guid, without, hospital.recalls, address="")


@pytest.mark.parametrize(
    "opted_out", [including(PATIENT), including(PatientKey("", "TEST-1")), including(studies=[f"{ROOT}.1"])]
)
async def test_an_opt_out_takes_effect_at_the_next_open(tmp_path: Path, opted_out: PatientList) -> None:
    """Whatever was registered and staged before; the log says why, the caller does not learn it."""
    clinic = Clinic(tmp_path, slices((1,)))
    guid = await register(clinic)
    async with clinic.open() as hospital:
        assert await hospital.read(guid)
    clinic.opted_out = opted_out
    async with clinic.open() as hospital:
        assert "opted out" in await refused(hospital, guid, NoSuchFileError)


async def test_an_opt_out_of_somebody_else_changes_nothing(tmp_path: Path) -> None:
    """The same Patient ID of another issuer is another patient."""
    clinic = Clinic(tmp_path, slices((1,)))
    guid = await register(clinic)
    clinic.opted_out = including(PatientKey("ELSEWHERE", "TEST-1"), PatientKey("", "TEST-2"), studies=["1.2.3"])
    async with clinic.open() as hospital:
        assert await hospital.read(guid)


async def test_another_policy_makes_another_file_and_is_refused(tmp_path: Path) -> None:
    """The project's policy has changed since the registration."""
    clinic = Clinic(tmp_path, slices((1,)))
    guid = await register(clinic)
    clinic.policy = read_policy("strict")
    async with clinic.open() as hospital:
        assert "policy" in await refused(hospital, guid, InstanceRefusedError)


async def test_another_engine_makes_another_file_and_is_refused(tmp_path: Path) -> None:
    """A registration of an earlier generation of the engine, as a store that was kept through an update holds it."""
    clinic = Clinic(tmp_path, slices((1,)))
    guid = await register(clinic)

    async with clinic.open() as hospital:
        file = clinic.store.read(lambda tx: tx.catalogue.file(guid))
        assert file is not None
        older = msgspec.structs.replace(
            file, rendition=msgspec.structs.replace(file.rendition, engine_generation=ENGINE_GENERATION - 1)
        )
        earlier = dataclasses.replace(hospital.hospital, store=RewrittenStore(clinic.store, older))
        with pytest.raises(InstanceRefusedError, match="another policy or engine"):
            await release(READER, guid, earlier, hospital.recalls, address="")


class RewrittenStore:
    """A store in which one file's record is another one."""

    def __init__(self, store: Store, record: FileRecord) -> None:
        self._store = store
        self._record = record
        self.write = store.write
        self.version = store.version
        self.refuse_stale = store.refuse_stale
        self.aclose = store.aclose

    def read(self, act: Callable[[Transaction], T]) -> T:
        """Read, as if the record had been written so."""
        return self._store.read(lambda tx: act(cast("Transaction", RewrittenTransaction(tx, self._record))))


class RewrittenTransaction:
    """A transaction that shows the other record."""

    def __init__(self, tx: Transaction, record: FileRecord) -> None:
        self._tx = tx
        self._record = record
        self.catalogue = self

    def __getattr__(self, name: str) -> object:
        """Leave everything else as it is."""
        return getattr(self._tx, name, None) or getattr(self._tx.catalogue, name)

    def file(self, guid: Guid) -> FileRecord | None:
        """Give the other record."""
        return self._record if guid == self._record.guid else self._tx.catalogue.file(guid)


async def test_a_pacs_that_is_no_longer_configured_is_named(tmp_path: Path) -> None:
    """Neither a crash nor a wait."""
    clinic = Clinic(tmp_path, slices((1,)))
    guid = await register(clinic)
    async with clinic.open() as hospital:
        without = dataclasses.replace(hospital.hospital, pacs={})
        with pytest.raises(PacsUnreachableError, match="configuration"):
            await release(READER, guid, without, hospital.recalls, address="")


async def test_a_project_that_is_no_longer_configured_has_ended(tmp_path: Path) -> None:
    """Nobody says any more that its files may be let out, nor by which rules."""
    clinic = Clinic(tmp_path, slices((1,)))
    guid = await register(clinic)
    async with clinic.open() as hospital:
        without = dataclasses.replace(hospital.hospital, projects={})
        for _ in range(2):  # also when it is known of the file already what it was while the project was there
            with pytest.raises(AccessDeniedError, match="has ended"):
                await release(READER, guid, without, hospital.recalls, address="")
            await hospital.hospital.store.write(lambda tx: tx.epochs.latest())
            assert isinstance(decided(hospital, guid), Standing)


async def test_a_subject_that_was_forgotten_releases_nothing(tmp_path: Path) -> None:
    """Deleting the row ends linkability, so there is nothing that the file could be made with."""
    clinic = Clinic(tmp_path, slices((1,)))
    guid = await register(clinic)
    async with clinic.open() as hospital:
        (series,) = hospital.series()
        await clinic.store.write(lambda tx: tx.subjects.delete(series.subject))
        await refused(hospital, guid, AccessDeniedError)


async def test_what_is_pending_or_withdrawn_is_not_there(tmp_path: Path) -> None:
    """Nobody opens what nobody sees, the owner neither."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with clinic.open(deposits=False) as hospital:
        await hospital.harvest()
        (file,) = clinic.store.read(lambda tx: tx.catalogue.files())
        with pytest.raises(NoSuchFileError):
            await hospital.release(file.guid)
    async with clinic.open() as hospital:
        await hospital.deliver()
        assert await hospital.read(file.guid)
        await clinic.store.write(lambda tx: tx.catalogue.withdraw([file.guid]))
        with pytest.raises(NoSuchFileError):
            await hospital.release(file.guid)


@pytest.mark.parametrize("state", list(FileState))
def test_a_file_opens_under_its_present_key_alone_and_while_it_shows(state: FileState) -> None:
    """Or while a newer one has its name; a copy under an older key, or a newer one, is of no use."""
    file = msgspec.structs.replace(file_record(1), state=state, generation=7)
    opens = state in {FileState.VISIBLE, FileState.SUPERSEDED}
    assert [is_open_under(file, generation) for generation in (6, 7, 8)] == [False, opens, False]


# What was read before and holds still


def decided(hospital: OpenClinic, guid: Guid) -> Standing | Denial:
    """Decide about a file, for its reader."""
    (decision,) = decide(READER, [guid], hospital.hospital)
    return decision


def closing(guid: Guid) -> Callable[[Transaction], object]:
    """Give what takes a file from everybody but its owner."""
    return lambda tx: tx.acls.set_of_file(guid, Acl(str(STRANGER.dn), ()))


async def test_between_two_commits_acls_are_read_once_and_after_one_they_are_read_again(tmp_path: Path) -> None:
    """Whoever had the file does not have it in the next decision."""
    async with Clinic(tmp_path, slices((1,))).open() as hospital:
        await hospital.harvest()
        (guid,) = hospital.files().values()
        assert [type(decided(hospital, guid)) for _ in range(2)] == [Standing, Standing]
        await hospital.hospital.store.write(closing(guid))
        assert isinstance(decided(hospital, guid), Denial)


async def test_a_commit_between_question_and_view_makes_what_was_read_before_of_no_use(tmp_path: Path) -> None:
    """The view counts, not what others have read of the version that was asked for."""
    clinic = Clinic(tmp_path, slices((1,)))
    store = clinic.store = OvertakenStore()
    async with clinic.open() as hospital:
        await hospital.harvest()
        (guid,) = hospital.files().values()
        assert isinstance(decided(hospital, guid), Standing)
        store.overtaking = lambda tx: tx.acls.set(PROJECT_LFN, Acl(str(STRANGER.dn), ()))
        assert isinstance(decided(hospital, guid), Denial)
        assert isinstance(decided(hospital, guid), Denial)


async def test_a_file_is_looked_up_once_a_commit_whoever_asks(tmp_path: Path) -> None:
    """What the store says of it is the same for everybody; whether he may have it is decided each time."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        (guid,) = hospital.files().values()

        def looked_up() -> FileRecord:
            standing = decided(hospital, guid)
            assert isinstance(standing, Standing)
            return standing.source.file

        (denial,) = decide(STRANGER, [guid], hospital.hospital)
        assert isinstance(denial, Denial)
        first = looked_up()
        assert looked_up() is first
        await hospital.hospital.store.write(lambda tx: tx.epochs.latest())
        assert looked_up() is not first


async def test_a_file_that_is_gone_is_gone_whenever_it_is_asked_again(tmp_path: Path) -> None:
    """That no was said once does not make it yes while nothing more is committed."""
    async with Clinic(tmp_path, slices((1,))).open() as hospital:
        await hospital.harvest()
        (guid,) = hospital.files().values()
        standing = decided(hospital, guid)
        assert isinstance(standing, Standing)
        assert standing.source.is_current()
        await hospital.hospital.store.write(lambda tx: tx.catalogue.withdraw([guid]))
        assert [standing.source.is_current() for _ in range(2)] == [False, False]


async def test_a_project_that_ends_without_a_commit_has_ended(tmp_path: Path) -> None:
    """What is remembered of a series does not say whether its project is over."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        (guid,) = hospital.files().values()
        assert isinstance(decided(hospital, guid), Standing)
        clinic.now += 2 * 86400
        denial = decided(hospital, guid)
        assert isinstance(denial, Denial)
        assert denial.outcome == Bar.PROJECT_OVER.value
