"""What the socket of an association takes in at once, and what it allows of silence, whatever the clock does."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest
from trio.testing import MockClock

from mdmfs.hospital.dicom.association import Event, Released, State, UpperLayer
from mdmfs.hospital.dicom.link import Link
from mdmfs.model.errors import PacsUnreachableError, RecallTimedOutError

PATIENCE = 5.0
MUCH = 16 * 2**20
"""Bytes that no socket takes while nobody reads."""
SEGMENT = b"segment"


async def test_who_was_stopped_while_a_peer_spoke_times_out_where_it_takes_no_answer(mock_clock: MockClock) -> None:
    """More time is gone than was allowed, and what is to be sent finds no room."""

    class Late(UpperLayer):
        def next_event(self) -> Event | None:
            mock_clock.jump(PATIENCE + 1)
            return Released(b"")

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0)
        link = Link(ours, Late(State.ESTABLISHED), "pacs")
        link.wait_at_most(PATIENCE)
        assert await link.next_said() == Released(b"")
        with pytest.raises(RecallTimedOutError):
            await link.send(bytes(MUCH))


class Listening(UpperLayer):
    """Takes in as much at once as one segment has, and hears an event in each that came."""

    def __init__(self) -> None:
        super().__init__(State.ESTABLISHED)
        self.taken: list[int] = []
        self.asked = 0
        self.space = lambda: memoryview(bytearray(len(SEGMENT)))  # type: ignore[misc]
        self.received = self.taken.append  # type: ignore[assignment,misc]

    def next_event(self) -> Event | None:
        """Hear one, where something came."""
        self.asked += 1
        return Released(SEGMENT) if any(self.taken) else None


async def test_what_an_acknowledgement_lets_come_is_taken_in_along_with_what_it_is_for() -> None:
    """So the last segment of an image, which a PACS nearby held back, makes no fragment of its own."""
    with connected() as (ours, theirs):
        theirs.sendall(2 * SEGMENT)
        listening = Listening()
        await Link(ours, listening, "pacs").next_said()
        assert (listening.taken, listening.asked) == ([len(SEGMENT), len(SEGMENT)], 2)


async def test_what_came_before_a_connection_broke_is_heard_before_that() -> None:
    """The break shows when the acknowledgement is seen to; it is told to who waits for more."""
    with connected() as (ours, theirs):
        theirs.sendall(SEGMENT)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        listening = Listening()
        link = Link(ours, listening, "pacs")
        assert await link.next_said() == Released(SEGMENT)
        listening.taken.clear()
        with pytest.raises(PacsUnreachableError, match="it closed the connection"):
            await link.next_said()


@contextlib.contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Connect two sockets over TCP, the first of which does not block."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with ours, theirs:
        ours.settimeout(0)
        yield ours, theirs
