"""ACLs read and changed over the hospital's own face: who may, what it changes, and when it holds everywhere."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
import trio

from mdmfs.access.acl import Right
from mdmfs.access.edit import Edit, EditKind
from mdmfs.access.text import parse_acl, parse_names
from mdmfs.hospital.assembly import read_policy
from mdmfs.hospital.catalogue.records import NewFile
from mdmfs.hospital.keys.currency import catch_up
from mdmfs.hospital.rights.change import Wish, end_entries, targets
from mdmfs.hospital.rights.face import rights_routes
from mdmfs.hospital.sight import Sight
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import AccessDeniedError, BusyError, MdmfsError, NoSuchFileError, NotADirectoryFileError
from mdmfs.model.identity import Fqan, Principal
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.acls import (
    ACL_EFFECT_PATH,
    CHANGE_ACL_PATH,
    READ_ACL_PATH,
    AclEffect,
    AclTexts,
    AskAclEffect,
    ChangeAcl,
    ChangedAcls,
    ReadAcl,
)
from mdmfs.wire.messages.files import (
    CHANGES_PATH,
    GIVE_BACK_PATH,
    LIST_PATH,
    AskChanges,
    Changes,
    DirectoryPage,
    GiveBack,
    GivenBack,
    ListDirectory,
)
from mdmfs.wire.messages.keystores import COLLECT_PATH, Collect, Collected, Outcome
from mdmfs.wire.messages.message import Message
from mdmfs.wire.service import Reply, Service
from tests.twins.clinic import NOW, OWNER, PROJECT_LFN, READER, STRANGER, Clinic, OpenClinic, slices
from tests.twins.keystores import principal

T = TypeVar("T", bound=Message)
JO = principal("/DC=org/DC=demo/CN=jo")
DEPUTY = principal("/DC=org/DC=demo/CN=deputy")
MOUNT = bytes(16)


class Scene:
    """A hospital with one series, and its paths."""

    def __init__(self, hospital: OpenClinic) -> None:
        self.clinic = hospital
        routes = {**hospital.face.routes, **rights_routes(hospital.hospital)}
        hospital.face = Service("hospital", routes)
        self.series = PROJECT_LFN / hospital.names()[0].split("/")[0]
        for part in hospital.names()[0].split("/")[1:-1]:
            self.series = self.series / part

    async def change(self, who: Principal, lfn: Lfn, *edits: Edit, **more: object) -> ChangedAcls:
        """Set what ``setfacl`` would."""
        wish = ChangeAcl(str(lfn), list(edits), **more)  # type: ignore[arg-type]
        return await self.told(CHANGE_ACL_PATH, wish, who, ChangedAcls)

    async def text(self, who: Principal, lfn: Lfn) -> str:
        """Read what ``getfacl`` would."""
        return "\n".join((await self.told(READ_ACL_PATH, ReadAcl(str(lfn)), who, AclTexts)).texts)

    async def names(self, who: Principal, lfn: Lfn) -> list[str]:
        """List a directory."""
        page = await self.told(LIST_PATH, ListDirectory(str(lfn)), who, DirectoryPage)
        return [node.name for node in page.entries]

    async def changes(self, who: Principal, since: int, mount: bytes = b"") -> Changes:
        """Ask for changes as a mount does."""
        return await self.told(CHANGES_PATH, AskChanges(since, 0, mount), who, Changes)

    async def effect(self, who: Principal, changed: ChangedAcls) -> AclEffect:
        """Ask whether a change holds."""
        return await self.told(ACL_EFFECT_PATH, AskAclEffect(changed.epoch, changed.version), who, AclEffect)

    async def told(self, path: str, message: Message, who: Principal, kind: type[T]) -> T:
        """Give an answer of one message."""
        answer = await self.clinic.ask(path, message, who)
        assert isinstance(answer, Reply)
        assert isinstance(answer.message, kind)
        return answer.message

    def inode(self, lfn: Lfn) -> int:
        """Give the inode number of a directory."""
        node = self.clinic.hospital.store.read(lambda tx: tx.catalogue.look_up(lfn))
        assert node is not None
        return node.inode

    async def shares(self, guid: Guid) -> set[Outcome]:
        """Ask every keystore for the reader's share."""
        twins = [twin.as_seen_by(READER) for twin in self.clinic.clinic.keystores.values()]
        asked, deadline = Collect([guid.octets]), trio.current_time() + 1
        given = [await twin.call(COLLECT_PATH, asked, Collected, deadline=deadline) for twin in twins]
        return {outcome for each in given for outcome in each.outcomes}

    async def catch_up(self, *keystores: str) -> None:
        """Tell keystores what was decided."""
        for name in keystores or self.clinic.hospital.keystores.names:
            await catch_up(name, self.clinic.hospital)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """Make it."""
    async with Clinic(tmp_path, slices((1, 2))).open() as hospital:
        await hospital.harvest()
        yield Scene(hospital)


def modify(text: str) -> Edit:
    """Make what ``-m`` makes."""
    read = parse_acl(text)
    return Edit(EditKind.MODIFY, read.entries, read.defaults)


def remove(text: str) -> Edit:
    """Make what ``-x`` makes."""
    return Edit(EditKind.REMOVE, parse_names(text).entries)


def user(who: Principal, rights: str) -> Edit:
    """Give somebody rights."""
    return modify(f"u:{who.dn}:{rights}")


async def test_a_whole_tree_is_opened_to_somebody_and_closed_again(scene: Scene) -> None:
    """By one change each; he sees the hospital's own directory from then on, and no longer."""
    guid = next(iter(scene.clinic.files().values()))
    assert await scene.names(JO, Lfn(())) == []
    changed = await scene.change(OWNER, PROJECT_LFN, user(JO, "rx"), recursive=True)
    assert changed.count == len(changed.texts) == 2 * 4 - 3
    await scene.catch_up()
    assert await scene.names(JO, scene.series) == ["0001.dcm", "0002.dcm"]
    assert await scene.clinic.read(guid, JO)
    closed = await scene.change(OWNER, PROJECT_LFN, remove(f"u:{JO.dn}"), recursive=True)
    await scene.catch_up()
    assert closed.epoch > changed.epoch
    assert await scene.names(JO, Lfn(())) == []
    with pytest.raises(NoSuchFileError):
        await scene.clinic.read(guid, JO)
    records = [one for one in scene.clinic.audited() if one["event"] == "acl"]
    assert [one["outcome"] for one in records] == [f"modify user:{JO.dn}:r-x--", f"remove user:{JO.dn}:-----"]
    assert {one["dn"] for one in records} == {str(OWNER.dn)}
    assert {one["path"] for one in records} == {str(PROJECT_LFN)}


async def test_only_who_has_a_may_change_and_each_refusal_is_recorded(scene: Scene) -> None:
    """A reader is told so; a stranger learns no more than that he sees nothing."""
    for who, kind in ((READER, AccessDeniedError), (STRANGER, NoSuchFileError), (JO, NoSuchFileError)):
        with pytest.raises(kind):
            await scene.change(who, PROJECT_LFN, user(who, "rwxa"))
        with pytest.raises(kind):
            await scene.change(who, PROJECT_LFN, user(who, "rwxa"), is_test=True)
    assert [one["event"] for one in scene.clinic.audited()][-6:] == ["refusal"] * 6
    await scene.change(OWNER, PROJECT_LFN, user(DEPUTY, "xa"))
    await scene.change(DEPUTY, PROJECT_LFN, user(JO, "x"))
    with pytest.raises(AccessDeniedError, match="something below"):
        await scene.change(DEPUTY, PROJECT_LFN, user(JO, "rx"), recursive=True)
    assert str(JO.dn) not in await scene.text(OWNER, scene.series)


@pytest.mark.parametrize("entry", ["o::rx", "d:o::r"])
async def test_images_that_may_show_faces_are_never_opened_to_everybody(scene: Scene, entry: str) -> None:
    """They go to those who signed the agreement; names of directories may be seen, and images without heads read."""
    for lfn in (PROJECT_LFN, scene.series):
        with pytest.raises(AccessDeniedError, match="faces"):
            await scene.change(OWNER, lfn, modify(entry))
    await scene.change(OWNER, PROJECT_LFN, modify("o::x"))
    (project,) = scene.clinic.hospital.projects.values()
    strict = {project.name: dataclasses.replace(project, policy=read_policy("strict"))}
    without_heads = dataclasses.replace(scene.clinic.hospital, projects=strict)
    wish = Wish(PROJECT_LFN, [modify(entry)])
    assert without_heads.store.read(lambda tx: len(targets(tx, OWNER, without_heads, wish))) == 1


def version_in(text: str) -> int:
    """Find which version of an ACL a text shows."""
    found = re.search(r"^# version: (\d+)$", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


async def test_what_was_read_long_ago_overwrites_nothing(scene: Scene) -> None:
    """The version that was read goes along."""
    await scene.change(OWNER, PROJECT_LFN, user(JO, "x"), expected_version=1)
    with pytest.raises(BusyError, match="getfacl"):
        await scene.change(OWNER, PROJECT_LFN, user(DEPUTY, "x"), expected_version=1)
    assert version_in(await scene.text(OWNER, PROJECT_LFN)) > 1


async def test_a_test_changes_nothing(scene: Scene) -> None:
    """It tells what would be."""
    before = await scene.text(OWNER, PROJECT_LFN)
    told = await scene.change(OWNER, PROJECT_LFN, user(JO, "r"), is_test=True)
    assert f"user:{JO.dn}:r----" in told.texts[0]
    assert await scene.text(OWNER, PROJECT_LFN) == before


async def test_default_entries_are_what_new_directories_begin_with(scene: Scene) -> None:
    """Registration inherits them; what exists stays as it is."""
    await scene.change(OWNER, PROJECT_LFN, modify(f"d:u:{JO.dn}:rx,u:{JO.dn}:x"))
    store, below = scene.clinic.hospital.store, PROJECT_LFN / "sub-new"
    await store.write(lambda tx: tx.catalogue.make_directories(below / "ses-new"))
    for lfn in (below, below / "ses-new"):
        own, _ = store.read(lambda tx, lfn=lfn: tx.acls.ids_of(lfn))
        found = store.read(lambda tx, own=own: tx.acls.find(own))
        assert found is not None
        for entries in (found.acl.entries, found.acl.defaults):
            assert str(JO.dn) in {one.qualifier for one in entries}
    assert str(JO.dn) not in await scene.text(OWNER, scene.series)


async def test_the_files_of_a_directory_are_changed_at_once(scene: Scene) -> None:
    """They share one ACL; the directory's own is another."""
    changed = await scene.change(OWNER, scene.series, modify(f"u:{READER.dn}:-"), files=True)
    assert changed.count == 1
    assert f"user:{READER.dn}:-----" in await scene.text(READER, scene.series / "0001.dcm")
    with pytest.raises(AccessDeniedError):
        await scene.clinic.release(scene.clinic.files()[scene.clinic.names()[0]])
    assert await scene.names(READER, scene.series) == ["0001.dcm", "0002.dcm"]
    with pytest.raises(NoSuchFileError):
        await scene.change(OWNER, PROJECT_LFN, user(JO, "r"), files=True)


async def test_one_file_is_taken_from_somebody_who_reads_its_siblings_on(scene: Scene) -> None:
    """Hospital and keystores refuse it alone, its mount is told of it alone, and it is given back."""
    first, second = (scene.clinic.files()[name] for name in scene.clinic.names())
    file = scene.series / "0001.dcm"
    assert await scene.clinic.read(first, READER)
    version = (await scene.changes(READER, 0)).version
    changed = await scene.change(OWNER, file, modify(f"u:{READER.dn}:-"))
    assert (changed.count, f"# file: {file}\n" in changed.texts[0]) == (1, True)
    await scene.catch_up()
    with pytest.raises(AccessDeniedError):
        await scene.clinic.release(first)
    last = scene.clinic.audited()[-1]
    assert (last["guid"], last["outcome"]) == (str(first), f"the deciding entry does not allow it (user:{READER.dn})")
    assert await scene.shares(first) == {Outcome.DENIED}
    assert await scene.shares(second) == {Outcome.DONE}
    assert await scene.clinic.read(second, READER)
    found = await scene.changes(READER, version)
    assert (found.files, found.lost, found.unreadable, found.directories) == ([scene.inode(file)], [], [], [])
    for who in (OWNER, STRANGER):
        told = await scene.changes(who, version)
        assert (told.version, told.files) == (found.version, [])
    assert f"user:{READER.dn}:-----" in await scene.text(READER, file)
    assert f"user:{READER.dn}:-----" not in await scene.text(READER, scene.series / "0002.dcm")
    await scene.change(OWNER, file, user(READER, "r"))
    await scene.catch_up()
    assert await scene.clinic.read(first, READER)
    assert await scene.shares(first) == {Outcome.DONE}


async def test_a_file_with_an_acl_of_its_own_follows_its_directory_by_r_alone(scene: Scene) -> None:
    """``--files`` means what is shared; ``-R`` means all, and takes the right a on each."""
    file = scene.series / "0001.dcm"
    await scene.change(OWNER, PROJECT_LFN, user(JO, "rxa"), recursive=True)
    await scene.change(OWNER, file, remove(f"u:{JO.dn}"))
    await scene.change(JO, scene.series, user(DEPUTY, "r"), files=True)
    assert str(DEPUTY.dn) not in await scene.text(OWNER, file)
    with pytest.raises(AccessDeniedError):
        await scene.change(JO, scene.series, remove(f"u:{READER.dn}"), recursive=True)
    changed = await scene.change(OWNER, scene.series, user(DEPUTY, "rx"), recursive=True)
    assert changed.count == 3
    assert f"user:{DEPUTY.dn}:r-x--" in await scene.text(OWNER, file)


async def test_what_is_said_of_one_file_is_said_of_a_file(scene: Scene) -> None:
    """No default entries, no ``--files``; and what changes nothing leaves it with its siblings."""
    file = scene.series / "0001.dcm"
    for edit, more in ((modify(f"d:u:{JO.dn}:r"), {}), (user(JO, "r"), {"files": True})):
        with pytest.raises(NotADirectoryFileError, match="is a file"):
            await scene.change(OWNER, file, edit, **more)
    for who, kind in ((READER, AccessDeniedError), (STRANGER, NoSuchFileError)):
        with pytest.raises(kind):
            await scene.change(who, file, user(who, "ra"))
        with pytest.raises(kind):
            await scene.change(who, file, user(who, "ra"), recursive=True)
    for lfn in (file, scene.series / "nothing.dcm"):  # no word tells a stranger which of them is there
        with pytest.raises(NoSuchFileError, match="or it is not for this identity"):
            await scene.change(STRANGER, lfn, user(JO, "r"), files=True)
    before = await scene.text(OWNER, file)
    await scene.change(OWNER, file, user(JO, "r"), is_test=True)
    await scene.change(OWNER, file, Edit(EditKind.REPLACE, parse_acl(before).entries), keeps_mask=True)
    await scene.change(OWNER, scene.series, modify(f"u:{READER.dn}:-"), files=True)
    after = await scene.text(OWNER, file)
    assert f"user:{READER.dn}:-----" in after
    assert before != after
    with pytest.raises(BusyError):
        await scene.change(OWNER, file, user(JO, "r"), expected_version=1)
    await scene.change(OWNER, file, user(JO, "r"), expected_version=version_in(after))
    assert version_in(await scene.text(OWNER, file)) > version_in(after)


async def test_a_file_registered_anew_stays_with_its_own_acl(scene: Scene) -> None:
    """Whoever was refused the file is refused what takes its name, and what had it before, under either GUID."""
    hospital, file = scene.clinic.hospital, scene.series / "0001.dcm"
    old = scene.clinic.files()[scene.clinic.names()[0]]

    def register(tx: Transaction, guid: Guid) -> None:
        record = tx.catalogue.file(old)
        instance = tx.uidmap.resolve(old)
        assert record is not None
        assert instance is not None
        new = NewFile(guid, record.project, record.rendition, record.threshold, NOW, record.key_check)
        holder = tx.catalogue.holder(file)
        tx.catalogue.add_file(file, new, takes_over=holder)
        tx.uidmap.tie(guid, instance)

    def verdicts() -> list[bool]:
        sight = hospital.store.read(
            lambda tx: [Sight(tx, READER, NOW).allows(tx.acls.chains_of(guid)[0][-1], Right.READ) for guid in guids]
        )
        return list(sight)

    second, third = (Guid.parse(f"00000000-0000-4000-8000-00000000000{number}") for number in (1, 2))
    guids = [old, second]
    await hospital.store.write(lambda tx: (register(tx, second), tx.catalogue.show([second])))
    assert verdicts() == [True, True]
    await scene.change(OWNER, file, modify(f"u:{READER.dn}:-"))
    assert verdicts() == [False, False]
    guids.append(third)
    await hospital.store.write(lambda tx: register(tx, third))
    assert verdicts() == [False, False, False]
    await hospital.store.write(lambda tx: tx.catalogue.show([third]))
    version = (await scene.changes(READER, 0)).version
    await scene.change(OWNER, file, modify(f"u:{READER.dn}:r"))
    assert verdicts() == [True, True, True]
    await scene.change(OWNER, scene.series, modify(f"u:{READER.dn}:-"), recursive=True)
    assert verdicts() == [False, False, False]
    barred = hospital.store.read(lambda tx: {tx.catalogue.file(guid).inode for guid in guids})  # type: ignore[union-attr]
    assert (
        set((await scene.changes(READER, version)).files) >= barred
        or scene.inode(scene.series) in (await scene.changes(READER, version)).lost
    )


async def test_a_file_taken_while_its_siblings_are_taken_and_given_back_is_told_of(scene: Scene) -> None:
    """Between two questions of a mount the shared ACL may have said anything."""
    file = scene.series / "0001.dcm"
    version = (await scene.changes(READER, 0)).version
    await scene.change(OWNER, scene.series, modify(f"u:{READER.dn}:-"), files=True)
    await scene.change(OWNER, file, user(JO, "r"))
    await scene.change(OWNER, scene.series, user(READER, "r"), files=True)
    assert (await scene.changes(READER, version)).files == [scene.inode(file)]


async def test_an_entry_of_one_file_ends_too(scene: Scene) -> None:
    """The mount is told that the file has gone for its user."""
    file = scene.series / "0001.dcm"
    await scene.change(OWNER, file, modify(f"u:{READER.dn}:r@2023-11-14T22:15:00Z"))
    version = (await scene.changes(READER, 0)).version
    scene.clinic.clinic.now = NOW + 200
    hospital = scene.clinic.hospital
    assert await hospital.store.write(lambda tx: end_entries(tx, hospital, hospital.clock())) == 1
    assert (await scene.changes(READER, version)).files == [scene.inode(file)]
    assert await hospital.store.write(lambda tx: end_entries(tx, hospital, hospital.clock())) == 0


async def test_what_lies_above_the_projects_follows_them(scene: Scene) -> None:
    """Nobody sets it, not even the hospital."""
    for lfn in (Lfn(()), Lfn(("amc",))):
        with pytest.raises(AccessDeniedError, match="above the projects"):
            await scene.change(OWNER, lfn, user(JO, "rwxa"))


async def test_a_mount_is_told_what_its_user_has_lost_and_nobody_else_is(scene: Scene) -> None:
    """The directory that he may no longer enter, or whose files he may no longer read."""
    version = (await scene.changes(READER, 0)).version
    await scene.change(OWNER, scene.series, modify(f"u:{READER.dn}:x"), files=True)
    found = await scene.changes(READER, version)
    assert (found.lost, found.unreadable) == ([], [scene.inode(scene.series)])
    version = found.version
    await scene.change(OWNER, PROJECT_LFN, remove(f"u:{READER.dn}"))
    found = await scene.changes(READER, version)
    assert scene.inode(PROJECT_LFN) in found.lost
    for who in (STRANGER, JO):
        told = await scene.changes(who, 0)
        assert (told.lost, told.unreadable, told.files) == ([], [], [])
        assert scene.inode(PROJECT_LFN) not in told.directories
    version = found.version
    await scene.change(OWNER, PROJECT_LFN, user(READER, "rx"))
    found = await scene.changes(READER, version)
    assert found.lost == []
    assert scene.inode(Lfn(("amc",))) in found.directories


async def test_an_entry_that_ends_is_told_of_like_one_that_was_removed(scene: Scene) -> None:
    """At the hospital it counts for nothing by itself; keystores and mounts hear of it."""
    await scene.change(OWNER, PROJECT_LFN, modify(f"u:{READER.dn}:rx@2023-11-14T22:15:00Z"))
    version = (await scene.changes(READER, 0)).version
    assert await scene.names(READER, PROJECT_LFN)
    scene.clinic.clinic.now = NOW + 200
    with pytest.raises(NoSuchFileError):
        await scene.names(READER, PROJECT_LFN)
    hospital = scene.clinic.hospital
    assert hospital.store.read(lambda tx: tx.acls.next_end(NOW)) == NOW + 100
    assert await hospital.store.write(lambda tx: end_entries(tx, hospital, hospital.clock())) == 1
    assert scene.inode(PROJECT_LFN) in (await scene.changes(READER, version)).lost
    assert await hospital.store.write(lambda tx: end_entries(tx, hospital, hospital.clock())) == 0


async def test_a_change_holds_when_keystores_and_mounts_have_heard_of_it(scene: Scene) -> None:
    """At n - k + 1 of the ones, and at all of the others that hold a lease."""
    await scene.catch_up()
    version = (await scene.changes(READER, 0)).version
    granted = await scene.changes(READER, version, MOUNT)
    assert granted.lease == 60.0
    changed = await scene.change(OWNER, PROJECT_LFN, remove(f"u:{READER.dn}"))
    effect = await scene.effect(OWNER, changed)
    assert not effect.is_effective
    assert effect.keystores == ["k1", "k2", "k3"]
    assert effect.mounts == [f"{READER.dn} at 192.0.2.7"]
    await scene.catch_up("k1")
    assert (await scene.effect(OWNER, changed)).keystores == ["k2", "k3"]
    await scene.catch_up("k2")
    assert not (await scene.effect(OWNER, changed)).is_effective
    assert (await scene.effect(STRANGER, changed)).mounts == ["a mount that holds a lease"]
    await scene.changes(READER, changed.version, MOUNT)
    assert (await scene.effect(OWNER, changed)).is_effective


async def test_a_mount_that_has_ended_in_order_is_not_waited_for(scene: Scene) -> None:
    """By its own word only, and for good: a question of it that comes late brings no lease."""
    await scene.catch_up()
    version = (await scene.changes(READER, 0)).version
    await scene.changes(READER, version, MOUNT)
    changed = await scene.change(OWNER, PROJECT_LFN, remove(f"u:{READER.dn}"))
    await scene.catch_up()
    for who, mount in ((STRANGER, MOUNT), (OWNER, MOUNT), (READER, bytes([1] * 16)), (READER, b"")):
        await scene.told(GIVE_BACK_PATH, GiveBack(mount), who, GivenBack)
        assert (await scene.effect(OWNER, changed)).mounts == [f"{READER.dn} at 192.0.2.7"]
    await scene.told(GIVE_BACK_PATH, GiveBack(MOUNT), READER, GivenBack)
    assert (await scene.effect(OWNER, changed)).is_effective
    assert (await scene.changes(READER, version, MOUNT)).lease == 0.0
    assert (await scene.effect(OWNER, changed)).is_effective
    assert (await scene.changes(READER, version, bytes([2] * 16))).lease == 60.0
    assert not (await scene.effect(OWNER, changed)).is_effective


async def test_a_question_that_waits_while_its_mount_ends_brings_no_lease(scene: Scene) -> None:
    """Its answer is on its way to nobody."""
    version = (await scene.changes(READER, 0)).version
    await scene.changes(READER, version, MOUNT)
    told: list[Changes] = []

    async def wait() -> None:
        told.append(await scene.told(CHANGES_PATH, AskChanges(version, 20, MOUNT), READER, Changes))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await scene.told(GIVE_BACK_PATH, GiveBack(MOUNT), READER, GivenBack)
        changed = await scene.change(OWNER, PROJECT_LFN, user(JO, "x"))
    assert [one.lease for one in told] == [0.0]
    assert (await scene.effect(OWNER, changed)).mounts == []


async def test_a_mount_that_is_cut_off_counts_until_its_lease_lapses(
    scene: Scene,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """And so do those that an earlier process may have granted one."""
    hospital = scene.clinic.hospital
    await scene.catch_up()
    await scene.changes(READER, (await scene.changes(READER, 0)).version, MOUNT)
    changed = await scene.change(OWNER, PROJECT_LFN, remove(f"u:{READER.dn}"))
    await scene.catch_up()
    assert not (await scene.effect(OWNER, changed)).is_effective
    await trio.sleep(60.1)
    assert (await scene.effect(OWNER, changed)).is_effective
    hospital.leases.begin(60.0)
    assert "before hospitald's start" in (await scene.effect(OWNER, changed)).mounts[0]
    await trio.sleep(60.1)
    assert (await scene.effect(OWNER, changed)).is_effective


async def test_a_group_that_ends_before_its_holder_is_taken_from_his_mount(
    scene: Scene,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """No lease and no question outlive the credential; without his groups he begins anew, however often he asks."""
    await scene.change(OWNER, PROJECT_LFN, modify("g:/neuro:rx"), recursive=True)
    member = Principal(JO.dn, (Fqan.parse("/neuro"),), NOW + 20)
    version = (await scene.changes(member, 0)).version
    assert (await scene.changes(member, version, MOUNT)).lease == 20.0
    begun = trio.current_time()
    asked = AskChanges(version, 300, MOUNT)
    told = await scene.told(CHANGES_PATH, asked, member, Changes)
    assert trio.current_time() - begun == pytest.approx(20)
    assert not told.is_reset
    assert told.groups[:-1] == [f"dn:{JO.dn}", "/neuro"]
    asked = msgspec.structs.replace(asked, groups=told.groups, mount=b"unknown to hospitald started again"[:16])
    found = [await scene.told(CHANGES_PATH, asked, JO, Changes) for _ in range(2)]
    assert [(one.is_reset, one.groups[:-1]) for one in found] == [(True, [f"dn:{JO.dn}"])] * 2
    assert trio.current_time() - begun == pytest.approx(20)
    assert not (await scene.changes(JO, version, MOUNT)).is_reset
    more = Principal(JO.dn, (Fqan.parse("/neuro"), Fqan.parse("/other")), NOW + 60)
    assert not (await scene.told(CHANGES_PATH, msgspec.structs.replace(asked, wait=0.0), more, Changes)).is_reset
    late = Principal(JO.dn, (), NOW + 0.25)
    assert (await scene.changes(late, version, MOUNT)).lease == 1.0


async def test_a_mount_whose_proxy_is_replaced_by_anothers_begins_anew(scene: Scene) -> None:
    """What the first was shown is not for the second: no change of the feed would tell of that."""
    first = await scene.changes(READER, 0, MOUNT)
    asked = AskChanges(first.version, 0.0, MOUNT, groups=first.groups)
    assert not (await scene.told(CHANGES_PATH, asked, READER, Changes)).is_reset
    second = await scene.told(CHANGES_PATH, asked, STRANGER, Changes)
    assert second.is_reset
    asked = msgspec.structs.replace(asked, groups=second.groups)
    assert not (await scene.told(CHANGES_PATH, asked, STRANGER, Changes)).is_reset


async def test_who_may_not_see_an_acl_does_not_read_it(scene: Scene) -> None:
    """A reader reads that of what he sees; a stranger of nothing but the root."""
    assert f"user:{READER.dn}:r-x--" in await scene.text(READER, PROJECT_LFN)
    assert "# file: /grid/medical\n" in await scene.text(STRANGER, Lfn(()))
    for lfn in (Lfn(("amc",)), PROJECT_LFN, scene.series, scene.series / "0001.dcm", Lfn(("nothing",))):
        with pytest.raises(MdmfsError, match="or it is not for this identity"):
            await scene.text(STRANGER, lfn)
