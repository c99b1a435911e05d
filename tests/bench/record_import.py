"""Records all the way: ``mdmfs record import`` of a CSV, through hospitald and its outbox, until metadatad has each.

Real processes. Bar: 5,000 rows a second from the command's start until the last row lies in the service's database; the
ratio is the rate over that. The second import, five times as long, shows what a row costs the command in memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import trio

from mdmfs.demo.site import Site
from mdmfs.hospital.configuration import HospitalConfiguration
from tests.bench._frame import Bench, Measured
from tests.bench.metadata_killed import COLLECTION, records_in, started, wait_for
from tests.twins.killed import harvest_until

ROWS = int(os.environ.get("BENCH_RECORD_ROWS", "20000"))
TIMES = 5
BAR_ROWS = 5000.0


def measure() -> Measured:
    """Import some, and then many more."""
    table = []
    with started() as (site, _, patients):
        trio.run(harvest_until, HospitalConfiguration.read(site.hospital_file), 2**62)
        define(site)
        there, rate = 0, 0.0
        for rows in (ROWS, ROWS * TIMES):
            source = write_rows(site, patients, there, rows)
            begun = time.perf_counter()
            kilobytes = run_import(site, source)
            there += rows
            wait_for(lambda there=there: records_in(site) == there, "the records")  # type: ignore[misc]
            rate = rows / (time.perf_counter() - begun)
            table.append([str(rows), f"{rate:.0f} rows/s", f"{kilobytes / 1024:.0f} MiB"])
    return Measured(("rows", "import, end to end", "the command's memory at most"), table, rate / BAR_ROWS)


def define(site: Site) -> None:
    """Make the collection."""
    file = site.state / "followup.toml"
    file.write_text(COLLECTION)
    command = [sys.executable, "-m", "mdmfs.cli", "record", "define", str(site.hospital_file), str(file)]
    subprocess.run(command, check=True, capture_output=True)


def write_rows(site: Site, patients: list[str], first: int, count: int) -> Path:
    """Write a file of visits that nobody has had before."""
    path = site.state / "rows.csv"
    with path.open("w", encoding="utf-8") as out:
        out.write("patient_id,Visit,Grade\n")
        out.writelines(f"{patients[n % len(patients)]},{n},{n % 5}\n" for n in range(first, first + count))
    return path


def run_import(site: Site, source: Path) -> int:
    """Run the command; gives its largest resident memory, in KiB."""
    files = [site.hospital_file, site.state / "followup.toml", source]
    command = [sys.executable, "-m", "mdmfs.cli", "record", "import", *map(str, files)]
    with (site.logs / "import.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (site.logs / "import.log").read_text()[-500:]
    return usage.ru_maxrss


BENCH = Bench(measure, bar=1.0)
"""A ratio of at least 1."""
