"""A thousand workers at one hospitald that has one core, beside one worker alone: metadata requests.

hospitald and all its threads are bound to the first core, the workers to the others: what they take is none of its
time. The thousand are of ten users, and each does what a mount does. It comes in (all at once, as after a restart of
hospitald: two handshakes each, which nobody times), follows the feed over one kept connection, and asks over another: a
directory or a file every two seconds on average, as a mount does whose programs open series that are new to it. That is
500 questions and some 120 answers of the feed a second, and keeps hospitald busy for six tenths of its time; were it
more than it can do, each would wait for 999 others however fast it is. Three times in each round an ACL is changed: all
thousand are told, and those that have listed the directory list it anew.

The ratio is the p99 of a question, from when all are in, over the median of one worker alone. Last they ask without a
pause, for what hospitald can do at most.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import secrets
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import trio
from cryptography.hazmat.primitives import serialization

from mdmfs.cli.harvest import harvest_project
from mdmfs.demo.patients import write_patients
from mdmfs.demo.people import SAMPLES
from mdmfs.demo.pki import delegate
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import PROJECT, Site, make_site
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.model.names import Lfn
from mdmfs.pki.tls import Credential
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.client import Client
from mdmfs.wire.peers import PeerJudge, open_client
from mdmfs.wire.process import allow_many_connections, collect_seldom
from mdmfs.worker.hospital import RemoteHospital
from tests.bench._frame import Bench, Measured
from tests.bench._rights import allow, change
from tests.twins import certificates as make
from tests.twins.load import LOOK_SECONDS, Load, Names, alone, crowd

WORKERS = 1000
USERS = 10
GAP = 2.0
"""Seconds between two questions of a worker, on average."""
SECONDS = 30.0
PRESSED = 5.0
"""How long they ask without a pause."""
ALONE = 400
ROUNDS = 2
"""Of the crowd: what it leaves behind must not grow."""
MAX_GROWTH = 1.1


def measure() -> Measured:
    """Ask alone, then as a crowd, twice; whatever is refused or grows counts as infinitely slow."""
    with tempfile.TemporaryDirectory() as name, _site(Path(name)) as (site, processes, users):
        cores = sorted(os.sched_getaffinity(0))
        for thread in Path(f"/proc/{processes.pid('hospital')}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores[:1])
        os.sched_setaffinity(0, cores[1:] or cores)
        return trio.run(_measure, site, users, processes.pid("hospital"))


async def _measure(site: Site, users: Sequence[Credential], process: int) -> Measured:
    allow_many_connections()
    collect_seldom()  # here too: a pause of ours is none of the server's
    dice = random.Random(7)  # noqa: S311 the same questions in each run
    address, dn = f"127.0.0.1:{site.ports.hospital}", str(site.pki.dns["hospital"])
    anchors = TrustAnchors(site.state / "pki" / "ca.pem")
    judge = PeerJudge(anchors)
    clients = [open_client(address, dn, users[each % USERS], anchors, judge) for each in range(WORKERS)]
    names = await Names.below(_worker(clients[0]), site.project)
    single = await alone(_worker(clients[0]), names, ALONE, dice)
    own = open_client(address, dn, HospitalConfiguration.read(site.hospital_file).credential, anchors)
    happens = functools.partial(_change_acls, own, names.directories[0])

    async def one_round(gap: float, during: _During, happens: Callable[[], Awaitable[None]] | None) -> Load:
        return await crowd(
            [_worker(each) for each in clients], names, dice, gap=gap, until=during.is_over, happens=happens
        )

    rounds, busy, memory = list[Load](), list[float](), [_memory(process)]
    for _ in range(ROUNDS):
        during = _During(SECONDS, process)
        rounds.append(await one_round(GAP, during, happens))
        busy.append(during.busy)
        memory.append(_memory(process))
    pressed = await one_round(0.0, _During(PRESSED, process), None)
    for each in (own, *clients):
        await each.aclose()
    return _told(single, rounds, pressed, busy, memory)


def _told(
    single: float, rounds: Sequence[Load], pressed: Load, busy: Sequence[float], memory: Sequence[int]
) -> Measured:
    worst = max(load.percentile(99) for load in rounds)
    failed = sum((load.failures for load in (*rounds, pressed)), start=Counter[str]())
    grows = memory[-1] / memory[1]
    rows = [
        ("one worker alone, median", f"{single * 1e3:.2f} ms"),
        (f"{WORKERS} workers, each every {GAP:g} s, median", f"{max(it.percentile(50) for it in rounds) * 1e3:.2f} ms"),
        (f"p99 of theirs, worst of {ROUNDS} rounds", f"{worst * 1e3:.1f} ms"),
        ("all at once: until everyone is in", ", ".join(f"{load.arrived:.1f} s" for load in rounds)),
        ("questions, answers of the feed", f"{sum(it.asked for it in rounds)}, {sum(it.waits for it in rounds)}"),
        ("refused or failed", ", ".join(f"{count} {code}" for code, count in failed.items()) or "none"),
        ("worst served worker, of the average", f"{max(load.unfairness() for load in rounds):.2f}"),
        ("hospitald, of its core", ", ".join(f"{each:.0%}" for each in busy)),
        ("without a pause: questions a second", f"{pressed.asked / PRESSED:.0f}"),
        ("hospitald's memory alone, after each round", ", ".join(f"{octets / 2**20:.0f} MiB" for octets in memory)),
    ]
    is_sound = not failed and grows <= MAX_GROWTH
    return Measured(("load", ""), rows, worst / single if is_sound else float("inf"))


async def _change_acls(client: Client, directory: Lfn) -> None:
    """Let somebody in who is nobody, and out again: each time every mount is told."""
    for number in itertools.count():
        await trio.sleep(SECONDS / 4)
        await change(client, directory, allow(f"/CN=visitor {number}"))


class _During:
    """The time since everyone has come in: when it is over, and how busy hospitald was in it."""

    def __init__(self, seconds: float, process: int) -> None:
        self._seconds = seconds
        self._process = process
        self._begun: tuple[float, float] | None = None
        self.busy = 0.0

    def is_over(self, load: Load) -> bool:
        """Tell; it begins when it is asked first, and what was asked before counts for nothing."""
        now, used = trio.current_time(), _cpu(self._process)
        if self._begun is None:
            self._begun = now, used
            for each in load.seconds:
                each.clear()
        passed = now - self._begun[0]
        self.busy = (used - self._begun[1]) / max(passed, LOOK_SECONDS)
        return passed >= self._seconds


def _worker(client: Client) -> RemoteHospital:
    def give() -> Client:
        return client

    here: Callable[[], Client] = give
    return RemoteHospital(here, deadline=60.0, mount=secrets.token_bytes(16))


@contextlib.contextmanager
def _site(folder: Path) -> Iterator[tuple[Site, Processes, list[Credential]]]:
    """Run a site that lets ten users of the tests' CA read."""
    site = make_site(folder / "site", pacs="", inclusion=None, deadline=30.0)
    people = [make.person(f"user {number}") for number in range(USERS)]
    bundle = site.state / "pki" / "ca.pem"
    theirs = make.authority().certificate.public_bytes(serialization.Encoding.PEM)
    bundle.write_bytes(bundle.read_bytes() + theirs)
    project = site.hospital_file.parent / "projects" / f"{PROJECT}.toml"
    listed = project.with_suffix(".list")
    listed.write_text(f"patient {SAMPLES.patient_id}^^^{SAMPLES.issuer}\n")
    readers = ", ".join(f'"{person.dn}"' for person in people)
    project.write_text(project.read_text().replace("readers = [", f"readers = [{readers}, "))
    write_patients(site.pacs_directory, [SAMPLES])
    users = [delegate(one, make.VALID).save_proxy(folder / f"{number}.proxy") for number, one in enumerate(people)]
    with running(site) as processes:
        processes.start_pacs()
        processes.start_keystores()
        processes.start_hospital()
        trio.run(harvest_project, HospitalConfiguration.read(site.hospital_file), PROJECT)
        yield site, processes, users


def _memory(process: int) -> int:
    """Resident bytes of a process."""
    line = next(it for it in Path(f"/proc/{process}/status").read_text().splitlines() if it.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def _cpu(process: int) -> float:
    """Seconds of processor time of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


BENCH = Bench(measure, bar=50, at_most=True)
