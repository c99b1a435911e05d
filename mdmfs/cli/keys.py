"""``mdmfs keys``: tell the hospital's daemon to verify, repair, split anew, rotate or destroy keys, and watch."""

from __future__ import annotations

import functools
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import click
import trio
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from mdmfs.cli.arguments import FILE, parsed
from mdmfs.cli.certificates import gather_certificates
from mdmfs.cli.hospital import INTERVAL, ask, asking
from mdmfs.cli.output import fail, note, open_bar, tell
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.model.names import Guid
from mdmfs.model.subject import SubjectId
from mdmfs.wire.client import Client
from mdmfs.wire.messages.key_tasks import KEYS_PATH, KEYS_PROGRESS_PATH, AskKeyTask, KeyProgress, KeyTask, StartKeyTask
from mdmfs.wire.messages.message import MAX_BATCH

DELIVERY_SECONDS = 30.0
"""How long keystores are waited for at the end; the daemon itself goes on for ever."""

_SELECTION = (
    click.option("--guid", "guids", multiple=True, help="Only this file; may be given again and again."),
    click.option("--subject", default="", help="Only the files of this subject (sub-...)."),
    click.option("--project", default="", help="Only the files of this project."),
)


class _Selected(NamedTuple):
    """What a command is about."""

    guids: tuple[str, ...]
    subject: str
    project: str


def _selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say which files, as one argument."""

    @functools.wraps(command)
    def selected(*, guids: tuple[str, ...], subject: str, project: str, **others: object) -> None:
        if bool(guids) + bool(subject) + bool(project) > 1:
            message = "give --guid, --subject or --project, not several of these"
            raise click.UsageError(message)
        command(selected=_Selected(guids, subject, project), **others)

    for option in reversed(_SELECTION):
        selected = option(selected)
    return selected


@click.group()
def keys() -> None:
    """See to the keys of registered files. CONFIGURATION is the hospital's; its daemon must run."""


@keys.command()
@click.argument("configuration", type=FILE)
@click.option("--repair", "is_repair", is_flag=True, help="Give each keystore what it misses or has wrong.")
@_selecting
def verify(configuration: pathlib.Path, selected: _Selected, *, is_repair: bool) -> None:
    """Compare what every keystore holds with the catalogue; 1 if anything is missing, stale, wrong or surplus."""
    found = _run(configuration, KeyTask.REPAIR if is_repair else KeyTask.VERIFY, selected)
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(found.faults.items())) or "no fault"
    unsure = ", while a keystore that may have the rest does not answer" if found.lost and found.silent else ""
    lines = [f"{found.files_done} files: {faults}, {found.lost} without a key{unsure}"]
    if is_repair:
        lines.append(f"sent anew for {found.changed} files; {found.waiting} messages are still on their way")
    _tell(found, *lines)
    sys.exit(1 if found.faults or found.lost or found.silent else 0)


@keys.command()
@click.argument("configuration", type=FILE)
@_selecting
def resplit(configuration: pathlib.Path, selected: _Selected) -> None:
    """Split keys anew among the keystores that are configured now, after one was added, removed or replaced."""
    found = _run(configuration, KeyTask.RESPLIT, selected)
    _tell(found, f"{found.changed} of {found.files_done} keys split anew; {found.waiting} messages are on their way")
    sys.exit(1 if found.lost or found.silent else 0)


@keys.command()
@click.argument("configuration", type=FILE)
@_selecting
def rotate(configuration: pathlib.Path, selected: _Selected) -> None:
    """Make new keys, after a suspicion; what is sealed from now on opens with these alone. 1: a keystore is missing."""
    found = _run(configuration, KeyTask.ROTATE, selected)
    _tell(found, f"{found.changed} keys are new; {found.waiting} messages are on their way")
    sys.exit(1 if found.silent else 0)


@keys.command()
@click.argument("configuration", type=FILE)
@_selecting
def destroy(configuration: pathlib.Path, selected: _Selected) -> None:
    """Take files and their keys away for ever, and print in JSON what each keystore certifies; 1 while it is pending.

    A certificate tells when backups expire; until then these may hold shares, which a restored keystore destroys before
    it gives any. Copies that somebody has read are not recalled.
    """
    if not any(selected):
        message = "say which files: --guid, --subject or --project"
        raise click.UsageError(message)
    found = _run(configuration, KeyTask.DESTROY, selected)
    certificates, silent = trio.run(gather_certificates, HospitalConfiguration.read(configuration))
    told = {
        "files": found.changed,
        "state": "destroyed" if found.is_effective else "PENDING",
        "not_acknowledged_by": found.behind,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "certificates": certificates,
        "without_a_certificate": silent,
    }
    tell(told, json.dumps(told, indent=2))
    sys.exit(0 if found.is_effective else 1)


def _run(configuration: pathlib.Path, task: KeyTask, selected: _Selected) -> KeyProgress:
    named = [parsed(Guid.parse, guid).octets for guid in selected.guids]
    if len(named) > MAX_BATCH:
        message = f"at most {MAX_BATCH} files at once"
        raise click.UsageError(message)
    if selected.subject:
        parsed(SubjectId.parse, selected.subject)
    found = trio.run(run_task, HospitalConfiguration.read(configuration), StartKeyTask(task, named, *selected[1:]))
    for line in found.lines:
        note(f"  {line}")
    for name, reason in found.silent.items():
        note(f"  {name} does not take part: {reason}", keystore=name, reason=reason)
    if found.failure:
        fail(found.failure)
    return found


def _tell(found: KeyProgress, *lines: str) -> None:
    told = {
        "files": found.files_done,
        "faults": found.faults,
        "lost": found.lost,
        "changed": found.changed,
        "waiting": found.waiting,
        "silent": found.silent,
    }
    tell(told, *lines)


async def run_task(configuration: HospitalConfiguration, start: StartKeyTask) -> KeyProgress:
    """Start a task, draw its progress, wait a while for the keystores, and give its end."""
    async with asking(configuration) as client:
        return await watch_task(client, await ask(client, KEYS_PATH, start, KeyProgress))


async def watch_task(client: Client, found: KeyProgress) -> KeyProgress:
    """Draw the progress of the latest task, wait a while for the keystores, and give its end."""
    with open_bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        drawn = bar.add_task(found.task.value, total=None)
        patience = trio.current_time() + DELIVERY_SECONDS
        while not found.is_over or ((found.waiting or found.behind) and trio.current_time() < patience):
            if not found.is_over:
                patience = trio.current_time() + DELIVERY_SECONDS
            bar.update(drawn, completed=found.files_done, total=found.files or None)
            await trio.sleep(INTERVAL)
            found = await ask(client, KEYS_PROGRESS_PATH, AskKeyTask(), KeyProgress)
        bar.update(drawn, completed=found.files_done, total=found.files)
    return found
