"""The key ring: who is asked how often, what is held for how long, and whom a liar among keystores harms."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from mdmfs.model.errors import AccessDeniedError, IntegrityError, TooFewSharesError
from mdmfs.model.names import Guid
from mdmfs.sealing.header import FileKey, ObjectContext, Role
from mdmfs.sealing.layout import SALT_SIZE
from mdmfs.sealing.seal import Sealer
from mdmfs.sharing.shamir import Share
from mdmfs.wire.keystores.answers import Answers
from mdmfs.wire.keystores.gathering import Gathering
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.messages.keystores import Collected, KeyEntry, Outcome
from mdmfs.worker.keys.ring import HEARD_SECONDS, HOLD_SECONDS, ITEM_BYTES, KeyRing, Lock, unlock_with
from mdmfs.worker.memory import Memory
from tests.twins.keystores import HOSPITAL, TwinKeystore, principal, random_guid, shares_of, unreachable

NAMES = ("k1", "k2", "k3")
DEADLINE = 10.0


@dataclasses.dataclass
class Asked:
    """Keystores that can be held up, and what they were asked for in which order."""

    keystores: Keystores
    files: list[list[Guid]] = dataclasses.field(default_factory=list)
    again: list[list[Guid]] = dataclasses.field(default_factory=list)
    """What was asked for once more, of all of them."""
    gate: trio.Event = dataclasses.field(default_factory=trio.Event)

    async def collect(self, guids: Iterable[Guid], *, enough: int, deadline: float) -> dict[Guid, Answers]:
        """See ``Keystores.collect``; answers when the gate is open."""
        self.files.append(list(guids))
        await self.gate.wait()
        return await self.keystores.collect(self.files[-1], enough=enough, deadline=deadline)

    def collecting(self, guids: Iterable[Guid], *, deadline: float) -> AbstractAsyncContextManager[Gathering]:
        """See ``Keystores.collecting``."""
        self.again.append(list(guids))
        return self.keystores.collecting(self.again[-1], deadline=deadline)


@dataclasses.dataclass
class Site:
    """Three keystores, and the ring of one who may have all that they hold."""

    twins: dict[str, TwinKeystore]
    keystores: Keystores
    asked: Asked
    ring: KeyRing

    async def sealed(self, threshold: int = 2) -> Lock:
        """Seal a file, deposit its shares, and give what its key must fit."""
        guid, secret = random_guid(), secrets.token_bytes(32)
        for name, share in zip(NAMES, shares_of(guid, secret, threshold=threshold, generation=1), strict=True):
            deadline = trio.current_time() + DEADLINE
            assert await self.keystores.register(name, [KeyEntry(share.encode(), [])], deadline=deadline) == [
                Outcome.DONE
            ]
        context = ObjectContext(Role.BODY, guid, 1, 100)
        with FileKey(secret) as key:
            return Lock(context, Sealer(key, context, secrets.token_bytes(SALT_SIZE)).header, threshold)


@pytest.fixture
async def site(nursery: trio.Nursery) -> Site:
    """Three keystores that are well."""
    twins = {name: TwinKeystore() for name in NAMES}
    keystores = Keystores({name: twin.as_seen_by(principal(HOSPITAL)) for name, twin in twins.items()}, nursery)
    asked = Asked(keystores)
    asked.gate.set()
    return Site(twins, keystores, asked, KeyRing(lambda: asked, deadline=DEADLINE))


def guid_of(lock: Lock) -> Guid:
    """Name the file."""
    return lock.context.guid


def changing(change: Callable[[Share], bytes]) -> Callable[[Collected], Collected]:
    """Make a keystore change each share that it gives."""
    return lambda told: Collected(told.outcomes, [change(Share.parse(one)) if one else one for one in told.shares])


def wrong(share: Share) -> bytes:
    """Flip a bit of a share."""
    return dataclasses.replace(share, y=bytes([share.y[0] ^ 1]) + share.y[1:]).encode()


async def test_shares_are_held_for_a_minute_and_no_longer(site: Site, autojump_clock: MockClock) -> None:
    """Who opens a file several times costs one question, who comes later another."""
    del autojump_clock
    lock = await site.sealed()
    for _ in range(3):
        await site.ring.unlock(lock)
    assert site.asked.files == [[guid_of(lock)]]
    assert site.ring.held_until(guid_of(lock)) == trio.current_time() + HOLD_SECONDS
    await trio.sleep(HOLD_SECONDS)
    assert site.ring.fresh(guid_of(lock), 2) is None
    await site.ring.unlock(lock)
    assert site.asked.files == [[guid_of(lock)]] * 2


async def test_what_was_held_long_enough_is_dropped(site: Site, autojump_clock: MockClock) -> None:
    """By who asks for others, or when nobody does; what is fresh stays."""
    del autojump_clock
    old, new = await site.sealed(), await site.sealed()
    await site.ring.unlock(old)
    await trio.sleep(HOLD_SECONDS)
    await site.ring.unlock(new)
    assert (site.ring.holds(guid_of(old)), site.ring.holds(guid_of(new))) == (False, True)
    site.ring.expire()
    assert site.ring.holds(guid_of(new))
    await trio.sleep(HOLD_SECONDS)
    site.ring.expire()
    assert not site.ring.holds(guid_of(new))
    assert site.ring.held_until(guid_of(new)) < 0


@pytest.mark.parametrize("liar", NAMES)
async def test_a_keystore_that_lies_harms_nobody(site: Site, liar: str) -> None:
    """Where it was among the k that were asked, all are; where not, nobody is asked again."""
    site.twins[liar].lie = changing(wrong)
    for _ in NAMES:  # the keystores are asked in turn
        lock = await site.sealed()
        assert await site.ring.unlock(lock)
    assert len(site.asked.files) == 3
    assert 0 < len(site.asked.again) < 3


async def test_where_two_of_three_lie_nothing_opens(site: Site) -> None:
    """And nothing of it is held: they may be mended."""
    lock = await site.sealed()
    for name in NAMES[:2]:
        site.twins[name].lie = changing(wrong)
    with pytest.raises(IntegrityError):
        await site.ring.unlock(lock)
    assert not site.ring.holds(guid_of(lock))
    for name in NAMES[:2]:
        site.twins[name].lie = None
    assert await site.ring.unlock(lock)


async def test_a_refusal_is_not_asked_for_twice(site: Site) -> None:
    """It was decided; the next who asks may be decided about anew."""
    lock = await site.sealed()
    for twin in site.twins.values():
        twin.failure = lambda: AccessDeniedError("decided: no")
    with pytest.raises(AccessDeniedError):
        await site.ring.unlock(lock)
    assert (len(site.asked.files), site.asked.again) == (1, [])
    for twin in site.twins.values():
        twin.failure = None
    assert await site.ring.unlock(lock)


async def test_an_outage_is_not_asked_about_twice(site: Site) -> None:
    """Too few have answered, and they said nothing wrong."""
    lock = await site.sealed()
    for name in NAMES[:2]:
        site.twins[name].failure = unreachable
    with pytest.raises(TooFewSharesError):
        await site.ring.unlock(lock)
    assert site.asked.again == []


def stale(told: Collected) -> Collected:
    """Have yet to hear from the hospital."""
    return Collected([Outcome.STALE] * len(told.outcomes), [b""] * len(told.shares))


@pytest.mark.parametrize("is_first_down", [False, True])
async def test_keystores_that_hear_from_the_hospital_a_moment_after_the_mount_are_waited_for(
    site: Site, nursery: trio.Nursery, autojump_clock: MockClock, *, is_first_down: bool
) -> None:
    """As after a hospital was away for long; who waited for it in an open would get an error when it is back."""
    lock = await site.sealed()
    site.twins[NAMES[0]].failure = unreachable if is_first_down else None
    for name in NAMES[1:]:
        site.twins[name].lie = stale
    opened: list[object] = []

    async def unlock() -> None:
        opened.append(await site.ring.unlock(lock))

    nursery.start_soon(unlock)
    await trio.sleep(HEARD_SECONDS / 2)
    assert not opened
    for name in NAMES[1:]:
        site.twins[name].lie = None
    await trio.sleep(HEARD_SECONDS / 2)
    assert opened


async def test_keystores_that_do_not_hear_from_the_hospital_are_not_waited_for_long(
    site: Site, autojump_clock: MockClock
) -> None:
    """It may be away for hours."""
    lock = await site.sealed()
    for name in NAMES[1:]:
        site.twins[name].lie = stale
    begun = trio.current_time()
    with pytest.raises(TooFewSharesError, match="has yet to hear"):
        await site.ring.unlock(lock)
    assert HEARD_SECONDS <= trio.current_time() - begun < 2 * HEARD_SECONDS


async def test_shares_of_a_key_that_is_split_anew_meanwhile_are_asked_for_once_more(site: Site) -> None:
    """Each keystore was asked before or after it changed over; all of them now hold shares of one split."""
    lock = await site.sealed()
    before = {name: twin.shelf.page.keys[guid_of(lock)] for name, twin in site.twins.items()}
    for name in NAMES[1:]:
        del site.twins[name].shelf.page.keys[guid_of(lock)]

    def change_over(told: Collected) -> Collected:
        for name, record in before.items():
            site.twins[name].shelf.page.keys[guid_of(lock)] = record
        return told

    site.twins["k3"].lie = change_over
    assert await site.ring.unlock(lock)
    assert site.asked.again == [[guid_of(lock)]]


async def test_all_who_wait_are_asked_for_together(
    site: Site, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """One question at a time; those of another threshold have one of their own."""
    del autojump_clock
    locks = [await site.sealed() for _ in range(3)]
    other = await site.sealed(threshold=3)
    site.asked.gate = trio.Event()
    for lock in (*locks, other):
        nursery.start_soon(site.ring.unlock, lock)
        await wait_all_tasks_blocked()
    assert site.ring.is_asking
    site.asked.gate.set()
    await trio.sleep(0.1)
    first, *later = map(guid_of, locks)
    assert site.asked.files == [[first], later, [guid_of(other)]]
    assert not site.ring.is_asking
    await trio.sleep(HOLD_SECONDS)
    await site.ring.unlock(locks[0])
    assert site.asked.files[3:] == [[first]]  # nobody waits any more


async def test_siblings_come_along_and_only_once(site: Site) -> None:
    """What is held is not asked for; one of which too few shares came is."""
    lock, sibling, torn = [await site.sealed() for _ in range(3)]
    for name in NAMES[1:]:
        del site.twins[name].shelf.page.keys[guid_of(torn)]
    siblings = [guid_of(sibling), guid_of(torn)]
    await site.ring.unlock(lock, siblings)
    assert site.ring.holds(guid_of(sibling))
    assert not site.ring.holds(guid_of(torn))
    later = await site.sealed()
    await site.ring.unlock(later, siblings)
    assert site.asked.files[1] == [guid_of(later), guid_of(torn)]
    await site.ring.unlock(sibling)
    assert len(site.asked.files) == 2


async def test_more_shares_than_the_usual_are_not_taken_for_held(site: Site) -> None:
    """A file may need more than those before it."""
    few, many = await site.sealed(), await site.sealed(threshold=3)
    await site.ring.unlock(few, [guid_of(many)])
    assert site.ring.fresh(guid_of(many), 3) is None
    assert await site.ring.unlock(many)


async def test_what_is_asked_for_ahead_stands_back(site: Site, nursery: trio.Nursery) -> None:
    """It asks for nothing that is held, nor while somebody is asking; and for as many shares as made the last key."""
    lock, ahead = await site.sealed(), await site.sealed()
    await site.ring.unlock(lock)
    await site.ring.collect_ahead([guid_of(lock)])
    assert len(site.asked.files) == 1
    await site.ring.collect_ahead([guid_of(lock), guid_of(ahead)])
    assert site.asked.files[1:] == [[guid_of(ahead)]]
    assert unlock_with(site.ring.fresh(guid_of(ahead), 2), ahead)
    site.asked.gate = trio.Event()
    nursery.start_soon(site.ring.unlock, await site.sealed())
    await wait_all_tasks_blocked()
    await site.ring.collect_ahead([random_guid()])
    assert len(site.asked.files) == 3
    site.asked.gate.set()


@pytest.mark.parametrize("forget", [lambda ring, guid: ring.forget(guid), lambda ring, _: ring.forget_all()])
async def test_what_is_dropped_while_it_is_asked_for_is_not_held(
    site: Site, nursery: trio.Nursery, autojump_clock: MockClock, forget: Callable[[KeyRing, Guid], None]
) -> None:
    """What keystores said before somebody lost a right says nothing of afterwards; later questions are held again."""
    del autojump_clock
    lock = await site.sealed()
    site.asked.gate = trio.Event()
    nursery.start_soon(site.ring.unlock, lock)
    await wait_all_tasks_blocked()
    forget(site.ring, guid_of(lock))
    site.asked.gate.set()
    await trio.sleep(0.1)
    assert not site.ring.holds(guid_of(lock))
    await site.ring.unlock(lock)
    assert site.ring.holds(guid_of(lock))
    forget(site.ring, guid_of(lock))
    assert not site.ring.holds(guid_of(lock))


async def test_no_more_is_held_than_memory_allows(site: Site) -> None:
    """What was held first makes room, and what goes is given back."""
    memory = Memory(10 * ITEM_BYTES)
    ring = KeyRing(lambda: site.asked, deadline=DEADLINE, memory=memory)
    first, last = await site.sealed(), await site.sealed()
    guids = [guid_of(await site.sealed()) for _ in range(9)]
    await ring.unlock(first, guids)
    assert all(map(ring.holds, [guid_of(first), *guids]))
    assert memory.used == 10 * ITEM_BYTES
    await ring.unlock(last)
    assert [ring.holds(guid) for guid in [guid_of(first), *guids, guid_of(last)]] == [False, *[True] * 10]
    ring.forget(guids[0])
    assert memory.used == 9 * ITEM_BYTES
    ring.forget_all()
    assert memory.used == 0


async def test_shares_open_what_they_fit_and_nothing_else(site: Site) -> None:
    """Where nobody is asked there is no second chance."""
    lock, other = await site.sealed(), await site.sealed()
    await site.ring.unlock(lock)
    answers = site.ring.fresh(guid_of(lock), 2)
    assert unlock_with(answers, lock)
    assert unlock_with(answers, dataclasses.replace(lock, header=other.header)) is None
    assert unlock_with(None, lock) is None
