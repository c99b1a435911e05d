"""Requests and answers in the plain form in which our own programs exchange messages, written and read at a glance.

An order (``mdmfs.wire.orders``) has two lines more. All other requests and answers are h11's.

A glance takes what is whole, has exactly these lines, and nothing after it. What it does not take is not refused: h11
reads it from the first byte. It costs a tenth of h11's events, and a hospitald with a thousand mounts does little else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from mdmfs.wire.messages.message import MEDIA_TYPE, Message
from mdmfs.wire.orders import SIGNATURE_HEADER, SIGNER_HEADER

_TYPE: Final = re.escape(MEDIA_TYPE)
_REQUEST_HEAD: Final = (
    rf"POST (/[!-~]*) HTTP/1\.1\r\nhost: ([!-~]+)\r\ncontent-type: {_TYPE}\r\n"
    rf"(?:{re.escape(SIGNER_HEADER)}: ([0-9a-f]{{64}})\r\n{re.escape(SIGNATURE_HEADER)}: ([0-9a-f]{{128}})\r\n)?"
    r"content-length: ([1-9][0-9]{0,7})\r\n\r\n"
)
_ARRIVED: Final = re.compile(_REQUEST_HEAD.encode())
_LEAVING: Final = re.compile(_REQUEST_HEAD)
_ANSWER: Final = (
    b"HTTP/1.1 200 \r\ndate: %%b\r\ncontent-length: %%d\r\ncontent-type: %b\r\n\r\n%%b" % MEDIA_TYPE.encode()
)
_ANSWER_HEAD: Final = re.compile(
    r"HTTP/1\.1 200 \r\ndate: ([A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT)\r\n"
    rf"content-length: ([1-9][0-9]{{0,7}})\r\ncontent-type: {_TYPE}\r\n\r\n".encode()
)


class PlainRequest(NamedTuple):
    """A whole request: POST of a message."""

    target: bytes
    headers: dict[str, str]
    body: bytes
    octets: bytes
    """All of it, as it came."""

    async def read(self) -> bytes:
        """Give the body, which is here."""
        return self.body


class PlainAnswer(NamedTuple):
    """A whole answer: a success that says nothing but its message."""

    headers: dict[str, str]
    body: bytes


def write_request(path: str, host: str, headers: Iterable[tuple[str, str]], body: bytes) -> bytes | None:
    """Write a request byte for byte as h11 does; None where it would not be plain."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\n{lines}content-length: {len(body)}\r\n\r\n"
    return head.encode("ascii") + body if _LEAVING.fullmatch(head) else None


def read_request(octets: bytes) -> PlainRequest | None:
    """Read a request; None where it is not whole, or anything about it is not plain."""
    found = _ARRIVED.match(octets)
    if found is None or len(octets) - found.end() != int(found[5]):
        return None
    headers = {"host": found[2].decode("ascii"), "content-type": MEDIA_TYPE, "content-length": found[5].decode("ascii")}
    if found[3]:
        headers |= {SIGNER_HEADER: found[3].decode("ascii"), SIGNATURE_HEADER: found[4].decode("ascii")}
    return PlainRequest(found[1], headers, octets[found.end() :], octets)


def write_answer(message: Message, date: str) -> bytes:
    """Write a successful answer of one message."""
    body = msgspec.msgpack.encode(message)
    return _ANSWER % (date.encode("ascii"), len(body), body)


def read_answer(octets: bytes) -> PlainAnswer | None:
    """Read an answer; None where it is not whole, or anything about it is not plain."""
    found = _ANSWER_HEAD.match(octets)
    if found is None or len(octets) - found.end() != int(found[2]):
        return None
    headers = {"date": found[1].decode("ascii"), "content-length": found[2].decode("ascii"), "content-type": MEDIA_TYPE}
    return PlainAnswer(headers, octets[found.end() :])
