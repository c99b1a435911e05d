"""A bundle: many sealed objects in one answer, each as soon as it is there, so that a series costs one question.

The answer to ``AskBundle`` is a chunked body (RFC 9112 section 7.1) of frames, whose edges need not be those of chunks:

| bytes | |
|---|---|
| 1 | kind: 1 beginning, 2 octets, 3 failed, 4 end |
| 2 | place of the file in the question, big-endian; 0 for the end |
| 4 | length of what follows, big-endian |

A beginning is a ``SealedBeginning``, a failure a ``Failure``, both in MessagePack. The octets of a file follow its
beginning, in order, in as many frames as there may be, and another file's may lie between them. A file that fails has
no more octets, and what came of it counts for nothing. An answer without its end was cut.
"""

from __future__ import annotations

import re
import struct
from typing import Final, NamedTuple

import msgspec

from mdmfs.model.errors import MalformedMessageError, MdmfsError, PeerUnreachableError
from mdmfs.wire.download import Download
from mdmfs.wire.messages.base import Failure, Message
from mdmfs.wire.messages.files import SealedBeginning

BUFFER_BYTES: Final = 2**20
"""What is received at once, and the longest piece."""
MAX_MESSAGE: Final = 64 * 2**10
_HEAD: Final = struct.Struct(">BHI")
_BEGINNING, _OCTETS, _FAILED, _END = 1, 2, 3, 4
_LINE_END: Final = b"\r\n"
_MAX_LINE: Final = 32
_SIZE: Final = re.compile(rb"[0-9a-fA-F]{1,8}")
_NO_BUNDLE: Final = "the peer answered with no bundle"


class Piece(NamedTuple):
    """Some octets of a sealed object; they are valid until the next step."""

    octets: memoryview


Event = SealedBeginning | Piece | MdmfsError
"""What is said of one file: that it begins, some of it, or why there is no more."""


def beginning(place: int, sealed: SealedBeginning) -> bytes:
    """Write the frame that begins a file."""
    return _message(_BEGINNING, place, sealed)


def octets_head(place: int, length: int) -> bytes:
    """Write what stands before that many octets of a file."""
    return _HEAD.pack(_OCTETS, place, length)


def failed(place: int, error: MdmfsError) -> bytes:
    """Write the frame that ends a file of which no more comes."""
    return _message(_FAILED, place, Failure.of(error))


def end() -> bytes:
    """Write the frame that ends the bundle."""
    return _HEAD.pack(_END, 0, 0)


def _message(kind: int, place: int, message: Message) -> bytes:
    octets = msgspec.msgpack.encode(message)
    return _HEAD.pack(kind, place, len(octets)) + octets


class Bundle:
    """Reads a bundle of some files as it arrives, in a buffer of its own, which the pieces are views of."""

    def __init__(self, download: Download, files: int) -> None:
        """Take over the body of an answer about that many files; raises ``MalformedMessageError`` for another."""
        if not download.is_chunked:
            raise MalformedMessageError(_NO_BUNDLE)
        self._download = download
        self._buffer = memoryview(bytearray(BUFFER_BYTES + _MAX_LINE))
        self._at = self._end = 0
        """What was received and not understood yet."""
        self._chunk = 0
        """Bytes left of the chunk that ``_at`` stands in."""
        self._is_first_chunk = True
        self._left: list[int | None] = [None] * files
        """For each file how many octets are to come; None before its beginning and after its failure."""
        self._place = self._octets = 0
        """The file whose octets are being read, and how many of the frame are left."""

    async def next(self) -> tuple[int, Event] | None:
        """Wait for what is said next: the place of a file, and what of it; None at the end.

        Raises ``PeerUnreachableError`` and ``PeerTimedOutError`` where the answer is cut or stalls, and
        ``MalformedMessageError`` for what is no bundle.
        """
        if self._octets:
            return self._place, await self._piece()
        kind, place, length = _HEAD.unpack(await self._exactly(_HEAD.size))
        if kind == _END:
            await self._finish()
            return None
        if place >= len(self._left) or not length or (kind != _OCTETS and length > MAX_MESSAGE):
            message = "the peer sent a frame of a bundle that nobody asked for"
            raise MalformedMessageError(message)
        if kind == _OCTETS:
            self._begin_octets(place, length)
            return place, await self._piece()
        return place, self._understood(kind, place, await self._exactly(length))

    def _begin_octets(self, place: int, length: int) -> None:
        left = self._left[place]
        if left is None or length > left:
            message = "the peer sent more octets than were announced"
            raise MalformedMessageError(message)
        self._left[place] = left - length
        self._place, self._octets = place, length

    def _understood(self, kind: int, place: int, octets: bytes) -> Event:
        try:
            if kind == _BEGINNING and self._left[place] is None:
                sealed = msgspec.msgpack.decode(octets, type=SealedBeginning)
                self._left[place] = sealed.size
                return sealed
            if kind == _FAILED:
                self._left[place] = None
                return msgspec.msgpack.decode(octets, type=Failure).error()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            message = "a frame of a bundle holds no message"
            raise MalformedMessageError(message) from error
        message = "the peer sent a frame of a bundle of an unknown kind, or a second beginning"
        raise MalformedMessageError(message)

    async def _piece(self) -> Piece:
        octets = await self._some(self._octets, at_least=min(self._octets, BUFFER_BYTES))
        self._octets -= len(octets)
        return Piece(octets)

    async def _exactly(self, length: int) -> bytes:
        parts = bytearray()
        while len(parts) < length:
            parts += await self._some(length - len(parts), at_least=1)
        return bytes(parts)

    async def _some(self, length: int, *, at_least: int) -> memoryview:
        """Take up to that many bytes of this chunk, and wait until as many as wanted are here, or all of it."""
        if not self._chunk:
            await self._enter_chunk()
        wanted = min(length, self._chunk)
        await self._buffered(min(wanted, at_least))
        taken = self._buffer[self._at : min(self._at + wanted, self._end)]
        self._at += len(taken)
        self._chunk -= len(taken)
        return taken

    async def _enter_chunk(self) -> None:
        if await self._chunk_size() == 0:
            message = "the peer ended a bundle before its end"
            raise PeerUnreachableError(message)

    async def _chunk_size(self) -> int:
        """Read the line before a chunk, and the end of the line that closes the one before."""
        if not self._is_first_chunk and bytes(await self._line()):
            message = "the peer sent a chunk that is longer than it was announced"
            raise MalformedMessageError(message)
        self._is_first_chunk = False
        size = bytes(await self._line())
        if not _SIZE.fullmatch(size):
            message = "the peer sent a chunk of no size"
            raise MalformedMessageError(message)
        self._chunk = int(size, 16)
        return self._chunk

    async def _line(self) -> memoryview:
        """Take a line, without its end."""
        length = 2
        while True:
            await self._buffered(length)
            stop = self._at + length
            if bytes(self._buffer[stop - 2 : stop]) == _LINE_END:
                line = self._buffer[self._at : stop - 2]
                self._at = stop
                return line
            length += 1
            if length > _MAX_LINE:
                message = "the peer sent a line of a bundle that does not end"
                raise MalformedMessageError(message)

    async def _finish(self) -> None:
        """Read the last chunk, which is empty: then the connection serves again."""
        if self._chunk or await self._chunk_size() or bytes(await self._line()) or self._at != self._end:
            message = "the peer sent something behind the end of a bundle"
            raise MalformedMessageError(message)
        self._download.finish()

    async def _buffered(self, length: int) -> None:
        """Have that many bytes in one piece."""
        while self._end - self._at < length:
            if self._at == self._end:
                self._at = self._end = 0
            elif len(self._buffer) - self._at < length:
                rest = self._end - self._at
                self._buffer[:rest] = self._buffer[self._at : self._end]
                self._at, self._end = 0, rest
            self._end += await self._download.receive_raw(self._buffer[self._end :])
