"""A second daemon of a twin hospital, which follows the first: the same store, a folder of its own, no PACS."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import trio

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.audit import Audit, records_of
from mdmfs.hospital.kept.staging import Staging
from mdmfs.hospital.leases import Leases
from mdmfs.hospital.release.arrivals import Released
from mdmfs.hospital.release.elsewhere import FromAnother
from mdmfs.hospital.release.release import release, stage_all
from mdmfs.hospital.rights.telling import tell
from mdmfs.hospital.signing import SigningKey
from mdmfs.model.errors import BusyError, MdmfsError
from mdmfs.model.identity import Principal
from mdmfs.model.names import Guid
from mdmfs.wire.bundle import Event, Piece
from mdmfs.wire.messages.files import STAGED_PATH, AskBundle, AskChanges, Changes, SealedBeginning
from tests.twins.clinic import OWNER, READER, SECONDS, OpenClinic, sealed_octets

PIECE = 50
"""Bytes: less than a header."""


class OtherDaemon:
    """What is needed of ``mdmfs.wire.client.Client``, before a hospital that works."""

    def __init__(self, working: OpenClinic) -> None:
        self._working = working
        self.cut_after = 2**40
        """So many bytes come of a file, and then the connection breaks."""
        self.heard: list[int] = []
        """Which versions of the feed it was told to be applied."""
        self.failure: MdmfsError | None = None
        self.breaks: dict[Guid, tuple[int, MdmfsError]] = {}
        """What is said of a file after so many bytes, in place of the rest."""
        self.asked: list[bool] = []
        """Of each bundle, whether it is looked ahead for."""
        self.is_held: trio.Event | None = None
        """Until which look-aheads have no answer."""
        self.is_impolite = False
        """Whether nothing may be looked ahead for."""

    @contextlib.asynccontextmanager
    async def ask_bundle(self, asked: AskBundle, *, path: str, deadline: float) -> AsyncIterator[Saying]:
        """Bring files online there."""
        del deadline
        assert path == STAGED_PATH
        if self.failure is not None:
            raise self.failure
        self.asked.append(asked.ahead)
        if asked.ahead and self.is_held is not None:
            await self.is_held.wait()
        if asked.ahead and self.is_impolite:
            message = "the PACS is in its clinical hours"
            raise BusyError(message)
        guids = [Guid(octets) for octets in asked.guids]
        working = self._working
        staged = stage_all(guids, working.hospital, working.recalls, address="192.0.2.8", are_ahead=asked.ahead)
        async with contextlib.aclosing(self._saying(staged)) as events:
            yield Saying(events)

    async def call(self, path: str, message: AskChanges, reply: type[Changes], *, deadline: float) -> Changes:
        """Hear of changes there."""
        del path, reply, deadline
        self.heard.append(message.since)
        if self.failure is not None:
            raise self.failure
        return await tell(OWNER, "192.0.2.8", message, self._working.hospital)

    async def _saying(
        self, staged: AsyncGenerator[tuple[int, Released | MdmfsError] | None]
    ) -> AsyncGenerator[tuple[int, Event]]:
        async with contextlib.aclosing(staged):
            async for arrived in staged:
                if arrived is None:
                    continue
                place, one = arrived
                if isinstance(one, MdmfsError):
                    yield place, one
                    continue
                told = one.staged
                count, failure = self.breaks.get(told.guid, (self.cut_after, None))
                octets = memoryview(await sealed_octets(told))
                if count:
                    yield place, SealedBeginning(told.size, told.generation, one.threshold, told.salt)
                for begin in range(0, min(len(octets), count), PIECE):
                    yield place, Piece(octets[begin : begin + PIECE])
                if failure:
                    yield place, failure
                elif count < len(octets):
                    return


class Saying:
    """What is needed of ``mdmfs.wire.bundle.Bundle``."""

    def __init__(self, events: AsyncGenerator[tuple[int, Event]]) -> None:
        self._events = events

    async def next(self) -> tuple[int, Event] | None:
        """Give what is said next."""
        return await anext(self._events, None)


@dataclasses.dataclass
class Beside:
    """The second daemon."""

    hospital: Hospital
    recalls: FromAnother
    other: OtherDaemon
    folder: Path

    async def release(self, guid: Guid, principal: Principal = READER) -> bytes:
        """Let a file out, and give all of it."""
        with trio.fail_after(SECONDS):
            released = await release(principal, guid, self.hospital, self.recalls, address="192.0.2.9")
            return await sealed_octets(released.staged)

    def let_out(self) -> list[str]:
        """Give what its own audit log says of files."""
        return [record.event.value for record in records_of(self.folder / "audit.jsonl") if record.guid]


@contextlib.asynccontextmanager
async def beside(working: OpenClinic, folder: Path) -> AsyncIterator[Beside]:
    """Run one for a block."""
    folder.mkdir()  # noqa: ASYNC240 a moment
    audit = Audit(folder / "audit.jsonl", SigningKey(folder / "signing.key"))
    staging, other = Staging(folder / "staging", 2**30), OtherDaemon(working)
    hospital = dataclasses.replace(working.hospital, audit=audit, staging=staging, leases=Leases(), is_beside=True)
    recalls = FromAnother(staging, lambda: other, SECONDS)  # type: ignore[arg-type, return-value]
    with contextlib.closing(audit):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(audit.run)
            nursery.start_soon(recalls.run)
            yield Beside(hospital, recalls, other, folder)
            nursery.cancel_scope.cancel()
