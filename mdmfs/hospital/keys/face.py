"""The paths on which a hospital's own people see to its keys."""

from __future__ import annotations

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.keys.selection import Selection
from mdmfs.hospital.keys.tasks import Tasks
from mdmfs.hospital.own_people import for_own_people
from mdmfs.model.errors import MalformedMessageError, MalformedNameError
from mdmfs.model.names import Guid
from mdmfs.model.subject import SubjectId
from mdmfs.wire.messages.key_tasks import (
    KEYS_CERTIFY_PATH,
    KEYS_PATH,
    KEYS_PROGRESS_PATH,
    AskCertificates,
    AskKeyTask,
    StartKeyTask,
)
from mdmfs.wire.service import Reply, Request, Respond


def key_routes(hospital: Hospital, tasks: Tasks) -> dict[tuple[str, str], Respond]:
    """Give the routes; the hospital's own certificate is let in, and nobody else."""

    async def start(request: Request) -> Reply:
        asked = await request.read(StartKeyTask)
        return Reply(await tasks.start(asked.task, _parse_selection(asked)))

    async def progress(request: Request) -> Reply:
        await request.read(AskKeyTask)
        return Reply(tasks.progress())

    async def certify(request: Request) -> Reply:
        asked = await request.read(AskCertificates)
        return Reply(await tasks.certificates(asked.after))

    return {
        ("POST", KEYS_PATH): for_own_people(hospital, start),
        ("POST", KEYS_PROGRESS_PATH): for_own_people(hospital, progress),
        ("POST", KEYS_CERTIFY_PATH): for_own_people(hospital, certify),
    }


def _parse_selection(asked: StartKeyTask) -> Selection:
    try:
        guids = tuple(dict.fromkeys(map(Guid, asked.guids)))
        subject = SubjectId.parse(asked.subject) if asked.subject else None
    except MalformedNameError as error:
        raise MalformedMessageError(str(error)) from error
    if bool(guids) + bool(subject) + bool(asked.project) > 1:
        message = "a task is about some files, a subject or a project: name one of these"
        raise MalformedMessageError(message)
    return Selection(guids, subject, asked.project)
