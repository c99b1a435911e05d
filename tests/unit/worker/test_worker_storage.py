"""What comes from a storage element is held to a pace, whatever the clock does meanwhile."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from mdmfs.model.errors import PeerTimedOutError
from mdmfs.sealing.layout import HEADER_SIZE
from mdmfs.wire.download import Download
from mdmfs.wire.messages.files import Transfer
from mdmfs.wire.stream import Address
from mdmfs.worker.hospital.storage import AT_ONCE, PACE_SECONDS, ReplicaDownload, Storage
from mdmfs.worker.memory import SMALLEST_WINDOW, WINDOW, Memory
from tests.twins.wire import context_of
from tests.unit.wire.test_exchange import Script

SEALED = bytes(1000)
NOWHERE = Address("cache.example.org", 3128)
TOLD = Transfer("http://storage.example.org/x", "tier1", len(SEALED), 0, 2, SEALED[:HEADER_SIZE])


async def test_who_was_stopped_while_bytes_came_takes_them_and_then_asks_elsewhere(mock_clock: MockClock) -> None:
    """A batch system stops and continues jobs: more time has gone than the pace allows, and bytes are there."""

    class Late(Script):
        async def receive_into(self, buffer: memoryview, hoped: int = 1) -> int:
            count = await super().receive_into(buffer, hoped)
            mock_clock.jump(PACE_SECONDS + 1)
            return count

    stream = Late([SEALED[:100], SEALED[100:]])
    answer = Download(stream, 200, {"content-length": str(len(SEALED))}, b"", Address("storage.example.org", 443))
    replica = ReplicaDownload(answer, TOLD, 0, is_from_cache=False)
    room = memoryview(bytearray(len(SEALED)))
    assert await replica.receive_into(room) == 100
    with pytest.raises(PeerTimedOutError):
        await replica.receive_into(room)


async def test_what_all_principals_receive_into_is_half_of_the_budget_and_little_more() -> None:
    """However many there are, and from however many storage elements; nobody waits for the others."""
    memory, long = Memory(8 * WINDOW), msgspec.structs.replace(TOLD, size=10 * WINDOW)
    rooms = list[int]()

    async def receive(storage: Storage, element: str) -> None:
        async with storage.lanes(element), storage.room([msgspec.structs.replace(long, element=element)]) as room:
            rooms.append(len(room))
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for storage in [Storage(lambda: context_of(None), NOWHERE, memory=memory) for _ in range(20)]:
            for element in ["tier1", "tier2"] * 2 * AT_ONCE:
                nursery.start_soon(receive, storage, element)
        await trio.testing.wait_all_tasks_blocked()
        assert len(rooms) == 20 * 2 * AT_ONCE
        assert (max(rooms), memory.used) == (WINDOW, sum(rooms))
        assert memory.used <= memory.limit // 2 + len(rooms) * SMALLEST_WINDOW
        nursery.cancel_scope.cancel()
    assert memory.used == 0
