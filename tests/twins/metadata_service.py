"""A metadata service without a network: the real one, mostly on SQLite, asked by whom the test says; it may be away."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import TypeVar

import msgspec
import trio

from mdmfs.metadata.metadata import Metadata
from mdmfs.metadata.service import metadata_service
from mdmfs.metadata.store.database import Database, open_database
from mdmfs.model.errors import MdmfsError, PeerUnreachableError
from mdmfs.model.identity import Dn, Principal
from mdmfs.wire.currency import Currency
from mdmfs.wire.messages.message import Message
from mdmfs.wire.messages.metadata import FIND_PATH, Find, FoundLevel, FoundPage
from mdmfs.wire.service import Reply, Request
from mdmfs.wire.stream import Address

M = TypeVar("M", bound=Message)


class TwinMetadataService:
    """One service; ``restart`` forgets what a killed process forgets."""

    def __init__(self, folder: pathlib.Path, hospital: Dn, clock: Callable[[], float], where: str = "") -> None:
        self.failure: Callable[[], MdmfsError] | None = None
        """What every call is answered with."""
        self.loses_answers = 0
        """So many calls are done and never answered."""
        self.pause = 0.0
        self.calls: list[str] = []
        self.database: Database = open_database(where or str(folder / "private" / "metadata.sqlite"))
        self._hospital = hospital
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Begin again with what is on disk."""
        self._service = metadata_service(Metadata(self.database, self._hospital, self._clock, Currency()))

    def as_seen_by(self, principal: Principal) -> TwinCaller:
        """Give the client of one principal."""
        return TwinCaller(self, principal)

    async def answer(self, path: str, octets: bytes, principal: Principal) -> Message:
        """Answer as over a connection."""

        async def body() -> bytes:
            await trio.lowlevel.checkpoint()
            return octets

        await trio.sleep(self.pause)
        if self.failure is not None:
            raise self.failure()
        self.calls.append(path)
        reply = await self._service.answer(Request("POST", path, {}, principal, Address("192.0.2.9", 1), body))
        if self.loses_answers:
            self.loses_answers -= 1
            message = "the answer was lost"
            raise PeerUnreachableError(message)
        assert isinstance(reply, Reply)
        return reply.message


class TwinCaller:
    """``mdmfs.wire.client.Client`` to a twin."""

    def __init__(self, service: TwinMetadataService, principal: Principal) -> None:
        self._service = service
        self._principal = principal

    async def call(
        self, path: str, message: Message, reply: type[M], *, deadline: float, is_idempotent: bool = True
    ) -> M:
        """Ask, as over the wire."""
        assert is_idempotent
        with trio.CancelScope(deadline=deadline) as scope:
            answer = await self._service.answer(path, msgspec.msgpack.encode(message), self._principal)
            return msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=reply)
        assert scope.cancelled_caught
        text = "no answer in time"
        raise PeerUnreachableError(text)

    async def find(self, query: str, level: FoundLevel = FoundLevel.SERIES) -> list[str]:
        """Give the paths on the first page."""
        page = await self.call(FIND_PATH, Find(query, level), FoundPage, deadline=trio.current_time() + 10)
        return page.paths
