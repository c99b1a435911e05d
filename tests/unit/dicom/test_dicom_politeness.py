"""A PACS that is down is left alone for a while, and in clinical hours it bears one association."""

from __future__ import annotations

import datetime as dt

import pytest
import trio
import trio.testing

from mdmfs.hospital.dicom.breaker import FIRST_PAUSE, LONGEST_PAUSE, TOLERATED, Breaker
from mdmfs.hospital.dicom.pacs import ClinicalHours, Politeness
from mdmfs.hospital.dicom.pool import Surroundings
from mdmfs.hospital.dicom.remote import RemotePacs, open_pacs
from mdmfs.model.errors import ConfigurationError, MdmfsError, PacsUnreachableError, RecallTimedOutError
from tests.twins.scripted_pacs import Script, ScriptedPeer, serving

VERIFICATION = "1.2.840.10008.1.1"


async def answering(peer: ScriptedPeer) -> None:
    """Answer C-ECHO requests, each a little later."""
    await peer.accept()
    while True:
        await peer.read_request()
        await trio.sleep(0.01)
        await peer.respond(0x8030, VERIFICATION, 0)


async def closing(_: ScriptedPeer) -> None:
    """Close at once."""


async def silent(peer: ScriptedPeer) -> None:
    """Accept, take the request and never answer."""
    await peer.accept()
    await trio.sleep_forever()


def surroundings(now: dt.datetime = dt.datetime(2024, 1, 1, 12)) -> Surroundings:  # noqa: DTZ001 local time
    """Stop the clock on the wall, and let every pause be its longest."""
    return Surroundings(now=lambda: now, random=lambda: 1.0)


async def fail(pacs: RemotePacs, times: int, error: type[MdmfsError] = PacsUnreachableError) -> None:
    """Ask in vain."""
    for _ in range(times):
        with pytest.raises(error):
            await pacs.echo()


async def test_a_pacs_that_is_down_is_left_alone(autojump_clock: trio.testing.MockClock) -> None:
    """After some failures nobody connects any more until the pause is over; then one does, and all is well again."""
    async with (
        serving(*[closing] * TOLERATED, answering) as site,
        open_pacs(site.address, surroundings=surroundings()) as pacs,
    ):
        await fail(pacs, TOLERATED)
        assert site.connections == TOLERATED
        assert pacs.is_left_alone
        with pytest.raises(PacsUnreachableError, match="left alone for 1 s more"):
            await pacs.echo()
        assert site.connections == TOLERATED
        await trio.sleep(FIRST_PAUSE)
        await pacs.echo()
        assert not pacs.is_left_alone
        assert autojump_clock.current_time() < FIRST_PAUSE + 1


async def test_the_pause_doubles_up_to_a_limit(autojump_clock: trio.testing.MockClock) -> None:
    """Each failed attempt doubles it."""
    assert autojump_clock.rate == 0
    breaker = Breaker(lambda: 1.0)
    for _ in range(TOLERATED):
        assert breaker.let_through()
        breaker.failed()
    pauses = []
    for _ in range(12):
        pauses.append(breaker.remaining())
        await trio.sleep(breaker.remaining())
        assert breaker.let_through()
        breaker.failed()
    assert pauses[:4] == pytest.approx([1, 2, 4, 8])
    assert max(pauses) == pytest.approx(LONGEST_PAUSE)


async def test_one_attempt_decides_when_the_pause_is_over(autojump_clock: trio.testing.MockClock) -> None:
    """Half open: the others are told no meanwhile; an attempt that was cancelled lets the next one try."""
    assert autojump_clock.rate == 0
    breaker = Breaker(lambda: 0.0)
    for _ in range(TOLERATED):
        breaker.let_through()
        breaker.failed()
    await trio.sleep(FIRST_PAUSE)
    assert breaker.let_through()
    assert not breaker.let_through()
    breaker.abandoned()
    assert breaker.let_through()
    breaker.succeeded()
    assert breaker.let_through()
    assert breaker.let_through()


async def test_a_pacs_that_hangs_counts_as_down(autojump_clock: trio.testing.MockClock) -> None:
    """It accepts associations and never answers: each costs the whole patience, so there are few."""
    assert autojump_clock.rate == 0
    polite = Politeness(progress_timeout=5)
    async with serving(silent) as site, open_pacs(site.address, polite, surroundings()) as pacs:
        await fail(pacs, TOLERATED - 1, RecallTimedOutError)
        assert not pacs.is_left_alone
        await fail(pacs, 1, RecallTimedOutError)
        assert pacs.is_left_alone
        await fail(pacs, 5, PacsUnreachableError)
        assert site.connections == TOLERATED


async def answering_once(peer: ScriptedPeer) -> None:
    """Answer one request, then end."""
    await peer.accept()
    await peer.read_request()
    await peer.respond(0x8030, VERIFICATION, 0)


async def test_an_answer_in_between_makes_failures_none_in_a_row(autojump_clock: trio.testing.MockClock) -> None:
    """Two by two they could come for ever."""
    assert autojump_clock.rate == 0
    scripts = [closing, closing, answering_once, closing, closing, answering_once]
    async with serving(*scripts) as site, open_pacs(site.address, surroundings=surroundings()) as pacs:
        for _ in range(2):
            await fail(pacs, TOLERATED - 1)
            await pacs.echo()
        assert not pacs.is_left_alone
        assert site.connections == len(scripts)


async def mute(_: ScriptedPeer) -> None:
    """Take a connection and not even negotiate."""
    await trio.sleep_forever()


@pytest.mark.parametrize("script", [silent, mute])
async def test_whoever_gives_up_the_attempt_that_decides_leaves_it_to_the_next(
    script: Script, autojump_clock: trio.testing.MockClock
) -> None:
    """What he did not wait for is no failure, and not under way any more."""
    assert autojump_clock.rate == 0
    scripts = [*[closing] * TOLERATED, script, answering]
    async with serving(*scripts) as site, open_pacs(site.address, surroundings=surroundings()) as pacs:
        await fail(pacs, TOLERATED)
        await trio.sleep(FIRST_PAUSE)
        with trio.move_on_after(1) as scope:
            await pacs.echo()
        assert scope.cancelled_caught
        await pacs.echo()
        assert site.connections == len(scripts)


async def test_requests_that_nobody_waited_for_are_no_failures(autojump_clock: trio.testing.MockClock) -> None:
    """However many readers have gone."""
    assert autojump_clock.rate == 0
    async with serving(silent) as site, open_pacs(site.address, surroundings=surroundings()) as pacs:
        for _ in range(TOLERATED + 1):
            with trio.move_on_after(1):
                await pacs.echo()
        assert not pacs.is_left_alone
        assert site.connections == TOLERATED + 1


HOURS = [
    ("08:00-18:00", "07:59", False),
    ("08:00-18:00", "08:00", True),
    ("08:00-18:00", "18:00", False),
    ("22:00-06:00", "23:30", True),
    ("22:00-06:00", "05:59", True),
    ("22:00-06:00", "12:00", False),
]


@pytest.mark.parametrize(("hours", "now", "expected"), HOURS)
def test_clinical_hours_hold_from_their_begin_to_before_their_end(
    hours: str,
    now: str,
    expected: bool,  # noqa: FBT001 - a test's parameter
) -> None:
    """Over midnight too."""
    assert ClinicalHours.parse(hours).hold(dt.time.fromisoformat(now)) is expected


@pytest.mark.parametrize("text", ["", "8-18", "08:00", "08:00-08:00", "25:00-26:00", "08:00-18:00 ", "08:61-09:00"])
def test_what_is_no_hours_is_refused(text: str) -> None:
    """And not silently no limit."""
    with pytest.raises(ConfigurationError):
        ClinicalHours.parse(text)


@pytest.mark.parametrize(("hour", "most"), [(12, 1), (20, 3)])
async def test_in_clinical_hours_one_association_must_do(hour: int, most: int) -> None:
    """At other times all that are allowed."""
    polite = Politeness(3, clinical_hours=ClinicalHours.parse("08:00-18:00"))
    now = dt.datetime(2024, 1, 1, hour)  # noqa: DTZ001 local time
    async with serving(answering) as site, open_pacs(site.address, polite, surroundings(now)) as pacs:
        async with trio.open_nursery() as nursery:
            for _ in range(9):
                nursery.start_soon(pacs.echo)
        assert site.most_open == most


async def test_when_clinical_hours_begin_associations_are_released(autojump_clock: trio.testing.MockClock) -> None:
    """Those that are one too many, though they are not idle for long; when the hours end there may be more again."""
    assert autojump_clock.rate == 0
    now = dt.datetime(2024, 1, 1, 7)  # noqa: DTZ001 local time
    polite = Politeness(3, clinical_hours=ClinicalHours.parse("08:00-18:00"), idle_seconds=600)
    told = Surroundings(now=lambda: now, random=lambda: 1.0)

    async def ask_thrice(pacs: RemotePacs) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(pacs.echo)

    async with serving(answering) as site, open_pacs(site.address, polite, told) as pacs:
        await ask_thrice(pacs)
        assert site.open_now == 3
        now = now.replace(hour=8)
        await trio.sleep(40)
        assert site.open_now == 1
        await ask_thrice(pacs)
        assert site.open_now == 1
        now = now.replace(hour=18)
        await trio.sleep(40)
        await ask_thrice(pacs)
        assert site.open_now == 3
