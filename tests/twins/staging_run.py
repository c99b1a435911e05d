"""Files of three PACSs staged while the hospital is restarted twice, a PACS once, and the proxy renewed once."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import trio

from mdmfs.cli.stage import open_stages
from mdmfs.demo.site import PROJECT
from mdmfs.model.errors import MdmfsError
from mdmfs.worker.configuration import MountConfiguration
from tests.twins.clinic import slice_of
from tests.twins.grid_site import GridSite, grid_site, voms_proxy
from tests.twins.servers import free_port, pynetdicom_scp

PACS: Final = 3
SERIES: Final = 2
"""Of each PACS."""
AWAY_SECONDS: Final = 1.0
PATIENCE: Final = 240.0


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    expected: int
    completed: int
    on_disk: int
    told: list[int]
    """How many files were said to be completed, in the order in which that was heard."""
    sent: Counter[str]
    """How often the PACSs sent each instance while it was staged."""
    happened: int
    """How many of the events came in time."""
    exit_code: int
    """Of ``mdmfs stage``, which watched."""
    seconds: float

    @property
    def went_backwards(self) -> bool:
        """Whether anybody was ever told less than before."""
        return self.told != sorted(self.told)


def run(folder: Path, count: int, happens: Sequence[tuple[float, str]]) -> Outcome:
    """Stage ``count`` files; what ``happens`` is named, with the part of the files that is staged by then."""
    held = [
        [
            slice_of(number + 1, study=10 + pacs, series=1 + number % SERIES)
            for number in range(count // PACS + (pacs < count % PACS))
        ]
        for pacs in range(PACS)
    ]
    sent: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        last = stack.enter_context(contextlib.ExitStack())
        addresses = [stack.enter_context(pynetdicom_scp(held[number], sent=sent)) for number in range(PACS - 1)]
        port = free_port()
        addresses.append(last.enter_context(pynetdicom_scp(held[-1], sent=sent, port=port)))
        site = stack.enter_context(grid_site(folder, deadline=5.0, pacs=addresses))
        sent.clear()

        def restart_pacs() -> None:
            last.close()
            time.sleep(AWAY_SECONDS)
            last.enter_context(pynetdicom_scp(held[-1], sent=sent, port=port))

        def restart_hospital(how: signal.Signals) -> None:
            site.processes.stop("hospital", how)
            site.processes.start_hospital()

        acts = {
            "kill the hospital": lambda: restart_hospital(signal.SIGKILL),
            "restart the hospital": lambda: restart_hospital(signal.SIGTERM),
            "restart a PACS": restart_pacs,
            "renew the proxy": lambda: voms_proxy().save_proxy(site.proxy("member")),
        }
        events = [(part * count, acts[name]) for part, name in happens]
        return _stage(site, count, events, sent)


def _stage(
    site: GridSite, count: int, events: Sequence[tuple[float, Callable[[], object]]], sent: Counter[str]
) -> Outcome:
    begin = time.monotonic()
    configuration = site.mount_file("member")
    typed = ["stage", f"/grid/medical/amc/{PROJECT}", "--configuration", str(configuration)]
    command = [sys.executable, "-m", "mdmfs.cli", *typed]
    member = site.environment("member")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=member)
    told: list[int] = []
    happened = 0
    try:
        assert process.stdout is not None
        request = process.stdout.readline().decode().strip()
        while process.poll() is None and time.monotonic() < begin + PATIENCE:
            with contextlib.suppress(MdmfsError):
                completed, _ = trio.run(_progress, configuration, request)
                told.append(completed)
                if happened < len(events) and completed >= events[happened][0]:
                    events[happened][1]()
                    happened += 1
            time.sleep(0.05)
        exit_code = process.wait(PATIENCE)
        completed, on_disk = trio.run(_progress, configuration, request)
        told.append(completed)
    finally:
        process.kill()
        process.communicate()
    return Outcome(count, completed, on_disk, told, sent, happened, exit_code, time.monotonic() - begin)


async def _progress(configuration: Path, request: str) -> tuple[int, int]:
    async with open_stages(MountConfiguration.read(configuration)) as (stages, _):
        progress = await stages.progress(request)
    return sum(it.state == "COMPLETED" for it in progress.files), sum(it.on_disk for it in progress.files)
