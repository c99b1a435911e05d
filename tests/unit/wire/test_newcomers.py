"""Who waits to shake hands: each host in its own row."""

from __future__ import annotations

import socket

import trio
import trio.testing

from mdmfs.wire.newcomers import Newcomers, has_hung_up


async def shake_hands(newcomers: Newcomers, host: str, shaking: list[str], done: trio.Event) -> None:
    """Come, wait, shake hands until it is done, and leave."""
    newcomers.come(host)
    async with newcomers.turn(host):
        shaking.append(host)
        await done.wait()
    newcomers.leave(host)


async def test_a_crowd_of_one_host_waits_and_delays_no_other_host() -> None:
    """None is turned away; two at once shake hands, and another host's at the same time."""
    newcomers, shaking, done = Newcomers(most=10, of_a_host=8, at_once=2), [], trio.Event()
    async with trio.open_nursery() as nursery:
        for host in ["crowd"] * 8 + ["other"]:
            assert newcomers.has_room_for(host)
            nursery.start_soon(shake_hands, newcomers, host, shaking, done)
            await trio.testing.wait_all_tasks_blocked()
        assert sorted(shaking) == ["crowd", "crowd", "other"]
        assert not newcomers.has_room_for("crowd")
        assert newcomers.has_room_for("other")
        done.set()
    assert sorted(shaking) == ["crowd"] * 8 + ["other"]
    assert newcomers.has_room_for("crowd")


def test_the_addresses_of_one_network_are_one_host() -> None:
    """Whoever has one IPv6 address mostly has 2**64 of them; an IPv4 address that is written as one is one."""
    newcomers = Newcomers(most=10, of_a_host=2, at_once=1)
    for host in ("2001:db8::1", "2001:db8::ffff:1", "::ffff:192.0.2.1"):
        newcomers.come(host)
    assert not newcomers.has_room_for("2001:db8::2")
    for host in ("2001:db8:0:1::1", "::ffff:192.0.2.2", "192.0.2.1", "fe80::1%eth0"):
        assert newcomers.has_room_for(host)
    newcomers.come("::ffff:192.0.2.1")
    assert not newcomers.has_room_for("::ffff:192.0.2.1")
    newcomers.leave("2001:db8::ffff:1")
    assert newcomers.has_room_for("2001:db8::2")


def test_there_is_an_end_to_all_that_wait() -> None:
    """However many hosts they come from."""
    newcomers = Newcomers(most=2, of_a_host=2, at_once=1)
    newcomers.come("one")
    newcomers.come("two")
    assert not newcomers.has_room_for("three")
    newcomers.leave("one")
    assert newcomers.has_room_for("three")


def test_who_was_tired_of_waiting_is_seen_to_have_gone() -> None:
    """Also where he has sent something before."""
    ours, theirs = socket.socketpair()
    with ours:
        theirs.send(b"hello")
        assert not has_hung_up(ours)
        theirs.close()
        assert has_hung_up(ours)
