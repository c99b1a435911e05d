"""The shares that have come so far of a batch of GUIDs, and what is asked for when they do not suffice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

import trio

from mdmfs.model.errors import MdmfsError
from mdmfs.model.names import Guid
from mdmfs.sealing.header import FileKey
from mdmfs.wire.keystores.answers import Answers, Verify
from mdmfs.wire.keystores.keystore import RemoteKeystore
from mdmfs.wire.messages.keystores import Collected, Outcome

SECOND_THOUGHT: Final = 0.05
"""Seconds after which the keystores are asked that were not asked at first."""
HESITATION: Final = 0.25
"""Seconds for which a slow keystore is not asked, in case the others suffice."""


class Gathering:
    """The answers that have come so far, for the GUIDs of one batch."""

    def __init__(
        self,
        answers: Iterable[Answers],
        deadline: float,
        ask: Callable[[Sequence[Guid], Gathering, Sequence[RemoteKeystore] | None], None],
        others: Sequence[RemoteKeystore] = (),
        awaited: Collection[Guid] = (),
    ) -> None:
        """``others`` have not been asked yet; they are for what is ``awaited`` and not to be had of those who were."""
        self.answers: dict[Guid, Answers] = {answer.guid: answer for answer in answers}
        self.deadline = deadline
        self._ask_keystores = ask
        self._others = others
        self._names_of_others = frozenset(keystore.name for keystore in others)
        self._left = set(awaited) if others else set()
        """For which the others have not been asked."""
        self._second_thought = trio.current_time() + SECOND_THOUGHT if others else deadline
        self._changed = trio.Event()
        self._closed = trio.Event()

    async def key(self, guid: Guid, verify: Verify, *, threshold: int) -> FileKey:
        """Give the key of a GUID of the batch as soon as the shares that came make one which passes ``verify``.

        The caller owns and closes it. ``threshold`` is what the hospital says, for judging when waiting is in vain.
        Where the answers are torn the keystores are asked once more. Raises, at the deadline at the latest, what
        ``Answers.failure`` says.
        """
        is_second = False
        while True:
            answers = self.answers[guid]
            key = answers.find_key(verify)
            if key is not None:
                return key
            self._reconsider([answers])
            if answers.is_settled(threshold) and answers.are_torn and not is_second:
                is_second = True
                self.answers[guid] = answers.anew()
                self._ask_keystores([guid], self, None)
            elif answers.is_settled(threshold) or not await self._has_changed():
                raise answers.failure(threshold)

    async def wait_for(self, enough: int) -> None:
        """Wait until each GUID has ``enough`` shares of one split or cannot get them, to the deadline at most."""
        while lacking := [it for it in self.answers.values() if not (it.has(enough) or it.is_settled(enough))]:
            self._reconsider(lacking)
            if not await self._has_changed():
                return

    async def ask(self, keystore: RemoteKeystore, guids: Sequence[Guid]) -> None:
        """Ask one keystore for a batch, if anybody still waits for it, and note what comes of it."""
        if keystore.is_slow:
            await self._hesitate()
        if self.is_over:
            return
        try:
            collected = await keystore.collect(guids, self)
        except MdmfsError as error:
            self._take_failure(keystore.name, guids, error)
        else:
            self._take(keystore.name, guids, collected)

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for answers any more."""
        return self._closed.is_set() or trio.current_time() >= self.deadline

    def close(self) -> None:
        """Take no more answers, and ask no keystore that has not been asked yet."""
        self._closed.set()

    def _take(self, keystore: str, guids: Sequence[Guid], collected: Collected) -> None:
        """Note a keystore's answer to a batch."""
        if not self._closed.is_set():
            for guid, outcome, share in zip(guids, collected.outcomes, collected.shares, strict=True):
                self.answers[guid].take(keystore, outcome, share)
            found = zip(guids, collected.outcomes, strict=True)
            self._ask_others(guid for guid, outcome in found if outcome is not Outcome.DONE)
            self._tell_waiters()

    def _take_failure(self, keystore: str, guids: Sequence[Guid], error: MdmfsError) -> None:
        """Note that a keystore does not answer a batch."""
        if not self._closed.is_set():
            for guid in guids:
                self.answers[guid].take_failure(keystore, error)
            self._ask_others(guids)
            self._tell_waiters()

    async def _hesitate(self) -> None:
        """Wait a moment, or until the gathering is closed."""
        with trio.move_on_after(HESITATION):
            await self._closed.wait()

    async def _has_changed(self) -> bool:
        """Wait for the next answer, or until it is time to ask the others; False when the deadline came before."""
        with trio.move_on_at(min(self.deadline, self._second_thought)) as scope:
            await self._changed.wait()
        if scope.cancelled_caught:
            if trio.current_time() >= self.deadline:
                return False
            self._second_thought = self.deadline
            self._ask_others(guid for guid, answers in self.answers.items() if not self._is_left_to_others(answers))
        return True  # an answer may have come in that very moment

    def _reconsider(self, lacking: Iterable[Answers]) -> None:
        """Ask the others where all who were asked have answered, and that does not suffice."""
        self._ask_others(answers.guid for answers in lacking if self._is_left_to_others(answers))

    def _is_left_to_others(self, answers: Answers) -> bool:
        """Whether all who were asked at first have answered."""
        return self._names_of_others.issuperset(answers.waiting_for)

    def _ask_others(self, guids: Iterable[Guid]) -> None:
        """Ask the others, for each GUID once."""
        wanted = [guid for guid in guids if guid in self._left]
        self._left.difference_update(wanted)
        if wanted:
            self._ask_keystores(wanted, self, self._others)

    def _tell_waiters(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
