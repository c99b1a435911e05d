"""``mdmfs stage``: bring files online before a job needs them, and watch, through renewed proxies and lost networks."""

from __future__ import annotations

import collections
import contextlib
import os
import pathlib
import re
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

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

from mdmfs.cli.arguments import FILE
from mdmfs.cli.find import PARTIAL, with_federation
from mdmfs.cli.mounted import AT, OF_HOSPITAL, Place, find_mount, find_place, read_alone
from mdmfs.cli.output import note, note_silence, open_bar, tell
from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.model.errors import (
    CredentialExpiredError,
    CredentialRefusedError,
    NoSuchFileError,
    PeerTimedOutError,
    PeerUnreachableError,
)
from mdmfs.model.names import Lfn
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.messages.metadata import FoundLevel
from mdmfs.worker.callers.credential import own_credential
from mdmfs.worker.callers.peers import Peers
from mdmfs.worker.configuration import MountConfiguration
from mdmfs.worker.finding.federation import Federation
from mdmfs.worker.hospital.remote import RemoteHospital
from mdmfs.worker.hospital.staging import MAX_FILES, Lists, RequestProgress, Stages, Submitted, files_below

DEADLINE: Final = 30.0
INTERVAL: Final = 0.5
LISTINGS: Final = 8
"""At once, of one hospital."""
FILES_A_SECOND: Final = 5000
"""How many files a question about progress may be about in a second, on average: large requests are asked for less."""
SHOWN_FAILURES: Final = 20
_QUERY: Final = re.compile(r"[\s=<>!]")
_PASSING: Final = (PeerUnreachableError, PeerTimedOutError, CredentialExpiredError, CredentialRefusedError)
"""What a watcher sits out: the request goes on at the hospital, and a new proxy is found by itself."""

_CONFIGURATION: Final = click.option(
    "--configuration",
    type=FILE,
    envvar="MDMFS_MOUNT_CONFIGURATION",
    help="A mount's: nothing need be mounted then, and a PATH is an LFN.",
)


class _Commands(click.Group):
    """Takes ``stage PATH|QUERY`` for ``stage start PATH|QUERY``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; what is none begins what ``start`` takes."""
        return super().resolve_command(ctx, args if args and args[0] in self.commands else ["start", *args])


@click.group(cls=_Commands, context_settings={"ignore_unknown_options": True})
def stage() -> None:
    """Bring files online at the hospital before they are needed. `stage PATH|QUERY` is `stage start PATH|QUERY`."""


@stage.command()
@click.argument("wanted", nargs=-1, required=True, metavar="PATH|QUERY...")
@click.option("--wait", is_flag=True, help="Watch until all is staged: the default.")
@click.option("--detach", is_flag=True, help="Return at once; the request goes on.")
@click.option("--lifetime", default="", help="How long it stays, as P2D or PT12H. Default: a day; at most a week.")
@click.option("--to", default="", metavar="SE", help="Put replicas at this storage element of the hospital.")
@click.option("--images", is_flag=True, help="A QUERY means images, not whole series.")
@AT
@_CONFIGURATION
def start(  # noqa: PLR0913 the options of a command
    wanted: tuple[str, ...],
    configuration: pathlib.Path | None,
    lifetime: str,
    to: str,
    at: str,
    *,
    wait: bool,
    detach: bool,
    images: bool,
) -> None:
    """Stage each PATH, a file or all below a directory on a mount, and what each QUERY of mdmfs find finds.

    Prints the ids of the requests. Stopping the command stops no request; `stage status ID --wait` watches it again. 1
    if a file failed, 3 if a hospital could not be asked a QUERY. A PATH that looks like a query begins with ./

    Example: mdmfs stage 'Modality == "MR" and Age >= 60' --at ~/grid
    """
    if wait and detach:
        message = "either --wait or --detach"
        raise click.UsageError(message)
    if to and lifetime:
        message = "--lifetime is for what stays at the hospital: for how long replicas stay, their project says"
        raise click.UsageError(message)
    queries = [text for text in wanted if is_query(text)]
    places = [find_place(text, configuration) for text in wanted if text not in queries]
    asked: Asked | None = None
    if queries:
        place = find_mount(at, configuration)
        asked = Asked(place, tuple(queries), FoundLevel.IMAGE if images else FoundLevel.SERIES)
    sys.exit(trio.run(_start, places, asked, Staying(lifetime, to), not detach))


@stage.command()
@click.argument("request", required=False)
@click.option("--wait", is_flag=True, help="Watch until all is staged.")
@_CONFIGURATION
@AT
@OF_HOSPITAL
def status(request: str | None, configuration: pathlib.Path | None, at: str, hospital: str, *, wait: bool) -> None:
    """Tell how far REQUEST is, or list all requests. 1 if a file of REQUEST failed."""
    sys.exit(trio.run(_status, _alone(configuration, at, hospital), request, wait))


@stage.command()
@click.argument("request")
@_CONFIGURATION
@AT
@OF_HOSPITAL
def cancel(request: str, configuration: pathlib.Path | None, at: str, hospital: str) -> None:
    """Give up what is not staged yet of REQUEST."""
    trio.run(_wish, _alone(configuration, at, hospital), request, "cancel")


@stage.command()
@click.argument("request")
@_CONFIGURATION
@AT
@OF_HOSPITAL
def release(request: str, configuration: pathlib.Path | None, at: str, hospital: str) -> None:
    """Let what REQUEST has staged make room for others again."""
    trio.run(_wish, _alone(configuration, at, hospital), request, "release")


def _alone(configuration: pathlib.Path | None, at: str, hospital: str) -> MountConfiguration:
    """Read a mount's configuration for one hospital of it; without one, that of the mount which ``at`` is on."""
    return read_alone(configuration or pathlib.Path(find_place(at, None).whole.file), hospital)


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


def is_query(text: str) -> bool:
    """Tell a query from a path: it has blanks or signs of comparison, and names nothing that is there."""
    is_path = text.startswith(("/", "./", "../", "~")) or os.path.lexists(text)
    return not is_path and _QUERY.search(text) is not None


class Name(NamedTuple):
    """What is to be staged."""

    lfn: Lfn
    is_found: bool = False
    """By a query: it may have gone since."""


class Asked(NamedTuple):
    """What is to be found before it is staged."""

    place: Place
    queries: tuple[str, ...]
    level: FoundLevel


class Staying(NamedTuple):
    """How what is staged stays."""

    lifetime: str = ""
    element: str = ""
    """The storage element where it is to be, if not at the hospital."""


async def _start(places: Sequence[Place], asked: Asked | None, staying: Staying, is_watched: bool) -> int:  # noqa: FBT001
    """Stage at each hospital what is there of it, at all of them at once."""
    wanted = [(place.configuration, Name(place.lfn)) for place in places]
    silent: dict[str, str] = {}
    if asked is not None:
        found, silent = await _find(asked)
        wanted += [(configuration, Name(lfn, is_found=True)) for configuration, lfn in found]
    by_address: dict[str, list[tuple[MountConfiguration, Name]]] = {}
    for one in wanted:
        by_address.setdefault(one[0].hospital.address, []).append(one)
    status = 0
    async with contextlib.AsyncExitStack() as stack:
        watched = []
        for address, ours in by_address.items():
            stages, hospital = await stack.enter_async_context(open_stages(ours[0][0]))
            requests = await _submit(stages, hospital, [name for _, name in ours], staying)
            watched.append(Watched(address, stages, requests))
        if is_watched:
            status = await watch(watched)
    note_silence(silent)
    return status or (PARTIAL if silent else 0)


async def _find(asked: Asked) -> tuple[list[tuple[MountConfiguration, Lfn]], dict[str, str]]:
    """Ask every hospital; gives what they have, and who did not answer. Raises where nothing is found."""
    found: dict[Lfn, MountConfiguration] = {}
    silent: dict[str, str] = {}

    async def ask(everyone: Federation) -> dict[str, str]:
        for query in asked.queries:
            async with everyone.finding(query, asked.level) as rows:
                async for row in rows:
                    lfn = Lfn.parse(row.path)
                    found[lfn] = asked.place.whole.of(lfn)
            silent.update(rows.silent)
        return silent

    await with_federation(asked.place, DEADLINE, ask)
    if not found:
        message = f"nothing that you may read is found by: {'; '.join(asked.queries)}"
        raise NoSuchFileError(message)
    return [(configuration, lfn) for lfn, configuration in found.items()], silent


async def _submit(stages: Stages, hospital: RemoteHospital, names: Sequence[Name], staying: Staying) -> list[str]:
    """Ask one hospital for all files below names; gives the ids of the requests."""
    every, requests = await paths_below(hospital, names), []
    for begin in range(0, len(every), MAX_FILES):
        submitted = await stages.submit(every[begin : begin + MAX_FILES], *staying)
        requests.append(submitted.request_id)
        tell_submitted(submitted, staying.lifetime)
    return requests


def tell_submitted(submitted: Submitted, lifetime: str) -> None:
    """Tell of a request that was made, and where it stays less long than was asked for."""
    granted = submitted.disk_lifetime
    is_cut = bool(lifetime and granted) and granted != lifetime
    notes = [f"  stays for {granted}, the longest that the hospital grants, not {lifetime}"] if is_cut else []
    tell({"request": submitted.request_id, "lifetime": granted}, submitted.request_id, notes=notes)


async def paths_below(hospital: Lists, names: Sequence[Name]) -> list[str]:
    """List the files below names, some at once; gives each path once, in the order of the names.

    Raises ``NoSuchFileError`` where there is none below a name that somebody typed.
    """
    found: dict[Lfn, list[str]] = {}
    waiting = collections.deque(names)

    async def list_waiting() -> None:
        while waiting:
            name = waiting.popleft()
            found[name.lfn] = await _below(hospital, name.lfn)
            if found[name.lfn]:
                continue
            if not name.is_found:
                message = f"there is no file below {name.lfn}"
                raise NoSuchFileError(message)
            note(f"mdmfs: {name.lfn} has gone since it was found", path=str(name.lfn))

    async with open_plain_nursery() as nursery:
        for _ in range(min(LISTINGS, len(waiting))):
            nursery.start_soon(list_waiting)
    return list(dict.fromkeys(path for name in names for path in found[name.lfn]))


async def _below(hospital: Lists, lfn: Lfn) -> list[str]:
    try:
        return [file.path for file in await files_below(hospital, lfn)]
    except NoSuchFileError:
        return []


async def _status(configuration: MountConfiguration, request: str | None, wait: bool) -> int:  # noqa: FBT001 as typed
    async with open_stages(configuration) as (stages, _):
        if request is None:
            for one in await stages.requests():
                told = {"request": one.id, "files": one.count, "left": one.left, "created_at": one.created_at}
                tell(told, f"{one.id}  {one.count - one.left} of {one.count} files")
            return 0
        if wait:
            return await watch([Watched(configuration.hospital.address, stages, [request])])
        return tell_progress(await stages.progress(request))


async def _wish(configuration: MountConfiguration, request: str, wish: str) -> None:
    async with open_stages(configuration) as (stages, _):
        await (stages.cancel(request) if wish == "cancel" else stages.release(request))
        tell_progress(await stages.progress(request))


def tell_progress(progress: RequestProgress) -> int:
    """Tell how far a request is, and what failed; gives the exit code."""
    counts = collections.Counter(file.state for file in progress.files)
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


class Watched(NamedTuple):
    """Requests at one hospital."""

    name: str
    stages: Stages
    requests: Sequence[str]


async def watch(watched: Sequence[Watched]) -> int:
    """Draw a bar for each hospital until all is over; what hinders it is told and sat out. Gives the exit code."""
    ended: dict[str, list[RequestProgress]] = {}
    with _bar() as bar:
        async with open_plain_nursery() as nursery:
            for one in watched:
                nursery.start_soon(_watch_one, one, bar, ended)
    return max([tell_progress(progress) for one in watched for progress in ended[one.name]], default=0)


async def _watch_one(watched: Watched, bar: Progress, ended: dict[str, list[RequestProgress]]) -> None:
    """Watch all requests at a hospital: rate and estimate are for all of them."""
    task = bar.add_task(watched.name, total=None, files="", note="")
    known: dict[str, RequestProgress] = {}
    while True:
        left = [it for it in watched.requests if it not in known or not known[it].is_over]
        if not left:
            break
        try:
            for request in left:
                known[request] = await watched.stages.progress(request)
        except _PASSING as error:
            bar.update(task, note=str(error))
            await trio.sleep(INTERVAL)
            continue
        if len(known) == len(watched.requests):
            _draw(bar, task, list(known.values()))
        if not all(progress.is_over for progress in known.values()):
            await trio.sleep(max(INTERVAL, sum(len(known[it].files) for it in left) / FILES_A_SECOND))
    ended[watched.name] = [known[it] for it in watched.requests]


def _draw(bar: Progress, task: TaskID, known: Sequence[RequestProgress]) -> None:
    files = [file for progress in known for file in progress.files]
    bar.update(
        task,
        completed=sum(file.size for file in files if file.state == "COMPLETED"),
        total=sum(file.size for file in files if file.state not in {"FAILED", "CANCELLED"}) or 1,
        files=f"{sum(file.is_over for file in files)}/{len(files)} files",
        note=next((progress.reason for progress in known if progress.reason), ""),
    )


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
