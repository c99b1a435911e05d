"""The guard before what a hospital's own people may ask: its own certificate passes, and nobody else's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mdmfs.hospital.hospital import Hospital
from mdmfs.model.errors import AccessDeniedError
from mdmfs.wire.service import Answer, Request, Respond


def for_own_people(hospital: Hospital, respond: Callable[[Request], Awaitable[Answer]]) -> Respond:
    """Let the hospital's own DN through to ``respond``; raises ``AccessDeniedError`` for every other."""

    async def respond_to_own(request: Request) -> Answer:
        if request.principal.dn != hospital.dn:
            message = f"{request.path} is for the hospital's own certificate only"
            raise AccessDeniedError(message)
        return await respond(request)

    return respond_to_own
