"""A keystore that has not heard from a hospital lately gives that hospital's shares to nobody else."""

from __future__ import annotations

import dataclasses
import time

import pytest
import trio
import trio.testing

from mdmfs.access.acl import Acl, Entry, EntryKind, Right
from mdmfs.keystore.keystore import Keystore
from mdmfs.model.errors import AccessDeniedError, MalformedMessageError
from mdmfs.model.identity import Dn
from mdmfs.model.names import Guid
from mdmfs.wire.currency import CURRENT_SECONDS, MAX_NONCES, Currency, uptime
from mdmfs.wire.messages.keystores import (
    AskEpoch,
    Collect,
    ConfirmEpoch,
    KeyEntry,
    Outcome,
    Register,
    SetAcls,
    VersionedAcl,
)
from tests.twins.keystores import HOSPITAL, principal, random_guid, shares_of
from tests.twins.shelf import MemoryShelf

OTHER = Dn.parse("/DC=org/DC=demo/CN=other hospital")
READER = Dn.parse("/DC=org/DC=demo/CN=reader")
ACL_ID = b"i" * 16
MARK = b"m" * 16


@dataclasses.dataclass
class Watch:
    """A clock that stands still."""

    now: float = 1000.0


class Bench:
    """A shelf with one key of each hospital for the reader, and the process that serves it."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.shelf = MemoryShelf()
        self.guids: dict[Dn, Guid] = {HOSPITAL: random_guid(), OTHER: random_guid()}
        self.restart()

    def restart(self) -> None:
        """Begin with what is on the shelf."""
        currency = Currency(lambda: self.watch.now)
        self.keystore = Keystore(self.shelf, [HOSPITAL, OTHER], lambda: 1e9, currency)

    async def fill(self) -> None:
        """Register the keys."""
        for owner, guid in self.guids.items():
            acl = Acl(str(owner), (Entry(EntryKind.USER, str(READER), Right.READ.value),)).encode()
            await self.keystore.set_acls(principal(owner), SetAcls([VersionedAcl(ACL_ID, 1, acl)]))
            entry = KeyEntry(shares_of(guid, bytes(32))[0].encode(), [[ACL_ID]])
            await self.keystore.register(principal(owner), Register([entry]))

    async def outcome(self, owner: Dn = HOSPITAL, caller: Dn = READER) -> Outcome:
        """Tell what a caller gets of a hospital's key."""
        answer = await self.keystore.collect(principal(caller), Collect([self.guids[owner].octets]))
        assert bool(answer.shares[0]) == (answer.outcomes[0] is Outcome.DONE)
        return answer.outcomes[0]

    async def nonce(self, owner: Dn = HOSPITAL) -> bytes:
        """Ask as a hospital does."""
        return (await self.keystore.epoch(principal(owner), AskEpoch())).nonce

    async def confirm(self, nonce: bytes, owner: Dn = HOSPITAL, epoch: int = 1) -> bool:
        """Confirm as a hospital does; tell whether that made the keystore current."""
        return (await self.keystore.confirm(principal(owner), ConfirmEpoch(epoch, MARK, nonce))).is_current


@pytest.fixture
async def bench() -> Bench:
    """Give a keystore that was just started and holds two keys."""
    made = Bench()
    await made.fill()
    return made


async def test_after_a_start_only_the_owner_gets_shares_until_it_has_confirmed(bench: Bench) -> None:
    """The shelf may be yesterday's; and one hospital's word says nothing about another's keys."""
    assert await bench.outcome() is Outcome.STALE
    assert await bench.outcome(caller=HOSPITAL) is Outcome.DONE
    assert await bench.confirm(await bench.nonce())
    assert await bench.outcome() is Outcome.DONE
    assert await bench.outcome(OTHER) is Outcome.STALE
    bench.restart()
    assert await bench.outcome() is Outcome.STALE


async def test_out_of_touch_for_five_minutes_it_gives_nothing_until_it_hears_again(bench: Bench) -> None:
    """To the second, from when the nonce was drawn."""
    nonce = await bench.nonce()
    bench.watch.now += 10
    assert await bench.confirm(nonce)
    bench.watch.now += CURRENT_SECONDS - 10 - 0.001
    assert await bench.outcome() is Outcome.DONE
    bench.watch.now += 0.001
    assert await bench.outcome() is Outcome.STALE
    assert await bench.confirm(await bench.nonce())
    assert await bench.outcome() is Outcome.DONE


async def test_a_confirmation_that_was_held_up_makes_nothing_current(bench: Bench) -> None:
    """Whoever can delay the network cannot make an old word new; and an older one does not shorten a newer one."""
    early = await bench.nonce()
    bench.watch.now += CURRENT_SECONDS
    assert not await bench.confirm(early)
    assert await bench.outcome() is Outcome.STALE
    older, newer = await bench.nonce(), await bench.nonce()
    assert await bench.confirm(newer)
    assert await bench.confirm(older)


@pytest.mark.parametrize("wait", [0.0, -5.0, float("-inf"), float("nan")])
async def test_a_hospital_that_wants_to_wait_for_no_time_at_all_is_answered(
    bench: Bench, wait: float, autojump_clock: trio.testing.MockClock
) -> None:
    """Whatever it calls that: it is no failure of the keystore's."""
    assert autojump_clock.rate == 0
    assert await bench.confirm(await bench.nonce())
    begun = trio.current_time()
    assert (await bench.keystore.epoch(principal(HOSPITAL), AskEpoch(wait))).is_current
    assert trio.current_time() == begun


async def test_a_nonce_serves_once_and_only_the_hospital_that_got_it(bench: Bench) -> None:
    """Replayed, swapped, invented or from before the restart: refused, and nothing is stored."""
    nonce, others = await bench.nonce(), await bench.nonce(OTHER)
    assert await bench.confirm(nonce)
    for attempt in (nonce, others, bytes(16), b"", b"x" * 1000):
        with pytest.raises(MalformedMessageError, match="nonce"):
            await bench.confirm(attempt, epoch=99)
    fresh = await bench.nonce()
    bench.restart()
    with pytest.raises(MalformedMessageError, match="nonce"):
        await bench.confirm(fresh, epoch=99)
    held = await bench.keystore.epoch(principal(HOSPITAL), AskEpoch())
    assert (held.epoch, held.mark, held.is_current) == (1, MARK, False)


async def test_the_oldest_nonces_are_forgotten_first(bench: Bench) -> None:
    """Asking without end fills no memory."""
    nonces = [await bench.nonce() for _ in range(MAX_NONCES + 1)]
    with pytest.raises(MalformedMessageError):
        await bench.confirm(nonces[0])
    assert await bench.confirm(nonces[1])


async def test_readers_neither_ask_nor_confirm(bench: Bench) -> None:
    """Who could confirm could bring yesterday back."""
    with pytest.raises(AccessDeniedError):
        await bench.nonce(READER)
    nonce = await bench.nonce()
    with pytest.raises(AccessDeniedError):
        await bench.confirm(nonce, READER)
    assert await bench.outcome() is Outcome.STALE


async def test_a_mark_or_epoch_out_of_bounds_is_refused(bench: Bench) -> None:
    """The shelf holds what the protocol knows."""
    for epoch, mark in ((-1, MARK), (2**63, MARK), (1, b"m" * 65)):
        message = ConfirmEpoch(epoch, mark, await bench.nonce())
        with pytest.raises(MalformedMessageError):
            await bench.keystore.confirm(principal(HOSPITAL), message)


async def test_a_question_waits_while_the_keystore_is_current_and_no_longer(
    bench: Bench, autojump_clock: object
) -> None:
    """So that the hospital hears at once when it is not."""
    assert autojump_clock is not None
    begun = trio.current_time()
    await bench.keystore.epoch(principal(HOSPITAL), AskEpoch(60.0))
    assert trio.current_time() == begun
    await bench.confirm(await bench.nonce())
    await bench.keystore.epoch(principal(HOSPITAL), AskEpoch(60.0))
    assert trio.current_time() == pytest.approx(begun + 60.0)


def test_the_clock_counts_while_the_machine_sleeps() -> None:
    """CLOCK_BOOTTIME, which nobody sets."""
    assert abs(uptime() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1
