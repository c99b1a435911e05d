"""GETs and their answers at a glance: whatever a glance takes, h11 writes and reads the same."""

from __future__ import annotations

import h11
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from mdmfs.model.errors import MalformedMessageError, MdmfsError, PeerUnreachableError
from mdmfs.wire.exchange import HEAD_BYTES, MAX_INTERIM, Exchange, NoAnswerError, Question
from mdmfs.wire.glance import read_head, write_get
from mdmfs.wire.stream import Address
from tests.unit.wire.test_exchange import Script

PEER = Address("storage.example.org", 1094)
BODY = bytes(range(256)) * 300
HEAD = b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\nServer: XrootD/v5\r\nContent-Length: %d\r\n\r\n" % len(BODY)
WHOLE = HEAD + BODY
LENGTH = b"Content-Length: %d" % len(BODY)
GET = Question("GET", "/sealed/x?authz=y", (), b"", is_idempotent=True)
PIECES = [
    *(line + b"\r\n" for line in HEAD.split(b"\r\n")[:-1]),
    b"HTTP/1.1 206 Partial Content\r\n",
    b"HTTP/1.1 100 Continue\r\n",
    b"HTTP/1.1 302 Found\r\n",
    b"HTTP/1.0 200 OK\r\n",
    b"Content-Range: bytes 1-2/3\r\n",
    b"content-length: 0\r\n",
    b"content-length: 07\r\n",
    b"content-length: 7, 7\r\n",
    b"transfer-encoding: chunked\r\n",
    b'etag:\t"x" \r\n',
    b"x:\r\n",
    b" folded\r\n",
    b"x y: z\r\n",
    b"\r\n",
    b"\n",
    b"\x00",
]


def agrees(octets: bytes) -> bool:
    """Whether a glance takes it; then h11 reads the same, to the byte where the body begins."""
    head = read_head(octets)
    if head is not None:
        protocol = h11.Connection(h11.CLIENT)
        protocol.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        protocol.send(h11.EndOfMessage())
        protocol.receive_data(octets)
        response = protocol.next_event()
        assert isinstance(response, h11.Response)
        assert (response.status_code, protocol.trailing_data[0]) == (head.status, octets[head.end :])
        assert [(name.decode(), value.decode()) for name, value in response.headers] == [*head.headers.items()]
    return head is not None


@pytest.mark.parametrize(
    ("target", "host", "headers"),
    [
        ("/sealed/x?authz=y", "storage.example.org:1094", ()),
        ("http://storage.example.org/x", "storage.example.org", (("range", "bytes=10-20"), ("mdmfs-reason", "a b"))),
    ],
)
def test_a_get_is_written_as_h11_writes_it(target: str, host: str, headers: tuple[tuple[str, str], ...]) -> None:
    """To the byte."""
    protocol = h11.Connection(h11.CLIENT)
    written = protocol.send(h11.Request(method="GET", target=target, headers=[("host", host), *headers]))
    assert write_get(target, host, headers) == written


@pytest.mark.parametrize(
    ("target", "host", "headers"),
    [
        ("/a b", "x", ()),
        ("/a\r\nx: y", "x", ()),
        ("/é", "x", ()),
        ("", "x", ()),
        ("/", "x\r\nrange: bytes=0-1", ()),
        ("/", "", ()),
        ("/", "x", (("range", "bytes=0-1\r\n\r\n"),)),
        ("/", "x", (("range:", "bytes=0-1"),)),
        ("/", "x", (("range", " bytes=0-1"),)),
    ],
)
def test_what_could_be_taken_for_something_else_is_not_written(
    target: str, host: str, headers: tuple[tuple[str, str], ...]
) -> None:
    """h11 refuses it, or writes it as it thinks right."""
    assert write_get(target, host, headers) is None


def test_the_head_of_a_storage_element_is_read_at_a_glance() -> None:
    """With what has come of the body behind it."""
    assert agrees(HEAD)
    assert agrees(WHOLE)
    assert agrees(HEAD.replace(b"200 OK", b"206 Partial Content"))


@pytest.mark.parametrize(
    "octets",
    [
        *(HEAD[:cut] for cut in range(len(HEAD))),
        b"\r\n" + WHOLE,
        WHOLE.replace(b"200", b"403"),
        WHOLE.replace(b"200", b"100"),
        WHOLE.replace(b"1.1", b"1.0"),
        WHOLE.replace(b"\r\n", b"\n"),
        WHOLE.replace(LENGTH, b"x: y"),
        WHOLE.replace(LENGTH, LENGTH + b"\r\n" + LENGTH),
        WHOLE.replace(LENGTH, LENGTH + b"\r\ncontent-length: 1"),
        WHOLE.replace(LENGTH, LENGTH + b"\r\nTransfer-Encoding: chunked"),
        WHOLE.replace(LENGTH, b"Content-Length: -1"),
        WHOLE.replace(LENGTH, b"Content-Length: " + b"9" * 19),
        WHOLE.replace(LENGTH, LENGTH + b"\r\n folded"),
    ],
)
def test_all_else_is_left_to_h11(octets: bytes) -> None:
    """Cut anywhere, a refusal, or with one line that is another."""
    assert not agrees(octets)


@given(st.lists(st.sampled_from(PIECES), max_size=8))
def test_lines_in_any_order_are_never_read_otherwise(pieces: list[bytes]) -> None:
    """Doubled, missing, contradicting."""
    agrees(b"".join(pieces))


@given(st.integers(0, len(HEAD) - 1), st.integers(0, 255))
def test_one_byte_of_another_value_is_never_read_otherwise(place: int, octet: int) -> None:
    """Any byte of a head, changed into any other."""
    agrees(HEAD[:place] + bytes([octet]) + HEAD[place + 1 :] + BODY)


async def gathered(*pieces: bytes, piece: int = len(BODY), question: Question = GET) -> bytes | type[Exception]:
    """Ask into a room that has place for a piece, and give the body, or what is wrong with the answer."""
    room = memoryview(bytearray(HEAD_BYTES + piece))
    try:
        download = await Exchange(PEER).ask(Script(pieces), question._replace(room=room, hoped=2))
        body, left = b"", download.length
        while left:
            await download.gather(min(piece, left))
            taken = download.take(min(piece, left))
            body, left = body + bytes(taken), left - len(taken)
    except (MdmfsError, NoAnswerError) as error:
        return type(error)
    assert download.is_reusable
    return body


@pytest.mark.parametrize("cut", [1, 20, len(HEAD) - 1, len(HEAD), len(HEAD) + 1, 5000, len(WHOLE) - 1, len(WHOLE)])
@pytest.mark.parametrize("status", [b"200 OK", b"200 \xe9"])
@pytest.mark.parametrize("piece", [1000, 33_000, len(BODY)])
async def test_a_body_is_gathered_piece_by_piece_where_it_was_asked_into(cut: int, status: bytes, piece: int) -> None:
    """However it comes in pieces of the network, and whoever reads the head."""
    octets = WHOLE.replace(b"200 OK", status)
    assert await gathered(octets[:cut], octets[cut : cut + 700], octets[cut + 700 :], piece=piece) == BODY


@pytest.mark.parametrize("cut", [0, 1, len(HEAD) - 1, len(HEAD), len(HEAD) + 1, len(WHOLE) - 1])
async def test_an_answer_cut_anywhere_is_an_error(cut: int) -> None:
    """The buffer says nothing of where it was cut."""
    assert await gathered(WHOLE[:cut]) is (PeerUnreachableError if cut else NoAnswerError)


async def test_a_head_that_leaves_no_room_for_a_piece_takes_none_of_it() -> None:
    """h11 reads it, however long: where a body is gathered there is place for all that is gathered."""
    padding = b"x: " + b" x" * HEAD_BYTES + b"\r\n"
    assert await gathered(HEAD[:-2] + padding + b"\r\n", BODY) == BODY
    assert await gathered(HEAD[:-2] + padding + b"\r\n" + BODY) == BODY


@pytest.mark.parametrize("times", [0, 1, MAX_INTERIM, MAX_INTERIM + 1, 10_000])
async def test_answers_before_the_answer_are_passed_over_but_not_without_end(times: int) -> None:
    """Each takes the loop some time, and a small object's room has place for fifty thousand."""
    outcome = await gathered(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * times, WHOLE)
    assert outcome == (BODY if times <= MAX_INTERIM else MalformedMessageError)


async def test_more_than_was_announced_and_a_length_that_nobody_knows_are_errors() -> None:
    """Nothing behind an answer is taken for a part of it."""
    assert await gathered(WHOLE + b"\0") is MalformedMessageError
    chunked = WHOLE.replace(LENGTH, b"transfer-encoding: chunked")
    download = await Exchange(PEER).ask(Script([chunked]), GET._replace(room=memoryview(bytearray(2 * len(WHOLE)))))
    with pytest.raises(MalformedMessageError):
        await download.gather(1)


async def test_what_was_not_taken_is_received_in_any_other_buffer() -> None:
    """What fills up an object is passed over without a room for it."""
    room, scrap = memoryview(bytearray(HEAD_BYTES + len(BODY))), memoryview(bytearray(len(BODY)))
    download = await Exchange(PEER).ask(Script([WHOLE[:60_000], WHOLE[60_000:]]), GET._replace(room=room))
    await download.gather(1000)
    assert download.take(1000) == BODY[:1000]
    filled = 0
    while count := await download.receive_into(scrap[filled:] or scrap):
        filled += count
    assert scrap[:filled] == BODY[1000:]
    assert download.is_reusable


async def test_who_hopes_for_much_hears_a_refusal_all_the_same(autojump_clock: trio.testing.MockClock) -> None:
    """It is shorter than what was hoped for, and the wait for the rest ends."""

    class Hoping(Script):
        async def receive_into(self, buffer: memoryview, hoped: int = 1) -> int:
            if hoped > 1:
                await trio.sleep_forever()
            return await super().receive_into(buffer)

    room = memoryview(bytearray(HEAD_BYTES))
    stream = Hoping([b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno"])
    download = await Exchange(PEER).ask(stream, GET._replace(room=room, hoped=500_000))
    assert (download.status, bytes(await download.read())) == (403, b"no")
    assert autojump_clock.current_time() > 0
