"""``mdmfs find``: ask the metadata services of all hospitals for series or images, as the caller."""

from __future__ import annotations

import csv
import pathlib
import sys
import uuid
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from typing import Final

import click
import trio
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from mdmfs.cli.mounted import AT, CONFIGURATION_OF_MOUNT, Place, find_mount
from mdmfs.cli.output import encoded, is_json, note_silence, tell
from mdmfs.model.errors import ConfigurationError
from mdmfs.model.names import Lfn
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.client import Client
from mdmfs.wire.messages.metadata import (
    EXPLAIN_PATH,
    SCHEMA_PATH,
    AskSchema,
    Explain,
    Explanation,
    FoundLevel,
    SchemaTold,
)
from mdmfs.wire.peers import PeerJudge, open_client
from mdmfs.worker.callers.credential import own_credential
from mdmfs.worker.finding.federation import DEADLINE, Federation, Row, told_silence

PARTIAL: Final = 3
"""The exit code where not every hospital answered."""
_TABLE: Final = ("Modality", "BodyPartExamined", "StudyDate", "Age", "Sex", "SeriesDescription")
_SHIFTED: Final = "dates are shifted, by whole weeks and each subject by its own"


@click.command()
@click.argument("query", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(["paths", "json", "csv", "table"]),
    default="paths",
    show_default=True,
    help="json is one object on each line.",
)
@click.option("--images", is_flag=True, help="Look for images, not for series.")
@click.option("--count", "is_count", is_flag=True, help="Only tell how many.")
@click.option("--explain", "is_explain", is_flag=True, help="Only tell what the query is understood as.")
@click.option("--schema", "is_schema", is_flag=True, help="Only list the attributes that you may ask for.")
@click.option("--timeout", type=click.FloatRange(min=0.1), default=DEADLINE, show_default=True, help="Seconds.")
@AT
@CONFIGURATION_OF_MOUNT
def find(query: str | None, at: str, configuration: pathlib.Path | None, timeout: float, **options: object) -> None:
    """Find series by QUERY, at every hospital that the mount's configuration names.

    An empty QUERY finds everything; with --schema none is needed. All dates are shifted ones.

    Example: mdmfs find 'Modality == "MR" and Age >= 60 order by StudyDate' --at ~/grid
    """
    if query is None and not options["is_schema"]:
        message = "Missing argument 'QUERY': '' finds everything, --schema lists what can be asked for."
        raise click.UsageError(message)
    asked = query or ""
    place = find_mount(at, configuration)
    level = FoundLevel.IMAGE if options["images"] else FoundLevel.SERIES
    if options["is_schema"]:
        silent = trio.run(with_federation, place, timeout, _list_schema)
    elif options["is_explain"]:
        silent = trio.run(with_federation, place, timeout, lambda all_: _explain(all_, asked, level))
    elif options["is_count"]:
        silent = trio.run(with_federation, place, timeout, lambda all_: _count(all_, asked, level))
    else:
        printer = _PRINTERS["json" if is_json() else str(options["form"])]
        silent = trio.run(with_federation, place, timeout, lambda all_: _print(all_, asked, level, printer, place))
    note_silence(silent)
    sys.exit(PARTIAL if silent else 0)


async def _print_paths(rows: AsyncIterable[Row], place: Place) -> None:
    """Print paths, below the mount where there is one."""
    async for row in rows:
        click.echo(shown_path(row.path, place))


async def _print_json(rows: AsyncIterable[Row], place: Place) -> None:
    """Print one object on each line."""
    async for row in rows:
        there = {name: value for name, value in row.values.items() if value is not None}
        guid = {"guid": str(uuid.UUID(bytes=row.guid))} if row.guid else {}
        click.echo(encoded({"path": shown_path(row.path, place), "hospital": row.hospital, **guid, **there}))


async def _print_csv(rows: AsyncIterable[Row], place: Place) -> None:
    """Print comma-separated values with a head (RFC 4180)."""
    writer, has_head = csv.writer(sys.stdout), False
    async for row in rows:
        if not has_head:
            writer.writerow(["path", "hospital", *row.values])
            has_head = True
        writer.writerow([shown_path(row.path, place), row.hospital, *row.values.values()])


async def _draw_table(rows: AsyncIterable[Row], place: Place) -> None:
    """Draw a table, when everything is there."""
    columns = [Column(name, overflow="fold") for name in ("path", *_TABLE)]
    table = Table(*columns, caption=_SHIFTED, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    async for row in rows:
        values = (row.values.get(name) for name in _TABLE)
        table.add_row(shown_path(row.path, place), *("" if value is None else str(value) for value in values))
    Console().print(table)


_Printer = Callable[[AsyncIterable[Row], Place], Awaitable[None]]
_PRINTERS: Final[Mapping[str, _Printer]] = {
    "paths": _print_paths,
    "json": _print_json,
    "csv": _print_csv,
    "table": _draw_table,
}


def shown_path(path: str, place: Place) -> str:
    """Give the path on the mount; the LFN where nothing is mounted, or where the mount shows another part."""
    lfn = Lfn.parse(path)
    if place.mountpoint is None or not lfn.is_below(place.shown):
        return path
    return str(place.mountpoint.joinpath(*lfn.parts[len(place.shown.parts) :]))


def metadata_clients(place: Place) -> dict[str, Client]:
    """Make a client of each metadata service, with the caller's credential; raises ``ConfigurationError``."""
    whole, clients = place.whole, {}
    for configuration in whole.each.values():
        credential, anchors = own_credential(configuration), TrustAnchors(configuration.path(configuration.trust))
        judge = PeerJudge(anchors)
        for peer in configuration.metadata:
            clients[peer.name] = open_client(peer.address, peer.dn, credential, anchors, judge)
    if not clients:
        message = f"{whole.file} names no [[metadata]]: there is nobody to ask"
        raise ConfigurationError(message)
    return clients


async def with_federation(
    place: Place,
    timeout: float,  # noqa: ASYNC109 each hospital has that long
    act: Callable[[Federation], Awaitable[Mapping[str, str]]],
) -> Mapping[str, str]:
    """Ask all metadata services of a mount; gives who was silent. Raises ``PeerTimedOutError`` where all are."""
    clients = metadata_clients(place)
    try:
        silent = await act(Federation(lambda: clients, deadline=timeout))
    finally:
        for client in clients.values():
            await client.aclose()
    if len(silent) == len(clients):
        raise told_silence(silent)
    return silent


async def _print(
    everyone: Federation, query: str, level: FoundLevel, printer: _Printer, place: Place
) -> dict[str, str]:
    async with everyone.finding(query, level, is_bare=printer is _print_paths) as found:
        await printer(found, place)
    return found.silent


async def _count(everyone: Federation, query: str, level: FoundLevel) -> dict[str, str]:
    count, silent = await everyone.count(query, level)
    tell({"count": count}, str(count))
    return silent


async def _explain(everyone: Federation, query: str, level: FoundLevel) -> dict[str, str]:
    answers, silent = await everyone.ask_all(EXPLAIN_PATH, Explain(query, level), Explanation)
    for name, answer in answers.items():
        tell(
            {"hospital": name, "query": answer.query, "statement": answer.statement},
            f"{name}: {answer.query or 'everything'}\n{answer.statement}\n({_SHIFTED})",
        )
    return silent


async def _list_schema(everyone: Federation) -> dict[str, str]:
    answers, silent = await everyone.ask_all(SCHEMA_PATH, AskSchema(), SchemaTold)
    for name, kind, level in dict.fromkeys(one for answer in answers.values() for one in answer.attributes):
        tell({"name": name, "type": kind, "level": level}, f"{name:<24} {kind:<10} {level}")
    return silent
