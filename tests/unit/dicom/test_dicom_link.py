"""What the socket of an association allows of silence, whatever the clock does meanwhile."""

from __future__ import annotations

import socket

import pytest
from trio.testing import MockClock

from mdmfs.hospital.dicom.association import Event, Released, State, UpperLayer
from mdmfs.hospital.dicom.link import Link
from mdmfs.model.errors import RecallTimedOutError

PATIENCE = 5.0
MUCH = 16 * 2**20
"""Bytes that no socket takes while nobody reads."""


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
