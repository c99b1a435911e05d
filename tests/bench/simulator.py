"""Three measured runs beside what the model of tests/sim says of them, from costs of single operations.

The costs are measured at a hospital with a series of 100 images: processor time of each process, time on the clock.
The runs are measured at another one with 400, and with a crowd of 200 workers instead of 8. The ratio is the largest
difference. ``SIMULATOR_FIGURES=FILE`` writes the costs, as docs/scale.md takes them from tests/sim/figures.toml.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import trio

from mdmfs.cli.harvest import harvest_project
from mdmfs.demo.processes import Processes
from mdmfs.demo.site import PROJECT, READER
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.pki.tls import Credential
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.client import Client
from mdmfs.wire.peers import PeerJudge, open_client
from mdmfs.wire.process import allow_many_connections
from mdmfs.worker.hospital import RemoteHospital
from tests.bench._chain import Chain, Peer, chain, timed
from tests.bench._cores import pin, used_by
from tests.bench._frame import Bench, Measured
from tests.sim import local
from tests.sim.figures import Figures
from tests.twins.load import Load, Names, crowd

FEW, MANY = 100, 400
WORKERS = (8, 200)
GAP = 0.05
SECONDS = 8.0
BAR = 0.2
HOW: Final = {
    "question": "processor time of hospitald per question, 8 workers for 8 s, pinned to a core",
    "asking": "processor time of the process of these 8 workers, per question",
    "register": "processor time of hospitald per image, 100 images of 512 KiB harvested",
    "register_elapsed": "clock time of that harvest, without `first`, per image",
    "recall": "processor time of hospitald per image, 100 images read cold through a mount",
    "recall_elapsed": "clock time of that reading, without its first image, per image",
    "first": "clock time of the first of these images",
    "staged": "processor time of hospitald per image, the same 100 read by a second mount",
    "pacs": "clock time per image of pynetdicom's C-GET of the series from Orthanc",
    "share": "processor time of a keystored per image, read by the second mount; mean of three",
    "mount": "processor time of the second mount per image",
}


def measure() -> Measured:
    """Measure the costs at one site and the runs at another; compare."""
    allow_many_connections()
    with chain(FEW) as site:
        figures = _costs(site)
    with chain(MANY) as site:
        measured = [_register(site), _read_cold(site), _crowd(site, WORKERS[1]).rate]
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


def _costs(site: Chain) -> Figures:
    processes = site.processes
    peer = Peer(site.pacs, site.first)
    pacs = timed(peer.get_series) / FEW
    peer.close()
    hospital = _Busy(processes, "hospital")
    register_elapsed = _register(site)
    register = hospital.seconds() / FEW
    _mount(site)
    files = _files(site)
    hospital = _Busy(processes, "hospital")
    first = timed(lambda: _cat(files[:1]))
    recall_elapsed = timed(lambda: _cat(files[1:])) / (FEW - 1)
    recall = hospital.seconds() / FEW
    processes.stop(f"mount-{READER}")
    _forget(site)
    _mount(site)
    names = ("hospital", f"mount-{READER}", *(f"keystore-{number}" for number in (1, 2, 3)))
    busy = {name: _Busy(processes, name) for name in names}
    _cat(_files(site))
    spent = {name: each.seconds() / FEW for name, each in busy.items()}
    _, question, asking = _crowd(site, WORKERS[0])
    return Figures(
        question=question,
        asking=asking,
        register=register,
        register_elapsed=(register_elapsed - first) / (FEW - 1),
        recall=recall,
        recall_elapsed=recall_elapsed,
        first=first,
        staged=spent["hospital"],
        pacs=pacs,
        share=sum(spent[name] for name in names[2:]) / 3,
        mount=spent[f"mount-{READER}"],
    )


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
