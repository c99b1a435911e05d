"""A thousand workers at one hospitald that has one core, beside one worker alone: metadata requests.

hospitald and all its threads are bound to the first core, the workers and the keystores to the others: what they take
is none of its time. The thousand are of ten users, and each does what a mount does. It comes in (all at once, after a
restart of hospitald: two handshakes each, which nobody times), follows the feed over one kept connection, and asks over
another: a directory or a file every two seconds on average, as a mount does whose programs open series that are new to
it. That is 500 questions and some 120 answers of the feed a second. Three times in each round an ACL is changed: all
thousand are told, and those that have listed the directory list it anew, which counts as a question.

The ratio is the p99 of a question, from when all are in, over the median of one worker alone. Both are measured by the
same crowd, which does at the wire what a mount does and nothing else: a mount's own client would add half a millisecond
to either, and a thousand of them in one process a queue of their own. How long a change takes to the last mount is told
beside it, for what is asked must not be fast at the cost of those who wait for the feed. Last they ask without a pause,
for what hospitald can do at most.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import trio
from cryptography.hazmat.primitives import serialization

from mdmfs.cli.harvest import harvest_project
from mdmfs.daemon.process import allow_many_connections, collect_seldom
from mdmfs.demo.patients import write_patients
from mdmfs.demo.people import SAMPLES
from mdmfs.demo.pki import delegate
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import KEYSTORES, PROJECT, Site, make_site
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.model.names import Guid, Lfn
from mdmfs.pki.tls import Credential, client_context
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.messages.acls import ChangeAcl
from mdmfs.wire.peers import open_client
from mdmfs.wire.stream import Address
from mdmfs.worker.hospital.remote import RemoteHospital
from mdmfs.worker.hospital.staging import files_below
from tests.bench._cores import pin, used_by
from tests.bench._crowd import Crowd, Names, Shared
from tests.bench._frame import Bench, Measured
from tests.bench._rights import allow
from tests.twins import certificates as make

WORKERS = 1000
USERS = 10
GAP = 2.0
"""Seconds between two questions of a worker, on average."""
SECONDS = 30.0
PRESSED = 5.0
"""How long they ask without a pause."""
ALONE = 2.0
REST = 2.0
"""Between two rounds, in which hospitald closes what those who left have left."""
ROUNDS = 2
"""Of the crowd: what it leaves behind must not grow."""
MAX_GROWTH = 1.1


def measure() -> Measured:
    """Ask alone, then as a crowd, twice; whatever is refused or grows counts as infinitely slow."""
    with tempfile.TemporaryDirectory() as name, _site(Path(name)) as (site, processes, users):
        cores = sorted(os.sched_getaffinity(0))
        pin(processes.pid("hospital"), cores[:1])
        for process in (os.getpid(), *(processes.pid(f"keystore-{number}") for number in range(1, KEYSTORES + 1))):
            pin(process, cores[1:] or cores)
        allow_many_connections()
        collect_seldom()  # here too: a pause of ours is none of the server's
        return _measure(site, users, processes.pid("hospital"))


def _measure(site: Site, users: Sequence[Credential], process: int) -> Measured:
    anchors = TrustAnchors(site.state / "pki" / "ca.pem")
    own = HospitalConfiguration.read(site.hospital_file).credential
    names = trio.run(_names, site, own, anchors)
    dice = random.Random(7)  # noqa: S311 the same questions in each run
    contexts = [client_context(user, anchors, check_hostname=False) for user in users]
    owner = client_context(own, anchors, check_hostname=False)

    edits = _changes(next(iter(names.directories.values())))

    def one_round(mounts: int, gap: float, seconds: float, *, is_changing: bool = False) -> Round:
        crowd = Crowd(Address("127.0.0.1", site.ports.hospital), contexts, owner, names, dice)
        crowd.come(mounts)
        if is_changing:
            crowd.change(SECONDS / 4, edits)
        before, mine = used_by(process), time.process_time()
        crowd.work(gap, seconds)
        used, taken = (used_by(process) - before) / seconds, (time.process_time() - mine) / seconds
        answered = crowd.load.asked
        load = crowd.leave()
        time.sleep(REST)
        return Round(load, answered, used, taken, _memory(process))

    single = one_round(1, 0.0, ALONE)
    rounds = [one_round(WORKERS, GAP, SECONDS, is_changing=True) for _ in range(ROUNDS)]
    pressed = one_round(WORKERS, 0.0, PRESSED)
    return _told(single, rounds, pressed)


class Round(NamedTuple):
    """What came of a crowd, and what it took."""

    load: Shared
    answered: int
    """Questions, before it was over: those that were still open then have been waited for."""
    busy: float
    """Of hospitald's core."""
    own: float
    """Of the crowd's."""
    memory: int
    """Of hospitald, afterwards."""


def _told(single: Round, rounds: Sequence[Round], pressed: Round) -> Measured:
    loads = [each.load for each in rounds]
    alone, worst = single.load.percentile(50), max(load.percentile(99) for load in loads)
    failed = sum((each.load.failures for each in (single, *rounds, pressed)), start=Counter[str]())
    grows = rounds[-1].memory / rounds[0].memory
    rows = [
        ("one worker alone, median", f"{alone * 1e3:.2f} ms"),
        (f"{WORKERS} workers, each every {GAP:g} s, median", f"{max(it.percentile(50) for it in loads) * 1e3:.2f} ms"),
        (f"p99 of theirs, worst of {ROUNDS} rounds", f"{worst * 1e3:.1f} ms"),
        ("of what the crowd itself adds at most, p99", f"{max(_p99(load.own) for load in loads) * 1e3:.1f} ms"),
        ("of the rest, p99", f"{max(_p99(load.served) for load in loads) * 1e3:.1f} ms"),
        ("until the last has heard of a change", _seconds(it for load in loads for it in load.heard)),
        ("all at once: until everyone is in", _seconds(load.arrived for load in loads)),
        (
            "questions, of them listed anew; answers of the feed",
            f"{sum(it.asked for it in loads)}, {sum(it.listed_anew for it in loads)}; {sum(it.waits for it in loads)}",
        ),
        ("refused or failed", ", ".join(f"{count} {code}" for code, count in failed.items()) or "none"),
        ("worst served worker, of the average", f"{max(load.unfairness() for load in loads):.2f}"),
        ("hospitald, of its core", ", ".join(f"{each.busy:.0%}" for each in rounds)),
        ("the crowd, of its own", ", ".join(f"{each.own:.0%}" for each in rounds)),
        ("without a pause: questions a second", f"{pressed.answered / PRESSED:.0f}"),
        ("hospitald's time for each of them", f"{pressed.busy * PRESSED / pressed.answered * 1e3:.2f} ms"),
        (
            "hospitald's memory alone, after each round",
            ", ".join(f"{each.memory / 2**20:.0f} MiB" for each in (single, *rounds)),
        ),
    ]
    is_sound = not failed and grows <= MAX_GROWTH
    return Measured(("load", ""), rows, worst / alone if is_sound else float("inf"))


def _p99(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


def _seconds(all_of_them: Iterable[float]) -> str:
    return ", ".join(f"{each:.1f}" for each in all_of_them) + " s"


def _changes(directory: Lfn) -> Iterator[ChangeAcl]:
    """Let somebody in who is nobody, each time another: all mounts are told."""
    for number in itertools.count():
        yield ChangeAcl(str(directory), [allow(f"/CN=visitor {number}")])


async def _names(site: Site, own: Credential, anchors: TrustAnchors) -> Names:
    """Walk."""
    client = open_client(f"127.0.0.1:{site.ports.hospital}", str(site.pki.dns["hospital"]), own, anchors)
    hospital = RemoteHospital(lambda: client, deadline=60.0)
    found = await files_below(hospital, site.project)
    directories = sorted({file.lfn.parent for file in found}, key=str)
    inodes = [(await hospital.list_directory(lfn, "")).directory.inode for lfn in directories]
    await client.aclose()
    return Names(dict(zip(inodes, directories, strict=True)), [Guid(file.node.guid) for file in found])


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
        processes.stop("pacs")  # nobody opens anything, and it is never quite idle
        yield site, processes, users


def _memory(process: int) -> int:
    """Resident bytes of a process."""
    line = next(it for it in Path(f"/proc/{process}/status").read_text().splitlines() if it.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


BENCH = Bench(measure, bar=50, at_most=True)
