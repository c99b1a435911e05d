"""Requests in the plain form in which our own programs ask for messages, read at a glance; all others are h11's.

An order (``mdmfs.wire.orders``) has two lines more.

A glance takes what is whole, has exactly these lines, and nothing after it. What it does not take is not refused: h11
reads it from the first byte. It costs a tenth of h11's events, and a hospitald with a thousand mounts does little else.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

from mdmfs.wire.messages.base import MEDIA_TYPE, Message
from mdmfs.wire.orders import SIGNATURE_HEADER, SIGNER_HEADER

_HEAD: Final = re.compile(
    rb"POST (/[!-~]*) HTTP/1\.1\r\nhost: ([!-~]+)\r\ncontent-type: %b\r\n"
    rb"(?:%b: ([0-9a-f]{64})\r\n%b: ([0-9a-f]{128})\r\n)?"
    rb"content-length: ([1-9][0-9]{0,7})\r\n\r\n"
    % tuple(re.escape(text.encode()) for text in (MEDIA_TYPE, SIGNER_HEADER, SIGNATURE_HEADER))
)
_ANSWER: Final = (
    b"HTTP/1.1 200 \r\ndate: %%b\r\ncontent-length: %%d\r\ncontent-type: %b\r\n\r\n%%b" % MEDIA_TYPE.encode()
)


class Plain(NamedTuple):
    """A whole request: POST of a message."""

    target: bytes
    headers: dict[str, str]
    body: bytes
    octets: bytes
    """All of it, as it came."""

    async def read(self) -> bytes:
        """Give the body, which is here."""
        return self.body


def read_plain(octets: bytes) -> Plain | None:
    """Read a request; None where it is not whole, or anything about it is not plain."""
    found = _HEAD.match(octets)
    if found is None or len(octets) - found.end() != int(found[5]):
        return None
    headers = {"host": found[2].decode("ascii"), "content-type": MEDIA_TYPE, "content-length": found[5].decode("ascii")}
    if found[3]:
        headers |= {SIGNER_HEADER: found[3].decode("ascii"), SIGNATURE_HEADER: found[4].decode("ascii")}
    return Plain(found[1], headers, octets[found.end() :], octets)


def write_plain(message: Message, date: str) -> bytes:
    """Write a successful answer of one message."""
    body = msgspec.msgpack.encode(message)
    return _ANSWER % (date.encode("ascii"), len(body), body)
