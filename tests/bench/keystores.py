"""Keystores in trouble while files are read: down, slow, lying, behind, restored, replaced, suspected.

The ratio is that of reads under load that gave what they must; whatever else must hold is asserted, row by row.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
import trio

from mdmfs.demo.site import READER
from mdmfs.model.errors import IntegrityError, WrongKeyError
from mdmfs.model.names import Guid, Lfn
from mdmfs.sealing.header import FileKey, ObjectContext, Role
from mdmfs.sealing.layout import HEADER_SIZE
from mdmfs.sealing.unseal import Unsealer
from mdmfs.sharing.shamir import combine
from mdmfs.wire.messages.acls import ACL_EFFECT_PATH, AclEffect, AskAclEffect
from mdmfs.wire.messages.key_tasks import KeyTask
from mdmfs.wire.messages.keystores import Outcome
from tests.bench._frame import Bench, Measured
from tests.bench._keystores import DEADLINE, THIRD, Ground, Reads, ground, wait_for
from tests.bench._rights import change, deny

SERIES, INSTANCES = 8, 20
SLOW = 5.0
REVOKED = 1
"""The series that the reader may not read any more."""


class Report:
    """Rows, and the sum of them."""

    def __init__(self, where: Ground) -> None:
        self._where = where
        self.rows: list[tuple[str, ...]] = []
        self.done = self.failed = 0

    @contextlib.contextmanager
    def under_load(self, name: str) -> Iterator[Callable[[str], None]]:
        """Read while the block runs; what it says stands in the row."""
        told: list[str] = []
        with self._where.load.reading() as ended:
            yield told.append
        self.add(name, ended(), "; ".join(told))

    def add(self, name: str, reads: Reads, told: str) -> None:
        """Add a row."""
        self.done += reads.files + reads.keys
        self.failed += len(reads.failures)
        for failure in reads.failures[:3]:
            sys.stderr.write(f"{name}: {failure}\n")
        files, slowest = f"{reads.files} files, {reads.keys} keys", f"{reads.slowest:.2f} s"
        self._tell(name, files, str(len(reads.failures)), slowest, told)

    def say(self, name: str, told: str) -> None:
        """Add a row about something that is not reading."""
        self._tell(name, "", "", "", told)

    def _tell(self, *row: str) -> None:
        """Add a row, and say it now: what comes after may fail."""
        self.rows.append(row)
        sys.stderr.write(f"{', '.join(filter(None, row))}\n")


def measure() -> Measured:
    """Go through one trouble after the other."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder, ground(Path(folder), SERIES, INSTANCES, is_metered=True) as where:
        report = Report(where)
        down(where, report)
        slow(where, report)
        lying(where, report)
        before = yesterday(where)
        decided = behind(where, report)
        restored(where, report, decided, before)
        two_down(where, report)
        old = {number: where.shares(number) for number in (1, 2)}
        replaced(where, report)
        three_to_five(where, report)
        never_combine(where, report, old)
        suspected(where, report)
    heading = ("trouble", "read", "failed", "slowest", "")
    return Measured(heading, report.rows, 1 - report.failed / report.done)


def down(where: Ground, report: Report) -> None:
    """End one by SIGKILL, and start it again."""
    with report.under_load("one of three down") as say:
        where.processes.stop("keystore-3", signal.SIGKILL)
        where.register()
        time.sleep(where.lasting)
        where.processes.start_keystore(THIRD)
    say(f"repair found {where.repaired()}")


def slow(where: Ground, report: Report) -> None:
    """Whatever it answers comes 5 s late."""
    with report.under_load(f"one answers {SLOW:g} s late") as say:
        where.from_hospital.delay = where.from_mount.delay = SLOW
        where.register()
        time.sleep(where.lasting)
        where.from_hospital.delay = where.from_mount.delay = 0.0
    say(f"repair found {where.repaired()}")


def lying(where: Ground, report: Report) -> None:
    """Every share on its shelf is another; log, audit log, metric and doctor name it."""
    with report.under_load("one lies") as say:
        where.processes.stop("keystore-3")
        where.spoil(THIRD)
        where.processes.start_keystore(THIRD)
        where.register()
        time.sleep(where.lasting)
    say(f"repair found {where.repaired()}")
    logs = where.site.logs
    named = "a keystore gave a wrong share"
    assert any(named in line and "keystore-3" in line for line in (logs / "mount-reader.log").read_text().splitlines())
    for address in where.metrics:
        with urllib.request.urlopen(f"http://{address}/metrics") as answer:
            metrics = answer.read().decode()
        assert re.search(r'^mdmfs_wrong_shares_total{keystore="keystore-3"} [1-9]', metrics, re.MULTILINE), address
    audit = (where.site.hospital_directory / "audit.jsonl").read_text()
    assert '"wrong-share"' in audit
    typed = [sys.executable, "-m", "mdmfs.cli", "doctor", str(where.site.hospital_file)]
    told = subprocess.run(typed, check=False, capture_output=True, text=True).stdout
    assert any("keystore-3" in line and "wrong share" in line for line in told.splitlines()), told


def yesterday(where: Ground) -> int:
    """Every keystore's people make a backup; gives the first series that is not in it."""
    for number in (1, 2, 3):
        where.back_up(number)
    return where.series + 1


def behind(where: Ground, report: Report) -> tuple[Guid, Guid]:
    """Keep the hospital from one that readers reach: it goes by an old ACL. Gives a revoked and a destroyed file."""
    series = where.files(REVOKED)
    gone = where.files(REVOKED + 1)[0]
    where.load.leave([*series, gone])
    revoked, destroyed = (where.load.guids[path] for path in (series[0], gone))
    with report.under_load("one on an old ACL") as say:
        where.from_hospital.cut()
        seconds = where.load.run(_revoke, where, Lfn.parse(f"/grid/medical/{_below_the_mount(series[0].parent)}"))
        assert where.told(THIRD, revoked) is Outcome.DONE
        assert [where.told(number, revoked) for number in (1, 2)] == [Outcome.DENIED] * 2
        with pytest.raises(FileNotFoundError):  # its names are gone, too
            series[0].read_bytes()
        found = where.keys(KeyTask.DESTROY, [destroyed])
        assert (found.is_effective, found.behind) == (True, ["keystore-3"])
        where.register()
        time.sleep(where.lasting)
        where.from_hospital.mend()
        caught_up = wait_for(lambda: where.told(THIRD, revoked) is Outcome.DENIED)
        assert where.told(THIRD, destroyed) is Outcome.DESTROYED
    say(f"revoked after {seconds:.1f} s, caught up after {caught_up:.1f} s; repair found {where.repaired()}")
    return revoked, destroyed


async def _revoke(where: Ground, lfn: Lfn) -> float:
    client, begun = where.client(), time.monotonic()
    changed = await change(client, lfn, deny(str(where.site.pki.dns[READER])))
    while True:
        asked = AskAclEffect(changed.epoch, changed.version)
        effect = await client.call(ACL_EFFECT_PATH, asked, AclEffect, deadline=trio.current_time() + DEADLINE)
        if effect.is_effective:
            await client.aclose()
            return time.monotonic() - begun
        await trio.sleep(0.02)


def _below_the_mount(path: Path) -> str:
    root = next(parent for parent in path.parents if os.path.ismount(parent))
    return str(path.relative_to(root))


def restored(where: Ground, report: Report, decided: tuple[Guid, Guid], before: int) -> None:
    """Yesterday's backup in one keystore, then in k of them while the hospital is away."""
    revoked, destroyed = decided
    with report.under_load("one restored from yesterday") as say:
        where.processes.stop("keystore-3", signal.SIGKILL)
        where.restore(THIRD)
        where.processes.start_keystore(THIRD)
        seconds = wait_for(lambda: where.told(THIRD, revoked) is Outcome.DENIED)
        assert where.told(THIRD, destroyed) is Outcome.DESTROYED
        where.register()
        time.sleep(where.lasting)
    say(f"told all of today within {seconds:.1f} s; repair found {where.repaired()}")
    assert where.processes.stop("hospital") == 0
    for number in (2, 3):
        where.processes.stop(f"keystore-{number}", signal.SIGKILL)
        where.restore(number)
        where.processes.start_keystore(number)
    for guid, number in itertools.product(decided, (2, 3)):
        assert where.told(number, guid) is Outcome.STALE
    where.processes.start_hospital()
    seconds = wait_for(lambda: where.told(2, revoked) is where.told(3, revoked) is Outcome.DENIED)
    assert where.told(2, destroyed) is where.told(3, destroyed) is Outcome.DESTROYED
    told = f"no share before the hospital was back, then told all of today within {seconds:.1f} s"
    lost = [where.load.guids[path] for number in range(before, where.series + 1) for path in where.files(number)]
    repaired = where.repaired(lost)
    report.say("k restored from yesterday", f"{told}; repair found {repaired}, {len(lost)} keys of today made anew")
    with report.under_load("afterwards"):
        where.register()
        time.sleep(where.lasting)


def two_down(where: Ground, report: Report) -> None:
    """Get a clear error, and need no command afterwards."""
    path = where.files(SERIES)[0]
    assert where.load.read(path)
    time.sleep(2)  # what was collected is held for a second
    for number in (2, 3):
        where.processes.stop(f"keystore-{number}", signal.SIGKILL)
    begun = time.monotonic()
    with pytest.raises(OSError, match=os.strerror(errno.EHOSTUNREACH)) as caught:
        where.load.read(path)
    seconds = time.monotonic() - begun
    assert seconds < DEADLINE
    for number in (2, 3):
        where.processes.start_keystore(number)
    back = wait_for(lambda: _is_read(where, path))
    report.say("two down", f"{caught.value.strerror} after {seconds:.1f} s; back: reads again after {back:.1f} s")


def _is_read(where: Ground, path: Path) -> bool:
    with contextlib.suppress(OSError):
        return where.load.read(path)
    return False


def replaced(where: Ground, report: Report) -> None:
    """One is lost for ever; another takes its place."""
    with report.under_load("one of three replaced") as say:
        where.processes.stop("keystore-3", signal.SIGKILL)
        where.processes.start_keystore(4)
        where.use((1, 2, 4))
        found = where.resplit()
        where.register()
        time.sleep(where.lasting)
    say(f"{found.changed} keys split anew")


def three_to_five(where: Ground, report: Report) -> None:
    """Two more, one of them in the place of the lost one, and three shares make a key from now on."""
    with report.under_load("2 of 3 become 3 of 5") as say:
        where.shelf(THIRD).rename(where.shelf(THIRD).with_name("lost"))
        for number in (3, 5):
            where.processes.start_keystore(number)
        where.use((1, 2, 4, 3, 5), threshold=3)
        found = where.resplit()
        where.register()
        time.sleep(where.lasting)
    say(f"{found.changed} keys split anew")


def never_combine(where: Ground, report: Report, old: dict[int, dict[Guid, object]]) -> None:
    """Each file has one split at all five, 3 of 5; with a share of before none of them makes anything."""
    new = {number: where.shares(number) for number in (1, 2, 3, 4, 5)}
    tried = 0
    for guid, share in new[5].items():
        splits = {(shares[guid].split_id, shares[guid].threshold, shares[guid].total) for shares in new.values()}
        assert splits == {(share.split_id, 3, 5)}
        before = [shares[guid] for shares in old.values() if guid in shares]
        for one in before:
            with pytest.raises(IntegrityError):
                combine([one, new[4][guid], share])  # type: ignore[list-item]
            tried += 1
    report.say("shares of two splits", f"{tried} mixtures, none combined")


def suspected(where: Ground, report: Report) -> None:
    """Make new keys: what is sealed from now on does not open with the old ones, which somebody may have."""
    old = dict(where.load.keys)
    found = where.keys(KeyTask.ROTATE)
    wait_for(where.is_clean)
    where.load.learn()
    cache = where.site.cache(READER) / "complete"
    with report.under_load("keys rotated"):
        time.sleep(where.lasting)
    tried = 0
    for file in cache.iterdir():
        guid, generation, *_ = file.name.split(".")
        name = Guid.parse(guid)
        if generation == "2" and name in old:
            size = next(path for path, one in where.load.guids.items() if one == name).stat().st_size
            context = ObjectContext(Role.BODY, name, 2, size)
            with file.open("rb") as sealed, FileKey(old[name]) as key, pytest.raises(WrongKeyError):
                Unsealer.open(sealed.read(HEADER_SIZE), key, context)
            tried += 1
    assert tried
    report.say("after a suspicion", f"{found.changed} keys are new; {tried} objects, none opens with its old key")


BENCH = Bench(measure, bar=1.0)
