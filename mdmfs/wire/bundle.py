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
from mdmfs.wire.messages.files import SealedBeginning
from mdmfs.wire.messages.message import Failure, Message

BUFFER_BYTES: Final = 2**20
"""What is received at once, and the longest piece, unless there is less room."""
MAX_MESSAGE: Final = 64 * 2**10
MAX_CRUMBS: Final = 1024
"""Of chunks and frames, and one more for each KiB that they brought: to read one takes as long as to decrypt 64 KiB."""
_HEAD: Final = struct.Struct(">BHI")
_BEGINNING, _OCTETS, _FAILED, _END = 1, 2, 3, 4
_LINE_END: Final = b"\r\n"
_BODY_END: Final = b"\r\n0\r\n\r\n"
"""What follows the last byte of a chunked body: the end of its last line, and an empty chunk."""
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


class _LackError(Exception):
    """So many bytes that were not understood yet are too few."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.wanted = wanted


class Bundle:
    """Reads a bundle of some files as it arrives, in a buffer of its own, which the pieces are views of.

    It waits in ``next`` alone. All else works on what is here, and where that is too little, says how much must be.
    """

    def __init__(self, download: Download, files: int, room: int = BUFFER_BYTES) -> None:
        """Take over the body of an answer about that many files, with a buffer of ``room`` bytes.

        Raises ``MalformedMessageError`` for another body.
        """
        if not download.is_chunked:
            raise MalformedMessageError(_NO_BUNDLE)
        self._download = download
        self._longest = room - _MAX_LINE
        self._octets = bytearray(room)
        self._buffer = memoryview(self._octets)
        self._at = self._end = 0
        """What was received and not understood yet."""
        self._chunk = 0
        """Bytes left of the chunk that ``_at`` stands in."""
        self._is_behind_chunk = False
        """Whether a chunk has been read whose line has not ended yet."""
        self._frame = bytearray()
        """What was understood of a frame that is not here whole."""
        self._left: list[int | None] = [None] * files
        """For each file how many octets are to come; None before its beginning and after its failure."""
        self._failed: set[int] = set()
        """Places of which nothing more may be said: or a peer could begin and fail without end."""
        self._crumbs = self._brought = 0
        """Chunks and frames so far, and octets of files."""
        self._place = self._piece_left = 0
        """The file whose octets are being read, and how many of the frame are left."""

    async def next(self) -> tuple[int, Event] | None:
        """Wait for what is said next: the place of a file, and what of it; None at the end.

        Raises ``PeerUnreachableError`` and ``PeerTimedOutError`` where the answer is cut or stalls, and
        ``MalformedMessageError`` for what is no bundle.
        """
        while True:
            try:
                return self._understand()
            except _LackError as lack:
                wanted = lack.wanted
            await self._receive(wanted)

    async def _receive(self, wanted: int) -> None:
        """Have that many bytes in one piece."""
        if self._at == self._end:
            self._at = self._end = 0
        elif len(self._buffer) - self._at < wanted:
            rest = self._end - self._at
            self._buffer[:rest] = self._buffer[self._at : self._end]
            self._at, self._end = 0, rest
        while self._end - self._at < wanted:
            lacking = wanted - (self._end - self._at)
            self._end += await self._download.receive_raw(self._buffer[self._end :], lacking)

    def _understand(self) -> tuple[int, Event] | None:
        if not self._piece_left:
            self._gather(_HEAD.size)
            kind, place, length = _HEAD.unpack_from(self._frame)
            if kind == _END:
                self._finish()
                return None
            if place >= len(self._left) or not length or (kind != _OCTETS and length > MAX_MESSAGE):
                message = "the peer sent a frame of a bundle that nobody asked for"
                raise MalformedMessageError(message)
            if kind != _OCTETS:
                self._gather(_HEAD.size + length)
                octets = bytes(self._frame[_HEAD.size :])
                self._frame.clear()
                return place, self._told(kind, place, octets)
            self._frame.clear()
            self._begin_octets(place, length)
        return self._place, self._piece()

    def _begin_octets(self, place: int, length: int) -> None:
        left = self._left[place]
        if left is None or length > left:
            message = "the peer sent more octets than were announced"
            raise MalformedMessageError(message)
        self._refuse_crumbs()
        self._left[place] = left - length
        self._place, self._piece_left = place, length

    def _told(self, kind: int, place: int, octets: bytes) -> Event:
        try:
            if place in self._failed:
                message = "the peer goes on about a file that has failed"
                raise MalformedMessageError(message)
            if kind == _BEGINNING and self._left[place] is None:
                sealed = msgspec.msgpack.decode(octets, type=SealedBeginning)
                self._left[place] = sealed.size
                return sealed
            if kind == _FAILED:
                self._left[place] = None
                self._failed.add(place)
                return msgspec.msgpack.decode(octets, type=Failure).error()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            message = "a frame of a bundle holds no message"
            raise MalformedMessageError(message) from error
        message = "the peer sent a frame of a bundle of an unknown kind, or a second beginning"
        raise MalformedMessageError(message)

    def _piece(self) -> Piece:
        """Take what is here of the octets of a frame: all that the chunk has of them, as far as the buffer holds it."""
        self._enter_chunk()
        most = min(self._piece_left, self._chunk)
        octets = self._take(most, at_least=min(most, self._longest))
        self._piece_left -= len(octets)
        self._brought += len(octets)
        return Piece(octets)

    def _refuse_crumbs(self) -> None:
        self._crumbs += 1
        if self._crumbs > MAX_CRUMBS + self._brought // 1024:
            message = "the peer sends a bundle in crumbs"
            raise MalformedMessageError(message)

    def _gather(self, length: int) -> None:
        """Have that many bytes of a frame, which chunks may divide anywhere."""
        while len(self._frame) < length:
            self._enter_chunk()
            self._frame += self._take(min(length - len(self._frame), self._chunk), at_least=1)

    def _take(self, most: int, *, at_least: int) -> memoryview:
        """Take up to so many bytes of this chunk."""
        if self._end - self._at < at_least:
            raise _LackError(at_least)
        taken = self._buffer[self._at : min(self._at + most, self._end)]
        self._at += len(taken)
        self._chunk -= len(taken)
        return taken

    def _enter_chunk(self) -> None:
        """Read what stands before a chunk, unless it is inside of one."""
        if self._chunk:
            return
        if self._is_behind_chunk:
            if self._line():
                message = "the peer sent a chunk that is longer than it was announced"
                raise MalformedMessageError(message)
            self._is_behind_chunk = False
        size = self._line()
        if not _SIZE.fullmatch(size):
            message = "the peer sent a chunk of no size"
            raise MalformedMessageError(message)
        self._chunk = int(size, 16)
        self._is_behind_chunk = True
        self._refuse_crumbs()
        if not self._chunk:
            message = "the peer ended a bundle before its end"
            raise PeerUnreachableError(message)

    def _line(self) -> bytes:
        """Take a line, without its end."""
        stop = self._octets.find(_LINE_END, self._at, min(self._end, self._at + _MAX_LINE))
        if stop < 0:
            if self._end - self._at >= _MAX_LINE:
                message = "the peer sent a line of a bundle that does not end"
                raise MalformedMessageError(message)
            raise _LackError(self._end - self._at + 1)
        line = bytes(self._buffer[self._at : stop])
        self._at = stop + len(_LINE_END)
        return line

    def _finish(self) -> None:
        """Read the end of the body: then the connection serves again."""
        if not self._chunk and self._end - self._at < len(_BODY_END):
            raise _LackError(len(_BODY_END))
        if self._chunk or self._octets[self._at : self._end] != _BODY_END:
            message = "the peer sent something behind the end of a bundle"
            raise MalformedMessageError(message)
        self._download.finish()
