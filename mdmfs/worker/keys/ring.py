"""The key ring: asks the keystores for whole bursts at once and holds what it got for a minute, no longer.

An unsealer lives as long as a file is open, or the shares that made it (``worker/reading/kept.py``). What the ring
holds are shares: of files just opened, because programs go through a directory several times, and of their siblings,
because they read it in order. They go sooner with a right that is lost, and with the lease.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import trio

from mdmfs.model.errors import (
    AccessDeniedError,
    CredentialExpiredError,
    CredentialRefusedError,
    MdmfsError,
    WrongKeyError,
)
from mdmfs.model.names import Guid
from mdmfs.sealing.header import FileKey, ObjectContext
from mdmfs.sealing.unseal import Unsealer
from mdmfs.wire.keystores.answers import Answers
from mdmfs.wire.keystores.gathering import Gathering
from mdmfs.worker.memory import Held, Memory

HOLD_SECONDS: Final = 60.0
"""So that a second pass over a directory of thousands asks for nothing."""
HEARD_SECONDS: Final = 5.0
"""In which keystores hear from a hospital that is back, at the latest: the mount may have heard it before them."""
AGAIN_SECONDS: Final = 0.5
ITEM_BYTES: Final = 2 * 2**10
"""What the shares of one file take."""
_DECIDED: Final = (AccessDeniedError, CredentialRefusedError, CredentialExpiredError)


class KeySource(Protocol):
    """What is needed of ``mdmfs.wire.keystores.keystores.Keystores``."""

    async def collect(self, guids: Iterable[Guid], *, enough: int, deadline: float) -> dict[Guid, Answers]:
        """Ask for shares; gives what came as soon as there is enough, by ``deadline`` on trio's clock at the latest."""

    def collecting(self, guids: Iterable[Guid], *, deadline: float) -> AbstractAsyncContextManager[Gathering]:
        """Ask for shares, and use them as they come."""


@dataclasses.dataclass(frozen=True, slots=True)
class Lock:
    """What a key must fit: an object's context and header, and how many shares make the key."""

    context: ObjectContext
    header: bytes
    threshold: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Held:
    answers: Answers
    enough: int
    """So many shares were waited for."""
    until: float
    held: Held


class KeyRing:
    """Makes unsealers out of shares; one question to the keystores at a time, for all who wait."""

    def __init__(
        self,
        source: Callable[[], KeySource],
        *,
        deadline: float,
        memory: Memory | None = None,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        """``source`` gives the keystores of the moment: a renewed proxy makes new ones. ``deadline`` is in seconds.

        ``memory`` is that of the mount; its own without one. ``clock`` says for how long shares are held; that of a
        lease counts on while the machine sleeps.
        """
        self.clock: Final = clock
        self._source = source
        self._deadline = deadline
        self._memory = memory or Memory()
        self._held: dict[Guid, _Held] = {}
        """What was held first ends first."""
        self._queue: dict[Guid, int] = {}
        """What waits for its turn, and how many shares are enough."""
        self._usual = 1
        """How many shares made the last key: what is asked for where nothing says more."""
        self._turn = trio.Lock()
        self._era = 0
        """How often everything was dropped."""
        self._withheld: set[Guid] = set()
        """What was dropped while the keystores were asked: what they said before is not held."""

    async def prepare(self, guid: Guid, threshold: int = 0, siblings: Sequence[Guid] = ()) -> Answers:
        """Have the shares of a file at hand, and along with them those of files that may be opened next.

        0 stands for a threshold that is not known yet, and is taken to be the usual one.
        """
        enough = threshold or self._usual
        answers = self.fresh(guid, enough)
        if answers is not None:
            return answers
        self._queue[guid] = max(enough, self._queue.get(guid, 0))
        try:
            async with self._turn:
                return self.fresh(guid, enough) or await self._collect(guid, enough, siblings)
        finally:
            self._queue.pop(guid, None)

    async def unlock(self, lock: Lock, siblings: Sequence[Guid] = ()) -> Unsealer:
        """Give what unseals an object. Whether the caller may have it, the keystores decide.

        Raises ``AccessDeniedError``, ``TooFewSharesError``, the errors of a refused credential, and ``IntegrityError``
        where all the shares there are make no key that fits.
        """
        guid, self._usual = lock.context.guid, lock.threshold
        give_up_at = trio.current_time() + HEARD_SECONDS
        answers = await self.prepare(guid, lock.threshold, siblings)
        while answers.await_hospital(lock.threshold) and trio.current_time() < give_up_at:
            self.forget(guid)
            await trio.sleep(AGAIN_SECONDS)
            answers = await self.prepare(guid, lock.threshold, siblings)
        attempt = _Attempt(lock)
        try:
            answers.key(attempt.verify, threshold=lock.threshold).close()
        except MdmfsError as error:
            self.forget(guid)
            if isinstance(error, _DECIDED) or not (answers.has(lock.threshold) or answers.are_torn):
                raise
            # enough came, and it was wrong: somebody lied, or this is of another generation or split by now
            async with self._source().collecting([guid], deadline=trio.current_time() + self._deadline) as gathering:
                (await gathering.key(guid, attempt.verify, threshold=lock.threshold)).close()
        return attempt.unsealer()

    def fresh(self, guid: Guid, enough: int) -> Answers | None:
        """Give the shares of a file that are held, where they are as many as are wanted; None: ask the keystores."""
        held = self._held.get(guid)
        is_fresh = held is not None and held.enough >= enough and self.clock() < held.until
        return held.answers if held is not None and is_fresh else None

    def held_until(self, guid: Guid) -> float:
        """Tell until when, by ``clock``, shares of a file are held; an instant long ago where they are not."""
        held = self._held.get(guid)
        return float("-inf") if held is None else held.until

    def holds(self, guid: Guid) -> bool:
        """Ask whether shares of a file are held."""
        return self.held_until(guid) > self.clock()

    @property
    def is_asking(self) -> bool:
        """Whether the keystores are asked just now: nothing is asked ahead meanwhile."""
        return self._turn.locked()

    async def collect_ahead(self, guids: Sequence[Guid]) -> None:
        """Ask for the shares of files that may be opened next, unless somebody is asking for others just now."""
        if self.is_asking:
            return
        self.expire()
        wanted = [guid for guid in guids if guid not in self._held]
        if not wanted:
            return
        async with self._turn:
            await self._collect(wanted[0], self._usual, wanted[1:])

    def forget(self, guid: Guid) -> None:
        """Drop what is held of a file, and what is on its way."""
        self._drop(guid)
        if self._turn.locked():
            self._withheld.add(guid)

    def forget_all(self) -> None:
        """Drop everything, and what is on its way."""
        for guid in list(self._held):
            self._drop(guid)
        self._era += 1

    def expire(self) -> None:
        """Drop what was held long enough."""
        now = self.clock()
        while self._held and self._held[guid := next(iter(self._held))].until <= now:
            self._drop(guid)

    async def _collect(self, guid: Guid, threshold: int, siblings: Sequence[Guid]) -> Answers:
        """Ask for everything that waits for its turn now, and hold it."""
        self.expire()
        waiting = [other for other, needed in self._queue.items() if needed == threshold]
        wanted = dict.fromkeys([guid, *waiting, *(other for other in siblings if other not in self._held)])
        until, era = trio.current_time() + self._deadline, self._era
        self._withheld.clear()
        answers = await self._source().collect(wanted, enough=threshold, deadline=until)
        until = self.clock() + HOLD_SECONDS
        for other, found in answers.items() if era == self._era else ():
            if other not in self._withheld and (found.has(threshold) or other in self._queue):
                self._drop(other)
                held = self._memory.hold(ITEM_BYTES, functools.partial(self._drop, other))
                self._held[other] = _Held(found, threshold, until, held)
        return answers[guid]

    def _drop(self, guid: Guid) -> None:
        held = self._held.pop(guid, None)
        if held is not None:
            self._memory.release(held.held)


def unlock_with(answers: Answers | None, lock: Lock) -> Unsealer | None:
    """Give what unseals an object by these shares, and ask nobody; None where they do not suffice."""
    attempt = _Attempt(lock)
    key = None if answers is None else answers.find_key(attempt.verify)
    if key is None:
        return None
    key.close()
    return attempt.unsealer()


class _Attempt:
    """Tries keys on a lock, and has the unsealer of the one that fitted."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._unsealer: Unsealer | None = None

    def verify(self, key: FileKey) -> None:
        """Try a key; raises ``WrongKeyError``."""
        self._unsealer = Unsealer.open(self._lock.header, key, self._lock.context)

    def unsealer(self) -> Unsealer:
        """Give what the key that fitted opens; raises ``WrongKeyError`` where none was found."""
        if self._unsealer is None:
            message = f"no key was found for {self._lock.context.guid}"
            raise WrongKeyError(message)
        return self._unsealer
