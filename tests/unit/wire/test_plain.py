"""Requests and answers at a glance: whatever a glance takes, h11 reads the same; what it does not take is h11's."""

from __future__ import annotations

import h11
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmfs.wire.messages.files import Describe, Totals
from mdmfs.wire.messages.message import MEDIA_TYPE
from mdmfs.wire.orders import SIGNATURE_HEADER, SIGNER_HEADER
from mdmfs.wire.plain import read_answer, read_request, write_answer, write_request

BODY = msgspec.msgpack.encode(Describe(bytes(16)))
HEAD = f"POST /v1/describe HTTP/1.1\r\nhost: pacs.example:1\r\ncontent-type: {MEDIA_TYPE}\r\n"
END = f"content-length: {len(BODY)}\r\n\r\n".encode() + BODY
WHOLE = HEAD.encode() + END
SIGNED = f"{HEAD}{SIGNER_HEADER}: {'a0' * 32}\r\n{SIGNATURE_HEADER}: {'09' * 64}\r\n".encode() + END
TYPE = ("content-type", MEDIA_TYPE)
PIECES = [
    *(line.encode() for line in WHOLE[: -len(BODY)].decode("ascii").splitlines(keepends=True)),
    b"POST /v1/list?x HTTP/1.1\r\n",
    b"POST http://a/b HTTP/1.1\r\n",
    b"POST /v1/describe HTTP/1.0\r\n",
    b"post /v1/describe HTTP/1.1\r\n",
    b"GET /v1/describe HTTP/1.1\r\n",
    b"Host: x\r\n",
    b"host: x y\r\n",
    *(line.encode() + b"\r\n" for line in SIGNED[: -len(BODY)].decode("ascii").splitlines()[3:5]),
    b"host: x\n",
    b"content-length: 0\r\n",
    b"content-length: 018\r\n",
    b"content-length: +18\r\n",
    b"content-length: 17\r\n",
    b"transfer-encoding: chunked\r\n",
    b"expect: 100-continue\r\n",
    b"connection: close\r\n",
    b" folded\r\n",
    b"\r\n",
    BODY,
    BODY[:-1],
    b"\x00",
]


def read_by_h11(octets: bytes) -> tuple[bytes, bytes, dict[str, str], bytes]:
    """Give target, body, headers and what is left over."""
    protocol = h11.Connection(h11.SERVER)
    protocol.receive_data(octets)
    request = protocol.next_event()
    assert isinstance(request, h11.Request)
    assert request.method == b"POST"
    body = b""
    while isinstance(event := protocol.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    headers = {name.decode(): value.decode() for name, value in request.headers}
    return request.target, body, headers, protocol.trailing_data[0]


def agrees(octets: bytes) -> bool:
    """Whether a glance takes it; then h11 reads the same, to the last byte."""
    plain = read_request(octets)
    if plain is not None:
        assert read_by_h11(octets) == (plain.target, plain.body, plain.headers, b"")
        assert plain.octets == octets
    return plain is not None


def test_what_our_own_programs_send_is_read_at_a_glance() -> None:
    """As their client writes it, the whole of it; an order with its signer and signature."""
    assert agrees(WHOLE)
    assert agrees(SIGNED)


@pytest.mark.parametrize(
    "octets",
    [
        *(WHOLE[:cut] for cut in range(len(WHOLE))),
        *(SIGNED[:cut] for cut in range(len(SIGNED))),
        SIGNED.replace(b"a0" * 32, b"A0" * 32),
        SIGNED.replace(b"a0" * 32, b"a0" * 31),
        SIGNED.replace(b"09" * 64, b"09" * 65),
        SIGNED.replace(SIGNER_HEADER.encode(), b"mdmfs-other"),
        WHOLE + b"\0",
        WHOLE + WHOLE,
        WHOLE.replace(b"POST", b"PUT"),
        WHOLE.replace(b"host", b"Host"),
        WHOLE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"),
        WHOLE.replace(b"\r\n", b"\n"),
        WHOLE.replace(MEDIA_TYPE.encode(), b"application/json"),
        WHOLE.replace(b"content-length: ", b"content-length: 0"),
    ],
)
def test_all_else_is_left_to_h11(octets: bytes) -> None:
    """Cut anywhere, with more behind it, or with one line that is another."""
    assert not agrees(octets)


@given(st.lists(st.sampled_from(PIECES), max_size=8))
def test_lines_in_any_order_are_never_read_otherwise(pieces: list[bytes]) -> None:
    """Doubled, missing, contradicting: what a proxy and a server could disagree on is no plain form."""
    agrees(b"".join(pieces))


@given(st.sampled_from([WHOLE, SIGNED]), st.integers(0, len(SIGNED) - 1), st.integers(0, 255))
def test_one_byte_of_another_value_is_never_read_otherwise(whole: bytes, place: int, octet: int) -> None:
    """A request with any byte changed is read as h11 reads it, or not at all."""
    place %= len(whole)
    agrees(whole[:place] + bytes([octet]) + whole[place + 1 :])


def test_a_plain_answer_is_what_h11_takes_for_one() -> None:
    """Status, date, length, type and message, and nothing else."""
    message = Totals(3, 2**40)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
    client.send(h11.EndOfMessage())
    client.receive_data(write_answer(message, "Fri, 27 Nov 2026 12:00:00 GMT"))
    response, body, end = (client.next_event() for _ in range(3))
    assert isinstance(response, h11.Response)
    assert response.status_code == 200
    octets = msgspec.msgpack.encode(message)
    assert list(response.headers) == [
        (b"date", b"Fri, 27 Nov 2026 12:00:00 GMT"),
        (b"content-length", str(len(octets)).encode()),
        (b"content-type", MEDIA_TYPE.encode()),
    ]
    assert isinstance(body, h11.Data)
    assert body.data == octets
    assert isinstance(end, h11.EndOfMessage)


def test_a_plain_answer_is_read_at_a_glance() -> None:
    """As our own servers write it."""
    answer = read_answer(write_answer(Totals(3, 2**40), "Fri, 27 Nov 2026 12:00:00 GMT"))
    assert answer is not None
    assert msgspec.msgpack.decode(answer.body, type=Totals) == Totals(3, 2**40)
    assert answer.headers == {
        "date": "Fri, 27 Nov 2026 12:00:00 GMT",
        "content-length": str(len(answer.body)),
        "content-type": MEDIA_TYPE,
    }


@pytest.mark.parametrize(
    ("path", "host", "headers", "body"),
    [
        ("/v1/a b", "h", (TYPE,), BODY),
        ("/v1/a\r\nx: y", "h", (TYPE,), BODY),
        ("/v1/a HTTP/1.1\r\nhost: x\r\ncontent-type: " + MEDIA_TYPE, "h", (TYPE,), BODY),
        ("/v1/\xe9", "h", (TYPE,), BODY),
        ("v1/a", "h", (TYPE,), BODY),
        ("/v1/a", "h\r\nx: y", (TYPE,), BODY),
        ("/v1/a", "h", (), BODY),
        ("/v1/a", "h", (TYPE, TYPE), BODY),
        ("/v1/a", "h", (TYPE, ("host", "h")), BODY),
        ("/v1/a", "h", (TYPE, ("mdmfs-other", "1")), BODY),
        ("/v1/a", "h", (TYPE, (SIGNER_HEADER, "a0" * 32)), BODY),
        ("/v1/a", "h", (TYPE, (SIGNER_HEADER, "a0" * 32), (SIGNATURE_HEADER, "09" * 63 + "\r\n")), BODY),
        ("/v1/a", "h", (TYPE,), b""),
    ],
)
def test_what_would_be_no_plain_request_is_not_written(
    path: str, host: str, headers: tuple[tuple[str, str], ...], body: bytes
) -> None:
    """Nothing that is given can end its line and begin another."""
    assert write_request(path, host, headers, body) is None
