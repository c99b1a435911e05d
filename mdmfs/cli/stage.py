"""``mdmfs stage``: bring files online before a job needs them, and watch, through renewed proxies and lost networks."""

from __future__ import annotations

import contextlib
import pathlib
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Final

import click
import trio
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from mdmfs.cli.mounted import Place, find_place, read_alone
from mdmfs.cli.output import open_bar, tell
from mdmfs.model.errors import (
    CredentialExpiredError,
    CredentialRefusedError,
    NoSuchFileError,
    PeerTimedOutError,
    PeerUnreachableError,
)
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.nursery import open_plain_nursery
from mdmfs.worker.callers.credential import own_credential
from mdmfs.worker.callers.peers import Peers
from mdmfs.worker.configuration import MountConfiguration
from mdmfs.worker.hospital import RemoteHospital
from mdmfs.worker.staging import MAX_FILES, RequestProgress, Stages, files_below

DEADLINE: Final = 30.0
INTERVAL: Final = 0.5
FILES_A_SECOND: Final = 5000
"""How many files a question about progress may be about in a second, on average: large requests are asked for less."""
SHOWN_FAILURES: Final = 20
_PASSING: Final = (PeerUnreachableError, PeerTimedOutError, CredentialExpiredError, CredentialRefusedError)
"""What a watcher sits out: the request goes on at the hospital, and a new proxy is found by itself."""

_CONFIGURATION: Final = click.option(
    "--configuration",
    type=click.Path(exists=True, dir_okay=False, path_type=pathlib.Path),
    envvar="MDMFS_MOUNT_CONFIGURATION",
    help="A mount's; PATH is an LFN then, and nothing need be mounted.",
)
_NEEDED: Final = click.option(
    "--configuration",
    type=click.Path(exists=True, dir_okay=False, path_type=pathlib.Path),
    envvar="MDMFS_MOUNT_CONFIGURATION",
    required=True,
    help="A mount's: which hospital, whose proxy.",
)


_HOSPITAL: Final = click.option("--hospital", default="", help="Its name, where the mount joins several.")


class _Commands(click.Group):
    """Takes ``stage PATH`` for ``stage start PATH``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; what is none begins what ``start`` takes."""
        return super().resolve_command(ctx, args if args and args[0] in self.commands else ["start", *args])


@click.group(cls=_Commands, context_settings={"ignore_unknown_options": True})
def stage() -> None:
    """Bring files online at the hospital before they are needed. `stage PATH` is `stage start PATH`."""


@stage.command()
@click.argument("path", nargs=-1, required=True)
@click.option("--wait", is_flag=True, help="Watch until all is staged: the default.")
@click.option("--detach", is_flag=True, help="Return at once; the request goes on.")
@click.option("--lifetime", default="", help="How long it stays, as P2D or PT12H. Default: a day; at most a week.")
@_CONFIGURATION
def start(
    path: tuple[str, ...], configuration: pathlib.Path | None, lifetime: str, *, wait: bool, detach: bool
) -> None:
    """Stage each PATH, a file or all below a directory, on a mount. Prints the ids of the requests.

    Stopping the command stops no request; `stage status ID --wait` watches it again. 1 if a file failed.
    """
    if wait and detach:
        message = "either --wait or --detach"
        raise click.UsageError(message)
    places = [find_place(one, configuration) for one in path]
    sys.exit(max(trio.run(_start, place, lifetime, not detach) for place in places))


@stage.command()
@click.argument("request", required=False)
@click.option("--wait", is_flag=True, help="Watch until all is staged.")
@_NEEDED
@_HOSPITAL
def status(request: str | None, configuration: pathlib.Path, hospital: str, *, wait: bool) -> None:
    """Tell how far REQUEST is, or list all requests. 1 if a file of REQUEST failed."""
    sys.exit(trio.run(_status, read_alone(configuration, hospital), request, wait))


@stage.command()
@click.argument("request")
@_NEEDED
@_HOSPITAL
def cancel(request: str, configuration: pathlib.Path, hospital: str) -> None:
    """Give up what is not staged yet of REQUEST."""
    trio.run(_wish, read_alone(configuration, hospital), request, "cancel")


@stage.command()
@click.argument("request")
@_NEEDED
@_HOSPITAL
def release(request: str, configuration: pathlib.Path, hospital: str) -> None:
    """Let what REQUEST has staged make room for others again."""
    trio.run(_wish, read_alone(configuration, hospital), request, "release")


@contextlib.asynccontextmanager
async def open_stages(configuration: MountConfiguration) -> AsyncIterator[tuple[Stages, RemoteHospital]]:
    """Reach a mount's hospital as the caller, with the proxy of the moment."""
    anchors = TrustAnchors(configuration.path(configuration.trust))
    async with open_plain_nursery() as nursery:
        credential = own_credential(configuration)
        peers = Peers(configuration.hospital, configuration.keystores, credential, anchors, nursery)
        yield Stages(peers.hospital, deadline=DEADLINE), RemoteHospital(peers.hospital, deadline=DEADLINE)
        await peers.aclose()
        nursery.cancel_scope.cancel()


async def _start(place: Place, lifetime: str, wait: bool) -> int:  # noqa: FBT001 as typed
    async with open_stages(place.configuration) as (stages, hospital):
        paths = [found.path for found in await files_below(hospital, place.lfn)]
        if not paths:
            message = f"there is no file below {place.lfn}"
            raise NoSuchFileError(message)
        requests = []
        for begin in range(0, len(paths), MAX_FILES):
            requests.append(await stages.submit(paths[begin : begin + MAX_FILES], lifetime))
            tell({"request": requests[-1]}, requests[-1])
        return await watch(stages, requests, place.configuration.hospital.address) if wait else 0


async def _status(configuration: MountConfiguration, request: str | None, wait: bool) -> int:  # noqa: FBT001 as typed
    async with open_stages(configuration) as (stages, _):
        if request is None:
            for one in await stages.requests():
                told = {"request": one.id, "files": one.count, "left": one.left, "created_at": one.created_at}
                tell(told, f"{one.id}  {one.count - one.left} of {one.count} files")
            return 0
        if wait:
            return await watch(stages, [request], configuration.hospital.address)
        return tell_progress(await stages.progress(request))


async def _wish(configuration: MountConfiguration, request: str, wish: str) -> None:
    async with open_stages(configuration) as (stages, _):
        await (stages.cancel(request) if wish == "cancel" else stages.release(request))
        tell_progress(await stages.progress(request))


def tell_progress(progress: RequestProgress) -> int:
    """Tell how far a request is, and what failed; gives the exit code."""
    counts = Counter(file.state for file in progress.files)
    states = ", ".join(f"{count} {state.lower()}" for state, count in sorted(counts.items()))
    on_disk = sum(file.on_disk for file in progress.files)
    failed = [file for file in progress.files if file.state == "FAILED"]
    told = {
        "request": progress.id,
        "files": len(progress.files),
        "states": counts,
        "on_disk": on_disk,
        "reason": progress.reason,
        "failed": {file.path: file.error for file in failed},
    }
    notes = [f"  waits: {progress.reason}"] if progress.reason else []
    notes += [f"  {file.path}: {file.error}" for file in failed[:SHOWN_FAILURES]]
    if len(failed) > SHOWN_FAILURES:
        notes.append(f"  and {len(failed) - SHOWN_FAILURES} more")
    tell(told, f"{progress.id}: {states}; {on_disk} of {len(progress.files)} staged now", notes=notes)
    return 1 if failed else 0


async def watch(stages: Stages, requests: Sequence[str], name: str) -> int:
    """Draw a bar until requests are over; what hinders it is told and sat out. Gives the exit code."""
    with _bar() as bar:
        task = bar.add_task(name, total=None, files="", note="")
        ended = [await _watch_one(stages, request, bar, task, requests) for request in requests]
    return max(tell_progress(progress) for progress in ended)


async def _watch_one(
    stages: Stages, request: str, bar: Progress, task: TaskID, requests: Sequence[str]
) -> RequestProgress:
    while True:
        try:
            progress = await stages.progress(request)
        except _PASSING as error:
            bar.update(task, note=str(error))
            await trio.sleep(INTERVAL)
            continue
        done = [file for file in progress.files if file.is_over]
        staged = [file.size for file in done if file.state == "COMPLETED"]
        number = f" of request {requests.index(request) + 1}/{len(requests)}" if len(requests) > 1 else ""
        bar.update(
            task,
            completed=sum(staged),
            total=sum(file.size for file in progress.files if file.state not in {"FAILED", "CANCELLED"}) or 1,
            files=f"{len(done)}/{len(progress.files)} files{number}",
            note=progress.reason,
        )
        if len(done) == len(progress.files):
            return progress
        await trio.sleep(max(INTERVAL, len(progress.files) / FILES_A_SECOND))


def _bar() -> Progress:
    return open_bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[files]}"),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
