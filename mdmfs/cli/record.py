"""``mdmfs record``: collections of records, their import in the hospital, and what a caller may read of a subject."""

from __future__ import annotations

import functools
import os
import pathlib
import shlex
import stat
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Self, TextIO

import click
import msgspec
import trio

from mdmfs.cli.arguments import FILE, parsed
from mdmfs.cli.find import metadata_clients
from mdmfs.cli.hospital import INTERVAL, ask, ask_each, asking
from mdmfs.cli.mounted import AT, CONFIGURATION_OF_MOUNT, Place, find_mount
from mdmfs.cli.output import encoded, note, note_silence, open_bar, tell
from mdmfs.cli.rows import Row, batches, read_rows
from mdmfs.daemon.configuration import Settings, read_configuration
from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.daemon.process import forbid_core_dumps
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.model.errors import MdmfsError, using
from mdmfs.model.names import Guid
from mdmfs.model.subject import SubjectId
from mdmfs.pki.trust import TrustAnchors
from mdmfs.sealing.header import ObjectContext, Role
from mdmfs.sealing.layout import HEADER_SIZE, plain_size, whole_range
from mdmfs.wire.client import Client
from mdmfs.wire.messages.metadata import RECORDS_PATH, AskRecords, Record, RecordPage
from mdmfs.wire.messages.records import (
    COLLECTION_PATH,
    DEFINE_RECORDS_PATH,
    IMPORT_RECORDS_PATH,
    RECORDS_WAITING_PATH,
    AskCollection,
    AskRecordsWaiting,
    CollectionTold,
    DefinedRecords,
    DefineRecords,
    ImportedRecords,
    ImportRecords,
    RecordAttribute,
    RecordsWaiting,
)
from mdmfs.wire.peers import open_keystores
from mdmfs.worker.callers.credential import own_credential
from mdmfs.worker.keys.ring import KeyRing, Lock

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
    """Its own; one that lies in another is written behind that, with a dot between."""
    attributes: list[AttributeTable] = msgspec.field(default_factory=list)
    """Those of the collections above come with them."""
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


_COLLECTION = click.argument("collection", type=FILE)


@click.group()
def record() -> None:
    """Keep records of subjects. CONFIGURATION is the hospital's, whose daemon must run; COLLECTION describes them."""


@record.command()
@click.argument("configuration", type=FILE)
@_COLLECTION
def define(configuration: pathlib.Path, collection: pathlib.Path) -> None:
    """Make the collection, or bring its schema to what COLLECTION says; attributes no longer named go, with values."""
    file = read_configuration(collection, CollectionFile)
    [defined] = ask_each(
        HospitalConfiguration.read(configuration), DEFINE_RECORDS_PATH, [_definition_of(file)], DefinedRecords
    )
    for one in defined.barred:
        command = shlex.join(["mdmfs", "setfacl", "-m", one.entry, one.lfn])
        note(f"a reader may not pass {one.lfn}, unless by another of his names: {command}")
    tell({"project": file.project, "collection": file.name, "attributes": [one.name for one in file.attributes]})


@record.command(name="import")
@click.argument("configuration", type=FILE)
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
    with Report(report) as told:
        trio.run(
            _import,
            HospitalConfiguration.read(configuration),
            file,
            functools.partial(read_rows, source, form, file),
            _Progress(source),
            told,
        )
    imported = told.rows - told.reasons.total()
    refusals = [f"  {count} refused: {reason}" for reason, count in told.reasons.most_common()]
    result = {"rows": told.rows, "imported": imported, "refused": told.reasons}
    tell(result, f"imported {imported} of {told.rows} rows", notes=refusals)
    sys.exit(1 if told.reasons else 0)


@record.command()
@click.argument("subject_id", metavar="SUBJECT")
@AT
@CONFIGURATION_OF_MOUNT
@click.option(
    "--attachments", type=click.Path(file_okay=False, path_type=pathlib.Path), help="A folder to put them in."
)
def show(subject_id: str, at: str, configuration: pathlib.Path | None, attachments: pathlib.Path | None) -> None:
    """Print the records of SUBJECT that the caller may read, one JSON object on each line, with their notes.

    Notes are sealed: their keys come from the keystores, which decide by themselves. Dates are shifted ones.
    """
    forbid_core_dumps()
    place = find_mount(at, configuration)
    sys.exit(trio.run(_show, place, parsed(SubjectId.parse, subject_id), attachments))


def _definition_of(file: CollectionFile) -> DefineRecords:
    attributes = [RecordAttribute(one.name, one.type, one.column or one.name, one.group) for one in file.attributes]
    narrow = {name: list(dns) for name, dns in file.narrow.items()}
    return DefineRecords(
        file.project, file.name, list(file.readers), list(file.groups), attributes, list(file.key), narrow
    )


async def _import(
    configuration: HospitalConfiguration,
    file: CollectionFile,
    read: Callable[[Mapping[str, str]], Iterator[Row]],
    progress: _Progress,
    report: Report,
) -> None:
    async with asking(configuration) as client:
        known = await ask(client, COLLECTION_PATH, AskCollection(file.project, file.name), CollectionTold)
        columns = known.columns | {one.column or one.name: one.name for one in file.attributes}
        with progress:
            for batch in batches(read(columns)):
                asked = ImportRecords(file.project, file.name, [row.record for row in batch if row.record is not None])
                reasons = iter((await ask(client, IMPORT_RECORDS_PATH, asked, ImportedRecords)).reasons)
                for row in batch:
                    report.note(row.number, f"no {file.patient}" if row.record is None else next(reasons))
                progress.show()
        await _wait_for_delivery(client)


class Report:
    """What became of the rows: the refused ones are counted by reason, and written to a file as they come."""

    def __init__(self, path: pathlib.Path | None) -> None:
        """``path`` is a new file, for its owner only."""
        self.rows = 0
        self.reasons: Counter[str] = Counter()
        self._path = path
        self._out: TextIO | None = None

    def __enter__(self) -> Self:
        """Make the file, before any row is taken; raises ``ConfigurationError``."""
        if self._path is not None:
            with using(self._path):
                made = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._out = os.fdopen(made, "w", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        if self._out is not None:
            self._out.close()

    def note(self, number: int, reason: str) -> None:
        """Note one row: refused for a reason, or taken where that is empty."""
        self.rows += 1
        if reason:
            self.reasons[reason] += 1
            if self._out is not None:
                self._out.write(f"{number}\t{reason}\n")


class _Progress:
    """A bar of how much of a file has been read; without an end where that is not known."""

    def __init__(self, source: TextIO) -> None:
        self._source = source
        self._bar = open_bar()
        try:
            status = os.fstat(source.fileno())
        except OSError:
            self._total = None
        else:
            self._total = status.st_size if stat.S_ISREG(status.st_mode) else None
        self._drawn = self._bar.add_task("importing", total=self._total)

    def __enter__(self) -> None:
        """Draw."""
        self._bar.start()

    def __exit__(self, *_: object) -> None:
        """Leave it as it is."""
        self._bar.stop()

    def show(self) -> None:
        """Draw how far it is."""
        if self._total is not None:
            self._bar.update(self._drawn, completed=self._source.buffer.tell())


async def _wait_for_delivery(client: Client) -> None:
    patience = trio.current_time() + DELIVERY_SECONDS
    while not (await ask(client, RECORDS_WAITING_PATH, AskRecordsWaiting(), RecordsWaiting)).is_empty:
        if trio.current_time() > patience:
            note("the metadata service has not taken everything yet; the hospital goes on trying")
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
                    click.echo(encoded(await _told(one, name, ring, attachments)))
            except MdmfsError as error:
                note_silence({name: str(error)})
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
    path = attachments / f"{uuid.UUID(bytes=one.guid)}-{key}"
    with using(path):
        attachments.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_bytes(octets)
    return str(path)
