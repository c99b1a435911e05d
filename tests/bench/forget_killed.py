"""kill -9 of hospitald at random instants while subjects are forgotten: the same command ends it, and no other goes.

Real processes: PACS, keystores, hospitald, with its store in LMDB. The ratio is the part of the rows and files of those
who stay that are there in the end as they were; whatever leads to one who was forgotten makes it 0.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import lmdb
import msgspec
import trio

from mdmfs.cli.harvest import harvest_project
from mdmfs.cli.hospital import ask, asking
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import PROJECT, Site, make_site
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.rows import digest_key
from mdmfs.hospital.uidmap.instances import pack_uid
from mdmfs.model.errors import MdmfsError
from mdmfs.rows.environment import MAX_TABLES
from mdmfs.wire.messages.administration import FORGET_PATH, ForgetSubjects, Forgotten
from mdmfs.wire.messages.key_tasks import KeyTask
from tests.bench._frame import Bench, Measured
from tests.bench.many import FIRST, SIZE, write_file
from tests.twins.clinic import slice_of
from tests.twins.killed import VICTIMS, files_kept, keys, start

SUBJECTS = int(os.environ.get("BENCH_FORGET_SUBJECTS", "200"))
STAY = SUBJECTS // 5
EACH = 4
"""Images of a subject, in one series."""
STUDY = 500_000
"""Of the first one; with other digits than the numbers of images, as these are replaced in a copy."""
ISSUER = "AMC"
LONGEST_SECONDS = 0.06
"""From the command to the kill; within it some five subjects are forgotten."""
PATIENCE = 120.0

Rows = dict[tuple[bytes, bytes], bytes]


class Patient(NamedTuple):
    """One in the PACS."""

    number: int

    @property
    def id(self) -> str:
        """What the PACS calls him."""
        return f"FORGET-{self.number:05}"

    def uids(self) -> list[str]:
        """Name his study, series and instances."""
        one = slice_of(FIRST, patient_id=self.id, study=STUDY + self.number, series=1, size=SIZE)
        instances = [str(one.SOPInstanceUID).replace(str(FIRST), str(FIRST + image)) for image in range(EACH)]
        return [str(one.StudyInstanceUID), str(one.SeriesInstanceUID), *instances]

    def leads(self) -> list[bytes]:
        """Give what leads to him in a store: numbers and UIDs, packed ones, and digests of them."""
        uids = self.uids()
        digests = [digest_key(PROJECT, ISSUER, self.id), *(digest_key(PROJECT, uid) for uid in uids[2:])]
        return [text.encode() for text in (self.id, *uids)] + [pack_uid(uid) for uid in uids] + digests


def measure() -> Measured:
    """Forget, kill, start, and so on until nobody is left who has to go."""
    dice = random.Random(5)  # noqa: S311 no secret
    patients = [Patient(number) for number in range(SUBJECTS)]
    with tempfile.TemporaryDirectory() as folder:
        site = filled_site(Path(folder), patients)
        with running(site) as processes:
            processes.start_pacs(PATIENCE)
            start(processes, *VICTIMS)
            configuration = HospitalConfiguration.read(site.hospital_file)
            assert not trio.run(harvest_project, configuration, PROJECT).failures
            opt_out(site, processes, patients[STAY:])
            before = rows_of(site)
            kept = rows_to(patients[:STAY], before)
            kills = kill_until_forgotten(site, processes, dice)
            processes.stop("hospital")
            after = rows_of(site)
            found = len(rows_to(patients[STAY:], after))
            left = sum(after.get(row) == value for row, value in kept.items())
            files = len(files_kept(site))
            start(processes, "hospital")
            faults = keys(site, KeyTask.VERIFY).faults
    rows = [
        ("before", f"{len(before):,}", f"{len(kept):,}", ""),
        (f"after {kills} kills", f"{len(after):,}", f"{left:,}", f"{found}"),
        (f"{files:,} files, faults of keys: {dict(faults)}", "", "", ""),
    ]
    is_sound = not found and not faults and files == SUBJECTS * EACH
    return Measured(
        ("of the store", "rows", "lead to who stays", "to who went"), rows, left / len(kept) if is_sound else 0
    )


def filled_site(folder: Path, patients: list[Patient]) -> Site:
    """Make a site whose PACS, our own, holds them all."""
    site = make_site(folder / "site", pacs="", inclusion=None, deadline=60.0)
    site.pacs_directory.mkdir(parents=True, exist_ok=True)
    template = folder / "template"
    for patient in patients:
        write_file(template, slice_of(FIRST, patient_id=patient.id, study=STUDY + patient.number, series=1, size=SIZE))
        octets = template.read_bytes()
        for image in range(EACH):
            path = site.pacs_directory / f"{patient.number}-{image}.dcm"
            path.write_bytes(octets.replace(b"%d" % FIRST, b"%d" % (FIRST + image)))
    listed = "".join(f"patient {patient.id}^^^{ISSUER}\n" for patient in patients)
    (site.hospital_file.parent / "projects" / f"{PROJECT}.list").write_text(listed, encoding="utf-8")
    (site.state / "opt-out").touch()
    text = site.hospital_file.read_text(encoding="utf-8")
    opted = text.replace("[hospital]\n", f'[hospital]\nopt_out = "{site.state / "opt-out"}"\n', 1)
    site.hospital_file.write_text(opted, encoding="utf-8")
    return site


def opt_out(site: Site, processes: Processes, patients: list[Patient]) -> None:
    """Let patients object, and wait until nothing of them is left but who they were."""
    listed = "".join(f"patient {patient.id}^^^{ISSUER}\n" for patient in patients)
    (site.state / "opt-out").write_text(listed, encoding="utf-8")
    processes.stop("hospital")
    start(processes, "hospital")
    configuration = HospitalConfiguration.read(site.hospital_file)
    end = time.monotonic() + PATIENCE
    while len(forgettable(configuration)) < len(patients):
        assert time.monotonic() < end, "their files are not destroyed"
        time.sleep(0.5)
    processes.stop("hospital")


async def forget(configuration: HospitalConfiguration, *, is_dry: bool) -> Forgotten:
    """Give the command."""
    question, told = ForgetSubjects([], PROJECT, is_dry=is_dry), Forgotten({}, {})
    async with asking(configuration) as client:
        while True:
            part = await ask(client, FORGET_PATH, question, Forgotten)
            told.files.update(part.files)
            told.kept.update(part.kept)
            if not part.after:
                return told
            question = msgspec.structs.replace(question, after=part.after)


def forgettable(configuration: HospitalConfiguration) -> Collection[str]:
    """Name those who would be forgotten."""
    return trio.run(functools.partial(forget, configuration, is_dry=True)).files


async def forget_and_kill(configuration: HospitalConfiguration, process: int, seconds: float) -> None:
    """Give the command, and kill who works on it."""
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            with contextlib.suppress(MdmfsError):
                await forget(configuration, is_dry=False)

        nursery.start_soon(run)
        await trio.sleep(seconds)
        os.kill(process, signal.SIGKILL)
        nursery.cancel_scope.cancel()


def kill_until_forgotten(site: Site, processes: Processes, dice: random.Random) -> int:
    """Kill hospitald again and again until the command has nobody left; gives how often."""
    configuration = HospitalConfiguration.read(site.hospital_file)
    kills = 0
    start(processes, "hospital")
    while forgettable(configuration):
        trio.run(forget_and_kill, configuration, processes.pid("hospital"), dice.uniform(0.0, LONGEST_SECONDS))
        processes.stop("hospital", signal.SIGKILL)
        kills += 1
        start(processes, "hospital")
    return kills


def rows_of(site: Site) -> Rows:
    """Read all of the hospital's store, which nobody has open."""
    path = str(site.hospital_directory / "store")
    found: Rows = {}
    with lmdb.open(path, readonly=True, max_dbs=MAX_TABLES) as env, env.begin() as txn:
        for name in list(txn.cursor().iternext(keys=True, values=False)):
            table = env.open_db(name, txn=txn, create=False)
            found |= {(bytes(name), bytes(key)): bytes(value) for key, value in txn.cursor(table)}
    return found


def rows_to(patients: list[Patient], rows: Rows) -> Rows:
    """Give the rows that lead to some of them."""
    leads = [lead for patient in patients for lead in patient.leads()]
    return {row: value for row, value in rows.items() if any(lead in row[1] or lead in value for lead in leads)}


BENCH = Bench(measure, bar=1.0)
