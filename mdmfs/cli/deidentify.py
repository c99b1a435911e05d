"""``mdmfs deidentify``: the engine of the hospital's daemon over files, without a PACS, keys or a grid."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import secrets
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, Final

import click

from mdmfs.cli.output import open_bar, tell
from mdmfs.daemon.backup import appearing
from mdmfs.daemon.process import forbid_core_dumps
from mdmfs.hospital.assembly import read_policy
from mdmfs.hospital.deid.deidentify import ENGINE_GENERATION, Deidentification, deidentify
from mdmfs.hospital.deid.header import IdentifiedHeader
from mdmfs.hospital.deid.part10 import MAGIC, MAX_META_BYTES, PREAMBLE_SIZE, FileMeta, read_file_meta
from mdmfs.hospital.deid.policy import Policy
from mdmfs.hospital.deid.pseudonyms import (
    DAYS_IN_WEEK,
    MAX_WEEKS_BACK,
    MIN_WEEKS_BACK,
    MINUTES_IN_DAY,
    UID_KEY_SIZE,
    PatientKey,
    Subject,
)
from mdmfs.hospital.deid.refusal import RefusedError
from mdmfs.hospital.deid.residue import Publishable, ResidueGate
from mdmfs.model.errors import ConfigurationError, unusable
from mdmfs.model.subject import SUBJECT_ID_OCTETS, SubjectId

PIECE: Final = 2**20
NOT_DICOM: Final = "not-dicom"
ALREADY_THERE: Final = "already-there"
UNREADABLE: Final = "unreadable"
SUBJECTS: Final = "throw-away: one for each patient of this run, forgotten at its end"

_SOURCE: Final = click.Path(exists=True, path_type=pathlib.Path)


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one source."""

    source: pathlib.Path
    output: str = ""
    """Below the output directory; empty where there is none."""
    sha256: str = ""
    reason: str = ""
    """Why there is no output."""
    where: str = ""
    """The tag at fault."""


@click.command(name="deidentify")
@click.argument("source", type=_SOURCE)
@click.option("-o", "--output", type=click.Path(path_type=pathlib.Path), required=True, help="A directory.")
@click.option("--policy", "policy_name", required=True, help="strict, research, or a file (with a / in it).")
@click.option("--report", type=click.Path(path_type=pathlib.Path), help="A new file: which source became what.")
def deidentify_files(source: pathlib.Path, output: pathlib.Path, policy_name: str, report: pathlib.Path | None) -> None:
    """De-identify SOURCE, a file or all files below a directory, into new files named by pseudonyms.

    Each output appears whole or not at all. Patients get throw-away subjects: a second run gives other pseudonyms.
    """
    forbid_core_dumps()
    policy = read_policy(str(pathlib.Path(policy_name).absolute()) if "/" in policy_name else policy_name)
    run, files = Run(policy, output), sources(source, output)
    outcomes = []
    with appearing(report) if report else contextlib.nullcontext() as out:
        with open_bar() as bar:
            for path in bar.track(files, description="de-identifying"):
                outcomes.append(run.take(path))  # noqa: PERF401 - it draws
        if out is not None:
            out.write(written_report(policy, outcomes))
    tell(
        {
            "written": sum(1 for outcome in outcomes if outcome.output),
            "files": len(outcomes),
            "policy": policy.name,
            "policy_digest": policy.digest.hex(),
            "refused": collections.Counter(outcome.reason for outcome in outcomes if outcome.reason),
        },
        told(policy, outcomes),
    )


class Run:
    """De-identifies file after file under one policy; knows its patients until it is dropped."""

    def __init__(self, policy: Policy, output: pathlib.Path) -> None:
        self._policy: Final = policy
        self._output: Final = output
        self._subjects: Final[dict[PatientKey, Subject]] = {}

    def take(self, source: pathlib.Path) -> Outcome:
        """De-identify one file; raises ``ConfigurationError`` or ``OutOfSpaceError`` where files do not work."""
        try:
            opened = source.open("rb")
        except OSError:
            return Outcome(source, reason=UNREADABLE)
        try:
            with opened as file:
                start = file.read(PREAMBLE_SIZE + len(MAGIC))
                if start[PREAMBLE_SIZE:] != MAGIC:
                    return Outcome(source, reason=NOT_DICOM)
                file.seek(0)
                return self._write(source, file)
        except RefusedError as refusal:
            return Outcome(source, reason=refusal.reason, where=refusal.where)
        except OSError as error:
            raise unusable(error.filename or self._output, error) from error

    def _write(self, source: pathlib.Path, file: BinaryIO) -> Outcome:
        run, pieces = begin(file, self._policy, self._subject_of)
        name = f"{run.label.decode()}/{run.sop_instance}.dcm"
        target = self._output / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part") as out:
            for piece in pieces:
                out.write(piece.octets)
                digest.update(piece.octets)
            out.flush()
            os.fsync(out.fileno())
            try:
                target.hardlink_to(out.name)
            except FileExistsError:
                return Outcome(source, reason=ALREADY_THERE)
        return Outcome(source, name, digest.hexdigest())

    def _subject_of(self, patient: PatientKey) -> Subject:
        return self._subjects.setdefault(patient, throw_away_subject())


def begin(
    file: BinaryIO, policy: Policy, subject_of: collections.abc.Callable[[PatientKey], Subject]
) -> tuple[Deidentification, Iterator[Publishable]]:
    """Read the header of a file and de-identify it; gives that, and what may be published of the whole file."""
    _, header = read_header(file)
    run = deidentify(header, policy, subject_of(header.patient))
    return run, _published(ResidueGate(run), file)


def read_header(file: BinaryIO) -> tuple[FileMeta, IdentifiedHeader]:
    """Read a file up to its pixels; raises ``RefusedError``."""
    meta = read_file_meta(file.read(MAX_META_BYTES))
    file.seek(meta.size)
    incoming = meta.incoming()
    while octets := file.read(PIECE):
        header = incoming.feed(octets)
        if header is not None:
            return meta, header
    return meta, incoming.finish()


def _published(gate: ResidueGate, file: BinaryIO) -> Iterator[Publishable]:
    while octets := file.read(PIECE):
        yield from gate.feed(octets)
    yield from gate.finish()


def throw_away_subject() -> Subject:
    """Make a subject that no store knows."""
    weeks = MIN_WEEKS_BACK + secrets.randbelow(MAX_WEEKS_BACK - MIN_WEEKS_BACK + 1)
    return Subject(
        id=SubjectId.from_random(secrets.token_bytes(SUBJECT_ID_OCTETS)),
        date_offset_days=-DAYS_IN_WEEK * weeks,
        extra_minutes=secrets.randbelow(MINUTES_IN_DAY),
        uid_key=secrets.token_bytes(UID_KEY_SIZE),
    )


def sources(source: pathlib.Path, output: pathlib.Path) -> list[pathlib.Path]:
    """List the files to be taken; raises ``ConfigurationError`` where outputs would lie among them."""
    if not source.is_dir():
        return [source]
    if output.resolve().is_relative_to(source.resolve()):
        message = f"{output} lies in {source}, which is read"
        raise ConfigurationError(message, what_to_do="give an output directory outside of it")
    return sorted(path for path in source.rglob("*") if path.is_file())


def told(policy: Policy, outcomes: list[Outcome]) -> str:
    """Tell what became of a run in some lines, without a name of a file."""
    written = sum(1 for outcome in outcomes if outcome.output)
    reasons = collections.Counter(outcome.reason for outcome in outcomes if outcome.reason)
    lines = [f"{written} of {len(outcomes)} files de-identified, policy {policy.name} ({policy.digest.hex()})"]
    lines += [f"  {count} not: {reason}" for reason, count in sorted(reasons.items())]
    return "\n".join([*lines, f"subjects: {SUBJECTS}", "The output is pseudonymised, not anonymous."])


def written_report(policy: Policy, outcomes: list[Outcome]) -> bytes:
    """Write a report as JSON, for its owner only: it leads from each output back to its source."""
    report = {
        "policy": policy.name,
        "policy_digest": policy.digest.hex(),
        "engine_generation": ENGINE_GENERATION,
        "subjects": SUBJECTS,
        "files": [
            {key: str(value) for key, value in dataclasses.asdict(outcome).items() if value} for outcome in outcomes
        ],
    }
    return json.dumps(report, indent=1).encode()
