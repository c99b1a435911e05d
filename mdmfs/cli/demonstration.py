"""``mdmfs demo``: a hospital, keystores, a metadata service and a mount on this machine, on synthetic patients."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

import click
import trio
from rich.console import Console
from rich.table import Table

from mdmfs.cli.arguments import FILE
from mdmfs.cli.harvest import harvest_project
from mdmfs.cli.output import is_json, note, tell
from mdmfs.demo.checks import Result, check
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import PROJECT, READER, Site, fill_pacs, make_site, mountpoint_of
from mdmfs.demo.view import in_text, sheet, tiles_below
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.model.errors import using

WIDE = 160
"""Columns of the table of promises where no terminal says how many there are."""
VIEWERS = ("aeskulap", "weasis", "amide")
"""Those first that show the series when they start."""
ONE_FILE = "amide"
"""Takes each file that it is given for a series, and finds the rest of one by itself."""
MAX_LINES = 40
DEADLINE = 60.0
CHECK_DEADLINE = 5.0


@click.command()
@click.option("--state", type=click.Path(file_okay=False, path_type=pathlib.Path), default=".demo", show_default=True)
@click.option(
    "--mount", type=click.Path(file_okay=False, path_type=pathlib.Path), help="Default: grid/medical in --state."
)
@click.option("--pacs", default="", metavar="AET@HOST:PORT", help="A real PACS in place of ours.")
@click.option(
    "--inclusion",
    type=FILE,
    help="With --pacs: whose images; lines 'patient ID^^^ISSUER' or 'study UID'.",
)
@click.option("--viewer", "has_viewer", is_flag=True, help="Open a series in a viewer; without one, or a screen, here.")
@click.option("--check", "is_check", is_flag=True, help="Try everything that mdmfs promises, print a table, and end.")
def demo(
    state: pathlib.Path, mount: pathlib.Path | None, pacs: str, inclusion: pathlib.Path | None, **flags: bool
) -> None:
    """Show mdmfs at work: a PACS, a hospital, keystores, a metadata service and a mount, until Ctrl-C.

    Example: mdmfs demo --viewer
    """
    is_check = flags["is_check"]
    # SIGINT too: a shell that starts us in the background lets us ignore it
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    mountpoint = (mount or mountpoint_of(state, READER)).absolute()
    seconds = CHECK_DEADLINE if is_check else DEADLINE
    with using(state):
        site = make_site(state.absolute(), pacs=pacs, inclusion=inclusion, deadline=seconds)
    status = 0
    with contextlib.suppress(KeyboardInterrupt), running(site) as processes, contextlib.ExitStack() as stack:
        _start(site, processes, has_own_pacs=not pacs)
        processes.start_mount(READER, mountpoint)
        if is_check:
            status = _tell_results(check(site, processes, mountpoint, has_own_pacs=not pacs))
        else:
            _show(mountpoint)
            if flags["has_viewer"]:
                stack.enter_context(_viewing(mountpoint))
            tell({"ready": mountpoint}, f"ready: {mountpoint}")
            for name, typed in processes.ended():
                note(f"{name} has ended, its log is in {site.logs}; all others go on. To start it again:\n  {typed}")
            status = 1
    note("stopped; nothing is left running")
    sys.exit(status)


def _tell_results(results: Sequence[Result]) -> int:
    """Draw what came of the trials; gives the exit code."""
    table = Table("", "promise", "seen", "seconds")
    for result in results:
        if is_json():
            tell(dataclasses.asdict(result))
        table.add_row("ok" if result.is_met else "BROKEN", result.claim, result.detail, f"{result.seconds:.1f}")
    if not is_json():
        Console(width=None if sys.stdout.isatty() else WIDE).print(table)
    return 0 if all(result.is_met for result in results) else 1


def _start(site: Site, processes: Processes, *, has_own_pacs: bool) -> None:
    if has_own_pacs:
        note("filling a PACS with synthetic patients")
        fill_pacs(site)
        processes.start_pacs()
    processes.start_keystores()
    processes.start_metadata()
    processes.start_hospital()
    _register(site)


def _register(site: Site) -> None:
    progress = trio.run(harvest_project, HospitalConfiguration.read(site.hospital_file), PROJECT)
    note(f"registered {progress.registered} images; refused by the policy: {progress.refused}")
    for failure in progress.failures:
        note(f"  not registered: {failure}")


def _show(mountpoint: pathlib.Path) -> None:
    """Print the tree, shortened where a series is long."""
    lines = [f"{path.relative_to(mountpoint)}" for path in sorted(mountpoint.rglob("*")) if path.is_file()]
    by_series: dict[str, list[str]] = {}
    for line in lines:
        series, _, name = line.rpartition("/")
        by_series.setdefault(series, []).append(name)
    for series, names in list(by_series.items())[:MAX_LINES]:
        more = f" ... {names[-1]} ({len(names)} images)" if len(names) > 1 else ""
        tell({"series": series, "images": len(names)}, f"{series}/  {names[0]}{more}")


@contextlib.contextmanager
def _viewing(mountpoint: pathlib.Path) -> Iterator[None]:
    """Open the longest series in a viewer of Debian's; where there is none, or no screen, draw it in the terminal.

    The viewer ends with the block: it has files of the mount open.
    """
    files = sorted(mountpoint.rglob("*.dcm"))
    series = max({file.parent for file in files}, key=lambda each: sum(file.parent == each for file in files))
    viewer = next(filter(None, map(shutil.which, VIEWERS)), None)
    if viewer and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        images = [str(file) for file in files if file.parent == series]
        quiet = subprocess.DEVNULL
        typed = [viewer, *(images[:1] if viewer.endswith(ONE_FILE) else images)]
        with subprocess.Popen(typed, stdin=quiet, stdout=quiet, stderr=quiet) as process:  # noqa: S603 of Debian's
            try:
                yield
            finally:
                process.terminate()
        return
    reason = "there is no screen" if viewer else f"none of {', '.join(VIEWERS)} is installed"
    if not is_json():
        note(f"{reason}: here is a contact sheet of {series}, as of mdmfs view")
        note(in_text(sheet(tiles_below(series)), sys.stderr))
    yield


def _interrupt(number: int, _: object) -> None:
    """Let SIGTERM and a closed terminal end the demonstration as Ctrl-C does."""
    raise KeyboardInterrupt(signal.Signals(number).name)
