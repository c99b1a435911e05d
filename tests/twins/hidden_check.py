"""Holds two services against each other that differ only in what one caller may not read: in answers and errors."""

# ruff: noqa: S311 what is drawn here is drawn again from the same seed

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import trio

from mdmfs.metadata.metadata import Metadata
from mdmfs.metadata.service import metadata_service
from mdmfs.metadata.store.database import Database
from mdmfs.model.errors import MdmfsError, StoreError
from mdmfs.model.identity import Principal
from mdmfs.wire.messages.message import Message
from mdmfs.wire.service import Reply, Request
from mdmfs.wire.stream import Address
from tests.twins.finding import TwinMetadata, TwinSeries
from tests.twins.hidden import Known, Otherwise, Questions, change, closed
from tests.twins.keystores import HOSPITAL, always_current
from tests.twins.random_metadata import NOW, fill, random_metadata, random_principal

CHOSEN: Final = 3


def hold_alike(databases: Sequence[Database], seed: str, rounds: int) -> int:
    """Ask two empty databases, once they are filled, the same; gives how many answers were alike."""
    draw = random.Random(seed)
    twin, principal, readable = scene_of(draw)
    twins = [twin, Otherwise(twin, principal, draw).hospital()]
    told = []
    for number, (database, one) in enumerate(zip(databases, twins, strict=True)):
        fill(database, one, random.Random(0))
        questions = Questions(asking(database, principal), Known.of(*twins), random.Random(f"asked/{seed}"))
        questions.ask_all(rounds)
        change(database, one, readable, is_other=number == 1)
        questions.ask_for_snapshots(rounds)
        told.append(questions.answers)
    for first, other in zip(*told, strict=True):
        assert first == other
    return len(told[0])


def asking(database: Database, principal: Principal) -> Callable[[str, Message], Message | str]:
    """Ask the service as it answers the wire."""
    service = metadata_service(Metadata(database, HOSPITAL, lambda: NOW, always_current(HOSPITAL)))

    async def ask(path: str, message: Message) -> Message | str:
        async def body() -> bytes:
            await trio.lowlevel.checkpoint()
            return msgspec.msgpack.encode(message)

        try:
            reply = await service.answer(Request("POST", path, {}, principal, Address("192.0.2.7", 1), body))
        except StoreError:
            raise
        except MdmfsError as error:
            return f"{type(error).__name__}: {error}; {error.what_to_do}"
        assert isinstance(reply, Reply)
        return reply.message

    return lambda path, message: trio.run(ask, path, message)


def scene_of(draw: random.Random) -> tuple[TwinMetadata, Principal, list[tuple[TwinSeries, str]]]:
    """Draw a hospital, somebody who may read some images there and by far not all, and three of them."""
    while True:
        twin, principal = random_metadata(draw, series=16, records=30), random_principal(draw)
        closed(twin)
        view = twin.view(principal, NOW)
        shown = [one for one in twin.series if one.is_visible and view.may_read(one.chain)]
        images = [(one, name) for one in shown for name, _, chain in one.images if view.may_read(chain)]
        if len(images) >= CHOSEN and len(shown) < len(twin.series) and principal.not_after > NOW:
            return twin, principal, draw.sample(images, CHOSEN)
