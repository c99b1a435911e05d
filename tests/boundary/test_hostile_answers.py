"""Answers of a peer that means harm: each ends in an error of ours, and takes no more than it may."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
import trio

from mdmfs.model.errors import MalformedMessageError, MdmfsError
from mdmfs.wire.client import Client
from mdmfs.wire.messages.files import AskTotals, Totals
from mdmfs.wire.messages.message import MAX_MESSAGE_BYTES
from mdmfs.wire.stream import Address

OK = b"HTTP/1.1 200 \r\n"
PIECE = bytes(64 * 2**10)
SECONDS = 10.0


class Hostile:
    """A peer without TLS that gives every request the same answer, for as long as somebody takes it."""

    def __init__(self, beginning: bytes, more: bytes = b"", times: int = 0) -> None:
        self._answer = [beginning, *[more] * times]

    async def serve(self, task_status: trio.TaskStatus[Address]) -> None:
        """Answer until cancelled."""
        async with trio.open_nursery() as nursery:
            begin = functools.partial(trio.serve_tcp, self._converse, 0, host="127.0.0.1")
            [listener] = await nursery.start(begin)
            task_status.started(Address(*listener.socket.getsockname()[:2]))

    async def _converse(self, stream: trio.SocketStream) -> None:
        try:
            while await stream.receive_some():
                for piece in self._answer:
                    await stream.send_all(piece)
        except trio.BrokenResourceError:
            pass


async def asking(nursery: trio.Nursery, hostile: Hostile) -> Client:
    """Be ready to ask."""
    return Client(await nursery.start(hostile.serve), None, expected=None)


def heads() -> Iterator[tuple[str, Hostile]]:
    """Give answers to a GET of which none can be believed."""
    yield "a head without end", Hostile(OK, b"x-more: yes\r\n" * 1000, 1000)
    yield "a line without end", Hostile(OK + b"x-more: ", PIECE, 100)
    yield "about to answer, again and again", Hostile(b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 1000, 1000)
    yield "another protocol", Hostile(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n")
    yield "a negative length", Hostile(OK + b"content-length: -1\r\n\r\n")
    yield "two lengths", Hostile(OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\nxx")
    yield "a length that is no number", Hostile(OK + b"content-length: 0x10\r\n\r\n")
    yield "no length", Hostile(OK + b"\r\n")
    yield (
        "a length and chunks",
        Hostile(OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    )
    yield "a coding of the transfer", Hostile(OK + b"transfer-encoding: gzip, chunked\r\n\r\n")
    yield "more than was announced", Hostile(OK + b"content-length: 1\r\n\r\nxx")
    yield "a folded line", Hostile(OK + b"x-more: a\r\n b\r\ncontent-length: -1\r\n\r\n")
    yield "elsewhere", Hostile(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n")
    yield "a reason without end", Hostile(b"HTTP/1.1 503 \r\ncontent-length: 999999999\r\n\r\n", PIECE, 1000)


@pytest.mark.parametrize(("what", "hostile"), [pytest.param(*one, id=one[0]) for one in heads()])
async def test_what_cannot_be_believed_is_an_error(nursery: trio.Nursery, what: str, hostile: Hostile) -> None:
    """Of a GET as of a question, long before anybody's patience ends."""
    client = await asking(nursery, hostile)
    deadline = trio.current_time() + SECONDS
    with pytest.raises(MdmfsError) as caught:
        async with client.get("/x", deadline=deadline) as download:
            await download.read()
    assert "in time" not in str(caught.value), what
    with pytest.raises(MdmfsError):
        await client.call("/x", AskTotals("/"), Totals, deadline=deadline)
    await client.aclose()


async def test_a_reason_takes_no_more_room_than_a_reason_needs(nursery: trio.Nursery) -> None:
    """A message may be long; who refuses a mount many times at once has no claim to so much of its memory."""
    long = b"HTTP/1.1 503 \r\ncontent-length: %d\r\n\r\n" % MAX_MESSAGE_BYTES
    client = await asking(nursery, Hostile(long, PIECE, MAX_MESSAGE_BYTES // len(PIECE)))
    with pytest.raises(MalformedMessageError, match="at most"):
        await client.call("/x", AskTotals("/"), Totals, deadline=trio.current_time() + SECONDS)
    with pytest.raises(MalformedMessageError, match="at most"):
        async with client.get("/x", deadline=trio.current_time() + SECONDS):
            pass
    await client.aclose()


@pytest.mark.parametrize("year", [b"9" * 20, b"-1", b"1", b""])
async def test_a_time_that_is_none_is_no_time(nursery: trio.Nursery, year: bytes) -> None:
    """Whoever compares clocks goes on."""
    date = b"date: Fri, 27 Nov %b 12:00:00 +%b\r\n" % (year, b"9" * 20)
    client = await asking(nursery, Hostile(OK + date + b"content-length: 2\r\n\r\nhi"))
    async with client.get("/x", deadline=trio.current_time() + SECONDS) as download:
        assert await download.read() == b"hi"
    assert client.skew is None
    await client.aclose()
