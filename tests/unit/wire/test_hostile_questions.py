"""What is asked in bad faith: each connection ends in one clear answer or none, soon, and takes no more than it may."""

from __future__ import annotations

import logging
import re
from typing import Self, cast

import msgspec
import pytest
import trio
import trio.testing

from mdmfs.model.errors import MalformedMessageError, MdmfsError, StoreError
from mdmfs.model.identity import Dn, Principal
from mdmfs.wire.allowances import Allowances, Limits
from mdmfs.wire.caller import Caller
from mdmfs.wire.conversation import LONG_BYTES, Conversation, Terms
from mdmfs.wire.messages.keystores import Collect, Collected
from mdmfs.wire.messages.message import MAX_MESSAGE_BYTES, Failure
from mdmfs.wire.service import Answer, Document, Octets, Reply, Request, Respond, Service, StreamReply
from mdmfs.wire.stream import SEND_BYTES, Address, TlsStream

END = b""
HEAD = b"POST /v1/ask HTTP/1.1\r\nhost: x\r\n"
BODY = msgspec.msgpack.encode(Collect([bytes(16)]))
QUESTION = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
ELSEWHERE = b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n"
LONG = HEAD + b"content-length: %d\r\n\r\n" % MAX_MESSAGE_BYTES
CRUMB = b"1\r\nx\r\n"
LIMITS = Limits(head_seconds=10, idle_seconds=75, message_seconds=30, long_messages_of_a_principal=1)


class Said:
    """A stream over which this is said; a number is seconds of silence, and after the last there is nothing more."""

    def __init__(self, *said: bytes | float | OSError) -> None:
        self._said = list(said)
        self.answer = bytearray()
        self.end = "broken off"
        self.gone_after = 2**62
        """Bytes of an answer after which the peer is gone."""

    async def receive_into(self, buffer: memoryview) -> int:
        """Give what fits of what is said next."""
        await trio.lowlevel.checkpoint()
        octets = self._said.pop(0) if self._said else float("inf")
        if isinstance(octets, float):
            await trio.sleep(octets)
            return await self.receive_into(buffer)
        if isinstance(octets, OSError):
            raise octets
        rest = octets[len(buffer) :]
        if rest:
            self._said.insert(0, rest)
        buffer[: len(octets) - len(rest)] = octets[: len(buffer)]
        return len(octets) - len(rest)

    def send_at_once(self, octets: memoryview) -> bool:
        """Take it."""
        self.answer += octets
        if len(self.answer) > self.gone_after:
            raise BrokenPipeError
        return True

    def is_readable(self) -> bool:
        """Ask whether more is here."""
        return bool(self._said)

    def close(self) -> None:
        """End in order."""
        self.end = "in order"

    async def close_when_heard(self) -> None:
        """End in order."""
        await trio.lowlevel.checkpoint()
        self.end = "when heard"

    @property
    def statuses(self) -> list[int]:
        """Give the statuses of what was answered."""
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", self.answer)]

    @property
    def reason(self) -> str:
        """Give the reason of a refusal."""
        return msgspec.msgpack.decode(bytes(self.answer).rpartition(b"\r\n\r\n")[2], type=Failure).message


class Somebody:
    """A caller whose credential holds."""

    def __init__(self, name: str = "somebody") -> None:
        self.dn = Dn.parse(f"/DC=org/DC=example/CN={name}")

    async def principal(self) -> Principal:
        """Give him."""
        await trio.lowlevel.checkpoint()
        return Principal(self.dn, (), float("inf"))

    def is_over(self) -> bool:
        """Ask whether it has ended."""
        return False


async def answer(request: Request) -> Answer:
    """Answer what is asked."""
    asked = await request.read(Collect)
    return Reply(Collected([], asked.guids))


def terms_of(respond: Respond = answer, limits: Limits = LIMITS) -> Terms:
    """Serve with this."""
    return Terms(Service("hospital", {("POST", "/v1/ask"): respond}), limits, Allowances(limits))


async def hear(said: Said, terms: Terms | None = None, who: str = "somebody") -> Said:
    """Answer what is said, until one of both ends it."""
    stream, caller = cast("TlsStream", said), cast("Caller", Somebody(who))
    await Conversation(stream, Address("worker.example.org", 8443), caller, terms or terms_of()).run()
    return said


@pytest.mark.parametrize(
    ("said", "statuses", "seconds"),
    [
        pytest.param([], [], LIMITS.idle_seconds, id="nothing"),
        pytest.param([70.0, QUESTION], [200], 70 + LIMITS.idle_seconds, id="a question after a while"),
        pytest.param([b"POST"], [], LIMITS.head_seconds, id="no end of a head"),
        pytest.param([*[b"a", 1.0] * 100], [], LIMITS.head_seconds, id="a drip of a head"),
        pytest.param([QUESTION + b"POST"], [200], LIMITS.head_seconds, id="half a head behind a question"),
        pytest.param([LONG, *[b"a", 1.0] * 100], [400], LIMITS.message_seconds, id="a drip of a body"),
        pytest.param(
            [HEAD + b"transfer-encoding: chunked\r\n\r\n", *[CRUMB, 1.0] * 100], [400], 30, id="drip of chunks"
        ),
    ],
)
async def test_who_says_it_slowly_is_not_waited_for(
    said: list[bytes | float], statuses: list[int], seconds: float, autojump_clock: trio.testing.MockClock
) -> None:
    """However little he says, and how often."""
    assert autojump_clock.rate == 0
    begun = trio.current_time()
    heard = await hear(Said(*said))
    assert heard.statuses == statuses
    assert trio.current_time() - begun == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize(
    ("said", "statuses", "end"),
    [
        pytest.param([QUESTION, END], [200], "in order", id="a question"),
        pytest.param([QUESTION + QUESTION, END], [200, 200], "in order", id="two at once"),
        pytest.param([ELSEWHERE, END], [404], "in order", id="another path"),
        pytest.param([LONG, b"1", END], [400], "when heard", id="half a body, then the end"),
        pytest.param([LONG, b"1", ConnectionResetError()], [], "broken off", id="half a body, then a reset"),
        pytest.param([b"POST /nowhere" + LONG[12:] + b"1"], [404], "when heard", id="a long body that nobody reads"),
        pytest.param([b"POST /nowhere" + QUESTION[12:], END], [404], "in order", id="a short body that nobody reads"),
        pytest.param([b"POST", END], [], "in order", id="half a head"),
        pytest.param([b"\x16\x03\x01\x02"], [400], "when heard", id="TLS in TLS"),
        pytest.param([ConnectionResetError()], [], "broken off", id="a reset"),
        pytest.param([LONG, bytes(MAX_MESSAGE_BYTES)], [400], "in order", id="the longest body"),
    ],
)
async def test_what_is_no_question_ends_the_connection(
    said: list[bytes | float | OSError], statuses: list[int], end: str
) -> None:
    """After an answer that says why, where anybody may still hear it; else it is broken off."""
    with trio.move_on_after(5):
        heard = await hear(Said(*said), terms_of(limits=Limits(idle_seconds=0.1)))
        assert (heard.statuses, heard.end) == (statuses, end)
        return
    pytest.fail("it went on")


@pytest.mark.parametrize("first", [b"transfer-encoding: chunked\r\n", b"content-length: 4\r\n"])
async def test_a_body_with_two_ends_is_refused(first: bytes) -> None:
    """What the one who passes it on takes for the body may hold a question of his that another one is answered."""
    both = [b"transfer-encoding: chunked\r\n", b"content-length: 4\r\n"]
    both.sort(key=first.__ne__)
    heard = await hear(Said(HEAD + b"".join(both) + b"\r\n0\r\n\r\n" + QUESTION, END))
    assert heard.statuses == [400]


async def test_who_waits_to_be_told_to_go_on_is_told() -> None:
    """Before his body is waited for (RFC 9110 section 10.1.1)."""
    head, body = QUESTION[: -len(BODY)], QUESTION[-len(BODY) :]
    heard = await hear(Said(head.replace(b"host: x", b"host: x\r\nexpect: 100-continue"), body, END))
    assert heard.statuses == [100, 200]


async def test_a_body_is_read_once() -> None:
    """Who wants it again is told so, and does not wait for the next question's."""

    async def respond(request: Request) -> Answer:
        await request.body()
        return Reply(await request.read(Collect))

    split = [QUESTION[:-1], QUESTION[-1:], END]
    assert "read already" in (await hear(Said(*split), terms_of(respond))).reason


async def test_long_messages_of_one_principal_take_turns(autojump_clock: trio.testing.MockClock) -> None:
    """Sixteen MiB over each of three thousand connections are more than a machine has; short ones wait for none."""
    assert autojump_clock.rate == 0
    terms = terms_of()
    held = Said(LONG, bytes(LONG_BYTES + 1), 25.0, END)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear, held, terms)
        await trio.sleep(1)
        refused = await hear(Said(LONG, bytes(LONG_BYTES + 1), b"more"), terms)
        assert refused.statuses == [503]
        assert refused.end == "when heard"
        assert "retry-after: 5" in refused.answer.decode("latin-1")
        assert "long messages at once" in refused.reason
        assert (await hear(Said(LONG, bytes(LONG_BYTES), END), terms)).statuses == [400]
        assert (await hear(Said(QUESTION, END), terms)).statuses == [200]
        other = await hear(Said(LONG, bytes(LONG_BYTES + 1), END), terms, "another")
        assert other.statuses == [400]
    guids = Collect([bytes(16)] * 10_000)
    octets = msgspec.msgpack.encode(guids)
    assert len(octets) > LONG_BYTES
    again = HEAD + b"content-length: %d\r\n\r\n" % len(octets) + octets
    assert (await hear(Said(again * 3, END), terms)).statuses == [200] * 3


async def test_who_is_told_of_a_head_gets_no_body() -> None:
    """And how long it would be."""

    async def respond(_: Request) -> Answer:
        await trio.lowlevel.checkpoint()
        return Document(b"body")

    service = Service("hospital", {("HEAD", "/"): respond, ("GET", "/"): respond})
    terms = Terms(service, LIMITS, Allowances(LIMITS))
    heads = b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n"
    heard = await hear(Said(heads, END), terms)
    first, second = bytes(heard.answer).split(b"HTTP/1.1 200")[1:]
    assert b"content-length: 4" in first
    assert first.endswith(b"\r\n\r\n")
    assert second.endswith(b"\r\n\r\nbody")


class Failing:
    """A stream that fails after some pieces, if at all."""

    def __init__(self, pieces: int, error: Exception | None) -> None:
        self.is_closed = False
        self._pieces = pieces
        self._error = error

    async def respond(self, _: Request) -> Answer:
        """Answer with it."""
        await trio.lowlevel.checkpoint()
        return StreamReply(None, "", self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Octets:
        await trio.lowlevel.checkpoint()
        if self._pieces:
            self._pieces -= 1
            return bytes(SEND_BYTES)
        raise self._error or StopAsyncIteration

    async def aclose(self) -> None:
        """Close it."""
        await trio.lowlevel.checkpoint()
        self.is_closed = True


async def test_a_stream_that_fails_before_it_begins_is_a_refusal() -> None:
    """And closed: whoever has its object open lets go of it."""
    failing = Failing(0, StoreError("no"))
    assert (await hear(Said(QUESTION, END), terms_of(failing.respond))).statuses == [500]
    assert failing.is_closed


@pytest.mark.parametrize("error", [StoreError("the shelf is away"), MalformedMessageError("no"), ValueError("secret")])
async def test_a_stream_that_fails_later_is_cut(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """What had come goes out before, and the log tells why; of an error that nobody foresaw only its kind."""
    failing = Failing(2, error)
    heard = await hear(Said(QUESTION, END), terms_of(failing.respond))
    assert (heard.statuses, heard.end, failing.is_closed) == ([200], "broken off", True)
    assert len(heard.answer) > 2 * SEND_BYTES
    assert not heard.answer.endswith(b"0\r\n\r\n")
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "an answer was cut short" in record.getMessage()
    assert ("the shelf is away" in record.getMessage()) == isinstance(error, StoreError)
    assert "secret" not in record.getMessage()
    assert isinstance(error, MdmfsError) or "ValueError" in record.getMessage()


async def test_who_is_gone_in_the_middle_of_an_answer_is_no_failure_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    """Programs that read a header go away so, thousands a day: the log has better things to tell."""
    said, failing = Said(QUESTION, END), Failing(5, None)
    said.gone_after = SEND_BYTES
    heard = await hear(said, terms_of(failing.respond))
    assert (heard.statuses, heard.end, failing.is_closed) == ([200], "broken off", True)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
