"""Several hospitals on one mount: each alone, one that is dead or hostile costs nobody else anything."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, cast

import msgspec
import pyfuse3
import pytest
import trio
import trio.testing

from mdmfs.model.errors import ConfigurationError, MalformedMessageError, MdmfsError, NoSuchFileError
from mdmfs.model.names import MAX_LFN_BYTES, Guid, Lfn
from mdmfs.wire.messages.files import DirectoryPage, Node, NodeKind
from mdmfs.worker.attributes import GUID_ATTRIBUTE, WHY_ATTRIBUTE
from mdmfs.worker.cache.room import Room
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.callers.numbers import own_number, parse_number
from mdmfs.worker.callers.own_files import Directories, OwnFiles, OwnPages
from mdmfs.worker.callers.seat import OwnerOnly
from mdmfs.worker.configuration import MountConfiguration
from mdmfs.worker.fuse.operations import MdmfsOperations
from mdmfs.worker.fuse.patience import SignalWatch
from mdmfs.worker.lease import Lease
from mdmfs.worker.namespace.listing import nodes_by_name
from mdmfs.worker.namespace.names import ROOT
from mdmfs.worker.port import Files
from mdmfs.worker.serving import Ports, Serving, Site
from tests.twins.hospital import ROOT as TOP
from tests.twins.hospital import TwinHospital, unreachable
from tests.twins.pages import NoPages

TEXT: Final = """
trust = "ca.pem"
[[hospitals]]
name = "a"
address = "a.example.org:8443"
dn = "/DC=org/CN=a"
keystores = [{name = "k1", address = "k.a.example.org:8444", dn = "/DC=org/CN=k"}]
[[hospitals]]
name = "b"
address = "b.example.org:8443"
dn = "/DC=org/CN=b"
trust = "b.pem"
keystores = [{name = "k1", address = "k.b.example.org:8444", dn = "/DC=org/CN=k"}]
"""


class Kernel(NoPages):
    """Remembers nothing."""

    async def forget_names(self, directory: int, names: list[bytes]) -> None:
        """See ``Kernel``."""


class Joined:
    """A mount of the hospitals ``a`` and ``b``, without FUSE."""

    def __init__(self, folder: Path) -> None:
        self.hospitals = {"a": TwinHospital(), "b": TwinHospital()}
        self.room = Room(2**24)
        self.folder = folder
        self.serving: Serving

    async def open(self, nursery: trio.Nursery) -> None:
        """Begin to serve."""
        sites = []
        for name, hospital in self.hospitals.items():
            keystores = await hospital.open_keystores(nursery)
            cache = CiphertextCache(self.folder / name, self.room.limit, self.room)
            await cache.load()
            ports = Ports(hospital, lambda keystores=keystores: keystores, name=name)  # type: ignore[misc]
            sites.append(Site(ports, cache, Lease(trio.current_time, wait=5.0, patience=0.0)))
        self.serving = Serving(sites, TOP, Kernel(), nursery, deadline=5)
        self.serving.start()

    @property
    def files(self) -> Files:
        """What a request is answered from."""
        return self.serving.files

    async def find(self, path: str, files: Files | None = None) -> int:
        """Look a path up and give its inode number."""
        inode = ROOT
        for name in path.split("/"):
            inode = (await (files or self.files).lookup(inode, name.encode())).inode
        return inode

    async def read(self, path: str) -> bytes:
        """Open, read and close a file."""
        handle = await self.files.open_file(await self.find(path))
        try:
            return bytes(await self.files.read(handle, 0, 2**20))
        finally:
            self.files.close_file(handle)

    async def is_heard(self, name: str) -> bool:
        """Ask the mount whether a hospital is heard."""
        return f"{name}: heard" in (await self.files.attribute(ROOT, WHY_ATTRIBUTE)).decode()

    async def names(self, inode: int) -> list[bytes]:
        """List a directory."""
        handle = await self.files.open_directory(inode)
        try:
            return [name for name, _, _ in await self.files.read_directory(handle, 0)]
        finally:
            self.files.close_directory(handle)


@pytest.fixture
async def joined(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Joined]:
    """Make it, with a file at each hospital under the same name and inode number."""
    made = Joined(tmp_path)
    for name, hospital in made.hospitals.items():
        hospital.add_file(f"/grid/medical/{name}/p/0001.dcm", name.encode() * 3000)
    await made.open(nursery)
    yield made
    nursery.cancel_scope.cancel()


def list_entries_with(hostile: TwinHospital, **lie: object) -> None:
    """Let a hospital lie about every entry that it lists."""
    listed = hostile.list_directory

    async def list_directory(lfn: Lfn, after: str) -> DirectoryPage:
        page = await listed(lfn, after)
        entries = [msgspec.structs.replace(node, **lie) for node in page.entries]
        return msgspec.structs.replace(page, entries=entries)

    hostile.list_directory = list_directory  # type: ignore[method-assign]


async def test_each_hospital_has_a_directory_and_gives_its_own_bytes(joined: Joined) -> None:
    """Although both count their inodes alike."""
    assert await joined.names(ROOT) == [b"a", b"b"]
    assert {name: await joined.read(f"{name}/p/0001.dcm") for name in "ab"} == {"a": b"a" * 3000, "b": b"b" * 3000}
    assert await joined.find("a/p/0001.dcm") != await joined.find("b/p/0001.dcm")
    assert (await joined.files.totals()).files == 2


async def test_a_dead_hospital_costs_its_own_directory_an_error_and_the_others_not_a_moment(joined: Joined) -> None:
    """Not even in a listing of the root, in statfs, or in the question how all are."""
    joined.hospitals["b"].failure = unreachable
    with trio.fail_after(4):  # less than anybody's patience
        assert await joined.names(ROOT) == [b"a", b"b"]
        assert (await joined.files.attributes(await joined.find("b"))).name == "b"
        assert await joined.read("a/p/0001.dcm") == b"a" * 3000
        assert (await joined.files.totals()).files == 1
        told = (await joined.files.attribute(ROOT, WHY_ATTRIBUTE)).decode().splitlines()
        assert [line.split(":")[0] for line in told] == ["a", "b"]
        assert "heard" in told[0]
    with pytest.raises(MdmfsError) as caught:
        await joined.names(await joined.find("b"))
    assert not isinstance(caught.value, NoSuchFileError)


async def test_a_hospital_that_comes_back_is_served_again(joined: Joined) -> None:
    """Without anybody's doing."""
    joined.hospitals["b"].failure = unreachable
    await trio.sleep(1)
    joined.hospitals["b"].failure = None
    with trio.fail_after(30):
        while not await joined.is_heard("b"):  # noqa: ASYNC110 a lease sets no event
            await trio.sleep(0.1)
    assert await joined.read("b/p/0001.dcm") == b"b" * 3000


async def test_a_hospital_that_names_a_guid_of_another_has_nothing_of_it(joined: Joined) -> None:
    """Its file is asked of it and its keystores: not of the other, nor of the other's cache."""
    theirs = await joined.files.attribute(await joined.find("a/p/0001.dcm"), GUID_ATTRIBUTE)
    assert await joined.read("a/p/0001.dcm")
    hostile = joined.hospitals["b"]
    planted = hostile.add_file("/grid/medical/b/p/0002.dcm", b"c" * 3000)
    planted.guid = Guid.parse(theirs.decode())
    hostile.note([entry.inode for entry in (hostile.root, hostile._find(Lfn.parse("/grid/medical/b/p")))], [])  # noqa: SLF001 a twin's own
    await trio.sleep(1)
    with pytest.raises(MdmfsError):
        await joined.read("b/p/0002.dcm")
    assert await joined.read("a/p/0001.dcm") == b"a" * 3000


@pytest.mark.parametrize("number", [0, -1, 2**35, 2**35 + 5, 2**62, 2**62 + 1])
async def test_a_number_that_is_anothers_is_refused(joined: Joined, number: int) -> None:
    """It would name a file of another hospital, or a query."""
    list_entries_with(joined.hospitals["b"], inode=number)
    with pytest.raises(MalformedMessageError):
        await joined.find("b/p")
    assert await joined.read("a/p/0001.dcm") == b"a" * 3000


@pytest.mark.parametrize("name", ["..", "x/y", "", "../../a", "a\nb", "\x1b[2J", "\x7f", "x" * 256])
async def test_a_name_that_no_lfn_can_have_is_refused(joined: Joined, name: str) -> None:
    """It would lead out of the hospital's directory, say something to a terminal, or look as if it were not there."""
    list_entries_with(joined.hospitals["b"], name=name)
    with pytest.raises(MalformedMessageError):
        await joined.names(await joined.find("b"))
    assert await joined.names(await joined.find("a")) == [b"p"]


def test_a_path_that_is_longer_than_any_lfn_is_an_error_and_not_missing() -> None:
    """However deep the directories are that a hospital makes up."""
    deep = Lfn(("x" * 250,) * 15)
    room = MAX_LFN_BYTES - len(str(deep)) - 1
    node = Node("x" * room, 77, NodeKind.DIRECTORY, 0, 0.0)
    assert list(nodes_by_name([node], deep)) == [node.name.encode()]
    with pytest.raises(MalformedMessageError):
        nodes_by_name([msgspec.structs.replace(node, name="x" * (room + 1))], deep)


@pytest.mark.parametrize("lie", [{"guid": b""}, {"guid": bytes(17)}])
async def test_a_file_without_a_guid_is_refused(joined: Joined, lie: dict[str, object]) -> None:
    """Who opened it would hear that nothing is there."""
    list_entries_with(joined.hospitals["b"], kind=NodeKind.FILE, **lie)
    with pytest.raises(MalformedMessageError):
        await joined.names(await joined.find("b"))


async def test_a_directory_that_says_to_be_a_file_is_refused_and_the_root_shows_it_as_ever(joined: Joined) -> None:
    """It stands there beside those of others."""
    hostile = joined.hospitals["b"]
    listed = hostile.list_directory

    async def list_directory(lfn: Lfn, after: str) -> DirectoryPage:
        page = await listed(lfn, after)
        return msgspec.structs.replace(page, directory=msgspec.structs.replace(page.directory, kind=NodeKind.FILE))

    hostile.list_directory = list_directory  # type: ignore[method-assign]
    with pytest.raises(MalformedMessageError):
        await joined.names(await joined.find("b"))
    assert (await joined.files.lookup(ROOT, b"b")).kind is NodeKind.DIRECTORY


async def test_a_revocation_at_one_takes_nothing_of_another(joined: Joined) -> None:
    """A change names numbers of the hospital that tells it."""
    handles = [await joined.files.open_file(await joined.find(f"{name}/p/0001.dcm")) for name in "ab"]
    joined.hospitals["a"].remove("/grid/medical/a/p/0001.dcm")
    await trio.sleep(1)
    with pytest.raises(MdmfsError):
        await joined.files.read(handles[0], 0, 10)
    assert bytes(await joined.files.read(handles[1], 0, 10)) == b"b" * 10
    for handle in handles:
        joined.files.close_file(handle)


async def test_each_hospital_is_remembered_for_as_long_as_its_own_lease_runs(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all are listed in one directory."""
    for name, seconds in (("a", 200.0), ("b", 20.0)):
        joined.hospitals[name].lease = seconds
        joined.hospitals[name].note([], [])
        node = await joined.files.lookup(ROOT, name.encode())
        while not 0 < joined.files.seconds_held(node) <= seconds:  # noqa: ASYNC110 nobody tells of a lease
            await trio.sleep(0.01)
    told: dict[bytes, float] = {}

    def reply(_: object, name: bytes, entry: pyfuse3.EntryAttributes, __: int) -> bool:
        told[name] = entry.entry_timeout
        return True

    monkeypatch.setattr(pyfuse3, "readdir_reply", reply)  # in the kernel's place
    over = MdmfsOperations(OwnerOnly(joined.files, os.getuid(), os.getgid()), SignalWatch())
    handle = await joined.files.open_directory(ROOT)
    await over.readdir(pyfuse3.FileHandleT(handle), 0, cast("pyfuse3.ReaddirToken", None))
    joined.files.close_directory(handle)
    assert told[b"b"] <= 20.0 < told[b"a"]


async def test_on_a_mount_for_many_users_each_has_numbers_of_his_own(joined: Joined) -> None:
    """For files of every hospital; what one has looked up is found for another by its name."""
    directories = Directories()
    first, second = (OwnFiles(joined.serving.files, number, directories) for number in (1, 2))
    inodes = [await joined.find("b/p/0001.dcm", files) for files in (first, second)]
    assert [(parse_number(inode) or (0, 0))[0] for inode in inodes] == [1, 2]
    folder = await joined.find("b/p", first)
    assert (await second.attributes(folder)).name == "p"
    assert own_number(1, folder) != folder
    OwnPages(Kernel(), 1).store(folder | 1, 0, memoryview(b""))


async def test_a_file_that_was_opened_again_is_followed_closely_from_then_on(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """The shares of the siblings come along with those of the next one, however long ago the first open was."""
    autojump_clock.autojump_threshold = 0.03  # it cannot see the threads at work
    hospital = TwinHospital()
    hospital.add_sibling_files("/grid/medical/a", 12, 1000)
    keystores = await hospital.open_keystores(nursery)
    cache = CiphertextCache(tmp_path, 2**24)
    await cache.load()
    site = Site(Ports(hospital, lambda: keystores), cache, Lease(trio.current_time))
    serving = Serving([site], TOP, Kernel(), nursery, deadline=5)
    serving.start()
    files = serving.files
    folder = (await files.lookup(ROOT, b"a")).inode
    first, second = [(await files.lookup(folder, name)).inode for name in (b"0001.dcm", b"0002.dcm")]
    files.close_file(await files.open_file(first))
    await trio.sleep(0.7)
    again = files.open_file_at_once(first)
    assert again is not None
    files.close_file(again)
    await trio.sleep(0.7)
    asked: list[int] = []
    for twin in hospital.keystores.values():
        twin.lie = lambda collected: asked.append(len(collected.outcomes)) or collected  # type: ignore[func-returns-value]
    files.close_file(await files.open_file(second))
    assert sum(asked) == 2 * 11
    nursery.cancel_scope.cancel()


# Configuration


def read(tmp_path: Path, text: str) -> MountConfiguration:
    """Read a file of this text."""
    file = tmp_path / "mount.toml"
    file.write_text(text)
    return MountConfiguration.read(file)


def test_each_hospital_has_its_own_trust_keystores_and_place_in_the_cache(tmp_path: Path) -> None:
    """As if it were mounted alone."""
    each = read(tmp_path, TEXT).each
    assert {name: (one.hospital.address, one.trust, str(one.root)) for name, one in each.items()} == {
        "a": ("a.example.org:8443", "ca.pem", "/grid/medical/a"),
        "b": ("b.example.org:8443", "b.pem", "/grid/medical/b"),
    }
    assert each["a"].keystores[0].address != each["b"].keystores[0].address
    assert each["a"].cache_folder != each["b"].cache_folder


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('name = "b"', 'name = "a"'),
        ('name = "b"', 'name = "x/y"'),
        ('name = "b"', 'name = ".find"'),
        ('trust = "ca.pem"', 'trust = "ca.pem"\n[mount]\nroot = "/elsewhere"'),
        ('trust = "ca.pem"', 'trust = "ca.pem"\n[mount]\nroot = "/grid/medical/a"'),
        ('trust = "ca.pem"', 'trust = "ca.pem"\n[hospital]\naddress = "x:1"\ndn = "/CN=x"'),
        ('keystores = [{name = "k1", address = "k.b.example.org:8444", dn = "/DC=org/CN=k"}]', "keystores = []"),
    ],
)
def test_what_cannot_be_joined_is_refused(tmp_path: Path, before: str, after: str) -> None:
    """With a sentence that names the file; to who uses a mount that runs, a malformed name would be ENOENT."""
    with pytest.raises(ConfigurationError, match=r"mount\.toml"):
        read(tmp_path, TEXT.replace(before, after, 1))


def test_a_name_at_no_hospital_is_refused_with_those_there_are(tmp_path: Path) -> None:
    """So that one sees what is configured."""
    with pytest.raises(ConfigurationError, match="a, b"):
        read(tmp_path, TEXT).of(Lfn.parse("/grid/medical/c/x"))
