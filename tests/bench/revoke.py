"""200 revocations during reads, half of them with the hospital cut off from the mount: how long each way goes on.

The worst of all must be over within the project's lease of 5 s. A way that waits, or is refused, is over.
"""

from __future__ import annotations

import collections
import contextlib
import os
import struct
import time
from pathlib import Path

import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.demo.site import READER
from mdmfs.model.errors import MdmfsError
from mdmfs.model.names import Guid, Lfn
from mdmfs.pki.tls import Credential
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.client import Client
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.messages.keystores import Outcome
from mdmfs.wire.peers import PeerJudge, open_client
from mdmfs.worker.configuration import MountConfiguration
from tests.bench._frame import Bench, Measured
from tests.bench._probe import WAYS
from tests.bench._rights import LEASE, Ground, allow, change, deny, ground, start_probe, wait_until_effective

REVOCATIONS = int(os.environ.get("MDMFS_REVOCATIONS", "200"))
AT_ONCE = 20
"""Series that are revoked in one round, each with readers of its own."""
WATCHED = LEASE + 1.0
"""Seconds for which it is looked whether something still works."""
PATIENCE = 60.0


class Target:
    """One series, and the readers of its first file."""

    def __init__(self, lfn: Lfn, path: Path, folder: Path) -> None:
        self.lfn = lfn
        self.guid = Guid.parse(os.getxattr(path, "user.guid").decode())
        self._notes = folder / str(self.guid)
        self._notes.write_bytes(bytes(8 * len(WAYS)))
        self._file = self._notes.open("r+b")
        self._processes = [start_probe(path, self._notes), start_probe(path, self._notes, "mapped")]

    def last(self) -> dict[str, float]:
        """Tell when each way worked last."""
        self._file.seek(0)
        return dict(zip(WAYS, struct.unpack(f"{len(WAYS)}d", self._file.read(8 * len(WAYS))), strict=True))

    def note_key(self, when: float) -> None:
        """Note that the keystores gave a key."""
        self._file.seek(8 * WAYS.index("key"))
        self._file.write(struct.pack("d", when))
        self._file.flush()

    def end(self) -> None:
        """Stop reading."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._file.close()


async def _collect(targets: list[Target], keystores: Keystores) -> None:
    """Ask for keys as somebody would who has the ciphertext already."""
    while True:
        begun = time.monotonic()
        for target in targets:
            with contextlib.suppress(MdmfsError):
                deadline = trio.current_time() + 2
                given = collections.Counter[Outcome]()
                for name in keystores.names:
                    [(outcome, _)] = await keystores.collect_from(name, [target.guid], deadline=deadline)
                    given[outcome] += 1
                if given[Outcome.DONE] >= 2:
                    target.note_key(begun)
        await trio.sleep(0.05)


async def _revoke(
    ground: Ground, client: Client, keystores: Keystores, folder: Path, *, count: int, is_cut: bool
) -> tuple[list[dict[str, float]], list[float]]:
    """Revoke some series at once while they are read; gives what went on how long, and when that was effective."""
    targets = [Target(lfn, path, folder) for lfn, path in ground.series()[:count]]
    try:
        async with open_plain_nursery() as nursery:
            nursery.start_soon(_collect, targets, keystores)
            with trio.fail_after(PATIENCE):
                while not all(all(target.last().values()) for target in targets):  # noqa: ASYNC110 files
                    await trio.sleep(0.05)
            if is_cut:
                ground.wire.cut()
            revoked, changes = [], []
            for target in targets:
                revoked.append(time.monotonic())
                changes.append(await change(client, target.lfn, deny(ground.reader())))
            effective = [await wait_until_effective(client, each) for each in changes[-1:]] * len(targets)
            await trio.sleep(max(0.0, revoked[-1] + WATCHED - time.monotonic()))
            nursery.cancel_scope.cancel()
        went_on = [
            {way: max(0.0, when - begun) for way, when in target.last().items()}
            for target, begun in zip(targets, revoked, strict=True)
        ]
    finally:
        ground.wire.mend()
        for target in targets:
            target.end()
    for target in targets:
        changed = await change(client, target.lfn, allow(ground.reader()))
    await wait_until_effective(client, changed)
    with trio.fail_after(PATIENCE):
        while len(ground.series()) < len(targets):  # noqa: ASYNC110 a mount
            await trio.sleep(0.1)
    return went_on, effective


async def _run(ground: Ground, folder: Path) -> tuple[dict[bool, list[dict[str, float]]], dict[bool, list[float]]]:
    configuration = MountConfiguration.read(ground.site.mount_file(READER))
    credential = Credential.of_proxy(configuration.path(configuration.credential.proxy))
    anchors = TrustAnchors(configuration.path(configuration.trust))
    judge = PeerJudge(anchors)
    peers = {one.name: open_client(one.address, one.dn, credential, anchors, judge) for one in configuration.keystores}
    found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    times: dict[bool, list[float]] = {False: [], True: []}
    client = ground.client()
    async with open_plain_nursery() as nursery:
        keystores = Keystores(peers, nursery)
        while sum(map(len, found.values())) < REVOCATIONS:
            is_cut = len(found[True]) < len(found[False])
            left = REVOCATIONS // 2 - len(found[is_cut])
            went_on, effective = await _revoke(
                ground, client, keystores, folder, count=min(left, AT_ONCE), is_cut=is_cut
            )
            print(f"{len(went_on)} revoked, cut: {is_cut}", time.strftime("%X"), flush=True)  # noqa: T201 it takes minutes
            found[is_cut] += went_on
            times[is_cut] += effective
        nursery.cancel_scope.cancel()
    return found, times


def measure() -> Measured:
    """Give for each way how long it went on after a revocation, the worst, as a part of the lease."""
    with ground(AT_ONCE) as running:
        folder = running.site.state / "notes"
        folder.mkdir()
        found, times = trio.run(_run, running, folder)
    rows = []
    for way in WAYS:
        cells = [way]
        for is_cut in (False, True):
            seconds = sorted(each[way] for each in found[is_cut])
            cells += [f"{seconds[len(seconds) // 2]:.2f}", f"{seconds[-1]:.2f}"]
        rows.append(cells)
    returned = [sorted(times[is_cut]) for is_cut in (False, True)]
    told = [f"{value:.2f}" for each in returned for value in (each[len(each) // 2], each[-1])]
    rows.append(["setfacl returns", *told])
    rows.append(["revocations", str(len(found[False])), "", str(len(found[True])), ""])
    worst = max(seconds for each in (*found[False], *found[True]) for seconds in each.values())
    return Measured(
        ("seconds after a revocation", "feed, median", "worst", "cut, median", "worst"), rows, worst / LEASE
    )


BENCH = Bench(measure, bar=1.0, at_most=True)
