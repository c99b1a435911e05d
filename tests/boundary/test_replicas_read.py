"""Reading from replicas over real sockets, from storage elements that are dead, slow or lie: reads are right."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trio

from mdmfs.demo.pki import delegate
from mdmfs.model.errors import PeerTimedOutError, PeerUnreachableError
from mdmfs.sealing.header import FileKey, ObjectContext, Role
from mdmfs.sealing.seal import seal
from mdmfs.wire.messages import Node, NodeKind, Transfer
from mdmfs.worker import replicas
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.keys.ring import KeyRing
from mdmfs.worker.opening import Opener
from mdmfs.worker.pages import NoPages
from mdmfs.worker.replicas import ReplicatedHospital, Storage
from tests.twins import certificates as make
from tests.twins.hospital import REGISTERED, TwinFile, TwinHospital
from tests.twins.hospital_service import HospitalOnTheWire
from tests.twins.octets import octets
from tests.twins.storage import Served
from tests.twins.wire import calling, context_of, serving

JANE = make.person("jane")
SIZE = 600_000


@dataclasses.dataclass
class Farm:
    """A worker, its hospital, and a storage element with a replica of each file."""

    twin: TwinHospital
    on_wire: HospitalOnTheWire
    served: Served
    opener: Opener
    cache: CiphertextCache
    files: list[TwinFile]
    hospital: ReplicatedHospital

    async def read(self, file: TwinFile) -> bytes:
        """Read a file whole."""
        node = self.node(file)
        opened = await self.opener.open(node)
        try:
            return await self.opener.read(opened, 0, len(file.plaintext))
        finally:
            self.opener.close(opened)

    def node(self, file: TwinFile) -> Node:
        """Name a file."""
        return Node("x.dcm", file.inode, NodeKind.FILE, len(file.plaintext), REGISTERED, file.guid.octets)

    def replicate(self, file: TwinFile, *, generation: int = 0, padding: int = 0) -> None:
        """Put a replica."""
        context = ObjectContext(Role.BODY, file.guid, generation, len(file.plaintext))
        with FileKey(bytearray(file.key)) as key:
            sealed = bytes(seal(file.plaintext, key, context, secrets.token_bytes(24)))
        name = f"{file.inode:064x}"
        self.served.kept[name] = sealed + bytes(padding)
        self.on_wire.replicas[file.guid] = Transfer(self.served.url(name), "tier1", len(sealed), 0, 2, sealed[:56])


@pytest.fixture
async def farm(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Farm]:
    """Give a worker that has read nothing yet."""
    twin, served, shown = TwinHospital(), Served(), make.host("hospital")
    files = [twin.add_file(f"/grid/medical/a/{number}.dcm", octets(SIZE, str(number))) for number in range(4)]
    on_wire, keystores = HospitalOnTheWire(twin), await twin.open_keystores(nursery)
    await nursery.start(served.serve)
    async with (
        serving(on_wire.service(), shown=shown) as address,
        calling(address, delegate(JANE, make.VALID), expected=shown.dn) as client,
    ):
        cache, storage = CiphertextCache(tmp_path / "cache", 2**30), Storage(lambda: context_of(None))
        await cache.load()
        hospital = ReplicatedHospital(lambda: client, storage, deadline=20)
        opener = Opener(hospital, cache, KeyRing(lambda: keystores, deadline=20), NoPages(), nursery, deadline=20)
        farm = Farm(twin, on_wire, served, opener, cache, files, hospital)
        for file in files:
            farm.replicate(file, padding=file.inode % 2 * 1000)
        yield farm
        await storage.aclose()


async def test_a_file_comes_from_its_replica_and_not_from_the_hospital(farm: Farm) -> None:
    """The hospital decides and names it; the bytes come from elsewhere, also where more follows them."""
    for file in farm.files:
        assert await farm.read(file) == file.plaintext
    assert farm.twin.fetches == 0
    assert len(farm.served.asked) == len(farm.files)


async def test_what_is_fetched_ahead_comes_from_replicas_too_and_the_rest_from_the_hospital(farm: Farm) -> None:
    """Side by side, and in one answer what has none."""
    del farm.on_wire.replicas[farm.files[2].guid]
    await farm.opener.prefetch([farm.node(file) for file in farm.files])
    assert all(file.guid in farm.cache for file in farm.files)
    assert (farm.twin.fetches, len(farm.served.asked), farm.on_wire.transfers_asked) == (1, 3, 1)
    assert [await farm.read(file) for file in farm.files] == [file.plaintext for file in farm.files]


@pytest.mark.parametrize("fault", ["cut", "short", "stalls", "silent", "forbidden", "rubbish", "dead"])
@pytest.mark.parametrize("is_ahead", [False, True])
async def test_a_storage_element_that_fails_fails_no_reader(
    farm: Farm, fault: str, monkeypatch: pytest.MonkeyPatch, *, is_ahead: bool
) -> None:
    """The hospital gives what it does not, and it is left alone for a while."""
    monkeypatch.setattr(replicas, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(replicas, "PACE_SECONDS", 0.3)
    farm.served.fault = fault
    if fault == "dead":
        for guid, told in farm.on_wire.replicas.items():
            farm.on_wire.replicas[guid] = Transfer("http://127.0.0.1:1/x", "tier1", told.size, 0, 2, told.header)
    if is_ahead:
        with trio.fail_after(20), contextlib.suppress(PeerUnreachableError, PeerTimedOutError):
            await farm.opener.prefetch([farm.node(file) for file in farm.files])
    assert [await farm.read(file) for file in farm.files] == [file.plaintext for file in farm.files]
    assert farm.twin.fetches > 0
    assert len(farm.served.asked) <= replicas.AT_ONCE


@pytest.mark.parametrize("where", [0, 30, 60, 20_000, SIZE])
async def test_flipped_bytes_are_found_out_and_fetched_from_the_hospital(farm: Farm, where: int) -> None:
    """In the salt, the commitment, the first chunk, one in the middle and the last."""
    file = farm.files[0]
    name = f"{file.inode:064x}"
    damaged = bytearray(farm.served.kept[name])
    damaged[where] ^= 1
    farm.served.kept[name] = bytes(damaged)
    assert await farm.read(file) == file.plaintext
    assert farm.twin.fetches == 1


async def test_an_object_of_an_old_key_or_of_another_file_is_found_out(farm: Farm) -> None:
    """Whatever the storage element gives under the name, only what opens under the file's key is given."""
    old, swapped, other = farm.files[:3]
    told = farm.on_wire.replicas[old.guid]
    farm.replicate(old, generation=7)
    farm.on_wire.replicas[old.guid] = told
    farm.served.kept[f"{swapped.inode:064x}"] = farm.served.kept[f"{other.inode:064x}"]
    assert await farm.read(old) == old.plaintext
    assert await farm.read(swapped) == swapped.plaintext
    assert farm.twin.fetches == 2


async def test_a_file_that_is_read_again_comes_from_its_replica_again(farm: Farm) -> None:
    """That it went from the cache is no reason to doubt it."""
    for _ in range(3):
        assert await farm.read(farm.files[0]) == farm.files[0].plaintext
        farm.cache.discard(farm.files[0].guid)
    assert (farm.twin.fetches, len(farm.served.asked)) == (0, 3)


async def test_what_the_hospital_has_sent_is_not_doubted(farm: Farm) -> None:
    """Only what a replica brought, and once: what is unsound at the hospital itself is not fetched without end."""
    file = farm.files[0]
    assert not farm.hospital.doubt(file.guid)
    await farm.read(file)
    assert [farm.hospital.doubt(file.guid) for _ in range(2)] == [True, False]
    farm.cache.discard(file.guid)
    assert await farm.read(file) == file.plaintext
    assert farm.twin.fetches == 1
    assert not farm.hospital.doubt(file.guid)


async def test_what_fills_up_an_object_costs_no_connection(farm: Farm) -> None:
    """It is passed over, and the connection serves the next file."""
    for file in farm.files:
        farm.replicate(file, padding=50_000)
        assert await farm.read(file) == file.plaintext
    assert (len(farm.served.asked), farm.served.connections) == (len(farm.files), 1)


async def test_a_renewed_credential_ends_the_connections_of_the_old_one_whoever_comes_first(farm: Farm) -> None:
    """Several fetches at once find several connections of before."""
    contexts = [context_of(None), context_of(None)]
    storage = Storage(lambda: contexts[-1])
    told = farm.on_wire.replicas[farm.files[0].guid]
    transfers = [msgspec.structs.replace(told, turl=f"https://127.0.0.1:{port}/x") for port in (1, 2, 3)]

    async def fail(transfer: Transfer) -> None:
        with pytest.raises(PeerUnreachableError):
            async with storage.fetch(transfer, 0):
                pass

    for _ in range(2):
        async with trio.open_nursery() as nursery:
            for transfer in transfers:
                nursery.start_soon(fail, transfer)
        contexts.append(context_of(None))
    await storage.aclose()


async def test_a_hospital_without_storage_elements_is_not_asked_each_time(farm: Farm) -> None:
    """One question in five minutes tells that there are none."""
    farm.on_wire.replicas.clear()
    for file in farm.files:
        assert await farm.read(file) == file.plaintext
    assert farm.on_wire.transfers_asked == 1


async def test_a_site_cache_is_asked_in_place_of_the_storage_element(farm: Farm) -> None:
    """As a proxy is (RFC 9112 section 3.2.2): it gets the whole URL, and no certificate."""
    storage = farm.hospital._storage  # noqa: SLF001 what the configuration sets
    storage._cache = farm.served.address  # noqa: SLF001
    for guid, told in farm.on_wire.replicas.items():
        name = told.turl.rpartition("/")[2]
        farm.on_wire.replicas[guid] = msgspec.structs.replace(told, turl=f"http://se.example.org:9000/bucket/{name}")
    assert await farm.read(farm.files[0]) == farm.files[0].plaintext
    assert farm.twin.fetches == 0
    assert farm.served.asked[0].startswith(b"GET http://se.example.org:9000/bucket/")


async def test_a_transfer_that_was_cut_goes_on_by_range_at_the_hospital(farm: Farm) -> None:
    """Where that has the same sealing, nothing comes twice."""
    file = farm.files[0]
    farm.twin.staged = {file.guid: farm.served.kept[f"{file.inode:064x}"][: farm.on_wire.replicas[file.guid].size]}
    farm.served.fault = "cut"
    assert await farm.read(file) == file.plaintext
    assert [one is not None and one.length > 0 for one in farm.twin.beginnings] == [True]
