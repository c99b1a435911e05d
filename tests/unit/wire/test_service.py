"""Services without sockets: routes, statuses, and bodies that are no message."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmfs.model.errors import ERRORS_BY_CODE, ConfigurationError, MalformedMessageError
from mdmfs.model.identity import Dn, Principal
from mdmfs.wire.messages.files import AskChanges, DirectoryPage
from mdmfs.wire.messages.keystores import Collect, KeyStatus, Outcome, SetAcls
from mdmfs.wire.messages.message import Failure
from mdmfs.wire.service import STATUS_BY_CODE, Answer, Reply, Request, Respond, Service
from mdmfs.wire.stream import Address

PRINCIPAL = Principal(Dn.parse("/CN=a"), (), 1.0)


def request_of(path: str, method: str = "GET", octets: bytes = b"") -> Request:
    """Ask something, by nobody in particular."""

    async def body() -> bytes:
        return octets

    return Request(method, path, {}, PRINCIPAL, Address("127.0.0.1", 1), body)


async def exact(request: Request) -> Answer:
    """Answer the exact path."""
    return Reply(KeyStatus(Outcome.DONE, len(request.path)))


async def below(request: Request) -> Answer:
    """Answer what is below a path."""
    return Reply(KeyStatus(Outcome.UNKNOWN, len(request.path)))


SERVICE = Service("test", {("GET", "/v1/a"): exact, ("GET", "/v1/a/"): below, ("POST", "/v1/p"): exact})


@pytest.mark.parametrize(
    ("path", "outcome"),
    [
        ("/v1/a", Outcome.DONE),
        ("/v1/a/", Outcome.UNKNOWN),
        ("/v1/a/b", Outcome.UNKNOWN),
        ("/v1/a/b/c", Outcome.UNKNOWN),
    ],
)
async def test_a_path_is_answered_exactly_or_from_above(path: str, outcome: Outcome) -> None:
    """A route that ends with a slash stands for everything below it."""
    answer = await SERVICE.answer(request_of(path))
    assert isinstance(answer, Reply)
    assert answer.message == KeyStatus(outcome, len(path))


class Counting(dict[tuple[str, str], Respond]):
    """Routes that count how often anybody looks."""

    looked = 0

    def __contains__(self, route: object) -> bool:
        self.looked += 1
        return super().__contains__(route)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_a_path_of_any_depth_is_looked_up_as_soon(method: str) -> None:
    """A head has room for fifteen thousand parts, each a look for every route: that took a hospitald 14 s."""
    routes = Counting({("GET", f"/v1/{number}"): exact for number in range(60)} | {("POST", "/v1/"): below})
    path = "/v1" + "/a" * 15_000
    answer = await Service("test", routes).answer(request_of(path, method))
    assert isinstance(answer, Reply)
    assert answer.status == (200 if method == "POST" else 405)
    assert routes.looked < 100


def test_the_longest_path_above_answers() -> None:
    """Whatever the order in which they were named."""
    routes = {("GET", path): below for path in ("/", "/v1/a/b/", "/v1/", "/v1/a/")} | {("PUT", "/v1/a/b/c/"): below}
    service = Service("test", routes)
    assert [service.route("GET", path) for path in ("/v1/a/b/c/d", "/v1/a/b", "/v1/b", "/v2", "*")] == [
        "/v1/a/b/",
        "/v1/a/",
        "/v1/",
        "/",
        "",
    ]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/ab", 404), ("GET", "/", 404), ("GET", "*", 404), ("GET", "", 404), ("POST", "/v1/a/b", 405),
     ("GET", "/v1/p", 405), ("GET", "/v1/p/", 404), ("GET", "//v1/a", 404)],
)  # fmt: skip
async def test_another_path_or_method_is_refused(method: str, path: str, status: int) -> None:
    """A path that nobody serves is 404, a method that nobody serves there 405."""
    answer = await SERVICE.answer(request_of(path, method))
    assert isinstance(answer, Reply)
    assert isinstance(answer.message, Failure)
    assert answer.status == status


def test_every_error_has_a_status() -> None:
    """An error added to the model must be given one."""
    assert STATUS_BY_CODE.keys() == ERRORS_BY_CODE.keys()
    assert all(400 <= status < 600 for status in STATUS_BY_CODE.values())


@given(st.binary(max_size=40), st.sampled_from([Collect, AskChanges, SetAcls, DirectoryPage]))
async def test_a_body_is_the_message_asked_for_or_refused(
    octets: bytes, kind: type[Collect | AskChanges | SetAcls | DirectoryPage]
) -> None:
    """Nothing but ``MalformedMessageError`` comes out."""
    with contextlib.suppress(MalformedMessageError):
        assert isinstance(await request_of("/", octets=octets).read(kind), kind)


async def test_a_body_nested_a_million_deep_is_refused() -> None:
    """Not a crash of the daemon."""
    with pytest.raises(MalformedMessageError):
        await request_of("/", octets=b"\x81\xa5guids" + b"\x91" * 1_000_000).read(Collect)


@pytest.mark.parametrize("text", ["a:1", "127.0.0.1:65535", "[::1]:8443", "localhost:0"])
def test_an_address_reads_back(text: str) -> None:
    """IPv6 in brackets."""
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize("text", ["", "a", ":1", "a:", "a:x", "a:65536", "a:-1", "a:\u0661"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """A configuration's mistake is told as one."""
    with pytest.raises(ConfigurationError):
        Address.parse(text)
