"""The paths on which a hospital's own people see to its keys."""

from __future__ import annotations

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.keys.tasks import Tasks
from mdmfs.hospital.own_people import for_own_people
from mdmfs.model.errors import MalformedMessageError, MalformedNameError
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
        ("POST", KEYS_PATH): for_own_people(hospital, start),
        ("POST", KEYS_PROGRESS_PATH): for_own_people(hospital, progress),
    }


def _parse_guids(octets: list[bytes]) -> list[Guid]:
    try:
        return [Guid(each) for each in octets]
    except MalformedNameError as error:
        raise MalformedMessageError(str(error)) from error
