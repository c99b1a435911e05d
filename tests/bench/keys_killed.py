"""kill -9 of hospital and keystores at random instants of 10,000 registrations, and of rotations: what keys remain.

One of them is killed, or all at once as by a power cut; only whom it met is started again. To start a daemon takes a
second of a processor, and a hospital that was killed has the PACS list all images anew: both were most of this bench.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from pathlib import Path

import trio

from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import PROJECT, Site, make_site
from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.wire.messages.key_tasks import KeyTask
from tests.bench._frame import Bench, Measured
from tests.bench.many import fill
from tests.twins.clinic import slice_of
from tests.twins.killed import (
    THRESHOLD,
    VICTIMS,
    closed,
    files_kept,
    harvest_until,
    keys,
    rotate_and_kill,
    shares_kept,
    start,
)

REGISTRATIONS = int(os.environ.get("MDMFS_REGISTRATIONS", "10000"))
"""Fewer where somebody only tries the bench."""
SERIES = 25
KILLS = (*((name,) for name in VICTIMS), VICTIMS)
ROTATIONS = 20
"""That are broken off by a kill of the hospital, at any instant of the time that a whole one takes."""
PATIENCE = 15.0
"""Seconds after a start until which all files must open."""
MOST_OCTETS = REGISTRATIONS * 120
"""Of new images between two kills; each has some 1,100."""


def filled_site(folder: Path) -> Site:
    """Make a site whose PACS, our own, holds the images."""
    site = make_site(folder / "site", pacs="", inclusion=None, deadline=60.0)
    for series in range(1, 1 + SERIES):
        fill(site.pacs_directory, REGISTRATIONS // SERIES, series=series)
    listed = site.hospital_file.parent / "projects" / f"{PROJECT}.list"
    listed.write_text(f"study {slice_of(1).StudyInstanceUID}\n", encoding="utf-8")
    return site


def measure() -> Measured:
    """Kill, look at what lies there, go on; the ratio is that of files with their key in the end."""
    dice = random.Random(5)  # noqa: S311 no secret
    rows: list[tuple[str, ...]] = []
    killed = shown_without = 0
    with tempfile.TemporaryDirectory() as folder, running(site := filled_site(Path(folder))) as processes:
        configuration = HospitalConfiguration.read(site.hospital_file)
        processes.start_pacs()
        start(processes, *VICTIMS)
        while True:
            progress = trio.run(harvest_until, configuration, dice.randrange(1, MOST_OCTETS))
            if progress.is_over and progress.registered + progress.known == REGISTRATIONS and not progress.depositing:
                break
            met = dice.choice(KILLS)
            killed += 1
            time.sleep(dice.uniform(0.0, 0.1))
            for name in dice.sample(met, len(met)):
                processes.stop(name, signal.SIGKILL)
            files = files_kept(site)
            visible = [file.guid for file in files if file.state is FileState.VISIBLE]
            without = sum(count < THRESHOLD for count in shares_kept(site, visible))
            shown_without += without
            rows.append((" ".join(met), str(len(files)), str(len(visible)), str(without)))
            time.sleep(dice.uniform(0.0, 0.2))
            start(processes, *met)
        repaired = keys(site, KeyTask.REPAIR)
        met_closed, left_closed = broken_off(site, processes, dice)
        keys(site, KeyTask.ROTATE)
        found = keys(site, KeyTask.VERIFY)
    clean = not (found.faults or found.lost or found.silent or found.failure)
    rows.append((f"in the end, {killed} kills", str(found.files), f"{found.lost} lost", f"clean: {clean}"))
    rows.append((f"repair found {dict(repaired.faults)}", "", "", str(shown_without)))
    rows.append(
        (f"in {ROTATIONS} rotations", f"{met_closed} closed at a kill", f"{left_closed} after {PATIENCE} s", "")
    )
    kept = found.files - found.lost - shown_without - left_closed if clean else 0
    return Measured(("killed", "files", "visible", "without k shares"), rows, kept / REGISTRATIONS)


def broken_off(site: Site, processes: Processes, dice: random.Random) -> tuple[int, int]:
    """Rotate all keys, kill, start, and so on; count the files that had no key then, and those that still had none."""
    configuration = HospitalConfiguration.read(site.hospital_file)
    met = left = 0
    began = time.monotonic()
    keys(site, KeyTask.ROTATE)
    longest = time.monotonic() - began
    for _ in range(ROTATIONS):
        trio.run(rotate_and_kill, configuration, processes.pid("hospital"), dice.uniform(0.0, longest))
        processes.stop("hospital", signal.SIGKILL)
        met += closed(site)
        start(processes, "hospital")
        end = time.monotonic() + PATIENCE
        while closed(site) and time.monotonic() < end:
            time.sleep(0.1)
        left += closed(site)
    return met, left


BENCH = Bench(measure, bar=1.0)
