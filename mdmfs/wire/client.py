"""The client of the wire: one peer, one credential, a pool of kept connections; answers are messages or downloads.

Deadlines are absolute times of ``trio.current_time()``, so that one serves several calls. Every error is an
``MdmfsError``; none comes in an ``ExceptionGroup``.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Final, TypeVar

import msgspec
import trio

from mdmfs.model.errors import (
    ConfigurationError,
    CredentialRefusedError,
    MalformedMessageError,
    MdmfsError,
    PeerUnreachableError,
)
from mdmfs.model.identity import Dn, Principal
from mdmfs.pki.proxy import principal_of
from mdmfs.wire.bundle import BUFFER_BYTES, Bundle
from mdmfs.wire.connections import Connection, Connections
from mdmfs.wire.download import Download, late, until
from mdmfs.wire.exchange import Exchange, NoAnswerError, Question
from mdmfs.wire.messages.files import BUNDLE_PATH, STAGED_PATH, AskBundle
from mdmfs.wire.messages.message import MAX_MESSAGE_BYTES, MEDIA_TYPE, Message
from mdmfs.wire.orders import Vouch
from mdmfs.wire.problems import MAX_FAILURE_BYTES, failure_told
from mdmfs.wire.stream import Address

__all__ = ["Address", "Client", "Download"]

T = TypeVar("T", bound=Message)

MAX_CONNECTIONS: Final = 32
REFUSED_WITHIN: Final = 0.75
"""Seconds within which a peer ends the connection of whom it does not let in."""
_BUNDLES: Final = frozenset({BUNDLE_PATH, STAGED_PATH})
_NOT_SUCCESS: Final = 300


class Client:
    """Speaks to one peer with one credential over connections that are kept while they are used.

    At most ``max_connections`` are in use by ``call``, and as many by ``get``.
    """

    def __init__(
        self,
        address: Address,
        context: ssl.SSLContext | Callable[[], ssl.SSLContext] | None,
        *,
        expected: Dn | None,
        judge: Callable[[Sequence[bytes]], Principal] = principal_of,
        max_connections: int = MAX_CONNECTIONS,
        vouch: Vouch | None = None,
    ) -> None:
        """Name the peer by its DN; None is allowed only with a context that checks the host's name, or without one.

        Without a context there is no TLS: that is for bytes which are sealed, and proved by that alone. One that is
        called, in a thread, gives that of the moment; it checks no host's name.

        ``judge`` says whom a verified chain proves; it runs in threads and raises ``CredentialRefusedError``. The
        default asks no signing policy and no revocation list: ``mdmfs.wire.peers`` gives one that does. ``vouch`` signs
        messages, where the peer wants that.
        """
        if isinstance(context, ssl.SSLContext) and expected is None and not context.check_hostname:
            message = f"nothing says who {address} must be: give its DN, or check its host name"
            raise ConfigurationError(message)
        self.address = address
        self.expected = expected
        self._context = context
        self._judge = judge
        self._connections = Connections(address, context, expected, judge)
        self._exchanges = Exchange(address)
        self._vouch = vouch
        self._transfers = trio.Semaphore(max_connections)
        self._calls = trio.Semaphore(max_connections)
        """Apart, so that transfers which wait for a slow PACS hold up no listing and no feed."""
        self.closed = self._connections.closed
        """Calls go on to their end; who waits for long ends his own, and asks over another client."""
        self._told_time: tuple[str, float] | None = None  # a Date, and when it came

    @property
    def skew(self) -> float | None:
        """How far the peer's clock was ahead of ours at its last answer, in seconds, of which it tells whole ones.

        None before an answer, or where it named no Date (RFC 9110 section 6.6.1).
        """
        if self._told_time is None:
            return None
        date, came = self._told_time
        try:
            return parsedate_to_datetime(date).timestamp() - came
        except (OverflowError, TypeError, ValueError):
            return None

    async def call(
        self,
        path: str,
        message: Message,
        reply: type[T],
        *,
        deadline: float,
        is_idempotent: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """POST a message and give the one that answers it; ``deadline`` is for everything.

        A failure that the peer tells of is raised as its class. ``PeerUnreachableError``, ``PeerTimedOutError`` and
        ``CredentialRefusedError`` say that there was none. An idempotent call is sent again over a new connection when
        the first ended without a byte of answer.
        """
        octets = msgspec.msgpack.encode(message)
        vouched = () if self._vouch is None else self._vouch(path, octets).items()
        told = (("content-type", MEDIA_TYPE), *vouched, *(headers or {}).items())
        question = Question("POST", path, told, octets, is_idempotent)
        body = await self._read(question, deadline)
        try:
            return msgspec.msgpack.decode(body, type=reply)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            text = f"{self.address} answered {path} with something that is no {reply.__name__}"
            raise MalformedMessageError(text) from error

    async def ask(self, method: str, path: str, body: bytes = b"", *, deadline: float) -> bytes:
        """Ask for JSON with JSON, as other programs do; gives the body of the answer. Errors are those of ``call``."""
        question = Question(method, path, (("content-type", "application/json"),), body, is_idempotent=True)
        return bytes(await self._read(question, deadline))

    def get(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        deadline: float,
        host: str = "",
        room: memoryview | None = None,
        hoped: int = 1,
    ) -> AbstractAsyncContextManager[Download]:
        """GET something long; ``deadline`` is for the head, after it the body must only not stall.

        With a ``room`` (``HEAD_BYTES`` more than what is gathered of the body) the answer is received there, ``hoped``
        bytes in one go. ``host`` is another one than the peer. Errors are those of ``call``. Leaving the block before
        the body's end closes the connection.
        """
        told = tuple((headers or {}).items())
        return _Asked(
            self, Question("GET", path, told, b"", is_idempotent=True, host=host, room=room, hoped=hoped), deadline
        )

    async def prepare(self, connections: int, *, deadline: float) -> None:
        """Have so many connections, in use or not: so many then ask without shaking hands first. Errors as ``call``."""
        if self._connections.open < connections:
            with until(deadline, self.address):
                self._connections.put_back(await self._connections.connect(), is_reusable=True)

    @contextlib.asynccontextmanager
    async def ask_bundle(
        self,
        asked: AskBundle,
        *,
        path: str = BUNDLE_PATH,
        headers: Mapping[str, str] | None = None,
        deadline: float,
        room: int = BUFFER_BYTES,
    ) -> AsyncIterator[Bundle]:
        """Ask for the sealed objects of several files, which are received into ``room`` bytes.

        Deadline and errors are those of ``get``.
        """
        told = (("content-type", MEDIA_TYPE), *(headers or {}).items())
        question = Question("POST", path, told, msgspec.msgpack.encode(asked), is_idempotent=True)
        async with _Asked(self, question, deadline) as download:
            yield Bundle(download, len(asked.guids), room)

    def again(self) -> Client:
        """Make another client of this peer, with this credential and connections of its own."""
        return Client(self.address, self._context, expected=self.expected, judge=self._judge, vouch=self._vouch)

    async def aclose(self) -> None:
        """Close the idle connections now, and those in use when their call ends."""
        self._connections.close()
        await trio.lowlevel.checkpoint()

    async def _read(self, question: Question, deadline: float) -> bytearray:
        """Ask, and read the whole answer: what nearly every question is, so without a context for each step."""
        places = self._places_of(question)
        with trio.move_on_at(deadline):
            await _take_place(places)
            try:
                connection, download = await self._ask(question)
                try:
                    body = await download.read(_limit_of(download))
                finally:
                    self._connections.put_back(connection, is_reusable=download.is_reusable)
            finally:
                places.release()
            if download.status >= _NOT_SUCCESS:
                raise failure_told(download.status, bytes(body), self.address)
            return body
        raise late(self.address)

    async def _begin(self, question: Question, deadline: float) -> tuple[Connection, Download]:
        """Ask, and give what is answered: its connection goes back with ``_end``."""
        places = self._places_of(question)
        with trio.move_on_at(deadline):
            await _take_place(places)
            try:
                connection, download = await self._ask(question)
            except BaseException:
                places.release()
                raise
            if download.status < _NOT_SUCCESS:
                return connection, download
            try:
                failure = failure_told(download.status, bytes(await download.read(_limit_of(download))), self.address)
            except BaseException as error:
                self._end(question, connection, download, error)
                raise
            self._end(question, connection, download, failure)
            raise failure
        raise late(self.address)

    def _end(self, question: Question, connection: Connection, download: Download, error: BaseException | None) -> None:
        is_known = error is None or isinstance(error, MdmfsError)
        self._connections.put_back(connection, is_reusable=is_known and download.is_reusable)
        self._places_of(question).release()

    def _places_of(self, question: Question) -> trio.Semaphore:
        is_transfer = question.method == "GET" or question.path in _BUNDLES
        return self._transfers if is_transfer else self._calls

    async def _ask(self, question: Question) -> tuple[Connection, Download]:
        """Send a request over an idle connection, else over a new one, and wait for the head of the answer.

        A peer that ends two new connections without a word refuses the caller: that is how TLS 1.3 shows it where the
        alert was lost. (A peer that has died accepts no second one.) It does so at once: a long question whose
        connections are reset, one after the other, has met an outage.
        """
        connection = self._connections.take_idle()
        if connection is not None:
            try:
                return await self._exchange(connection, question)
            except NoAnswerError as error:
                self._refuse_to_repeat(question, error)
        try:
            return await self._exchange(await self._connections.connect(), question)
        except NoAnswerError as error:
            self._refuse_to_repeat(question, error)
        connection = await self._connections.connect()
        begun = trio.current_time()
        try:
            return await self._exchange(connection, question)
        except NoAnswerError as error:
            cause = error.__cause__
            if trio.current_time() - begun > REFUSED_WITHIN:
                message = f"{self.address} broke the connection off"
                raise PeerUnreachableError(message) from error
            if isinstance(cause, OSError) and not isinstance(cause, ConnectionError | ssl.SSLError):
                message = f"{self.address} is not heard of any more: {cause.strerror}"
                raise PeerUnreachableError(message) from error
            message = f"{self.address} closes every connection without a word: it does not accept this certificate"
            raise CredentialRefusedError(message) from error

    def _refuse_to_repeat(self, question: Question, error: NoAnswerError) -> None:
        if not question.is_idempotent:
            message = f"{self.address} closed the connection before it answered {question.path}"
            raise PeerUnreachableError(message) from error

    async def _exchange(self, connection: Connection, question: Question) -> tuple[Connection, Download]:
        try:
            download = await self._exchanges.ask(connection.stream, question)
        except BaseException:
            self._connections.abort(connection)
            raise
        connection.is_new = False
        if "date" in download.headers:
            self._told_time = download.headers["date"], time.time()
        return connection, download


class _Asked:
    """A question whose answer is taken piece by piece, in a block."""

    def __init__(self, client: Client, question: Question, deadline: float) -> None:
        self._client = client
        self._question = question
        self._deadline = deadline
        self._asked: tuple[Connection, Download]

    async def __aenter__(self) -> Download:
        self._asked = await self._client._begin(self._question, self._deadline)  # noqa: SLF001 a part of it
        return self._asked[1]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client._end(self._question, *self._asked, error)  # noqa: SLF001 a part of it


def _limit_of(download: Download) -> int:
    return MAX_MESSAGE_BYTES if download.status < _NOT_SUCCESS else MAX_FAILURE_BYTES


async def _take_place(places: trio.Semaphore) -> None:
    """Take a place, at once where there is one: each step of the loop before a question leaves delays its answer."""
    try:
        places.acquire_nowait()
    except trio.WouldBlock:
        await places.acquire()
