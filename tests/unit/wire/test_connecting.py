"""Connecting to a peer: what stands in the way is told as what it is."""

from __future__ import annotations

import socket

import pytest

from mdmfs.model.errors import BusyError
from mdmfs.wire.connecting import Places
from mdmfs.wire.stream import Address
from tests.twins.descriptors import no_descriptors


async def test_who_may_open_no_more_files_is_told_so_and_not_that_a_peer_is_away() -> None:
    """The peer listens; waiting for it would be in vain."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        places = Places(Address("127.0.0.1", listening.getsockname()[1]))
        with no_descriptors(), pytest.raises(BusyError, match="Too many open files") as told:
            await places.connect()
        assert "LimitNOFILE" in told.value.what_to_do
        (await places.connect()).close()
