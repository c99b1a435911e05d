"""Those who had a mount before: what each has opened is reported by his own credential, whatever becomes of others."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog
import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.model.errors import (
    AccessDeniedError,
    CredentialExpiredError,
    CredentialRefusedError,
    MdmfsError,
    StoreError,
)
from mdmfs.wire.messages.files import Changes, OpensReport

REST_SECONDS: Final = 10.0
"""Between two tries to report what leavers have opened."""
TRIES: Final = 60
"""So often the hospital answers others and not a leaver before he is given up."""
DECIDED: Final = (CredentialExpiredError, CredentialRefusedError, AccessDeniedError)
"""Answers that will not be others by waiting."""

log = structlog.get_logger(__name__)


class Leaver(Protocol):
    """The hospital, as he is known to it whom another has followed."""

    async def changes(
        self, since: int, wait: float, report: OpensReport | None = None, groups: Sequence[str] = ()
    ) -> Changes:
        """See ``mdmfs.worker.namespace.feed.Told``."""

    async def aclose(self) -> None:
        """Speak with it no more."""


@dataclasses.dataclass(slots=True, eq=False)
class _Waiting:
    leaver: Leaver
    reports: list[OpensReport]
    """Those that the hospital has not written down."""
    tries: int = TRIES
    turn: trio.Lock = dataclasses.field(default_factory=trio.Lock)


class Leavers:
    """Who has left, and what is still to be reported of them; reports count by their numbers, in whatever order.

    Each has a task of his own: one whom nothing answers keeps up no other.
    """

    def __init__(self, applied: Callable[[], tuple[int, Sequence[str]]], is_answered: Callable[[], bool]) -> None:
        """Speak with ``applied``, the version and the groups that the mount has; ``is_answered``: others are heard."""
        self._applied = applied
        self._is_answered = is_answered
        self._waiting: list[_Waiting] = []
        self._leave, self._left = trio.open_memory_channel[_Waiting](math.inf)

    def note(self, leaver: Leaver, reports: list[OpensReport]) -> None:
        """Know that somebody has left."""
        one = _Waiting(leaver, reports)
        self._waiting.append(one)
        self._leave.send_nowait(one)

    async def keep_telling(self) -> None:
        """Report what there is, again and again, for as long as it is run."""
        async with trio.open_nursery() as nursery:
            async for one in self._left:
                nursery.start_soon(self._keep_telling, one)

    async def tell(self) -> None:
        """Try once for each."""
        async with open_plain_nursery() as nursery:
            for one in self._waiting:
                nursery.start_soon(self._tell, one)

    async def _keep_telling(self, one: _Waiting) -> None:
        await self._tell(one)
        while one in self._waiting:
            await trio.sleep(REST_SECONDS)
            await self._tell(one)

    async def _tell(self, one: _Waiting) -> None:
        async with one.turn:
            if one in self._waiting and await self._try(one):
                self._waiting.remove(one)
                await one.leaver.aclose()

    async def _try(self, one: _Waiting) -> bool:
        """Report what is left of one; False where it is to be tried again."""
        try:
            while one.reports:
                version, groups = self._applied()
                await one.leaver.changes(version, 0.0, one.reports[0], groups)
                del one.reports[0]
        except MdmfsError as error:
            one.tries -= self._is_answered() and not isinstance(error, StoreError)  # of a disk that is full
            if not isinstance(error, DECIDED) and one.tries > 0:
                return False
            files = sum(len(report.opens) for report in one.reports)
            log.warning("what was opened before cannot be reported", files=files, reason=error.told_here)
        except Exception:  # the loop of all readers: what was not foreseen costs this report, not the mount
            log.exception("reporting what was opened before failed unexpectedly")
        return True
