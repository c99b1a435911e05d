"""hospitald restarted 20 times under 50 readers, of whom none may fail; and away for 10 s under 200 mounts.

The ratio is that of the seconds until all leases were back to the 30 s that they may take.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import trio

from mdmfs.demo.site import READER
from mdmfs.model.names import Lfn
from mdmfs.pki.tls import Credential
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.peers import PeerJudge, open_client
from mdmfs.worker.configuration import MountConfiguration
from mdmfs.worker.hospital.remote import RemoteHospital
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
BETWEEN = 6.0
"""Seconds from one restart to the next: a mount asks again within five, and then the readers shall read."""
CACHE = "72 MiB"
STAGING = 76 * 2**20
"""Bytes. All files together are larger than either: some have to be fetched again, and some of those recalled."""


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


class Readers:
    """Processes that read the files of a mount."""

    def __init__(self, mountpoint: Path, count: int) -> None:
        """Start them, and wait until each has read something."""
        paths = sorted(mountpoint.rglob("*.dcm"))
        files = {str(path): os.getxattr(path, "user.mdmfs.sha256").decode() for path in paths}
        command = [sys.executable, "-m", "tests.bench._reader"]
        self._running = [
            subprocess.Popen([*command, str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for seed in range(count)
        ]
        for reader in self._running:
            assert reader.stdin is not None
            reader.stdin.write(json.dumps(files) + "\n")
            reader.stdin.flush()
        for reader in self._running:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "reading\n"

    def end(self) -> tuple[int, int, float]:
        """Give how many files were read whole, how many readings failed, and the seconds of the longest one."""
        said = []
        for reader in self._running:
            assert reader.stdin is not None
            reader.stdin.close()
        for reader in self._running:
            assert reader.stdout is not None
            said.append(json.loads(reader.stdout.read()))
            reader.wait()
        return sum(one[0] for one in said), sum(one[1] for one in said), max(one[2] for one in said)


def restart_under_readers(running: Ground) -> tuple[int, int, float]:
    """Restart hospitald again and again; gives what ``Readers.end`` tells."""
    readers = Readers(running.mountpoint, READERS)
    for number in range(RESTARTS):
        time.sleep(BETWEEN)
        running.processes.stop("hospital", signal.SIGKILL if number % 2 else signal.SIGTERM)
        running.processes.start_hospital()
    time.sleep(BETWEEN)
    return readers.end()


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
    with ground(cache=CACHE, staging=STAGING) as running:
        done, failed, longest = restart_under_readers(running)
        seconds = trio.run(be_away, running)
    rows = [
        [f"{RESTARTS} restarts under {READERS} readers: files read whole", str(done)],
        ["readings that failed", str(failed)],
        ["the longest of them", f"{longest:.1f} s"],
        [f"away for {AWAY:g} s under {MOUNTS} mounts: all leases back after", f"{seconds:.1f} s"],
    ]
    is_met = not failed and done >= RESTARTS * READERS
    return Measured(("hospitald restarted", ""), rows, seconds / BACK if is_met else float("inf"))


BENCH = Bench(measure, bar=1.0, at_most=True)
