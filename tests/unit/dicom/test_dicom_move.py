"""C-MOVE when the PACS does not do as it should; what it brings when it does is in the contract and tests/pacs."""

from __future__ import annotations

import dataclasses
from typing import Final, NamedTuple

import pytest
import trio
import trio.testing

from mdmfs.hospital.dicom.commands import Command, CommandField
from mdmfs.hospital.dicom.move import Destination, Move, Moves
from mdmfs.hospital.dicom.pacs import InstanceKey, PacsAddress, Politeness, RetrievalService
from mdmfs.hospital.dicom.pool import Pool, Surroundings
from mdmfs.hospital.dicom.remote import RemotePacs, open_pacs
from mdmfs.model.errors import RecallFailedError, RecallTimedOutError
from tests.twins.receiver import AE_TITLE, receiving
from tests.twins.scripted_pacs import CT, EXPLICIT, GET, MOVE, ScriptedPeer, Site, pdu, serving

KEY = InstanceKey("1.2.3", "1.2.3.4", "1.2.3.4.5", CT, EXPLICIT)
ANOTHER = dataclasses.replace(KEY, instance_uid="1.2.3.4.6")
UNKNOWN_DESTINATION = 0xA801
TITLES = {"ARCHIVE"}
"""Of one PACS, called "here" by our SCP; the other one is "there"."""


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


class Case(NamedTuple):
    """What a PACS offers, and what is known of it."""

    refused: tuple[str, ...] = ()
    configured: RetrievalService | None = None
    remembered: RetrievalService | None = None
    has_destination: bool = True


CHOICES: Final = {
    "both": (Case(), "get", ["get"], True),
    "get alone": (Case((MOVE,)), "get", ["get"], False),
    "move alone": (Case((GET,)), "move", ["move"], False),
    "move alone, and nowhere to move to": (Case((GET,), has_destination=False), "", ["move"], False),
    "neither": (Case((GET, MOVE)), "get", [], False),
    "both, and nowhere to move to": (Case(has_destination=False), "get", ["get"], False),
    "move is remembered": (Case(remembered=RetrievalService.MOVE), "move", [], False),
    "move is remembered and offered no more": (
        Case((MOVE,), remembered=RetrievalService.MOVE),
        "get",
        ["get"],
        False,
    ),
    "get is configured": (Case(configured=RetrievalService.GET), "get", [], False),
    "get is configured and not offered": (Case((GET,), configured=RetrievalService.GET), "get", [], False),
    "move is configured": (Case(configured=RetrievalService.MOVE, remembered=RetrievalService.GET), "move", [], False),
    "move is configured, and nowhere to move to": (
        Case(configured=RetrievalService.MOVE, has_destination=False),
        "",
        [],
        False,
    ),
}


@pytest.mark.parametrize(("case", "chosen", "told", "can_turn"), CHOICES.values(), ids=CHOICES)
async def test_the_service_is_chosen_by_what_is_configured_remembered_and_offered(
    case: Case, chosen: str, told: list[str], *, can_turn: bool
) -> None:
    """In this order; what is configured is not remembered, and a PACS that refuses C-GET is asked to move if it may."""
    heard: list[RetrievalService] = []

    async def offering(peer: ScriptedPeer) -> None:
        await peer.accept(refused=case.refused)
        assert await peer.read_pdu() == (5, bytes(4))
        await peer.send(pdu(6, bytes(4)))

    async with serving(offering) as site, receiving(site.address) as reception:
        destination = reception.surroundings.destination if case.has_destination else None
        told_of = Surroundings(destination, remembered=case.remembered, remember=heard.append)
        pool = Pool(site.address, Politeness(retrieval=case.configured), told_of)
        connection = await pool.take({})
        if chosen:
            assert pool.choose(connection) is RetrievalService(chosen)
        else:
            with pytest.raises(RecallFailedError, match="nowhere to move to"):
                pool.choose(connection)
        assert heard == [RetrievalService(each) for each in told]
        assert pool.turn_to_move(connection) == can_turn
        assert pool.retrieval is (RetrievalService.MOVE if can_turn else RetrievalService(chosen or "move"))
        assert heard[len(told) :] == [RetrievalService.MOVE] * can_turn
        pool.give_back(connection)
        await pool.aclose()


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


def begun(moves: Moves, pacs: str = "here") -> tuple[Move, int]:
    """Have a move of one instance under way, and give its number; nothing is sent."""
    address, wanted, offer = PacsAddress("ARCHIVE", "127.0.0.1", 104, "MDMFS"), [KEY], {CT: (EXPLICIT,)}
    move = Move(None, address, wanted, offer, Destination(moves, pacs), Politeness())  # type: ignore[arg-type]
    return move, moves.open(move)


def stored(key: InstanceKey, number: int | None = None, title: str = "") -> Command:
    """Store an instance, in consequence of a move or of something else."""
    field = CommandField.STORE_RQ
    return Command(1, field, 7, True, 0, CT, key.instance_uid, title, number)  # noqa: FBT003 it has a data set


def test_an_instance_is_for_a_move_of_its_own_pacs_alone() -> None:
    """By the number of the move, where the PACS repeats ours; else by being waited for."""
    moves = Moves(AE_TITLE)
    move, number = begun(moves)
    for request in (stored(KEY, number, "ARCHIVE"), stored(KEY), stored(KEY, number + 1, "ARCHIVE"), stored(KEY, 0)):
        assert moves.find("here", request, TITLES) is move
        assert moves.find("there", request, TITLES) is None
    assert moves.find("here", stored(ANOTHER, number, "ARCHIVE"), TITLES) is move  # which then refuses it
    for request in (stored(ANOTHER, number, "OTHER"), stored(ANOTHER, number + 1, "ARCHIVE"), stored(ANOTHER)):
        assert moves.find("here", request, TITLES) is None
    assert (moves.offers("here", CT), moves.offers("there", CT), moves.offers("here", "1.2")) == ([(EXPLICIT,)], [], [])


def test_what_comes_for_a_move_that_has_ended_is_for_no_other_one() -> None:
    """Or half of what one recall gave up would be taken for what the next one waits for."""
    moves = Moves(AE_TITLE)
    _, first = begun(moves)
    moves.close(first)
    second, number = begun(moves)
    assert moves.find("here", stored(KEY, first, "ARCHIVE"), TITLES) is None
    assert moves.find("here", stored(KEY, number, "ARCHIVE"), TITLES) is second
    past = [stored(KEY, first, "ARCHIVE"), stored(KEY, first, "OTHER"), stored(KEY, number, "ARCHIVE"), stored(KEY)]
    assert [moves.is_of_the_past(request, TITLES) for request in past] == [True, False, False, False]


def test_no_two_moves_have_one_number_and_there_are_not_more_than_numbers() -> None:
    """Half of them are under way at most: the others are remembered, or free."""
    moves = Moves(AE_TITLE)
    move, first = begun(moves)
    numbers = {first, *(moves.open(move) for _ in range(2**15 - 2))}
    assert (len(numbers), min(numbers) > 0, max(numbers) < 2**16) == (2**15 - 1, True, True)
    with pytest.raises(RecallFailedError, match="too many"):
        moves.open(move)
    moves.close(first)
    assert moves.open(move) not in numbers
