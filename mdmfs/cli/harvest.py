"""``mdmfs harvest``: tell the hospital's daemon to register what a project includes, and watch."""

from __future__ import annotations

import pathlib
import sys

import click
import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.wire.client import Client
from mdmfs.wire.messages import (
    HARVEST_PATH,
    HARVEST_PROGRESS_PATH,
    AskHarvest,
    HarvestProgress,
    StartHarvest,
)
from mdmfs.wire.peers import open_client

DEADLINE = 10.0
INTERVAL = 0.2
DEPOSIT_SECONDS = 30.0
"""How long the keystores are waited for; the daemon itself goes on for ever."""


@click.command()
@click.argument("configuration", type=click.Path(exists=True, dir_okay=False, path_type=pathlib.Path))
@click.argument("project")
def harvest(configuration: pathlib.Path, project: str) -> None:
    """Register the images that PROJECT includes and that are not registered yet.

    CONFIGURATION is the hospital's; its daemon must run. Stopping this command does not stop the harvest.
    """
    outcome = trio.run(harvest_project, HospitalConfiguration.read(configuration), project)
    counts = f"{outcome.registered} registered, {outcome.known} known before, {outcome.refused} refused"
    click.echo(f"{project}: {outcome.series_done} series, {counts}")
    for failure in outcome.failures:
        click.echo(f"  not registered: {failure}", err=True)
    if outcome.depositing:
        click.echo(f"  {outcome.depositing} series appear when enough keystores have their shares", err=True)
    sys.exit(1 if outcome.failures else 0)


async def harvest_project(configuration: HospitalConfiguration, project: str) -> HarvestProgress:
    """Start a harvest or find the one under way, draw its progress, and give its end."""
    credential = configuration.credential
    address = str(configuration.public)
    client = open_client(address, str(credential.subject()), credential, configuration.anchors)
    try:
        with _bar() as bar:
            return await _watch(client, project, bar)
    finally:
        await client.aclose()


async def _watch(client: Client, project: str, bar: Progress) -> HarvestProgress:
    task = bar.add_task(f"registering {project}", total=None, octets=0.0)
    progress = await _ask(client, HARVEST_PATH, StartHarvest(project))
    patience = trio.current_time() + DEPOSIT_SECONDS
    while not progress.is_over or (progress.depositing and trio.current_time() < patience):
        if not progress.is_over:
            patience = trio.current_time() + DEPOSIT_SECONDS
        total = progress.instances_found or None
        bar.update(task, completed=progress.instances_done, total=total, octets=progress.octets / 2**20)
        await trio.sleep(INTERVAL)
        progress = await _ask(client, HARVEST_PROGRESS_PATH, AskHarvest(project))
    done = progress.instances_done
    bar.update(task, completed=done, total=done, octets=progress.octets / 2**20)
    return progress


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[octets]:.0f} MiB"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


async def _ask(client: Client, path: str, message: StartHarvest | AskHarvest) -> HarvestProgress:
    return await client.call(path, message, HarvestProgress, deadline=trio.current_time() + DEADLINE)
