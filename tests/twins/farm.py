"""A worker with its hospital and keystores over real sockets, and a storage element that has a replica of each file."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec
import trio
import trio.testing

from mdmfs.demo.pki import delegate
from mdmfs.sealing.header import FileKey, ObjectContext, Role
from mdmfs.sealing.seal import seal
from mdmfs.wire.messages.files import Node, NodeKind, Transfer
from mdmfs.wire.stream import Address
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.hospital.replicas import ReplicatedHospital
from mdmfs.worker.hospital.storage import Storage
from mdmfs.worker.keys.ring import KeyRing
from mdmfs.worker.memory import Memory
from mdmfs.worker.opening import Opener
from mdmfs.worker.reading.parts import Parts
from tests.twins import certificates as make
from tests.twins.hospital import REGISTERED, TwinFile, TwinHospital
from tests.twins.hospital_service import HospitalOnTheWire
from tests.twins.octets import octets
from tests.twins.pages import NoPages
from tests.twins.storage import Served
from tests.twins.wire import calling, context_of, serving

JANE = make.person("jane")
SIZE = 600_000
HEADER = 56
"""Salt and commitment of a sealed object, in bytes."""


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
    nursery: trio.Nursery
    context: Callable[[], ssl.SSLContext]
    memory: Memory
    """Of the mount, for what is received."""

    async def read(self, file: TwinFile) -> bytes:
        """Read a file whole; what came of it is in the cache then."""
        node = self.node(file)
        opened = await self.opener.open(node)
        try:
            plaintext = await self.opener.read(opened, 0, len(file.plaintext))
            while file.guid not in self.cache:
                await trio.testing.wait_all_tasks_blocked()
            return plaintext
        finally:
            self.opener.close(opened)

    def forget(self, file: TwinFile) -> None:
        """Let go what the worker has of a file, also what it keeps for a moment after the last reader."""
        self.opener.bar(file.inode, file.guid)

    def node(self, file: TwinFile) -> Node:
        """Name a file."""
        return Node("x.dcm", file.inode, NodeKind.FILE, len(file.plaintext), REGISTERED, file.guid.octets)

    def replicate(self, file: TwinFile, *, generation: int = 0, padding: int = 0) -> None:
        """Put a replica."""
        sealed, name = self.sealed(file, generation=generation), name_of(file)
        self.served.kept[name] = sealed + bytes(padding)
        self.tell(file, self.served.url(name), sealed)

    def sealed(self, file: TwinFile, *, generation: int = 0) -> bytes:
        """Seal a file anew."""
        context = ObjectContext(Role.BODY, file.guid, generation, len(file.plaintext))
        with FileKey(bytearray(file.key)) as key:
            return bytes(seal(file.plaintext, key, context, secrets.token_bytes(24)))

    def tell(self, file: TwinFile, turl: str, sealed: bytes) -> None:
        """Let the hospital name a replica of this sealing."""
        self.on_wire.replicas[file.guid] = Transfer(turl, "tier1", len(sealed), 0, 2, sealed[:HEADER])

    def place(self, begin: str) -> None:
        """Let the hospital name all replicas by other URLs."""
        for guid, told in self.on_wire.replicas.items():
            turl = begin + told.turl.rpartition("/")[2]
            self.on_wire.replicas[guid] = msgspec.structs.replace(told, turl=turl)

    def go_through(self, cache: Address | None, cache_of: Sequence[str] = ()) -> None:
        """Begin anew behind a site's cache, knowing nothing of any storage element."""
        self.nursery.start_soon(self.hospital._storage.aclose)  # noqa: SLF001 as configured
        self.hospital._storage = Storage(self.context, cache, cache_of, self.memory)  # noqa: SLF001 as configured


def name_of(file: TwinFile) -> str:
    """Give the name of a file's replica."""
    return f"{file.inode:064x}"


@contextlib.asynccontextmanager
async def open_farm(
    folder: Path,
    nursery: trio.Nursery,
    context: Callable[[], ssl.SSLContext] = lambda: context_of(None),
    memory: Memory | None = None,
) -> AsyncIterator[Farm]:
    """Give a worker that has read nothing yet; ``context`` is for storage elements with TLS."""
    twin, served, shown = TwinHospital(), Served(), make.host("hospital")
    files = [twin.add_file(f"/grid/medical/a/{number}.dcm", octets(SIZE, str(number))) for number in range(4)]
    on_wire, keystores = HospitalOnTheWire(twin), await twin.open_keystores(nursery)
    await nursery.start(served.serve)
    async with (
        serving(on_wire.service(), shown=shown) as address,
        calling(address, delegate(JANE, make.VALID), expected=shown.dn) as client,
    ):
        cache = CiphertextCache(folder / "cache", 2**30)
        await cache.load()
        memory = memory or Memory()
        storage = Storage(context, memory=memory)
        hospital = ReplicatedHospital(lambda: client, storage, deadline=20, memory=memory)
        opener = Opener(
            Parts.around(hospital, cache, KeyRing(lambda: keystores, deadline=20), NoPages(), nursery), deadline=20
        )
        farm = Farm(twin, on_wire, served, opener, cache, files, hospital, nursery, context, memory)
        for file in files:
            farm.replicate(file, padding=file.inode % 2 * 1000)
        yield farm
        await hospital._storage.aclose()  # noqa: SLF001 that of the moment
