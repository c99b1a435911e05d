"""The hospital's memory of leases: a cluster that comes back at once gets them all, and who has gone is forgotten."""

from __future__ import annotations

import trio
import trio.testing

from mdmfs.hospital.rights.leases import SILENCE, Leases
from tests.twins.keystores import principal

LEASE = 5.0
Clock = trio.testing.MockClock


def mount(number: int) -> bytes:
    """Name a mount."""
    return number.to_bytes(16, "big")


async def test_mounts_that_come_back_all_at_once_are_all_granted_a_lease(autojump_clock: Clock) -> None:
    """Each is heard before any of them is answered, and none is taken for one whose lease has lapsed."""
    autojump_clock.autojump_threshold = 0
    leases, who = Leases(), principal("/CN=reader")
    for number in range(200):
        leases.hear(mount(number), who, "192.0.2.1", 7)
        await trio.sleep(0.02)
    assert [leases.grant(mount(number), who, LEASE) for number in range(200)] == [LEASE] * 200
    assert len(leases.behind(8)) == 200


async def test_only_who_holds_a_lease_is_waited_for(autojump_clock: Clock) -> None:
    """Not who has asked for one, nor who has let it lapse."""
    autojump_clock.autojump_threshold = 0
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
    autojump_clock.autojump_threshold = 0
    leases, who = Leases(room=2), principal("/CN=reader")
    for number in (1, 2, 3):
        leases.hear(mount(number), who, "192.0.2.1", 7)
    assert [leases.grant(mount(number), who, LEASE) for number in (1, 2, 3)] == [LEASE, LEASE, 0.0]
    await trio.sleep(SILENCE - 1)
    leases.hear(mount(1), who, "192.0.2.1", 7)
    await trio.sleep(2)
    leases.hear(mount(3), who, "192.0.2.1", 7)
    assert [leases.grant(mount(number), who, LEASE) for number in (1, 2, 3)] == [LEASE, 0.0, LEASE]
