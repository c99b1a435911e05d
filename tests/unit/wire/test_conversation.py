"""How a long answer leaves, in large writes, the rest of an object behind the last of them at once; who has a turn."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final, cast

import trio

from mdmfs.model.identity import Dn, Principal
from mdmfs.wire.allowances import Allowances, Limits
from mdmfs.wire.caller import Caller
from mdmfs.wire.conversation import Conversation, Terms
from mdmfs.wire.service import Octets, Request, Service, StreamReply
from mdmfs.wire.stream import SEND_BYTES, Address, TlsStream

REQUEST: Final = b"GET /v1/sealed HTTP/1.1\r\nhost: hospital.example.org\r\n\r\n"
HEAD: Final = bytes(100)
OBJECT: Final = bytes(2 * SEND_BYTES + 1000)
TURN: Final = 0
"""Stands among the lengths of writes for a turn that somebody else had."""


class Heard:
    """A stream over which this comes at once, and how much is written at once."""

    def __init__(self, told: list[int], request: bytes = REQUEST) -> None:
        self._request = request
        self._told = told

    async def receive_into(self, buffer: memoryview, hoped: int = 1) -> int:
        """Give it, and then the end."""
        del hoped
        await trio.lowlevel.checkpoint()
        request, self._request = self._request, b""
        buffer[: len(request)] = request
        return len(request)

    def send_at_once(self, octets: memoryview) -> bool:
        """Take it."""
        self._told.append(len(octets))
        return True

    def is_readable(self) -> bool:
        """Ask whether there is more."""
        return False

    def close(self) -> None:
        """End."""


class Somebody:
    """A caller whose credential holds."""

    async def principal(self) -> Principal:
        """Give him."""
        await trio.lowlevel.checkpoint()
        return Principal(Dn.parse("/DC=org/DC=example/CN=somebody"), (), float("inf"))

    def is_over(self) -> bool:
        """Ask whether it has ended."""
        return False


class Known(Somebody):
    """One of whom nothing has to be asked."""

    async def principal(self) -> Principal:
        """Give him."""
        return Principal(Dn.parse("/DC=org/DC=example/CN=somebody"), (), float("inf"))


async def test_the_end_of_an_object_leaves_behind_its_other_writes_before_anybody_else_has_a_turn() -> None:
    """Who waits for a whole object waits for its last bytes: they must not wait for what the sender does next."""
    told: list[int] = []
    is_read = trio.Event()

    async def objects() -> AsyncGenerator[Octets]:
        for _ in range(2):
            yield HEAD
            yield OBJECT
            yield b""
            await trio.lowlevel.checkpoint()
        is_read.set()

    async def respond(_: Request) -> StreamReply:
        await trio.lowlevel.checkpoint()
        return StreamReply(None, "", objects())

    async def do_something_else() -> None:
        while not is_read.is_set():
            told.append(TURN)
            await trio.lowlevel.checkpoint()

    terms = Terms(Service("hospital", {("GET", "/v1/sealed"): respond}), Limits(), Allowances(Limits()))
    stream, caller = cast("TlsStream", Heard(told)), cast("Caller", Somebody())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(do_something_else)
        await Conversation(stream, Address("worker.example.org", 8443), caller, terms).run()
    first = told.index(SEND_BYTES)
    assert told[first : first + 2] == [SEND_BYTES, SEND_BYTES]
    assert len(OBJECT) % SEND_BYTES < told[first + 2] < SEND_BYTES
    second = told.index(SEND_BYTES, first + 2)
    assert TURN in told[first:second]
    assert TURN not in told[second : second + 3]


async def test_who_sends_many_requests_at_once_has_others_served_between_them() -> None:
    """Else all that fit into what is received at once would be answered before anybody else is."""
    told: list[int] = []
    requests = 20

    async def do_something_else() -> None:
        while True:
            told.append(TURN)
            await trio.lowlevel.checkpoint()

    terms = Terms(Service("hospital", {}), Limits(), Allowances(Limits()))
    stream, caller = cast("TlsStream", Heard(told, requests * REQUEST)), cast("Caller", Known())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(do_something_else)
        await Conversation(stream, Address("worker.example.org", 8443), caller, terms).run()
        nursery.cancel_scope.cancel()
    answered = [place for place, length in enumerate(told) if length != TURN]
    assert len(answered) == requests
    assert told[answered[0] : answered[-1]].count(TURN) >= requests - 2
