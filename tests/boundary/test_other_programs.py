"""The wire's answers to programs that are not ours: documents, HEAD, lists of unknown length, on one connection."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import AsyncIterator

import pytest
import trio

from mdmfs.model.errors import AccessDeniedError
from mdmfs.wire.server import Address
from mdmfs.wire.service import Answer, Document, Request, Service, StreamReply
from tests.twins import certificates as make
from tests.twins.wire import context_of, serving

JANE = make.person("jane")
PIECES = [b"one", b"", b"x" * 300_000, b"last"]


async def document(request: Request) -> Answer:
    """Say what was asked, or to HEAD how long that would be."""
    await trio.lowlevel.checkpoint()
    if request.method == "HEAD":
        return Document(headers={"etag": '"tag"'}, length=12345)
    return Document(request.path.encode(), 201, {"content-type": "text/plain"})


async def listing(request: Request) -> Answer:
    """Stream what nobody has counted; ``/list/cut`` breaks off."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in PIECES:
            await trio.lowlevel.checkpoint()
            yield piece
        if request.path.endswith("cut"):
            raise ValueError

    return StreamReply(None, "", pieces(), content_type="application/xml")


async def refuse(_: Request) -> Answer:
    """Refuse."""
    await trio.lowlevel.checkpoint()
    message = "no"
    raise AccessDeniedError(message)


SERVICE = Service(
    "hospital",
    {
        ("GET", "/doc/"): document,
        ("HEAD", "/doc/"): document,
        ("GET", "/list/"): listing,
        ("HEAD", "/no"): refuse,
        ("PROPFIND", "/no"): refuse,
    },
)


def talk(address: Address) -> list[tuple[int, bytes, str | None]]:
    """Ask everything over one connection of Python's own client; a HEAD answered with a body would garble the next."""
    context = context_of(JANE, check_hostname=False)
    connection = http.client.HTTPSConnection(address.host, address.port, context=context, timeout=10)
    told = []
    asked = (
        ("HEAD", "/doc/a", "content-length"),
        ("HEAD", "/no", "content-length"),
        ("HEAD", "/nowhere", "content-length"),
        ("GET", "//doc///b", "content-type"),
        ("GET", "/list/a", "transfer-encoding"),
        ("PUT", "/no", "allow"),
        ("DELETE", "/doc/a", "allow"),
    )
    for method, path, header in asked:
        connection.request(method, path)
        answer = connection.getresponse()
        told.append((answer.status, answer.read(), answer.headers[header]))
    connection.close()
    return told


async def test_other_programs_are_answered_as_http_says() -> None:
    """HEAD has no body, unknown lengths go out chunked, 405 says what is allowed, slashes are forgiven."""
    async with serving(SERVICE) as address:
        told = await trio.to_thread.run_sync(talk, address)
    heads, rest = told[:3], told[3:]
    assert [(status, body) for status, body, _ in heads] == [(200, b""), (403, b""), (404, b"")]
    assert heads[0][2] == "12345"
    assert rest[0] == (201, b"/doc/b", "text/plain")
    assert rest[1] == (200, b"".join(PIECES), "chunked")
    assert (rest[2][0], rest[2][2]) == (405, "HEAD, PROPFIND")
    assert (rest[3][0], rest[3][2]) == (405, "GET, HEAD")


async def test_a_list_that_breaks_off_never_looks_whole() -> None:
    """Its last chunk is missing."""

    def read(address: Address) -> bytes:
        context = context_of(JANE, check_hostname=False)
        connection = http.client.HTTPSConnection(address.host, address.port, context=context, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/list/cut")
            return connection.getresponse().read()

    async with serving(SERVICE) as address:
        with pytest.raises((http.client.IncompleteRead, OSError)):
            await trio.to_thread.run_sync(read, address)
