"""An answer whose body is taken piece by piece; one cut short is an error, never an end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Final

import trio

from mdmfs.model.errors import MalformedMessageError, PeerTimedOutError, PeerUnreachableError
from mdmfs.wire.messages.message import MAX_MESSAGE_BYTES
from mdmfs.wire.stream import Address, Stream

STALL_SECONDS: Final = 60.0
"""How long a body may bring nothing at all."""
HOPE_SECONDS: Final = 1.0
"""How long it waits for as many bytes as are hoped for, before it takes what there is."""
_NOTHING: Final = memoryview(b"")
_NO_LENGTH: Final = "an answer without Content-Length cannot be told from one cut short"


class Download:
    """An answer whose body is taken piece by piece, straight into the caller's memory."""

    def __init__(
        self,
        stream: Stream,
        status: int,
        headers: Mapping[str, str],
        beginning: bytes | memoryview,
        peer: Address,
        room: memoryview = _NOTHING,
    ) -> None:
        """``beginning`` is what has come of the body already; of one that is gathered it lies where ``room`` begins."""
        self.status = status
        self.headers = headers
        self.is_chunked = headers.get("transfer-encoding") == "chunked" and "content-length" not in headers
        """Whether the body says itself where it ends: it is taken by ``receive_raw``, until ``finish``."""
        self.length = 0 if self.is_chunked else _length_of(self.headers)
        """Of the whole body, in bytes."""
        self.etag = self.headers.get("etag", "").strip('"')
        self._stream = stream
        self._beginning = memoryview(beginning)
        self._room = room
        self._at = 0
        """Where in the room the beginning lies."""
        self._left = self.length
        self._peer = peer
        self._is_finished = False
        if len(beginning) > self.length and not self.is_chunked:
            message = f"{peer} sent more than the {self.length} bytes it announced"
            raise MalformedMessageError(message)

    async def receive_into(self, buffer: memoryview) -> int:
        """Fill some of a buffer (not empty) and give the number of bytes; 0 at the true end only.

        A body that is cut short raises ``PeerUnreachableError``, one that brings nothing for a minute
        ``PeerTimedOutError``; then nothing more comes.
        """
        if self.is_chunked:
            raise MalformedMessageError(_NO_LENGTH)
        room = buffer.cast("B")[: self._left]
        if self._beginning:
            count = min(len(room), len(self._beginning))
            room[:count] = self._beginning[:count]
            self._beginning = self._beginning[count:]
            self._at += count
        elif self._left:
            count = await self._receive_into(room)
        else:
            return 0
        self._left -= count
        return count

    async def gather(self, count: int) -> None:
        """Have so many of the next bytes in one piece, for ``take``; no more than are left, or than the room has.

        Raises as ``receive_into``.
        """
        if self.is_chunked:
            raise MalformedMessageError(_NO_LENGTH)
        have = len(self._beginning)
        if have >= count:
            return
        if self._at + count > len(self._room):
            self._room[:have] = self._beginning
            self._at = 0
        body = self._room[self._at : self._at + self._left]
        while have < count:
            have += await self._receive_into(body[have:], count - have)
        self._beginning = body[:have]

    @property
    def gathered(self) -> int:
        """How many bytes of it are here and were not taken."""
        return len(self._beginning)

    def take(self, count: int) -> memoryview:
        """Give so many bytes that were gathered: good until the next call of any method."""
        taken, self._beginning = self._beginning[:count], self._beginning[count:]
        self._at += count
        self._left -= count
        return taken

    async def receive_raw(self, buffer: memoryview, hoped: int = 1) -> int:
        """Receive some of a chunked body as it stands on the wire; raises as ``receive_into``, also at its end.

        If that is soon, it waits until as many bytes as are hoped for are there, which must not be more than will come.
        """
        if self._beginning:
            count = min(len(buffer), len(self._beginning))
            buffer[:count] = self._beginning[:count]
            self._beginning = self._beginning[count:]
            return count
        return await self._receive_into(buffer, hoped)

    def finish(self) -> None:
        """Say that a chunked body was taken to its end."""
        self._is_finished = True

    async def _receive_into(self, room: memoryview, hoped: int = 1) -> int:
        broken: OSError | None = None
        with trio.move_on_after(HOPE_SECONDS if hoped > 1 else STALL_SECONDS) as scope:
            try:
                count = await self._stream.receive_into(room, hoped)
            except OSError as error:
                count, broken = 0, error
        if scope.cancelled_caught and hoped > 1:
            return await self._receive_into(room)
        if scope.cancelled_caught:
            raise late(self._peer)
        if not count:
            cut = f"{self._peer} ended an answer {f'{self._left} bytes ' if self._left else ''}before its end"
            raise PeerUnreachableError(cut) from broken
        return count

    async def read(self, limit: int = MAX_MESSAGE_BYTES) -> bytearray:
        """Take the whole body; raises ``MalformedMessageError`` where it has more than ``limit`` bytes."""
        if self.is_chunked:
            raise MalformedMessageError(_NO_LENGTH)
        if self.length > limit:
            message = f"{self._peer} answered with {self.length} bytes where at most {limit} are taken"
            raise MalformedMessageError(message)
        if len(self._beginning) == self._left:
            body, self._beginning, self._left = bytearray(self._beginning), _NOTHING, 0
            return body
        body = bytearray(self._left)
        view = memoryview(body)
        while view:
            view = view[await self.receive_into(view) :]
        return body

    @property
    def is_reusable(self) -> bool:
        """Whether the connection can serve another request: this answer was taken to its end."""
        return (
            not self._left
            and self._is_finished == self.is_chunked
            and self.headers.get("connection", "").lower() != "close"
        )


@contextlib.contextmanager
def until(deadline: float, peer: Address) -> Iterator[None]:
    """Raise ``PeerTimedOutError`` when the block has not ended by a time of ``trio.current_time()``."""
    with trio.move_on_at(deadline) as scope:
        yield
    if scope.cancelled_caught:
        raise late(peer)


def late(peer: Address) -> PeerTimedOutError:
    """Make the error of a peer that did not answer."""
    return PeerTimedOutError(f"{peer} did not answer in time")


def _length_of(headers: Mapping[str, str]) -> int:
    length = headers.get("content-length")
    if length is None or "transfer-encoding" in headers:
        raise MalformedMessageError(_NO_LENGTH)
    return int(length)
