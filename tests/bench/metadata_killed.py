"""kill -9 of metadatad at random instants of a registration and of an import: the rest comes from the outbox.

Real processes: PACS, keystores, hospitald, metadatad. The ratio is the part of files and records that the service holds
once afterwards, as the hospital has them; whatever is missing, or there twice, ends the run.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import trio

from mdmfs.demo.patients import included_patients
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import PROJECT, Site, fill_pacs, make_site
from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.configuration import HospitalConfiguration
from tests.bench._frame import Bench, Measured
from tests.twins.killed import files_kept, harvest_until

KILLS = int(os.environ.get("BENCH_METADATA_KILLS", "20"))
ROWS_OF_PATIENT = 2000
REGISTERED = 90
"""Of the demonstration's images."""
SECONDS = 240.0
ISSUER = included_patients()[0].issuer
COLLECTION = f"""project = "{PROJECT}"
name = "followup"
issuer = "{ISSUER}"
key = ["Visit"]
[[attributes]]
name = "Visit"
type = "integer"
[[attributes]]
name = "Grade"
type = "integer"
"""


class Killer:
    """Kills and starts metadatad until it is told to end."""

    def __init__(self, processes: Processes, draw: random.Random) -> None:
        self.kills = 0
        self._processes = processes
        self._draw = draw
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, with the service running."""
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(self._draw.uniform(0.0, 1.0)):
            if self.kills < KILLS:
                self._processes.stop("metadata", signal.SIGKILL)
                self._processes.start_metadata()
                self.kills += 1


@contextlib.contextmanager
def started() -> Iterator[tuple[Site, Processes, list[str]]]:
    """Run a site on the demonstration's patients, with nothing registered; gives Patient IDs to import records of."""
    with tempfile.TemporaryDirectory() as folder:
        site = make_site(Path(folder) / "site", pacs="", inclusion=None, deadline=20.0)
        fill_pacs(site)
        with running(site) as processes:
            processes.start_pacs()
            processes.start_keystores()
            processes.start_metadata()
            processes.start_hospital()
            yield site, processes, [one.patient_id for one in included_patients() if one.issuer == ISSUER]


def measure() -> Measured:
    """Register and import under kills, then compare."""
    draw = random.Random(os.environ.get("BENCH_METADATA_SEED", "0"))  # noqa: S311 a seed
    with started() as (site, processes, patients):
        with Killer(processes, draw) as killer:
            trio.run(harvest_until, HospitalConfiguration.read(site.hospital_file), 2**62)
        of_registration = killer.kills
        wait_for(lambda: len(images_in(site)) == REGISTERED, "the images")
        with Killer(processes, draw) as killer:
            imported = import_records(site, patients)
        wait_for(lambda: records_in(site) >= imported, "the records")
        for name in ("hospital", "metadata"):
            processes.stop(name)
        files = {file.guid.octets for file in files_kept(site) if file.state is FileState.VISIBLE}
        assert images_in(site) == files, (len(images_in(site)), len(files))
        assert records_in(site) == imported == len(patients) * ROWS_OF_PATIENT
    row = [str(of_registration), str(len(files)), str(killer.kills), str(imported)]
    return Measured(
        ("kills of a registration", "files, each once", "kills of an import", "records, each once"), [row], 1
    )


def import_records(site: Site, patients: list[str]) -> int:
    """Run ``mdmfs record`` as an operator does; gives how many rows were taken."""
    collection, rows = site.state / "followup.toml", site.state / "rows.csv"
    collection.write_text(COLLECTION)
    lines = [f"{patient},{visit},{visit % 5}" for patient in patients for visit in range(ROWS_OF_PATIENT)]
    rows.write_text("\n".join(["patient_id,Visit,Grade", *lines]) + "\n")
    command = [sys.executable, "-m", "mdmfs.cli", "record"]
    subprocess.run([*command, "define", site.hospital_file, collection], check=True, capture_output=True)
    told = subprocess.run(
        [*command, "import", site.hospital_file, collection, rows], check=False, capture_output=True, text=True
    )
    assert f"of {len(lines)} rows" in told.stdout, told.stderr[-500:]
    return int(told.stdout.split()[1])


def wait_for(is_there: Callable[[], bool], what: str) -> None:
    """Wait until the service has everything."""
    end = time.monotonic() + SECONDS
    while not is_there():
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.2)


def images_in(site: Site) -> set[bytes]:
    """Give the GUIDs of the images that the service shows; a GUID is the key of its table."""
    shown = "select i.guid from images i join series s on s.id = i.series where i.visible and s.visible"
    return {bytes(row[0]) for row in ask(site, shown)}


def records_in(site: Site) -> int:
    """Count the records; none that says the same of the same subject is there twice."""
    try:
        ((every, different),) = ask(site, "select count(*), count(distinct subject || ' ' || a_1) from records_1")
    except sqlite3.OperationalError:
        return 0
    assert every == different
    return int(every)


def ask(site: Site, statement: str) -> list[tuple[Any, ...]]:
    """Look into the service's database."""
    with contextlib.closing(sqlite3.connect(site.metadata_file.parent / "data" / "metadata.sqlite")) as connection:
        return connection.execute(statement).fetchall()


BENCH = Bench(measure, bar=1.0)
