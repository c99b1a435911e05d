"""The paths on which a hospital's own people see to its keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.keys.tasks import Tasks
from mdmfs.model.errors import AccessDeniedError, MalformedMessageError, MalformedNameError
from mdmfs.model.names import Guid
from mdmfs.wire.messages import KEYS_PATH, KEYS_PROGRESS_PATH, AskKeyTask, StartKeyTask
from mdmfs.wire.service import Reply, Request, Respond


def key_routes(hospital: Hospital, tasks: Tasks) -> dict[tuple[str, str], Respond]:
    """Give the routes; the hospital's own certificate is let in, and nobody else."""

    async def start(request: Request) -> Reply:
        asked = await request.read(StartKeyTask)
        return Reply(tasks.start(asked.task, _parse_guids(asked.guids)))

    async def progress(request: Request) -> Reply:
        await request.read(AskKeyTask)
        return Reply(tasks.progress())

    return {
        ("POST", KEYS_PATH): _for_own_people(hospital, start),
        ("POST", KEYS_PROGRESS_PATH): _for_own_people(hospital, progress),
    }


def _for_own_people(hospital: Hospital, respond: Callable[[Request], Awaitable[Reply]]) -> Respond:
    async def respond_to_own(request: Request) -> Reply:
        if request.principal.dn != hospital.dn:
            message = f"{request.path} is for the hospital's own certificate only"
            raise AccessDeniedError(message)
        return await respond(request)

    return respond_to_own


def _parse_guids(octets: list[bytes]) -> list[Guid]:
    try:
        return [Guid(each) for each in octets]
    except MalformedNameError as error:
        raise MalformedMessageError(str(error)) from error
