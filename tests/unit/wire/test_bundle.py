"""Bundles: whatever the edges of chunks and receives, what was sent is read; what is no bundle, or cut, is told."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import pytest
import trio
import trio.testing

from mdmfs.model.errors import (
    AccessDeniedError,
    InstanceChangedError,
    MalformedMessageError,
    MdmfsError,
    PeerUnreachableError,
)
from mdmfs.wire.bundle import BUFFER_BYTES, Bundle, Piece, beginning, end, failed, octets_head
from mdmfs.wire.download import Download
from mdmfs.wire.messages.files import SealedBeginning
from mdmfs.wire.stream import Address
from tests.twins.octets import octets

PEER = Address("hospital.example.org", 8443)
SALT = octets(24, "salt")
SIZES = (100, 70_000, 2 * BUFFER_BYTES + 3)


class Receives:
    """A stream that gives what a peer sent in pieces of random lengths, and then ends."""

    def __init__(self, sent: bytes, seed: int) -> None:
        self._left = memoryview(sent)
        self._random = random.Random(seed)  # noqa: S311 the same in each run

    async def receive_into(self, buffer: memoryview, _hoped: int = 1) -> int:
        """Give some."""
        await trio.lowlevel.checkpoint()
        count = min(len(buffer), len(self._left), self._random.choice((1, 7, 100, 5_000, 400_000)))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


class Drips(Receives):
    """A stream that never has as much at once as is hoped for."""

    async def receive_into(self, buffer: memoryview, hoped: int = 1) -> int:
        """Give some to who hopes for nothing."""
        if hoped > 1:
            await trio.sleep_forever()
        return await super().receive_into(buffer)


def bundle_of(
    sent: bytes,
    files: int = 3,
    *,
    seed: int = 0,
    ahead: int = 0,
    stream: type[Receives] = Receives,
    room: int = BUFFER_BYTES,
) -> tuple[Bundle, Download]:
    """Read an answer of which ``ahead`` bytes came with its head."""
    headers = {"transfer-encoding": "chunked"}
    download = Download(stream(sent[ahead:], seed), 200, headers, sent[:ahead], PEER)  # type: ignore[arg-type]
    return Bundle(download, files, room), download


def chunked(frames: Iterable[bytes], seed: int = 0) -> bytes:
    """Write frames in chunks that do not care where a frame ends."""
    chosen, whole, out = random.Random(seed), b"".join(frames), b""  # noqa: S311 as above
    while whole:
        length = chosen.choice((1, 3, 50, 10_000, 10**6))
        chunk, whole = whole[:length], whole[length:]
        out += b"%x\r\n%b\r\n" % (len(chunk), chunk)
    return out + b"0\r\n\r\n"


def begun(place: int, size: int) -> bytes:
    """Begin a file."""
    return beginning(place, SealedBeginning(size, 1, 2, SALT))


def file_of(place: int, size: int) -> list[bytes]:
    """Write a file in two frames."""
    body = octets(size, str(place))
    half = size // 2
    return [begun(place, size), octets_head(place, half), body[:half], octets_head(place, size - half), body[half:]]


async def read(bundle: Bundle, room: int = BUFFER_BYTES) -> tuple[dict[int, bytes], dict[int, MdmfsError]]:
    """Read to the end: what came of each file, and which failed."""
    came: dict[int, bytes] = {}
    errors: dict[int, MdmfsError] = {}
    while (said := await bundle.next()) is not None:
        place, event = said
        match event:
            case SealedBeginning():
                assert event.salt == SALT
                came[place] = b""
            case Piece():
                assert len(event.octets) <= room
                came[place] += event.octets
            case MdmfsError():
                errors[place] = event
    return came, errors


@pytest.mark.parametrize("room", [64 * 2**10, BUFFER_BYTES])
@pytest.mark.parametrize("seed", range(6))
async def test_what_was_sent_is_read_whatever_the_edges(seed: int, room: int) -> None:
    """Files of a few bytes and of more than the buffer, one after the other; the connection serves again."""
    frames = [frame for place, size in enumerate(SIZES) for frame in file_of(place, size)]
    sent = chunked([*frames, end()], seed)
    bundle, download = bundle_of(sent, seed=seed, ahead=min(seed * 9, len(sent)), room=room)
    assert await read(bundle) == ({place: octets(size, str(place)) for place, size in enumerate(SIZES)}, {})
    assert download.is_reusable


async def test_a_peer_from_whom_little_comes_at_a_time_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """What is hoped for is no condition: after a second it is taken as it comes."""
    del autojump_clock
    bundle, _ = bundle_of(chunked([*file_of(0, 70_000), end()]), stream=Drips)
    assert await read(bundle) == ({0: octets(70_000, "0")}, {})


async def test_files_may_come_mixed_and_one_may_fail_before_or_after_it_began() -> None:
    """The error is the one that the hospital tells of; the others are not touched."""
    first = file_of(0, 1000)
    sent = [first[0], begun(2, 50), *first[1:3], octets_head(2, 20), octets(20, "2")]
    sent += [failed(1, AccessDeniedError("no")), *first[3:], failed(2, InstanceChangedError("other pixels")), end()]
    came, errors = await read(bundle_of(chunked(sent))[0])
    assert came[0] == octets(1000, "0")
    assert {place: (type(error), str(error)) for place, error in errors.items()} == {
        1: (AccessDeniedError, "no"),
        2: (InstanceChangedError, "other pixels"),
    }


@pytest.mark.parametrize("cut", [0, 1, 20, 60, 500, -8, -6, -1])
async def test_a_bundle_that_is_cut_never_looks_whole(cut: int) -> None:
    """Not in a frame, not between two, and not before the last chunk's end."""
    sent = chunked([*file_of(0, 400), end()])
    bundle, download = bundle_of(sent[:cut])
    with pytest.raises(PeerUnreachableError):
        await read(bundle)
    assert not download.is_reusable


async def test_a_body_that_ends_without_the_end_of_the_bundle_is_cut() -> None:
    """HTTP's own end is no end."""
    with pytest.raises(PeerUnreachableError):
        await read(bundle_of(chunked(file_of(0, 400)))[0])


@pytest.mark.parametrize(
    "frames",
    [
        [begun(3, 10)],
        [begun(0, 10), begun(0, 10)],
        [octets_head(0, 5), b"12345"],
        [begun(0, 10), octets_head(0, 11), bytes(11)],
        [begun(0, 10), octets_head(0, 6), bytes(6), octets_head(0, 6), bytes(6)],
        [begun(0, 10), octets_head(0, 0)],
        [failed(0, AccessDeniedError("no")), octets_head(0, 5), bytes(5)],
        [failed(0, AccessDeniedError("no")), failed(0, AccessDeniedError("no"))],
        [begun(0, 10), failed(0, AccessDeniedError("no")), begun(0, 10)],
        [*file_of(0, 10), failed(0, AccessDeniedError("no")), *file_of(0, 10)],
        [b"\x01\x00\x00\x00\x00\x00\x03abc"],
        [b"\x01\x00\x00\xff\xff\xff\xff"],
        [b"\x01\x00\x00\x00\x00\x00\x03\x81\xa1\xff"],
        [b"\x03\x00\x00\x00\x00\xfd\xe8" + b"\x81\xa4code" + b"\x91" * 64_994],
        [begun(0, 20_000), *[octets_head(0, 1) + b"x"] * 20_000],
        [b"\x09\x00\x00\x00\x00\x00\x01x"],
    ],
)
async def test_what_nobody_asked_for_is_refused(frames: Sequence[bytes]) -> None:
    """Places beyond the question, octets without a beginning or beyond it, no message, lengths or tales without end."""
    with pytest.raises(MalformedMessageError):
        await read(bundle_of(chunked([*frames, end()]))[0])


@pytest.mark.parametrize("sent", [b"zz\r\n", b"5" * 100, b"-1\r\n", chunked([end()]) + b"x", b"3\r\nabcd\r\n"])
async def test_what_is_no_chunked_body_is_refused(sent: bytes) -> None:
    """Sizes that are none, lines that do not end, bytes behind the end."""
    with pytest.raises((MalformedMessageError, PeerUnreachableError)):
        await read(bundle_of(sent, ahead=len(sent))[0])


@pytest.mark.parametrize(("size", "is_read"), [(1, False), (512, False), (2048, True)])
async def test_a_bundle_in_crumbs_is_refused(size: int, *, is_read: bool) -> None:
    """Each takes longer to read than to send: one hospital of several would take the whole mount."""
    frames, sent = b"".join(file_of(0, 3 * BUFFER_BYTES if size > 1 else 10_000)), bytearray()
    for begin in range(0, len(frames), size):
        chunk = frames[begin : begin + size]
        sent += b"%x\r\n%b\r\n" % (len(chunk), chunk)
    bundle, _ = bundle_of(bytes(sent) + chunked([end()]))
    if is_read:
        assert len((await read(bundle))[0][0]) == 3 * BUFFER_BYTES
        return
    with pytest.raises(MalformedMessageError, match="crumbs"):
        await read(bundle)


async def test_an_answer_of_a_known_length_is_no_bundle() -> None:
    """And a chunked one is nothing else."""
    with pytest.raises(MalformedMessageError):
        Bundle(Download(Receives(b"abc", 0), 200, {"content-length": "3"}, b"", PEER), 1)  # type: ignore[arg-type]
    both = {"transfer-encoding": "chunked", "content-length": "3"}
    with pytest.raises(MalformedMessageError):
        Download(Receives(chunked([end()]), 0), 200, both, b"", PEER)  # type: ignore[arg-type]
    with pytest.raises(MalformedMessageError):
        await bundle_of(chunked([end()]))[1].read()
