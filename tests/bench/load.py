"""A thousand workers at one hospitald on one core, beside one worker alone: metadata requests.

The workers are of ten users. Each does what a mount does: it comes in (all of them at once, as after a restart of
hospitald), follows the feed over one kept connection, and asks over another: a directory or a file every four seconds
on average, which is what a mount whose namespace is filled asks while its programs open files of series that are new to
it. Twice in each round an ACL is changed, and all thousand are told of it, and ask on. The ratio is the p99 of a
question, from when all are in, over the median of one worker alone.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
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
from tests.twins.load import Load, Names, alone, crowd

WORKERS = 1000
USERS = 10
GAP = 4.0
SECONDS = 30.0
ALONE = 400
ROUNDS = 2
"""Of the crowd: what it leaves behind must not grow."""
MAX_GROWTH = 1.1


def measure() -> Measured:
    """Ask alone, then as a crowd, twice; whatever is refused or grows counts as infinitely slow."""
    allow_many_connections()
    collect_seldom()  # here too: a pause of ours is none of the server's
    with tempfile.TemporaryDirectory() as name, _site(Path(name)) as (site, processes, users):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(processes.pid("hospital"), cores[:1])
        os.sched_setaffinity(0, cores[1:] or cores)
        return trio.run(_measure, site, users, processes.pid("hospital"))


async def _measure(site: Site, users: Sequence[Credential], process: int) -> Measured:
    dice = random.Random(7)  # noqa: S311 the same questions in each run
    anchors = TrustAnchors(site.state / "pki" / "ca.pem")
    judge = PeerJudge(anchors)

    def client(number: int) -> Client:
        address = f"127.0.0.1:{site.ports.hospital}"
        return open_client(address, str(site.pki.dns["hospital"]), users[number % USERS], anchors, judge)

    one = client(0)
    names = await Names.below(_worker(one), site.project)
    single = await alone(_worker(one), names, ALONE, dice)
    configuration = HospitalConfiguration.read(site.hospital_file)
    own = open_client(str(configuration.public), str(site.pki.dns["hospital"]), configuration.credential, anchors)
    directory = names.directories[0].parent
    happens = functools.partial(_change_acls, own, directory)
    clients = [client(number) for number in range(WORKERS)]
    loads: list[Load] = []
    memory = [_memory(process)]
    for _ in range(ROUNDS):
        begun = _cpu(process)
        workers = [_worker(each) for each in clients]
        loads.append(await crowd(workers, names, dice, gap=GAP, until=_after(SECONDS), happens=happens))
        busy = (_cpu(process) - begun) / (SECONDS + loads[-1].arrived)
        memory.append(_memory(process))
    for each in (one, own, *clients):
        await each.aclose()
    worst = max(load.percentile(99) for load in loads)
    failed = sum((load.failures for load in loads), start=type(loads[0].failures)())
    grows = memory[-1] / memory[1]
    rows = [
        ("one worker alone, median", f"{single * 1e3:.2f} ms"),
        (f"{WORKERS} workers, median", f"{max(load.percentile(50) for load in loads) * 1e3:.2f} ms"),
        (f"{WORKERS} workers, p99, worst of {ROUNDS} rounds", f"{worst * 1e3:.1f} ms"),
        ("all at once: until everyone is in", ", ".join(f"{load.arrived:.1f} s" for load in loads)),
        ("questions, answers of the feed", f"{sum(load.asked for load in loads)}, {sum(load.waits for load in loads)}"),
        ("refused or failed", ", ".join(f"{count} {code}" for code, count in failed.items()) or "none"),
        ("worst served worker, of the average", f"{max(load.unfairness() for load in loads):.2f}"),
        ("hospitald, of one core", f"{busy:.0%}"),
        ("hospitald's memory alone, after each round", ", ".join(f"{octets / 2**20:.0f} MiB" for octets in memory)),
    ]
    is_sound = not failed and grows <= MAX_GROWTH
    return Measured(("load", ""), rows, worst / single if is_sound else float("inf"))


async def _change_acls(client: Client, directory: Lfn) -> None:
    """Let somebody in who is nobody, and out again: each time every mount is told."""
    for number in itertools.count():
        await trio.sleep(SECONDS / 3)
        await change(client, directory, allow(f"/CN=visitor {number}"))


def _after(seconds: float) -> Callable[[Load], bool]:
    """Tell when so long has passed since it was first asked: since everyone has come in."""
    begun: list[float] = []

    def is_over(_: Load) -> bool:
        begun.append(trio.current_time())
        return begun[-1] - begun[0] >= seconds

    return is_over


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
