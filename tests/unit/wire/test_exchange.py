"""Answers at a glance and by h11: the same bytes have the same outcome, whatever they say, wherever they are cut."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Sequence

import h11
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from mdmfs.model.errors import (
    CredentialExpiredError,
    CredentialRefusedError,
    MalformedMessageError,
    MdmfsError,
    PeerUnreachableError,
)
from mdmfs.wire.client import Client
from mdmfs.wire.download import Download
from mdmfs.wire.exchange import HEAD_BYTES, Exchange, NoAnswerError, Question, refusal
from mdmfs.wire.messages.files import Totals
from mdmfs.wire.messages.keystores import Collect, Collected
from mdmfs.wire.messages.message import MEDIA_TYPE
from mdmfs.wire.orders import SIGNATURE_HEADER, SIGNER_HEADER
from mdmfs.wire.plain import read_answer, read_request, write_answer
from mdmfs.wire.stream import Address

PEER = Address("keystore.example.org", 8443)
TYPE = ("content-type", MEDIA_TYPE)
SIGNED = (SIGNER_HEADER, "a0" * 32), (SIGNATURE_HEADER, "09" * 64)
PLAIN = Question("POST", "/v1/collect", (TYPE,), b"\x81\xa5guids\x90", is_idempotent=True)
OTHER = PLAIN._replace(headers=(TYPE, ("mdmfs-reason", "a test")))
"""Nothing that asks so is plain, so all its answers are h11's."""
WHOLE = write_answer(Totals(3, 2**40), "Fri, 27 Nov 2026 12:00:00 GMT")
HEAD, _, BODY = WHOLE.partition(b"\r\n\r\n")
LINES = [line + b"\r\n" for line in HEAD.split(b"\r\n")]
LENGTH = b"content-length: %d" % len(BODY)
ALERT = ssl.SSLError(1, "tlsv13 alert certificate required")
ALERT.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
ENDS = {
    "in order": None,
    "without TLS's end": ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
    "reset": ConnectionResetError(104, "Connection reset by peer"),
    "alert": ALERT,
}
Outcome = tuple[object, ...]


class Script:
    """A stream whose peer says what it is told to, piece by piece, and then ends in some way."""

    def __init__(self, pieces: Sequence[bytes], ending: OSError | None = None) -> None:
        self._pieces = [piece for piece in pieces if piece]
        self._ending = ending
        self.sent = b""
        self.buffers: list[memoryview] = []
        """Where what it said was received."""

    async def receive_into(self, buffer: memoryview, hoped: int = 1) -> int:
        """Give the next piece, or as much of it as fits."""
        del hoped
        await trio.lowlevel.checkpoint()
        self.buffers.append(buffer)
        if not self._pieces:
            if self._ending is not None:
                raise self._ending
            return 0
        piece = self._pieces.pop(0)
        count = min(len(piece), len(buffer))
        buffer[:count] = piece[:count]
        if piece[count:]:
            self._pieces.insert(0, piece[count:])
        return count

    def send_at_once(self, octets: bytes | bytearray | memoryview) -> bool:
        """Hear it."""
        self.sent += octets
        return True

    async def send_all(self, octets: bytes | bytearray | memoryview) -> None:
        """Hear it."""
        await trio.lowlevel.checkpoint()
        self.sent += octets

    def is_readable(self) -> bool:
        """Ask whether there is more."""
        return bool(self._pieces)

    def close(self) -> None:
        """End."""

    abort = close


async def outcome(question: Question, pieces: Sequence[bytes], ending: OSError | None) -> Outcome:
    """Tell all that can be seen of an exchange."""
    stream = Script(pieces, ending)
    try:
        download = await Exchange(PEER).ask(stream, question)
        headers = dict(download.headers)
        body = bytes(await download.read())
    except (MdmfsError, NoAnswerError) as error:
        return type(error), str(error), type(error.__cause__)
    return download.status, headers, body, download.etag, download.is_reusable, stream.is_readable()


async def same_outcome(*pieces: bytes, ending: OSError | None = None) -> Outcome:
    """Ask in the plain form and in another."""
    plain = await outcome(PLAIN, pieces, ending)
    assert plain == await outcome(OTHER, pieces, ending)
    return plain


@pytest.mark.parametrize("question", [PLAIN, PLAIN._replace(headers=(TYPE, *SIGNED))])
async def test_a_plain_question_is_written_as_h11_writes_it(question: Question) -> None:
    """To the byte, so no server can tell them apart."""
    stream, protocol = Script([WHOLE]), h11.Connection(h11.CLIENT)
    await Exchange(PEER).ask(stream, question)
    assert read_request(stream.sent) is not None
    headers = [("host", str(PEER)), *question.headers, ("content-length", str(len(question.body)))]
    request = h11.Request(method="POST", target=question.path, headers=headers)
    events = request, h11.Data(question.body), h11.EndOfMessage()
    assert stream.sent == b"".join(protocol.send(event) or b"" for event in events)


@pytest.mark.parametrize("ending", ENDS.values(), ids=ENDS)
async def test_a_whole_answer_is_taken_at_a_glance(ending: OSError | None) -> None:
    """And leaves the connection good for another; how it ends later is nobody's concern now."""
    assert read_answer(WHOLE) is not None
    status, _, body, _, is_reusable, _ = await same_outcome(WHOLE, ending=ending)
    assert (status, body, is_reusable) == (200, BODY, True)


@pytest.mark.parametrize("ending", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("cut", range(len(WHOLE)))
async def test_an_answer_cut_anywhere_is_an_error(cut: int, ending: OSError | None) -> None:
    """However the connection ends there."""
    kind, *_ = await same_outcome(WHOLE[:cut], ending=ending)
    assert isinstance(kind, type)
    assert issubclass(kind, MdmfsError if cut or ending is ALERT else NoAnswerError)


@pytest.mark.parametrize("cut", range(1, len(WHOLE)))
async def test_an_answer_in_two_pieces_is_the_same_answer(cut: int) -> None:
    """Wherever it is divided."""
    assert await same_outcome(WHOLE[:cut], WHOLE[cut:]) == await same_outcome(WHOLE)


@pytest.mark.parametrize("more", [b"\0", b"\r\n", b"HTTP/1.1", WHOLE])
async def test_more_than_an_answer_is_an_error(more: bytes) -> None:
    """What comes behind an answer nobody asked for; and a piece that comes later meets who asks next."""
    kind, message, _ = await same_outcome(WHOLE + more)
    assert kind is MalformedMessageError
    assert "more than the" in str(message)
    *_, is_reusable, has_more = await same_outcome(WHOLE, more)
    assert (is_reusable, has_more) == (True, True)


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (WHOLE.replace(b"200 ", b"200 OK"), 200),
        (WHOLE.replace(b"date", b"Date"), 200),
        (WHOLE.replace(b"content-length", b"Content-Length"), 200),
        (WHOLE.replace(b": ", b":"), 200),
        (WHOLE.replace(b"GMT", b"gmt"), 200),
        (WHOLE.replace(LINES[1], b""), 200),
        (WHOLE.replace(b"\r\n" + LINES[3][:-2], b""), 200),
        (WHOLE.replace(MEDIA_TYPE.encode(), b"text/html"), 200),
        (WHOLE.replace(LENGTH, b"content-length: 0%d" % len(BODY)), 200),
        (WHOLE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"), 200),
        (WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: Close\r\n\r\n"), 200),
        (WHOLE.replace(b"\r\n\r\n", b'\r\netag: "x"\r\n\r\n'), 200),
        (WHOLE.replace(b"\r\n\r\n", b"\r\n" + LENGTH + b"\r\n\r\n"), 200),
        (b"HTTP/1.1 100 \r\n\r\n" + WHOLE, 200),
        (b"\r\n" + WHOLE, MalformedMessageError),
        (WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"), 200),
        (WHOLE.replace(b"200 ", b"201 "), 201),
        (WHOLE.replace(b"200 ", b"403 "), 403),
        (WHOLE.replace(b"200 ", b"20 "), MalformedMessageError),
        (WHOLE.replace(b"200 ", b"2000 "), MalformedMessageError),
        (WHOLE.replace(b"200 ", b"204 "), 204),
        (WHOLE.replace(b"HTTP", b"http"), MalformedMessageError),
        (WHOLE.replace(LENGTH, b"content-length: %d" % (len(BODY) + 1)), PeerUnreachableError),
        (WHOLE.replace(LENGTH, b"content-length: %d" % (len(BODY) - 1)), MalformedMessageError),
        (WHOLE.replace(LENGTH, b"content-length: 0"), MalformedMessageError),
        (WHOLE.replace(LENGTH, b"content-length: +%d" % len(BODY)), MalformedMessageError),
        (WHOLE.replace(LENGTH, b"content-length: 99999999"), MalformedMessageError),
        (WHOLE.replace(LENGTH, b"content-length: 9" + b"0" * 30), MalformedMessageError),
        (WHOLE.replace(LENGTH, b"transfer-encoding: chunked"), MalformedMessageError),
        (WHOLE.replace(LENGTH, LENGTH + b"\r\ntransfer-encoding: chunked"), MalformedMessageError),
        (WHOLE.replace(LENGTH, LENGTH + b"\r\ncontent-length: 1"), MalformedMessageError),
        (WHOLE.replace(b"\r\n" + LENGTH, b""), MalformedMessageError),
        (WHOLE.replace(b"date: ", b"da te: "), MalformedMessageError),
        (WHOLE.replace(b"date: ", b"date: \0"), MalformedMessageError),
        (b"x" * (HEAD_BYTES + 1), MalformedMessageError),
    ],
)
async def test_what_is_not_plain_is_taken_as_h11_takes_it(octets: bytes, expected: object) -> None:
    """With one line another, missing, doubled, or too many."""
    assert read_answer(octets) is None
    what, *_ = await same_outcome(octets)
    assert what == expected


async def test_an_answer_that_does_not_come_at_once_is_taken_whole() -> None:
    """One that is larger than what is received at a time."""
    body = bytes(2 * HEAD_BYTES)
    head = HEAD.replace(LENGTH, b"content-length: %d" % len(body))
    status, _, heard, *_ = await same_outcome(head + b"\r\n\r\n" + body)
    assert (status, heard) == (200, body)


@given(st.lists(st.sampled_from([*LINES, b"\r\n", BODY, BODY[:-1], b"x: y\r\n", b"\0"]), max_size=8))
async def test_lines_in_any_order_are_never_taken_otherwise(pieces: list[bytes]) -> None:
    """Doubled, missing, contradicting."""
    await same_outcome(b"".join(pieces))


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
async def test_one_byte_of_another_value_is_never_taken_otherwise(place: int, octet: int) -> None:
    """Any byte, changed into any other."""
    await same_outcome(WHOLE[:place] + bytes([octet]) + WHOLE[place + 1 :])


async def test_exchanges_at_once_do_not_meet() -> None:
    """Each gets what its own peer said, though all arrives in one buffer."""
    exchange = Exchange(PEER)
    heard: dict[int, bytes] = {}

    async def ask(number: int) -> None:
        octets = write_answer(Totals(number, number), "Fri, 27 Nov 2026 12:00:00 GMT")
        pieces = [octets] if number % 2 else [octets[:number], octets[number:]]
        download = await exchange.ask(Script(pieces), PLAIN)
        await trio.lowlevel.checkpoint()
        heard[number] = bytes(await download.read())

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(ask, number)
    for number, body in heard.items():
        assert write_answer(Totals(number, number), "").endswith(b"\r\n\r\n" + body)
    assert len(heard) == 50


async def test_two_new_connections_that_nobody_answers_are_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has given them up: that says nothing of a certificate."""

    async def hear_nothing(*_: object) -> Download:
        await trio.lowlevel.checkpoint()
        raise NoAnswerError from TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    monkeypatch.setattr(Exchange, "ask", hear_nothing)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    client = Client(Address("127.0.0.1", listener.socket.getsockname()[1]), None, expected=None)
    with pytest.raises(PeerUnreachableError, match="timed out"):
        await client.call("/v1/ask", Collect([]), Collected, deadline=trio.current_time() + 60)
    await listener.aclose()


@pytest.mark.parametrize("question", [PLAIN, OTHER])
async def test_what_was_received_does_not_stay_where_it_came_in(question: Question) -> None:
    """It may be shares of keys, and the buffer lives as long as the client."""
    stream = Script([WHOLE[:70], WHOLE[70:]] if question is OTHER else [WHOLE])
    await Exchange(PEER).ask(stream, question)
    assert stream.buffers
    assert not any(any(buffer) for buffer in stream.buffers)


class Closing(Script):
    """A stream whose peer has closed its side, after it said what it had to say."""

    def send_at_once(self, octets: bytes | bytearray | memoryview) -> bool:
        """Hear nothing."""
        raise BrokenPipeError(errno.EPIPE, str(len(octets)))


async def test_who_refuses_a_question_while_it_is_sent_is_heard() -> None:
    """His reason is better than that he has closed."""
    stream = Closing([b"HTTP/1.1 503 \r\ncontent-length: 4\r\n\r\nbusy"])
    download = await Exchange(PEER).ask(stream, PLAIN)
    assert (download.status, bytes(await download.read())) == (503, b"busy")


@pytest.mark.parametrize("method", ["DELETE", "PUT", "HEAD"])
async def test_a_question_goes_out_under_its_own_method(method: str) -> None:
    """Only a POST has the plain form."""
    stream = Script([b"HTTP/1.1 204 \r\ncontent-length: 0\r\n\r\n"])
    assert (await Exchange(PEER).ask(stream, Question(method, "/x", (), b"", is_idempotent=True))).status == 204
    assert stream.sent.startswith(b"%s /x HTTP/1.1\r\n" % method.encode())


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", CredentialRefusedError),
        ("TLSV1_ALERT_UNKNOWN_CA", CredentialRefusedError),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", CredentialExpiredError),
        ("TLSV1_ALERT_INTERNAL_ERROR", PeerUnreachableError),
        ("CERTIFICATE_EXPIRED", PeerUnreachableError),
        ("UNKNOWN_CA", PeerUnreachableError),
        (None, PeerUnreachableError),
    ],
)
def test_only_what_the_peer_says_of_our_certificate_refuses_it(reason: str | None, kind: type[MdmfsError]) -> None:
    """What OpenSSL finds here, or another alert, is an outage: a job waits for its end, and not for another proxy."""
    error = ssl.SSLError(1, "x")
    error.reason = reason  # type: ignore[assignment] # it may have none
    assert type(refusal(PEER, error)) is kind
