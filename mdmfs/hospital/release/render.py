"""Render: an instance as it arrives to the plaintext that may be published, segment by segment, in constant memory.

Registration and recall both go this way, so what was measured at registration is what is released.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import mmap
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, NamedTuple, TypeVar

import trio

from mdmfs.hospital.catalogue.records import Rendition
from mdmfs.hospital.deid.deidentify import ENGINE_GENERATION, Deidentification, deidentify
from mdmfs.hospital.deid.header import IdentifiedHeader, IncomingHeader
from mdmfs.hospital.deid.policy import Policy
from mdmfs.hospital.deid.pseudonyms import Subject
from mdmfs.hospital.deid.residue import Publishable, ResidueGate
from mdmfs.hospital.deid.walk import Memory
from mdmfs.hospital.dicom.pacs import IncomingInstance
from mdmfs.hospital.kept.headers import Beginning
from mdmfs.hospital.kept.known import KnownHeader, Origin, origin_of
from mdmfs.model.errors import InstanceChangedError
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import SEGMENT_SIZE, Buffer

T = TypeVar("T")

LARGE_HEADER_BYTES: Final = 256 * 2**10
"""From here on de-identification takes so long that it must not hold up everyone else."""
LARGE_SEARCH_BYTES: Final = 64 * 2**10
"""The same of the search for residue in what comes out."""
_LARGE: Final = trio.CapacityLimiter(1)
MAX_SPARE: Final = 4
_SPARE: Final[list[memoryview]] = []
"""Buffers of a segment that serve again: fresh ones would be cleared by the kernel page by page each time."""


class Admission(NamedTuple):
    """What an identified header is admitted under."""

    policy: Policy
    subject: Subject


Admit = Callable[[IdentifiedHeader], Awaitable[Admission]]
"""Decides by the header whose image this is; raises ``RefusedError`` for one that may not go on."""


class Rendering:
    """One instance on its way; ``segments`` gives its plaintext in pieces of 4 MiB, the last one short.

    Every segment consists of ``Publishable`` pieces only, or, with a known header, of what was published before if its
    digest says so (``Verification``).
    """

    def __init__(
        self,
        incoming: IncomingInstance,
        admit: Admit,
        known: KnownHeader | None = None,
        *,
        memory: Memory | None = None,
    ) -> None:
        """Begin with an instance of which nothing has been read; one that begins with a known header needs no engine.

        Whoever gives a known header compares each segment with what was registered before it goes on. ``memory`` is of
        the series, and spares the engine what it did for the instance before.
        """
        self._incoming = incoming
        self._admit = admit
        self._known = known
        self._memory = memory
        self._begun: tuple[IdentifiedHeader, Policy] | None = None
        self._received = 0
        self._is_large_search = False
        self._deidentification: Deidentification | None = None
        self.published_header = b""
        """All before the value of Pixel Data, once it may be published."""

    @property
    def deidentification(self) -> Deidentification:
        """What is made of the instance; asked for before the first segment is out, that is a mistake."""
        if self._deidentification is None:
            message = "the header has not been read yet"
            raise RuntimeError(message)
        return self._deidentification

    def origin(self, claim: bytes, size: int) -> Origin | None:
        """Give by what the header is known when it arrives again; asked for at the end, when the ``size`` is known."""
        if self._begun is None:
            return None
        header, policy = self._begun
        published = size - self.deidentification.header_length
        return origin_of(header, policy, claim, self._received - len(header.whole), published)

    async def segments(self) -> AsyncGenerator[memoryview]:
        """Give the plaintext; a segment is valid until the next step.

        Raises ``RefusedError`` and what the PACS raises.
        """
        room, filled = _SPARE.pop() if _SPARE else _room(), 0
        try:
            async with contextlib.aclosing(self._batches()) as batches:
                async for pieces in batches:
                    for piece in pieces:
                        octets = memoryview(piece)
                        while octets:
                            taken = octets[: SEGMENT_SIZE - filled]
                            room[filled : filled + len(taken)] = taken
                            filled += len(taken)
                            octets = octets[len(taken) :]
                            if filled == SEGMENT_SIZE:
                                yield room
                                filled = 0
            if filled:
                yield room[:filled]
        finally:
            if len(_SPARE) < MAX_SPARE:
                _SPARE.append(room)

    async def _batches(self) -> AsyncGenerator[list[Buffer]]:
        """Give what may be published, as it comes."""
        incoming, known = self._incoming, self._known
        reading = IncomingHeader(incoming.transfer_syntax, incoming.class_uid, incoming.instance_uid)
        gate: ResidueGate | None = None
        async for octets in incoming:
            piece: Buffer = octets
            if known is not None:
                pieces = known.feed(octets)
                if not known.is_other:
                    yield pieces
                    continue
                piece, known = known.begun, None
            self._received += len(piece)
            if gate is not None:
                yield _octets_of(await _done(functools.partial(gate.feed, piece), is_slow=gate.is_slow))
            elif (header := reading.feed(piece)) is not None:
                gate = await self._begin(header)
                search = functools.partial(gate.feed, b"")
                yield self._heading(_octets_of(await _done(search, is_slow=self._is_large_search or gate.is_slow)))
        if known is not None:
            if known.has_matched:
                return
            header = reading.feed(known.begun)
            gate = None if header is None else await self._begin(header)
        if gate is None:
            gate = await self._begin(reading.finish())
            yield self._heading(_octets_of(await _done(gate.finish, is_slow=self._is_large_search)))
        else:
            yield _octets_of(await _done(gate.finish, is_slow=self._is_large_search))

    def _heading(self, pieces: list[Buffer]) -> list[Buffer]:
        """Remember the header among the first pieces."""
        self.published_header = bytes(pieces[0]) if pieces else b""
        return pieces

    async def _begin(self, header: IdentifiedHeader) -> ResidueGate:
        policy, subject = await self._admit(header)
        self._begun = header, policy
        work = functools.partial(deidentify, header, policy, subject, memory=self._memory)
        self._deidentification = await _done(work, is_slow=len(header.whole) > LARGE_HEADER_BYTES)
        self._is_large_search = self._deidentification.header_length > LARGE_SEARCH_BYTES
        return ResidueGate(self._deidentification)


def _room() -> memoryview:
    """Make a buffer of a segment; a page of it becomes memory when it is used first, and most images are short."""
    return memoryview(mmap.mmap(-1, SEGMENT_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


async def _done(work: Callable[[], T], *, is_slow: bool) -> T:
    """Do something: a large header, or decoding of frames, does not hold up everyone else."""
    return await trio.to_thread.run_sync(work, limiter=_LARGE) if is_slow else work()


def _octets_of(pieces: list[Publishable]) -> list[Buffer]:
    return [piece.octets for piece in pieces]


async def measure(rendering: Rendering, policy: bytes, keeping: Beginning | None = None) -> Rendition:
    """Take a whole rendering in and give what it is; nothing is kept of it but what ``keeping`` keeps.

    Raises what ``Rendering`` raises.
    """
    size = 0
    whole, header = hashlib.sha256(), hashlib.sha256()
    digests = bytearray()
    async with contextlib.aclosing(rendering.segments()) as segments:
        async for segment in segments:
            header.update(segment[: max(0, rendering.deidentification.header_length - size)])
            if keeping is not None:
                keeping.feed(segment, rendering.deidentification.header_length)
            whole.update(segment)
            # most files have one segment, and its digest is the file's
            digests += whole.digest() if size == 0 else hashlib.sha256(segment).digest()
            size += len(segment)
    return Rendition(
        size=size,
        header_length=rendering.deidentification.header_length,
        sha256=whole.digest(),
        header_sha256=header.digest(),
        segment_sha256=bytes(digests),
        policy=policy,
        engine_generation=ENGINE_GENERATION,
        transfer_syntax=rendering.deidentification.transfer_syntax,
    )


class Verification:
    """Compares a rendering, segment by segment, with what was registered; one thread at a time may do it."""

    def __init__(self, guid: Guid, registered: Rendition) -> None:
        """Begin with nothing seen."""
        self._guid = guid
        self._registered = registered
        self._position = self._size = 0
        self._header = hashlib.sha256()

    def verify(self, segment: Buffer) -> None:
        """Take the next segment; raises ``InstanceChangedError``, which says whether header or pixels changed."""
        registered, size = self._registered, self._size
        expected = registered.segment_sha256[self._position : self._position + self._header.digest_size]
        if size < registered.header_length:
            self._header.update(memoryview(segment)[: registered.header_length - size])
        if hashlib.sha256(segment).digest() != expected:
            is_within_header = size < registered.header_length
            raise _changed(self._guid, is_header=is_within_header and self._header.digest() != registered.header_sha256)
        self._position += len(expected)
        self._size += len(segment)

    def finish(self) -> None:
        """Say that no more segments come; raises ``InstanceChangedError`` where some are missing."""
        if self._size != self._registered.size:
            raise _changed(self._guid, is_header=False)


def _changed(guid: Guid, *, is_header: bool) -> InstanceChangedError:
    part = "header" if is_header else "pixels"
    message = f"the PACS holds another {part} for {guid} than was registered; it is not released: tell the hospital"
    return InstanceChangedError(message)
