"""Acts that wait while a commit is being made share the next one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import outcome
import trio

from mdmfs.model.errors import MdmfsError, again
from mdmfs.rows.port import Rows

MAX_ACTS: Final = 64
"""Acts of one commit."""

T = TypeVar("T")


@dataclasses.dataclass(slots=True)
class Act:
    """A call of ``write`` that waits for its turn."""

    function: Callable[[Rows], Any]
    results: list[outcome.Outcome[Any]] = dataclasses.field(default_factory=list)
    """Empty until it was run."""


class Turns:
    """One commit at a time, in one thread: ``commit`` runs acts in a transaction and gives the result of each."""

    def __init__(self, commit: Callable[[list[Act]], list[outcome.Outcome[Any]]]) -> None:
        self._commit = commit
        self._waiting: list[Act] = []
        self._turn = trio.Lock()
        self._threads = trio.CapacityLimiter(1)

    async def run(self, function: Callable[[Rows], T]) -> T:
        """See ``Engine.write``."""
        await trio.lowlevel.checkpoint_if_cancelled()
        mine = Act(function)
        self._waiting.append(mine)
        with trio.CancelScope(shield=True):  # from here on, whoever has the turn may run it
            async with self._turn:
                while not mine.results:
                    acts, self._waiting = self._waiting[:MAX_ACTS], self._waiting[MAX_ACTS:]
                    await trio.to_thread.run_sync(self._run, acts, limiter=self._threads)
        return cast("T", mine.results[0].unwrap())

    async def apart(self, function: Callable[[], T]) -> T:
        """Run something in that thread while nothing is being committed; it is waited for, come what may."""
        async with self._turn:
            return await trio.to_thread.run_sync(function, limiter=self._threads)

    def _run(self, acts: list[Act]) -> None:
        """Run acts in one commit; each result stands only once that is durable."""
        try:
            results = self._commit(acts)
        except Exception as error:  # noqa: BLE001 - the thread boundary: each waiting caller gets it
            results = [outcome.Error(_told_apart(error)) for _ in acts]
        for act, result in zip(acts, results, strict=True):
            act.results.append(result)


def _told_apart(error: Exception) -> Exception:
    """Give each task an error of its own: one that is raised twice garbles its traceback."""
    if not isinstance(error, MdmfsError):
        return error
    mine = again(error)
    mine.__cause__ = error
    return mine
