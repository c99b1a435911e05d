"""hospitald restarted 20 times under 50 readers, of whom none may fail; and away for 10 s under 200 mounts.

The ratio is that of the seconds until all leases were back to the 30 s that they may take.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import secrets
import signal
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import trio

from mdmfs.demo.site import READER
from mdmfs.model.names import Lfn
from mdmfs.pki.tls import Credential
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.peers import PeerJudge, open_client
from mdmfs.worker.configuration import MountConfiguration
from mdmfs.worker.hospital import RemoteHospital
from mdmfs.worker.lease import Lease
from mdmfs.worker.namespace.feed import Feed
from mdmfs.worker.namespace.names import Namespace
from tests.bench._frame import Bench, Measured
from tests.bench._rights import Ground, ground

RESTARTS = int(os.environ.get("MDMFS_RESTARTS", "20"))
READERS = int(os.environ.get("MDMFS_READERS", "50"))
MOUNTS = int(os.environ.get("MDMFS_MOUNTS", "200"))
AWAY = 10.0
BACK = 30.0
SECONDS = 120.0
PATIENCE = 600.0
"""Seconds: a reader ends when what it waits for has come, and on a busy machine that may take its whole lease wait."""
BETWEEN = 6.0
"""Seconds from one restart to the next: a mount asks again within five, and then the readers shall read."""


class Nothing:
    """Who holds nothing, and remembers nothing: ``Witness`` and ``Tenant`` of a mount without FUSE."""

    def suspend(self) -> None:
        """See ``Tenant``."""

    def resume(self) -> None:
        """See ``Tenant``."""

    async def forget_pages(self) -> None:
        """See ``Tenant``."""

    async def forget_everything(self) -> None:
        """See ``Tenant``."""

    async def forget_names(self, directory: int, names: list[bytes]) -> None:
        """See ``Witness``."""

    def bar(self, inode: int) -> None:
        """See ``Witness``."""

    async def revoke(self, inode: int) -> None:
        """See ``Witness``."""

    def forget_shares(self) -> None:
        """See ``Witness``."""

    async def revoke_all(self) -> None:
        """See ``Witness``."""


def read_on(paths: list[Path], digests: dict[Path, str], seed: int, ended: Event, counts: list[int]) -> None:
    """Read, list and look at random, past the page cache, until told to end; counts what was done and what failed."""
    draw = random.Random(seed)  # noqa: S311 no secret
    done = failed = 0
    while not ended.is_set():
        path = draw.choice(paths)
        try:
            os.listdir(path.parent)  # noqa: PTH208 as programs do
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                failed += hashlib.sha256(file.read()).hexdigest() != digests[path]
            done += 1
        except OSError as error:
            failed += 1
            print(f"{path.name}: {error.strerror}")  # noqa: T201 for whoever looks for the reason
        time.sleep(draw.uniform(0, 0.2))
    counts[:] = [done, failed]


def _reader(paths: list[Path], digests: dict[Path, str], seed: int, ended: Event, told: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    counts = [0, 0]
    read_on(paths, digests, seed, ended, counts)
    told.put(counts)


def restart_under_readers(running: Ground) -> tuple[int, int]:
    """Restart hospitald again and again; gives how many files were read meanwhile, and how many readings failed."""
    paths = sorted(running.mountpoint.rglob("*.dcm"))
    digests = {path: os.getxattr(path, "user.mdmfs.sha256").decode() for path in paths}
    fork = multiprocessing.get_context("spawn")
    ended, told = fork.Event(), fork.Queue()
    readers = [fork.Process(target=_reader, args=(paths, digests, seed, ended, told)) for seed in range(READERS)]
    for reader in readers:
        reader.start()
    for number in range(RESTARTS):
        time.sleep(BETWEEN)
        running.processes.stop("hospital", signal.SIGKILL if number % 2 else signal.SIGTERM)
        running.processes.start_hospital()
    time.sleep(BETWEEN)
    ended.set()
    counts = [told.get(timeout=PATIENCE) for _ in readers]
    for reader in readers:
        reader.join()
    return sum(done for done, _ in counts), sum(failed for _, failed in counts)


async def be_away(running: Ground) -> float:
    """Let many mounts hold leases, and the hospital be away for a while; gives the seconds until all hold one again."""
    configuration = MountConfiguration.read(running.site.mount_file(READER))
    credential = Credential.of_proxy(configuration.path(configuration.credential.proxy))
    anchors = TrustAnchors(configuration.path(configuration.trust))
    judge = PeerJudge(anchors)
    peer = configuration.hospital
    address = f"127.0.0.1:{running.site.ports.hospital}"  # not over the relay of the other bench
    leases = []
    async with trio.open_nursery() as nursery:
        for _ in range(MOUNTS):
            client = open_client(address, peer.dn, credential, anchors, judge)
            hospital = RemoteHospital(lambda client=client: client, deadline=20, mount=secrets.token_bytes(16))  # type: ignore[misc]
            lease, nothing = Lease(), Nothing()
            nursery.start_soon(Feed(hospital, Namespace(hospital, Lfn(())), nothing, lease).follow)
            nursery.start_soon(lease.keep, nothing, nursery)
            leases.append(lease)
        await _all_held(leases)
        await trio.to_thread.run_sync(running.processes.stop, "hospital")
        await trio.sleep(AWAY)
        assert not any(lease.is_held for lease in leases)
        begun = trio.current_time()
        await trio.to_thread.run_sync(running.processes.start_hospital)
        await _all_held(leases)
        seconds = trio.current_time() - begun
        nursery.cancel_scope.cancel()
    return seconds


async def _all_held(leases: list[Lease]) -> None:
    with trio.fail_after(SECONDS):
        while not all(lease.is_held for lease in leases):  # noqa: ASYNC110 many of them
            await trio.sleep(0.05)


def measure() -> Measured:
    """Measure both; a reader that fails makes the ratio infinite, and so do readers that hardly read."""
    with ground() as running:
        done, failed = restart_under_readers(running)
        seconds = trio.run(be_away, running)
    rows = [
        [f"{RESTARTS} restarts under {READERS} readers: files read whole", str(done)],
        ["readings that failed", str(failed)],
        [f"away for {AWAY:g} s under {MOUNTS} mounts: all leases back after", f"{seconds:.1f} s"],
    ]
    is_met = not failed and done >= RESTARTS * READERS
    return Measured(("hospitald restarted", ""), rows, seconds / BACK if is_met else float("inf"))


BENCH = Bench(measure, bar=1.0, at_most=True)
