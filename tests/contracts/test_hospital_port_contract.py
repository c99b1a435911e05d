"""What a worker may rely on at its port to the hospital, held by the twin and by the wire over real TLS."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence

import pytest
import structlog.testing
import trio

from mdmfs.demo.pki import delegate
from mdmfs.model.errors import (
    AccessDeniedError,
    InstanceChangedError,
    MdmfsError,
    NoSuchFileError,
    PeerUnreachableError,
    RecallTimedOutError,
)
from mdmfs.model.names import Guid, Lfn
from mdmfs.sealing.layout import HEADER_SIZE, SEALED_CHUNK_SIZE, sealed_size
from mdmfs.wire.bundle import Event, Piece
from mdmfs.wire.messages.files import NodeKind, SealedBeginning
from mdmfs.worker.hospital.port import Beginning, Hospital, SealedDownload
from mdmfs.worker.hospital.remote import RemoteHospital
from tests.twins import certificates as make
from tests.twins.hospital import ROOT, TwinFile, TwinHospital, unreachable
from tests.twins.hospital_service import HospitalOnTheWire
from tests.twins.octets import octets
from tests.twins.wire import calling, serving

SIZE = 400_000
FOLDER = Lfn.parse("/grid/medical/a")


class Scene:
    """A hospital as a worker sees it, and the twin that tests arrange."""

    def __init__(self, port: Hospital, twin: TwinHospital) -> None:
        self.port = port
        self.twin = twin

    @property
    def file(self) -> TwinFile:
        """Give the first file."""
        return next(iter(self.twin.files.values()))

    async def fetch(self, beginning: Beginning | None = None) -> tuple[SealedDownload, bytes]:
        """Fetch the first file."""
        async with self.port.fetch(self.file.guid, beginning=beginning) as download:
            return download, await take(download)


async def take(download: SealedDownload) -> bytes:
    """Take everything that comes."""
    room, found = memoryview(bytearray(50_000)), b""
    while count := await download.receive_into(room):
        found += room[:count]
    return found


@pytest.fixture(params=["twin", "wire"])
async def scene(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Scene]:
    """Make a hospital with five files, and its port."""
    caplog.set_level(logging.CRITICAL)  # a stream that is cut on purpose is an error in the server's log
    twin = TwinHospital()
    twin.staged = {}
    twin.add_sibling_files(str(FOLDER), 5, SIZE)
    if request.param == "twin":
        yield Scene(twin, twin)
        return
    shown = make.host("hospital")
    proxy = delegate(make.person("jane"), make.VALID)
    async with (
        serving(HospitalOnTheWire(twin).service(), shown=shown) as address,
        calling(address, proxy, expected=shown.dn) as client,
    ):
        yield Scene(RemoteHospital(lambda: client, deadline=5), twin)


async def test_a_directory_is_listed_page_by_page_in_the_order_of_its_names(scene: Scene) -> None:
    """The page after a name begins behind it; the last says so."""
    scene.twin.page_size = 3
    first = await scene.port.list_directory(FOLDER, "")
    second = await scene.port.list_directory(FOLDER, first.entries[-1].name)
    names = [node.name for page in (first, second) for node in page.entries]
    assert names == [f"{number:04}.dcm" for number in range(1, 6)]
    assert (first.is_last, second.is_last) == (False, True)
    node = first.entries[0]
    assert (node.kind, node.size, node.guid) == (NodeKind.FILE, SIZE, scene.file.guid.octets)
    with pytest.raises(NoSuchFileError):
        await scene.port.list_directory(FOLDER / "nothing", "")


async def test_a_file_is_found_under_its_name(scene: Scene) -> None:
    """With the directories above it; what is not there is a gap in its place."""
    gap, place = await scene.port.locate([Guid(bytes(16)), scene.file.guid])
    assert gap is None
    assert place is not None
    assert (place.node.inode, place.node.guid) == (scene.file.inode, scene.file.guid.octets)
    page = await scene.port.list_directory(Lfn.parse(place.lfn).parent, "")
    assert (page.directory.inode, place.node) == (place.above[-1], page.entries[0])


async def test_a_file_is_described_exactly(scene: Scene) -> None:
    """And one that is not there, not at all."""
    description = await scene.port.describe(scene.file.guid)
    assert (description.guid, description.size, description.threshold) == (scene.file.guid.octets, SIZE, 2)
    with pytest.raises(NoSuchFileError):
        await scene.port.describe(Guid(bytes(16)))


async def test_a_lease_is_given_back(scene: Scene) -> None:
    """And an outage is told as one."""
    await scene.port.give_back()
    assert scene.twin.given_back == [0]
    scene.twin.failure = unreachable
    with pytest.raises(PeerUnreachableError):
        await scene.port.give_back()
    assert scene.twin.given_back == [0]


async def test_changes_are_told_as_soon_as_they_happen_and_silence_after_the_wait(scene: Scene) -> None:
    """A wait that brings nothing answers with the version of before."""
    version = scene.twin.version
    assert (await scene.port.changes(version, 0.05)).version == version
    async with trio.open_nursery() as nursery:

        async def remove() -> None:
            await trio.sleep(0.05)
            scene.twin.remove(f"{FOLDER}/0001.dcm")

        inode = scene.file.inode
        nursery.start_soon(remove)
        changes = await scene.port.changes(version, 5)
    assert changes.version > version
    assert changes.files == [inode]


async def test_the_totals_are_of_all_files(scene: Scene) -> None:
    """As statfs shows them."""
    totals = await scene.port.totals(ROOT)
    assert (totals.files, totals.size) == (5, 5 * SIZE)


async def test_a_sealed_object_comes_whole_with_all_that_opens_it(scene: Scene) -> None:
    """Its salt, the generation of its key and how many shares make it, known before its first byte."""
    download, sealed = await scene.fetch()
    assert (download.begin, download.length, len(sealed)) == (0, sealed_size(SIZE), sealed_size(SIZE))
    assert (download.salt, download.generation, download.threshold) == (sealed[:24], 0, 2)


@pytest.mark.parametrize("length", [1, 24, HEADER_SIZE, HEADER_SIZE + 3 * SEALED_CHUNK_SIZE + 5, -1])
async def test_the_rest_of_the_same_sealing_follows_its_beginning(scene: Scene, length: int) -> None:
    """Byte for byte."""
    _, sealed = await scene.fetch()
    length = length if length > 0 else len(sealed) + length
    download, rest = await scene.fetch(Beginning(sealed[:24], length))
    assert (download.begin, download.length, download.salt) == (length, len(sealed), sealed[:24])
    assert sealed[:length] + rest == sealed


async def test_another_sealing_comes_whole(scene: Scene) -> None:
    """Whatever of the first one is here already."""
    _, sealed = await scene.fetch()
    assert scene.twin.staged is not None
    scene.twin.staged.clear()
    download, other = await scene.fetch(Beginning(sealed[:24], 1000))
    assert (download.begin, len(other)) == (0, len(sealed))
    assert download.salt == other[:24] != sealed[:24]


@pytest.mark.parametrize("error", [AccessDeniedError, InstanceChangedError, RecallTimedOutError, NoSuchFileError])
async def test_a_refusal_keeps_its_class(scene: Scene, error: type[MdmfsError]) -> None:
    """It comes before any byte."""
    scene.twin.refusal = lambda: error("no")
    with pytest.raises(error, match="no"):
        await scene.fetch()


@pytest.mark.parametrize("kept", [0, 10, 100_000, -1])
async def test_a_stream_cut_short_raises_and_never_ends(scene: Scene, kept: int) -> None:
    """An end that is none would be taken for a whole file."""
    scene.twin.damage = lambda sealed: sealed[:kept]
    with structlog.testing.capture_logs(), pytest.raises(PeerUnreachableError):
        await scene.fetch()


async def test_who_leaves_early_leaves_a_port_that_works(scene: Scene) -> None:
    """A transfer that nobody needs any more costs nobody else anything."""
    room = memoryview(bytearray(1000))
    with structlog.testing.capture_logs():
        for _ in range(3):
            async with scene.port.fetch(scene.file.guid) as download:
                assert await download.receive_into(room)
        _, sealed = await scene.fetch()
    assert len(sealed) == sealed_size(SIZE)


Said = dict[int, SealedBeginning | MdmfsError]


async def take_bundle(scene: Scene, guids: Sequence[Guid]) -> tuple[Said, list[bytes]]:
    """Take a bundle to its end: how each file begins or why it does not come, and what came of it."""
    said: Said = {}
    found = [b""] * len(guids)

    async def hear(place: int, what: Event) -> None:
        await trio.lowlevel.checkpoint()
        if isinstance(what, Piece):
            assert isinstance(said[place], SealedBeginning)
            found[place] += bytes(what.octets)
        else:
            assert place not in said or isinstance(what, MdmfsError)
            said[place] = what

    await scene.port.fetch_all(guids, hear)
    return said, found


async def test_a_bundle_brings_every_file_whole_and_says_in_its_place_what_is_not_there(scene: Scene) -> None:
    """Each with all that opens it, as if it had been fetched alone."""
    guids = [*scene.twin.files, Guid(bytes(16))]
    said, found = await take_bundle(scene, guids)
    for place, guid in enumerate(guids[:-1]):
        async with scene.port.fetch(guid) as alone:
            told = SealedBeginning(alone.length, alone.generation, alone.threshold, alone.salt)
            assert (said[place], found[place]) == (told, await take(alone))
    assert isinstance(said[len(guids) - 1], NoSuchFileError)
    assert not found[-1]


@pytest.mark.parametrize("kept", [0, 10, 100_000, -1])
async def test_a_bundle_cut_short_raises_and_never_ends(scene: Scene, kept: int) -> None:
    """Whatever it has brought before."""
    scene.twin.damage = lambda sealed: sealed[:kept]
    with structlog.testing.capture_logs(), pytest.raises(PeerUnreachableError):
        await take_bundle(scene, list(scene.twin.files))


@pytest.mark.parametrize("error", [AccessDeniedError, InstanceChangedError, RecallTimedOutError, NoSuchFileError])
async def test_a_refused_bundle_keeps_the_class_of_its_refusal(scene: Scene, error: type[MdmfsError]) -> None:
    """It comes before any byte."""
    scene.twin.refusal = lambda: error("no")
    with pytest.raises(error, match="no"):
        await take_bundle(scene, list(scene.twin.files))


async def test_who_leaves_a_bundle_early_leaves_a_port_that_works(scene: Scene) -> None:
    """A mount whose reader has stopped leaves them all the time."""
    with structlog.testing.capture_logs():
        for _ in range(3):
            with trio.CancelScope() as scope:

                async def leave(_: int, __: Event, scope: trio.CancelScope = scope) -> None:
                    scope.cancel()
                    await trio.lowlevel.checkpoint()

                await scene.port.fetch_all(list(scene.twin.files), leave)
            assert scope.cancelled_caught
        _, sealed = await scene.fetch()
    assert len(sealed) == sealed_size(SIZE)


async def test_an_outage_is_an_outage_whatever_is_asked(scene: Scene) -> None:
    """And never a missing name."""
    scene.twin.failure = unreachable
    with pytest.raises(PeerUnreachableError):
        await scene.port.list_directory(FOLDER, "")
    with pytest.raises(PeerUnreachableError):
        await scene.port.describe(scene.file.guid)
    with pytest.raises(PeerUnreachableError):
        await scene.port.totals(ROOT)
    with pytest.raises(PeerUnreachableError):
        await scene.fetch()
    assert octets(SIZE, f"{FOLDER}1") == scene.file.plaintext
