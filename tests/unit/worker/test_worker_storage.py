"""What comes from a storage element is held to a pace, whatever the clock does meanwhile."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from mdmfs.model.errors import PeerTimedOutError
from mdmfs.sealing.layout import HEADER_SIZE
from mdmfs.wire.download import Download
from mdmfs.wire.messages.files import Transfer
from mdmfs.wire.stream import Address
from mdmfs.worker.storage import PACE_SECONDS, ReplicaDownload
from tests.unit.wire.test_exchange import Script

SEALED = bytes(1000)
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
