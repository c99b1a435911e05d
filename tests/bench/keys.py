"""Keys: combining, collecting, sealing and unsealing, each beside what it must not be much slower than, in one run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import trio
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mdmfs.access.acl import Acl, Entry, EntryKind, Right
from mdmfs.demo.processes import running
from mdmfs.demo.site import READER, Site, make_site
from mdmfs.hospital.kept.escrow import NewKey, key_entries, make_key, random_guid, verifier
from mdmfs.hospital.signing import SigningKey
from mdmfs.pki.tls import client_context
from mdmfs.sealing.header import FileKey, ObjectContext, Role
from mdmfs.sealing.layout import CHUNK_SIZE, SEALED_CHUNK_SIZE, whole_range
from mdmfs.sealing.seal import Sealer
from mdmfs.sealing.unseal import Unsealer
from mdmfs.sharing.shamir import combine
from mdmfs.wire.client import Client
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.messages.keystores import COLLECT_PATH, Collect, Collected, Outcome, Outcomes, VersionedAcl
from mdmfs.wire.orders import Signer, vouching
from mdmfs.wire.stream import Address
from tests.bench._bare import BARE_PATH
from tests.bench._frame import Bench, Measured
from tests.twins.keystores import shares_of
from tests.twins.servers import free_port

KEYS = 400
ROUNDS = 100
WARM_ROUNDS = 5
COMBINED = 2000
PEERS_COMBINED = 40
PLAIN_BYTES = 8 * 2**20 - 1
"""Of the object that is sealed: what ends inside a chunk."""
SEALINGS = 15
ACL_ID = b"acl of the bench"
COMBINE_BAR, BATCH_BAR, COLD_BAR, SEALING_BAR = 100.0, 10.0, 3.0, 0.7


@dataclasses.dataclass(frozen=True)
class Bar:
    """One thing measured beside another."""

    name: str
    ours: str
    theirs: str
    ratio: float
    bar: float
    at_most: bool = False

    @property
    def margin(self) -> float:
        """How far the bar is met: 1 is just met, more is better."""
        return self.bar / self.ratio if self.at_most else self.ratio / self.bar

    def row(self) -> tuple[str, ...]:
        """Give the line of the table."""
        bound = f"{'<=' if self.at_most else '>='} {self.bar:g}"
        return self.name, self.ours, self.theirs, f"{self.ratio:.2f}", bound


def measure() -> Measured:
    """Measure everything; the ratio is the worst bar's margin."""
    bars = [measure_combining(), *trio.run(measure_collecting), *measure_sealing()]
    heading = ("", "mdmfs", "beside", "ratio", "bar")
    return Measured(heading, [bar.row() for bar in bars], min(bar.margin for bar in bars))


def measure_combining() -> Bar:
    """Make keys of 32 bytes of 2 shares of 3; PyCryptodome's are 16 bytes, so it makes two for one of ours."""
    ours = [shares_of(random_guid(), secrets.token_bytes(32))[:2] for _ in range(COMBINED)]
    halves = [Shamir.split(2, 3, secrets.token_bytes(16))[:2] for _ in range(2 * PEERS_COMBINED)]
    mine = best(lambda: [combine(shares) for shares in ours]) / COMBINED
    theirs = best(lambda: [Shamir.combine(half) for half in halves]) / PEERS_COMBINED
    return Bar("one key of 2 shares (PyCryptodome)", _us(mine), _us(theirs), theirs / mine, COMBINE_BAR)


async def measure_collecting() -> list[Bar]:
    """Collect from running keystores: a batch beside one, and one whole key beside a request for nothing."""
    with tempfile.TemporaryDirectory() as folder:
        site = make_site(Path(folder) / "site", pacs="NONE@127.0.0.1:104", inclusion=None, deadline=60.0)
        with running(site) as processes, bare_server(site) as port:
            processes.start_keystores()
            processes.start_hospital()
            async with seen_by_reader(site, port) as (bare, one, keystores):
                keys = await deposit(site)
                return await _measure_collecting(keys, bare, one, keystores)


async def _measure_collecting(keys: list[NewKey], bare: Client, one: Client, keystores: Keystores) -> list[Bar]:
    guids = [key.guid.octets for key in keys]

    async def collect(count: int) -> None:
        wanted = Collect(guids[:count])
        collected = await one.call(COLLECT_PATH, wanted, Collected, deadline=soon())
        assert collected.outcomes == [Outcome.DONE] * count

    async def make(number: int) -> None:
        key = keys[number]
        async with keystores.collecting([key.guid], deadline=soon()) as gathering:
            proof = verifier(key.guid, 1, key.check)
            (await gathering.key(key.guid, proof, threshold=2)).close()

    async def ask_bare(_number: int) -> None:
        await bare.call(BARE_PATH, Outcomes([Outcome.DONE]), Outcomes, deadline=soon())

    nothing, single, batch, whole = await quartiles(ask_bare, lambda _: collect(1), lambda _: collect(KEYS), make)
    return [
        Bar(f"{KEYS} keys from a keystore (one)", _ms(batch), _ms(single), batch / single, BATCH_BAR, at_most=True),
        Bar(
            "one cold key, 3 asked (bare request)",
            _ms(whole),
            _ms(nothing),
            whole / nothing,
            COLD_BAR,
            at_most=True,
        ),
    ]


def measure_sealing() -> list[Bar]:
    """Seal and unseal beside bare AES-256-GCM over 16 KiB pieces; every buffer is kept."""
    plain = bytearray(os.urandom(PLAIN_BYTES))
    guid = random_guid()
    context = ObjectContext(Role.BODY, guid, 1, PLAIN_BYTES)
    everything = whole_range(PLAIN_BYTES)
    sealed, back = bytearray(everything.length), bytearray(PLAIN_BYTES)
    bare_sealed, cipher = bytearray(everything.length), AESGCM(secrets.token_bytes(32))
    with FileKey(secrets.token_bytes(32)) as key:

        def seal() -> bytes:
            sealer = Sealer(key, context, secrets.token_bytes(24))
            sealer.seal_into(plain, sealed)
            return sealer.header

        def unseal() -> None:
            Unsealer.open(header, key, context).unseal_range(sealed, everything, back)

        header = seal()
        unseal()
        assert back == plain
        rounds = [(best(seal, 1), best(lambda: _encrypt(cipher, plain, bare_sealed), 1)) for _ in range(SEALINGS)]
        mine, bare = (min(times) for times in zip(*rounds, strict=True))
        header = seal()
        rounds = [(best(unseal, 1), best(lambda: _decrypt(cipher, bare_sealed, back), 1)) for _ in range(SEALINGS)]
        mine_back, bare_back = (min(times) for times in zip(*rounds, strict=True))
    return [
        Bar("seal (bare AES-256-GCM)", _rate(mine), _rate(bare), bare / mine, SEALING_BAR),
        Bar("unseal (bare AES-256-GCM)", _rate(mine_back), _rate(bare_back), bare_back / mine_back, SEALING_BAR),
    ]


def _encrypt(cipher: AESGCM, plain: bytearray, sealed: bytearray) -> None:
    source, target = memoryview(plain), memoryview(sealed)
    for number, at in enumerate(range(0, len(target), SEALED_CHUNK_SIZE)):
        piece = source[number * CHUNK_SIZE : (number + 1) * CHUNK_SIZE]
        cipher.encrypt_into(number.to_bytes(12), piece, None, target[at : at + SEALED_CHUNK_SIZE])


def _decrypt(cipher: AESGCM, sealed: bytearray, plain: bytearray) -> None:
    source, target = memoryview(sealed), memoryview(plain)
    for number, at in enumerate(range(0, len(source), SEALED_CHUNK_SIZE)):
        piece = target[number * CHUNK_SIZE : (number + 1) * CHUNK_SIZE]
        cipher.decrypt_into(number.to_bytes(12), source[at : at + SEALED_CHUNK_SIZE], None, piece)


async def deposit(site: Site) -> list[NewKey]:
    """Make keys, and give each keystore its shares, for the reader to read."""
    entry = Entry(EntryKind.USER, str(site.pki.dns[READER]), Right.READ.value)
    acl = VersionedAcl(ACL_ID, 1, Acl(str(site.pki.dns["hospital"]), (entry,)).encode())
    async with trio.open_nursery() as nursery:
        signer = SigningKey(site.hospital_directory / "signing.key")
        hospital = Keystores(clients_of(site, site.pki.hospital, signer), nursery)
        keys = [make_key(random_guid(), hospital.names, 2) for _ in range(KEYS)]
        for name in hospital.names:
            entries = key_entries(keys, name, {key.guid: [[ACL_ID]] for key in keys})
            assert await hospital.set_acls(name, [acl], deadline=soon()) == [Outcome.DONE]
            assert await hospital.register(name, entries, deadline=soon()) == [Outcome.DONE] * KEYS
        nursery.cancel_scope.cancel()
    return keys


@contextlib.contextmanager
def bare_server(site: Site) -> Iterator[int]:
    """Run the server that answers nothing of worth; give its port."""
    port = free_port()
    command = [sys.executable, "-m", "tests.bench._bare", str(site.keystore_file(1)), str(port)]
    process = subprocess.Popen(command)
    try:
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            assert process.poll() is None
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()


def clients_of(site: Site, credential: object, signer: Signer | None = None) -> dict[str, Client]:
    """Give a client of every keystore; the hospital's signs its orders."""
    context = client_context(credential, site.pki.anchors, check_hostname=False)  # type: ignore[arg-type]
    ports = enumerate(site.ports.keystores, 1)
    return {
        (name := f"keystore-{number}"): Client(
            Address("127.0.0.1", port),
            context,
            expected=site.pki.dns[name],
            vouch=None if signer is None else vouching(signer, site.pki.dns[name]),
        )
        for number, port in ports
    }


@contextlib.asynccontextmanager
async def seen_by_reader(site: Site, bare_port: int) -> AsyncIterator[tuple[Client, Client, Keystores]]:
    """Connect with the reader's proxy: the bare server, one keystore by itself, and all of them."""
    proxy = site.pki.proxies[READER]
    context = client_context(proxy, site.pki.anchors, check_hostname=False)
    bare = Client(Address("127.0.0.1", bare_port), context, expected=site.pki.dns["keystore-1"])
    async with trio.open_nursery() as nursery:
        yield bare, clients_of(site, proxy)["keystore-1"], Keystores(clients_of(site, proxy), nursery)
        nursery.cancel_scope.cancel()


async def quartiles(*acts: Callable[[int], Awaitable[None]]) -> list[float]:
    """Tell the lower quartiles of what several things take, in seconds: in turn, so that all meet the same moods."""
    times: list[list[float]] = [[] for _ in acts]
    for number in range(WARM_ROUNDS + ROUNDS):
        for taken, act in zip(times, acts, strict=True):
            begun = time.perf_counter()
            await act(number)
            taken.append(time.perf_counter() - begun)
            await trio.sleep(0.005)  # what runs on in the background is not the next one's
    return [statistics.quantiles(taken[WARM_ROUNDS:])[0] for taken in times]


def best(act: Callable[[], object], rounds: int = 3) -> float:
    """Tell the least that something takes, in seconds."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        act()
        times.append(time.perf_counter() - begun)
    return min(times)


def soon() -> float:
    """Give a deadline."""
    return trio.current_time() + 20.0


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} us"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def _rate(seconds: float) -> str:
    return f"{PLAIN_BYTES / seconds / 1e6:.0f} MB/s"


BENCH = Bench(measure, bar=1.0)
