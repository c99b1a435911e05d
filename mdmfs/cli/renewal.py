"""``mdmfs rerender`` and ``mdmfs withdraw``: files made anew under a new policy or engine, or taken away for ever."""

from __future__ import annotations

import json
import pathlib
import sys
import time

import click
import trio
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from mdmfs.cli.arguments import FILE, parsed
from mdmfs.cli.hospital import INTERVAL, ask, asking
from mdmfs.cli.keys import watch_task
from mdmfs.cli.output import fail, open_bar, tell
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.administration import (
    READERS_PATH,
    RERENDER_PATH,
    RERENDER_PROGRESS_PATH,
    WITHDRAW_PATH,
    AskReaders,
    AskRerender,
    Readers,
    RerenderProgress,
    StartRerender,
    StartWithdraw,
)
from mdmfs.wire.messages.key_tasks import KeyProgress
from mdmfs.wire.messages.message import MAX_BATCH

READING_SECONDS = 600.0
"""An audit log may be long, and so may what is left below a directory."""


@click.command()
@click.argument("configuration", type=FILE)
@click.option("--project", required=True, help="Whose files are made anew.")
def rerender(configuration: pathlib.Path, project: str) -> None:
    """Make anew what was registered or refused under another policy or engine, under its names.

    CONFIGURATION is the hospital's; its daemon must run. The files get new GUIDs, sizes and keys; the old keys are
    destroyed once the new files are shown. Printed, in JSON, is who had the old ones. Started again after a crash or a
    failure, it goes on; 1 while something is left.
    """
    found, had = trio.run(rerender_project, HospitalConfiguration.read(configuration), project)
    told = {
        "rendered": found.rendered,
        "refused": found.refused,
        "destroyed": found.destroyed,
        "left": found.left,
        "failures": found.failures,
        "old_files": had.files,
        "who_had_old_files": _told(had),
    }
    tell(told, json.dumps(told, indent=2))
    sys.exit(1 if found.failures or found.left else 0)


@click.command()
@click.argument("configuration", type=FILE)
@click.argument("lfn", required=False)
@click.option("--guid", "guids", multiple=True, help="A file; may be given again and again.")
def withdraw(configuration: pathlib.Path, lfn: str | None, guids: tuple[str, ...]) -> None:
    """Take the names, keys and staged copies of files away at once and for ever, and print who had them.

    LFN is a file, or a directory with all that is registered below it, shown or not. What is withdrawn is not
    registered again; what a reader has copied is not recalled. 1 while a keystore has not acknowledged.
    """
    if bool(lfn) == bool(guids) or len(guids) > MAX_BATCH:
        message = f"give either the name of a file or directory, or up to {MAX_BATCH} times --guid"
        raise click.UsageError(message)
    asked = StartWithdraw(
        str(parsed(Lfn.parse, lfn)) if lfn else "", [parsed(Guid.parse, guid).octets for guid in guids]
    )
    found, had = trio.run(withdraw_files, HospitalConfiguration.read(configuration), asked)
    if found.failure:
        fail(found.failure)
    told = {
        "files": found.changed,
        "state": "withdrawn" if found.is_effective else "PENDING",
        "not_acknowledged_by": found.behind,
        "who_had_them": _told(had),
    }
    tell(told, json.dumps(told, indent=2))
    sys.exit(0 if found.is_effective else 1)


async def rerender_project(configuration: HospitalConfiguration, project: str) -> tuple[RerenderProgress, Readers]:
    """Start a run or find the one under way, draw its progress, and give its end and who had the old files."""
    async with asking(configuration) as client:
        with open_bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()) as bar:
            drawn = bar.add_task(f"rendering {project} anew", total=None)
            found = await ask(client, RERENDER_PATH, StartRerender(project), RerenderProgress)
            while not found.is_over:
                bar.update(drawn, completed=found.series_done, total=found.series_found or None)
                await trio.sleep(INTERVAL)
                found = await ask(client, RERENDER_PROGRESS_PATH, AskRerender(), RerenderProgress)
            bar.update(drawn, completed=found.series_done, total=found.series_found)
        return found, await ask(client, READERS_PATH, AskReaders(project), Readers, READING_SECONDS)


async def withdraw_files(configuration: HospitalConfiguration, asked: StartWithdraw) -> tuple[KeyProgress, Readers]:
    """Withdraw, wait a while for the keystores, and give the end and who had the files."""
    async with asking(configuration) as client:
        found = await watch_task(client, await ask(client, WITHDRAW_PATH, asked, KeyProgress, READING_SECONDS))
        return found, await ask(client, READERS_PATH, AskReaders(), Readers, READING_SECONDS)


def _told(had: Readers) -> list[dict[str, object]]:
    return [
        {"dn": reader.dn, "files": reader.files, "first": _written(reader.first), "latest": _written(reader.latest)}
        for reader in had.readers
    ]


def _written(when: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
