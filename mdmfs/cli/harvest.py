"""``mdmfs harvest``: tell the hospital's daemon to register what a project includes, and watch."""

from __future__ import annotations

import functools
import pathlib
import sys
from collections.abc import Iterator

import click
import trio
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mdmfs.cli.arguments import FILE
from mdmfs.cli.hospital import INTERVAL, ask, asking
from mdmfs.cli.output import open_bar, tell
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.wire.client import Client
from mdmfs.wire.messages.administration import (
    HARVEST_PATH,
    HARVEST_PROGRESS_PATH,
    AskHarvest,
    HarvestProgress,
    StartHarvest,
)

DEPOSIT_SECONDS = 30.0
"""How long the keystores are waited for; the daemon itself goes on for ever."""
_TOLD = ("series_done", "registered", "known", "refused", "new", "foreign", "failures", "depositing")


@click.command()
@click.argument("configuration", type=FILE)
@click.argument("project")
@click.option("--pacs", default="", help="Only from this PACS of the project.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Only count what is new: nothing is fetched or changed.")
def harvest(configuration: pathlib.Path, project: str, pacs: str, *, is_dry: bool) -> None:
    """Register the images that PROJECT includes and that are not registered yet.

    CONFIGURATION is the hospital's; its daemon must run. Stopping this command does not stop the harvest.
    """
    outcome = trio.run(
        functools.partial(harvest_project, HospitalConfiguration.read(configuration), project, pacs=pacs, is_dry=is_dry)
    )
    counts = f"{outcome.registered} registered, {outcome.known} known before, {outcome.refused} refused"
    if is_dry:
        counts = f"{outcome.new} would be fetched, {outcome.known} known before; nothing was changed"
    told = {name: getattr(outcome, name) for name in _TOLD}
    tell(
        {"project": project} | told, f"{project}: {outcome.series_done} series, {counts}", notes=_notes(outcome, is_dry)
    )
    sys.exit(1 if outcome.failures else 0)


def _notes(outcome: HarvestProgress, is_dry: bool) -> Iterator[str]:  # noqa: FBT001 as typed
    if outcome.foreign:
        why = "opted out, or of another issuer than the list says (Issuer of Patient ID, else pacs.issuer)"
        yield f"  {outcome.foreign} series were left out: {why}"
    yield from (f"  not {'counted' if is_dry else 'registered'}: {failure}" for failure in outcome.failures)
    if outcome.depositing:
        yield f"  {outcome.depositing} series appear when enough keystores have their shares"


async def harvest_project(
    configuration: HospitalConfiguration, project: str, *, pacs: str = "", is_dry: bool = False
) -> HarvestProgress:
    """Start a harvest or find the one under way, draw its progress, and give its end."""
    async with asking(configuration) as client:
        with _bar() as bar:
            return await _watch(client, StartHarvest(project, pacs, is_dry), bar)


async def _watch(client: Client, start: StartHarvest, bar: Progress) -> HarvestProgress:
    what = "counting" if start.is_dry else "registering"
    task = bar.add_task(f"{what} {start.project}", total=None, octets=0.0, rate="")
    begun = trio.current_time()
    progress = await ask(client, HARVEST_PATH, start, HarvestProgress)
    patience = trio.current_time() + DEPOSIT_SECONDS
    while not progress.is_over or (progress.depositing and not start.is_dry and trio.current_time() < patience):
        if not progress.is_over:
            patience = trio.current_time() + DEPOSIT_SECONDS
            _draw(bar, task, progress, trio.current_time() - begun, progress.instances_found or None)
        question = AskHarvest(start.project, wait=INTERVAL / 2)
        progress = await ask(client, HARVEST_PROGRESS_PATH, question, HarvestProgress)
    _draw(bar, task, progress, trio.current_time() - begun, progress.instances_done)
    return progress


def _draw(bar: Progress, task: TaskID, progress: HarvestProgress, seconds: float, total: int | None) -> None:
    """Show how far it is, and the rate from the beginning on."""
    rate = f"{progress.octets / 2**20 / seconds:.0f} MiB/s" if progress.octets and seconds else ""
    done = progress.instances_done
    bar.update(task, completed=done, total=total, octets=progress.octets / 2**20, rate=rate)


def _bar() -> Progress:
    return open_bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[octets]:.0f} MiB {task.fields[rate]}"),
        TimeRemainingColumn(),
    )
