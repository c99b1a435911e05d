"""How commands speak with a hospital's daemon: with the hospital's own certificate, from its configuration."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Final, TypeVar

import trio

from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.wire.client import Client
from mdmfs.wire.messages.message import Message
from mdmfs.wire.peers import open_client

DEADLINE: Final = 30.0
"""Seconds for an answer that is at hand."""
INTERVAL: Final = 0.2
"""Seconds between two questions how far something is."""

T = TypeVar("T", bound=Message)


def asking(configuration: HospitalConfiguration) -> contextlib.aclosing[Client]:
    """Give a client of the daemon for a block."""
    credential = configuration.credential
    return contextlib.aclosing(
        open_client(str(configuration.public), str(credential.subject()), credential, configuration.anchors)
    )


async def ask(client: Client, path: str, message: Message, reply: type[T], seconds: float = DEADLINE) -> T:
    """Ask once, and wait so long for an answer."""
    return await client.call(path, message, reply, deadline=trio.current_time() + seconds)


def ask_each(configuration: HospitalConfiguration, path: str, messages: Iterable[Message], reply: type[T]) -> list[T]:
    """Ask the daemon some things, one after the other, and give its answers; for a command that does nothing else."""

    async def ask_all() -> list[T]:
        async with asking(configuration) as client:
            return [await ask(client, path, message, reply) for message in messages]

    return trio.run(ask_all)
