"""``mdmfs snapshot``: freeze what a query finds, as a directory of files that never become others."""

from __future__ import annotations

import datetime as dt
import pathlib
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NoReturn

import click
import trio

from mdmfs.cli.find import PARTIAL, with_federation
from mdmfs.cli.mounted import AT, CONFIGURATION_OF_MOUNT, Place, find_mount
from mdmfs.cli.output import note_silence, tell
from mdmfs.model.errors import MalformedMessageError, NoSuchFileError, PeerTimedOutError, again
from mdmfs.wire.messages.metadata import (
    DROP_SNAPSHOT_PATH,
    SNAPSHOT_PATH,
    SNAPSHOTS_PATH,
    AskSnapshots,
    CreateSnapshot,
    Dropped,
    DropSnapshot,
    Snapshot,
    Snapshots,
)
from mdmfs.worker.finding.federation import Federation, told_silence

NONCE_SIZE: Final = 16
DEADLINE: Final = 90.0
"""Seconds: a service may freeze for 60."""


@click.group()
def snapshot() -> None:
    """Freeze cohorts: MOUNTPOINT/.snapshots/NAME shows the files that a query found when it was made."""


@snapshot.command()
@click.argument("name")
@click.argument("query")
@click.option("--partial", "is_partial", is_flag=True, help="Also where a hospital does not answer.")
@AT
@CONFIGURATION_OF_MOUNT
def create(name: str, query: str, at: str, configuration: pathlib.Path | None, *, is_partial: bool) -> None:
    """Freeze all images of the series that QUERY finds, at every hospital, as the snapshot NAME."""
    place = find_mount(at, configuration)
    _end(place, lambda everyone: _create(everyone, name, query, is_partial=is_partial))


@snapshot.command(name="list")
@AT
@CONFIGURATION_OF_MOUNT
def list_all(at: str, configuration: pathlib.Path | None) -> None:
    """List the caller's own snapshots: time, files, files that cannot be read any more, name, hospital, query."""
    place = find_mount(at, configuration)
    _end(place, _list)


@snapshot.command()
@click.argument("name")
@AT
@CONFIGURATION_OF_MOUNT
def drop(name: str, at: str, configuration: pathlib.Path | None) -> None:
    """Forget the snapshot NAME at every hospital; no image is touched."""
    place = find_mount(at, configuration)
    _end(place, lambda everyone: _drop(everyone, name))


async def create_everywhere(
    everyone: Federation, name: str, query: str, *, is_partial: bool
) -> tuple[Mapping[str, Snapshot], Mapping[str, str]]:
    """Freeze at all hospitals; gives the parts, and who did not answer and why.

    Where one does not answer, the parts of the others are dropped again and ``PeerTimedOutError`` is raised, unless
    ``is_partial``.
    """
    question = CreateSnapshot(name, query, secrets.token_bytes(NONCE_SIZE))
    parts, failures = await everyone.ask(SNAPSHOT_PATH, question, Snapshot)
    silent = {hospital: str(error) for hospital, error in failures.items()}
    if silent and not (parts and is_partial):
        await everyone.ask(DROP_SNAPSHOT_PATH, DropSnapshot(name), Dropped, only=parts)
        refusals = [error for error in failures.values() if isinstance(error, MalformedMessageError)]
        if refusals:
            raise again(refusals[0])
        told = "; ".join(f"{hospital}: {reason}" for hospital, reason in silent.items())
        message = f"no snapshot was made, since not every hospital did its part; {told}"
        raise PeerTimedOutError(message, what_to_do="try again; --partial makes one of those that did")
    return parts, silent


async def _create(everyone: Federation, name: str, query: str, *, is_partial: bool) -> Mapping[str, str]:
    parts, silent = await create_everywhere(everyone, name, query, is_partial=is_partial)
    for hospital, part in sorted(parts.items()):
        tell(_object(hospital, part), _line(hospital, part))
    return silent


async def _list(everyone: Federation) -> Mapping[str, str]:
    answers, silent = await everyone.ask_all(SNAPSHOTS_PATH, AskSnapshots(), Snapshots)
    found = [(one.name, hospital, one) for hospital, answer in answers.items() for one in answer.snapshots]
    for _, hospital, one in sorted(found, key=lambda each: each[:2]):
        tell(_object(hospital, one), _line(hospital, one))
    return silent


async def _drop(everyone: Federation, name: str) -> Mapping[str, str]:
    dropped, silent = await drop_everywhere(everyone, name)
    tell({"name": name, "dropped_at": dropped})
    return silent


async def drop_everywhere(everyone: Federation, name: str) -> tuple[list[str], Mapping[str, str]]:
    """Drop the parts of all hospitals; gives where there was one, and who did not answer and why.

    Raises ``NoSuchFileError`` where all have answered that there was none, and ``PeerTimedOutError`` where none has.
    """
    answers, silent = await everyone.ask_all(DROP_SNAPSHOT_PATH, DropSnapshot(name), Dropped)
    if not answers:
        raise told_silence(silent)
    dropped = sorted(hospital for hospital, answer in answers.items() if answer.was_there)
    if not dropped and not silent:
        message = f"there is no snapshot {name} of this identity"
        raise NoSuchFileError(message, what_to_do="mdmfs snapshot list names those that there are")
    return dropped, silent


def _object(hospital: str, one: Snapshot) -> dict[str, object]:
    counts = {"files": one.files, "gone": one.gone}
    return {"name": one.name, "hospital": hospital, "created": _when(one), **counts, "query": one.query}


def _when(one: Snapshot) -> str:
    return dt.datetime.fromtimestamp(one.created, dt.UTC).isoformat(timespec="seconds")


def _line(hospital: str, one: Snapshot) -> str:
    return (
        f"{_when(one)}  {one.files:>8} files  {one.gone:>8} gone  {one.name}  {hospital}  {one.query or 'everything'}"
    )


def _end(place: Place, act: Callable[[Federation], Awaitable[Mapping[str, str]]]) -> NoReturn:
    silent = trio.run(with_federation, place, DEADLINE, act)
    note_silence(silent)
    sys.exit(PARTIAL if silent else 0)
