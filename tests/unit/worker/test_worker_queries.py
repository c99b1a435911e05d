"""Query directories on twins: found is what the caller finds at that moment, and a gap is never silent."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from mdmfs.model.errors import MalformedNameError, MalformedQueryError, NoSuchFileError, PeerTimedOutError
from mdmfs.model.names import Lfn
from mdmfs.worker.finding.federation import Federation
from mdmfs.worker.finding.names import alias_of, lfn_of_alias, query_of, target_of
from mdmfs.worker.finding.queries import FIND, INCOMPLETE, FindDirectory
from mdmfs.worker.finding.virtual import Link, Reading, Text, VirtualNode, VirtualTree, begun
from tests.twins.metadata_filled import FilledMetadata, callers

ROOT = 1
MR = "/grid/medical/{}/neuro/sub-aaaaaaaaaaaaaaaa/ses-20180312/003-MR"
CT = "/grid/medical/{}/neuro/sub-aaaaaaaaaaaaaaaa/ses-20180312/004-CT"


class Scene:
    """A mount's virtual names over two hospitals."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self.hospitals = {name: FilledMetadata(folder / name) for name in ("amc", "umc")}
        federation = Federation(lambda: callers(self.hospitals), deadline=3)
        self.tree = VirtualTree({FIND: FindDirectory(federation, nursery, Lfn(()))}, ROOT)

    async def fill(self) -> None:
        """Give each hospital an MR and a CT."""
        for name, hospital in self.hospitals.items():
            await hospital.begin()
            await hospital.add(MR.format(name), {"Modality": "MR", "Age": 60 if name == "amc" else 70})
            await hospital.add(CT.format(name), {"Modality": "CT"})

    async def look_up(self, *names: str) -> VirtualNode:
        """Go down, as a kernel does."""
        inode = ROOT
        for name in names:
            node = await self.tree.look_up(inode, os.fsencode(name))
            assert isinstance(node, VirtualNode)
            self.tree.retain(inode, node)
            inode = node.inode
        return node

    async def read(self, query: str) -> Reading:
        """Open a query's directory."""
        return await begun(self.tree, (await self.look_up(".find", query)).inode)

    async def listed(self, query: str) -> list[str]:
        """List a query's directory."""
        return [name.decode() for name, _ in await (await self.read(query)).entries(0)]


@pytest.fixture
async def scene(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Scene]:
    """Two hospitals that answer."""
    made = Scene(tmp_path, nursery)
    await made.fill()
    yield made
    for hospital in made.hospitals.values():
        hospital.close()


def alias(path: str, hospital: str) -> str:
    """Name a series in a query directory."""
    return alias_of(Lfn.parse(path.format(hospital)))


async def test_series_of_all_hospitals_stand_in_the_order_of_the_query(scene: Scene) -> None:
    """Each under one name, which leads to where it is."""
    found = await scene.listed('Modality == "MR" order by Age desc')
    assert found == [alias(MR, "umc"), alias(MR, "amc")]
    link = (await scene.look_up(".find", 'Modality%20%3D%3D%20"MR"', alias(MR, "amc"))).entry
    assert link == Link("../../amc/neuro/sub-aaaaaaaaaaaaaaaa/ses-20180312/003-MR")


async def test_what_a_query_does_not_find_is_not_in_its_directory(scene: Scene) -> None:
    """A name is no way to learn of a series: it is asked for with the query and the caller's rights."""
    for name in (alias(CT, "amc"), alias(MR, "xmc"), "", "x", "amc", "amc+%2x", "\udcff", "..+..+etc"):
        with pytest.raises(NoSuchFileError):
            await scene.look_up(".find", 'Modality == "MR"', name)


async def test_what_is_registered_or_hidden_is_seen_at_the_next_look(scene: Scene) -> None:
    """Nothing is remembered here; a handle that is rewound sees it too."""
    reading = await scene.read('Modality == "MR"')
    await scene.hospitals["amc"].show(MR.format("amc"), is_visible=False)
    assert [name for name, _ in await reading.entries(0)] == [alias(MR, name).encode() for name in ("amc", "umc")]
    assert [name for name, _ in await reading.entries(0)] == [alias(MR, "umc").encode()]
    with pytest.raises(NoSuchFileError):
        await scene.look_up(".find", 'Modality == "MR"', alias(MR, "amc"))


async def test_a_limit_counts_over_all_hospitals_for_a_single_name_too(scene: Scene) -> None:
    """Each hospital alone would find its own."""
    query = 'Modality == "MR" order by Age limit 1'
    assert await scene.listed(query) == [alias(MR, "amc")]
    await scene.look_up(".find", query, alias(MR, "amc"))
    with pytest.raises(NoSuchFileError):
        await scene.look_up(".find", query, alias(MR, "umc"))


async def test_a_silent_hospital_is_named_in_the_directory_itself(scene: Scene) -> None:
    """As an entry behind the others; and a series that it may have is not said to be missing."""
    scene.hospitals["umc"].be_silent()
    assert await scene.listed('Modality == "MR"') == [alias(MR, "amc"), INCOMPLETE.decode()]
    text = (await scene.look_up(".find", 'Modality == "MR"', "INCOMPLETE")).entry
    assert isinstance(text, Text)
    assert b"umc did not answer" in text.octets
    with pytest.raises(PeerTimedOutError, match="umc"):
        await scene.look_up(".find", 'Modality == "MR"', alias(MR, "umc"))
    scene.hospitals["umc"].be_silent(is_silent=False)
    assert INCOMPLETE.decode() not in await scene.listed('Modality == "MR"')


async def test_nobody_answering_is_an_error_and_no_empty_directory(scene: Scene) -> None:
    """Somebody's script would believe it."""
    await scene.look_up(".find", 'Modality == "MR"')
    for hospital in scene.hospitals.values():
        hospital.be_silent()
    with pytest.raises(PeerTimedOutError):
        await scene.listed('Modality == "MR"')
    with pytest.raises(PeerTimedOutError):
        await scene.look_up(".find", 'Modality == "CT"')


async def test_what_is_no_query_has_no_directory(scene: Scene) -> None:
    """EINVAL; ``mdmfs find`` tells the column."""
    for name in ("Modality = 3", "Modality ==", "%", "Age%", "%zz", "%ff", "NoSuch == 1", "a" * 900):
        with pytest.raises(MalformedQueryError):
            await scene.look_up(".find", name)


async def test_a_long_answer_comes_page_by_page_and_ends_with_its_handle(scene: Scene) -> None:
    """A thousand series are not fetched to show twenty."""
    scene.hospitals["amc"].add_many(
        [f"/grid/medical/amc/neuro/sub-aaaaaaaaaaaaaaaa/ses-2/{number:04d}-PT" for number in range(1100)], "PT"
    )
    reading = await scene.read('Modality == "PT"')
    names = [name for position in range(0, 1100, 500) for name, _ in (await reading.entries(position))[:500]]
    assert len(set(names)) == len(names) == 1100
    assert not await reading.entries(1100)
    half = await scene.read('Modality == "PT"')
    calls = scene.hospitals["amc"].service.calls
    half.close()
    before = len(calls)
    assert not await half.entries(2000)
    assert len(calls) == before


async def test_numbers_live_as_long_as_the_kernel_counts(scene: Scene) -> None:
    """The same name has the same number, and a text that changed another: its pages are not the old ones'."""
    first, second = [await scene.look_up(".find", 'Modality == "MR"') for _ in range(2)]
    assert first.inode == second.inode
    scene.tree.forget(first.inode, 2)
    with pytest.raises(NoSuchFileError):
        scene.tree.node(first.inode)
    texts = [scene.tree.node_of(ROOT, b"x", Text(octets)).inode for octets in (b"a", b"b")]
    assert texts[0] != texts[1]
    assert first.modified <= time.time()


@pytest.mark.parametrize("parts", [("amc", "a+b", "c%2B"), ("a", "b+", "+c"), ("ä", "%", "%25")])
def test_an_alias_leads_back_to_its_series(parts: tuple[str, ...]) -> None:
    """However its parts are written."""
    lfn = Lfn(parts)
    assert lfn_of_alias(alias_of(lfn).encode()) == lfn
    assert target_of(lfn, Lfn(("elsewhere",)), 2) == str(lfn)
    assert target_of(lfn, Lfn(parts[:1]), 2) == "/".join(("..", "..", *parts[1:]))


def test_a_query_is_named_as_it_is_written_or_quoted() -> None:
    """Both at once too; only % and / must be quoted."""
    assert query_of(b'Modality == "MR"') == query_of(b"Modality%20%3d%3D%20%22MR%22") == 'Modality == "MR"'
    assert query_of("ä+%25".encode()) == "ä+%"
    with pytest.raises(MalformedNameError):
        alias_of(Lfn(("x" * 200, "y" * 200)))
