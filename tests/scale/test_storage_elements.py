"""Reading from real storage elements, OpenStack Swift by S3 and XRootD by HTTPS, that are dead, slow or lie.

Run by name: ``./run test tests/scale``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import os
import secrets
import signal
import tempfile
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from mdmfs.demo.pki import ThrowAwayPki, make_pki
from mdmfs.hospital.storage.dav import DavElement
from mdmfs.hospital.storage.port import StorageElement, StorageError
from mdmfs.hospital.storage.s3 import S3Element
from mdmfs.pki.tls import client_context
from mdmfs.wire.stream import Address
from tests.twins.farm import SIZE, Farm, name_of, open_farm
from tests.twins.hospital import TwinFile
from tests.twins.storage_elements import KEY, SECRET, Engine, nginx, swift, xrootd

SIDE_BY_SIDE = 12


class Running(NamedTuple):
    """A storage element, as its server and as the hospital's port."""

    engine: Engine
    element: StorageElement
    pki: ThrowAwayPki

    def file_of(self, octets: bytes) -> Path:
        """Find where it keeps an object on its disk."""
        files = (path for path in self.engine.folder.rglob("*") if path.is_file())
        return next(path for path in files if path.read_bytes() == octets)


@contextlib.contextmanager
def running(kind: str) -> Iterator[Running]:
    """Start one."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # xrootd is not root
        pki = make_pki(folder / "pki", keystores=1, now=dt.datetime.now(dt.UTC))
        if kind == "swift":
            keys = folder / "s3.toml"
            keys.touch(0o600)
            keys.write_text(f'access_key_id = "{KEY}"\nsecret_access_key = "{SECRET}"\n')
            with swift(folder / "swift") as engine:
                s3 = S3Element("tier1", engine.url, region="us-east-1", credentials=keys, ca=None, padding=0)
                yield Running(engine, s3, pki)
        else:
            with xrootd(folder / "xrootd", pki) as engine:
                context = functools.partial(client_context, pki.hospital, pki.anchors)
                yield Running(engine, DavElement("tier1", engine.url, context, padding=0), pki)


@pytest.fixture(scope="module", params=["swift", "xrootd"])
def storage(request: pytest.FixtureRequest) -> Iterator[Running]:
    """Give each, for all tests."""
    with running(str(request.param)) as storage:
        yield storage


@contextlib.asynccontextmanager
async def farm_before(storage: Running, folder: Path, nursery: trio.Nursery) -> AsyncIterator[Farm]:
    """Give a worker whose hospital names replicas there, by a reader's proxy or presigned."""
    context = client_context(storage.pki.users["reader"], storage.pki.anchors)
    async with open_farm(folder, nursery, context=lambda: context) as farm:
        for file in farm.files:
            put(farm, storage, file, farm.sealed(file))
        yield farm


def put(farm: Farm, storage: Running, file: TwinFile, octets: bytes, *, padding: int = 0) -> None:
    """Put a sealing of a file there, and let the hospital name it."""
    whole = octets + bytes(padding)
    storage.element.put(name_of(file), lambda: iter([whole]), len(whole))
    farm.tell(file, storage.element.turl(name_of(file), 3600), octets)


async def test_what_is_put_is_found_read_and_deleted(storage: Running) -> None:
    """The port, as the hospital uses it; what is gone twice is no error."""
    name, octets = secrets.token_hex(32), secrets.token_bytes(100_000)
    assert storage.element.size(name) is None
    storage.element.put(name, lambda: iter([octets[:1000], octets[1000:]]), len(octets))
    assert storage.element.size(name) == len(octets)
    for _ in range(2):
        storage.element.delete(name)
    assert storage.element.size(name) is None


async def test_files_come_from_there_and_not_from_the_hospital(
    storage: Running, tmp_path: Path, nursery: trio.Nursery
) -> None:
    """One by one, and many fetched ahead; padded, too."""
    async with farm_before(storage, tmp_path, nursery) as farm:
        put(farm, storage, farm.files[0], farm.sealed(farm.files[0]), padding=100_000)
        for file in farm.files[:2]:
            assert await farm.read(file) == file.plaintext
        await farm.opener.prefetch([farm.node(file) for file in farm.files])
        assert [await farm.read(file) for file in farm.files] == [file.plaintext for file in farm.files]
        assert farm.twin.fetches == 0


@pytest.mark.parametrize("where", [0, 30, 60, 20_000, SIZE])
async def test_bytes_that_were_flipped_on_its_disk_are_found_out(
    storage: Running, tmp_path: Path, nursery: trio.Nursery, where: int
) -> None:
    """Whether the engine notices, as Swift does, or gives them, as XRootD does."""

    def flip(octets: bytearray) -> None:
        octets[where] ^= 1

    await read_spoiled(storage, tmp_path, nursery, flip)


@pytest.mark.parametrize("lost", [1, 16_400, SIZE])
async def test_an_object_that_was_cut_on_its_disk_is_found_out(
    storage: Running, tmp_path: Path, nursery: trio.Nursery, lost: int
) -> None:
    """At a chunk's edge or anywhere."""

    def cut(octets: bytearray) -> None:
        del octets[-lost:]

    await read_spoiled(storage, tmp_path, nursery, cut)


async def read_spoiled(
    storage: Running, folder: Path, nursery: trio.Nursery, spoil: Callable[[bytearray], None]
) -> None:
    """Spoil an object on the engine's disk; the file is read right, and so are the others."""
    async with farm_before(storage, folder, nursery) as farm:
        file = farm.files[0]
        octets = farm.sealed(file)
        put(farm, storage, file, octets)
        spoiled = bytearray(octets)
        spoil(spoiled)
        with storage.file_of(octets).open("r+b") as kept:  # in place: what the engine noted beside it stays
            kept.write(spoiled)
            kept.truncate()
        assert await farm.read(file) == file.plaintext
        assert farm.twin.fetches == 1
        assert [await farm.read(file) for file in farm.files] == [file.plaintext for file in farm.files]


async def test_an_old_generation_or_another_object_under_the_name_is_found_out(
    storage: Running, tmp_path: Path, nursery: trio.Nursery
) -> None:
    """Whoever may write there cannot make a reader take it for the file."""
    async with farm_before(storage, tmp_path, nursery) as farm:
        old, swapped, other = farm.files[:3]
        for victim, octets in ((old, farm.sealed(old, generation=7)), (swapped, farm.sealed(other))):
            storage.element.put(name_of(victim), functools.partial(iter, [octets]), len(octets))
        for file in (old, swapped):
            assert await farm.read(file) == file.plaintext
            farm.go_through(None)  # it is not left alone for what it did to the first
        assert farm.twin.fetches == 2


async def test_one_that_has_stopped_holds_no_reader_up_for_long(
    storage: Running, tmp_path: Path, nursery: trio.Nursery
) -> None:
    """As a machine that swaps itself to death: it accepts, and never answers. Its next reader does not wait at all."""
    async with farm_before(storage, tmp_path, nursery) as farm:
        os.kill(storage.engine.process.pid, signal.SIGSTOP)
        try:
            with trio.fail_after(20):
                assert await farm.read(farm.files[0]) == farm.files[0].plaintext
            with trio.fail_after(5):
                assert await farm.read(farm.files[1]) == farm.files[1].plaintext
        finally:
            os.kill(storage.engine.process.pid, signal.SIGCONT)
        assert farm.twin.fetches == 2
        farm.go_through(None)
        assert await farm.read(farm.files[2]) == farm.files[2].plaintext
        assert farm.twin.fetches == 2


@pytest.mark.parametrize("kind", ["swift", "xrootd"])
async def test_one_that_is_killed_fails_no_reader_and_no_deletion_is_believed(
    tmp_path: Path, nursery: trio.Nursery, kind: str
) -> None:
    """Also in the middle of a transfer; what is to be deleted there is not taken for gone."""
    with running(kind) as storage:
        async with farm_before(storage, tmp_path, nursery) as farm:
            assert await farm.read(farm.files[0]) == farm.files[0].plaintext
            storage.engine.process.kill()
            storage.engine.process.wait()
            await farm.opener.prefetch([farm.node(file) for file in farm.files[1:]])
            assert [await farm.read(file) for file in farm.files] == [file.plaintext for file in farm.files]
            assert farm.twin.fetches == 1  # one question for all that were left
        for ask in (storage.element.size, storage.element.delete):
            with pytest.raises(StorageError, match="tier1"):
                ask(name_of(farm.files[0]))


# The cache of a site, by the recipe of docs/operations.md


@pytest.fixture
def cache(storage: Running, tmp_path: Path) -> Iterator[Engine]:
    """Give nginx before the storage element."""
    with nginx(tmp_path / "nginx", storage.engine.url, storage.pki) as cache:
        yield cache


async def upstream(tmp_path: Path, count: int) -> list[str]:
    """Tell how each of so many requests to the cache was answered: MISS is one that the storage element saw."""
    log: list[str] = []
    with trio.fail_after(20):
        while len(log) < count:  # it is written when a request has ended, also one that was broken off
            await trio.sleep(0.05)
            log = (tmp_path / "nginx/access.log").read_text().splitlines()
    return [" ".join(line.split()[:2]) for line in log]


async def test_nodes_that_want_an_object_at_once_cost_the_storage_element_one_request(
    storage: Running, cache: Engine, tmp_path: Path, nursery: trio.Nursery
) -> None:
    """Each node is decided upon by the hospital; the bytes leave the storage element once, whoever signed the URL."""
    async with farm_before(storage, tmp_path, nursery) as farm, contextlib.AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(open_farm(tmp_path / str(number), nursery))
            for number in range(SIDE_BY_SIDE)
        ]
        address, begin = Address.parse(cache.url.partition("://")[2]), storage.engine.url + "/"
        read = []

        async def read_one(node: Farm) -> None:
            # each node has its own hospital here: the replica is of its own file, so only the bytes are compared
            transfer = farm.on_wire.replicas[farm.files[0].guid]
            node.go_through(address, [begin])
            async with node.hospital._storage.fetch(transfer, 0) as download:  # noqa: SLF001 as the node does
                room = memoryview(bytearray(transfer.size))
                filled = 0
                while filled < len(room):
                    filled += await download.receive_into(room[filled:])
                read.append(bytes(room))

        async with trio.open_nursery() as together:
            for node in nodes:
                together.start_soon(read_one, node)
        assert len(set(read)) == 1
        assert len(read) == SIDE_BY_SIDE
        answers = await upstream(tmp_path, SIDE_BY_SIDE)
        assert sorted(answers) == ["HIT 200"] * (SIDE_BY_SIDE - 1) + ["MISS 200"]


async def test_what_is_in_the_cache_is_read_though_the_storage_element_has_stopped(
    storage: Running, cache: Engine, tmp_path: Path, nursery: trio.Nursery
) -> None:
    """From its beginning and from the middle on; what is not there comes from the hospital."""
    async with farm_before(storage, tmp_path, nursery) as farm:
        address = Address.parse(cache.url.partition("://")[2])
        farm.go_through(address, [storage.engine.url + "/"])
        file, transfer = farm.files[0], farm.on_wire.replicas[farm.files[0].guid]
        assert await farm.read(file) == file.plaintext
        farm.forget(file)
        os.kill(storage.engine.process.pid, signal.SIGSTOP)
        try:
            assert await farm.read(file) == file.plaintext
            async with farm.hospital._storage.fetch(transfer, 400_000) as download:  # noqa: SLF001 as a cut transfer
                assert (download.begin, download.length) == (400_000, transfer.size)
        finally:
            os.kill(storage.engine.process.pid, signal.SIGCONT)
        assert farm.twin.fetches == 0
        assert await upstream(tmp_path, 3) == ["MISS 200", "HIT 200", "HIT 206"]


async def test_a_cache_whose_disk_is_spoiled_or_that_is_killed_fails_no_reader(
    storage: Running, cache: Engine, tmp_path: Path, nursery: trio.Nursery
) -> None:
    """What it has spoiled does not open and comes from the hospital; without it the storage element is asked itself."""
    async with farm_before(storage, tmp_path, nursery) as farm:
        farm.go_through(Address.parse(cache.url.partition("://")[2]), [storage.engine.url + "/"])
        first, second = farm.files[:2]
        assert await farm.read(first) == first.plaintext
        farm.forget(first)
        for path in [path for path in cache.folder.rglob("*") if path.is_file()]:
            with path.open("r+b") as kept:
                kept.seek(-100_000, os.SEEK_END)
                kept.write(bytes(1000))
        assert await farm.read(first) == first.plaintext
        assert farm.twin.fetches == 1
        cache.process.kill()
        cache.process.wait()
        assert await farm.read(second) == second.plaintext
        assert farm.twin.fetches == 1


async def test_the_cache_lets_nobody_write_or_delete(storage: Running, cache: Engine, nursery: trio.Nursery) -> None:
    """It has a certificate of its own: whoever reaches it shall do no more with that than read."""
    del nursery
    name = secrets.token_hex(32)
    storage.element.put(name, lambda: iter([b"sealed"]), 6)
    address, path = Address.parse(cache.url.partition("://")[2]), urllib.parse.urlsplit(storage.engine.url).path
    host = urllib.parse.urlsplit(storage.engine.url).netloc
    for method in ("DELETE", "PUT"):
        stream = await trio.open_tcp_stream(address.host, address.port)
        async with stream:
            asked = f"{method} {path}/{name} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"
            await stream.send_all(asked.encode())
            assert (await stream.receive_some(20)).startswith(b"HTTP/1.1 403")
    assert storage.element.size(name) == 6
