"""Our SCP and what its peers can do wrong: one association lost, nothing else; and who is let in at all."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from pydicom import Dataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)
from pynetdicom import AE

from mdmfs.hospital.dicom.acceptor import ContextResult
from mdmfs.hospital.dicom.negotiation import VERIFICATION, Context, Proposal
from mdmfs.hospital.dicom.pacs import PacsAddress
from mdmfs.hospital.dicom.receive import ReceiverLimits, choose_context
from tests.twins.images import ct_slice
from tests.twins.pacs import encoded_data_set
from tests.twins.receiver import AE_TITLE, Reception, receiving
from tests.twins.scripted_pacs import (
    CT,
    EXPLICIT,
    associate_request,
    elements_of,
    message,
    pdu,
    pdv,
    pdvs,
)

PACS = PacsAddress("ARCHIVE", "127.0.0.1", 104, "MDMFS")


class Caller:
    """The asking side of one connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream

    async def read(self, count: int) -> bytes:
        """Receive exactly so many bytes; fewer where the SCP has closed."""
        received = b""
        while len(received) < count:
            try:
                some = await self.stream.receive_some(count - len(received))
            except trio.BrokenResourceError:
                break
            if not some:
                break
            received += bytes(some)
        return received

    async def read_pdu(self) -> tuple[int, bytes]:
        """Receive one PDU; type 0 where the SCP has closed."""
        header = await self.read(6)
        if len(header) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxI", header)
        return kind, await self.read(length)

    async def associate(self) -> None:
        """Ask for an association and get it."""
        await self.stream.send_all(associate_request())
        kind, _ = await self.read_pdu()
        assert kind == 2

    async def status(self) -> int:
        """Receive a response."""
        kind, body = await self.read_pdu()
        assert kind == 4
        (fragment,) = pdvs(body)
        return int.from_bytes(elements_of(fragment[2:])[0x0900], "little")

    async def is_let_go(self) -> bool:
        """Wait until the SCP has aborted or closed."""
        with trio.fail_after(5):
            while True:
                kind, _ = await self.read_pdu()
                if kind in {0, 7}:
                    return True


@contextlib.asynccontextmanager
async def calling(reception: Reception) -> AsyncIterator[Caller]:
    """Connect."""
    stream = await trio.open_tcp_stream("127.0.0.1", reception.port)
    async with stream:
        yield Caller(stream)


def store_request(
    instance: Dataset | None = None, *, uid: str = "", data_set: bytes | None = None, **more: int | str
) -> bytes:
    """Write a C-STORE request for a slice, or for other bytes."""
    held = instance or ct_slice(1, size=8)
    command: dict[int, int | str] = {0x0002: CT, 0x0100: 1, 0x0110: 7, 0x0700: 0, 0x0800: 1}
    command[0x1000] = uid or str(held.SOPInstanceUID)
    content = encoded_data_set(held) if data_set is None else data_set
    return message(3, {**command, **{int(key[1:], 16): value for key, value in more.items()}}, content)


async def works(reception: Reception) -> None:
    """Store a slice as a PACS does: the SCP is well."""
    before = len(reception.noted)
    async with calling(reception) as caller:
        with trio.fail_after(5):
            await caller.associate()
            await caller.stream.send_all(store_request())
            assert await caller.status() == 0
            await caller.stream.send_all(pdu(5, bytes(4)))
            assert await caller.read_pdu() == (6, bytes(4))
            assert await caller.read_pdu() == (0, b"")
    assert len(reception.noted) == before + 1


REJECTIONS = [
    ({"calling": "MODALITY"}, (1, 1, 3)),
    ({"called": "SOMEBODY"}, (1, 1, 7)),
    ({"application": b"1.2.3"}, (1, 1, 2)),
    ({"version": 2}, (1, 1, 2)),
]


@pytest.mark.parametrize(("asked", "expected"), REJECTIONS)
async def test_a_rejection_says_why(asked: dict[str, str], expected: tuple[int, int, int]) -> None:
    """Result, source and reason of PS3.8 Table 9-21."""
    async with receiving(PACS) as reception:
        async with calling(reception) as caller:
            await caller.stream.send_all(associate_request(**asked))  # type: ignore[arg-type]
            assert await caller.read_pdu() == (3, bytes((0, *expected)))
            assert await caller.is_let_go()
        await works(reception)


async def test_one_association_too_many_is_refused_for_the_moment() -> None:
    """Transient, by the provider: local limit exceeded."""
    async with receiving(PACS, limits=ReceiverLimits(associations=2)) as reception:
        async with calling(reception) as one, calling(reception) as two, calling(reception) as three:
            await one.associate()
            await two.associate()
            await three.stream.send_all(associate_request())
            assert await three.read_pdu() == (3, bytes((0, 2, 3, 2)))
        await trio.sleep(0.05)
        await works(reception)


async def test_pynetdicom_understands_what_we_accept() -> None:
    """AE titles, contexts, the refused one among them; C-ECHO and release."""
    async with receiving(PACS) as reception:

        def talk() -> tuple[list[str], int]:
            entity = AE(ae_title="ARCHIVE")
            entity.add_requested_context(VERIFICATION)
            entity.add_requested_context(CTImageStorage, [ImplicitVRLittleEndian, RLELossless])
            entity.add_requested_context("1.2.840.10008.5.1.4.1.2.2.1")
            association = entity.associate("127.0.0.1", reception.port, ae_title=AE_TITLE)
            assert association.is_established
            chosen = [str(it.transfer_syntax[0]) for it in association.accepted_contexts]
            status = association.send_c_echo().Status
            association.release()
            return chosen, status

        chosen, status = await trio.to_thread.run_sync(talk)
        assert chosen == [ImplicitVRLittleEndian, RLELossless]
        assert status == 0


GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    bytes(100),
    struct.pack(">BxI", 1, 2**32 - 1),
    struct.pack(">BxI", 1, 128 * 2**10 + 1),
    pdu(1, b"short"),
    pdu(4, pdv(3, 3, bytes(10))),
    pdu(2, bytes(68)),
    associate_request({2: (CT, [EXPLICIT])}),
    associate_request({1: (CT, [])}),
    associate_request({1: (CT, [EXPLICIT] * 65)}),
    associate_request({1: ("1" * 65, [EXPLICIT])}),
    pdu(1, associate_request()[6:] + b"!"),
]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_in_place_of_a_request_ends_the_connection(garbage: bytes) -> None:
    """At once, and nobody else notices."""
    async with receiving(PACS) as reception:
        async with calling(reception) as caller:
            await caller.stream.send_all(garbage)
            assert await caller.is_let_go()
        await works(reception)


BEGUN = store_request(data_set=b"begun")[:-17] + pdu(4, pdv(3, 0, b"begun"))
"""An instance without its last fragment."""
AFTERWARDS = [
    pdu(4, b""),
    pdu(4, struct.pack(">IBB", 1000, 3, 3) + bytes(10)),
    pdu(4, pdv(5, 3, bytes(10))),
    pdu(4, pdv(3, 3, b"\xff" * 100)),
    pdu(9, bytes(4)),
    associate_request(),
    struct.pack(">BxI", 4, 2**32 - 1),
    pdu(4, pdv(3, 2, b"a data set without a command")),
    message(3, {0x0002: CT, 0x0100: 0x20, 0x0110: 7, 0x0700: 0, 0x0800: 1}, b""),
    message(3, {0x0002: CT, 0x0100: 1, 0x0110: 7, 0x0700: 0, 0x0800: 0x0101, 0x1000: "1.2.3"}),
    message(3, {0x0002: CT, 0x0100: 1, 0x0110: 7, 0x0700: 0, 0x0800: 1}, b"no instance"),
    message(1, {0x0002: VERIFICATION, 0x0100: 1, 0x0110: 7, 0x0700: 0, 0x0800: 1, 0x1000: "1.2.3"}, b"no storage"),
    message(3, {0x0002: "1.2.3", 0x0100: 1, 0x0110: 7, 0x0700: 0, 0x0800: 1, 0x1000: "1.2.3"}, b"another class"),
    BEGUN + pdu(4, pdv(3, 3, bytes(10))),
    BEGUN + store_request(),
]


@pytest.mark.parametrize("fault", AFTERWARDS)
async def test_a_fault_in_an_association_ends_it(fault: bytes) -> None:
    """One association lost, nothing noted, nothing else."""
    async with receiving(PACS) as reception:
        async with calling(reception) as caller:
            await caller.associate()
            await caller.stream.send_all(fault)
            assert await caller.is_let_go()
        assert reception.noted == []
        await works(reception)


SLOWNESS = [
    (False, b"", b""),
    (False, b"", associate_request()),
    (True, b"", store_request(ct_slice(1, size=64))),
    (True, BEGUN, b"x" * 1000),
    (True, b"", b""),
]
"""Half open, a request that drips, an instance that drips, fragments of one byte without end, and idle."""


@pytest.mark.parametrize(("is_associated", "begin", "drops"), SLOWNESS)
async def test_who_keeps_us_waiting_is_let_go(
    is_associated: bool,  # noqa: FBT001 - a test's parameter
    begin: bytes,
    drops: bytes,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """In time, whatever he drips."""

    async def drip(caller: Caller) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await caller.stream.send_all(begin)
            for byte in drops:
                await caller.stream.send_all(pdu(4, pdv(3, 0, bytes([byte]))) if begin else bytes([byte]))
                await trio.sleep(1)

    async with receiving(PACS) as reception, calling(reception) as caller, trio.open_nursery() as nursery:
        if is_associated:
            await caller.associate()
        nursery.start_soon(drip, caller)
        with trio.move_on_after(400) as scope:
            while (await caller.read_pdu())[0] not in {0, 7}:
                pass
        assert not scope.cancelled_caught
        assert autojump_clock.current_time() < 350
        nursery.cancel_scope.cancel()
    assert reception.noted == []


async def test_a_flood_of_connections_is_bounded() -> None:
    """What is too much is closed; as soon as there is room, the PACS is served again."""
    async with receiving(PACS, limits=ReceiverLimits(connections=5)) as reception:
        async with contextlib.AsyncExitStack() as stack:
            callers = [await stack.enter_async_context(calling(reception)) for _ in range(30)]
            await trio.sleep(0.1)
            for caller in callers[5:]:
                assert await caller.read_pdu() == (0, b"")
            await callers[0].associate()
        await trio.sleep(0.1)
        await works(reception)


async def test_strangers_cannot_keep_a_pacs_out() -> None:
    """They have few places of their own."""
    limits = ReceiverLimits(connections=8, strangers=2)
    async with (
        receiving(PACS, hosts=("192.0.2.1",), limits=limits) as reception,
        contextlib.AsyncExitStack() as stack,
    ):
        callers = [await stack.enter_async_context(calling(reception)) for _ in range(6)]
        await trio.sleep(0.1)
        for caller in callers[2:]:
            assert await caller.read_pdu() == (0, b"")
        await callers[0].stream.send_all(associate_request())
        assert await callers[0].read_pdu() == (3, bytes((0, 1, 1, 3)))


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
async def test_study_and_series_are_found_in_every_encoding(syntax: str) -> None:
    """However small the pieces are that they come in."""
    instance = ct_slice(1, size=16, syntax=RLELossless if syntax == RLELossless else "")
    instance.file_meta.TransferSyntaxUID = syntax
    async with receiving(PACS) as reception, calling(reception) as caller:
        await caller.stream.send_all(associate_request({3: (CT, [syntax])}))
        await caller.read_pdu()
        command = {0x0002: CT, 0x0100: 1, 0x0110: 7, 0x0700: 0, 0x0800: 1, 0x1000: str(instance.SOPInstanceUID)}
        await caller.stream.send_all(message(3, command, encoded_data_set(instance), 7))
        assert await caller.status() == 0
        (noted,) = reception.noted
        assert noted[1:3] == (instance.StudyInstanceUID, instance.SeriesInstanceUID)
        assert str(instance.SOPInstanceUID) not in repr(noted)


@pytest.mark.parametrize("content", [b"no data set at all", bytes(10_000), b"\x08\x00\x05\x00CS\xff\xff" * 10])
async def test_what_cannot_be_understood_is_answered_so(content: bytes) -> None:
    """C000, and the association goes on."""
    async with receiving(PACS) as reception, calling(reception) as caller:
        await caller.associate()
        await caller.stream.send_all(store_request(data_set=content))
        assert await caller.status() == 0xC000
        await caller.stream.send_all(store_request())
        assert await caller.status() == 0
        assert len(reception.noted) == 1


async def test_a_notice_that_cannot_be_stored_is_answered_with_a700() -> None:
    """And with nothing else: then the PACS sends again."""
    async with receiving(PACS) as reception, calling(reception) as caller:
        await caller.associate()
        reception.is_full = True
        await caller.stream.send_all(store_request())
        assert await caller.status() == 0xA700
        reception.is_full = False
        await caller.stream.send_all(store_request())
        assert await caller.status() == 0


async def test_what_comes_late_for_a_move_of_ours_is_no_notice() -> None:
    """It says whose it was: the PACS hears that nobody waits, and nothing is registered for it."""
    async with receiving(PACS) as reception, calling(reception) as caller:
        number = reception.moves.open(object())  # type: ignore[arg-type] # it never takes anything
        reception.moves.close(number)
        await caller.associate()
        for title, expected in ((PACS.calling_ae_title, 0xA701), (PACS.ae_title, 0xA701), ("MODALITY", 0)):
            await caller.stream.send_all(store_request(_0x1030=title, _0x1031=number))
            assert await caller.status() == expected
        assert len(reception.noted) == 1


async def test_a_truncated_instance_is_no_notice() -> None:
    """The connection is cut behind whole fragments."""
    async with receiving(PACS) as reception:
        async with calling(reception) as caller:
            await caller.associate()
            await caller.stream.send_all(store_request(ct_slice(1, size=256))[:-3_000])
        await trio.sleep(0.05)
        assert reception.noted == []
        await works(reception)


LOSSY = str(JPEGBaseline8Bit)
CHOICES = [
    ([ExplicitVRLittleEndian, RLELossless], [], RLELossless),
    ([LOSSY, ImplicitVRLittleEndian], [], ImplicitVRLittleEndian),
    ([LOSSY], [], LOSSY),
    ([ImplicitVRLittleEndian, ExplicitVRLittleEndian], [(ExplicitVRLittleEndian,)], ExplicitVRLittleEndian),
    (
        [RLELossless, ExplicitVRLittleEndian],
        [(RLELossless, ExplicitVRLittleEndian), (ExplicitVRLittleEndian,)],
        ExplicitVRLittleEndian,
    ),
    ([JPEG2000Lossless], [(ExplicitVRLittleEndian,)], None),
    ([ExplicitVRBigEndian], [], None),
    (["1.2.3.4"], [], None),
]


@pytest.mark.parametrize(("proposed", "offers", "expected"), CHOICES)
def test_one_transfer_syntax_is_chosen(
    proposed: list[str], offers: list[tuple[str, ...]], expected: str | None
) -> None:
    """The recorded one for a move; for a notice one that we read; a lossy one only where it stands alone."""
    chosen = choose_context(Proposal(1, CT, tuple(proposed)), offers)
    if expected is None:
        assert chosen is ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED
    else:
        assert chosen == Context(CT, expected)
