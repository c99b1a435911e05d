"""A client whose address changes: ``python -m tests.twins.changed_network CASE`` in a network of its own.

``unshare --net`` gives one, in which nothing else is.
"""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import trio

from mdmfs.wire import silence
from mdmfs.wire.client import Client
from mdmfs.wire.messages.keystores import Collect, Collected, Outcome
from mdmfs.wire.server import Answer, Reply, Request, Service
from tests.twins import certificates as make
from tests.twins.wire import calling, serving

SERVER: Final = "10.9.0.2"
BEFORE: Final = "10.9.0.1"
AFTER: Final = "10.9.0.3"
SECONDS: Final = 60.0
HOSPITAL: Final = make.host("hospital")


def ip(*words: str) -> None:
    """Change this network."""
    subprocess.run(["ip", *words], check=True)


def come_from(address: str) -> None:
    """Have what goes to the server come from an address."""
    ip("address", "add", f"{address}/32", "dev", "lo")
    ip("route", "replace", "table", "local", "local", SERVER, "dev", "lo", "src", address)


def move() -> None:
    """Leave the old address: what was connected from there is heard no more, and nobody is told."""
    come_from(AFTER)
    ip("address", "del", f"{BEFORE}/32", "dev", "lo")


class Asked:
    """From where a server is asked; the first question has to wait for its answer."""

    def __init__(self, *, patience: float = 0) -> None:
        self._patience = patience
        self.first = trio.Event()
        self.places: list[str] = []
        self.service = Service("tests", {("POST", "/v1/ask"): self._answer})

    async def _answer(self, request: Request) -> Answer:
        await request.read(Collect)
        self.places.append(request.peer.host)
        self.first.set()
        if len(self.places) == 1:
            await trio.sleep(self._patience)
        return Reply(Collected([Outcome.DONE], [b""]))


async def ask(client: Client) -> None:
    """Ask something."""
    await client.call("/v1/ask", Collect([]), Collected, deadline=trio.current_time() + SECONDS)


@contextlib.asynccontextmanager
async def talking(service: Service) -> AsyncIterator[Client]:
    """Serve, and be a client of it."""
    async with (
        serving(service, shown=HOSPITAL, at=SERVER) as address,
        calling(address, make.person("jane"), expected=HOSPITAL.dn, check_hostname=False) as client,
    ):
        yield client


async def ask_again() -> None:
    """Ask over a connection that has been left."""
    asked = Asked()
    async with talking(asked.service) as client:
        await ask(client)
        move()
        await ask(client)
    assert asked.places == [BEFORE, AFTER], asked.places


async def wait_for_an_answer() -> None:
    """Move while an answer is awaited."""
    asked = Asked(patience=math.inf)
    async with talking(asked.service) as client, trio.open_nursery() as nursery:
        nursery.start_soon(ask, client)
        await asked.first.wait()
        move()
    assert asked.places == [BEFORE, AFTER], asked.places


async def lose_a_probe() -> None:
    """Be away for a moment while an answer is awaited: it comes over the same connection."""
    asked = Asked(patience=2 * silence.GONE_SECONDS)
    async with talking(asked.service) as client, trio.open_nursery() as nursery:
        nursery.start_soon(ask, client)
        await asked.first.wait()
        await trio.sleep(0.3 * silence.GONE_SECONDS)
        ip("link", "set", "lo", "down")
        await trio.sleep(0.2 * silence.GONE_SECONDS)
        ip("link", "set", "lo", "up")
    assert asked.places == [BEFORE], asked.places


CASES: Final[dict[str, Callable[[], Awaitable[None]]]] = {
    case.__name__: case for case in (ask_again, wait_for_an_answer, lose_a_probe)
}

if __name__ == "__main__":
    silence.GONE_SECONDS = 5  # type: ignore[misc] # nobody wants to wait for what users get
    ip("link", "set", "lo", "up")
    ip("address", "add", f"{SERVER}/32", "dev", "lo")
    come_from(BEFORE)
    trio.run(CASES[sys.argv[1]])
