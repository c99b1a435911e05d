"""Attacks on the wire over real sockets: who is let in, who is believed, and what a cut or slow peer can do."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import ssl
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import h11
import msgspec
import pytest
import trio

from mdmfs.demo.pki import LOOPBACK, Authority, Issued, delegate
from mdmfs.model.errors import (
    AccessDeniedError,
    ConfigurationError,
    CredentialExpiredError,
    CredentialRefusedError,
    MalformedMessageError,
    MdmfsError,
    PeerTimedOutError,
    PeerUnreachableError,
)
from mdmfs.pki.tls import ServerContexts
from mdmfs.wire.client import REFUSED_WITHIN, Client
from mdmfs.wire.messages.keystores import Collect, Collected, Outcome
from mdmfs.wire.messages.message import MAX_MESSAGE_BYTES, MEDIA_TYPE
from mdmfs.wire.peers import open_lasting_client
from mdmfs.wire.server import Address, Answer, Limits, Reply, Request, Service, StreamReply, serve
from mdmfs.wire.stream import TlsStream
from tests.twins import certificates as make
from tests.twins.wire import anchors_in, calling, context_of, contexts_of, serving

HOSPITAL = make.host("hospital")
JANE = make.person("jane")
PROXY = delegate(JANE, make.VALID)
SECRET = b"a name that must not be in a log"
PIECE = bytes(range(256)) * 1024


def soon(seconds: float = 5.0) -> float:
    """Give a deadline."""
    return trio.current_time() + seconds


async def whoami(request: Request) -> Answer:
    """Answer with the principal's DN."""
    await request.read(Collect)
    return Reply(Collected([Outcome.DONE], [str(request.principal.dn).encode()]))


async def refuse(request: Request) -> Answer:
    """Refuse without reading."""
    message = f"{request.path} is not for you"
    raise AccessDeniedError(message)


async def fail(_: Request) -> Answer:
    """Fail as nobody expected."""
    raise ValueError(SECRET)


async def much(_: Request) -> Answer:
    """Answer with more than any buffer of the kernel takes."""
    return Reply(Collected([Outcome.DONE], [16 * PIECE]))


async def wait(_: Request) -> Answer:
    """Never answer."""
    await trio.sleep_forever()
    raise AssertionError


async def stream(request: Request) -> Answer:
    """Stream some pieces; what the path ends with goes wrong."""
    kind = request.path.rpartition("/")[2]

    async def pieces() -> AsyncIterator[bytes]:
        if kind == "uneven":
            for begin, end in ((0, 3), (3, 1_000_000), (1_000_000, 1_000_001), (1_000_001, 5 * len(PIECE))):
                yield (PIECE * 5)[begin:end]
            return
        if kind == "early":
            yield b"begun"
            raise ValueError(SECRET)
        for _ in range(4):
            yield PIECE
        match kind:
            case "cut":
                raise ValueError(SECRET)
            case "short":
                return
            case "long":
                yield PIECE + b"x"
            case "stall":
                await trio.sleep_forever()
            case _:
                yield PIECE

    return StreamReply(5 * len(PIECE), "salt", pieces())


SERVICE = Service(
    "hospital",
    {
        ("POST", "/v1/whoami"): whoami,
        ("POST", "/v1/refuse"): refuse,
        ("POST", "/v1/fail"): fail,
        ("POST", "/v1/wait"): wait,
        ("POST", "/v1/much"): much,
        ("GET", "/v1/stream/"): stream,
    },
)


async def ask(client: Client, path: str = "/v1/whoami", seconds: float = 5.0) -> str:
    """Call, and give what was answered."""
    answer = await client.call(path, Collect([b"x"]), Collected, deadline=soon(seconds))
    return answer.shares[0].decode()


async def ask_as(address: Address, issued: Issued | None) -> str:
    """Call once with a certificate, or none."""
    async with calling(address, issued, expected=HOSPITAL.dn) as client:
        return await ask(client)


async def test_a_user_is_the_user_behind_any_proxy() -> None:
    """With the certificate itself, a proxy, a proxy of a proxy, a limited one."""
    proxies = [JANE, delegate(JANE, make.VALID), delegate(delegate(JANE, make.VALID), make.VALID)]
    proxies.append(delegate(JANE, make.VALID, policy="1.3.6.1.4.1.3536.1.1.1.9"))
    async with serving(SERVICE, shown=HOSPITAL) as address:
        for issued in proxies:
            assert await ask_as(address, issued) == "/O=mdmfs demonstration/OU=people/CN=jane"


@pytest.mark.parametrize(
    ("issued", "error"),
    [
        pytest.param(None, CredentialRefusedError, id="none"),
        pytest.param(make.person("jane", make.authority("other CA")), CredentialRefusedError, id="other CA"),
        pytest.param(
            make.person("jane", Authority.make(make.authority().certificate.subject, make.VALID)),
            CredentialRefusedError,
            id="CA of the same name",
        ),
        pytest.param(make.person("jane", validity=make.PAST), CredentialExpiredError, id="expired"),
        pytest.param(delegate(JANE, make.PAST), CredentialExpiredError, id="expired proxy"),
        pytest.param(delegate(JANE, make.VALID, policy=make.INDEPENDENT), CredentialRefusedError, id="independent"),
        pytest.param(delegate(JANE, make.VALID, policy=make.UNKNOWN_POLICY), CredentialRefusedError, id="unknown"),
        pytest.param(
            delegate(delegate(JANE, make.VALID, path_length=0), make.VALID), CredentialRefusedError, id="too long"
        ),
        pytest.param(make.OddProxy(info=None).of(JANE), CredentialRefusedError, id="GT2"),
        pytest.param(make.OddProxy(info=make.restricted_info()).of(JANE), CredentialRefusedError, id="restricted"),
        pytest.param(
            Issued((PROXY.leaf, make.person("mallory").leaf), PROXY.key), CredentialRefusedError, id="another's chain"
        ),
    ],
)
async def test_who_cannot_be_let_in_is_told_so(issued: Issued, error: type[MdmfsError]) -> None:
    """Not "connection reset": the user can do something about a credential."""
    async with serving(SERVICE, shown=HOSPITAL) as address:
        with pytest.raises(error):
            await ask_as(address, issued)
        assert await ask_as(address, JANE)


def say(address: Address, context: ssl.SSLContext, octets: bytes) -> bytes:
    """Send something over TLS, or try to, and give every byte of application data that comes back."""
    heard = b""
    with (
        contextlib.suppress(OSError),
        socket.create_connection((address.host, address.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        tls.sendall(octets)
        while octets := tls.recv(4096):
            heard += octets
    return heard


@pytest.mark.parametrize("issued", [None, make.person("jane", make.authority("other CA"))])
async def test_who_has_no_certificate_of_our_ca_gets_no_byte_of_http(
    issued: Issued | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even an error page; ten attempts make one line in the log."""
    caplog.set_level(logging.INFO)
    async with serving(SERVICE, shown=HOSPITAL) as address:
        for _ in range(10):
            heard = await trio.to_thread.run_sync(
                say, address, context_of(issued), b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
            )
            assert heard == b""
    assert caplog.text.count("was refused") == 1


async def test_a_client_of_tls_1_2_is_refused() -> None:
    """The server offers nothing below 1.3."""
    context = context_of(JANE)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(SERVICE, shown=HOSPITAL) as address:
        assert await trio.to_thread.run_sync(say, address, context, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n") == b""


def shake_twice(address: Address, context: ssl.SSLContext) -> list[bool]:
    """Connect twice, the second time with the session of the first; tell whether each was resumed."""
    session, resumed = None, []
    for _ in range(2):
        with (
            socket.create_connection((address.host, address.port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as tls,
        ):
            tls.sendall(b"GET /none HTTP/1.1\r\nhost: x\r\n\r\n")
            assert tls.recv(4096).startswith(b"HTTP/1.1 404")
            session = tls.session
            resumed.append(bool(tls.session_reused))
            assert session is None or not session.has_ticket
    return resumed


async def test_no_session_can_be_resumed() -> None:
    """A resumed session would show no chain: nothing is given that could be resumed with."""
    async with serving(SERVICE, shown=HOSPITAL) as address:
        assert await trio.to_thread.run_sync(shake_twice, address, context_of(JANE)) == [False, False]


@pytest.mark.parametrize(
    "impostor",
    [
        pytest.param(delegate(JANE, make.VALID, cn="localhost"), id="a proxy with the host's CN"),
        pytest.param(make.person("localhost"), id="a person named like the host"),
        pytest.param(make.host("hospital", make.authority("other CA")), id="another CA's hospital"),
        pytest.param(make.host("keystore-1"), id="another host"),
    ],
)
@pytest.mark.parametrize("check_hostname", [True, False])
async def test_nobody_else_is_taken_for_the_hospital(impostor: Issued, check_hostname: bool) -> None:  # noqa: FBT001 a case
    """Neither by a CN, nor by any certificate that our CA gave to someone else."""
    async with (
        serving(SERVICE, shown=impostor) as address,
        calling(address, JANE, expected=HOSPITAL.dn, check_hostname=check_hostname) as client,
    ):
        with pytest.raises(PeerUnreachableError):
            await ask(client)


async def test_a_client_that_lasts_goes_by_the_cas_of_the_moment(tmp_path: Path) -> None:
    """A server has its certificate by a new key: before that is trusted, while files are broken, and then."""
    rolled = Authority.make(make.authority().certificate.subject, make.VALID)
    anchors, credential = anchors_in(tmp_path), JANE.save(tmp_path, "jane")
    (beside := tmp_path / "server").mkdir()
    shown = rolled.issue(HOSPITAL.leaf.subject, make.VALID, LOOPBACK).save(beside, "server")
    async with serving(SERVICE, contexts=ServerContexts(shown, anchors_in(beside))) as address:
        client = open_lasting_client(str(address), str(HOSPITAL.dn), credential, anchors)
        with pytest.raises(PeerUnreachableError, match="is not accepted"):
            await ask(client)
        anchors.path.write_bytes(b"half a CA")
        with pytest.raises(PeerUnreachableError, match="cannot be asked: no CA certificates"):
            await ask(client)
        anchors_in(tmp_path, rolled)
        assert await ask(client)
        await client.aclose()


async def test_a_client_that_would_believe_anyone_cannot_be_made() -> None:
    """Without a DN to expect, the host's name must be checked."""
    with pytest.raises(ConfigurationError):
        Client(Address("localhost", 1), context_of(JANE, check_hostname=False), expected=None)


async def test_a_proxy_that_expires_on_a_kept_connection_is_refused() -> None:
    """The end is checked on every request, by the server's clock."""
    now = [time.time()]
    proxy = delegate(JANE, make.seconds_from_now(60))
    async with (
        serving(SERVICE, shown=HOSPITAL, clock=lambda: now[0]) as address,
        calling(address, proxy, expected=HOSPITAL.dn) as client,
    ):
        assert await ask(client)
        now[0] += 120
        with pytest.raises(CredentialExpiredError):
            await ask(client)


async def test_an_error_crosses_the_wire_with_its_class_and_keeps_the_connection() -> None:
    """The message comes along; the next call needs no new handshake."""
    async with serving(SERVICE, shown=HOSPITAL) as address, calling(address, JANE, expected=HOSPITAL.dn) as client:
        for _ in range(3):
            with pytest.raises(AccessDeniedError, match="/v1/refuse is not for you"):
                await ask(client, "/v1/refuse")
        assert await ask(client)
        assert len(client._connections._idle) == 1  # noqa: SLF001 nothing public tells it


async def test_an_unexpected_failure_tells_its_number_and_nothing_else(
    caplog: pytest.LogCaptureFixture, faults: list[str]
) -> None:
    """Its message might quote a data set: it is neither in the answer nor in the log."""
    async with serving(SERVICE, shown=HOSPITAL) as address, calling(address, JANE, expected=HOSPITAL.dn) as client:
        with pytest.raises(MdmfsError, match=r"incident [0-9a-f]{8}") as caught:
            await ask(client, "/v1/fail")
        assert await ask(client)
    assert SECRET.decode() not in str(caught.value) + caplog.text
    assert "incident" in caplog.text
    assert "ValueError at" in caplog.text
    faults.clear()


async def test_a_connection_that_fails_unexpectedly_is_told_likewise(
    caplog: pytest.LogCaptureFixture, faults: list[str]
) -> None:
    """The log has where, and not the message."""
    times = iter([time.time()])

    def clock() -> float:
        for now in times:
            return now
        raise ValueError(SECRET.decode())

    async with serving(SERVICE, shown=HOSPITAL, clock=clock) as address, calling(address, JANE) as client:
        with pytest.raises(MdmfsError):
            await ask(client)
    assert "ValueError at" in caplog.text
    assert SECRET.decode() not in caplog.text
    faults.clear()


@pytest.mark.parametrize("kind", ["", "uneven"])
async def test_a_stream_arrives_whole(kind: str) -> None:
    """Into buffers of any size, in pieces of any, with its length and its ETag known before."""
    async with serving(SERVICE, shown=HOSPITAL) as address, calling(address, JANE, expected=HOSPITAL.dn) as client:
        for size in (1000, 2**20, 7 * 2**20):
            buffer, whole = memoryview(bytearray(size)), b""
            async with client.get(f"/v1/stream/{kind}", deadline=soon()) as download:
                assert (download.length, download.etag) == (5 * len(PIECE), "salt")
                while count := await download.receive_into(buffer):
                    whole += buffer[:count]
                assert await download.receive_into(buffer) == 0
            assert whole == PIECE * 5
        assert len(client._connections._idle) == 1  # noqa: SLF001 nothing public tells it


@pytest.mark.parametrize("fault", ["cut", "short", "long"])
async def test_a_stream_that_fails_midway_never_looks_whole(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """The reader gets an error, never an end; the log tells where, without values."""
    async with serving(SERVICE, shown=HOSPITAL) as address, calling(address, JANE, expected=HOSPITAL.dn) as client:
        with pytest.raises(PeerUnreachableError, match="before its end"):
            async with client.get(f"/v1/stream/{fault}", deadline=soon()) as download:
                await download.read()
        assert not client._connections._idle  # noqa: SLF001 nothing public tells it
        assert await ask(client)
    assert "cut short" in caplog.text
    assert SECRET.decode() not in caplog.text


def heard_until_cut(address: Address, octets: bytes) -> tuple[bytes, bool]:
    """Send something over TLS; give what comes back, and whether the other end said that this was all."""
    heard = b""
    with (
        socket.create_connection((address.host, address.port), timeout=5) as plain,
        context_of(JANE).wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as tls,
    ):
        tls.sendall(octets)
        try:
            while octets := tls.recv(4096):
                heard += octets
        except (ConnectionResetError, ssl.SSLEOFError):
            return heard, False
    return heard, True


async def test_what_there_is_of_a_stream_that_fails_is_sent_before_the_cut() -> None:
    """An answer of which nothing comes would look like a refused connection; TLS does not say that it was all."""
    octets = b"GET /v1/stream/early HTTP/1.1\r\nhost: x\r\n\r\n"
    async with serving(SERVICE, shown=HOSPITAL) as address:
        heard, is_ended = await trio.to_thread.run_sync(heard_until_cut, address, octets)
    assert heard.startswith(b"HTTP/1.1 200 ")
    assert heard.endswith(b"\r\n\r\nbegun")
    assert not is_ended


async def test_a_cancelled_download_does_not_poison_the_next_call() -> None:
    """Its connection is closed, not put back with half an answer in it."""
    async with serving(SERVICE, shown=HOSPITAL) as address, calling(address, JANE, expected=HOSPITAL.dn) as client:
        with trio.move_on_after(0.3) as scope:
            async with client.get("/v1/stream/stall", deadline=soon()) as download:
                await download.read()
        assert scope.cancelled_caught
        async with client.get("/v1/stream/", deadline=soon()) as download:
            await download.receive_into(memoryview(bytearray(10)))
        assert not client._connections._idle  # noqa: SLF001 nothing public tells it
        assert await ask(client)


async def test_a_call_ends_at_its_deadline() -> None:
    """Whatever the peer does."""
    async with serving(SERVICE, shown=HOSPITAL) as address, calling(address, JANE, expected=HOSPITAL.dn) as client:
        with pytest.raises(PeerTimedOutError):
            await ask(client, "/v1/wait", 0.3)


async def test_a_peer_that_accepts_and_says_nothing_is_timed_out() -> None:
    """The deadline covers the handshake."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with calling(Address(*silent.getsockname()), JANE, expected=HOSPITAL.dn) as client:
            with pytest.raises(PeerTimedOutError):
                await ask(client, seconds=0.3)


async def test_a_peer_that_is_not_there_is_unreachable() -> None:
    """No port, no such host; and no ``ExceptionGroup``."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gone = Address(*taken.getsockname())
    for address in (gone, Address("none.invalid", 1)):
        async with calling(address, JANE, expected=HOSPITAL.dn) as client:
            with pytest.raises(PeerUnreachableError):
                await ask(client)


async def test_a_kept_connection_that_the_server_has_closed_is_replaced() -> None:
    """A restarted or tidying server costs nobody an error."""
    limits = Limits(idle_seconds=0.2)
    async with (
        serving(SERVICE, shown=HOSPITAL, limits=limits) as address,
        calling(address, JANE, expected=HOSPITAL.dn) as client,
    ):
        assert await ask(client)
        await trio.sleep(0.5)
        assert await ask(client)


async def test_an_oversized_message_is_refused_and_not_kept() -> None:
    """The server stops reading at its limit and says why."""
    async with serving(SERVICE, shown=HOSPITAL) as address, calling(address, JANE, expected=HOSPITAL.dn) as client:
        with pytest.raises(MalformedMessageError, match="at most"):
            await client.call("/v1/whoami", Collect([bytes(MAX_MESSAGE_BYTES)]), Collected, deadline=soon(20))
        assert await ask(client)


@contextlib.contextmanager
def connected(address: Address) -> Iterator[ssl.SSLSocket]:
    """Connect as jane, by hand."""
    with (
        socket.create_connection((address.host, address.port), timeout=5) as plain,
        context_of(JANE).wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        yield tls


def drip(address: Address, octets: bytes, pause: float) -> tuple[bytes, float]:
    """Send byte by byte until the server has enough; give what it said and how long it listened."""
    began, heard = time.monotonic(), b""
    with contextlib.suppress(OSError), connected(address) as tls:
        tls.settimeout(pause)
        for octet in octets:
            tls.send(bytes([octet]))
            with contextlib.suppress(TimeoutError):
                heard += tls.recv(4096)
                break
    return heard, time.monotonic() - began


@pytest.mark.parametrize(
    ("octets", "answer"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"x" * 100, b""),
        (b"POST /v1/whoami HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n" + b"x" * 100, b"HTTP/1.1 400"),
    ],
)
async def test_a_slow_drip_ends_at_the_limit(octets: bytes, answer: bytes) -> None:
    """A byte now and then keeps no connection: the limit is for the whole head, and for the whole body."""
    limits = Limits(idle_seconds=1.0, head_seconds=0.5, message_seconds=0.5)
    body_at = octets.find(b"\r\n\r\n") + 4
    async with serving(SERVICE, shown=HOSPITAL, limits=limits) as address:
        if answer:
            heard, lasted = await trio.to_thread.run_sync(drip_after, address, octets[:body_at], octets[body_at:])
        else:
            heard, lasted = await trio.to_thread.run_sync(drip, address, octets, 0.05)
    assert heard.startswith(answer)
    assert lasted < 3


def drip_after(address: Address, head: bytes, body: bytes) -> tuple[bytes, float]:
    """Send a head at once and then a body byte by byte."""
    began, heard = time.monotonic(), b""
    with contextlib.suppress(OSError), connected(address) as tls:
        tls.sendall(head)
        tls.settimeout(0.05)
        for octet in body:
            tls.send(bytes([octet]))
            with contextlib.suppress(TimeoutError):
                heard += tls.recv(4096)
                break
    return heard, time.monotonic() - began


async def test_peers_that_never_shake_hands_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """And meanwhile keep nobody else out."""
    caplog.set_level(logging.INFO)
    async with serving(SERVICE, shown=HOSPITAL, limits=Limits(handshake_seconds=0.5)) as address:
        with contextlib.ExitStack() as stack:
            silent = [
                stack.enter_context(socket.create_connection((address.host, address.port), timeout=5))
                for _ in range(50)
            ]
            assert await ask_as(address, JANE)
            for one in silent:
                with contextlib.suppress(ConnectionResetError):
                    assert await trio.to_thread.run_sync(one.recv, 1) == b""
    assert "took too long" in caplog.text


@pytest.mark.parametrize(
    "octets",
    [
        b"\x16\x03\x01\x00\x05hello",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/stream/ HTTP/1.1\r\n\r\n",
        b"POST /v1/whoami HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        b"POST /v1/whoami HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused_in_http(octets: bytes) -> None:
    """From someone we know; the server goes on."""
    async with serving(SERVICE, shown=HOSPITAL) as address:
        heard = await trio.to_thread.run_sync(say, address, context_of(JANE), octets)
        assert heard[:10] == b"HTTP/1.1 4"
        assert await ask_as(address, JANE)


async def test_a_port_that_is_taken_is_a_mistake_of_configuration(tmp_path: Path) -> None:
    """Told with the address, when the daemon starts."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address(*taken.getsockname())
        with pytest.raises(ConfigurationError, match=str(address.port)):
            await serve(SERVICE, contexts_of(HOSPITAL, tmp_path), address)


async def test_a_server_says_that_its_certificate_has_expired(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It listens, and every peer refuses it: its own log is where somebody looks."""
    late = functools.partial(serve, clock=lambda: time.time() + 1e9)
    async with trio.open_nursery() as nursery:
        await nursery.start(late, SERVICE, contexts_of(HOSPITAL, tmp_path), Address("127.0.0.1", 0))
        nursery.cancel_scope.cancel()
    assert "nobody will speak with us" in caplog.text


async def test_a_server_whose_files_are_broken_later_goes_on_when_they_are_mended(tmp_path: Path) -> None:
    """While they are broken nobody is let in; that is logged, and the server lives."""
    contexts = contexts_of(HOSPITAL, tmp_path)
    certificate = tmp_path / "server.pem"
    good = certificate.read_bytes()
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve, SERVICE, contexts, Address("127.0.0.1", 0))
        certificate.write_bytes(b"half a cert")
        with pytest.raises(PeerUnreachableError):
            await ask_as(address, JANE)
        certificate.write_bytes(good)
        assert await ask_as(address, JANE)
        nursery.cancel_scope.cancel()


def say_in_turn(address: Address, requests: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """Send requests over one connection, each after the answer to the one before; give status lines and bodies."""
    answers = []
    with connected(address) as tls, tls.makefile("rb") as heard:
        for request in requests:
            tls.sendall(request)
            status, length = heard.readline(), 0
            while (line := heard.readline()) != b"\r\n":
                name, _, value = line.partition(b": ")
                length = int(value) if name == b"content-length" else length
            answers.append((status[:12], heard.read(length)))
    return answers


async def test_plain_requests_and_others_are_answered_over_one_connection() -> None:
    """As our programs write it, refused, not there, spelled otherwise, in two pieces: each in its turn, and alike."""
    body = msgspec.msgpack.encode(Collect([b"x"]))

    def spelled(path: str, host: str = "host") -> bytes:
        lines = f"POST {path} HTTP/1.1", f"{host}: x", f"content-type: {MEDIA_TYPE}", f"content-length: {len(body)}"
        return "".join(f"{line}\r\n" for line in (*lines, "")).encode() + body

    plain, other = spelled("/v1/whoami"), spelled("/v1/whoami", "Host")
    requests = [plain, spelled("/v1/refuse"), spelled("/v1/none"), other, spelled("/v1//whoami"), plain]
    async with serving(SERVICE, shown=HOSPITAL) as address:
        answers = await trio.to_thread.run_sync(say_in_turn, address, requests)
    assert [int(status[9:]) for status, _ in answers] == [200, 403, 404, 200, 200, 200]
    told = {body for status, body in answers if status.endswith(b"200")}
    assert told == {msgspec.msgpack.encode(Collected([Outcome.DONE], [str(JANE.dn).encode()]))}


async def test_an_answer_larger_than_what_the_peer_takes_at_once_arrives_whole() -> None:
    """It waits for the peer in the middle, and the connection is good for the next question."""
    async with serving(SERVICE, shown=HOSPITAL) as address, calling(address, JANE, expected=HOSPITAL.dn) as client:
        for _ in range(3):
            answer = await client.call("/v1/much", Collect([b"x"]), Collected, deadline=soon(20))
            assert answer.shares == [16 * PIECE]


async def test_a_head_is_read_however_it_arrives() -> None:
    """A byte at a time, too."""

    def say_slowly(address: Address) -> bytes:
        with (
            socket.create_connection((address.host, address.port), timeout=5) as plain,
            context_of(JANE).wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            tls.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for octet in WHOAMI:
                tls.send(bytes([octet]))
            return tls.recv(4096)

    async with serving(SERVICE, shown=HOSPITAL) as address:
        assert (await trio.to_thread.run_sync(say_slowly, address)).startswith(b"HTTP/1.1 200 ")


WHOAMI = b"POST /v1/whoami HTTP/1.1\r\nhost: x\r\ncontent-length: 8\r\n\r\n\x81\xa5guids\x90"


@pytest.mark.parametrize(
    ("framing", "rest"),
    [
        (b"transfer-encoding: chunked", b"8\r\n\x81\xa5guids\x90\r\nzz\r\n"),
        (b"transfer-encoding: chunked", b"8\r\n\x81\xa5guids\x90\r\n"),
        (b"content-length: 9", b"\x81\xa5guids\x90"),
    ],
)
async def test_a_body_that_is_spoilt_or_cut_is_not_taken_for_what_came_of_it(framing: bytes, rest: bytes) -> None:
    """Though that would be a message."""
    taken: list[Collect] = []

    async def take(request: Request) -> Answer:
        taken.append(await request.read(Collect))
        return Reply(Collected([], []))

    def say_and_hang_up(address: Address) -> None:
        with (
            socket.create_connection((address.host, address.port), timeout=5) as plain,
            context_of(JANE).wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            tls.sendall(b"POST /v1/take HTTP/1.1\r\nhost: x\r\n%s\r\n\r\n%s" % (framing, rest))
            tls.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while tls.recv(4096):  # until the server has done with it
                    pass

    async with serving(Service("hospital", {("POST", "/v1/take"): take}), shown=HOSPITAL) as address:
        await trio.to_thread.run_sync(say_and_hang_up, address)
    assert not taken


async def test_a_chunked_body_is_read_as_one() -> None:
    """Other programs send them, and wait for 100 Continue first."""
    octets = b"POST /v1/whoami HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\nconnection: close\r\n"
    octets += b"transfer-encoding: chunked\r\n\r\n1\r\n\x81\r\n7\r\n\xa5guids\x90\r\n0\r\n\r\n"
    async with serving(SERVICE, shown=HOSPITAL) as address:
        heard = await trio.to_thread.run_sync(say, address, context_of(JANE), octets)
    assert b"HTTP/1.1 200" in heard
    assert heard.endswith(b"/O=mdmfs demonstration/OU=people/CN=jane")


def answer_with(listening: socket.socket, context: ssl.SSLContext, octets: bytes, *, is_reset: bool) -> None:
    """Be a server that answers one request with given bytes and ends without TLS's own end."""
    with contextlib.suppress(OSError):
        plain, _ = listening.accept()
        with plain, context.wrap_socket(plain, server_side=True) as tls:
            tls.recv(65536)
            tls.sendall(octets)
            if is_reset:
                tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize(
    ("octets", "error"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345", PeerUnreachableError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", PeerUnreachableError),
        (b"HTTP/1.1 200 OK\r\ncontent-len", PeerUnreachableError),
        (b"HTTP/1.1 200 OK\r\n\r\n12345", MalformedMessageError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n12345", MalformedMessageError),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n", MalformedMessageError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", MalformedMessageError),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 5\r\n\r\n12345", MalformedMessageError),
        (b"HTTP/1.1 403 No\r\ncontent-length: 24\r\n\r\n\x82\xa4code\xa3zzz\xa7message\xa5a\nb\x1bc", MdmfsError),
        (b"nonsense\r\n\r\n", MalformedMessageError),
    ],
)
async def test_an_answer_cut_or_spoilt_by_the_peer_is_an_error(
    octets: bytes,
    error: type[MdmfsError],
    is_reset: bool,  # noqa: FBT001 a case
) -> None:
    """Wherever it is cut, however the connection ends; and no control character of the peer's reaches a message."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with make_files() as (certificate, key):
        context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with (
            calling(Address(*listening.getsockname()), JANE, expected=HOSPITAL.dn) as client,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(
                trio.to_thread.run_sync, lambda: answer_with(listening, context, octets, is_reset=is_reset)
            )
            caught = None
            try:
                await client.call("/v1/whoami", Collect([]), Collected, deadline=soon(), is_idempotent=False)
            except MdmfsError as raised:
                caught = raised
    if is_reset and isinstance(caught, PeerUnreachableError):
        return
    assert type(caught) is error
    assert "\n" not in str(caught)
    assert "\x1b" not in str(caught)


def hang_up(listening: socket.socket, context: ssl.SSLContext, times: int, seconds: float) -> None:
    """Shake hands so many times, and close each connection without a word after a while; then listen no more."""
    for _ in range(times):
        plain, _ = listening.accept()
        with plain, context.wrap_socket(plain, server_side=True) as tls:
            tls.recv(65536)
            time.sleep(seconds)
    listening.close()


@pytest.mark.parametrize(
    ("times", "seconds", "error"),
    [(1, 0.0, PeerUnreachableError), (2, 0.0, CredentialRefusedError), (2, 2 * REFUSED_WITHIN, PeerUnreachableError)],
)
async def test_a_peer_that_hangs_up_twice_at_once_refuses_and_one_that_is_gone_then_has_died(
    times: int, seconds: float, error: type[MdmfsError]
) -> None:
    """TLS 1.3 can show a refusal as a bare end; a killed server shows the same, but only once.

    A question that waits may meet two resets on its way, and nobody has refused anything.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with make_files() as (certificate, key):
        context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = Address(*listening.getsockname())
        async with calling(address, JANE, expected=HOSPITAL.dn) as client, trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, hang_up, listening, context, times, seconds)
            caught = None
            try:
                await ask(client)
            except MdmfsError as raised:
                caught = raised
    assert type(caught) is error


async def test_a_peer_that_resets_before_the_handshake_leaves_no_descriptor_behind() -> None:
    """Whoever looks for open ports does so; the library would keep a socket of its own open until it is collected."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        descriptor = accepted.fileno()
        with pytest.raises(OSError) as raised:  # noqa: PT011 which one is the library's affair
            await TlsStream.accept(accepted, lambda: context, lambda stream: stream)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    assert not isinstance(raised.value, ssl.SSLError)


@contextlib.contextmanager
def make_files() -> Iterator[tuple[str, str]]:
    """Keep the hospital's certificate and key in files for a moment."""
    with tempfile.TemporaryDirectory() as name:
        saved = HOSPITAL.save(Path(name), "hospital")
        yield str(saved.certificate_file), str(saved.key_file)


@pytest.mark.parametrize("body", [b"123", b"1"])
def test_h11_counts_what_is_sent(body: bytes) -> None:
    """The server relies on it: a body longer or shorter than announced cannot be finished."""
    protocol = h11.Connection(h11.SERVER)
    protocol.receive_data(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    protocol.next_event()
    protocol.send(h11.Response(status_code=200, headers=[("content-length", "2")]))
    with pytest.raises(h11.LocalProtocolError):
        _ = [protocol.send_with_data_passthrough(event) for event in (h11.Data(body), h11.EndOfMessage())]


async def test_waiting_transfers_hold_up_no_call() -> None:
    """A PACS that is slow for every open file leaves listings and the feed alone."""

    async def get(client: Client) -> None:
        async with client.get("/v1/transfer", deadline=soon(30)):
            raise AssertionError

    service = Service("hospital", {("GET", "/v1/transfer"): wait, ("POST", "/v1/whoami"): whoami})
    async with serving(service) as address:
        client = Client(address, context_of(PROXY), expected=None, max_connections=2)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(get, client)
            await trio.sleep(0.3)
            assert await ask(client, seconds=3) == str(JANE.dn)
            nursery.cancel_scope.cancel()
        await client.aclose()


async def test_strangers_who_never_shake_hands_take_only_their_part() -> None:
    """A flood of silent connections keeps nobody else out."""
    limits = Limits(handshake_seconds=5.0, newcomers_of_a_host=20)
    async with serving(SERVICE, limits=limits) as address:
        idle = [socket.create_connection((address.host, address.port)) for _ in range(60)]
        await trio.sleep(0.2)
        for connected in idle[:25]:
            connected.close()
        await trio.sleep(0.2)
        assert await ask_as(address, PROXY) == str(JANE.dn)
        for connected in idle[25:]:
            connected.close()
