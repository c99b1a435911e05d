"""A peer that answers messages, for whoever asks it: ``Client`` is one, and so is a twin without a network."""

from __future__ import annotations

from typing import Protocol, TypeVar

from mdmfs.wire.messages.message import Message

M = TypeVar("M", bound=Message)


class Peer(Protocol):
    """What is needed of ``mdmfs.wire.client.Client``."""

    async def call(self, path: str, message: Message, reply: type[M], *, deadline: float) -> M:
        """POST a message and give its answer; ``deadline`` is a time of ``trio.current_time()``."""
