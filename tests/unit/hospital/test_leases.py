"""The hospital's memory of leases: a cluster that comes back at once gets them all, and who has gone is forgotten."""

from __future__ import annotations

import trio
import trio.testing

from mdmfs.hospital.leases import SILENCE, Leases
from tests.twins.keystores import principal

LEASE = 5.0
Clock = trio.testing.MockClock


def mount(number: int) -> bytes:
    """Name a mount."""
    return number.to_bytes(16, "big")


async def test_mounts_that_come_back_all_at_once_are_all_granted_a_lease(autojump_clock: Clock) -> None:
    """Each is heard before any of them is answered, and none is taken for one whose lease has lapsed."""
    leases, who = Leases(), principal("/CN=reader")
    for number in range(200):
        leases.hear(mount(number), who, "192.0.2.1", 7)
        await trio.sleep(0.02)
    assert [leases.grant(mount(number), who, LEASE) for number in range(200)] == [LEASE] * 200
    assert len(leases.behind(8)) == 200


async def test_only_who_holds_a_lease_is_waited_for(autojump_clock: Clock) -> None:
    """Not who has asked for one, nor who has let it lapse."""
    leases, who = Leases(), principal("/CN=reader")
    leases.hear(mount(1), who, "192.0.2.1", 7)
    assert not leases.behind(8)
    leases.grant(mount(1), who, LEASE)
    assert [lease.address for lease in leases.behind(8)] == ["192.0.2.1"]
    assert not leases.behind(7)
    await trio.sleep(LEASE + 0.1)
    assert not leases.behind(8)
    assert leases.grant(mount(1), who, LEASE) == LEASE


async def test_who_does_not_ask_any_more_makes_room_for_others(autojump_clock: Clock) -> None:
    """A full house grants no lease to one more, and drops nobody who still asks."""
    leases, who = Leases(room=2), principal("/CN=reader")
    for number in (1, 2, 3):
        leases.hear(mount(number), who, "192.0.2.1", 7)
    assert [leases.grant(mount(number), who, LEASE) for number in (1, 2, 3)] == [LEASE, LEASE, 0.0]
    await trio.sleep(SILENCE - 1)
    leases.hear(mount(1), who, "192.0.2.1", 7)
    await trio.sleep(2)
    leases.hear(mount(3), who, "192.0.2.1", 7)
    assert [leases.grant(mount(number), who, LEASE) for number in (1, 2, 3)] == [LEASE, 0.0, LEASE]


async def test_a_lease_that_is_given_back_is_waited_for_no_longer_and_never_comes_again(autojump_clock: Clock) -> None:
    """Not by a question that waited at the hospital meanwhile, nor one that comes late; the next mount begins anew."""
    leases, who = Leases(), principal("/CN=reader")
    for number in (1, 2):
        leases.hear(mount(number), who, "192.0.2.1", 7)
        leases.grant(mount(number), who, LEASE)
    leases.give_back(mount(1), who)
    assert [lease.applied for lease in leases.behind(8)] == [7]
    leases.hear(mount(1), who, "192.0.2.1", 7)
    assert [leases.grant(mount(number), who, LEASE) for number in (1, 2)] == [0.0, LEASE]
    assert len(leases.behind(8)) == 1
    leases.hear(mount(3), who, "192.0.2.1", 7)
    assert leases.grant(mount(3), who, LEASE) == LEASE


async def test_nobody_gives_back_what_is_anothers(autojump_clock: Clock) -> None:
    """Whoever has heard the number of a mount, or makes one up, takes nobody out of what a change waits for."""
    leases, who = Leases(), principal("/CN=reader")
    leases.hear(mount(1), who, "192.0.2.1", 7)
    leases.grant(mount(1), who, LEASE)
    for thief in ("/CN=other", "/CN=reader/CN=proxy", "/CN=Reader"):
        leases.give_back(mount(1), principal(thief))
    leases.give_back(mount(2), who)
    assert len(leases.behind(8)) == 1
    assert leases.grant(mount(1), who, LEASE) == LEASE


async def test_a_report_that_comes_again_after_the_lease_was_given_back_counts_once() -> None:
    """The answer to it was lost, and it was told again with the last word."""
    leases, who = Leases(), principal("/CN=reader")
    leases.hear(mount(1), who, "192.0.2.1", 7)
    assert leases.reported(mount(1), who, 1)
    leases.give_back(mount(1), who)
    assert not leases.reported(mount(1), who, 1)
