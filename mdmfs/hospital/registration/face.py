"""The paths on which a hospital's own people have files rendered anew, or taken away for ever."""

from __future__ import annotations

import trio

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.keys.selection import Selection
from mdmfs.hospital.keys.tasks import Tasks
from mdmfs.hospital.own_people import for_own_people
from mdmfs.hospital.pages import PAGE
from mdmfs.hospital.registration.rerender import Rerenderings, old_files
from mdmfs.hospital.release.readers import readers_of
from mdmfs.model.errors import (
    MalformedMessageError,
    MalformedNameError,
    NoSuchFileError,
    UnknownNameError,
)
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.administration import (
    READERS_PATH,
    RERENDER_PATH,
    RERENDER_PROGRESS_PATH,
    WITHDRAW_PATH,
    AskReaders,
    AskRerender,
    Readers,
    StartRerender,
    StartWithdraw,
)
from mdmfs.wire.messages.key_tasks import KeyTask
from mdmfs.wire.service import Reply, Request, Respond


def renewal_routes(hospital: Hospital, runs: Rerenderings, tasks: Tasks) -> dict[tuple[str, str], Respond]:
    """Give the routes; the hospital's own certificate is let in, and nobody else."""

    async def start(request: Request) -> Reply:
        asked = await request.read(StartRerender)
        return Reply(runs.start(asked.project))

    async def progress(request: Request) -> Reply:
        await request.read(AskRerender)
        return Reply(runs.progress())

    async def withdraw(request: Request) -> Reply:
        asked = await request.read(StartWithdraw)
        guids = tuple(dict.fromkeys(_parse_guids(asked.guids)))
        selection = Selection(guids) if guids else Selection(below=Lfn.parse(asked.lfn))
        await _refuse_nothing(selection, hospital)
        return Reply(await tasks.start(KeyTask.DESTROY, selection))

    async def readers(request: Request) -> Reply:
        asked = await request.read(AskReaders)
        guids = {str(guid) for guid in await _asked_about(asked, hospital, tasks)}
        found = await trio.to_thread.run_sync(readers_of, hospital.audit.path, guids)
        return Reply(Readers(len(guids), found))

    return {
        ("POST", RERENDER_PATH): for_own_people(hospital, start),
        ("POST", RERENDER_PROGRESS_PATH): for_own_people(hospital, progress),
        ("POST", WITHDRAW_PATH): for_own_people(hospital, withdraw),
        ("POST", READERS_PATH): for_own_people(hospital, readers),
    }


async def _asked_about(asked: AskReaders, hospital: Hospital, tasks: Tasks) -> list[Guid]:
    if asked.guids:
        return _parse_guids(asked.guids)
    if not asked.project:
        return tasks.destroyed
    project = hospital.projects.get(asked.project)
    if project is None:
        message = f"there is no project {asked.project}"
        raise UnknownNameError(message)
    return await old_files(hospital, project)


async def _refuse_nothing(selection: Selection, hospital: Hospital) -> None:
    """Raise ``NoSuchFileError`` where there is nothing to withdraw."""
    for page in selection.pages(hospital.store, PAGE):
        if page:
            return
        await trio.lowlevel.checkpoint()
    message = f"nothing is left of {selection.below}; nothing was withdrawn"
    raise NoSuchFileError(message)


def _parse_guids(octets: list[bytes]) -> list[Guid]:
    try:
        return [Guid(each) for each in octets]
    except MalformedNameError as error:
        raise MalformedMessageError(str(error)) from error
