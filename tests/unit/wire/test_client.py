"""A client asks until its deadline and no longer, gives every place back, and takes no answer that nobody asked for."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable

import msgspec
import pytest
import trio

from mdmfs.model.errors import BusyError, MdmfsError, PeerTimedOutError
from mdmfs.wire.client import Client
from mdmfs.wire.messages.files import AskBundle, AskTotals, Totals
from mdmfs.wire.messages.message import Failure
from mdmfs.wire.plain import write_answer
from mdmfs.wire.stream import Address

NOTHING = b""
TOTALS = write_answer(Totals(3, 2**40), "Fri, 27 Nov 2026 12:00:00 GMT")
OTHER = write_answer(Totals(7, 7), "Fri, 27 Nov 2026 12:00:00 GMT")
OBJECT = b"HTTP/1.1 200 \r\ncontent-length: 6\r\n\r\nob"
"""Of which nothing more comes."""


async def answering(nursery: trio.Nursery, octets: bytes, posted: bytes | None = None) -> Client:
    """Make a client, of one place, of a peer that answers each question with this, or a POST with something else."""

    async def converse(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async for asked in stream:
                await stream.send_all(octets if asked.startswith(b"GET") or posted is None else posted)

    [listener] = await nursery.start(functools.partial(trio.serve_tcp, converse, 0, host="127.0.0.1"))
    return Client(Address(*listener.socket.getsockname()[:2]), None, expected=None, max_connections=1)


async def call(client: Client, seconds: float = 0.1) -> Totals:
    """Ask for a message."""
    return await client.call("/x", AskTotals("/"), Totals, deadline=trio.current_time() + seconds)


async def get(client: Client, seconds: float = 0.1) -> bytes:
    """Ask for something long."""
    async with client.get("/x", deadline=trio.current_time() + seconds) as download:
        return bytes(await download.read())


async def ask_bundle(client: Client, seconds: float = 0.1) -> None:
    """Ask for a bundle."""
    async with client.ask_bundle(AskBundle([bytes(16)]), deadline=trio.current_time() + seconds) as bundle:
        await bundle.next()


ASKING: list[Callable[[Client], Awaitable[object]]] = [call, get, ask_bundle]


@pytest.mark.parametrize("ask", ASKING)
@pytest.mark.parametrize(
    ("octets", "kind"),
    [(NOTHING, PeerTimedOutError), (TOTALS[:20], PeerTimedOutError), (b"nonsense\r\n\r\n", MdmfsError)],
)
async def test_a_question_ends_and_gives_its_place_back(
    ask: Callable[[Client], Awaitable[object]], octets: bytes, kind: type[MdmfsError], nursery: trio.Nursery
) -> None:
    """Where nothing is answered, or half of it, or what is none: the next one has the only place, and ends so, too."""
    client = await answering(nursery, octets)
    with trio.fail_after(10):
        for _ in range(3):
            with pytest.raises(kind):
                await ask(client)
    await client.aclose()


@pytest.mark.parametrize("ask", ASKING)
async def test_a_refusal_gives_its_place_back(
    ask: Callable[[Client], Awaitable[object]], nursery: trio.Nursery
) -> None:
    """As an answer does."""
    body = msgspec.msgpack.encode(Failure.of(BusyError("later")))
    client = await answering(nursery, b"HTTP/1.1 503 \r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    with trio.fail_after(10):
        for _ in range(3):
            with pytest.raises(BusyError, match="later"):
                await ask(client)
    await client.aclose()


async def test_what_takes_long_holds_up_nothing_short(nursery: trio.Nursery) -> None:
    """Transfers have places of their own; who waits for one waits to his deadline."""
    client = await answering(nursery, OBJECT, TOTALS)
    async with client.get("/x", deadline=trio.current_time() + 5):
        with trio.fail_after(5), pytest.raises(PeerTimedOutError):
            await get(client)
        assert await call(client, 5) == Totals(3, 2**40)
    await client.aclose()


async def test_a_second_answer_that_nobody_asked_for_answers_nothing(nursery: trio.Nursery) -> None:
    """The next question would have it for its own."""
    answered, is_sent = trio.Event(), trio.Event()
    asked = 0

    async def converse(stream: trio.SocketStream) -> None:
        nonlocal asked
        with contextlib.suppress(trio.BrokenResourceError):  # it is closed over what nobody read
            async for _ in stream:
                asked += 1
                await stream.send_all(TOTALS)
                if asked == 1:
                    await answered.wait()
                    await stream.send_all(OTHER)
                    is_sent.set()

    [listener] = await nursery.start(functools.partial(trio.serve_tcp, converse, 0, host="127.0.0.1"))
    client = Client(Address(*listener.socket.getsockname()[:2]), None, expected=None)
    first = await call(client, 5)
    answered.set()
    await is_sent.wait()
    assert first == await call(client, 5) == Totals(3, 2**40)
    await client.aclose()
