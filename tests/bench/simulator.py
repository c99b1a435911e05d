"""Three measured runs beside what the model of tests/sim says of them, from costs of single operations.

The costs are measured at hospitals with series of 100 and of 300 images, processor time of each process and time on the
clock, the median of three each: what the other two hundred cost is the price of an image, what the hundred cost above
it is the beginning. The runs are measured at other hospitals with 400, the median of three again, and with a crowd of
200 workers instead of 50. The ratio is the largest difference. ``SIMULATOR_FIGURES=FILE`` writes the costs, as
docs/scale.md takes them from tests/sim/figures.toml.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import trio

from mdmfs.cli.harvest import harvest_project
from mdmfs.daemon.process import allow_many_connections
from mdmfs.demo.processes import Processes
from mdmfs.demo.site import PROJECT, READER
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.dicom.remote import open_pacs
from mdmfs.pki.tls import Credential
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.client import Client
from mdmfs.wire.peers import PeerJudge, open_client
from mdmfs.worker.hospital.remote import RemoteHospital
from tests.bench._chain import Chain, Peer, chain, timed
from tests.bench._cores import pin, used_by
from tests.bench._frame import Bench, Measured
from tests.sim import local
from tests.sim.figures import Figures
from tests.twins.load import Load, Names, crowd

FEW, MORE, MANY = 100, 300, 400
ROUNDS = 3
WORKERS = (50, 200)
GAP = 0.05
SECONDS = 8.0
BAR = 0.2
HOW: Final = {
    "question": "processor time of hospitald per question of 50 workers, for 8 s, pinned to a core",
    "asking": "processor time of the process of these workers, per question",
    "register": "processor time of hospitald per image, images of 512 KiB harvested",
    "register_elapsed": "clock time of that harvest, per image",
    "register_begun": "clock time of that harvest above what its images take",
    "recall": "processor time of hospitald per image, read cold through a mount",
    "recall_elapsed": "clock time of that reading, per image",
    "recall_begun": "clock time of that reading above what its images take",
    "staged": "processor time of hospitald per image, the same read by a second mount",
    "pacs": "clock time per image of a C-GET of the series from Orthanc, to nowhere",
    "slow_pacs": "clock time per image of pynetdicom's C-GET of that series: no PACS of the countries is quicker",
    "share": "processor time of a keystored per image, read by the second mount; mean of three",
    "mount": "processor time of the second mount per image",
}


def measure() -> Measured:
    """Measure the costs at two sites and the runs at another; compare."""
    allow_many_connections()
    figures = _costs()
    with chain(FEW) as site:
        _register(site)
        rate = _crowd(site, WORKERS[1]).rate
    measured = [*_median([_seen(MANY) for _ in range(ROUNDS)]), rate]
    told = [
        local.registered(figures, MANY),
        local.read_cold(figures, MANY),
        local.crowd(figures, WORKERS[1], GAP, SECONDS),
    ]
    names = (f"{MANY} images registered, s", f"{MANY} images read cold, s", f"questions/s of {WORKERS[1]} workers")
    rows = [
        (name, f"{seen:.3g}", f"{said:.3g}", f"{said / seen - 1:+.0%}")
        for name, seen, said in zip(names, measured, told, strict=True)
    ]
    costs = {name: getattr(figures, name) for name in HOW}
    rows += [(f"cost: {name}", f"{seconds * 1e3:.3f} ms", HOW[name], "") for name, seconds in costs.items()]
    if "SIMULATOR_FIGURES" in os.environ:
        lines = [f'[{name}]\nseconds = {seconds:.6f}\nhow = "{HOW[name]}"\n' for name, seconds in costs.items()]
        Path(os.environ["SIMULATOR_FIGURES"]).write_text("\n".join(lines), encoding="utf-8")
    worst = max(abs(said / seen - 1) for seen, said in zip(measured, told, strict=True))
    return Measured(("run", "measured", "simulated", "difference"), rows, worst)


class Spent(NamedTuple):
    """Seconds at a hospital for a whole series: of processes, and on the clock."""

    register: float
    register_elapsed: float
    recall: float
    recall_elapsed: float
    staged: float
    pacs: float
    slow_pacs: float
    share: float
    mount: float


def _costs() -> Figures:
    spent = [(_spent(FEW), _spent(MORE)) for _ in range(ROUNDS)]
    few, more = (Spent(*_median(each)) for each in zip(*spent, strict=True))
    each = Spent(*((much - little) / (MORE - FEW) for little, much in zip(few, more, strict=True)))
    with chain(FEW) as site:
        _register(site)
        _, question, asking = _crowd(site, WORKERS[0])
    # what a series costs to begin with is told as nothing where noise puts it below
    return Figures(
        question=question,
        asking=asking,
        register_begun=max(0.0, few.register_elapsed - FEW * each.register_elapsed),
        recall_begun=max(0.0, few.recall_elapsed - FEW * each.recall_elapsed),
        **each._asdict(),
    )


def _median(rounds: Sequence[Sequence[float]]) -> Iterator[float]:
    """Give that of each column."""
    return map(statistics.median, zip(*rounds, strict=True))


def _seen(images: int) -> tuple[float, float]:
    """Tell how long a series is registered, and read cold."""
    with chain(images) as site:
        return _register(site), _read_cold(site)


def _spent(images: int) -> Spent:
    with chain(images) as site:
        return _spent_at(site)


def _spent_at(site: Chain) -> Spent:
    processes = site.processes
    pacs = trio.run(_retrieve, site)
    peer = Peer(site.pacs, site.first)
    slow_pacs = timed(peer.get_series)
    peer.close()
    hospital = _Busy(processes, "hospital")
    register_elapsed = _register(site)
    register = hospital.seconds()
    hospital = _Busy(processes, "hospital")
    recall_elapsed = _read_cold(site)
    recall = hospital.seconds()
    processes.stop(f"mount-{READER}")
    _forget(site)
    _mount(site)
    names = ("hospital", f"mount-{READER}", *(f"keystore-{number}" for number in (1, 2, 3)))
    busy = {name: _Busy(processes, name) for name in names}
    _cat(_files(site))
    staged, mount, *shares = (each.seconds() for each in busy.values())
    return Spent(register, register_elapsed, recall, recall_elapsed, staged, pacs, slow_pacs, sum(shares) / 3, mount)


async def _retrieve(site: Chain) -> float:
    uids = {"study_uid": str(site.first.StudyInstanceUID), "series_uid": str(site.first.SeriesInstanceUID)}
    async with open_pacs(site.pacs) as pacs:
        found = await pacs.find_instances(**uids)
        begun = time.perf_counter()
        async with pacs.retrieve_series(**uids, instances=found) as instances:
            async for instance in instances:
                async for _buffer in instance:
                    pass
    return time.perf_counter() - begun


def _register(site: Chain) -> float:
    configuration = HospitalConfiguration.read(site.site.hospital_file)
    return timed(lambda: trio.run(harvest_project, configuration, PROJECT))


def _read_cold(site: Chain) -> float:
    _mount(site)
    files = _files(site)
    return timed(lambda: _cat(files))


def _mount(site: Chain) -> None:
    site.processes.start_mount(READER, site.mountpoint)


def _forget(site: Chain) -> None:
    """Take away all that a mount has kept."""
    shutil.rmtree(site.site.cache(READER))


def _files(site: Chain) -> list[str]:
    return [str(path) for path in site.files()]


def _cat(files: Sequence[str]) -> None:
    subprocess.run(["cat", *files], stdout=subprocess.DEVNULL, check=True)


class _Busy:
    """Processor time of a process, from now on."""

    def __init__(self, processes: Processes, name: str) -> None:
        self._process = processes.pid(name)
        self._before = used_by(self._process)

    def seconds(self) -> float:
        """Tell how much it was."""
        return used_by(self._process) - self._before


class Answered(NamedTuple):
    """What a crowd got."""

    rate: float
    """Questions per second."""
    question: float
    """Processor seconds of hospitald for each."""
    asking: float
    """Of the crowd's own process."""


def _crowd(site: Chain, workers: int) -> Answered:
    """Let workers ask, each on a connection of his own; hospitald has a core, and so have they."""
    cores = sorted(os.sched_getaffinity(0))
    hospital = site.processes.pid("hospital")
    pin(hospital, cores[:1])
    pin(os.getpid(), cores[1:] or cores)
    try:
        return trio.run(_ask, site, workers)
    finally:
        pin(os.getpid(), cores)
        pin(hospital, cores)


async def _ask(site: Chain, workers: int) -> Answered:
    anchors = TrustAnchors(site.site.state / "pki" / "ca.pem")
    judge, reader = PeerJudge(anchors), Credential.of_proxy(site.site.state / "pki" / f"{READER}.proxy")
    address, dn = f"127.0.0.1:{site.site.ports.hospital}", str(site.site.pki.dns["hospital"])
    clients = [open_client(address, dn, reader, anchors, judge) for _ in range(workers)]
    hospitals = [_worker(client) for client in clients]
    names = await Names.below(hospitals[0], site.site.project)
    begun: list[tuple[float, float, float, int]] = []
    ended: list[tuple[float, float, float, int]] = []
    busy = _Busy(site.processes, "hospital")

    def is_over(load: Load) -> bool:
        seen = (time.monotonic(), busy.seconds(), time.process_time(), load.asked)
        if not begun and load.asked >= workers:
            begun.append(seen)
        if begun and seen[0] - begun[0][0] >= SECONDS:
            ended.append(seen)
        return bool(ended)

    load = await crowd(hospitals, names, random.Random(7), gap=GAP, until=is_over)  # noqa: S311 no secret
    for client in clients:
        await client.aclose()
    assert not load.failures, load.failures
    took, question, asking, asked = (after - before for before, after in zip(begun[0], ended[0], strict=True))
    return Answered(asked / took, question / asked, asking / asked)


def _worker(client: Client) -> RemoteHospital:
    return RemoteHospital(lambda: client, deadline=60.0, mount=secrets.token_bytes(16))


BENCH = Bench(measure, bar=BAR, at_most=True)
