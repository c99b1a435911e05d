"""Collecting from n keystores: whatever one of them does, the key comes at once; a failure is clear and soon mended."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import structlog.testing
import trio
from prometheus_client import REGISTRY
from trio.testing import MockClock, wait_all_tasks_blocked

from mdmfs.access.acl import Acl
from mdmfs.model.errors import (
    AccessDeniedError,
    ConfigurationError,
    CredentialExpiredError,
    IntegrityError,
    MalformedMessageError,
    TooFewSharesError,
    WrongKeyError,
)
from mdmfs.model.names import Guid
from mdmfs.sealing.header import FileKey
from mdmfs.sharing.shamir import SECRET_SIZE, Share
from mdmfs.wire.keystores.gathering import SECOND_THOUGHT
from mdmfs.wire.keystores.keystore import FIRST_PAUSE, LONGEST_PAUSE, MAX_LAGGARDS
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.messages.keystores import Collected, KeyEntry, Outcome, SetAcls, VersionedAcl
from mdmfs.wire.messages.message import MAX_BATCH, Message
from tests.twins.keystores import HOSPITAL, TwinKeystore, principal, random_guid, shares_of, unreachable

NAMES = ("k1", "k2", "k3")
DEADLINE = 10.0
SLOW_SECONDS = 1.01 * MAX_LAGGARDS * SECOND_THOUGHT
"""What a keystore that does not answer costs in all, until it is known to be slow."""
Verify = Callable[[FileKey], None]


@dataclasses.dataclass
class Site:
    """Three keystores and a hospital that registers keys at them."""

    twins: dict[str, TwinKeystore]
    keystores: Keystores
    heard: list[tuple[str, Guid]]
    """What was told of lies."""
    secrets: dict[Guid, bytes] = dataclasses.field(default_factory=dict)

    async def register(self, *guids: Guid) -> None:
        """Split a fresh key for each GUID and deposit the shares."""
        batches: dict[str, list[KeyEntry]] = {name: [] for name in NAMES}
        for guid in guids:
            self.secrets[guid] = secrets.token_bytes(32)
            for name, share in zip(NAMES, shares_of(guid, self.secrets[guid]), strict=True):
                batches[name].append(KeyEntry(share.encode(), []))
        for name, entries in batches.items():
            outcomes = await self.keystores.register(name, entries, deadline=soon())
            assert outcomes == [Outcome.DONE] * len(guids)

    def proof(self, guid: Guid) -> Verify:
        """Give what checks a key as the object's commitment does."""

        def verify(key: FileKey) -> None:
            if bytes(key.octets) != self.secrets[guid]:
                message = "another key"
                raise WrongKeyError(message)

        return verify

    async def key(self, guid: Guid, *, deadline: float | None = None, enough: int | None = None) -> bytes:
        """Collect one key, of all keystores at once unless some are ``enough`` at first."""
        collecting = self.keystores.collecting([guid], deadline=deadline or soon(), enough=enough)
        async with collecting as gathering:
            with await gathering.key(guid, self.proof(guid), threshold=2) as key:
                return bytes(key.octets)


def wrong_shares(keystore: str) -> float:
    """Read the metric, as every program that collects shares tells it."""
    return REGISTRY.get_sample_value("mdmfs_wrong_shares_total", {"keystore": keystore}) or 0.0


def soon() -> float:
    """Give a deadline."""
    return trio.current_time() + DEADLINE


@contextlib.asynccontextmanager
async def taking(clock: MockClock, at_most: float = math.inf) -> AsyncIterator[None]:
    """Fail if the block takes longer, in seconds of a clock that jumps over every wait."""
    start = clock.current_time()
    yield
    assert clock.current_time() - start <= at_most


@pytest.fixture
async def site(nursery: trio.Nursery) -> Site:
    """Three keystores that are well, seen by the hospital."""
    twins = {name: TwinKeystore() for name in NAMES}
    clients = {name: twin.as_seen_by(principal(HOSPITAL)) for name, twin in twins.items()}
    heard: list[tuple[str, Guid]] = []
    keystores = Keystores(clients, nursery, lambda keystore, guid, _: heard.append((keystore, guid)))
    return Site(twins, keystores, heard)


def lying(change: Callable[[Share], bytes]) -> Callable[[Collected], Collected]:
    """Make a keystore change each share it gives."""

    def lie(collected: Collected) -> Collected:
        shares = [change(Share.parse(octets)) if octets else octets for octets in collected.shares]
        return Collected(collected.outcomes, shares)

    return lie


def flipped(share: Share) -> bytes:
    """Flip a bit of the value."""
    return dataclasses.replace(share, y=bytes([share.y[0] ^ 1]) + share.y[1:]).encode()


async def test_the_key_that_was_registered_is_collected(site: Site) -> None:
    """All the way through messages and shelves."""
    guid = random_guid()
    await site.register(guid)
    assert await site.key(guid) == site.secrets[guid]


async def test_siblings_are_collected_in_one_call_to_as_many_keystores_as_are_needed(site: Site) -> None:
    """A series of 400 costs one batch; the keys are made when their headers are at hand."""
    guids = [random_guid() for _ in range(400)]
    await site.register(*guids)
    calls = {name: twin.calls for name, twin in site.twins.items()}
    answers = await site.keystores.collect(guids, enough=2, deadline=soon())
    assert sorted(twin.calls - calls[name] for name, twin in site.twins.items()) == [0, 1, 1]
    assert list(answers) == guids
    for guid in guids:
        with answers[guid].key(site.proof(guid), threshold=2) as key:
            assert bytes(key.octets) == site.secrets[guid]


def counted(site: Site) -> dict[str, list[int]]:
    """Give for how many files each keystore is asked from now on, call by call."""
    asked: dict[str, list[int]] = {name: [] for name in NAMES}

    def counting(calls: list[int]) -> Callable[[Collected], Collected]:
        def count(collected: Collected) -> Collected:
            calls.append(len(collected.outcomes))
            return collected

        return count

    for name, twin in site.twins.items():
        twin.lie = counting(asked[name])
    return asked


async def test_a_keystore_that_lacks_one_share_of_a_batch_is_helped_out_for_that_one(
    site: Site, mock_clock: MockClock
) -> None:
    """The others are not asked for what has come, whoever is asked at first; the clock stands still meanwhile."""
    assert mock_clock.rate == 0
    guids = [random_guid() for _ in range(50)]
    await site.register(*guids)
    await site.keystores.unregister("k1", guids[7:8], deadline=soon())
    asked = counted(site)
    for _ in NAMES:
        answers = await site.keystores.collect(guids, enough=2, deadline=soon())
        assert all(found.has(2) for found in answers.values())
    assert asked == {"k1": [50, 50], "k2": [50, 50, 1], "k3": [1, 50, 50]}


async def test_a_keystore_that_is_late_is_helped_out_for_what_it_still_owes(
    site: Site, autojump_clock: MockClock
) -> None:
    """After a moment, and not again for the file for which another has been of no use before."""
    guids = [random_guid() for _ in range(50)]
    await site.register(*guids)
    await site.keystores.unregister("k2", guids[7:8], deadline=soon())
    asked, site.twins["k1"].delay = counted(site), 5.0
    async with taking(autojump_clock, 5.0):
        answers = await site.keystores.collect(guids, enough=2, deadline=soon())
    assert all(found.has(2) for found in answers.values())
    assert asked == {"k1": [50], "k2": [50], "k3": [1, 49]}


@dataclasses.dataclass
class Punctual:
    """A keystore that answers after so many seconds, to the instant."""

    answer: Collected
    delay: float

    async def call(self, _: str, __: Message, ___: type[Any], *, deadline: float) -> Any:  # noqa: ANN401, ARG002 what is asked for
        """See ``Peer``."""
        await trio.sleep(self.delay)
        return self.answer


async def test_an_answer_in_the_very_moment_in_which_others_are_asked_is_heard(
    site: Site, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Nothing else may come that would wake who waits; in which order it happens is trio's dice."""
    guid = random_guid()
    await site.register(guid)
    found = {name: await site.keystores.collect_from(name, [guid], deadline=soon()) for name in NAMES}
    delays = {"k1": 0.0, "k2": SECOND_THOUGHT, "k3": math.inf}
    answers = {name: Collected([outcome], [share]) for name, ((outcome, share),) in found.items()}
    for _ in range(16):
        clients = {name: Punctual(answers[name], delays[name]) for name in NAMES}
        site.keystores = Keystores(clients, nursery)
        async with taking(autojump_clock, 2 * SECOND_THOUGHT):
            assert await site.key(guid, enough=2) == site.secrets[guid]
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("trouble", ["down", "silent", "slow"])
async def test_one_keystore_in_trouble_delays_nobody_who_asks_all(
    site: Site, name: str, trouble: str, autojump_clock: MockClock
) -> None:
    """Refused, hung or 5 s late: the other two give the key at once."""
    guid = random_guid()
    await site.register(guid)
    twin = site.twins[name]
    match trouble:
        case "down":
            twin.failure = unreachable
        case "silent":
            twin.is_silent = True
        case _:
            twin.delay = 5.0
    async with taking(autojump_clock, 0.0):
        for _ in range(20):
            assert await site.key(guid) == site.secrets[guid]


async def test_keystores_are_asked_in_turn(site: Site) -> None:
    """None has more to do than the others."""
    guid = random_guid()
    await site.register(guid)
    calls = {name: twin.calls for name, twin in site.twins.items()}
    for _ in range(6):
        assert await site.key(guid, enough=2) == site.secrets[guid]
    assert [twin.calls - calls[name] for name, twin in site.twins.items()] == [4, 4, 4]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("trouble", "seconds"),
    [("down", 0.0), ("empty", 0.0), ("lying", 0.0), ("torn", 0.0), ("silent", SLOW_SECONDS), ("slow", SLOW_SECONDS)],
)
async def test_who_was_not_asked_at_first_helps_out(
    site: Site, name: str, trouble: str, seconds: float, autojump_clock: MockClock
) -> None:
    """At once where an answer does not help, after a moment where there is none, soon without the one in trouble."""
    guid, secret = random_guid(), secrets.token_bytes(SECRET_SIZE)
    await site.register(guid)
    twin = site.twins[name]
    others = dict(zip(NAMES, shares_of(guid, secret), strict=True))
    match trouble:
        case "down":
            twin.failure = unreachable
        case "empty":
            twin.lie = lambda collected: Collected([Outcome.UNKNOWN] * len(collected.outcomes), [b""])
        case "lying":
            twin.lie = lying(flipped)
        case "torn":
            twin.lie = lambda collected: Collected(collected.outcomes, [others[name].encode()])
        case "silent":
            twin.is_silent = True
        case _:
            twin.delay = 5.0
    async with taking(autojump_clock, seconds):
        for _ in range(20):
            assert await site.key(guid, enough=2) == site.secrets[guid]
    async with taking(autojump_clock, seconds):
        for _ in range(20):
            answers = await site.keystores.collect([guid], enough=2, deadline=soon())
            assert answers[guid].has(2)
    assert set(site.keystores.lies) == ({name} if trouble == "lying" else set())


async def test_a_slow_keystore_is_never_waited_for_nor_forgotten(site: Site, autojump_clock: MockClock) -> None:
    """Its calls run on in the background, and when another dies its answers are used: late, but right."""
    guid = random_guid()
    await site.register(guid)
    site.twins["k1"].delay = 5.0
    async with taking(autojump_clock):
        for _ in range(50):
            await site.key(guid)
        site.twins["k2"].failure = unreachable
        assert await site.key(guid) == site.secrets[guid]


async def test_two_down_is_a_clear_error_before_the_deadline(site: Site, autojump_clock: MockClock) -> None:
    """Who is down is named; the third one alone is nothing to wait for."""
    guid = random_guid()
    await site.register(guid)
    site.twins["k1"].failure = site.twins["k3"].failure = unreachable
    site.twins["k2"].delay = 3.0
    async with taking(autojump_clock, 0.0):
        with pytest.raises(TooFewSharesError, match=r"k1: the connection was refused.*k3: the connection was refused"):
            await site.key(guid)


async def test_two_that_hang_are_an_error_at_the_deadline_and_then_at_once(
    site: Site, autojump_clock: MockClock
) -> None:
    """The price of an outage is not paid again by every open."""
    guid = random_guid()
    await site.register(guid)
    site.twins["k1"].is_silent = site.twins["k2"].is_silent = True
    async with taking(autojump_clock, DEADLINE):
        with pytest.raises(TooFewSharesError, match=r"k1: .*answer.*; k2: .*answer.*; k3: gave share 3 of 3"):
            await site.key(guid)
    await wait_all_tasks_blocked()
    calls = site.twins["k1"].calls
    async with taking(autojump_clock, 0.0):
        for _ in range(100):
            with pytest.raises(TooFewSharesError, match="asked again in"):
                await site.key(guid)
    assert site.twins["k1"].calls == calls


@pytest.mark.parametrize("outage", [0.5, 5.0, 600.0, 14_400.0])
async def test_it_reads_again_some_seconds_after_a_keystore_is_back(
    site: Site, outage: float, autojump_clock: MockClock
) -> None:
    """However long the outage was and however many opens failed in it."""
    guid = random_guid()
    await site.register(guid)
    site.twins["k1"].failure = site.twins["k2"].failure = unreachable
    end = autojump_clock.current_time() + outage
    while autojump_clock.current_time() < end:
        with pytest.raises(TooFewSharesError):
            await site.key(guid)
        await trio.sleep(max(0.25, outage / 2400))  # more often than a pause can be doubled
    site.twins["k1"].failure = None
    await trio.sleep(LONGEST_PAUSE)
    assert await site.key(guid) == site.secrets[guid]


async def test_calls_that_fail_together_are_one_outage(site: Site, autojump_clock: MockClock) -> None:
    """Fifty opens that meet a restart do not make the pause longer than one open does."""
    guid = random_guid()
    await site.register(guid)
    for name in ("k1", "k2"):
        site.twins[name].failure = unreachable

    async def fail() -> None:
        with pytest.raises(TooFewSharesError):
            await site.key(guid)

    async with taking(autojump_clock, FIRST_PAUSE), trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(fail)
    for name in ("k1", "k2"):
        site.twins[name].failure = None
    await trio.sleep(FIRST_PAUSE)
    assert await site.key(guid) == site.secrets[guid]


async def test_a_keystore_in_outage_is_asked_seldom(site: Site, autojump_clock: MockClock) -> None:
    """A thousand opens in ten seconds cost a handful of attempts."""
    guid = random_guid()
    await site.register(guid)
    site.twins["k1"].failure = unreachable
    calls = site.twins["k1"].calls
    async with taking(autojump_clock):
        for _ in range(1000):
            await site.key(guid)
            await trio.sleep(0.01)
        assert site.twins["k1"].calls - calls <= 6


async def test_a_hung_keystore_holds_a_bounded_number_of_calls(site: Site, autojump_clock: MockClock) -> None:
    """Even before its first call has timed out."""
    guid = random_guid()
    await site.register(guid)
    site.twins["k1"].is_silent = True
    calls = site.twins["k1"].calls
    async with taking(autojump_clock):
        for _ in range(500):
            await site.key(guid)
        assert site.twins["k1"].calls - calls <= 16


async def test_an_answer_after_a_deadline_too_short_is_no_outage(site: Site, autojump_clock: MockClock) -> None:
    """Who gave a keystore a tenth of a second must not keep the next from asking it."""
    guid = random_guid()
    await site.register(guid)
    for twin in site.twins.values():
        twin.delay = 0.3
    async with taking(autojump_clock):
        with pytest.raises(TooFewSharesError):
            await site.key(guid, deadline=trio.current_time() + 0.1)
        assert await site.key(guid) == site.secrets[guid]


async def test_a_call_of_the_hospital_that_succeeds_ends_the_pause(site: Site) -> None:
    """What is known to live is asked."""
    guid = random_guid()
    await site.register(guid)
    for name in ("k1", "k2"):
        site.twins[name].failure = unreachable
    with pytest.raises(TooFewSharesError):
        await site.key(guid)
    for name in ("k1", "k2"):
        site.twins[name].failure = None
        await site.keystores.status(name, [guid], deadline=soon())
    assert await site.key(guid) == site.secrets[guid]


@pytest.mark.parametrize("name", NAMES)
async def test_a_lying_keystore_is_outvoted_counted_and_named(site: Site, name: str, autojump_clock: MockClock) -> None:
    """The key is right, and the operator learns who lied about which file."""
    guid = random_guid()
    await site.register(guid)
    for other in NAMES:
        site.twins[other].delay = 0.0 if other == name else 1.0
    site.twins[name].lie = lying(flipped)
    counted = wrong_shares(name)
    async with taking(autojump_clock):
        with structlog.testing.capture_logs() as lines:
            assert await site.key(guid) == site.secrets[guid]
        assert site.keystores.lies == {name: 1}
        assert wrong_shares(name) == counted + 1
        assert site.heard == [(name, guid)]
        [line] = [line for line in lines if line["log_level"] == "warning"]
        assert (line["keystore"], line["guid"]) == (name, str(guid))
        assert site.secrets[guid].hex() not in repr(lines)


async def test_a_keystore_that_answers_with_anothers_shares_is_named(site: Site) -> None:
    """A share of the neighbouring file opens nothing and is a lie."""
    one, two = random_guid(), random_guid()
    await site.register(one, two)
    site.twins["k1"].lie = lambda collected: Collected(collected.outcomes, collected.shares[::-1])
    async with site.keystores.collecting([one, two], deadline=soon()) as gathering:
        await wait_all_tasks_blocked()
        for guid in (one, two):
            with await gathering.key(guid, site.proof(guid), threshold=2) as key:
                assert bytes(key.octets) == site.secrets[guid]
    assert site.keystores.lies == {"k1": 2}


@pytest.mark.parametrize(
    "lie",
    [
        lambda collected: Collected(collected.outcomes[1:], collected.shares[1:]),
        lambda collected: Collected(collected.outcomes * 2, collected.shares * 2),
        lambda collected: Collected(collected.outcomes, []),
    ],
)
async def test_an_answer_of_another_length_counts_as_none(site: Site, lie: Callable[[Collected], Collected]) -> None:
    """The others give the key; where they cannot, the error names the culprit."""
    guid = random_guid()
    await site.register(guid)
    site.twins["k1"].lie = lie
    assert await site.key(guid) == site.secrets[guid]
    site.twins["k2"].failure = unreachable
    with pytest.raises(TooFewSharesError, match="k1 gave"):
        await site.key(guid)


async def test_two_liars_of_three_give_no_key(site: Site) -> None:
    """Never a wrong one."""
    guid = random_guid()
    await site.register(guid)
    for name in ("k1", "k3"):
        site.twins[name].lie = lying(lambda share: dataclasses.replace(share, y=secrets.token_bytes(32)).encode())
    with pytest.raises(IntegrityError, match="no set of shares"):
        await site.key(guid)


async def test_decisions_that_were_received_are_access_denied(
    site: Site, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A stranger is denied by two at once, without waiting for the third that hangs."""
    guid = random_guid()
    await site.register(guid)
    site.twins["k2"].is_silent = True
    stranger = principal("/DC=org/CN=stranger")
    clients = {name: twin.as_seen_by(stranger) for name, twin in site.twins.items()}
    strangers = Keystores(clients, nursery)
    async with taking(autojump_clock, 0.0), strangers.collecting([guid], deadline=soon()) as gathering:
        with pytest.raises(AccessDeniedError):
            await gathering.key(guid, site.proof(guid), threshold=2)


async def test_an_outage_is_never_told_as_denied(site: Site, nursery: trio.Nursery) -> None:
    """One no and one silence of three leave it open."""
    guid = random_guid()
    await site.register(guid)
    site.twins["k2"].failure = site.twins["k3"].failure = unreachable
    stranger = principal("/DC=org/CN=stranger")
    clients = {name: twin.as_seen_by(stranger) for name, twin in site.twins.items()}
    async with Keystores(clients, nursery).collecting([guid], deadline=soon()) as gathering:
        with pytest.raises(TooFewSharesError):
            await gathering.key(guid, site.proof(guid), threshold=2)


async def test_an_expired_proxy_is_told_as_such(site: Site, nursery: trio.Nursery) -> None:
    """The user can mend that, and should not look for his ACL."""
    guid = random_guid()
    await site.register(guid)
    expired = principal(HOSPITAL, not_after=1.0)
    clients = {name: twin.as_seen_by(expired) for name, twin in site.twins.items()}
    async with Keystores(clients, nursery).collecting([guid], deadline=soon()) as gathering:
        with pytest.raises(CredentialExpiredError):
            await gathering.key(guid, site.proof(guid), threshold=2)


async def test_an_unknown_guid_is_settled_without_waiting(site: Site, autojump_clock: MockClock) -> None:
    """Nobody holds it, and nobody waits for a share that cannot come."""
    known, unknown = random_guid(), random_guid()
    await site.register(known)
    async with taking(autojump_clock, 0.0):
        answers = await site.keystores.collect([known, unknown, known], enough=2, deadline=soon())
        with answers[known].key(site.proof(known), threshold=2) as key:
            assert bytes(key.octets) == site.secrets[known]
        with pytest.raises(TooFewSharesError, match="holds no share"):
            answers[unknown].key(site.proof(known), threshold=2)


async def test_more_than_a_batch_is_asked_in_several(site: Site) -> None:
    """The caller need not count."""
    guids = [random_guid() for _ in range(MAX_BATCH + 1)]
    answers = await site.keystores.collect(guids, enough=2, deadline=soon())
    assert len(answers) == MAX_BATCH + 1
    assert site.twins["k1"].calls == 2
    statuses = await site.keystores.status("k1", guids, deadline=soon())
    assert [status.outcome for status in statuses] == [Outcome.UNKNOWN] * (MAX_BATCH + 1)


async def test_the_outbox_speaks_to_each_keystore_alone(site: Site) -> None:
    """One that is down keeps nobody from registering at the others: Hydra needed all servers."""
    guid = random_guid()
    shares = shares_of(guid, bytes(32))
    site.twins["k2"].failure = unreachable
    done = []
    for name, share in zip(NAMES, shares, strict=True):
        with contextlib.suppress(Exception):
            done += await site.keystores.register(name, [KeyEntry(share.encode(), [])], deadline=soon())
    assert done == [Outcome.DONE, Outcome.DONE]
    site.secrets[guid] = bytes(32)
    assert await site.key(guid) == bytes(32)


async def test_acls_and_destruction_travel_like_keys(site: Site) -> None:
    """Every answer comes back in the order asked."""
    guid = random_guid()
    await site.register(guid)
    acl = Acl(str(HOSPITAL), ()).encode()
    acls = [VersionedAcl(b"i" * 16, version, acl) for version in (2, 1)]
    assert await site.keystores.set_acls("k1", acls, deadline=soon()) == [Outcome.DONE, Outcome.CONFLICT]
    assert await site.keystores.unregister("k1", [guid, random_guid()], deadline=soon()) == [Outcome.DONE] * 2
    [status] = await site.keystores.status("k1", [guid], deadline=soon())
    assert status.outcome is Outcome.DESTROYED
    assert await site.key(guid) == site.secrets[guid]


async def test_an_answer_to_a_register_of_another_length_is_refused() -> None:
    """An outbox must not take an entry for kept that nobody spoke of."""

    class Short:
        async def call(self, path: str, message: Message, reply: type[Any], *, deadline: float) -> Any:  # noqa: ANN401
            _ = path, message, deadline
            await trio.lowlevel.checkpoint()
            return reply([])

    async with trio.open_nursery() as nursery:
        keystores = Keystores({"k1": Short()}, nursery)
        with pytest.raises(MalformedMessageError, match="0 answers to a batch of 1"):
            await keystores.unregister("k1", [random_guid()], deadline=soon())


async def test_without_keystores_nothing_starts(nursery: trio.Nursery) -> None:
    """An empty table is a mistake in a file."""
    with pytest.raises(ConfigurationError):
        Keystores({}, nursery)


async def test_a_caller_who_is_cancelled_leaves_the_connections_alone(site: Site, autojump_clock: MockClock) -> None:
    """The calls end by themselves: a cancelled one would cost its connection."""
    guid = random_guid()
    await site.register(guid)
    for twin in site.twins.values():
        twin.delay = 1.0
    async with taking(autojump_clock):
        with trio.move_on_after(0.5) as scope:
            await site.key(guid)
        assert scope.cancelled_caught
        assert await site.key(guid) == site.secrets[guid]


async def test_large_acls_travel_in_messages_that_are_taken(site: Site) -> None:
    """Batches are bounded in bytes too."""
    sizes: list[int] = []
    keystore = site.twins["k1"].keystore

    class Measuring:
        async def call(self, path: str, message: Message, reply: type[Any], *, deadline: float) -> Any:  # noqa: ANN401
            _ = path, reply, deadline
            assert isinstance(message, SetAcls)
            sizes.append(sum(len(acl.acl) for acl in message.acls))
            return await keystore.set_acls(principal(HOSPITAL), message)

    large = Acl("/CN=" + "x" * 4000, ()).encode()
    acls = [VersionedAcl(number.to_bytes(16, "big"), 1, large) for number in range(3000)]
    async with trio.open_nursery() as nursery:
        outcomes = await Keystores({"k1": Measuring()}, nursery).set_acls("k1", acls, deadline=math.inf)
    assert outcomes == [Outcome.DONE] * 3000
    assert len(sizes) == 2
    assert max(sizes) <= 8 * 2**20
