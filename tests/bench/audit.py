"""The audit log: opens with and without it, and every attack on a single record of a hundred thousand."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

import msgspec
import trio

from mdmfs.hospital.kept.audit import Audit, AuditRecord, Event
from mdmfs.hospital.service import HospitalFace
from mdmfs.journal.chain import BEGINNING, Head, Kind, Line, Verifier, append
from mdmfs.model.names import Guid
from mdmfs.wire.client import Client
from mdmfs.wire.messages.files import SEALED_PATH
from mdmfs.wire.service import Answer, Request, Service
from mdmfs.wire.stream import Address
from tests.bench._frame import Bench, Measured
from tests.twins import certificates as make
from tests.twins.clinic import READER, Clinic, OpenClinic, slices
from tests.twins.wire import calling, serving

RECORDS = 100_000
FILES = 64
READERS = 16
OPENS = 1500
ROUNDS = 7
OPENS_BAR = 0.8
EVERY = 20
"""Records between two checkpoints."""

Attacked = tuple[Head, list[bytes]]
"""Where an attack begins to show, and the lines from there on."""


def written(count: int) -> tuple[list[bytes], dict[int, bytes]]:
    """Write a log; gives its lines, and checkpoints, the last of them at its end."""
    lines, checkpoints, head = [], {}, BEGINNING
    for number in range(1, count + 1):
        record = AuditRecord(time=float(number), event=Event.RELEASE, dn="/CN=reader", outcome=f"user:{number % 7}")
        line, head = append(head, msgspec.json.encode(record))
        lines.append(line.removesuffix(b"\n"))
        if number % EVERY == 0 or number == count:
            checkpoints[number] = head.link
    return lines, checkpoints


def attacks(lines: list[bytes], number: int, checkpoints: Mapping[int, bytes]) -> Iterator[tuple[str, Attacked]]:
    """Do to one record, which is not the first, all that can be done to one; lines go to the next checkpoint.

    What is put in after the last record of a log is found when the next one is written, or at the next checkpoint.
    """
    until = next((kept for kept in range(number + 1, len(lines) + 1) if kept in checkpoints), number)
    before, after = lines[number - 2], lines[number : until + 1]
    here, head = lines[number - 1], _head(lines[number - 3]) if number > 2 else BEGINNING
    edited = here.replace(b"/CN=reader", b"/CN=nobody")
    anew = _chained(_head(before), [edited])
    yield "edited", (head, [before, edited, *after])
    yield "edited, with a link that fits", (head, [before, *anew, *after])
    yield "edited, and all after it written anew", (head, [before, *_chained(_head(before), [edited, *after])])
    yield "dropped", (head, [before, *after])
    yield "dropped, and all after it written anew", (head, [before, *_chained(_head(before), after)])
    yield "doubled", (head, [before, here, here, *after])
    yield "put before the one before it", (head, [here, before, *after])
    yield "cut in the middle", (head, [before, here[: len(here) // 2], *after])
    if until == number:
        return
    yield "joined with the next", (head, [before, here + after[0], *after[1:]])
    yield "another put in after it", (head, [before, here, *_chained(_head(here), [edited]), *after])
    yield (
        "put in after it, and all after it written anew",
        (
            head,
            [before, here, *_chained(_head(here), [edited, *after])],
        ),
    )


def found_beside(attacked: Attacked, number: int, checkpoints: Mapping[int, bytes]) -> bool:
    """Tell whether an attack is found, and its place is told rightly: up to the next checkpoint at most."""
    head, lines = attacked
    near = {kept: checkpoints[kept] for kept in range(number, number + EVERY + 1) if kept in checkpoints}
    verifier = Verifier(near, head)
    found = next((faults for line in lines if (faults := list(verifier.follow(line)))), None) or list(verifier.end())
    if not found:
        return False
    # what was left out at the end, and the rest written anew, is told as what is missing at the end
    is_near = found[0].first <= number + 1 or (found[0].kind is Kind.CUT and found[0].last <= number + EVERY)
    return is_near and found[0].last >= number - 1


def _head(octets: bytes) -> Head:
    line = Line.parse(octets)
    assert line is not None
    return line.head


def _chained(head: Head, lines: Iterable[bytes]) -> list[bytes]:
    """Write what lines say anew, with links that fit."""
    chained = []
    for octets in lines:
        line = Line.parse(octets)
        assert line is not None
        _, _, body = line.hashed.partition(b",")
        new, head = append(head, b"{" + body + b"}")
        chained.append(new.removesuffix(b"\n"))
    return chained


def attack_all() -> tuple[int, int]:
    """Attack every record, or those of ``MDMFS_ATTACKED=FIRST:LAST``.

    Gives how many attacks there were, and how many were not found, or in another place.
    """
    lines, checkpoints = written(RECORDS)
    tried = missed = 0
    first, _, last = os.environ.get("MDMFS_ATTACKED", f"2:{RECORDS + 1}").partition(":")
    for number in range(int(first), int(last)):
        for _, attacked in attacks(lines, number, checkpoints):
            tried += 1
            missed += not found_beside(attacked, number, checkpoints)
    return tried, missed


class NoAudit:
    """What the audit log is compared with: says at once that everything is on disk."""

    async def record(self, *_: AuditRecord) -> None:
        """Write nothing."""
        await trio.lowlevel.checkpoint()


@contextlib.asynccontextmanager
async def served(clinic: OpenClinic, *, is_audited: bool) -> AsyncIterator[Client]:
    """Serve a hospital over mutual TLS, with its audit log or without; gives the reader's client."""
    audit = clinic.hospital.audit if is_audited else cast("Audit", NoAudit())
    hospital = dataclasses.replace(clinic.hospital, audit=audit)
    face = HospitalFace(hospital, clinic.recalls, clinic.harvests, Address("localhost", 1)).service()
    respond = face.routes["GET", SEALED_PATH]

    async def as_reader(request: Request) -> Answer:
        return await respond(dataclasses.replace(request, principal=READER))

    service = Service("hospital", {("GET", SEALED_PATH): as_reader})
    shown = make.host("hospital")
    async with serving(service, shown=shown) as address, calling(address, make.person("reader")) as client:
        yield client


async def opens_a_second(client: Client, guids: list[Guid]) -> float:
    """Open staged files, some at a time, each to its last byte."""
    left = iter(range(OPENS))

    async def read() -> None:
        for number in left:
            path = SEALED_PATH + str(guids[number % len(guids)])
            async with client.get(path, deadline=trio.current_time() + 60) as download:
                await download.read()

    begun = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(READERS):
            nursery.start_soon(read)
    return OPENS / (time.perf_counter() - begun)


async def measure_opens() -> tuple[float, float]:
    """Open with and without the audit log, in turn; gives the medians, in opens a second."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:  # a disk: where /tmp is memory, a sync costs nothing
        async with Clinic(Path(folder), slices(range(1, FILES + 1))).open() as clinic:
            await clinic.harvest()
            guids = list(clinic.files().values())
            for guid in guids:
                await clinic.read(guid)
            async with served(clinic, is_audited=True) as audited, served(clinic, is_audited=False) as bare:
                for _ in range(ROUNDS):
                    rates[False].append(await opens_a_second(bare, guids))
                    rates[True].append(await opens_a_second(audited, guids))
    return statistics.median(rates[True]), statistics.median(rates[False])


def measure() -> Measured:
    """Measure both; an attack that is not found makes the ratio 0."""
    audited, bare = trio.run(measure_opens)
    tried, missed = attack_all()
    rows = [
        (
            f"opens of staged files a second, {READERS} at a time",
            f"{audited:.0f}",
            f"{bare:.0f}",
            f"{audited / bare:.2f}",
        ),
        (f"attacks on single records of {RECORDS}", f"{tried - missed} found", f"{tried}", f"{missed} missed"),
    ]
    return Measured(("", "with the audit log", "without", "ratio"), rows, 0.0 if missed else audited / bare)


BENCH = Bench(measure, bar=OPENS_BAR)
