"""Storage elements as a worker reaches them, and the site's cache before them: one GET, held to a pace and a header.

Nothing is believed of any of them: what they give is a sealed object or does not open.
"""

from __future__ import annotations

import contextlib
import functools
import re
import ssl
import urllib.parse
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, NamedTuple

import structlog
import trio

from mdmfs.model.errors import MalformedMessageError, MdmfsError, PeerTimedOutError, PeerUnreachableError
from mdmfs.sealing.layout import HEADER_SIZE, SALT_SIZE
from mdmfs.wire.client import Client, Download
from mdmfs.wire.exchange import HEAD_BYTES
from mdmfs.wire.messages.files import Transfer
from mdmfs.wire.stream import Address
from mdmfs.worker.memory import WINDOW, Memory

HEAD_SECONDS: Final = 10.0
"""So long a storage element may take for the head of an answer."""
PACE_SECONDS: Final = 5.0
PACE_BYTES: Final = 256 * 2**10
"""What brings less than that in that time is slower than a recall."""
PADDING_SECONDS: Final = 1.0
"""So long what fills up an object may take."""
DISTRUST_SECONDS: Final = 60.0
"""So long a storage element that failed is not asked."""
MAX_PASSED_OVER: Final = 256 * 2**10
AT_ONCE: Final = 4
"""Objects that are fetched ahead side by side: that keeps a near storage element busy, and each costs a handshake."""
FAR_SECONDS: Final = 0.05
"""Where one takes longer than that, more come side by side, and fewer again where it does not."""
MOST_AT_ONCE: Final = 16
_OK, _PARTIAL = 200, 206
_URL: Final = re.compile(r"(https?)://([!-.0-~]+)(/[!-~]*)?")

log = structlog.get_logger(__name__)


class Storage:
    """Connections to storage elements, kept while they are used, and which of them failed lately."""

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext],
        cache: Address | None = None,
        cache_of: Sequence[str] = (),
        memory: Memory | None = None,
    ) -> None:
        """``context`` is asked for HTTPS only. ``memory`` is that of the mount; its own without one.

        With a ``cache``, an HTTP proxy, what needs no TLS goes through it, and URLs that begin as one of ``cache_of``.
        """
        self._memory = memory or Memory()
        self._context = context
        self._cache = cache
        self._cache_of = ("http://", *cache_of)
        self._cache_rests_until = float("-inf")
        self._clients: dict[tuple[ssl.SSLContext | None, Address], Client] = {}
        self._distrusted: dict[str, float] = {}
        """Until when, by the hospital's name of the storage element."""
        self._proven: set[str] = set()
        """What gave what it was asked for last: its answers are waited for in one piece, in which no refusal comes."""
        self._lanes: defaultdict[str, trio.CapacityLimiter]
        self._lanes = defaultdict(lambda: trio.CapacityLimiter(AT_ONCE))
        """By the hospital's name of the storage element: what waits for a slow one holds up no other."""

    @property
    def avoided(self) -> list[str]:
        """Name the storage elements that failed lately."""
        now = trio.current_time()
        return [name for name, until in self._distrusted.items() if now < until]

    def distrust(self, transfer: Transfer, reason: object, download: ReplicaDownload | None = None) -> None:
        """Leave a storage element alone for a while; or the site's cache, where a download came from there."""
        if download is not None and download.is_from_cache:
            self._let_cache_rest(reason)
            return
        log.warning("a storage element failed: the hospital is asked", storage=transfer.element, reason=str(reason))
        self._proven.discard(transfer.element)
        self._distrusted[transfer.element] = trio.current_time() + DISTRUST_SECONDS

    def lanes(self, element: str) -> trio.CapacityLimiter:
        """Give the places of those that fetch ahead side by side from a storage element, as many as are of use."""
        return self._lanes[element]

    @contextlib.asynccontextmanager
    async def room(self, transfers: Sequence[Transfer]) -> AsyncIterator[memoryview]:
        """Give who has such a place a room to receive these in, one after the other.

        Each comes in one piece, unless it is long or memory is short. There is a connection then for the first, so that
        nothing waits for a handshake that another lane could fetch meanwhile; or else the storage element is avoided.
        """
        await self._prepare(transfers[0], int(self._lanes[transfers[0].element].borrowed_tokens))
        with self._memory.window(HEAD_BYTES + max(transfer.size for transfer in transfers)) as given:
            yield memoryview(bytearray(given))

    async def _prepare(self, first: Transfer, connections: int) -> None:
        """Have a connection for each lane; a cache of the site needs no handshake, and what failed meanwhile none."""
        if self._is_cached(first.turl) or first.element in self.avoided:
            return
        try:
            client, _, _ = await self._way_to(first.turl, is_from_cache=False)
            await client.prepare(connections, deadline=trio.current_time() + HEAD_SECONDS)
        except MdmfsError as error:
            self.distrust(first, error)

    def note_fetched(self, element: str, begun: float) -> None:
        """Know when something was begun that has been fetched: where that takes long, more come side by side.

        As long as there is memory for them; each of them costs a task and a room, also where it has nothing to do.
        """
        self._proven.add(element)
        is_far = trio.current_time() > begun + FAR_SECONDS and self._memory.has_room(WINDOW)
        lanes = self._lanes[element]
        wanted = min(max(AT_ONCE, lanes.total_tokens + (1 if is_far else -1)), MOST_AT_ONCE)
        if wanted != lanes.total_tokens:
            lanes.total_tokens = wanted

    def fetch(
        self, transfer: Transfer, begin: int, room: memoryview | None = None
    ) -> AbstractAsyncContextManager[ReplicaDownload]:
        """GET what follows ``begin``; raises ``MdmfsError`` also for an answer of other bytes than were asked for.

        With a ``room`` it comes there, and is taken in pieces. Where the site's cache does not
        begin to answer, the storage element is asked itself.
        """
        is_from_cache = self._is_cached(transfer.turl)
        return (self._fetch_by_cache if is_from_cache else self._fetch)(transfer, begin, room)

    @contextlib.asynccontextmanager
    async def _fetch_by_cache(
        self, transfer: Transfer, begin: int, room: memoryview | None
    ) -> AsyncIterator[ReplicaDownload]:
        async with contextlib.AsyncExitStack() as stack:
            try:
                asked = self._fetch(transfer, begin, room, is_from_cache=True)
                replica = await stack.enter_async_context(asked)
            except MdmfsError as error:
                self._let_cache_rest(error)
                replica = await stack.enter_async_context(self._fetch(transfer, begin, room))
            yield replica

    @contextlib.asynccontextmanager
    async def _fetch(
        self, transfer: Transfer, begin: int, room: memoryview | None, *, is_from_cache: bool = False
    ) -> AsyncIterator[ReplicaDownload]:
        client, target, host = await self._way_to(transfer.turl, is_from_cache=is_from_cache)
        piece = 0 if room is None else min(transfer.size - begin, len(room) - HEAD_BYTES)
        async with client.get(
            target,
            headers={"range": f"bytes={begin}-{transfer.size - 1}"} if begin else {},
            deadline=trio.current_time() + HEAD_SECONDS,
            host=host,
            room=room,
            hoped=piece if piece and transfer.element in self._proven else 1,
        ) as download:
            replica = ReplicaDownload(download, transfer, begin, piece, is_from_cache=is_from_cache)
            yield replica
            await replica.pass_over_padding()

    async def aclose(self) -> None:
        """Close all connections."""
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose()

    async def _way_to(self, turl: str, *, is_from_cache: bool) -> tuple[Client, str, str]:
        """Give whom to ask, for what, and whose host that is."""
        found = _URL.fullmatch(turl)
        place = None if found is None else _place(found[1], found[2])
        if found is None or place is None:
            message = "the hospital names a replica by a URL that is none of HTTP"
            raise MalformedMessageError(message)
        target = (found[3] or "/").partition("#")[0]
        if self._cache is not None and is_from_cache:
            return await self._client(self._cache, None), f"{found[1]}://{found[2]}{target}", found[2]
        context = self._context() if place.is_tls else None
        return await self._client(place.address, context), target, found[2]

    def _is_cached(self, turl: str) -> bool:
        """Ask whether a URL goes through the site's cache now."""
        is_there = self._cache is not None and self._cache_rests_until <= trio.current_time()
        return is_there and turl.startswith(self._cache_of)

    def _let_cache_rest(self, reason: object) -> None:
        log.warning("the site's cache failed: storage elements are asked themselves", reason=str(reason))
        self._proven.clear()
        self._cache_rests_until = trio.current_time() + DISTRUST_SECONDS

    async def _client(self, address: Address, context: ssl.SSLContext | None) -> Client:
        client = self._clients.get((context, address))
        if client is None:
            # those of a credential of before; nobody else may come in between
            stale = [it for it in self._clients if None not in {it[0], context} and it[0] is not context]
            ended = [self._clients.pop(it) for it in stale]
            client = self._clients[context, address] = Client(address, context, expected=None)
            for each in ended:
                await each.aclose()
        return client


class _Place(NamedTuple):
    address: Address
    is_tls: bool


@functools.lru_cache(maxsize=64)
def _place(scheme: str, authority: str) -> _Place | None:
    """Tell where that is; None for what is no host with a port."""
    try:
        parts = urllib.parse.urlsplit(f"{scheme}://{authority}/")
        address = Address(parts.hostname or "", parts.port or (443 if scheme == "https" else 80))
    except ValueError:
        return None
    return _Place(address, scheme == "https") if address.host and parts.netloc == authority else None


class ReplicaDownload:
    """A sealed object on its way from a storage element, held to a pace."""

    def __init__(
        self, download: Download, transfer: Transfer, begin: int, piece: int = 0, *, is_from_cache: bool
    ) -> None:
        """``piece`` is how many bytes are taken in one, if they are."""
        there = begin + download.length
        told = download.headers.get("content-range", "")
        is_right = download.status == (_PARTIAL if begin else _OK) and not download.is_chunked
        if len(transfer.header) != HEADER_SIZE or not transfer.threshold:
            message = "the hospital names a replica without saying what it begins with"
            raise MalformedMessageError(message)
        if not is_right or there < transfer.size or (begin and not told.startswith(f"bytes {begin}-")):
            message = f"storage {transfer.element} answered with other bytes than were asked for"
            raise MalformedMessageError(message)
        self.length, self.begin, self.salt = transfer.size, begin, transfer.header[:SALT_SIZE]
        self.generation, self.threshold = transfer.generation, transfer.threshold
        self.is_from_cache = is_from_cache
        """Whether it was the site's cache that answered."""
        self._download = download
        self._element = transfer.element
        self._left = transfer.size - begin
        self._piece = piece
        self._padding = there - transfer.size
        self._header = transfer.header
        self._head = b""
        """What has come of salt and commitment: with another commitment no set of shares would make the key."""
        self._waited, self._pace = 0.0, 0
        """Seconds that were waited for so many bytes, since the last time it was fast enough."""

    async def receive_into(self, buffer: memoryview) -> int:
        """Fill some of a buffer; raises ``MdmfsError`` where it is cut, too slow, or of another sealing."""
        room = buffer[: self._left]
        if not room:
            return 0
        began = trio.current_time()
        with trio.move_on_at(began + PACE_SECONDS - self._waited) as patience:
            count = await self._download.receive_into(room)
        if patience.cancelled_caught:
            message = f"storage {self._element} is too slow"
            raise PeerTimedOutError(message)
        self._waited += trio.current_time() - began
        self._pace += count
        if self._pace >= PACE_BYTES:
            self._waited, self._pace = 0.0, 0
        self._count(room[:count])
        return count

    async def take_piece(self) -> memoryview:
        """Give what follows in one piece, from where it was received to; empty at the end.

        Raises as ``receive_into``; the piece is good until the next call.
        """
        wanted, have = min(self._left, self._piece), 0
        while have < wanted:
            have = min(wanted, have + PACE_BYTES)
            if have > self._download.gathered:
                with trio.move_on_after(PACE_SECONDS) as patience:
                    await self._download.gather(have)
                if patience.cancelled_caught:
                    message = f"storage {self._element} is too slow"
                    raise PeerTimedOutError(message)
        piece = self._download.take(wanted)
        self._count(piece)
        return piece

    def _count(self, octets: memoryview) -> None:
        if not self.begin and len(self._head) < HEADER_SIZE:
            self._head += bytes(octets[: HEADER_SIZE - len(self._head)])
            if not self._header.startswith(self._head):
                message = f"storage {self._element} has another object under this name"
                raise PeerUnreachableError(message)
        self._left -= len(octets)

    async def pass_over_padding(self) -> None:
        """Take in what fills up an object that was read whole, where that is less than another connection costs.

        That its last reader has left meanwhile does not end it.
        """
        if self._left or not self._padding or self._padding > MAX_PASSED_OVER:
            return
        room = memoryview(bytearray(self._padding))
        moment = trio.CancelScope(deadline=trio.current_time() + PADDING_SECONDS, shield=True)
        with moment, contextlib.suppress(MdmfsError):
            while room and (count := await self._download.receive_into(room)):
                room = room[count:]
