"""The head of a GET and that of its answer, written and read at a glance.

What a glance does not take is not refused: h11 writes it, or reads it from the first byte. It costs a tenth of h11's
events, which for an object of 512 KiB take as long as to decrypt it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

_NAME: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE: Final = r"[!-~](?:[ -~]*[!-~])?"
_REQUEST: Final = re.compile(rf"GET [!-~]+ HTTP/1\.1\r\n(?:{_NAME}: {_VALUE}\r\n)+\r\n")
_ANSWER: Final = re.compile(rf"HTTP/1\.1 (200|206) [ -~]*\r\n((?:{_NAME}:[ \t]*{_VALUE}[ \t]*\r\n)+)\r\n".encode())
_LENGTH: Final = re.compile(r"0|[1-9][0-9]{0,17}")


class Head(NamedTuple):
    """The head of an answer that brings what was asked for, and says how long that is."""

    status: int
    headers: dict[str, str]
    """By names in lower case, of which none came twice."""
    end: int
    """Where the body begins."""


def write_get(target: str, host: str, headers: Iterable[tuple[str, str]]) -> bytes | None:
    """Write a request byte for byte as h11 does; None where anything about it is not plain."""
    lines = [f"{name}: {value}\r\n" for name, value in (("host", host), *headers)]
    head = f"GET {target} HTTP/1.1\r\n{''.join(lines)}\r\n"
    is_plain = head.count("\n") == len(lines) + 2 and _REQUEST.fullmatch(head)
    return head.encode("ascii") if is_plain else None


def read_head(octets: bytes | memoryview) -> Head | None:
    """Read the head of an answer; None where it is not here whole, or anything about it is not plain."""
    found = _ANSWER.match(octets)
    if found is None:
        return None
    headers: dict[str, str] = {}
    for line in found[2].decode("ascii").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        name = name.lower()
        if name in headers:
            return None
        headers[name] = value.strip(" \t")
    if "transfer-encoding" in headers or not _LENGTH.fullmatch(headers.get("content-length", "")):
        return None
    return Head(int(found[1]), headers, found.end())
