"""``mdmfs audit``: verify the hospital's audit log, ask it, and export it; on the hospital's own machine."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import pathlib
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import click
import trio

from mdmfs.cli.arguments import FILE, parsed
from mdmfs.cli.output import invite, is_json, note, tell
from mdmfs.daemon.backup import appearing
from mdmfs.daemon.process import forbid_core_dumps
from mdmfs.hospital.audit.export import audit_message, framed, subject_of, syslog_message
from mdmfs.hospital.audit.questions import (
    Reader,
    files_below,
    files_of_patient,
    names_of,
    subjects_of_patient,
    what,
    who,
)
from mdmfs.hospital.audit.verify import Log, Report, ask_witnesses, verify
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.kept.audit import parse_record
from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.hospital.opening import store_path
from mdmfs.hospital.projects import unescaped_patient
from mdmfs.hospital.store import Transaction
from mdmfs.journal.files import lines_of
from mdmfs.model.errors import ConfigurationError, PeerUnreachableError
from mdmfs.model.identity import Dn
from mdmfs.pki.tls import client_context
from mdmfs.wire.peers import open_keystores
from mdmfs.wire.stream import Address

T = TypeVar("T")

CONNECT_SECONDS = 20.0


@click.group()
def audit() -> None:
    """Ask the hospital's audit log. CONFIGURATION is the hospital's; its daemon may run or not."""
    forbid_core_dumps()


@audit.command("verify")
@click.argument("configuration", type=FILE)
@click.option("--log", "older", type=FILE, multiple=True, help="An older log that was put away; again for more.")
def verify_log(configuration: pathlib.Path, older: tuple[pathlib.Path, ...]) -> None:
    """Verify that no record was changed, moved, left out or cut off, by the checkpoints that keystores hold.

    Where times go back is told, and no fault.
    """
    settings = HospitalConfiguration.read(configuration)
    report = trio.run(_verify, settings, [_log_of(settings), *older])
    warnings = [f"{one}; the clock was set or ran wrong, its place is certain" for one in report.steps_back]
    vouched = ", ".join(f"{name} up to {number}" for name, number in sorted(report.vouched.items()))
    tell(
        {
            "records": report.records,
            "faults": list(map(str, report.faults)),
            "problems": list(map(str, report.problems)),
            "vouched": report.vouched,
            "warnings": warnings,
        },
        f"{report.records} records, {len(report.faults)} faults; vouched for by {vouched or 'nobody'}",
        notes=[f"  {one}" for one in (*report.faults, *report.problems, *warnings)],
    )
    sys.exit(0 if report.is_clean else 1)


@audit.command("who")
@click.argument("configuration", type=FILE)
@click.argument("path")
def who_read(configuration: pathlib.Path, path: str) -> None:
    """List who read PATH, an LFN or a GUID, or anything below it, and who was refused it."""
    settings = HospitalConfiguration.read(configuration)
    guids = _look(settings, lambda tx: parsed(functools.partial(files_below, tx), path))
    _print(who(_log_of(settings), guids))


@audit.command("patient")
@click.argument("configuration", type=FILE)
def who_read_patient(configuration: pathlib.Path) -> None:
    """List who read a patient's images, and which subjects he is.

    The number, ID or ID^^^ISSUER, is read from standard input.
    """
    settings = HospitalConfiguration.read(configuration)
    invite(sys.stdin, "the patient, ID or ID^^^ISSUER, on a line:")
    patient = unescaped_patient(sys.stdin.readline())
    if not patient.patient_id:
        message = "standard input has no patient's number"
        raise ConfigurationError(message, what_to_do="write ID or ID^^^ISSUER there, on one line")
    guids = _look(settings, lambda tx: files_of_patient(tx, patient))
    subjects = {f"sub-{row.id}": row.project for row in _look(settings, lambda tx: subjects_of_patient(tx, patient))}
    known_as = ", ".join(f"{subject} in {project}" for subject, project in subjects.items()) or "nobody who is known"
    note(f"{len(guids)} files of {known_as}", files=len(guids), subjects=subjects)
    _print(who(_log_of(settings), guids))


@audit.command("what")
@click.argument("configuration", type=FILE)
@click.argument("dn")
def what_read(configuration: pathlib.Path, dn: str) -> None:
    """Print everything that is on record of DN, oldest first, one JSON object a line with the file's directory."""
    settings = HospitalConfiguration.read(configuration)
    records = list(what(_log_of(settings), parsed(Dn.parse, dn)))
    names = _look(settings, lambda tx: names_of(tx, {record.guid for record in records if record.guid}))
    for record in records:
        told = {"when": _utc(record.time), "directory": names.get(record.guid, "")} | _fields(record)
        there = {name: value for name, value in told.items() if value not in ("", (), False)}
        tell(there, json.dumps(there))


@audit.command()
@click.argument("configuration", type=FILE)
@click.option("--format", "kind", type=click.Choice(["jsonl", "dicom"]), default="jsonl", show_default=True)
@click.option("--after", type=int, default=0, help="Only records after this one.")
@click.option("--syslog", default="", help="HOST:PORT of a repository: send over TLS (RFC 5425); dicom only.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=pathlib.Path), help="A new file, or -.")
def export(configuration: pathlib.Path, kind: str, after: int, syslog: str, output: pathlib.Path | None) -> None:
    """Export records as JSON lines, as they stand, or as DICOM audit messages (PS3.15 A.5), which name patients.

    The last line on standard error tells up to which record; give it as --after the next time.
    """
    settings = HospitalConfiguration.read(configuration)
    output = None if output == pathlib.Path("-") else output
    if syslog and kind != "dicom":
        message = "--syslog sends DICOM audit messages: add --format dicom"
        raise click.UsageError(message)
    if is_json() and kind == "dicom" and not (syslog or output):
        message = "DICOM audit messages are XML: with --json give --output or --syslog"
        raise click.UsageError(message)
    last = after
    with _store(settings) as store, _sink(settings, syslog, output) as write:
        for line in lines_of(_log_of(settings)):
            record = parse_record(line)
            if record is None or record.n <= after:
                continue
            if kind == "jsonl":
                write(line)
            else:
                subject = store.read(lambda tx, record=record: subject_of(tx, record))  # type: ignore[misc]
                told = audit_message(record, subject, str(settings.credential.subject()))
                write(syslog_message(record, told, settings.hospital.name))
            last = record.n
    note(f"exported up to record {last}", last=last)


async def _verify(settings: HospitalConfiguration, logs: list[pathlib.Path]) -> Report:
    async with trio.open_nursery() as nursery:
        keystores = open_keystores(settings.keystores, settings.credential, settings.anchors, nursery)
        witnessed, problems = await ask_witnesses(keystores)
        nursery.cancel_scope.cancel()
    report = verify([Log.at(path) for path in logs], witnessed)
    return report._replace(problems=problems + report.problems)


def _log_of(settings: HospitalConfiguration) -> pathlib.Path:
    return settings.path(settings.hospital.directory) / "audit.jsonl"


@contextlib.contextmanager
def _store(settings: HospitalConfiguration) -> Iterator[LmdbStore]:
    with LmdbStore.looking(store_path(settings)) as store:
        yield store


def _look(settings: HospitalConfiguration, question: Callable[[Transaction], T]) -> T:
    with _store(settings) as store:
        return store.read(question)


@contextlib.contextmanager
def _sink(
    settings: HospitalConfiguration, syslog: str, output: pathlib.Path | None
) -> Iterator[Callable[[bytes], object]]:
    """Give where messages go: a repository over mutual TLS, a file, or standard output, one a line."""
    if not syslog:
        with contextlib.nullcontext(sys.stdout.buffer) if output is None else appearing(output) as stream:
            yield lambda message: stream.write(message + b"\n")
            stream.flush()
        return
    address = Address.parse(syslog)
    context = client_context(settings.credential, settings.anchors)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        with (
            socket.create_connection((address.host, address.port), CONNECT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=address.host) as tls,
        ):
            yield lambda message: tls.sendall(next(iter(framed([message]))))
            tls.unwrap()
    except OSError as error:
        message = f"the audit repository {syslog} does not take messages: {error.strerror or error}"
        what_to_do = "see whether it listens there for TLS and knows the CA of this hospital's certificate"
        raise PeerUnreachableError(message, what_to_do=what_to_do) from error


def _print(readers: list[Reader]) -> None:
    for reader in readers:
        told = dataclasses.asdict(reader) | {"guids": sorted(reader.guids), "purposes": sorted(reader.purposes)}
        counts = f"{len(reader.guids)} files, {reader.releases} releases ({reader.ahead} ahead), {reader.cached} cached"
        when = f"{_utc(reader.first)} to {_utc(reader.last)}"
        purposes = f"  for: {'; '.join(sorted(reader.purposes))}" if reader.purposes else ""
        tell(told, f"{reader.dn}  {counts}, {reader.refusals} refusals  {when}{purposes}")


def _fields(record: object) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__struct_fields__}  # type: ignore[attr-defined]


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
