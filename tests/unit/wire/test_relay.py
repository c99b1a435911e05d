"""A relay passes on who calls, and nobody else is believed about where somebody comes from."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import http.client
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing
from prometheus_client import REGISTRY

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.model.errors import PeerUnreachableError
from mdmfs.wire.messages.message import MEDIA_TYPE, Failure
from mdmfs.wire.relay import MAX_LINE, come_from, relay, relay_key
from mdmfs.wire.server import Address, Limits, Reply, Request, Service, serve
from tests.twins import certificates as make
from tests.twins.clinic import until
from tests.twins.wire import LOOPBACK, calling, context_of, contexts_of

KEY, OTHER_KEY = relay_key(bytes(32)), relay_key(bytes(31) + b"x")
HELLO = b"\x16\x03\x01\x00\x04abcd"
READER, HOSPITAL = make.person("reader"), make.host("hospital").dn


async def tell(request: Request) -> Reply:
    """Say where one comes from, as the audit log would."""
    return Reply(Failure("told", request.peer.host))


SERVICE = Service("hospital", {("POST", "/told"): tell})


@contextlib.asynccontextmanager
async def both(key: bytes = KEY) -> AsyncIterator[tuple[Address, Address, Callable[[], None]]]:
    """Serve, and relay to that; give where one serves and the other listens, and what lets the relay forget it."""
    leader: list[Address | None] = [None]
    with tempfile.TemporaryDirectory() as name:
        contexts = contexts_of(make.host("hospital"), Path(name))
        async with trio.open_nursery() as nursery:

            async def serve_as_told(task_status: trio.TaskStatus[Address]) -> None:
                await serve(SERVICE, contexts, LOOPBACK, relay_key=KEY, task_status=task_status)

            async def relay_as_told(task_status: trio.TaskStatus[Address]) -> None:
                await relay(LOOPBACK, lambda: leader[0], key, task_status=task_status)

            served = leader[0] = await nursery.start(serve_as_told)
            listened = await nursery.start(relay_as_told)
            yield served, listened, lambda: leader.__setitem__(0, None)
            nursery.cancel_scope.cancel()


def ask_from(host: str, address: Address) -> str:
    """Ask from one of the loopback addresses where one comes from; blocks."""
    body = msgspec.msgpack.encode(Failure("asked", ""))
    context = context_of(READER, check_hostname=False)
    with (
        socket.create_connection((address.host, address.port), 10, source_address=(host, 0)) as connected,
        context.wrap_socket(connected) as tls,
    ):
        tls.sendall(
            b"POST /told HTTP/1.1\r\nhost: x\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s"
            % (MEDIA_TYPE.encode(), len(body), body)
        )
        answer = http.client.HTTPResponse(tls)
        answer.begin()
        return msgspec.msgpack.decode(answer.read(), type=Failure).message


async def shown(*pieces: bytes, key: bytes = KEY) -> tuple[str, bytes]:
    """Say what a server learns of a connection on which something arrives, and what it reads from it then."""
    far, near = socket.socketpair()
    with far, near:
        near.setblocking(False)  # noqa: FBT003 a socket's own argument
        async with open_plain_nursery() as nursery:

            async def send() -> None:
                for piece in pieces:
                    far.sendall(piece)
                    await trio.testing.wait_all_tasks_blocked()

            nursery.start_soon(send)
            with trio.fail_after(10):
                peer = await come_from(near, Address("192.0.2.1", 1), key)
        return peer.host, near.recv(1000)


def line(host: bytes, record: bytes, key: bytes = KEY) -> bytes:
    """Write what a relay says."""
    digest = hashlib.sha256(record).hexdigest().encode()
    proof = hmac.digest(key, host + b" " + digest, "sha256").hex().encode()
    return b"MDMFS1 " + host + b" " + digest + b" " + proof + b"\n"


async def test_who_calls_through_a_relay_is_who_he_is_where_he_is() -> None:
    """His certificate is judged by the one that answers, and his host is told, not the relay's."""
    async with both() as (served, listened, forget):
        for host in ("127.0.0.2", "127.0.0.1"):
            assert await trio.to_thread.run_sync(ask_from, host, served) == host
            assert await trio.to_thread.run_sync(ask_from, host, listened) == host
        forget()
        async with calling(listened, READER, check_hostname=False, expected=HOSPITAL) as client:
            with pytest.raises(PeerUnreachableError):  # no refusal, which would be the caller's own fault
                await client.call("/told", Failure("asked", ""), Failure, deadline=trio.current_time() + 10)


async def test_a_relay_with_another_key_is_not_believed() -> None:
    """Nor does who comes through it get in as the relay."""
    async with both(OTHER_KEY) as (_, listened, _):
        with pytest.raises(OSError):  # noqa: PT011 whichever end is faster
            await trio.to_thread.run_sync(ask_from, "127.0.0.2", listened)


SILENT = b"\x16\x03\x01\x00\x04\x01\x00\x02\x00"
"""The begin of a handshake of which the rest does not come."""


@contextlib.asynccontextmanager
async def believing(key: bytes, limits: Limits) -> AsyncIterator[Address]:
    """Serve, and believe who proves to be a relay with the key."""
    with tempfile.TemporaryDirectory() as name:
        contexts = contexts_of(make.host("hospital"), Path(name))
        async with trio.open_nursery() as nursery:

            async def serve_as_told(task_status: trio.TaskStatus[Address]) -> None:
                await serve(SERVICE, contexts, LOOPBACK, limits=limits, relay_key=key, task_status=task_status)

            yield await nursery.start(serve_as_told)
            nursery.cancel_scope.cancel()


def relayed(address: Address, octets: bytes) -> socket.socket:
    """Connect as a relay does, and say something."""
    connected = socket.create_connection((address.host, address.port), 10)
    connected.sendall(octets)
    return connected


def refused() -> float:
    """Count the connections of peers who were not let in."""
    return REGISTRY.get_sample_value("mdmfs_refused_connections_total") or 0.0


async def heard(connected: socket.socket) -> bytes:
    """Give what comes on a connection, of which nothing is left where the other end has refused it."""
    with contextlib.suppress(ConnectionResetError):
        return await trio.to_thread.run_sync(connected.recv, 1)
    return b""


async def test_whom_a_relay_names_waits_in_the_row_of_his_own_host() -> None:
    """A crowd behind a relay keeps neither the relay's other callers out nor itself, once it has gone."""
    async with believing(KEY, Limits(newcomers_of_a_host=2, handshake_seconds=30.0)) as address:
        before = refused()
        with contextlib.ExitStack() as stack:
            told = line(b"127.0.0.2", SILENT) + SILENT
            crowd = [stack.enter_context(relayed(address, told)) for _ in range(2)]
            await trio.testing.wait_all_tasks_blocked(0.05)  # before, they are in the relay's row
            assert await trio.to_thread.run_sync(ask_from, "127.0.0.1", address) == "127.0.0.1"
            assert await heard(stack.enter_context(relayed(address, told))) == b""
            for one in crowd:
                one.close()
            await until(lambda: refused() == before + 3)
        assert await trio.to_thread.run_sync(ask_from, "127.0.0.2", address) == "127.0.0.2"


async def test_a_server_without_a_key_believes_no_relay() -> None:
    """Neither one that has no key, nor any other: what it says is no handshake."""
    async with believing(b"", Limits(handshake_seconds=30.0)) as address:
        for key in (b"", KEY):
            with relayed(address, line(b"127.0.0.2", SILENT, key) + SILENT) as connected:
                assert await heard(connected) in {b"", b"\x15"}  # an alert of TLS


async def test_who_says_nothing_to_a_server_behind_a_relay_is_let_go() -> None:
    """As who does not shake hands."""
    async with believing(KEY, Limits(handshake_seconds=0.1)) as address:
        for octets in (b"", b"MDMFS1 127.0.0.2"):
            with relayed(address, octets) as connected:
                assert await heard(connected) == b""


async def test_what_a_relay_says_is_taken_away_and_what_follows_is_not() -> None:
    """However it arrives; who says nothing is who connected."""
    told = line(b"198.51.100.7", HELLO) + HELLO + b"more"
    assert await shown(told) == ("198.51.100.7", HELLO + b"more")
    assert (await shown(*(told[place : place + 1] for place in range(len(told)))))[0] == "198.51.100.7"
    assert await shown(line(b"2001:db8::1%eth0", HELLO) + HELLO) == ("2001:db8::1%eth0", HELLO)
    for octets in (HELLO, b"GET / HTTP/1.1", b"\0", HELLO + line(b"198.51.100.7", HELLO)):
        assert await shown(octets) == ("192.0.2.1", octets)


@pytest.mark.parametrize(
    "octets",
    [
        line(b"127.0.0.1", HELLO, OTHER_KEY) + HELLO,
        line(b"127.0.0.1", HELLO).replace(b"127.0.0.1", b"127.0.0.2") + HELLO,
        line(b"127.0.0.1", HELLO) + HELLO[:-1] + b"e",
        line(b"127.0.0.1 ", HELLO) + HELLO,
        line(b"", HELLO) + HELLO,
        line(b"127.0.0.1", HELLO).replace(hashlib.sha256(HELLO).hexdigest().encode(), b"0" * 64) + HELLO,
        b"MDMFS1 127.0.0.1 \n" + HELLO,
        line(b"127.0.0.1", HELLO).replace(b"MDMFS1", b"MDMFS2") + HELLO,
        b"M\n" + HELLO,
        b"MDMFS1 " + b"x" * MAX_LINE,
    ],
)
async def test_who_cannot_prove_it_is_let_go(octets: bytes) -> None:
    """Another host, another record, as of somebody who listened, or no proof at all."""
    with pytest.raises(ConnectionError, match="does not prove it"):
        await shown(octets)


async def test_who_takes_nothing_keeps_no_place_of_a_relay(autojump_clock: trio.testing.MockClock) -> None:
    """The one that answers has cut him off long since, and the relay, which waits for him, does not see that."""
    autojump_clock.autojump_threshold = 0.5  # what goes over sockets takes no time
    is_cut = trio.Event()

    async def answer_without_end(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(bytes(2**20))
        is_cut.set()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(functools.partial(trio.serve_tcp, answer_without_end, 0, host="127.0.0.1"))
        where = Address(*listener.socket.getsockname()[:2])
        listened = await nursery.start(relay, LOOPBACK, lambda: where, KEY)
        with relayed(listened, HELLO), trio.fail_after(600):
            await is_cut.wait()
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def taking(**limits: int) -> AsyncIterator[tuple[Address, list[bytes]]]:
    """Relay to somebody who says nothing; gives where the relay listens, and what each connection began with."""
    told: list[bytes] = []

    async def take(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            told.append(await stream.receive_some())
            while await stream.receive_some():
                pass

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(functools.partial(trio.serve_tcp, take, 0, host="127.0.0.1"))
        where = Address(*listener.socket.getsockname()[:2])
        yield await nursery.start(functools.partial(relay, LOOPBACK, lambda: where, KEY, **limits)), told
        nursery.cancel_scope.cancel()


async def test_a_host_has_so_many_places_of_a_relay_and_has_them_back_when_it_goes() -> None:
    """Or one host would take those of all, or what has come and gone would keep it out for ever."""
    async with taking(of_a_host=2) as (listened, told):
        with relayed(listened, HELLO), relayed(listened, HELLO):
            await until(lambda: len(told) == 2)
            with relayed(listened, HELLO) as third:
                assert await heard(third) == b""
        with trio.fail_after(10):
            while len(told) == 2:
                with relayed(listened, HELLO) as again:
                    await until(lambda again=again: len(told) == 3 or is_closed(again))


def is_closed(connected: socket.socket) -> bool:
    """Ask whether the other end has closed a connection on which it says nothing."""
    connected.setblocking(False)  # noqa: FBT003 a socket's own argument
    try:
        return connected.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:  # it had not read what was said
        return True


async def test_who_says_no_handshake_to_a_relay_is_let_go(autojump_clock: trio.testing.MockClock) -> None:
    """Who says something else at once, who says nothing or half of one in time; nobody else hears of them."""
    autojump_clock.autojump_threshold = 0.1  # what goes over sockets takes no time
    async with taking() as (listened, told):
        for octets in (b"\x17" + HELLO[1:], b"GET / HTTP/1.1\r\n\r\n", b"", HELLO[:-1]):
            with relayed(listened, octets) as connected:
                assert await heard(connected) == b""
        assert not told


async def test_a_client_finds_its_peer_wherever_it_is() -> None:
    """Where nobody listens the next place is tried, and where it was found is looked first."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = Address(*closed.getsockname())
    async with both() as (served, _, _):
        for places in ([nowhere, served], [served, nowhere], [nowhere, nowhere, served]):
            text = ",".join(map(str, places))
            async with calling(Address.parse_all(text), READER, check_hostname=False, expected=HOSPITAL) as client:
                for _ in range(2):
                    await client.call("/told", Failure("asked", ""), Failure, deadline=trio.current_time() + 10)
        async with calling(
            Address.parse_all(f"{nowhere}, {nowhere}"), READER, check_hostname=False, expected=HOSPITAL
        ) as client:
            with pytest.raises(PeerUnreachableError, match="cannot be reached"):
                await client.call("/told", Failure("asked", ""), Failure, deadline=trio.current_time() + 10)
