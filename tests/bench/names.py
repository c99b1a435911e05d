"""Names that users make: beside a dict, how soon others see them, 100,000 aliases in one directory, and kill -9.

The ratio is the share of what held: each step of the model, each alias, each change that a killed hospital was asked
for, which must be there once and whole.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import trio

from mdmfs.cli.mounted import open_hospital
from mdmfs.demo.people import SAMPLES
from mdmfs.demo.site import PROJECT, READER
from mdmfs.wire.messages.names import CHANGE_NAME_PATH, TOKEN_SIZE, ChangedName, ChangeName, NameChange
from mdmfs.worker.configuration import MountConfiguration
from tests.bench._frame import Bench, Measured
from tests.twins.grid_site import MEMBER, GridSite, grid_site
from tests.twins.named_model import compare
from tests.twins.stores import STORES

SEEDS = int(os.environ.get("MDMFS_SEEDS", "20"))
STEPS = 500
ALIASES = int(os.environ.get("MDMFS_ALIASES", "100000"))
CHANGES = 100
KILLS = int(os.environ.get("MDMFS_KILLS", "20"))
MORE = 1000
AT_ONCE = 24
SECONDS = 60.0
SOON = 2.0
_LINK = "import os, sys\nfor n in range(int(sys.argv[2])): os.symlink(sys.argv[3], f'{sys.argv[1]}/{n:06}')"
_MAKE = "import os, sys\nfor n in range(int(sys.argv[2])): os.mkdir(f'{sys.argv[1]}/{n:06}')"


class Mounts(NamedTuple):
    """Two mounts of one project, and the paths of an image below it."""

    site: GridSite
    mine: Path
    theirs: Path
    image: str


def measure() -> Measured:
    """Do all four; the ratio is that of what held."""
    rows: list[tuple[str, ...]] = []
    held = [_model(rows)]
    with tempfile.TemporaryDirectory() as folder, _mounts(Path(folder)) as mounts:
        held += [_seen(mounts, rows), _aliases(mounts, rows), _killed(mounts, rows)]
    return Measured(("what", "count", "held", "figure"), rows, min(held))


def _model(rows: list[tuple[str, ...]]) -> float:
    """Random changes on two mounts; raises where one shows what it must not."""
    begun, made = time.perf_counter(), 0
    for seed in range(SEEDS):
        with tempfile.TemporaryDirectory() as folder:
            store = STORES[sorted(STORES)[seed % 2]](Path(folder))
            made += trio.run(compare, Path(folder), 1000 + seed, STEPS, store)
    seconds = time.perf_counter() - begun
    count = SEEDS * STEPS
    rows.append(("changes beside a dict", f"{count:,}", f"{count:,}", f"{made:,} made, {seconds / count * 1e3:.1f} ms"))
    return 1.0


@contextmanager
def _mounts(folder: Path) -> Iterator[Mounts]:
    with grid_site(folder, (SAMPLES,)) as site:
        who = f"u:{MEMBER.dn}:rwx"
        name = f"/grid/medical/amc/{PROJECT}"
        hospital = str(site.mount_file("hospital"))
        site.mdmfs("member", "setfacl", "--configuration", hospital, "--timeout", "0", "-m", f"{who},d:{who}", name)
        site.site.mount_file("member").write_text(site.mount_file("member").read_text())
        points = {}
        for user in (READER, "member"):
            site.processes.start_mount(user, folder / f"mount-{user}")
            points[user] = folder / f"mount-{user}" / "amc" / PROJECT
        image = next(points[READER].rglob("*.dcm"))
        yield Mounts(site, points["member"], points[READER], str(image.relative_to(points[READER])))


def _seen(mounts: Mounts, rows: list[tuple[str, ...]]) -> float:
    """Make and take away a name that the other mount's kernel has just been told is not there, or is."""
    late = []
    for number in range(CHANGES):
        mine, theirs = mounts.mine / f"seen-{number}", mounts.theirs / f"seen-{number}"
        assert not theirs.exists(), theirs
        mine.mkdir()
        late.append(_until(theirs.exists))
        mine.rmdir()
        late.append(_until(lambda theirs=theirs: not theirs.exists()))  # type: ignore[misc]
    held = sum(one < SOON for one in late)
    rows.append(("seen by the other mount", f"{len(late)}", f"{held}", f"{max(late):.2f} s at worst"))
    return held / len(late)


def _aliases(mounts: Mounts, rows: list[tuple[str, ...]]) -> float:
    """Fill one directory over the wire, go on with ``ln -s`` in the full one, list it on two mounts, and remove all."""
    folder, seen = mounts.mine / "many", mounts.theirs / "many"
    folder.mkdir()
    begun = time.perf_counter()
    trio.run(_fill, mounts)
    rows.append(
        ("aliases in one directory", f"{ALIASES:,}", "", f"{(time.perf_counter() - begun) / ALIASES * 1e3:.2f} ms")
    )
    begun = time.perf_counter()
    mine = len(os.listdir(folder))  # noqa: PTH208 names are counted
    rows.append(("  listed", "", f"{mine:,}", f"{time.perf_counter() - begun:.2f} s"))
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", _LINK, str(folder), str(MORE), f"../{mounts.image}"], check=True)
    rows.append(
        ("  ln -s in the full one", f"{MORE:,}", "", f"{(time.perf_counter() - begun) / MORE * 1e3:.2f} ms each")
    )
    late = _until(lambda: len(os.listdir(seen)) == ALIASES + MORE)  # noqa: PTH208
    rows.append(("  on the other mount", "", "", f"{late:.2f} s after the last"))
    same = (folder / "000000").read_bytes() == (mounts.theirs / mounts.image).read_bytes()
    begun = time.perf_counter()
    name, hospital = f"/grid/medical/amc/{PROJECT}/many", str(mounts.site.site.hospital_file)
    gone = mounts.site.mdmfs("member", "names", "remove", hospital, name)
    rows.append(("  removed by mdmfs names", "", "", f"{time.perf_counter() - begun:.2f} s"))
    is_gone = gone.returncode == 0 and _until(lambda: not seen.exists()) < SOON
    return mine / ALIASES if same and is_gone else 0.0


async def _fill(mounts: Mounts) -> None:
    """Make aliases as a mount does, some at once: they share commits."""
    client = open_hospital(MountConfiguration.read(mounts.site.mount_file("member")))
    below = f"/grid/medical/amc/{PROJECT}"
    numbers = iter(range(ALIASES))

    async def make() -> None:
        for number in numbers:
            lfn = f"{below}/many/alias-{number:06}"
            asked = ChangeName(os.urandom(TOKEN_SIZE), NameChange.ALIAS, lfn, f"{below}/{mounts.image}")
            await client.call(CHANGE_NAME_PATH, asked, ChangedName, deadline=trio.current_time() + SECONDS)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(make)
    await client.aclose()


def _killed(mounts: Mounts, rows: list[tuple[str, ...]]) -> float:
    """Kill hospitald at random instants while directories are made; each ``mkdir`` must succeed, and be there once."""
    dice, held, count = random.Random(7), 0, 40  # noqa: S311 no secret
    folder = mounts.mine / "killed"
    folder.mkdir()
    for number in range(KILLS):
        below = folder / f"{number}"
        below.mkdir()
        making = subprocess.Popen([sys.executable, "-c", _MAKE, str(below), str(count)], stderr=subprocess.DEVNULL)
        time.sleep(dice.uniform(0.02, 0.3))
        mounts.site.processes.stop("hospital", signal.SIGKILL)
        mounts.site.processes.start_hospital()
        timer = threading.Timer(SECONDS, making.kill)
        timer.start()
        is_content = making.wait() == 0
        timer.cancel()
        seen = mounts.theirs / "killed" / f"{number}"
        is_there = is_content and len(os.listdir(below)) == count  # noqa: PTH208
        _until(lambda seen=seen: seen.exists() and len(os.listdir(seen)) == count)  # type: ignore[misc] # noqa: PTH208
        held += is_there
    rows.append((f"kill -9 of hospitald, {count} mkdir each", str(KILLS), str(held), "no error, each name once"))
    subprocess.run(["rm", "-r", str(folder)], check=True)
    return held / KILLS if KILLS else 1.0


def _until(is_so: Callable[[], bool]) -> float:
    begun = time.perf_counter()
    while not is_so():
        if time.perf_counter() > begun + SECONDS:
            message = "the other mount does not show it"
            raise TimeoutError(message)
        time.sleep(0.05)
    return time.perf_counter() - begun


BENCH = Bench(measure, bar=1.0)
