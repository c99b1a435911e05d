"""What a PACS can do wrong in a recall: one clear error, one association lost, nothing else."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from mdmfs.hospital.dicom.pacs import InstanceKey, Politeness
from mdmfs.hospital.dicom.remote import RemotePacs, open_pacs
from mdmfs.model.errors import (
    InstanceLostError,
    MdmfsError,
    PacsUnreachableError,
    RecallFailedError,
    RecallTimedOutError,
)
from tests.twins.pacs_faults import (
    CONTENT,
    FAULTS,
    FIRST,
    SILENCES,
    abort_within,
    asked,
    close_between_fragments,
    close_within,
    half_close,
)
from tests.twins.scripted_pacs import (
    CT,
    EXPLICIT,
    FIND,
    GET,
    MOVE,
    PENDING,
    Script,
    ScriptedPeer,
    encode_identifier,
    pdu,
    serving,
)

STUDY, SERIES, SECOND = "1.2.3", "1.2.3.4", "1.2.3.4.6"


def key(uid: str = FIRST) -> InstanceKey:
    """Name an instance as it was registered."""
    return InstanceKey(STUDY, SERIES, uid, CT, EXPLICIT)


async def recall(pacs: RemotePacs, *keys: InstanceKey) -> dict[str, bytes]:
    """Retrieve instances whole."""
    came = {}
    async with pacs.retrieve(keys or [key()]) as instances:
        async for instance in instances:
            content = b"".join([bytes(buffer) async for buffer in instance])
            came[instance.instance_uid] = content
    return came


async def good(peer: ScriptedPeer) -> None:
    """Do everything right, for whatever is asked, as long as somebody asks."""
    await peer.accept()
    while True:
        command, identifier = await peer.read_request()
        if command[0x0100] == b"\x30\x00":
            await peer.respond(0x8030, "1.2.840.10008.1.1", 0)
        elif command[0x0100] == b"\x20\x00":
            await peer.respond(0x8020, FIND, PENDING, encode_identifier({0x0008_0018: FIRST}))
            await peer.respond(0x8020, FIND, 0)
        else:
            for uid in (FIRST, SECOND):
                if uid.encode() in identifier:
                    assert await peer.store(uid, CONTENT) == 0
            await peer.finish_get()


async def exhaust(stepping: AsyncIterator[memoryview]) -> None:
    """Step until it ends or raises."""
    async for _ in stepping:
        pass


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_one_error_and_one_association(fault: Script) -> None:
    """The recall fails, its association is gone, and the next recall succeeds on a new one."""
    async with serving(fault, good) as site, open_pacs(site.address) as pacs:
        with trio.fail_after(5), pytest.raises(RecallFailedError) as caught:
            await recall(pacs)
        assert str(caught.value).startswith("SCRIPTED@127.0.0.1:")
        assert not any(uid in str(caught.value) for uid in (STUDY, CT, EXPLICIT))
        assert await recall(pacs) == {FIRST: CONTENT}
        assert site.connections == 2


@pytest.mark.parametrize("fault", [abort_within, close_within, close_between_fragments, half_close])
async def test_a_truncated_instance_never_looks_whole(fault: Script) -> None:
    """It raises where it broke, and again however often it is stepped on."""
    async with serving(fault) as site, open_pacs(site.address) as pacs, pacs.retrieve([key()]) as instances:
        instance = await anext(instances)
        stepping = aiter(instance)
        with trio.fail_after(5), pytest.raises(RecallFailedError):
            await exhaust(stepping)
        for _ in range(3):
            with pytest.raises(RecallFailedError):
                await anext(stepping)
        assert not instance.is_complete


@pytest.mark.parametrize("fault", SILENCES)
async def test_a_pacs_without_progress_is_given_up(fault: Script, autojump_clock: trio.testing.MockClock) -> None:
    """After the progress timeout, not after hours of single bytes."""
    async with serving(fault) as site, open_pacs(site.address, Politeness(progress_timeout=30)) as pacs:
        start = trio.current_time()
        with pytest.raises(RecallTimedOutError):
            await recall(pacs)
        assert 29 < trio.current_time() - start < 70
    assert autojump_clock.current_time() > 0


async def test_a_slow_pacs_is_not_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """As long as instances end, or 64 KiB come, within the timeout; here the whole takes far longer."""

    async def slow(peer: ScriptedPeer) -> None:
        await asked(peer)
        encoded = peer.store_request(FIRST, CONTENT)
        for start in range(0, len(encoded), 50_000):
            await trio.sleep(14)
            await peer.send(encoded[start : start + 50_000])
        await peer.read_request()
        await peer.finish_get()

    async with serving(slow) as site, open_pacs(site.address, Politeness(progress_timeout=30)) as pacs:
        assert await recall(pacs) == {FIRST: CONTENT}
    assert autojump_clock.current_time() > 50


async def test_a_slow_consumer_is_not_the_fault_of_the_pacs(autojump_clock: trio.testing.MockClock) -> None:
    """The time that the consumer takes does not count."""
    async with serving(good) as site, open_pacs(site.address, Politeness(progress_timeout=30)) as pacs:
        total = 0
        async with pacs.retrieve([key(), key(SECOND)]) as instances:
            async for instance in instances:
                async for buffer in instance:
                    total += len(buffer)
                    await trio.sleep(100)
        assert total == 2 * len(CONTENT)
    assert autojump_clock.current_time() >= 200


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xA701, 0xA702, 0xA900, 0xC000, 0xFE00])
async def test_what_is_held_but_not_sent_is_a_failure_with_its_status(status: int) -> None:
    """Zero sub-operations and success, warnings and failures alike; the association stays in use."""

    async def refusing(peer: ScriptedPeer) -> None:
        await peer.accept()
        while True:
            command, _ = await peer.read_request()
            if command[0x0100] == b"\x20\x00":
                await peer.respond(0x8020, FIND, PENDING, encode_identifier({0x0008_0018: FIRST}))
                await peer.respond(0x8020, FIND, 0)
            else:
                await peer.respond(0x8010, GET, PENDING)
                await peer.respond(0x8010, GET, status, encode_identifier({0x0008_0058: FIRST}))

    async with serving(refusing) as site, open_pacs(site.address) as pacs:
        with pytest.raises(RecallFailedError, match=f"0x{status:04X}"):
            await recall(pacs)
        assert site.connections == 1


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xA900, 0xC000])
async def test_what_is_not_held_is_lost_whatever_the_status_says(status: int) -> None:
    """The PACS is asked before an image is called lost."""

    async def empty(peer: ScriptedPeer) -> None:
        await peer.accept()
        while True:
            command, _ = await peer.read_request()
            await peer.respond(*((0x8020, FIND, 0) if command[0x0100] == b"\x20\x00" else (0x8010, GET, status)))

    async with serving(empty) as site, open_pacs(site.address) as pacs:
        with pytest.raises(InstanceLostError):
            await recall(pacs)


async def test_a_pacs_that_cannot_do_lists_is_asked_one_by_one() -> None:
    """It fails for a list and serves each instance of it."""

    async def no_lists(peer: ScriptedPeer) -> None:
        await peer.accept()
        while True:
            _, identifier = await peer.read_request()
            if b"\\" in identifier:
                await peer.finish_get(0xA900)
            else:
                await peer.store(FIRST if FIRST.encode() in identifier else SECOND, CONTENT)
                await peer.finish_get()

    async with serving(no_lists) as site, open_pacs(site.address) as pacs:
        assert await recall(pacs, key(FIRST), key(SECOND)) == {FIRST: CONTENT, SECOND: CONTENT}


async def test_a_pacs_that_fails_everything_is_soon_left_in_peace() -> None:
    """Eight missing instances are enough, however many were wanted."""
    requests = 0

    async def failing(peer: ScriptedPeer) -> None:
        nonlocal requests
        await peer.accept()
        while True:
            command, _ = await peer.read_request()
            requests += 1
            await peer.respond(*((0x8020, FIND, 0) if command[0x0100] == b"\x20\x00" else (0x8010, GET, 0xA701)))

    async with serving(failing) as site, open_pacs(site.address) as pacs:
        with pytest.raises(InstanceLostError):
            await recall(pacs, *(key(f"{SERIES}.{number}") for number in range(1, 1000)))
    assert requests < 20


async def test_a_refused_context_is_said_before_anything_is_asked() -> None:
    """The PACS would convert, or fail one by one."""

    async def refusing(peer: ScriptedPeer) -> None:
        await peer.accept(refused=(CT,))
        await peer.read_request()

    async with serving(refusing) as site, open_pacs(site.address) as pacs:
        with pytest.raises(RecallFailedError, match="no presentation context for CT Image Storage"):
            await recall(pacs)


@pytest.mark.parametrize(
    ("refused", "said"),
    [((GET,), "offers C-MOVE only"), ((GET, MOVE), "does not offer C-GET to the AE title MDMFS")],
)
async def test_a_pacs_without_get_says_so(refused: tuple[str, ...], said: str) -> None:
    """Many offer C-MOVE only, and a hospital without an SCP has nowhere to move to."""

    async def no_get(peer: ScriptedPeer) -> None:
        await peer.accept(refused=refused)
        await peer.read_request()

    async with serving(no_get) as site, open_pacs(site.address) as pacs:
        with pytest.raises(RecallFailedError, match=said):
            await recall(pacs)


REJECTIONS = [
    ((1, 1, 7), "not called by that AE title"),
    ((1, 1, 3), "does not know our AE title"),
    ((2, 3, 2), "limit of associations is reached"),
    ((2, 3, 1), "congested"),
    ((1, 9, 9), "source 9, reason 9"),
]


@pytest.mark.parametrize(("body", "said"), REJECTIONS)
async def test_a_rejection_says_why(body: tuple[int, int, int], said: str) -> None:
    """In words, and in the numbers of the standard."""

    async def rejecting(peer: ScriptedPeer) -> None:
        await peer.read_pdu()
        await peer.send(pdu(3, bytes([0, *body])))

    async with serving(rejecting) as site, open_pacs(site.address) as pacs:
        with pytest.raises(PacsUnreachableError, match=said):
            await pacs.echo()


async def test_nobody_listening_is_unreachable() -> None:
    """And says where."""
    async with serving(good) as site:
        address = site.address
    async with open_pacs(address) as pacs:
        with pytest.raises(PacsUnreachableError, match=f"SCRIPTED@127.0.0.1:{address.port}: no connection"):
            await pacs.echo()


BAD_ANSWERS = [
    b"",
    pdu(7, bytes(4)),
    pdu(6, bytes(4)),
    pdu(2, bytes(68) + b"\x21\0\xff\xff"),
    pdu(2, bytes(68) + b"\x21\0\0\x01\x01"),
    pdu(2, bytes(68) + b"\x50\0\0\x08\x51\0\0\x04\0\0\0\x01"),
    pdu(2, bytes(68) + b"\x21\0\0\x0c\x01\0\0\0\x40\0\0\x041.29"),
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    struct.pack(">BxI", 2, 2**31),
]


@pytest.mark.parametrize("answer", BAD_ANSWERS)
async def test_a_bad_answer_to_the_association_request_is_unreachable(answer: bytes) -> None:
    """Whatever listens there is no PACS that we could talk to."""

    async def answering(peer: ScriptedPeer) -> None:
        await peer.read_pdu()
        await peer.send(answer)

    async with serving(answering) as site, open_pacs(site.address) as pacs:
        with trio.fail_after(5), pytest.raises(PacsUnreachableError):
            await pacs.echo()


async def test_a_port_that_never_answers_is_unreachable(autojump_clock: trio.testing.MockClock) -> None:
    """After the connect timeout."""

    async def mute(peer: ScriptedPeer) -> None:
        await peer.read_pdu()
        await trio.sleep_forever()

    async with serving(mute) as site, open_pacs(site.address, Politeness(connect_timeout=10)) as pacs:
        with pytest.raises(PacsUnreachableError, match="within 10 s"):
            await pacs.echo()
    assert 10 <= autojump_clock.current_time() < 20


@pytest.mark.parametrize("field", [0x8030, 0x8010])
async def test_an_echo_is_answered_with_success_or_not_at_all(field: int) -> None:
    """A status, or an answer to something else, is a failure."""

    async def answering(peer: ScriptedPeer) -> None:
        await asked(peer)
        await peer.respond(field, "1.2.840.10008.1.1", 0x0122 if field == 0x8030 else 0)
        await peer.read_request()

    async with serving(answering, good) as site, open_pacs(site.address) as pacs:
        with pytest.raises(MdmfsError):
            await pacs.echo()
        await pacs.echo()
