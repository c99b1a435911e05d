"""What one peer may take of a server: connections, requests, room in its log, and the time to take an answer."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator

import msgspec
import pytest
import trio
from prometheus_client import REGISTRY

from mdmfs.demo.pki import Issued, delegate
from mdmfs.model.errors import BusyError
from mdmfs.wire.messages.keystores import Collect, Collected, Outcome
from mdmfs.wire.server import Address, Answer, Limits, Reply, Request, Service
from tests.twins import certificates as make
from tests.twins.clinic import until
from tests.twins.wire import calling, context_of, serving

HOSPITAL, JANE, JOE = make.host("hospital"), make.person("jane"), make.person("joe")
REFUSED = delegate(JANE, make.VALID, policy=make.INDEPENDENT)
"""Our CA's certificate stands behind it, and it proves no principal."""
PATH = "/v1/ask"
MUCH = 2**24


async def answer(request: Request) -> Answer:
    """Answer with as many bytes as are asked for."""
    asked = await request.read(Collect)
    return Reply(Collected([Outcome.DONE], [bytes(int.from_bytes(asked.guids[0]))]))


SERVICE = Service("hospital", {("POST", PATH): answer})


def question(octets: int = 1) -> bytes:
    """Write a request by hand."""
    body = msgspec.msgpack.encode(Collect([octets.to_bytes(4)]))
    return b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (PATH.encode(), len(body), body)


async def ask(address: Address, issued: Issued) -> None:
    """Call once."""
    async with calling(address, issued, expected=HOSPITAL.dn) as client:
        await client.call(PATH, Collect([b"\x01"]), Collected, deadline=trio.current_time() + 5)


@contextlib.contextmanager
def connected(address: Address, issued: Issued) -> Iterator[ssl.SSLSocket]:
    """Connect by hand."""
    with (
        socket.create_connection((address.host, address.port), timeout=5) as plain,
        context_of(issued).wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        yield tls


def said(tls: ssl.SSLSocket, octets: bytes) -> bytes:
    """Say something, and give what is answered at once."""
    tls.sendall(octets)
    return tls.recv(4096)


def known() -> float:
    """Count the connections of peers whose certificate is known."""
    return REGISTRY.get_sample_value("mdmfs_connections") or 0.0


def refused() -> float:
    """Count the connections of peers who were not let in."""
    return REGISTRY.get_sample_value("mdmfs_refused_connections_total") or 0.0


async def test_one_principal_has_so_many_connections_and_no_more() -> None:
    """He is told, and not that he may not come at all; another one is served, and he himself when one has ended."""
    async with serving(SERVICE, shown=HOSPITAL, limits=Limits(connections_of_a_principal=2)) as address:
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                tls = await trio.to_thread.run_sync(stack.enter_context, connected(address, JANE))
                assert (await trio.to_thread.run_sync(said, tls, question())).startswith(b"HTTP/1.1 200")
            with pytest.raises(BusyError, match="as many connections as one may have"):
                await ask(address, JANE)
            await ask(address, JOE)
        await until(lambda: not known())
        await ask(address, JANE)


async def test_who_is_not_let_in_takes_no_place() -> None:
    """However many connections somebody opens whose certificate has been refused; each of them is told why."""
    limits = Limits(connections=1, connections_of_a_principal=1)
    async with serving(SERVICE, shown=HOSPITAL, limits=limits) as address:
        with contextlib.ExitStack() as stack:
            strangers = [
                await trio.to_thread.run_sync(stack.enter_context, connected(address, REFUSED)) for _ in range(3)
            ]
            await ask(address, JANE)
            for tls in strangers:
                assert (await trio.to_thread.run_sync(said, tls, question())).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("issued", [JANE, REFUSED])
async def test_who_is_turned_away_and_asks_nothing_is_let_go(issued: Issued) -> None:
    """Not after the time for which a connection may be idle."""
    limits = Limits(connections_of_a_principal=1, head_seconds=0.2)
    async with serving(SERVICE, shown=HOSPITAL, limits=limits) as address:
        with contextlib.ExitStack() as stack:
            first = await trio.to_thread.run_sync(stack.enter_context, connected(address, JANE))
            assert (await trio.to_thread.run_sync(said, first, question())).startswith(b"HTTP/1.1 200")
            second = await trio.to_thread.run_sync(stack.enter_context, connected(address, issued))
            with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
                assert await trio.to_thread.run_sync(second.recv, 1) == b""
            assert (await trio.to_thread.run_sync(said, first, question())).startswith(b"HTTP/1.1 200")


async def test_who_is_turned_away_is_told_why_however_many_others_ask_nothing() -> None:
    """Strangers who wait for nothing would else have him take his own certificate for refused, for ten seconds each."""
    async with serving(SERVICE, shown=HOSPITAL, limits=Limits(farewells=2, connections_of_a_principal=0)) as address:
        with contextlib.ExitStack() as stack:
            strangers = [
                await trio.to_thread.run_sync(stack.enter_context, connected(address, REFUSED)) for _ in range(4)
            ]
            with pytest.raises(BusyError, match="as many connections as one may have"):
                await ask(address, JANE)
            with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
                assert await trio.to_thread.run_sync(strangers[0].recv, 1) == b""
            assert (await trio.to_thread.run_sync(said, strangers[-1], question())).startswith(b"HTTP/1.1 401")


def chunked(body: bytes, size: int) -> bytes:
    """Write what follows a head, in chunks of so many bytes."""
    pieces = [body[begin : begin + size] for begin in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("path", [PATH, "/nowhere"])
async def test_a_body_in_crumbs_is_refused_before_they_are_counted(path: str) -> None:
    """Each of them takes longer to read than to send, and everybody else waits meanwhile; other chunks are read."""
    body = msgspec.msgpack.encode(Collect([(1).to_bytes(4), bytes(2**15)]))
    head = b"POST %s HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % path.encode()
    async with serving(SERVICE, shown=HOSPITAL) as address:
        with contextlib.ExitStack() as stack:
            tls = await trio.to_thread.run_sync(stack.enter_context, connected(address, JANE))
            answered = await trio.to_thread.run_sync(said, tls, head + chunked(body, 2**10))
            assert answered.startswith(b"HTTP/1.1 200" if path == PATH else b"HTTP/1.1 404")
        with contextlib.ExitStack() as stack:
            tls = await trio.to_thread.run_sync(stack.enter_context, connected(address, JANE))
            crumbs = chunked(msgspec.msgpack.encode(Collect([(1).to_bytes(4), bytes(1000)])), 1)
            answered = await trio.to_thread.run_sync(said, tls, head + crumbs)
            assert answered.startswith(b"HTTP/1.1 400" if path == PATH else b"HTTP/1.1 404")
            assert await trio.to_thread.run_sync(tls.recv, 1) == b""


async def test_all_together_have_so_many_connections_and_who_comes_later_waits() -> None:
    """Until one of the others has ended."""
    async with serving(SERVICE, shown=HOSPITAL, limits=Limits(connections=1)) as address:
        with contextlib.ExitStack() as later:
            with contextlib.ExitStack() as sooner:
                jane = await trio.to_thread.run_sync(sooner.enter_context, connected(address, JANE))
                joe = await trio.to_thread.run_sync(later.enter_context, connected(address, JOE))
                joe.sendall(question())
                assert (await trio.to_thread.run_sync(said, jane, question())).startswith(b"HTTP/1.1 200")
                joe.settimeout(0)
                with pytest.raises(ssl.SSLWantReadError):
                    joe.recv(1)
            joe.settimeout(5)
            assert (await trio.to_thread.run_sync(joe.recv, 4096)).startswith(b"HTTP/1.1 200")


async def test_so_many_of_a_host_shake_hands_at_once_and_the_others_wait_for_them() -> None:
    """Those of other hosts do not."""
    async with serving(SERVICE, shown=HOSPITAL, limits=Limits(handshakes_of_a_host=1)) as address:
        before = refused()
        with contextlib.ExitStack() as stack:
            silent, wrong = [
                stack.enter_context(
                    socket.create_connection((address.host, address.port), 5, source_address=("127.0.0.2", 0))
                )
                for _ in range(2)
            ]
            wrong.sendall(b"GET / HTTP/1.1\r\n\r\n")
            await ask(address, JANE)
            assert refused() == before
            silent.close()
            await until(lambda: refused() == before + 2)


async def test_who_asks_too_fast_is_told_when_to_come_again() -> None:
    """In the answer, as programs of the grid read it."""
    limits = Limits(requests_a_second=0.001, burst=0, patience_seconds=0.0)
    async with serving(SERVICE, shown=HOSPITAL, limits=limits) as address:
        with contextlib.ExitStack() as stack:
            tls = await trio.to_thread.run_sync(stack.enter_context, connected(address, JANE))
            assert (await trio.to_thread.run_sync(said, tls, question())).startswith(b"HTTP/1.1 200")
            told = await trio.to_thread.run_sync(said, tls, question())
            assert told.startswith(b"HTTP/1.1 503")
            assert b"retry-after: 5\r\n" in told
        with pytest.raises(BusyError):
            await ask(address, JANE)


async def test_who_does_not_take_his_answer_is_let_go() -> None:
    """He would keep his place, and what waits for him, for ever; what he has of it does not look whole."""
    async with serving(SERVICE, shown=HOSPITAL, limits=Limits(stall_seconds=0.2)) as address:
        with contextlib.ExitStack() as stack:
            tls = await trio.to_thread.run_sync(stack.enter_context, connected(address, JANE))
            tls.sendall(question(MUCH))
            await until(lambda: known() == 1)
            await until(lambda: not known())
            assert await trio.to_thread.run_sync(taken, tls) < MUCH


def taken(tls: ssl.SSLSocket) -> int:
    """Read to the end, however it ends."""
    count = 0
    with contextlib.suppress(OSError):
        while octets := tls.recv(2**20):
            count += len(octets)
    return count


async def test_who_knocks_again_and_again_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Each refusal is counted, and the first one told."""
    caplog.set_level(logging.INFO)
    before = refused()
    async with serving(SERVICE, shown=HOSPITAL) as address:
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                plain = stack.enter_context(socket.create_connection((address.host, address.port), timeout=5))
                plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            await until(lambda: refused() == before + 3)
    assert caplog.text.count("was refused") == 1
