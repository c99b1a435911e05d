"""Fetch sealed objects from storage elements where the hospital names one, and from the hospital where that fails.

Nothing is believed of a storage element: what it gives is a sealed object or does not open. One that fails is left
alone for a while, and a file whose replica did not open comes from the hospital for a while.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final, TypeVar

import structlog
import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.model.errors import MalformedMessageError, MdmfsError
from mdmfs.model.names import Guid, Lfn
from mdmfs.sealing.layout import SALT_SIZE
from mdmfs.wire.bundle import Event, Piece
from mdmfs.wire.client import Client
from mdmfs.wire.messages.files import SealedBeginning, Transfer
from mdmfs.worker.hospital.outage import OUTAGES
from mdmfs.worker.hospital.port import Beginning, Hear, SealedDownload
from mdmfs.worker.hospital.remote import RemoteHospital, nobody
from mdmfs.worker.hospital.storage import ReplicaDownload, Storage
from mdmfs.worker.memory import Memory

DOUBT_SECONDS: Final = 600.0
"""So long a file whose replica did not open comes from the hospital."""
REST_SECONDS: Final = 300.0
"""So long a hospital without storage elements, or one that does not know the question, is not asked for replicas."""
MAX_REMEMBERED: Final = 100_000

T = TypeVar("T")
_Waiting = collections.deque[tuple[int, Transfer]]

log = structlog.get_logger(__name__)


class ReplicatedHospital(RemoteHospital):
    """A hospital whose sealed objects may come from storage elements."""

    def __init__(  # noqa: PLR0913 as that one
        self,
        client: Callable[[], Client],
        storage: Storage,
        *,
        deadline: float,
        purpose: str = "",
        mount: bytes = b"",
        root: Lfn | None = None,
        readers: Callable[[], Client | None] = nobody,
        memory: Memory | None = None,
    ) -> None:
        """As ``RemoteHospital``; replicas are fetched by ``storage``."""
        super().__init__(
            client, deadline=deadline, purpose=purpose, mount=mount, root=root, readers=readers, memory=memory
        )
        self._storage = storage
        self._came: collections.OrderedDict[Guid, None] = collections.OrderedDict()
        """Files that came from a replica last."""
        self._doubted: collections.OrderedDict[Guid, float] = collections.OrderedDict()
        """Until when no replica of a file is asked for."""
        self._rest_until = float("-inf")
        self._asking = trio.Lock()
        """One question about files ahead at a time: a second connection would cost more than it saves."""

    @contextlib.asynccontextmanager
    async def fetch(self, guid: Guid, *, beginning: Beginning | None = None) -> AsyncIterator[SealedDownload]:
        """Fetch a replica; where there is none, or its head does not come, or it was cut before, ask the hospital."""
        transfer = (await self._find([guid], are_ahead=False)).get(0)
        async with contextlib.AsyncExitStack() as stack:
            if transfer is not None:
                is_same = beginning is not None and transfer.header.startswith(beginning.salt)
                begin = beginning.length if beginning is not None and is_same else 0
                try:
                    replica = await stack.enter_async_context(self._storage.fetch(transfer, begin))
                except MdmfsError as error:
                    self._storage.distrust(transfer, error)
                else:
                    self.note_replica(guid)
                    with self._distrusting(transfer, replica):
                        yield replica
                    return
            self._came.pop(guid, None)
            yield await stack.enter_async_context(super().fetch(guid, beginning=beginning))

    async def fetch_all(self, guids: Sequence[Guid], hear: Hear) -> None:
        """Fetch what has replicas from there, side by side, and the others in one answer of the hospital."""
        found = await self._find(guids, are_ahead=True)
        if not found:
            await super().fetch_all(guids, hear)
            return
        await _Mixed(self, self._storage, guids, found, hear).run()

    async def fetch_from_hospital(self, guids: Sequence[Guid], hear: Hear) -> None:
        """Fetch files that nobody has opened yet from the hospital itself."""
        for guid in guids:
            self._came.pop(guid, None)
        await super().fetch_all(guids, hear)

    def note_replica(self, guid: Guid) -> None:
        """Know that a file comes from a replica."""
        _remember(self._came, guid, None)

    def doubt(self, guid: Guid) -> bool:
        """Leave the replica of a file alone, if it came from one: the next fetch comes from the hospital."""
        if guid not in self._came:
            return False
        del self._came[guid]
        _remember(self._doubted, guid, trio.current_time() + DOUBT_SECONDS)
        return True

    @contextlib.contextmanager
    def _distrusting(self, transfer: Transfer, download: ReplicaDownload) -> Iterator[None]:
        try:
            yield
        except OUTAGES as error:
            self._storage.distrust(transfer, error, download)
            raise

    async def _find(self, guids: Sequence[Guid], *, are_ahead: bool) -> dict[int, Transfer]:
        """Ask where replicas are, by place, of the files whose replicas are not doubted; raises only for an outage."""
        now = trio.current_time()
        if now < self._rest_until:
            return {}
        fresh = [place for place, it in enumerate(guids) if self._doubted.get(it, now) <= now]
        if not fresh:
            return {}
        try:
            async with self._asking if are_ahead else contextlib.nullcontext():  # who opens a file waits for nobody
                wanted, avoided = [guids[place] for place in fresh], self._storage.avoided
                found = await self.transfers(wanted, avoided, are_ahead=are_ahead)
        except OUTAGES:
            raise  # it would be waited for twice
        except MdmfsError as error:  # the hospital tells why when it is asked for the bytes
            log.debug("no replicas", reason=error.told_here)
            if isinstance(error, MalformedMessageError):  # it is older than replicas
                self._rest_until = now + REST_SECONDS
            return {}
        if not found.are_there_any:
            self._rest_until = now + REST_SECONDS
        return {place: it for place, it in zip(fresh, found.transfers, strict=True) if it.turl}


class _Mixed:
    """A bundle of which some comes from storage elements, and the rest, and what does not come, from the hospital."""

    def __init__(
        self,
        hospital: ReplicatedHospital,
        storage: Storage,
        guids: Sequence[Guid],
        found: dict[int, Transfer],
        hear: Hear,
    ) -> None:
        self._hospital = hospital
        self._storage = storage
        self._guids = guids
        self._left = [place for place in range(len(guids)) if place not in found]
        """What is to come from the hospital."""
        self._waiting: dict[str, _Waiting] = {}
        """By the storage element."""
        for place, transfer in found.items():
            self._waiting.setdefault(transfer.element, collections.deque()).append((place, transfer))
        self._hear = hear

    async def run(self) -> None:
        """Fetch all, in the order of the question as far as it is not side by side."""
        async with open_plain_nursery() as nursery:
            nursery.start_soon(self._fetch_left)
            for element, waiting in self._waiting.items():
                for _ in range(min(int(self._storage.lanes(element).total_tokens), len(waiting))):
                    nursery.start_soon(self._fetch_waiting, element, waiting)
        await self._fetch_left()

    async def _fetch_waiting(self, element: str, waiting: _Waiting) -> None:
        """Fetch what waits for one storage element, one after the other."""
        async with self._storage.lanes(element):
            if not waiting:
                return
            async with self._storage.room([transfer for _, transfer in waiting]) as room:
                while waiting:
                    place, transfer = waiting.popleft()
                    if transfer.element in self._storage.avoided:
                        self._left.append(place)
                    else:
                        await self._fetch(place, transfer, room)

    async def _fetch(self, place: int, transfer: Transfer, room: memoryview) -> None:
        """Fetch one, in pieces: until the first of them is here nothing is said, and the hospital may be asked."""
        replica: ReplicaDownload | None = None
        begun, has_begun = trio.current_time(), False
        try:
            async with self._storage.fetch(transfer, 0, room) as replica:
                while piece := await replica.take_piece():
                    if not has_begun:
                        has_begun = True
                        self._hospital.note_replica(self._guids[place])
                        await self._hear(place, _beginning_of(transfer))
                    await self._hear(place, Piece(piece))
            self._storage.note_fetched(transfer.element, begun)
        except MdmfsError as error:
            self._storage.distrust(transfer, error, replica)
            if has_begun:
                await self._hear(place, error)
            else:
                self._left.append(place)

    async def _fetch_left(self) -> None:
        """Ask the hospital for the others; a failure of the whole answer is told of each that has not ended."""
        places, self._left = self._left, []
        if not places:
            return
        unended = set(places)

        async def hear(asked: int, event: Event) -> None:
            await self._hear(places[asked], event)
            if isinstance(event, MdmfsError):
                unended.discard(places[asked])

        try:
            await self._hospital.fetch_from_hospital([self._guids[place] for place in places], hear)
        except MdmfsError as error:
            for place in sorted(unended):
                await self._hear(place, error)


def _beginning_of(transfer: Transfer) -> SealedBeginning:
    return SealedBeginning(transfer.size, transfer.generation, transfer.threshold, transfer.header[:SALT_SIZE])


def _remember(files: collections.OrderedDict[Guid, T], guid: Guid, what: T) -> None:
    """Keep something of a file; what was kept first goes when it is too much."""
    files[guid] = what
    files.move_to_end(guid)
    if len(files) > MAX_REMEMBERED:
        files.popitem(last=False)
