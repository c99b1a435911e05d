"""The twin hospital behind the wire: its port answered over HTTP, for whoever the handshake proves."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from mdmfs.model.errors import MdmfsError, again
from mdmfs.model.identity import Dn
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.bundle import Piece, beginning, end, failed, octets_head
from mdmfs.wire.messages.acls import READ_ACL_PATH, AclTexts, ReadAcl
from mdmfs.wire.messages.files import (
    BUNDLE_PATH,
    CHANGES_PATH,
    DESCRIBE_PATH,
    GENERATION_HEADER,
    GIVE_BACK_PATH,
    HEADERS_PATH,
    LIST_PATH,
    LOCATE_PATH,
    SEALED_PATH,
    THRESHOLD_HEADER,
    TOTALS_PATH,
    TRANSFERS_PATH,
    AskBundle,
    AskChanges,
    AskHeaders,
    AskTotals,
    AskTransfers,
    Describe,
    GiveBack,
    GivenBack,
    ListDirectory,
    Locate,
    Located,
    SealedBeginning,
    SealedHeaders,
    Transfer,
    Transfers,
)
from mdmfs.wire.service import Reply, Request, Service, StreamReply
from mdmfs.worker.hospital.port import Beginning
from tests.twins.hospital import TwinDownload, TwinHospital

PIECE = 64 * 1024


class HospitalOnTheWire:
    """Routes to a twin, and who has asked it."""

    def __init__(self, twin: TwinHospital) -> None:
        self.twin = twin
        self.callers: list[Dn] = []
        self.replicas: dict[Guid, Transfer] = {}
        self.transfers_asked = 0
        self.transfers_failure: MdmfsError | None = None
        """What whoever asks for replicas is answered with."""

    def service(self) -> Service:
        """Give the routes."""
        return Service(
            "twin hospital",
            {
                ("POST", LIST_PATH): self._list,
                ("POST", DESCRIBE_PATH): self._describe,
                ("POST", LOCATE_PATH): self._locate,
                ("POST", CHANGES_PATH): self._changes,
                ("POST", GIVE_BACK_PATH): self._give_back,
                ("POST", TOTALS_PATH): self._totals,
                ("POST", READ_ACL_PATH): self._acl,
                ("GET", SEALED_PATH): self._sealed,
                ("POST", BUNDLE_PATH): self._bundle,
                ("POST", HEADERS_PATH): self._headers,
                ("POST", TRANSFERS_PATH): self._transfers,
            },
        )

    async def _list(self, request: Request) -> Reply:
        self.callers.append(request.principal.dn)
        asked = await request.read(ListDirectory)
        return Reply(await self.twin.list_directory(Lfn.parse(asked.lfn), asked.after))

    async def _locate(self, request: Request) -> Reply:
        guids = (await request.read(Locate)).guids
        return Reply(Located(await self.twin.locate([Guid(guid) for guid in guids])))

    async def _describe(self, request: Request) -> Reply:
        return Reply(await self.twin.describe(Guid((await request.read(Describe)).guid)))

    async def _changes(self, request: Request) -> Reply:
        asked = await request.read(AskChanges)
        return Reply(await self.twin.changes(asked.since, asked.wait, asked.report))

    async def _give_back(self, request: Request) -> Reply:
        await request.read(GiveBack)
        await self.twin.give_back()
        return Reply(GivenBack())

    async def _totals(self, request: Request) -> Reply:
        return Reply(await self.twin.totals(Lfn.parse((await request.read(AskTotals)).lfn)))

    async def _acl(self, request: Request) -> Reply:
        return Reply(AclTexts(await self.twin.acl(Lfn.parse((await request.read(ReadAcl)).lfn))))

    async def _headers(self, request: Request) -> Reply:
        asked = await request.read(AskHeaders)
        return Reply(SealedHeaders(await self.twin.headers([Guid(octets) for octets in asked.guids])))

    async def _transfers(self, request: Request) -> Reply:
        self.transfers_asked += 1
        if self.transfers_failure is not None:
            raise again(self.transfers_failure)
        asked = await request.read(AskTransfers)
        found = [self.replicas.get(Guid(guid), Transfer()) for guid in asked.guids]
        told = [it if it.element not in asked.avoid else Transfer() for it in found]
        return Reply(Transfers(told, are_there_any=bool(self.replicas)))

    async def _sealed(self, request: Request) -> StreamReply:
        self.callers.append(request.principal.dn)
        guid = Guid.parse(request.path.removeprefix(SEALED_PATH))
        stack = contextlib.AsyncExitStack()
        download = await stack.enter_async_context(self.twin.fetch(guid, beginning=_beginning_of(request)))
        headers = {GENERATION_HEADER: str(download.generation), THRESHOLD_HEADER: str(download.threshold)}
        if download.begin:
            headers["content-range"] = f"bytes {download.begin}-{download.length - 1}/{download.length}"
        return StreamReply(
            length=download.length - download.begin,
            etag=download.salt.hex(),
            chunks=_octets(download, stack),
            headers=headers,
            status=206 if download.begin else 200,
        )

    async def _bundle(self, request: Request) -> StreamReply:
        guids = [Guid(octets) for octets in (await request.read(AskBundle)).guids]
        return StreamReply(None, "", _frames(self.twin, guids))


async def _frames(twin: TwinHospital, guids: Sequence[Guid]) -> AsyncIterator[bytes]:
    async with twin.bundle(guids) as bundle:
        while (said := await bundle.next()) is not None:
            place, event = said
            match event:
                case SealedBeginning():
                    yield beginning(place, event)
                case Piece():
                    yield octets_head(place, len(event.octets))
                    yield bytes(event.octets)
                case MdmfsError():
                    yield failed(place, event)
            yield b""
    yield end()


def _beginning_of(request: Request) -> Beginning | None:
    if "range" not in request.headers:
        return None
    begin = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
    return Beginning(bytes.fromhex(request.headers["if-range"].strip('"')), begin)


async def _octets(download: TwinDownload, stack: contextlib.AsyncExitStack) -> AsyncIterator[bytes]:
    buffer = memoryview(bytearray(PIECE))
    async with stack:
        while count := await download.receive_into(buffer):
            yield bytes(buffer[:count])
