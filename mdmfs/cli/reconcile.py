"""``mdmfs reconcile``: compare what is registered with the PACSs."""

from __future__ import annotations

import pathlib
import sys

import click
import trio
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from mdmfs.cli.arguments import FILE
from mdmfs.cli.hospital import INTERVAL, ask, asking
from mdmfs.cli.output import open_bar, tell
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.wire.messages.administration import (
    RECONCILE_PATH,
    RECONCILE_PROGRESS_PATH,
    AskReconciliation,
    ReconciliationProgress,
    StartReconciliation,
)

_TOLD = ("series_done", "lost", "found", "changed", "moved", "restored", "new", "failures")


@click.command()
@click.argument("configuration", type=FILE)
@click.argument("project")
@click.option("--deep", "is_deep", is_flag=True, help="Fetch every image again and compare its bytes.")
def reconcile(configuration: pathlib.Path, project: str, *, is_deep: bool) -> None:
    """Compare what is registered of PROJECT with its PACSs: what is gone, changed, new, or another patient's.

    CONFIGURATION is the hospital's; its daemon must run, and does this once a day by itself.
    """
    start = StartReconciliation(project, is_deep)
    found = trio.run(reconcile_project, HospitalConfiguration.read(configuration), start)
    counts = f"{found.lost} images newly lost, {found.found} found again, {found.changed} changed"
    lines = [f"{project}: {found.series_done} series; {counts}, {found.new} not registered"]
    if found.moved or found.restored:
        lines.append(f"  {found.moved} series put away as another patient's, {found.restored} shown again")
    told = {name: getattr(found, name) for name in _TOLD}
    tell({"project": project} | told, *lines, notes=[f"  not compared: {failure}" for failure in found.failures])
    sys.exit(1 if found.failures else 0)


async def reconcile_project(configuration: HospitalConfiguration, start: StartReconciliation) -> ReconciliationProgress:
    """Start a run or find the one under way, draw its progress, and give its end."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    async with asking(configuration) as client:
        with open_bar(*columns) as bar:
            drawn = bar.add_task(f"comparing {start.project}", total=None)
            found = await ask(client, RECONCILE_PATH, start, ReconciliationProgress)
            while not found.is_over:
                bar.update(drawn, completed=found.series_done, total=found.series or None)
                await trio.sleep(INTERVAL)
                question = AskReconciliation(start.project)
                found = await ask(client, RECONCILE_PROGRESS_PATH, question, ReconciliationProgress)
            bar.update(drawn, completed=found.series_done, total=found.series)
        return found
