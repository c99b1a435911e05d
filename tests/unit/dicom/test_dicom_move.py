"""C-MOVE when the PACS does not do as it should; what it brings when it does is in the contract and tests/pacs."""

from __future__ import annotations

import dataclasses

import pytest
import trio
import trio.testing

from mdmfs.hospital.dicom.pacs import InstanceKey, Politeness, RetrievalService
from mdmfs.hospital.dicom.remote import RemotePacs, open_pacs
from mdmfs.model.errors import RecallFailedError, RecallTimedOutError
from tests.twins.receiver import AE_TITLE, receiving
from tests.twins.scripted_pacs import CT, EXPLICIT, GET, MOVE, ScriptedPeer, Site, serving

KEY = InstanceKey("1.2.3", "1.2.3.4", "1.2.3.4.5", CT, EXPLICIT)
UNKNOWN_DESTINATION = 0xA801


async def recall(pacs: RemotePacs) -> None:
    """Retrieve one instance."""
    async with pacs.retrieve([KEY]) as instances:
        async for instance in instances:
            async for _ in instance:
                pass


@pytest.mark.parametrize("refusal", [0x0122, 0x0124, 0x0211])
async def test_a_pacs_that_refuses_get_although_it_negotiated_it_is_asked_to_move(refusal: int) -> None:
    """Once; from then on it is known. The request names our SCP, and an unknown one is told with what to do."""
    asked: list[int] = []
    told: list[RetrievalService] = []

    async def refusing(peer: ScriptedPeer) -> None:
        await peer.accept()
        while True:
            command, _ = await peer.read_request()
            asked.append(int.from_bytes(command[0x0100], "little"))
            if asked[-1] == 0x10:
                await peer.respond(0x8010, GET, refusal)
            else:
                assert command[0x0600].strip() == AE_TITLE.encode()
                await peer.respond(0x8021, MOVE, UNKNOWN_DESTINATION)

    async with serving(refusing, refusing) as site, receiving(site.address) as reception:
        first = dataclasses.replace(reception.surroundings, remember=told.append)
        async with open_pacs(site.address, surroundings=first) as pacs:
            for _ in range(2):
                with pytest.raises(RecallFailedError, match=f"does not know the AE title {AE_TITLE}"):
                    await recall(pacs)
            assert pacs.retrieval is RetrievalService.MOVE
        assert asked == [0x10, 0x21, 0x21]
        assert told == [RetrievalService.GET, RetrievalService.MOVE]
        later = dataclasses.replace(first, remembered=told[-1])
        async with open_pacs(site.address, surroundings=later) as pacs:
            assert pacs.retrieval is RetrievalService.MOVE
            with pytest.raises(RecallFailedError, match="does not know"):
                await recall(pacs)
    assert asked[3:] == [0x21]
    assert len(told) == 2


async def opened_and_silent(site: Site) -> None:
    """Ask for a move that never brings anything."""
    polite = Politeness(progress_timeout=5, retrieval=RetrievalService.MOVE)
    async with (
        receiving(site.address) as reception,
        open_pacs(site.address, polite, reception.surroundings) as pacs,
    ):
        with pytest.raises(RecallTimedOutError):
            await recall(pacs)


async def test_a_move_that_brings_nothing_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """Whether the PACS is silent, or says each second that it is still at it."""

    async def silent(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.read_request()
        await trio.sleep_forever()

    async def pending(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.read_request()
        while True:
            await peer.respond(0x8021, MOVE, 0xFF00)
            await trio.sleep(1)

    for script in (silent, pending):
        async with serving(script) as site:
            await opened_and_silent(site)
    assert autojump_clock.current_time() < 30


async def test_a_response_to_another_request_is_refused() -> None:
    """Neither a C-GET response nor one to a message that we did not send."""

    async def confused(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.read_request()
        await peer.respond(0x8010, GET, 0)
        await peer.read_request()

    polite = Politeness(retrieval=RetrievalService.MOVE)
    async with (
        serving(confused) as site,
        receiving(site.address) as reception,
        open_pacs(site.address, polite, reception.surroundings) as pacs,
    ):
        with pytest.raises(RecallFailedError, match="something else"):
            await recall(pacs)
