"""Associations are few, kept while they are of use, and never leaked."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from mdmfs.hospital.dicom.negotiation import MAX_STORAGE_CONTEXTS
from mdmfs.hospital.dicom.pacs import InstanceKey, Politeness
from mdmfs.hospital.dicom.pool import Pool, Surroundings
from mdmfs.hospital.dicom.remote import RemotePacs, open_pacs
from tests.twins.scripted_pacs import CT, EXPLICIT, Script, ScriptedPeer, pdu, serving

JPEG = "1.2.840.10008.1.2.4.70"
MR = "1.2.840.10008.5.1.4.1.1.4"
VERIFICATION = "1.2.840.10008.1.1"


def answering(requests: int, *, pause: float = 0.0, ending: bytes = b"") -> Script:
    """Make a script that answers so many C-ECHO or C-GET requests, then sends ``ending`` and closes."""

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        for _ in range(requests):
            command, _ = await peer.read_request()
            await trio.sleep(pause)
            if command[0x0100] == b"\x30\x00":
                await peer.respond(0x8030, VERIFICATION, 0)
                continue
            context = next(iter(peer.roles))
            await peer.store("1.2.3.4.5", b"content", class_uid=context, context=context)
            await peer.finish_get()
        await peer.send(ending)

    return script


def key(syntax: str = EXPLICIT, class_uid: str = CT) -> InstanceKey:
    """Name the instance."""
    return InstanceKey("1.2.3", "1.2.3.4", "1.2.3.4.5", class_uid, syntax)


async def recall(pacs: RemotePacs, wanted: InstanceKey) -> str:
    """Retrieve one instance; the transfer syntax that it came in."""
    syntaxes = []
    async with pacs.retrieve([wanted]) as instances:
        async for instance in instances:
            async for _ in instance:
                pass
            syntaxes.append(instance.transfer_syntax)
    (syntax,) = syntaxes
    return syntax


async def test_one_association_serves_one_request_after_another() -> None:
    """Recalls and queries alike."""
    async with serving(answering(100)) as site, open_pacs(site.address) as pacs:
        for _ in range(3):
            await recall(pacs, key())
            await pacs.echo()
        assert site.connections == 1


async def test_there_are_never_more_associations_than_allowed() -> None:
    """Whoever comes later waits for his turn."""
    async with serving(answering(100, pause=0.01)) as site, open_pacs(site.address, Politeness(2)) as pacs:
        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(recall, pacs, key((EXPLICIT, JPEG)[number % 2]))
        assert site.most_open == 2


async def test_a_class_is_offered_in_the_recorded_transfer_syntax_only() -> None:
    """A PACS that had the choice would convert; so another transfer syntax means another association."""
    proposals: list[set[tuple[str, str]]] = []

    async def noting(peer: ScriptedPeer) -> None:
        await peer.accept()
        proposals.append({it for it in peer.contexts.values() if it[0] in {CT, MR}})
        assert peer.roles == {name for name, _ in proposals[-1]}
        while True:
            _, identifier = await peer.read_request()
            assert b"IMAGE" in identifier
            context = CT if proposals[-1] != {(CT, JPEG), (MR, EXPLICIT)} else MR
            await peer.store("1.2.3.4.5", b"content", class_uid=context, context=context)
            await peer.finish_get()

    async with serving(noting) as site, open_pacs(site.address) as pacs:
        assert await recall(pacs, key(EXPLICIT)) == EXPLICIT
        assert await recall(pacs, key(JPEG)) == JPEG
        assert await recall(pacs, key(EXPLICIT)) == EXPLICIT
        assert await recall(pacs, key(EXPLICIT, MR)) == EXPLICIT
    # The third recall finds the first association; the fourth one offers what was asked for before as well, and of CT
    # the pair that was negotiated last.
    assert proposals == [{(CT, EXPLICIT)}, {(CT, JPEG)}, {(CT, JPEG), (MR, EXPLICIT)}]


async def accepting(peer: ScriptedPeer) -> None:
    """Accept, and be released."""
    await peer.accept()
    assert await peer.read_pdu() == (5, bytes(4))
    await peer.send(pdu(6, bytes(4)))


def class_of(number: int) -> str:
    """Name a storage class."""
    return f"1.2.840.10008.5.1.4.1.1.{number}"


async def test_an_association_offers_the_latest_pairs_and_no_more_than_there_is_room_for() -> None:
    """128 contexts is all that PS3.8 has, and four are for the services."""
    async with serving(accepting) as site:
        pool = Pool(site.address, Politeness(1), Surroundings())
        for start in range(0, 180, 60):
            asked = {class_of(number): (EXPLICIT,) for number in range(start, start + 60)}
            connection = await pool.take(asked)
            pool.give_back(connection)
        await pool.aclose()
    assert set(connection.offer) == {class_of(number) for number in range(180 - MAX_STORAGE_CONTEXTS, 180)}


async def test_an_association_serves_who_needs_all_of_its_classes_and_no_other() -> None:
    """A class that was asked for in several transfer syntaxes is offered in them once, and not remembered."""
    async with serving(accepting) as site:
        pool = Pool(site.address, Politeness(1), Surroundings())
        pool.give_back(await pool.take({CT: (EXPLICIT,)}))
        both = await pool.take({CT: (EXPLICIT,), MR: (EXPLICIT,)})
        assert both.offer == {CT: (EXPLICIT,), MR: (EXPLICIT,)}
        pool.give_back(both)
        assert await pool.take({MR: (EXPLICIT,)}) is both
        pool.give_back(both)
        chosen = await pool.take({MR: (EXPLICIT, JPEG)})
        pool.give_back(chosen)
        pool.give_back(await pool.take({class_of(9): (EXPLICIT,)}))
        other = await pool.take({class_of(10): (EXPLICIT,)})
        assert other.offer == {class_of(10): (EXPLICIT,), class_of(9): (EXPLICIT,), CT: (EXPLICIT,)}
        pool.give_back(other)
        await pool.aclose()


async def test_an_idle_association_is_released_in_order(autojump_clock: trio.testing.MockClock) -> None:
    """After the idle time, and not before."""
    ended_at: list[float] = []

    async def noting(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.read_request()
        await peer.respond(0x8030, VERIFICATION, 0)
        assert await peer.read_pdu() == (5, bytes(4))
        ended_at.append(trio.current_time())
        await peer.send(pdu(6, bytes(4)))

    async with serving(noting) as site, open_pacs(site.address, Politeness(idle_seconds=60)) as pacs:
        await pacs.echo()
        await trio.sleep(200)
        assert 60 <= ended_at[0] < 80
        await pacs.echo()
    assert len(ended_at) == 2
    assert autojump_clock.current_time() < 300


async def test_an_association_that_is_being_released_has_its_place_until_it_has_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Who comes meanwhile waits, and is served then: the PACS never bears one more."""
    is_releasing = trio.Event()

    async def slow(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.read_request()
        await peer.respond(0x8030, VERIFICATION, 0)
        await peer.read_pdu()
        is_releasing.set()
        await trio.sleep(0.5)
        await peer.send(pdu(6, bytes(4)))

    async with serving(slow) as site, open_pacs(site.address, Politeness(1, idle_seconds=60)) as pacs:
        await pacs.echo()
        await is_releasing.wait()
        await pacs.echo()
        assert (site.connections, site.most_open) == (2, 1)
    assert autojump_clock.current_time() < 300


async def test_nothing_is_kept_where_nothing_may_be_idle() -> None:
    """Takers and the task that releases meet all the time, and nobody falls over the other."""
    polite = Politeness(max_associations=2, idle_seconds=0)
    async with serving(answering(100, pause=0.005)) as site, open_pacs(site.address, polite) as pacs:
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(recall, pacs, key((EXPLICIT, JPEG)[number % 3 == 0]))
        await trio.sleep(0.1)
        assert site.most_open <= 2
        assert site.open_now == 0


async def test_a_pacs_that_ignores_the_release_is_left_anyway(autojump_clock: trio.testing.MockClock) -> None:
    """Within seconds: shutting down must not hang on a peer."""

    async def deaf(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.read_request()
        await peer.respond(0x8030, VERIFICATION, 0)
        await peer.read_pdu()
        await trio.sleep_forever()

    async with serving(deaf) as site:
        async with open_pacs(site.address) as pacs:
            await pacs.echo()
        assert autojump_clock.current_time() < 5


async def test_an_association_that_the_pacs_ended_is_not_used_again() -> None:
    """Neither after an abort, nor a release, nor a closed connection."""
    for ending in (b"", pdu(7, bytes(4)), pdu(5, bytes(4))):
        async with serving(answering(1, ending=ending)) as site, open_pacs(site.address) as pacs:
            for count in range(1, 4):
                await pacs.echo()
                await trio.sleep(0.01)
                assert site.connections == count


async def test_an_association_that_ends_as_we_ask_is_asked_for_anew() -> None:
    """The PACS was about to close it when our request crossed; the reader does not notice."""

    async def forgetful(peer: ScriptedPeer) -> None:
        await answering(1)(peer)
        await peer.read_request()

    async with serving(forgetful) as site, open_pacs(site.address) as pacs:
        for connections in (1, 2, 3):
            assert await recall(pacs, key()) == EXPLICIT
            assert site.connections == connections
        await pacs.echo()
        assert site.connections == 4


async def test_a_recall_left_early_aborts_its_association() -> None:
    """So the PACS stops sending at once."""
    aborted = trio.Event()

    async def endless(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.read_request()
        try:
            await peer.store("1.2.3.4.5", bytes(16 * 2**20))
        finally:
            aborted.set()

    async with serving(endless) as site, open_pacs(site.address) as pacs:
        async with pacs.retrieve([key()]) as instances:
            await anext(aiter(await anext(instances)))
        with trio.fail_after(2):
            await aborted.wait()


async def test_a_cancelled_recall_aborts_its_association_and_the_next_is_served() -> None:
    """With one place only: it is free again at once."""

    async def stuck(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.read_request()
        await peer.read_request()

    async with serving(stuck, answering(1)) as site, open_pacs(site.address, Politeness(1)) as pacs:
        with trio.move_on_after(0.05) as scope:
            await recall(pacs, key())
        assert scope.cancelled_caught
        with trio.fail_after(2):
            assert await recall(pacs, key()) == EXPLICIT


async def test_a_cancelled_wait_for_a_place_takes_none() -> None:
    """Somebody who gave up while waiting leaves nothing behind."""

    async def slow(peer: ScriptedPeer) -> None:
        await peer.accept()
        await trio.sleep(0.2)
        while True:
            await peer.read_request()
            await peer.respond(0x8030, VERIFICATION, 0)

    async with serving(slow) as site, open_pacs(site.address, Politeness(1)) as pacs, trio.open_nursery() as nursery:
        nursery.start_soon(pacs.echo)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            with trio.move_on_after(0.01):
                await pacs.echo()
        with trio.fail_after(2):
            await pacs.echo()


async def test_what_the_body_raises_comes_out_as_it_is() -> None:
    """No exception group crosses the interface."""
    async with serving(answering(1)) as site:
        with pytest.raises(KeyError):
            async with open_pacs(site.address):
                raise KeyError
