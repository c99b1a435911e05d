"""Attacks on what a server believes of its callers: groups, roles, revoked users, CAs that change meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from mdmfs.demo.pki import Issued, delegate
from mdmfs.keystore.configuration import KeystoreConfiguration
from mdmfs.model.errors import ConfigurationError, CredentialRefusedError, PeerUnreachableError
from mdmfs.pki.tls import ServerContexts
from mdmfs.pki.trust import Crls, TrustAnchors
from mdmfs.wire.client import Client
from mdmfs.wire.download import Download
from mdmfs.wire.messages.keystores import Collect, Collected, Outcome
from mdmfs.wire.peers import PeerJudge
from mdmfs.wire.server import Address, Answer, Limits, Reply, Request, Service, StreamReply
from tests.twins import certificates as make
from tests.twins.attributes import VO, Ac, carrying, carrying_octets
from tests.twins.grid import Grid, crl_of, hash_of, make_grid, policy_of
from tests.twins.wire import calling, context_of, serving

CA = make.authority()
HOSPITAL = make.host("hospital")
VOMS = make.host("voms")
JANE = make.person("jane")
JOE = make.person("joe")
MEMBER = carrying([Ac(JANE.leaf, VOMS, [f"/{VO}/neuro/Role=reader"]).der()]).of(JANE)
LOOK = Limits(look_seconds=0.05)
PIECE = bytes(256 * 1024)


async def whoami(request: Request) -> Answer:
    """Answer with DN and FQANs."""
    await request.read(Collect)
    told = [str(request.principal.dn), *map(str, request.principal.fqans)]
    return Reply(Collected([Outcome.DONE] * len(told), [one.encode() for one in told]))


async def stream(_: Request) -> Answer:
    """Stream for ever."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in itertools.count():
            yield PIECE
            await trio.sleep(0.01)

    return StreamReply(2**50, "salt", pieces())


SERVICE = Service("hospital", {("POST", "/v1/whoami"): whoami, ("GET", "/v1/stream"): stream})


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    """Trust the tests' CA, and a VOMS server."""
    return make_grid(tmp_path, VOMS)


@contextlib.asynccontextmanager
async def asking(
    grid: Grid, issued: Issued, *, clock: Callable[[], float] = time.time, limits: Limits = LOOK
) -> AsyncIterator[Client]:
    """Serve with these directories, and be a client."""
    contexts = ServerContexts(HOSPITAL.save(grid.folder, "server"), grid.anchors, grid.vomsdir, clock=clock)
    async with (
        serving(SERVICE, contexts=contexts, clock=clock, limits=limits) as address,
        calling(address, issued, expected=HOSPITAL.dn) as client,
    ):
        yield client


async def drain(download: Download) -> None:
    """Read to the end."""
    buffer = memoryview(bytearray(2**20))
    while await download.receive_into(buffer):
        pass


async def ask(client: Client) -> list[str]:
    """Ask who we are, and give the FQANs."""
    answer = await client.call("/v1/whoami", Collect([]), Collected, deadline=trio.current_time() + 5)
    assert answer.shares[0].decode().startswith("/O=mdmfs demonstration/OU=people/CN=j")
    return [one.decode() for one in answer.shares[1:]]


async def test_a_member_comes_with_groups_and_roles(grid: Grid) -> None:
    """On every request of a connection; another user's ACs give nothing."""
    async with asking(grid, MEMBER) as client:
        assert await ask(client) == [f"/{VO}/neuro/Role=reader"]
        assert await ask(client) == [f"/{VO}/neuro/Role=reader"]
    async with asking(grid, carrying([Ac(JANE.leaf, VOMS).der()]).of(JOE)) as client:
        assert await ask(client) == []


async def test_a_server_without_a_vomsdir_knows_no_groups() -> None:
    """Nobody is in a VO whose servers are not named."""
    async with serving(SERVICE, shown=HOSPITAL) as address, calling(address, MEMBER, expected=HOSPITAL.dn) as client:
        assert await ask(client) == []


@pytest.mark.parametrize(
    "octets", [b"", b"\x30", b"\x30\x80" * 20_000, b"\x24\x80" * 20_000, bytes(1000), b"\xff" * 1000]
)
async def test_noise_where_attributes_belong_drops_no_connection(grid: Grid, octets: bytes) -> None:
    """The DN counts as before."""
    async with asking(grid, carrying_octets(octets).of(JANE)) as client:
        assert await ask(client) == []


async def test_an_ac_that_ends_on_a_kept_connection_takes_its_fqans_along(grid: Grid) -> None:
    """By the server's clock, without a new handshake; the proxy around it goes on."""
    now = [time.time()]
    proxy = carrying([Ac(JANE.leaf, VOMS, [f"/{VO}"], validity=make.seconds_from_now(60)).der()]).of(JANE)
    async with asking(grid, proxy, clock=lambda: now[0]) as client:
        assert await ask(client) == [f"/{VO}"]
        now[0] += 120
        assert await ask(client) == []
        assert len(client._connections._idle) == 1  # noqa: SLF001 nothing public tells it


async def test_a_user_revoked_on_a_kept_connection_is_refused_behind_his_proxy(grid: Grid) -> None:
    """The next request is refused with the reason; others are not disturbed."""
    grid.write_crl(CA, crl_of(CA))
    async with asking(grid, delegate(JANE, make.VALID)) as client, asking(grid, delegate(JOE, make.VALID)) as other:
        assert await ask(client) == []
        assert await ask(other) == []
        grid.write_crl(CA, crl_of(CA, [JANE.leaf]))
        await trio.sleep(0.3)
        with pytest.raises(CredentialRefusedError, match="was revoked by"):
            await ask(client)
        assert await ask(other) == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda grid: grid.write_crl(CA, crl_of(CA, [JANE.leaf])), id="revoked"),
        pytest.param(lambda grid: grid.write_crl(CA, crl_of(CA, validity=make.PAST)), id="an expired CRL"),
        pytest.param(lambda grid: grid.write_policy(CA, policy_of(CA, "/O=other/*")), id="a narrower policy"),
        pytest.param(lambda grid: (grid.certificates / f"{hash_of(CA)}.0").unlink(), id="a CA less"),
        pytest.param(lambda grid: grid.distrust(), id="no CA any more"),
    ],
)
async def test_a_download_is_cut_when_its_reader_would_no_longer_be_let_in(
    grid: Grid, change: Callable[[Grid], None], caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle, within the time between two looks and some; it never looks whole."""
    caplog.set_level(logging.INFO)
    grid.trust(make.authority("other CA"))
    deadline = trio.current_time() + 5
    async with asking(grid, JANE) as client, client.get("/v1/stream", deadline=deadline) as download:
        assert await download.receive_into(memoryview(bytearray(2**20)))
        change(grid)
        with pytest.raises(PeerUnreachableError), trio.fail_after(5):
            await drain(download)
    assert "is cut off" in caplog.text


async def test_a_download_goes_on_when_the_files_change_for_others(grid: Grid) -> None:
    """A list that is renewed, another CA that comes, an LSC that goes."""
    grid.write_crl(CA, crl_of(CA))
    async with asking(grid, MEMBER) as client:
        async with client.get("/v1/stream", deadline=trio.current_time() + 5) as download:
            buffer = memoryview(bytearray(2**20))
            grid.write_crl(CA, crl_of(CA, [JOE.leaf]))
            grid.trust(make.authority("other CA"))
            next(grid.vomsdir.rglob("*.lsc")).unlink()
            until = trio.current_time() + 0.5
            while trio.current_time() < until:
                assert await download.receive_into(buffer)
        assert await ask(client) == []


async def test_an_lsc_that_comes_is_believed_without_a_new_connection(grid: Grid) -> None:
    """The verdict is another as soon as the files are."""
    [file] = grid.vomsdir.rglob("*.lsc")
    text = file.read_text()
    file.unlink()
    async with asking(grid, MEMBER) as client:
        assert await ask(client) == []
        grid.write_lsc(text)
        await trio.sleep(0.3)
        assert await ask(client) == [f"/{VO}/neuro/Role=reader"]


async def test_files_that_are_gone_for_a_moment_cut_nobody_off(grid: Grid, caplog: pytest.LogCaptureFixture) -> None:
    """An update of the CA packages; nobody new is let in meanwhile."""
    async with asking(grid, JANE) as client:
        assert await ask(client) == []
        away = grid.certificates.rename(grid.folder / "away")
        await trio.sleep(0.3)
        assert await ask(client) == []
        away.rename(grid.certificates)
        await trio.sleep(0.3)
        assert await ask(client) == []
    assert caplog.text.count("who is inside stays") == 1


async def judged_call(address: Address, grid: Grid, crls: Crls = Crls.IF_PRESENT) -> None:
    """Call as a client that judges the server by these directories."""
    client = Client(
        address, context_of(JANE), expected=HOSPITAL.dn, judge=PeerJudge(TrustAnchors(grid.certificates, crls))
    )
    try:
        await ask(client)
    finally:
        await client.aclose()


async def test_a_client_asks_policies_and_lists_about_the_server_too(grid: Grid) -> None:
    """Any CA of the directory could name a host like the hospital; its policy does not let it."""
    async with serving(SERVICE, shown=HOSPITAL) as address:
        await judged_call(address, grid)
        with pytest.raises(PeerUnreachableError, match="CRL"):
            await judged_call(address, grid, Crls.REQUIRE)
        grid.write_policy(CA, policy_of(CA, "/O=mdmfs demonstration/OU=people/*"))
        with pytest.raises(PeerUnreachableError, match="signing policy"):
            await judged_call(address, grid)
        grid.write_policy(CA, policy_of(CA))
        grid.write_crl(CA, crl_of(CA, [HOSPITAL.leaf]))
        with pytest.raises(PeerUnreachableError, match="revoked"):
            await judged_call(address, grid)


def test_a_daemon_takes_vomsdir_and_crls_from_its_file(tmp_path: Path) -> None:
    """Both are optional; a word that is none of the two is refused by its name."""
    text = (
        '[keystore]\nname = "k"\nlisten = "127.0.0.1:1"\ndirectory = "d"\nhospitals = ["/O=x/CN=y"]\n'
        '[tls]\ncertificate = "c"\nkey = "k"\ntrust = "t"\n'
    )
    file = tmp_path / "keystore.toml"
    file.write_text(text)
    read = KeystoreConfiguration.read(file)
    assert (read.vomsdir, read.anchors.crls) == (None, Crls.IF_PRESENT)
    file.write_text(text + 'vomsdir = "vomsdir"\ncrls = "require"\n')
    read = KeystoreConfiguration.read(file)
    assert (read.vomsdir, read.anchors) == (tmp_path / "vomsdir", TrustAnchors(tmp_path / "t", Crls.REQUIRE))
    file.write_text(text + 'crls = "never"\n')
    with pytest.raises(ConfigurationError, match="crls"):
        KeystoreConfiguration.read(file)
    with pytest.raises(ConfigurationError, match="vomsdir"):
        ServerContexts(HOSPITAL.save(tmp_path, "server"), make_grid(tmp_path, VOMS).anchors, tmp_path / "missing")
