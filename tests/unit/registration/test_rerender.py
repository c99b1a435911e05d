"""Rendering anew and withdrawing: new files under the old names, old keys destroyed, whatever breaks off in between."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import pytest
import trio
from pydicom import Dataset

from mdmfs.hospital.assembly import read_policy
from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.dicom.pacs import InstanceFound
from mdmfs.hospital.hospital import KnownPacs
from mdmfs.hospital.keys.currency import keep_current
from mdmfs.hospital.keys.selection import Selection
from mdmfs.hospital.keys.tasks import Task, Tasks
from mdmfs.hospital.ledger.records import SeriesState
from mdmfs.hospital.projects import Partial
from mdmfs.hospital.registration.face import renewal_routes
from mdmfs.hospital.registration.harvest import Harvest
from mdmfs.hospital.registration.rerender import Rerendering, Rerenderings
from mdmfs.hospital.release.readers import readers_of
from mdmfs.hospital.release.release import quarantine
from mdmfs.hospital.store import Store, Transaction
from mdmfs.model.errors import AccessDeniedError, BusyError, InstanceRefusedError, NoSuchFileError, UnknownNameError
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.administration import (
    READERS_PATH,
    RERENDER_PATH,
    RERENDER_PROGRESS_PATH,
    WITHDRAW_PATH,
    AskReaders,
    AskRerender,
    Readers,
    RerenderProgress,
    StartRerender,
    StartWithdraw,
)
from mdmfs.wire.messages.key_tasks import KeyProgress, KeyTask
from mdmfs.wire.messages.message import Message
from mdmfs.wire.service import Reply, Request
from mdmfs.wire.stream import Address
from tests.twins.clinic import OWNER, PROJECT, PROJECT_LFN, READER, Clinic, OpenClinic, including, slices, until
from tests.twins.cutting import CuttingStore, PowerCutError
from tests.twins.keystores import unreachable
from tests.twins.pacs import TwinInstance, TwinPacs
from tests.twins.shelf import MemoryShelf

T = TypeVar("T")

STRICT: Final = read_policy("strict")


async def rerendered(opened: OpenClinic) -> Rerendering:
    """Render the project anew, to the end."""
    opened.nursery.start_soon(keep_current, opened.hospital)
    run = Rerendering(opened.hospital.projects[PROJECT], patience=1.0)
    await run.run(opened.hospital)
    await opened.deliver()
    return run


def states(clinic: Clinic) -> dict[Guid, FileState]:
    """Give the state of every file."""
    return {file.guid: file.state for file in clinic.store.read(lambda tx: tx.catalogue.files())}


def inodes(clinic: Clinic) -> dict[Guid, int]:
    """Give the inode number of every file."""
    return {file.guid: file.inode for file in clinic.store.read(lambda tx: tx.catalogue.files())}


async def registered(folder: Path, count: int = 3) -> tuple[Clinic, dict[str, Guid]]:
    """Register a series under one policy, let a reader have its first file, and change the policy."""
    clinic = Clinic(folder, slices(range(1, count + 1)))
    async with clinic.open() as opened:
        await opened.harvest()
        files = opened.files()
        await opened.read(next(iter(files.values())))
    clinic.policy = STRICT
    return clinic, files


async def test_files_are_made_anew_under_their_names_and_the_old_keys_destroyed(tmp_path: Path) -> None:
    """New GUIDs, inode numbers and digests; who had an old file is known from the audit log."""
    clinic, before = await registered(tmp_path)
    async with clinic.open() as opened:
        run = await rerendered(opened)
        assert (run.rendered, run.refused, run.destroyed, run.failures) == (3, 0, 3, [])
        after = opened.files()
        assert after.keys() == before.keys()
        assert not set(after.values()) & set(before.values())
        numbers = inodes(clinic)
        assert not {numbers[guid] for guid in after.values()} & {numbers[guid] for guid in before.values()}
        assert b"PatientAge" not in await opened.read(after["/".join(next(iter(after)).split("/"))])
        assert {states(clinic)[guid] for guid in before.values()} == {FileState.WITHDRAWN}
        with pytest.raises(NoSuchFileError):
            await opened.read(next(iter(before.values())))
        await until(
            lambda: not any(twin.shelf.page.key(guid) for twin in clinic.keystores.values() for guid in before.values())
        )
        (had,) = readers_of(opened.hospital.audit.path, {str(guid) for guid in before.values()})
        assert (had.dn, had.files) == (str(READER.dn), 1)
        assert [line["guid"] for line in opened.audited() if line["event"] == "destruction"]
        again = await rerendered(opened)
        assert (again.series_found, again.rendered, again.destroyed) == (0, 0, 0)
        assert again.progress().left == 0


async def test_what_the_pacs_has_no_more_keeps_its_old_file_and_key(tmp_path: Path) -> None:
    """There is nothing to take its place: it is among what is left, and comes when the PACS has it again."""
    clinic, before = await registered(tmp_path)
    gone = clinic.pacs.held.pop()
    async with clinic.open() as opened:
        run = await rerendered(opened)
        assert (run.rendered, run.destroyed, run.left) == (2, 2, 1)
        old = [guid for guid in before.values() if states(clinic)[guid] is not FileState.WITHDRAWN]
        assert len(old) == 1
        assert all(twin.shelf.page.key(old[0]) for twin in clinic.keystores.values())
        clinic.pacs.held.append(gone)
        run = await rerendered(opened)
        assert (run.rendered, run.destroyed, run.left) == (1, 1, 0)
        assert len(opened.files()) == 3


class OddPacs(TwinPacs):
    """A PACS that breaks on one series."""

    odd = ""

    async def find_instances(
        self, *, study_uid: str, series_uid: str, are_described: bool = True
    ) -> list[InstanceFound]:
        """List, or fail as nobody foresaw."""
        if series_uid == self.odd:
            raise ZeroDivisionError
        return await super().find_instances(study_uid=study_uid, series_uid=series_uid, are_described=are_described)


async def test_a_fault_at_one_series_ends_no_run(tmp_path: Path, faults: list[str]) -> None:
    """It is told with an incident, its files stay as they are, and the others are made anew."""
    clinic = Clinic(tmp_path, [*slices((1, 2)), *slices((1,), series=2)])
    pacs = clinic.pacs = OddPacs(clinic.pacs.held)
    async with clinic.open() as opened:
        await opened.harvest()
    clinic.policy = STRICT
    pacs.odd = pacs.held[0].SeriesInstanceUID
    async with clinic.open() as opened:
        run = await rerendered(opened)
        assert (run.rendered, run.destroyed, run.left, run.series_done) == (1, 1, 2, 2)
        assert ["incident" in failure for failure in run.failures] == [True]
    faults.clear()


async def test_what_was_never_shown_is_made_anew_and_leaves_no_key(tmp_path: Path) -> None:
    """Its shares are on their way under the old rules: keystores keep none of them, whichever comes first."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    for twin in clinic.keystores.values():
        twin.failure = unreachable
    async with clinic.open() as opened:
        await opened.harvest()
        before = set(states(clinic))
    clinic.policy = STRICT
    async with clinic.open() as opened:
        assert (await rerendered(opened)).rendered == 2
        assert opened.names() == []
        for twin in clinic.keystores.values():
            twin.failure = None
        await until(lambda: len(opened.names()) == 2)
        after = set(opened.files().values())
        assert not before & after
        await until(lambda: all(keys_of(clinic, twin.shelf) == after for twin in clinic.keystores.values()))


async def test_images_of_a_patient_who_is_included_no_more_are_not_made_anew(tmp_path: Path) -> None:
    """It is told, and what is there is not let out: it was made under other rules. To take it away is for people."""
    clinic, before = await registered(tmp_path)
    clinic.inclusion = including()
    async with clinic.open() as opened:
        run = await rerendered(opened)
        (failure,) = run.failures
        assert "no longer included; withdraw it" in failure
        assert (run.rendered, run.destroyed, opened.files()) == (0, 0, before)
        for guid in before.values():
            with pytest.raises(InstanceRefusedError):
                await opened.read(guid)


async def test_what_the_new_policy_refuses_goes_and_what_it_allows_comes(tmp_path: Path) -> None:
    """A steward releases by a rule: heads, refused at first, come with an agreement, and go without."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    for instance in clinic.pacs.held:
        instance.BodyPartExamined = "HEAD"
    clinic.policy = STRICT
    async with clinic.open() as opened:
        await opened.harvest()
        assert not opened.files()
    clinic.policy = read_policy("research")
    async with clinic.open() as opened:
        assert (await rerendered(opened)).rendered == 2
        names = opened.names()
        assert len(names) == 2
    clinic.policy = STRICT
    async with clinic.open() as opened:
        run = await rerendered(opened)
        assert (run.rendered, run.refused, run.destroyed) == (0, 2, 2)
        assert not opened.names()
        assert set(states(clinic).values()) == {FileState.WITHDRAWN}
    clinic.policy = read_policy("research")
    async with clinic.open() as opened:
        assert (await rerendered(opened)).rendered == 2
        assert opened.names() == names


async def test_a_series_of_which_one_is_refused_is_hidden_whole(tmp_path: Path) -> None:
    """Half a volume is worse than none; its old files go all the same, and a later rule brings all back."""
    clinic, before = await registered(tmp_path)
    clinic.pacs.held[1].BodyPartExamined = "HEAD"
    async with clinic.open() as opened:
        run = await rerendered(opened)
        assert (run.rendered, run.refused, run.destroyed) == (2, 1, 3)
        assert not opened.names()
        assert [series.state for series in opened.series()] == [SeriesState.HIDDEN]
    clinic.policy = read_policy("research")
    async with clinic.open() as opened:
        assert (await rerendered(opened)).rendered == 3
        assert opened.names() == list(before)
    clinic.policy, clinic.partial = STRICT, Partial.SHOW
    async with clinic.open() as opened:
        assert (await rerendered(opened)).destroyed == 3
        assert len(opened.names()) == 2


@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize("at", range(1, 8))
async def test_a_run_that_was_cut_off_is_ended_by_the_next_one(tmp_path: Path, at: int, *, is_kept: bool) -> None:
    """At whichever write the power goes: in the end there is one new file under each name, and no old one."""
    clinic, before = await registered(tmp_path)
    whole = clinic.store
    clinic.store = CuttingStore(whole, at, is_kept=is_kept)
    with contextlib.suppress(BaseExceptionGroup, PowerCutError):
        async with clinic.open() as opened:
            await rerendered(opened)
            opened.nursery.cancel_scope.cancel()
    clinic.store = whole
    async with clinic.open() as opened:
        run = await rerendered(opened)
        assert run.failures == []
        assert opened.names() == list(before)
        assert not set(opened.files().values()) & set(before.values())
        assert {states(clinic)[guid] for guid in before.values()} == {FileState.WITHDRAWN}
        assert run.progress().left == 0
        for guid in opened.files().values():
            await opened.read(guid)


async def test_a_harvest_ends_what_a_run_has_begun(tmp_path: Path) -> None:
    """It never shows a series of which some files are made under one policy and some under another."""
    clinic, before = await registered(tmp_path, 70)
    whole = clinic.store
    clinic.store = CuttingStore(whole, 4, is_kept=True)
    with contextlib.suppress(BaseExceptionGroup, PowerCutError):
        async with clinic.open() as opened:
            await rerendered(opened)
    clinic.store = whole
    async with clinic.open() as opened:
        await opened.harvest()
        files = opened.files()
        assert files.keys() == before.keys()
        rules = {
            file.rendition.policy
            for file in clinic.store.read(lambda tx: tx.catalogue.files())
            if file.guid in set(files.values())
        }
        assert len(rules) == 1


async def test_without_keystores_nothing_old_goes_yet(tmp_path: Path) -> None:
    """What is not deposited is not shown; the run says so, and the next one ends it."""
    clinic, before = await registered(tmp_path)
    for twin in clinic.keystores.values():
        twin.failure = unreachable
    async with clinic.open() as opened:
        run = await rerendered(opened)
        assert run.rendered == 3
        assert run.destroyed == 0
        assert run.failures == ["1 series wait for keystores or for their PACS: run it again"]
        assert run.progress().left == 3
        assert set(opened.files().values()) == set(before.values())
    for twin in clinic.keystores.values():
        twin.failure = None
    async with clinic.open() as opened:
        await opened.deliver()
        run = await rerendered(opened)
        assert (run.rendered, run.destroyed, run.failures) == (0, 3, [])
        assert opened.names() == list(before)


async def test_a_patient_who_is_no_longer_included_is_named_as_a_failure(tmp_path: Path) -> None:
    """His files are not made anew; they are for withdrawing."""
    clinic, before = await registered(tmp_path)
    clinic.inclusion = including()
    async with clinic.open() as opened:
        (series,) = opened.series()
        await opened.hospital.store.write(lambda tx: tx.series.remove(series.key))
        run = await rerendered(opened)
        assert run.rendered == 0
        assert set(states(clinic)) == set(before.values())


class Face:
    """The paths, as the hospital's own people ask them."""

    def __init__(self, opened: OpenClinic) -> None:
        self.tasks = Tasks(opened.hospital, opened.nursery)
        runs = Rerenderings(opened.hospital, opened.nursery)
        self.routes = renewal_routes(opened.hospital, runs, self.tasks)

    async def ask(self, path: str, message: Message, who: object = OWNER) -> Message:
        """Ask, and give the answer's message."""

        async def body() -> bytes:
            await trio.lowlevel.checkpoint()
            return octets

        octets = msgspec.msgpack.encode(message)
        request = Request("POST", path, {}, who, Address("192.0.2.7", 1), body)  # type: ignore[arg-type]
        answer = await self.routes["POST", path](request)
        assert isinstance(answer, Reply)
        return answer.message


class HoldingStore(CuttingStore):
    """A store that notes how often it was read at most before anybody else had a turn."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, 10**6, is_kept=True)
        self.most = self._in_a_row = 0

    def read(self, act: Callable[[Transaction], T]) -> T:
        """Read."""
        self._in_a_row += 1
        self.most = max(self.most, self._in_a_row)
        return super().read(act)

    async def give_turns(self) -> None:
        """Be somebody else."""
        while True:
            self._in_a_row = 0
            await trio.lowlevel.checkpoint()


async def test_who_waits_for_keystores_for_many_series_lets_others_have_their_turn(tmp_path: Path) -> None:
    """A project has thousands, and each look at what is deposited by now goes through all of them."""
    clinic = Clinic(tmp_path, [it for number in range(1, 13) for it in slices((number,), series=number)])
    async with clinic.open() as opened:
        await opened.harvest()
    clinic.policy = STRICT
    for twin in clinic.keystores.values():
        twin.failure = unreachable
    store = clinic.store = HoldingStore(clinic.store)
    async with clinic.open() as opened:
        opened.nursery.start_soon(store.give_turns)
        run = Rerendering(opened.hospital.projects[PROJECT], patience=0.1)
        await run.run(opened.hospital)
        assert run.rendered == 12
        assert store.most < 12


async def test_a_run_is_started_and_watched_over_the_wire(tmp_path: Path) -> None:
    """By the hospital's own certificate; another project's run waits."""
    clinic, before = await registered(tmp_path)
    async with clinic.open() as opened:
        face = Face(opened)
        with pytest.raises(UnknownNameError):
            await face.ask(RERENDER_PROGRESS_PATH, AskRerender())
        with pytest.raises(UnknownNameError, match="no project other"):
            await face.ask(RERENDER_PATH, StartRerender("other"))
        with pytest.raises(AccessDeniedError):
            await face.ask(RERENDER_PATH, StartRerender(PROJECT), READER)
        found = await face.ask(RERENDER_PATH, StartRerender(PROJECT))
        assert isinstance(found, RerenderProgress)
        opened.hospital.projects["second"] = opened.hospital.projects[PROJECT]  # type: ignore[index]
        with pytest.raises(BusyError):
            await face.ask(RERENDER_PATH, StartRerender("second"))
        again = await face.ask(RERENDER_PATH, StartRerender(PROJECT))
        assert isinstance(again, RerenderProgress)  # the same run
        while not found.is_over:
            await trio.sleep(0.01)
            found = await face.ask(RERENDER_PROGRESS_PATH, AskRerender())
            assert isinstance(found, RerenderProgress)
        assert (found.rendered, found.left, found.failures) == (3, 0, [])
        assert clinic.pacs.recalls == 3  # for the registration, for a reader, and once for this
        await face.ask(RERENDER_PATH, StartRerender("second"))
        clinic.now += 400 * 86_400.0
        with pytest.raises(UnknownNameError, match="last day is past"):
            await face.ask(RERENDER_PATH, StartRerender(PROJECT))
        clinic.now -= 400 * 86_400.0
        had = await face.ask(READERS_PATH, AskReaders(PROJECT))
        assert isinstance(had, Readers)
        assert (had.files, [reader.files for reader in had.readers]) == (len(before), [1])
        with pytest.raises(UnknownNameError):
            await face.ask(READERS_PATH, AskReaders("other"))


async def test_what_is_withdrawn_is_gone_at_once_and_for_ever(tmp_path: Path) -> None:
    """A file by its GUID, then a directory with all below; neither a harvest nor a run brings it back."""
    clinic, before = await registered(tmp_path)
    clinic.policy = read_policy("research")
    name, guid = next(iter(before.items()))
    async with clinic.open() as opened:
        face = Face(opened)
        found = await face.ask(WITHDRAW_PATH, StartWithdraw(guids=[guid.octets]))
        assert isinstance(found, KeyProgress)
        await until(lambda: face.tasks.progress().is_over)
        assert opened.names() == sorted(before.keys() - {name})
        assert opened.hospital.staging.find(guid, 0) is None
        had = await face.ask(READERS_PATH, AskReaders())
        assert isinstance(had, Readers)
        assert [(reader.dn, reader.files) for reader in had.readers] == [(str(READER.dn), 1)]
        assert isinstance(had := await face.ask(READERS_PATH, AskReaders(guids=[guid.octets])), Readers)
        assert had.files == 1
        with pytest.raises(NoSuchFileError):
            await face.ask(WITHDRAW_PATH, StartWithdraw(str(PROJECT_LFN / "nobody")))
        await face.ask(WITHDRAW_PATH, StartWithdraw(str(PROJECT_LFN)))
        await until(lambda: face.tasks.progress().is_over)
        assert opened.names() == []
        await opened.harvest()
        assert opened.names() == []
    clinic.policy = STRICT
    async with clinic.open() as opened:
        assert (await rerendered(opened)).rendered == 0
        assert opened.names() == []


async def test_a_pacs_that_is_down_is_not_asked_for_each_series(tmp_path: Path) -> None:
    """Of thousands three fail, one error says how many are left, and the next run makes all of them."""
    clinic = Clinic(tmp_path, [it for series in range(1, 7) for it in slices((1,), series=series)])
    async with clinic.open() as opened:
        await opened.harvest()
    clinic.policy = STRICT
    clinic.pacs.is_stopped = True
    async with clinic.open() as opened:
        run = await rerendered(opened)
        assert (len(run.failures), run.series_done, run.left) == (4, 3, 6)
        assert "3 series were not tried: run it again" in run.failures[-1]
        clinic.pacs.is_stopped = False
        assert (await rerendered(opened)).left == 0


async def test_a_pacs_that_is_down_keeps_no_other_one_from_being_asked(tmp_path: Path) -> None:
    """All series of the one that answers are made anew in the same run; only those of the other are left."""
    clinic = Clinic(tmp_path, [it for series in range(1, 13) for it in slices((1,), series=series)])
    other = TwinPacs([it for series in range(13, 25) for it in slices((1,), series=series)])
    pacs = {"main": KnownPacs(clinic.pacs, "AMC"), "other": KnownPacs(other, "AMC")}
    async with clinic.open() as opened:
        both = dataclasses.replace(opened.hospital, pacs=pacs)
        await Harvest(both.projects[PROJECT], ("main", "other")).run(both)
        await opened.deliver()
        assert len(opened.names()) == 24
    clinic.policy = STRICT
    for down, left in ((clinic.pacs, 12), (other, 0)):
        clinic.pacs.is_stopped, other.is_stopped = down is clinic.pacs, down is other
        async with clinic.open() as opened:
            run = Rerendering(opened.hospital.projects[PROJECT], patience=1.0)
            await run.run(dataclasses.replace(opened.hospital, pacs=pacs))
            assert run.left == left


async def withdrawn(opened: OpenClinic, asked: StartWithdraw) -> KeyProgress:
    """Withdraw, to the end."""
    face = Face(opened)
    await face.ask(WITHDRAW_PATH, asked)
    await until(lambda: face.tasks.progress().is_over)
    return face.tasks.progress()


@pytest.mark.parametrize("by", ["name", "guid", "directory"])
async def test_what_is_withdrawn_does_not_come_back_as_what_was_to_take_its_name_over(tmp_path: Path, by: str) -> None:
    """While its new rendition waits for keystores, an image goes whole: both files of it, and both keys."""
    clinic, before = await registered(tmp_path)
    name, guid = next(iter(before.items()))
    whole = PROJECT_LFN.parent / PROJECT
    asked = {
        "name": StartWithdraw(f"{whole}/{name}"),
        "guid": StartWithdraw(guids=[guid.octets]),
        "directory": StartWithdraw(str(whole)),
    }
    for twin in clinic.keystores.values():
        twin.failure = unreachable
    async with clinic.open() as opened:
        assert (await rerendered(opened)).rendered == 3
        found = await withdrawn(opened, asked[by])
        gone = set(before) if by == "directory" else {name}
        assert found.changed == 2 * len(gone)
        assert opened.names() == sorted(before.keys() - gone)
    for twin in clinic.keystores.values():
        twin.failure = None
    async with clinic.open() as opened:
        await opened.deliver()
        await opened.harvest()
        await rerendered(opened)
        assert opened.names() == sorted(before.keys() - gone)
        left = set(opened.files().values())
        await until(lambda: all(keys_of(clinic, twin.shelf) == left for twin in clinic.keystores.values()))


def keys_of(clinic: Clinic, shelf: MemoryShelf) -> set[Guid]:
    """Give the files of which a keystore has a share."""
    return {guid for guid in states(clinic) if shelf.page.key(guid)}


@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
async def test_of_an_image_all_files_go_at_once_or_none(tmp_path: Path, at: int, *, is_kept: bool) -> None:
    """At whichever write the power goes: what was to take its name over would else stay alive, and appear."""
    clinic, before = await registered(tmp_path)
    guid = next(iter(before.values()))
    for twin in clinic.keystores.values():
        twin.failure = unreachable
    async with clinic.open() as opened:
        await rerendered(opened)
    whole = clinic.store
    clinic.store = CuttingStore(whole, at, is_kept=is_kept)
    with contextlib.suppress(BaseExceptionGroup, PowerCutError):
        async with clinic.open() as opened:
            await withdrawn(opened, StartWithdraw(guids=[guid.octets]))
    clinic.store = whole
    gone = [state for state in states(clinic).values() if state is FileState.WITHDRAWN]
    assert len(gone) in {0, 2}


async def test_a_withdrawal_that_no_keystore_has_heard_of_is_never_told_as_effective(tmp_path: Path) -> None:
    """Nor while it writes down what else there is of an image, where it may yet fail."""
    clinic, before = await registered(tmp_path)
    for twin in clinic.keystores.values():
        twin.failure = unreachable
    async with clinic.open() as opened:
        await rerendered(opened)
        task = Task(KeyTask.DESTROY, Selection(tuple(before.values())), opened.hospital, page=1)
        opened.nursery.start_soon(task.run)
        told: list[bool] = []
        while not task.is_over:
            if task.progress().changed:
                told.append(task.progress().is_effective)
            await trio.lowlevel.checkpoint()
        assert (task.failure, task.progress().changed) == ("", 2 * len(before))
        assert told
        assert not any(told)


async def test_a_directory_is_withdrawn_in_pages(tmp_path: Path) -> None:
    """A project may have a million files: no look is longer than a page, whatever of them is left."""
    clinic = Clinic(tmp_path, slices(range(1, 6)) + slices(range(6, 9), series=2))
    async with clinic.open() as opened:
        await opened.harvest()
        files = opened.files()
        gone = next(iter(files.values()))
        await withdrawn(opened, StartWithdraw(guids=[gone.octets]))
        for whole, left in (
            (PROJECT_LFN, set(files.values()) - {gone}),
            (Lfn.parse(f"{PROJECT_LFN}/{next(reversed(files))}"), 1),
        ):
            pages = list(Selection(below=whole).pages(clinic.store, 2))
            found = [file.guid for page in pages for file in page]
            assert max(map(len, pages)) <= 2
            assert left in (set(found), len(found))
        task = Task(KeyTask.DESTROY, Selection(below=PROJECT_LFN), opened.hospital, page=2)
        await task.run()
        assert (task.progress().changed, opened.names()) == (7, [])
        assert list(Selection(below=PROJECT_LFN).pages(clinic.store, 2)).count([]) > 1


async def test_a_directory_is_withdrawn_with_what_does_not_show_yet(tmp_path: Path) -> None:
    """A series whose keys wait for keystores would else appear afterwards, in a directory that was taken away."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as opened:
        await opened.harvest()
    clinic.pacs.held.extend(slices((3, 4), series=2))
    for twin in clinic.keystores.values():
        twin.failure = unreachable
    async with clinic.open() as opened:
        await opened.harvest()
        assert (len(opened.names()), (await withdrawn(opened, StartWithdraw(str(PROJECT_LFN)))).changed) == (2, 4)
        with pytest.raises(NoSuchFileError, match="nothing is left"):
            await Face(opened).ask(WITHDRAW_PATH, StartWithdraw(str(PROJECT_LFN)))
    for twin in clinic.keystores.values():
        twin.failure = None
    async with clinic.open() as opened:
        await opened.deliver()
        await opened.harvest()
        assert opened.names() == []


class HookedPacs(TwinPacs):
    """A PACS that lets something happen before its last instance."""

    before_last: Callable[[], Awaitable[object]] | None = None

    async def _begin(self, held: Dataset) -> TwinInstance:
        if held is self.held[-1] and self.before_last is not None:
            await self.before_last()
        return await super()._begin(held)


async def test_what_is_withdrawn_while_it_arrives_anew_is_not_remembered(tmp_path: Path) -> None:
    """A run that has asked the PACS already drops what it brings."""
    clinic, before = await registered(tmp_path)
    pacs = clinic.pacs = HookedPacs(clinic.pacs.held)
    async with clinic.open() as opened:
        pacs.before_last = lambda: withdrawn(opened, StartWithdraw(str(PROJECT_LFN)))
        assert (await rerendered(opened)).rendered == 0
        assert (opened.names(), states(clinic)) == ([], dict.fromkeys(before.values(), FileState.WITHDRAWN))


async def test_what_was_put_away_and_then_withdrawn_is_not_looked_at_under_other_rules(tmp_path: Path) -> None:
    """A refusal is looked at again when the policy changes; who has withdrawn the image has said more."""
    clinic, before = await registered(tmp_path)
    clinic.policy, clinic.partial = read_policy("research"), Partial.SHOW
    name, guid = next(iter(before.items()))
    async with clinic.open() as opened:
        await quarantine(opened.hospital, guid, RefusedError(Reason.RESIDUE))
        assert (await withdrawn(opened, StartWithdraw(guids=[guid.octets]))).changed == 1
    clinic.policy = STRICT
    async with clinic.open() as opened:
        assert (await rerendered(opened)).rendered == 2
        assert opened.names() == sorted(before.keys() - {name})


async def test_what_is_withdrawn_while_it_is_recalled_leaves_no_refusal(tmp_path: Path) -> None:
    """Its siblings stay where a part is worse than none; and under other rules it does not come back."""
    clinic, before = await registered(tmp_path)
    clinic.policy = read_policy("research")
    name, guid = next(iter(before.items()))
    async with clinic.open() as opened:
        await withdrawn(opened, StartWithdraw(guids=[guid.octets]))
        await quarantine(opened.hospital, guid, RefusedError(Reason.RESIDUE))
        assert opened.names() == sorted(before.keys() - {name})
    clinic.policy = STRICT
    async with clinic.open() as opened:
        assert (await rerendered(opened)).rendered == 2
        assert opened.names() == sorted(before.keys() - {name})


async def test_what_is_withdrawn_while_it_arrives_anew_and_is_refused_does_not_come_back(tmp_path: Path) -> None:
    """A refusal that comes afterwards would have it looked at again under the next rules."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with clinic.open() as opened:
        await opened.harvest()
        (guid,) = opened.files().values()
    (held,) = clinic.pacs.held
    held.BurnedInAnnotation = "YES"
    clinic.policy = STRICT
    pacs = clinic.pacs = HookedPacs(clinic.pacs.held)
    async with clinic.open() as opened:
        pacs.before_last = lambda: withdrawn(opened, StartWithdraw(guids=[guid.octets]))
        await rerendered(opened)
    held.BurnedInAnnotation = "NO"
    pacs.before_last, clinic.policy = None, read_policy("research")
    async with clinic.open() as opened:
        assert (await rerendered(opened)).rendered == 0
        assert (opened.names(), states(clinic)) == ([], {guid: FileState.WITHDRAWN})
