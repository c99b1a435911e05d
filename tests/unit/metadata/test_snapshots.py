"""Snapshots on twins: frozen for one author, never other bytes, and each loss told with its reason."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import trio

from mdmfs.access.acl import Acl, Entry, EntryKind, Right
from mdmfs.cli.snapshot import create_everywhere, drop_everywhere
from mdmfs.model.errors import (
    InstanceLostError,
    MalformedMessageError,
    MalformedQueryError,
    NoSuchFileError,
    PeerTimedOutError,
)
from mdmfs.model.names import Guid
from mdmfs.wire.messages.keystores import SET_ACLS_PATH, UNREGISTER_PATH, Outcomes, SetAcls, Unregister, VersionedAcl
from mdmfs.wire.messages.message import Message
from mdmfs.wire.messages.metadata import (
    DROP_SNAPSHOT_PATH,
    FROZEN_PATH,
    FROZEN_SERIES_PATH,
    SNAPSHOT_PATH,
    SNAPSHOTS_PATH,
    AskFrozen,
    AskFrozenSeries,
    AskSnapshots,
    CreateSnapshot,
    Dropped,
    DropSnapshot,
    FrozenPage,
    FrozenSeries,
    Snapshot,
    Snapshots,
)
from mdmfs.worker.finding.cohort import Cohort
from mdmfs.worker.finding.federation import Federation
from mdmfs.worker.finding.names import alias_of, lfn_of_alias
from mdmfs.worker.finding.snapshots import SNAPSHOTS, FrozenSeriesDirectory, SnapshotsDirectory
from mdmfs.worker.finding.virtual import Gone, PlacedNode, Reading, Text, VirtualNode, VirtualTree, begun, placed_lfn
from tests.twins.hospital import TwinHospital
from tests.twins.keystores import HOSPITAL, principal
from tests.twins.metadata_filled import ROOT, FilledMetadata, callers

M = TypeVar("M", bound=Message)
SERIES = "/grid/medical/amc/003-MR"
ALIAS = "amc+003-MR"
OTHER = "/grid/medical/umc/004-MR"


class Scene:
    """Two hospitals with metadata, one of which is mounted."""

    def __init__(self, folder: Path) -> None:
        self.hospital = TwinHospital()
        self.hospitals = {name: FilledMetadata(folder / name) for name in ("amc", "umc")}
        self.federation = Federation(lambda: callers(self.hospitals), deadline=3)
        self.tree = VirtualTree({SNAPSHOTS: SnapshotsDirectory(self.federation, lambda _: self.hospital)}, 1)

    async def fill(self) -> None:
        """Give the mounted hospital two files, and the other one."""
        for hospital in self.hospitals.values():
            await hospital.begin()
        self.files = self.hospital.add_sibling_files(SERIES, 2, 9)
        names = {f"{number:04}.dcm": file.guid for number, file in enumerate(self.files, 1)}
        await self.hospitals["amc"].add(SERIES, {"Modality": "MR"}, names)
        await self.hospitals["umc"].add(OTHER, {"Modality": "MR"})

    async def create(self, name: str = "trial", query: str = 'Modality == "MR"') -> dict[str, Snapshot]:
        """Freeze at both."""
        return dict((await create_everywhere(self.federation, name, query, is_partial=False))[0])

    async def tell(self, hospital: str, path: str, message: Any, reply: Any) -> Any:  # noqa: ANN401 as asked
        """Say something as the hospital."""
        return await self.hospitals[hospital].owner.call(path, message, reply, deadline=trio.current_time() + 5)

    async def look_up(self, *names: str) -> Any:  # noqa: ANN401 a node of either kind
        """Go down, as a kernel does."""
        inode = 1
        for name in (".snapshots", *names):
            node = await self.tree.look_up(inode, os.fsencode(name))
            if isinstance(node, VirtualNode):
                self.tree.retain(inode, node)
            inode = node.inode
        return node

    async def listed(self, *names: str) -> dict[str, Any]:
        """List a directory."""
        reading: Reading = await begun(self.tree, (await self.look_up(*names)).inode)
        return {name.decode(): entry for name, entry in await reading.entries(0)}

    async def manifest(self) -> str:
        """Read the table of the first series."""
        text = (await self.look_up("trial", "manifest", f"{ALIAS}.tsv")).entry
        assert isinstance(text, Text)
        return text.octets.decode()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """Two hospitals that answer."""
    made = Scene(tmp_path)
    await made.fill()
    yield made
    for hospital in made.hospitals.values():
        hospital.close()


async def test_a_snapshot_is_a_directory_of_what_was_found_then(scene: Scene) -> None:
    """By whom, when and how it was asked, by GUID and digest; what comes later is not in it."""
    parts = await scene.create()
    assert {name: part.files for name, part in parts.items()} == {"amc": 2, "umc": 1}
    await scene.hospitals["amc"].add("/grid/medical/amc/009-MR", {"Modality": "MR"})
    assert list(await scene.listed()) == ["trial"]
    assert sorted(await scene.listed("trial")) == ["ABOUT.json", "manifest", "series"]
    about = json.loads((await scene.look_up("trial", "ABOUT.json")).entry.octets)
    assert about["query"] == 'Modality == "MR"'
    assert about["author"] == "/DC=org/DC=demo/CN=reader"
    assert about["hospitals"]["amc"]["files"] == 2
    assert about["hospitals"]["amc"]["policies"] == [bytes(32).hex()]
    assert sorted(await scene.listed("trial", "series")) == [ALIAS, alias_of(lfn_of_alias(b"umc+004-MR"))]
    files = await scene.listed("trial", "series", ALIAS)
    assert [(one.inode, one.guid) for one in files.values()] == [(f.inode, f.guid.octets) for f in scene.files]
    assert str(scene.files[0].guid) in await scene.manifest()
    assert list(await scene.listed("trial", "manifest")) == [f"{ALIAS}.tsv", "umc+004-MR.tsv"]


async def test_the_tables_of_many_series_come_in_pages_and_each_is_whole(scene: Scene) -> None:
    """A page of files ends in the middle of a series, at one hospital earlier than at the other."""
    for number in range(100, 125):
        names = {f"{file:04}.dcm": Guid.from_random(bytes([number, file, *range(14)])) for file in range(1, 61)}
        await scene.hospitals["amc"].add(f"/grid/medical/amc/{number:03}-MR", {"Modality": "MR"}, names)
    for number in range(100, 103):
        await scene.hospitals["umc"].add(f"/grid/medical/umc/{number:03}-MR", {"Modality": "MR"})
    await scene.create()
    listed = await scene.listed("trial", "manifest")
    lengths = {name: len(entry.octets.splitlines()) - 1 for name, entry in listed.items()}
    assert list(lengths) == sorted(lengths)
    assert [lengths[f"amc+{number}-MR.tsv"] for number in range(100, 125)] == [60] * 25
    assert [lengths[f"umc+{number}-MR.tsv"] for number in range(100, 103)] == [1] * 3
    assert lengths[f"{ALIAS}.tsv"] == len(scene.files)


async def test_a_file_of_a_hospital_that_is_not_mounted_says_so(scene: Scene) -> None:
    """It is in the snapshot, and not here."""
    await scene.create()
    (file,) = (await scene.listed("trial", "series", "umc+004-MR")).values()
    assert isinstance(file, Gone)
    assert "not at the hospital" in str(file.why)


async def test_a_file_that_has_gone_stays_in_the_directory_and_says_why(scene: Scene) -> None:
    """Withdrawn, replaced, denied: never other bytes under its name."""
    await scene.create()
    first = scene.files[0].guid
    scene.hospital.remove(f"{SERIES}/0001.dcm")
    await scene.tell("amc", UNREGISTER_PATH, Unregister([first.octets]), Outcomes)
    files = await scene.listed("trial", "series", ALIAS)
    assert isinstance(files["0001.dcm"], Gone)
    assert isinstance(files["0001.dcm"].why, InstanceLostError)
    assert "taken it away" in str(files["0001.dcm"].why)
    assert isinstance(files["0002.dcm"], PlacedNode)
    fresh = scene.hospital.add_file(f"{SERIES}/0001.dcm", b"another!!")
    names = {"0001.dcm": fresh.guid, "0002.dcm": scene.files[1].guid}
    await scene.hospitals["amc"].add(SERIES, {"Modality": "MR"}, names)
    files = await scene.listed("trial", "series", ALIAS)
    assert "another rendition has its name" in str(files["0001.dcm"].why)
    assert "replaced: another rendition" in await scene.manifest()
    await scene.tell("amc", SET_ACLS_PATH, SetAcls([VersionedAcl(ROOT, 2, Acl(str(HOSPITAL), ()).encode())]), Outcomes)
    files = await scene.listed("trial", "series", ALIAS)
    assert {str(file.why).split(": ")[1] for file in files.values()} == {"it is no longer for this identity"}


@pytest.mark.parametrize("is_gone", [False, True])
async def test_a_file_with_an_acl_of_its_own_is_no_longer_told_of(scene: Scene, is_gone: bool) -> None:  # noqa: FBT001 a case
    """Nor what has become of it; its sibling is, and it is again when the ACL says so."""
    await scene.create()
    await scene.create("another", "")
    first = scene.files[0].guid.octets
    if is_gone:
        await scene.tell("amc", UNREGISTER_PATH, Unregister([first]), Outcomes)

    async def told(name: str) -> list[str]:
        asked = AskFrozen(name, series=SERIES)
        page = await scene.hospitals["amc"].reader.call(
            FROZEN_PATH, asked, FrozenPage, deadline=trio.current_time() + 5
        )
        return [file.state.value for file in page.files]

    before = await told("trial")
    readable = Acl(str(HOSPITAL), (Entry(EntryKind.USER, "/DC=org/DC=demo/CN=reader", Right.READ.value),))
    for version, acl, expected in ((2, Acl(str(HOSPITAL), ()), "denied"), (3, readable, before[0])):
        await scene.tell("amc", SET_ACLS_PATH, SetAcls([VersionedAcl(first, version, acl.encode())]), Outcomes)
        for name in ("trial", "another"):
            assert await told(name) == [expected, "there"]


async def test_a_hidden_series_comes_back(scene: Scene) -> None:
    """A hospital may hide it for a while."""
    await scene.create()
    await scene.hospitals["amc"].show(SERIES, is_visible=False)
    assert "does not show it" in str((await scene.listed("trial", "series", ALIAS))["0001.dcm"].why)
    await scene.hospitals["amc"].show(SERIES)
    assert isinstance((await scene.listed("trial", "series", ALIAS))["0001.dcm"], PlacedNode)


async def test_a_snapshot_is_its_authors_alone(scene: Scene) -> None:
    """Nobody else learns of it, and freezes what he himself may read; nor does he drop more than his own."""
    for name in ("trial", "another"):
        await scene.create(name)
    stranger = scene.hospitals["amc"].service.as_seen_by(principal("/DC=org/DC=demo/CN=stranger"))
    deadline = trio.current_time() + 5
    assert (await stranger.call(SNAPSHOTS_PATH, AskSnapshots(), Snapshots, deadline=deadline)).snapshots == []
    mine = await stranger.call(SNAPSHOT_PATH, CreateSnapshot("trial", "", bytes(16)), Snapshot, deadline=deadline)
    assert mine.files == 0
    assert (await stranger.call(FROZEN_PATH, AskFrozen("trial"), FrozenPage, deadline=deadline)).files == []
    series = await stranger.call(FROZEN_SERIES_PATH, AskFrozenSeries("trial"), FrozenSeries, deadline=deadline)
    assert series.paths == []
    for was_there in (True, False):
        dropped = await stranger.call(DROP_SNAPSHOT_PATH, DropSnapshot("trial"), Dropped, deadline=deadline)
        assert dropped.was_there is was_there
    assert len(await scene.listed("trial", "series", ALIAS)) == len(scene.files)
    await drop_everywhere(scene.federation, "another")
    assert "another" not in await scene.listed()
    assert len(await scene.listed("trial", "series", ALIAS)) == len(scene.files)


async def test_a_name_stands_for_one_question_and_a_lost_answer_costs_nothing(scene: Scene) -> None:
    """Asked again by the same nonce it is the same; what is there stays, whatever becomes of another try."""
    reader, deadline = scene.hospitals["amc"].reader, trio.current_time() + 5
    first, second = [
        await reader.call(SNAPSHOT_PATH, CreateSnapshot("trial", "", bytes(16)), Snapshot, deadline=deadline)
        for _ in range(2)
    ]
    assert first == second
    with pytest.raises(MalformedMessageError, match="already"):
        await scene.create()
    assert list(await scene.listed("trial", "series")) == [ALIAS]
    with pytest.raises(MalformedQueryError, match="limit"):
        await scene.create("other", "limit 5")
    for name in ("", ".", "..", "a/b", "x" * 65, "-x"):
        with pytest.raises(MalformedMessageError):
            await scene.create(name)


@pytest.mark.parametrize("name", ["", "..", "a/b", "x" * 256, "\x1b[2J"])
async def test_a_hospital_that_tells_of_an_impossible_name_hides_the_snapshots_of_no_other(
    scene: Scene, name: str
) -> None:
    """The kernel refuses a listing with such a name, whole, or a terminal obeys it."""
    await scene.create()

    class Hostile:
        async def call(self, path: str, message: Message, reply: type[M], *, deadline: float) -> M:
            del path, message, deadline
            await trio.lowlevel.checkpoint()
            told = Snapshots([Snapshot(name, "/CN=x", "", 0.0, [], 0, 0)])
            assert isinstance(told, reply)
            return told

    federation = Federation(lambda: {**callers(scene.hospitals), "evil": Hostile()}, deadline=3)
    scene.tree = VirtualTree({SNAPSHOTS: SnapshotsDirectory(federation, lambda _: scene.hospital)}, 1)
    assert sorted(await scene.listed()) == ["INCOMPLETE", "trial"]


async def test_a_series_and_a_file_whose_hospital_makes_up_their_names_are_errors_and_not_missing(scene: Scene) -> None:
    """Who copies a snapshot with ``rsync --delete`` would believe it."""
    await scene.create()

    class Hostile:
        async def call(self, path: str, message: Message, reply: type[M], *, deadline: float) -> M:
            del path, message, deadline
            await trio.lowlevel.checkpoint()
            told = FrozenSeries(["no/lfn"], is_last=True)
            assert isinstance(told, reply)
            return told

    cohort = Cohort(Federation(lambda: {"evil": Hostile()}, deadline=3), "trial", lambda _: None)
    with pytest.raises(MalformedMessageError):
        await FrozenSeriesDirectory(cohort, 0.0).open().more()
    placed = (await scene.listed("trial", "series", ALIAS))["0001.dcm"]
    assert isinstance(placed, PlacedNode)
    assert str(placed_lfn(placed)) == f"{SERIES}/0001.dcm"
    with pytest.raises(MalformedMessageError):
        placed_lfn(msgspec.structs.replace(placed, lfn="no/lfn"))


async def test_no_snapshot_is_made_where_a_hospital_is_silent(scene: Scene) -> None:
    """Unless one says that a part will do; the gap is told in the directory."""
    scene.hospitals["umc"].be_silent()
    with pytest.raises(PeerTimedOutError, match="umc"):
        await scene.create()
    assert "trial" not in await scene.listed()
    _, silent = await create_everywhere(scene.federation, "trial", "", is_partial=True)
    assert silent.keys() == {"umc"}
    assert "INCOMPLETE" in await scene.listed("trial")
    with pytest.raises(PeerTimedOutError):
        await scene.listed("trial", "series")
    with pytest.raises(PeerTimedOutError):
        await scene.look_up("never")
    scene.hospitals["umc"].be_silent(is_silent=False)
    assert list(await scene.listed("trial", "series")) == [ALIAS]
    with pytest.raises(NoSuchFileError):
        await scene.look_up("never")


async def test_a_dropped_snapshot_is_gone_and_its_images_are_not(scene: Scene) -> None:
    """Its name is free again; one that is not there is told as such, unless somebody may have it who is silent."""
    await scene.create()
    assert await drop_everywhere(scene.federation, "trial") == (["amc", "umc"], {})
    assert await scene.listed() == {}
    with pytest.raises(NoSuchFileError, match="no snapshot trial of this identity"):
        await drop_everywhere(scene.federation, "trial")
    scene.hospitals["umc"].be_silent()
    dropped, silent = await drop_everywhere(scene.federation, "trial")
    assert (dropped, set(silent)) == ([], {"umc"})
    scene.hospitals["umc"].be_silent(is_silent=False)
    assert (await scene.create("trial", 'Modality == "MR" and Project is missing'))["amc"].files == 2
    assert isinstance(scene.files[0].guid, Guid)
