"""A worker before a hospital over real TLS: a proxy that changes under a mount, a restart in the middle of a read."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog.testing
import trio
import trio.testing

from mdmfs.daemon.configuration import KeystorePeer
from mdmfs.demo.pki import Issued, delegate
from mdmfs.model.errors import CredentialExpiredError, CredentialRefusedError, MdmfsError, NoSuchFileError
from mdmfs.model.identity import Dn
from mdmfs.pki.tls import Credential
from mdmfs.wire.client import Client
from mdmfs.wire.messages.files import CHANGES_PATH, AskChanges, Changes, Node, NodeKind
from mdmfs.wire.server import Address, serve
from mdmfs.wire.service import Reply, Request, Service
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.callers.peers import LOOK_SECONDS, WRITING_SECONDS, Peers
from mdmfs.worker.configuration import HospitalPeer, MountConfiguration
from mdmfs.worker.fuse.errnos import errno_of
from mdmfs.worker.hospital.remote import RemoteHospital
from mdmfs.worker.keys.ring import KeyRing
from mdmfs.worker.lease import Lease
from mdmfs.worker.memory import Memory
from mdmfs.worker.opening import Opener
from mdmfs.worker.places import Places
from mdmfs.worker.reading.parts import Parts
from mdmfs.worker.serving import Branch
from tests.twins import certificates as make
from tests.twins.hospital import REGISTERED, ROOT, TwinFile, TwinHospital
from tests.twins.hospital_service import HospitalOnTheWire
from tests.twins.keystores import random_guid
from tests.twins.octets import octets
from tests.twins.pages import NoPages
from tests.twins.wire import LOOPBACK, anchors_in, calling, contexts_of, serving

HOSPITAL = make.host("hospital")
JANE, BOB = make.person("jane"), make.person("bob")
HOUR = 3600.0


@dataclasses.dataclass
class Desk:
    """A worker's view of its peers, the proxy file that it looks at, and the server's clock."""

    peers: Peers
    proxy: Path
    on_wire: HospitalOnTheWire
    hours: float = 0.0
    """By which the hospital's clock is ahead."""

    async def ask(self, clock: trio.testing.MockClock) -> str:
        """List a directory, a moment after the last look at the proxy; gives whom the hospital saw."""
        clock.jump(LOOK_SECONDS + 0.1)
        await RemoteHospital(self.peers.hospital, deadline=10).list_directory(ROOT, "")
        return str(self.on_wire.callers[-1])

    async def errno_of_asking(self, clock: trio.testing.MockClock, error: type[MdmfsError]) -> int:
        """Give what a program sees of a refusal."""
        with structlog.testing.capture_logs(), pytest.raises(error) as refused:
            await self.ask(clock)
        return errno_of(refused.value)


@pytest.fixture
async def desk(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Desk]:
    """Serve a hospital, and look at it through a proxy of Jane's."""
    on_wire = HospitalOnTheWire(TwinHospital())
    proxy = tmp_path / "x509up"
    delegate(JANE, make.seconds_from_now(HOUR)).save_proxy(proxy)
    desks: list[Desk] = []
    async with serving(
        on_wire.service(), shown=HOSPITAL, clock=lambda: time.time() + sum(desk.hours * HOUR for desk in desks)
    ) as address:
        hospital = HospitalPeer(str(address), str(HOSPITAL.dn))
        keystores = [KeystorePeer("k1", str(address), str(HOSPITAL.dn))]
        with structlog.testing.capture_logs():
            peers = Peers(hospital, keystores, Credential.of_proxy(proxy), anchors_in(tmp_path), nursery)
            desk = Desk(peers, proxy, on_wire)
            desks.append(desk)
            yield desk
            await peers.aclose()


async def test_an_expired_proxy_is_ekeyexpired_until_it_is_renewed(
    desk: Desk, mock_clock: trio.testing.MockClock
) -> None:
    """On the connection that is open already, and without a remount."""
    assert await desk.ask(mock_clock) == str(JANE.dn)
    desk.hours = 2
    assert await desk.errno_of_asking(mock_clock, CredentialExpiredError) == errno.EKEYEXPIRED
    delegate(JANE, make.seconds_from_now(12 * HOUR)).save_proxy(desk.proxy)
    assert await desk.ask(mock_clock) == str(JANE.dn)


async def test_a_proxy_that_is_written_over_takes_nothing_away(desk: Desk, mock_clock: trio.testing.MockClock) -> None:
    """Many renew it so, and whoever looks meanwhile sees half of one."""
    assert await desk.ask(mock_clock) == str(JANE.dn)
    for _ in range(3):
        for half in (b"", desk.proxy.read_bytes()[:700]):
            desk.proxy.write_bytes(half)
            assert await desk.ask(mock_clock) == str(JANE.dn)
            delegate(JANE, make.seconds_from_now(HOUR)).save_proxy(desk.proxy)
            assert await desk.ask(mock_clock) == str(JANE.dn)


async def test_an_hour_before_a_proxy_ends_the_log_says_so_once(
    desk: Desk, tmp_path: Path, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    """And not again, until there is a new one."""
    delegate(JANE, make.seconds_from_now(2 * HOUR)).save_proxy(desk.proxy)
    ahead = [0.0]
    hospital, credential = HospitalPeer("127.0.0.1:1", str(HOSPITAL.dn)), Credential.of_proxy(desk.proxy)
    keystores = [KeystorePeer("k1", "127.0.0.1:1", str(HOSPITAL.dn))]
    peers = Peers(hospital, keystores, credential, anchors_in(tmp_path), nursery, clock=lambda: time.time() + ahead[0])
    with structlog.testing.capture_logs() as logs:
        for ahead[0] in (0.0, HOUR / 2, HOUR + 60, HOUR + 120):
            mock_clock.jump(10)
            peers.hospital()
    assert [log["minutes"] for log in logs if log["event"] == "the credential ends soon"] == [59]
    await peers.aclose()


JOINED_WRONGLY = """
trust = "ca"
[[hospitals]]
name = "no/name"
address = "127.0.0.1:1"
dn = "/CN=h"
keystores = [{name = "k5", address = "127.0.0.1:1", dn = "/CN=k"}]
"""


def naming(file: Path, *keystores: str, dn: str = "/CN=k") -> None:
    """Write the configuration of a mount."""
    peers = "".join(f'[[keystores]]\nname = "{name}"\naddress = "127.0.0.1:1"\ndn = "{dn}"\n' for name in keystores)
    file.write_text(f'trust = "ca"\n[hospital]\naddress = "127.0.0.1:1"\ndn = "/CN=h"\n{peers}')


async def test_keystores_that_the_configuration_names_anew_are_asked_without_a_remount(
    desk: Desk, tmp_path: Path, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    """While the file is wrong, or half written, those of before are."""
    file = tmp_path / "mount.toml"
    naming(file, "k1", "k2", "k3")
    configuration, credential = MountConfiguration.read(file), Credential.of_proxy(desk.proxy)
    anchors = anchors_in(tmp_path)
    peers = Peers(configuration.hospital, configuration.keystores, credential, anchors, nursery, file=file)
    with structlog.testing.capture_logs() as logs:
        assert peers.keystores().names == ("k1", "k2", "k3")
        naming(file, "k1", "k2", "k3", "k4")
        mock_clock.jump(10)
        assert peers.keystores().names == ("k1", "k2", "k3", "k4")
        before = peers.keystores()
        wrong = (
            lambda: file.write_text("trust ="),
            lambda: naming(file, "k5", dn="nobody"),
            lambda: file.write_text(JOINED_WRONGLY),
            file.unlink,
        )
        for spoil in (*wrong, lambda: os.mkfifo(file)):
            spoil()
            mock_clock.jump(10)
            assert peers.keystores().names == before.names
        file.unlink()
        naming(file, "k1", "k4")
        mock_clock.jump(10)
        assert peers.keystores().names == ("k1", "k4")
    assert sum(str(log["event"]).startswith("the keystores stay as they were") for log in logs) == 5
    await peers.aclose()


async def test_a_proxy_that_had_expired_before_is_ekeyexpired_too(
    desk: Desk, mock_clock: trio.testing.MockClock
) -> None:
    """There the handshake fails, with an alert."""
    delegate(JANE, make.PAST).save_proxy(desk.proxy)
    assert await desk.errno_of_asking(mock_clock, CredentialExpiredError) == errno.EKEYEXPIRED
    delegate(JANE, make.VALID).save_proxy(desk.proxy)
    assert await desk.ask(mock_clock) == str(JANE.dn)


async def test_a_proxy_of_somebody_else_speaks_for_him_from_then_on(
    desk: Desk, mock_clock: trio.testing.MockClock
) -> None:
    """No connection of the first one is used for the second."""
    assert await desk.ask(mock_clock) == str(JANE.dn)
    before = desk.peers.keystores()
    delegate(BOB, make.VALID).save_proxy(desk.proxy)
    assert await desk.ask(mock_clock) == str(BOB.dn)
    assert desk.peers.keystores() is not before


async def test_who_leaves_has_a_last_word_of_his_own(desk: Desk, mock_clock: trio.testing.MockClock) -> None:
    """Where another follows him or he destroys his proxy, and not where he renews it."""
    left: list[Client] = []
    desk.peers.on_leaving = left.append
    for person in (JANE, JANE, BOB, JANE):
        delegate(person, make.VALID).save_proxy(desk.proxy)
        assert await desk.ask(mock_clock) == str(person.dn)
    desk.proxy.unlink()
    await desk.errno_of_asking(mock_clock, CredentialRefusedError)
    for client, person in zip(left, (JANE, BOB, JANE), strict=True):
        await RemoteHospital(lambda client=client: client, deadline=10).list_directory(ROOT, "")  # type: ignore[misc]
        assert str(desk.on_wire.callers[-1]) == str(person.dn)
        await client.aclose()


async def test_a_question_that_waits_for_news_is_asked_anew_for_somebody_else(
    tmp_path: Path, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    """As soon as somebody looks at the file: until it is answered, all that the first one has seen stays."""
    asking, told = trio.Event(), []

    async def answer(request: Request) -> Reply:
        question = await request.read(AskChanges)
        if request.principal.dn == JANE.dn:
            asking.set()
            await trio.sleep_forever()
        return Reply(Changes(question.since + 1, [], [], groups=[str(request.principal.dn)]))

    async def follow() -> None:
        told.append(await RemoteHospital(peers.hospital, deadline=10).changes(7, 30.0))

    credential = delegate(JANE, make.VALID).save_proxy(tmp_path / "x509up")
    async with serving(Service("hospital", {("POST", CHANGES_PATH): answer}), shown=HOSPITAL) as address:
        peer = HospitalPeer(str(address), str(HOSPITAL.dn))
        peers = Peers(peer, [KeystorePeer("k1", peer.address, peer.dn)], credential, anchors_in(tmp_path), nursery)
        with structlog.testing.capture_logs():
            async with trio.open_nursery() as following:
                following.start_soon(follow)
                await asking.wait()
                delegate(BOB, make.VALID).save_proxy(credential.key_file)
                mock_clock.jump(LOOK_SECONDS + 0.1)
                mock_clock.rate = 1.0
                following.cancel_scope.deadline = trio.current_time() + 10
                assert peers.look()
                assert not peers.look()
        await peers.aclose()
    assert told == [Changes(8, [], [], groups=[str(BOB.dn)])]


class Kernel(NoPages):
    """Remembers nothing."""

    async def forget_names(self, directory: int, names: list[bytes]) -> None:
        """See ``Kernel``."""


async def test_what_somebody_has_opened_is_reported_by_him_though_another_has_the_mount_by_then(
    tmp_path: Path, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    """It is told with a question that waits for news; that is the next one's from then on, and tells nothing more."""
    asking, reported = trio.Event(), set[tuple[Dn, int]]()

    async def answer(request: Request) -> Reply:
        nonlocal asking
        question = await request.read(AskChanges)
        if question.report is not None:
            reported.add((request.principal.dn, question.report.number))
        if question.wait:
            asking.set()
            await trio.sleep_forever()
        if not reported:
            branch._opener.opens.note(random_guid())  # noqa: SLF001 as if it had been at hand
        return Reply(Changes(question.since, [], [], lease=3600.0))

    service, proxy = HospitalOnTheWire(TwinHospital()).service(), tmp_path / "x509up"
    credential = delegate(JANE, make.VALID).save_proxy(proxy)
    async with serving(
        Service("hospital", {**service.routes, ("POST", CHANGES_PATH): answer}), shown=HOSPITAL
    ) as address:
        peer = f'address = "{address}"\ndn = "{HOSPITAL.dn}"\n'
        (tmp_path / "mount.toml").write_text(
            f'trust = "{anchors_in(tmp_path).path}"\n[hospital]\n{peer}[[keystores]]\nname = "k1"\n{peer}'
        )
        memory = Memory()
        (ports,) = Places(MountConfiguration.read(tmp_path / "mount.toml"), memory).ports(credential, nursery)
        with structlog.testing.capture_logs():
            branch = Branch(
                ports,
                CiphertextCache(tmp_path / "cache", 2**20),
                ROOT,
                Kernel(),
                nursery,
                deadline=5,
                lease=Lease(trio.current_time),
                tree=0,
                shown=ROOT,
                memory=memory,
            )
            branch.start()
            for person in (JANE, BOB):
                delegate(person, make.VALID).save_proxy(proxy)
                asking = trio.Event()
                mock_clock.rate = 10.0
                await asking.wait()
            branch._opener.opens.note(random_guid())  # noqa: SLF001 as above
            await branch.tell_last(None)
    assert reported == {(JANE.dn, 1), (BOB.dn, 2)}
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("octets_", [None, b"", b"no proxy"])
async def test_a_proxy_that_is_gone_or_none_is_eacces_until_there_is_one(
    desk: Desk, mock_clock: trio.testing.MockClock, octets_: bytes | None
) -> None:
    """What was loaded before is used no longer: whoever destroys a proxy means it."""
    assert await desk.ask(mock_clock) == str(JANE.dn)
    desk.proxy.unlink()
    if octets_ is not None:
        desk.proxy.write_bytes(octets_)
        desk.proxy.chmod(0o600)
        assert await desk.ask(mock_clock) == str(JANE.dn)  # it may just be being written
        mock_clock.jump(WRITING_SECONDS)
    assert await desk.errno_of_asking(mock_clock, CredentialRefusedError) == errno.EACCES
    with pytest.raises(CredentialRefusedError):
        desk.peers.keystores()
    desk.proxy.unlink(missing_ok=True)
    delegate(JANE, make.VALID).save_proxy(desk.proxy)
    assert await desk.ask(mock_clock) == str(JANE.dn)


async def test_a_proxy_that_cannot_be_looked_at_is_eacces_in_a_moment_and_ends_nothing(
    desk: Desk, mock_clock: trio.testing.MockClock
) -> None:
    """As where the server of a home directory has gone: any error but ours would end who follows the feed."""
    assert await desk.ask(mock_clock) == str(JANE.dn)
    desk.proxy.unlink()
    desk.proxy.symlink_to("x" * 300)  # ENAMETOOLONG stands for ESTALE, EIO and EACCES
    assert await desk.ask(mock_clock) == str(JANE.dn)
    mock_clock.jump(WRITING_SECONDS)
    assert await desk.errno_of_asking(mock_clock, CredentialRefusedError) == errno.EACCES
    desk.proxy.unlink()
    delegate(JANE, make.VALID).save_proxy(desk.proxy)
    assert await desk.ask(mock_clock) == str(JANE.dn)


async def test_a_proxy_that_others_may_read_is_not_used(desk: Desk, mock_clock: trio.testing.MockClock) -> None:
    """As grid programs have it."""
    desk.proxy.chmod(0o644)
    assert await desk.errno_of_asking(mock_clock, CredentialRefusedError) == errno.EACCES


# A restart


class Restarting:
    """A hospital that can be stopped in the middle and started again on its port."""

    def __init__(self, twin: TwinHospital, shown: Issued, folder: Path, nursery: trio.Nursery) -> None:
        self._service = HospitalOnTheWire(twin).service()
        self._contexts = contexts_of(shown, folder)
        self._nursery = nursery
        self._scope = trio.CancelScope()
        self.address = LOOPBACK

    async def start(self) -> None:
        """Listen, on the port of before."""
        self._scope = trio.CancelScope()
        self.address = await self._nursery.start(self._serve)

    def stop(self) -> None:
        """Cut every connection."""
        self._scope.cancel()

    async def _serve(self, task_status: trio.TaskStatus[Address]) -> None:
        with self._scope:
            await serve(self._service, self._contexts, self.address, task_status=task_status)


@pytest.mark.parametrize("is_staged", [True, False])
async def test_a_hospital_that_restarts_in_the_middle_of_a_transfer_fails_no_reader(
    tmp_path: Path, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, *, is_staged: bool
) -> None:
    """It goes on where it was, or from the beginning with what was sealed anew."""
    caplog.set_level(logging.CRITICAL)
    twin = TwinHospital()
    twin.staged = {} if is_staged else None
    twin.piece, twin.pause = 2**17, 0.02
    file = twin.add_file("/grid/medical/a/x.dcm", octets(4_000_000, "x"))
    with structlog.testing.capture_logs():
        keystores = await twin.open_keystores(nursery)
        hospital = Restarting(twin, HOSPITAL, tmp_path, nursery)
        await hospital.start()
        async with calling(hospital.address, delegate(JANE, make.VALID), expected=HOSPITAL.dn) as client:
            cache = CiphertextCache(tmp_path / "cache", 2**30)
            await cache.load()
            port, ring = RemoteHospital(lambda: client, deadline=20), KeyRing(lambda: keystores, deadline=20)
            opener = Opener(Parts.around(port, cache, ring, NoPages(), nursery), deadline=20)
            async with _restarted(hospital, opener, file):
                assert await _read(opener, file) == file.plaintext
    hospital.stop()
    assert [one is None for one in twin.beginnings] == [True, False]


async def test_siblings_fetched_ahead_come_in_one_answer_over_a_connection_that_serves_again(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    """Each is in the cache when it is whole; one that is not there fails alone, and the call tells why."""
    twin = TwinHospital()
    files = [twin.add_file(f"/grid/medical/a/{number}.dcm", octets(300_000, str(number))) for number in range(4)]
    keystores = await twin.open_keystores(nursery)
    contexts = contexts_of(HOSPITAL, tmp_path)
    address = await nursery.start(serve, HospitalOnTheWire(twin).service(), contexts, LOOPBACK)
    async with calling(address, delegate(JANE, make.VALID), expected=HOSPITAL.dn) as client:
        cache = CiphertextCache(tmp_path / "cache", 2**30)
        await cache.load()
        port, ring = RemoteHospital(lambda: client, deadline=20), KeyRing(lambda: keystores, deadline=20)
        opener = Opener(Parts.around(port, cache, ring, NoPages(), nursery), deadline=20)
        await opener.prefetch([_node(file) for file in files[:3]])
        del twin.files[files[3].guid]
        with pytest.raises(NoSuchFileError):
            await opener.prefetch([_node(files[3])])
        assert [file.guid in cache for file in files] == [True, True, True, False]
        assert [await _read(opener, file) for file in files[:3]] == [file.plaintext for file in files[:3]]
    assert twin.fetches == 2


@contextlib.asynccontextmanager
async def _restarted(hospital: Restarting, opener: Opener, file: TwinFile) -> AsyncIterator[None]:
    """Restart it once some of the file has arrived, however long that takes."""

    def has_begun() -> bool:
        opened = opener._parts.files.get(file.inode)  # noqa: SLF001 what has arrived so far
        return opened is not None and opened.arriving is not None and opened.arriving[0].arrived > 0

    async def restart() -> None:
        while not has_begun():  # noqa: ASYNC110 nobody tells
            await trio.sleep(0.01)
        hospital.stop()
        await trio.sleep(0.5)
        await hospital.start()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(restart)
        yield


async def _read(opener: Opener, file: TwinFile) -> bytes:
    opened = await opener.open(_node(file))
    try:
        return await opener.read(opened, 0, len(file.plaintext))
    finally:
        opener.close(opened)


def _node(file: TwinFile) -> Node:
    return Node("x.dcm", file.inode, NodeKind.FILE, len(file.plaintext), REGISTERED, file.guid.octets)


async def test_a_mount_says_with_which_groups_it_applied_changes_last() -> None:
    """So the hospital knows what its caller has lost, whatever it remembers."""
    asked: list[list[str]] = []

    async def answer(request: Request) -> Reply:
        asked.append((await request.read(AskChanges)).groups)
        return Reply(Changes(7, [], []))

    service = Service("hospital", {("POST", CHANGES_PATH): answer})
    async with (
        serving(service, shown=HOSPITAL) as address,
        calling(address, delegate(JANE, make.VALID), expected=HOSPITAL.dn) as client,
    ):
        hospital = RemoteHospital(lambda: client, deadline=10)
        await hospital.changes(1, 0.0)
        await hospital.changes(2, 0.0, None, ("/neuro",))
    assert asked == [[], ["/neuro"]]
