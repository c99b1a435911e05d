"""Storage elements as a worker reaches them, and the site's cache before them: one GET, held to a pace and a header.

Nothing is believed of any of them: what they give is a sealed object or does not open.
"""

from __future__ import annotations

import contextlib
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import structlog
import trio

from mdmfs.model.errors import MalformedMessageError, MdmfsError, PeerTimedOutError, PeerUnreachableError
from mdmfs.sealing.layout import HEADER_SIZE, SALT_SIZE
from mdmfs.wire.client import Client, Download
from mdmfs.wire.messages.files import Transfer
from mdmfs.wire.stream import Address

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
_OK, _PARTIAL = 200, 206

log = structlog.get_logger(__name__)


class Storage:
    """Connections to storage elements, kept while they are used, and which of them failed lately."""

    def __init__(
        self, context: Callable[[], ssl.SSLContext], cache: Address | None = None, cache_of: Sequence[str] = ()
    ) -> None:
        """``context`` is asked for HTTPS only.

        With a ``cache``, an HTTP proxy, what needs no TLS goes through it, and URLs that begin as one of ``cache_of``.
        """
        self._context = context
        self._cache = cache
        self._cache_of = ("http://", *cache_of)
        self._cache_rests_until = float("-inf")
        self._clients: dict[tuple[ssl.SSLContext | None, Address], Client] = {}
        self._distrusted: dict[str, float] = {}
        """Until when, by the hospital's name of the storage element."""

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
        self._distrusted[transfer.element] = trio.current_time() + DISTRUST_SECONDS

    @contextlib.asynccontextmanager
    async def fetch(self, transfer: Transfer, begin: int) -> AsyncIterator[ReplicaDownload]:
        """GET what follows ``begin``; raises ``MdmfsError`` also for an answer of other bytes than were asked for.

        Where the site's cache does not begin to answer, the storage element is asked itself.
        """
        async with contextlib.AsyncExitStack() as stack:
            replica: ReplicaDownload | None = None
            if self._is_cached(transfer.turl):
                try:
                    replica = await stack.enter_async_context(self._fetch(transfer, begin, is_from_cache=True))
                except MdmfsError as error:
                    self._let_cache_rest(error)
            if replica is None:
                replica = await stack.enter_async_context(self._fetch(transfer, begin, is_from_cache=False))
            yield replica

    @contextlib.asynccontextmanager
    async def _fetch(self, transfer: Transfer, begin: int, *, is_from_cache: bool) -> AsyncIterator[ReplicaDownload]:
        client, target, host = await self._way_to(transfer.turl, is_from_cache=is_from_cache)
        headers = {"host": host}
        if begin:
            headers["range"] = f"bytes={begin}-{transfer.size - 1}"
        async with client.get(target, headers=headers, deadline=trio.current_time() + HEAD_SECONDS) as download:
            replica = ReplicaDownload(download, transfer, begin, is_from_cache=is_from_cache)
            yield replica
            await replica.pass_over_padding()

    async def aclose(self) -> None:
        """Close all connections."""
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose()

    async def _way_to(self, turl: str, *, is_from_cache: bool) -> tuple[Client, str, str]:
        """Give whom to ask, for what, and whose host that is."""
        parts = urllib.parse.urlsplit(turl)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            message = "the hospital names a replica by a URL that is none of HTTP"
            raise MalformedMessageError(message)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if self._cache is not None and is_from_cache:
            return await self._client(self._cache, None), f"{parts.scheme}://{parts.netloc}{target}", parts.netloc
        is_tls = parts.scheme == "https"
        address = Address(parts.hostname, parts.port or (443 if is_tls else 80))
        return await self._client(address, self._context() if is_tls else None), target, parts.netloc

    def _is_cached(self, turl: str) -> bool:
        """Ask whether a URL goes through the site's cache now."""
        is_there = self._cache is not None and self._cache_rests_until <= trio.current_time()
        return is_there and turl.startswith(self._cache_of)

    def _let_cache_rest(self, reason: object) -> None:
        log.warning("the site's cache failed: storage elements are asked themselves", reason=str(reason))
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


class ReplicaDownload:
    """A sealed object on its way from a storage element, held to a pace."""

    def __init__(self, download: Download, transfer: Transfer, begin: int, *, is_from_cache: bool) -> None:
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
        with trio.move_on_after(PACE_SECONDS - self._waited) as patience:
            count = await self._download.receive_into(room)
        if patience.cancelled_caught:
            message = f"storage {self._element} is too slow"
            raise PeerTimedOutError(message)
        self._waited += trio.current_time() - began
        self._pace += count
        if self._pace >= PACE_BYTES:
            self._waited, self._pace = 0.0, 0
        if not self.begin and len(self._head) < HEADER_SIZE:
            self._head += bytes(room[: min(count, HEADER_SIZE - len(self._head))])
            if not self._header.startswith(self._head):
                message = f"storage {self._element} has another object under this name"
                raise PeerUnreachableError(message)
        self._left -= count
        return count

    async def pass_over_padding(self) -> None:
        """Take in what fills up an object that was read whole, where that is less than another connection costs.

        That its last reader has left meanwhile does not end it.
        """
        if self._left or self._padding > MAX_PASSED_OVER:
            return
        room = memoryview(bytearray(self._padding))
        moment = trio.CancelScope(deadline=trio.current_time() + PADDING_SECONDS, shield=True)
        with moment, contextlib.suppress(MdmfsError):
            while room and (count := await self._download.receive_into(room)):
                room = room[count:]
