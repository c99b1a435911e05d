"""Three keystores as processes under real TLS: outages, strangers, forged peers, kill -9, and what their logs hold."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime as dt
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from mdmfs.access.acl import Acl, Entry, EntryKind, Right
from mdmfs.demo.pki import ThrowAwayPki, make_pki
from mdmfs.model.errors import (
    AccessDeniedError,
    MdmfsError,
    PeerUnreachableError,
    TooFewSharesError,
    WrongKeyError,
)
from mdmfs.model.names import Guid
from mdmfs.pki.tls import Credential, client_context
from mdmfs.sealing.header import FileKey
from mdmfs.wire.client import Client
from mdmfs.wire.keystores.answers import Verify
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.messages.keystores import KeyEntry, Outcome, VersionedAcl
from mdmfs.wire.stream import Address
from tests.twins.keystores import random_guid, shares_of
from tests.twins.servers import free_port

DEADLINE = 10.0
NAMES = ("keystore-1", "keystore-2", "keystore-3")
ACL_ID = b"acl of the tests"
REPOSITORY = Path(__file__).parents[2]

KEYSTORED = """
import sys, trio
from pathlib import Path
from mdmfs.keystore.configuration import KeystoreConfiguration
from mdmfs.keystore.service import run_keystore
from mdmfs.daemon.process import forbid_core_dumps

async def main():
    async with trio.open_nursery() as nursery:
        await nursery.start(run_keystore, KeystoreConfiguration.read(Path(sys.argv[1])))
        print("serving", flush=True)

forbid_core_dumps()
trio.run(main)
"""


@dataclasses.dataclass
class Daemon:
    """One keystore's process, on a port that stays when it is started again."""

    configuration: Path
    log: Path
    address: Address
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin; ``wait`` until it serves."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-c", KEYSTORED, str(self.configuration)], cwd=REPOSITORY, stdout=log, stderr=log
            )

    def wait(self, times: int = 1) -> None:
        """Wait until it serves for the n-th time."""
        end = time.monotonic() + 20
        while self.log.read_bytes().count(b"serving\n") < times:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it, without a chance to say goodbye."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait()
            self.process = None


@dataclasses.dataclass
class Site:
    """A PKI, three daemons, and what was registered."""

    pki: ThrowAwayPki
    daemons: dict[str, Daemon]
    secrets: dict[Guid, bytes] = dataclasses.field(default_factory=dict)
    shares: list[bytes] = dataclasses.field(default_factory=list)

    @contextlib.asynccontextmanager
    async def seen_by(self, credential: Credential, names: dict[str, str] | None = None) -> AsyncIterator[Keystores]:
        """Give the keystores as a principal sees them; ``names`` changes who is expected where."""
        context = client_context(credential, self.pki.anchors, check_hostname=False)
        clients = {
            name: Client(daemon.address, context, expected=self.pki.dns[(names or {}).get(name, name)])
            for name, daemon in self.daemons.items()
        }
        try:
            async with trio.open_nursery() as nursery:
                yield Keystores(clients, nursery)
                nursery.cancel_scope.cancel()
        finally:
            for client in clients.values():
                await client.aclose()

    async def register(self, hospital: Keystores, *guids: Guid) -> None:
        """Make a key for each GUID, for the reader to read."""
        entry = Entry(EntryKind.USER, str(self.pki.dns["reader"]), Right.READ.value)
        acl = VersionedAcl(ACL_ID, 1, Acl(str(self.pki.dns["hospital"]), (entry,)).encode())
        batches: dict[str, list[KeyEntry]] = {name: [] for name in NAMES}
        for guid in guids:
            self.secrets[guid] = secrets.token_bytes(32)
            for name, share in zip(NAMES, shares_of(guid, self.secrets[guid]), strict=True):
                batches[name].append(KeyEntry(share.encode(), [[ACL_ID]]))
                self.shares.append(share.y)
        for name in NAMES:
            await self.confirm(hospital, name)
            assert await hospital.set_acls(name, [acl], deadline=soon()) == [Outcome.DONE]
            assert await hospital.register(name, batches[name], deadline=soon()) == [Outcome.DONE] * len(guids)

    async def confirm(self, hospital: Keystores, name: str) -> None:
        """Tell a keystore that it knows everything, as hospitald does at once after each start."""
        held = await hospital.epoch(name, deadline=soon())
        assert (await hospital.confirm(name, 0, b"", held.nonce, deadline=soon())).is_current

    def proof(self, guid: Guid) -> Verify:
        """Give what tells the right key."""

        def verify(key: FileKey) -> None:
            if bytes(key.octets) != self.secrets[guid]:
                message = "another key"
                raise WrongKeyError(message)

        return verify

    async def key(self, keystores: Keystores, guid: Guid) -> bytes:
        """Collect one key."""
        async with keystores.collecting([guid], deadline=soon()) as gathering:
            with await gathering.key(guid, self.proof(guid), threshold=2) as key:
                return bytes(key.octets)


async def asked_again(site: Site, reader: Keystores, guid: Guid) -> None:
    """Ask for a key until keystore-1, which the reader leaves alone for a while after its outage, answers."""
    while True:
        try:
            await site.key(reader, guid)
        except TooFewSharesError as error:
            if "keystore-1: has yet" in str(error):
                raise
        await trio.sleep(0.1)


def soon() -> float:
    """Give a deadline."""
    return trio.current_time() + DEADLINE


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Start three keystores for the demonstration's hospital."""
    pki = make_pki(tmp_path / "pki", keystores=3, now=dt.datetime.now(dt.UTC))
    daemons = {}
    for name in NAMES:
        configuration = tmp_path / f"{name}.toml"
        address = Address("127.0.0.1", free_port())
        configuration.write_text(
            f'[keystore]\nname = "{name}"\nlisten = "{address}"\ndirectory = "{name}"\n'
            f'hospitals = ["{pki.dns["hospital"]}"]\n'
            f'[tls]\ncertificate = "pki/{name}.pem"\nkey = "pki/{name}.key"\ntrust = "pki/ca.pem"\n'
        )
        daemons[name] = Daemon(configuration, tmp_path / f"{name}.log", address)
    try:
        for daemon in daemons.values():
            daemon.start()
        for daemon in daemons.values():
            daemon.wait()
        yield Site(pki, daemons)
    finally:
        for daemon in daemons.values():
            daemon.stop()


async def test_any_two_of_three_suffice_two_down_is_told_at_once_and_it_recovers_by_itself(site: Site) -> None:
    """One stopped: everything reads. Two: a clear error long before the deadline. One back: reads again in seconds."""
    guid = random_guid()
    async with site.seen_by(site.pki.hospital) as hospital, site.seen_by(site.pki.proxies["reader"]) as reader:
        await site.register(hospital, guid)
        assert await site.key(reader, guid) == site.secrets[guid]
        site.daemons["keystore-2"].stop()
        for _ in range(5):
            assert await site.key(reader, guid) == site.secrets[guid]
        site.daemons["keystore-1"].stop()
        with pytest.raises(
            TooFewSharesError, match=r"keystore-1: .*keystore-2: .*keystore-3: (gave share 3|no answer yet)"
        ):
            await site.key(reader, guid)
        site.daemons["keystore-1"].start()
        site.daemons["keystore-1"].wait(2)
        with pytest.raises(TooFewSharesError, match="has yet to hear from the hospital"):
            await asked_again(site, reader, guid)
        await site.confirm(hospital, "keystore-1")
        with trio.fail_after(DEADLINE):
            while True:
                with contextlib.suppress(TooFewSharesError):
                    assert await site.key(reader, guid) == site.secrets[guid]
                    break
                await trio.sleep(0.1)


async def test_a_keystore_that_is_stopped_in_its_tracks_delays_nobody(site: Site) -> None:
    """SIGSTOP: its port still accepts, and nothing ever answers."""
    guid = random_guid()
    async with site.seen_by(site.pki.hospital) as hospital, site.seen_by(site.pki.proxies["reader"]) as reader:
        await site.register(hospital, guid)
        assert await site.key(reader, guid) == site.secrets[guid]
        stopped = site.daemons["keystore-1"].process
        assert stopped is not None
        stopped.send_signal(signal.SIGSTOP)
        with trio.fail_after(10 * DEADLINE):  # a delay at each would be twice that
            for _ in range(20):
                assert await site.key(reader, guid) == site.secrets[guid]


async def test_a_stranger_gets_no_share_and_a_user_cannot_write(site: Site) -> None:
    """The reader's ACL is for the reader, registering for the hospital, whatever a certificate of the CA asks."""
    guid = random_guid()
    async with site.seen_by(site.pki.hospital) as hospital, site.seen_by(site.pki.proxies["stranger"]) as stranger:
        await site.register(hospital, guid)
        with pytest.raises(AccessDeniedError):
            await site.key(stranger, guid)
        everyone = Acl("/CN=x", (Entry(EntryKind.OTHER, "", 31),)).encode()
        entry = KeyEntry(shares_of(guid, bytes(32), generation=9)[0].encode(), [[ACL_ID]])
        for name in NAMES:
            for attempt in (
                stranger.register(name, [entry], deadline=soon()),
                stranger.set_acls(name, [VersionedAcl(ACL_ID, 99, everyone)], deadline=soon()),
                stranger.unregister(name, [guid], deadline=soon()),
                stranger.status(name, [guid], deadline=soon()),
            ):
                with pytest.raises(AccessDeniedError):
                    await attempt
        with pytest.raises(AccessDeniedError):
            await site.key(stranger, guid)
        assert await site.key(hospital, guid) == site.secrets[guid]


async def test_who_is_of_another_ca_or_no_keystore_gets_nothing(site: Site, tmp_path: Path) -> None:
    """A reader of the same name from another CA is refused; a machine with a valid certificate is not any keystore."""
    guid = random_guid()
    forged = make_pki(tmp_path / "forged", keystores=1, now=dt.datetime.now(dt.UTC))
    assert forged.dns["hospital"] == site.pki.dns["hospital"]
    swapped = {"keystore-1": "keystore-2", "keystore-2": "keystore-1", "keystore-3": "metadata"}
    async with (
        site.seen_by(site.pki.hospital) as hospital,
        site.seen_by(forged.hospital) as forger,
        site.seen_by(site.pki.hospital, swapped) as misled,
    ):
        await site.register(hospital, guid)
        with pytest.raises(MdmfsError) as caught:
            await site.key(forger, guid)
        assert not isinstance(caught.value, AccessDeniedError)
        with pytest.raises(TooFewSharesError, match=r"is /.*CN=keystore-[123], not /"):
            await site.key(misled, guid)
        for name in NAMES:
            with pytest.raises(PeerUnreachableError):
                await misled.status(name, [guid], deadline=soon())


async def test_kill_9_while_keys_are_registered_loses_none_that_was_acknowledged(site: Site) -> None:
    """Of three keystores killed in the middle, each still has every entry that it said DONE to."""
    done: dict[str, list[Guid]] = {name: [] for name in NAMES}

    async def deposit(hospital: Keystores, name: str) -> None:
        with contextlib.suppress(MdmfsError):
            while True:
                guids = [random_guid() for _ in range(20)]
                entries = [KeyEntry(shares_of(guid, bytes(32))[0].encode(), [[ACL_ID]]) for guid in guids]
                assert await hospital.register(name, entries, deadline=soon()) == [Outcome.DONE] * 20
                done[name] += guids

    async with site.seen_by(site.pki.hospital) as hospital:
        async with trio.open_nursery() as nursery:
            for name in NAMES:
                for _ in range(3):
                    nursery.start_soon(deposit, hospital, name)
            for name, daemon in site.daemons.items():
                while len(done[name]) < 100:  # noqa: ASYNC110 the daemon is killed between two answers, at no event
                    await trio.sleep(0.01)
                daemon.stop()
        for daemon in site.daemons.values():
            daemon.start()
        for name, daemon in site.daemons.items():
            daemon.wait(2)
            statuses = await hospital.status(name, done[name], deadline=soon())
            assert {status.outcome for status in statuses} == {Outcome.DONE}


async def test_no_log_holds_a_share_or_a_key(site: Site) -> None:
    """In none of the spellings that bytes take in logs; DN, GUID and outcome are there."""
    guids = [random_guid() for _ in range(3)]
    async with site.seen_by(site.pki.hospital) as hospital, site.seen_by(site.pki.proxies["reader"]) as reader:
        await site.register(hospital, *guids)
        answers = await reader.collect(guids, enough=3, deadline=soon())
        for guid in guids:
            answers[guid].key(site.proof(guid), threshold=2).close()
    site.daemons["keystore-1"].stop(signal.SIGTERM)
    for daemon in site.daemons.values():
        written = daemon.log.read_bytes()
        for octets in (*site.shares, *site.secrets.values()):
            for spelling in (octets, octets.hex().encode(), base64.b64encode(octets), repr(octets)[2:-1].encode()):
                assert spelling not in written
        assert all(written.count(str(guid).encode()) >= 2 for guid in guids)
        assert str(site.pki.dns["reader"]).encode() in written
