"""Arrivals: the files that one request waits for, and which of them can be had next."""

from __future__ import annotations

import collections
import functools
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, Protocol

import trio

from mdmfs.hospital.bell import Bell
from mdmfs.hospital.kept.staged import StagedObject
from mdmfs.hospital.kept.staging import Staging
from mdmfs.hospital.release.decision import Denial, Standing
from mdmfs.hospital.release.queue import PendingRecall, Source
from mdmfs.model.errors import BusyError, MdmfsError, OutOfSpaceError, StoreError

LOOK_SECONDS: Final = 1.0
"""How often it is asked whether anybody still waits."""
ATTEMPTS: Final = 3
"""How often a file is brought online for one request, should its key be renewed meanwhile."""


class Released(NamedTuple):
    """A file that was let out: its staged object, whole or on its way."""

    staged: StagedObject
    threshold: int
    """How many shares make its key."""


class Bringing(Protocol):
    """What brings files online: ``mdmfs.hospital.release.recall.Recalls``, or a daemon that asks another one."""

    @property
    def deadline(self) -> float:
        """Seconds that a caller waits."""

    def begin(self, source: Source, *, is_ahead: bool = False) -> PendingRecall:
        """Have a file brought online, by one recall for all who ask; each ends it with ``leave``.

        Raises why that cannot be.
        """

    def leave(self, recall: PendingRecall) -> None:
        """Wait for a recall no longer."""


class Arrivals:
    """Files that one request waits for: staged ones are there at once, the others when their recall has begun."""

    def __init__(self, recalls: Bringing, staging: Staging, *, are_ahead: bool) -> None:
        """Begin with no file; ``are_ahead`` where a mount asks for them before any program does."""
        self._recalls = recalls
        self._staging = staging
        self._are_ahead = are_ahead
        self.expected: dict[int, PendingRecall | MdmfsError | None] = {}
        """By place: its recall, why there is none, or None where it was staged."""
        self._attempts: Counter[int] = Counter()
        self._there: collections.deque[int] = collections.deque()
        self._bell = Bell()

    def expect_all(self, decisions: Iterable[Standing | Denial]) -> None:
        """Have those files brought online of which it was decided that they may be let out."""
        for place, decision in enumerate(decisions):
            if isinstance(decision, Standing):
                self.expect(place, decision.source)
            else:
                self.deny(place, decision.error)

    def expect(self, place: int, source: Source) -> None:
        """Have a file brought online unless it is."""
        self._attempts[place] += 1
        if self._staging.find(source.file.guid, source.file.generation) is not None:
            self.expected[place] = None
            self._arrived(place)
            return
        try:
            recall = self.expected[place] = self._recalls.begin(source, is_ahead=self._are_ahead)
        except MdmfsError as error:
            self.expected[place] = error
            self._arrived(place)
        else:
            recall.tell(functools.partial(self._arrived, place))

    def deny(self, place: int, error: MdmfsError) -> None:
        """Say that a file is not to be had at all."""
        self.expected[place] = error
        self._arrived(place)

    @property
    def is_any_there(self) -> bool:
        """Whether ``next`` does not have to wait."""
        return bool(self._there)

    async def next(self, deadline: float, is_over: Callable[[], bool]) -> int | None:
        """Wait for the next place to look at; None when there is none left, at the deadline, or if it is over."""
        while self.expected and not self._there and trio.current_time() < deadline:
            if is_over():
                self.close()
                return None
            with trio.move_on_at(min(deadline, trio.current_time() + LOOK_SECONDS)):
                await self._bell.next().wait()
        return self._there.popleft() if self._there else None

    def failure(self, place: int) -> MdmfsError | None:
        """Say why a file cannot be brought; then it is expected no longer."""
        recall = self.expected[place]
        error = recall.failure if isinstance(recall, PendingRecall) else recall
        if error is not None:
            self._leave(place)
        return error

    def outcome(self, place: int, decision: Standing | Denial) -> Released | MdmfsError | None:
        """Say what has come of a file, as it was decided just now; None where it is brought once more.

        It is not where there is no room for it, or no disk: that does not get better by asking the PACS again.
        """
        recall = self.expected[place]
        self._leave(place)
        if isinstance(decision, Denial):
            return decision.error
        file = decision.source.file
        staged = self._staging.find(file.guid, file.generation) or _in_memory(recall, file.generation)
        if staged is not None:
            return Released(staged, file.threshold)
        fault = recall.fault if isinstance(recall, PendingRecall) else None
        if isinstance(fault, OutOfSpaceError | StoreError):
            return fault
        if self._attempts[place] >= ATTEMPTS:
            text = f"the key or the copy of {file.guid} was renewed again and again while it was brought online"
            return BusyError(f"{text}; open it again")
        self.expect(place, decision.source)
        return None

    def close(self) -> None:
        """Wait for nothing more."""
        for place in list(self.expected):
            self._leave(place)

    def _leave(self, place: int) -> None:
        recall = self.expected.pop(place)
        if isinstance(recall, PendingRecall):
            self._recalls.leave(recall)

    def _arrived(self, place: int) -> None:
        self._there.append(place)
        self._bell.ring()


def _in_memory(recall: PendingRecall | MdmfsError | None, generation: int) -> StagedObject | None:
    """Give what has come, and has not got to the disk."""
    staged = recall.staged if isinstance(recall, PendingRecall) else None
    return staged if staged is not None and staged.unwritten is not None and staged.generation == generation else None
