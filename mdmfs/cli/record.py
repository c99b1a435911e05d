"""``mdmfs record``: collections of records, their import in the hospital, and what a caller may read of a subject."""

from __future__ import annotations

import csv
import json
import os
import pathlib
import sys
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TextIO

import click
import msgspec
import trio
from rich.console import Console
from rich.progress import Progress

from mdmfs.cli.find import metadata_clients
from mdmfs.cli.hospital import CONFIGURATION, INTERVAL, ask, asking
from mdmfs.cli.mounted import Place, find_place
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.model.errors import ConfigurationError, MdmfsError
from mdmfs.model.names import Guid
from mdmfs.model.subject import SubjectId
from mdmfs.pki.trust import TrustAnchors
from mdmfs.sealing.header import ObjectContext, Role
from mdmfs.sealing.layout import HEADER_SIZE, plain_size, whole_range
from mdmfs.wire.client import Client
from mdmfs.wire.configuration import Settings, read_configuration
from mdmfs.wire.metadata_messages import RECORDS_PATH, AskRecords, Done, Record, RecordPage
from mdmfs.wire.nursery import open_plain_nursery
from mdmfs.wire.peers import open_keystores
from mdmfs.wire.process import forbid_core_dumps
from mdmfs.wire.record_messages import (
    DEFINE_RECORDS_PATH,
    IMPORT_RECORDS_PATH,
    RECORDS_WAITING_PATH,
    AskRecordsWaiting,
    DefineRecords,
    ImportedRecords,
    ImportRecords,
    PatientRecord,
    RecordAttribute,
    RecordsWaiting,
)
from mdmfs.worker.callers.credential import own_credential
from mdmfs.worker.keys.ring import KeyRing, Lock

BATCH: Final = 500
DELIVERY_SECONDS: Final = 30.0
GENERATION: Final = 1
DEADLINE: Final = 30.0


class AttributeTable(Settings, frozen=True):
    """One ``[[attributes]]``."""

    name: str
    type: str
    column: str = ""
    """What files call it; the name where it is empty."""
    group: str = ""


class CollectionFile(Settings, frozen=True):
    """A collection's TOML file."""

    project: str
    name: str
    attributes: list[AttributeTable]
    patient: str = "patient_id"
    """The column with the Patient ID."""
    issuer: str = ""
    """Of all Patient IDs in the files."""
    key: tuple[str, ...] = ()
    """The attributes that make a record of a subject one; none for all."""
    readers: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    narrow: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """For each attribute group the DNs that may read it."""


_COLLECTION = click.argument("collection", type=CONFIGURATION)


@click.group()
def record() -> None:
    """Keep records of subjects. CONFIGURATION is the hospital's, whose daemon must run; COLLECTION describes them."""


@record.command()
@click.argument("configuration", type=CONFIGURATION)
@_COLLECTION
def define(configuration: pathlib.Path, collection: pathlib.Path) -> None:
    """Make the collection, or bring its schema to what COLLECTION says; attributes no longer named go, with values."""
    trio.run(_define, HospitalConfiguration.read(configuration), read_configuration(collection, CollectionFile))


@record.command(name="import")
@click.argument("configuration", type=CONFIGURATION)
@_COLLECTION
@click.argument("source", type=click.File(encoding="utf-8-sig"))
@click.option("--format", "form", type=click.Choice(["csv", "json"]), default="csv", show_default=True)
@click.option("--report", type=click.Path(path_type=pathlib.Path), help="A new file: each refused row, and why.")
def import_file(
    configuration: pathlib.Path, collection: pathlib.Path, source: TextIO, form: str, report: pathlib.Path | None
) -> None:
    """Import rows of patients from SOURCE, as records of their subjects; - is standard input.

    Columns that COLLECTION does not name are dropped, dates are shifted by the subject's days. A refused row keeps none
    of the others away; importing the same file again changes nothing. 1 where rows were refused.
    """
    forbid_core_dumps()
    file = read_configuration(collection, CollectionFile)
    rows = list(read_rows(source, form, file))
    reasons = trio.run(_import, HospitalConfiguration.read(configuration), file, rows)
    refused = [(row.number, reason) for row, reason in zip(rows, reasons, strict=True) if reason]
    for reason, count in Counter(reason for _, reason in refused).most_common():
        click.echo(f"  {count} refused: {reason}", err=True)
    click.echo(f"imported {len(rows) - len(refused)} of {len(rows)} rows")
    if report is not None:
        write_report(report, refused)
    sys.exit(1 if refused else 0)


@record.command()
@click.argument("subject_id", metavar="SUBJECT")
@click.option("--at", "path", default=".", help="A path on the mount whose configuration counts. Default: here.")
@click.option("--configuration", type=CONFIGURATION, help="A mount's; nothing need be mounted then.")
@click.option(
    "--attachments", type=click.Path(file_okay=False, path_type=pathlib.Path), help="A folder to put them in."
)
def show(subject_id: str, path: str, configuration: pathlib.Path | None, attachments: pathlib.Path | None) -> None:
    """Print the records of SUBJECT that the caller may read, one JSON object on each line, with their notes.

    Notes are sealed: their keys come from the keystores, which decide by themselves. Dates are shifted ones.
    """
    forbid_core_dumps()
    place = find_place("/grid/medical" if configuration else path, configuration)
    sys.exit(trio.run(_show, place, SubjectId.parse(subject_id), attachments))


class Row(NamedTuple):
    """One row of a file; its repr must not be printed."""

    number: int
    """Of the line, or of the object in its list, from 1."""
    record: PatientRecord


def read_rows(source: TextIO, form: str, collection: CollectionFile) -> Iterator[Row]:
    """Read rows; raises ``ConfigurationError`` that names a row by its number, never what stands there."""
    columns = {one.column or one.name: one.name for one in collection.attributes}
    try:
        given = _objects(source) if form == "json" else _lines(source)
        for number, values in given:
            patient = values.get(collection.patient)
            if not isinstance(patient, str | int) or isinstance(patient, bool) or not str(patient).strip():
                message = f"row {number} has no {collection.patient}"
                raise ConfigurationError(message)
            known = {columns[name]: value for name, value in values.items() if name in columns and value is not None}
            yield Row(number, PatientRecord(str(patient).strip(), collection.issuer, known))
    except (csv.Error, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        message = f"the file is no {form.upper()} that can be read"
        raise ConfigurationError(message) from None


def _lines(source: TextIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(source, strict=True)
    for values in reader:
        yield reader.line_num, {name: value for name, value in values.items() if name and isinstance(value, str)}


def _objects(source: TextIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    whole = json.load(source)
    if not isinstance(whole, list):
        message = "a JSON file holds a list of objects"
        raise ConfigurationError(message)
    for number, one in enumerate(whole, 1):
        if not isinstance(one, dict) or not all(isinstance(v, str | int | float | bool | None) for v in one.values()):
            message = f"element {number} is no object of texts, numbers and truth values"
            raise ConfigurationError(message)
        yield number, one


def write_report(path: pathlib.Path, refused: Sequence[tuple[int, str]]) -> None:
    """Write the refused rows by their numbers, readable by their owner only."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            out.writelines(f"{number}\t{reason}\n" for number, reason in refused)
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}"
        raise ConfigurationError(message) from error


async def _define(configuration: HospitalConfiguration, file: CollectionFile) -> None:
    attributes = [RecordAttribute(one.name, one.type, one.column or one.name, one.group) for one in file.attributes]
    narrow = {name: list(dns) for name, dns in file.narrow.items()}
    asked = DefineRecords(
        file.project, file.name, list(file.readers), list(file.groups), attributes, list(file.key), narrow
    )
    async with asking(configuration) as client:
        await ask(client, DEFINE_RECORDS_PATH, asked, Done)


async def _import(configuration: HospitalConfiguration, file: CollectionFile, rows: Sequence[Row]) -> list[str]:
    reasons: list[str] = []
    async with asking(configuration) as client:
        with Progress(console=Console(stderr=True)) as bar:
            drawn = bar.add_task("importing", total=len(rows))
            for start in range(0, len(rows), BATCH):
                some = [row.record for row in rows[start : start + BATCH]]
                asked = ImportRecords(file.project, file.name, some)
                reasons += (await ask(client, IMPORT_RECORDS_PATH, asked, ImportedRecords)).reasons
                bar.update(drawn, completed=len(reasons))
        await _wait_for_delivery(client)
    return reasons


async def _wait_for_delivery(client: Client) -> None:
    patience = trio.current_time() + DELIVERY_SECONDS
    while not (await ask(client, RECORDS_WAITING_PATH, AskRecordsWaiting(), RecordsWaiting)).is_empty:
        if trio.current_time() > patience:
            click.echo("the metadata service has not taken everything yet; the hospital goes on trying", err=True)
            return
        await trio.sleep(INTERVAL)


async def _show(place: Place, subject: SubjectId, attachments: pathlib.Path | None) -> int:
    status = 0
    configuration = place.configuration
    anchors = TrustAnchors(configuration.path(configuration.trust))
    async with open_plain_nursery() as nursery:
        keystores = open_keystores(configuration.keystores, own_credential(configuration), anchors, nursery)
        ring = KeyRing(lambda: keystores, deadline=DEADLINE)
        for name, client in metadata_clients(place).items():
            try:
                async for one in _records(client, subject):
                    click.echo(json.dumps(await _told(one, name, ring, attachments)))
            except MdmfsError as error:
                click.echo(f"mdmfs: {name} did not answer, what it has is missing: {error}", err=True)
                status = 3
            await client.aclose()
        nursery.cancel_scope.cancel()
    return status


async def _records(client: Client, subject: SubjectId) -> Any:  # noqa: ANN401 an iterator
    after = b""
    while True:
        page = await ask(client, RECORDS_PATH, AskRecords(subject.text, after), RecordPage)
        for one in page.records:
            yield one
        if page.is_last or not page.records:
            return
        after = page.records[-1].guid


async def _told(one: Record, name: str, ring: KeyRing, attachments: pathlib.Path | None) -> dict[str, object]:
    told: dict[str, object] = {"hospital": name, "collection": one.collection, "record": str(uuid.UUID(bytes=one.guid))}
    told |= {key: value for key, value in one.values.items() if value is not None}
    if one.sealed:
        for key, value in (await open_text(one, ring)).items():
            told[key] = value if isinstance(value, str) else _saved(one, key, value, attachments)
    return told


async def open_text(one: Record, ring: KeyRing) -> dict[str, str | bytes]:
    """Open the notes and attachments of a record; raises what collecting a key raises, and ``IntegrityError``."""
    size = plain_size(len(one.sealed))
    context = ObjectContext(Role.BODY, Guid(one.key), GENERATION, size)
    unsealer = await ring.unlock(Lock(context, one.sealed[:HEADER_SIZE], 1))
    whole = whole_range(size)
    plaintext = unsealer.unseal_range(one.sealed[whole.offset : whole.offset + whole.length], whole)
    told: dict[str, str | bytes] = msgspec.msgpack.decode(bytes(plaintext))
    return told


def _saved(one: Record, key: str, octets: bytes, attachments: pathlib.Path | None) -> str:
    if attachments is None:
        return f"({len(octets)} bytes: give --attachments)"
    attachments.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = attachments / f"{uuid.UUID(bytes=one.guid)}-{key}"
    path.write_bytes(octets)
    return str(path)
