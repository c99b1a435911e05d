"""One keystore, as its client sees it: after a failure it is left alone for some seconds.

Its calls run on in the background when nobody waits for them any more, since a cancelled one would cost the
connection; while several do, it is slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

import trio
from prometheus_client import Counter

from mdmfs.model.errors import MalformedMessageError, MdmfsError, PeerTimedOutError, PeerUnreachableError
from mdmfs.model.names import Guid
from mdmfs.model.pauses import pause_after
from mdmfs.wire.messages.keystores import COLLECT_PATH, Collect, Collected
from mdmfs.wire.messages.message import Message
from mdmfs.wire.peer import Peer

MAX_LAGGARDS: Final = 3
"""Calls that may run on at one keystore when nobody waits for their answers any more; with so many it is slow."""
PATIENCE: Final = 1.0
"""Seconds a keystore gets at least before its silence counts as an outage."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 4.0
"""Seconds for which a keystore that did not answer is left alone, doubled with each failure."""

OUTAGES: Final = Counter("mdmfs_keystore_outages", "Times that a keystore ceased to answer.", ["keystore"])

M = TypeVar("M", bound=Message)


class Waiting(Protocol):
    """Whoever waits for an answer."""

    @property
    def deadline(self) -> float:
        """Until when, as a time of ``trio.current_time()``."""

    @property
    def is_over(self) -> bool:
        """Whether nobody waits any more."""


class RemoteKeystore:
    """One keystore: its client, the collects under way, and until when it is left alone."""

    def __init__(self, name: str, client: Peer) -> None:
        """Ask it over this client."""
        self.name = name
        self._client = client
        self._collecting: list[Waiting] = []
        self._failures = 0
        self._paused_at = float("-inf")
        self._paused_until = float("-inf")

    async def call(self, path: str, message: Message, reply: type[M], deadline: float) -> M:
        """POST a message and give its answer; raises what a call raises."""
        begun = trio.current_time()
        try:
            answer = await self._client.call(path, message, reply, deadline=deadline)
        except (PeerUnreachableError, PeerTimedOutError) as error:
            self._note_outage(begun, error)
            raise
        except MdmfsError:
            self._note_life()
            raise
        self._note_life()
        return answer

    async def collect(self, guids: Sequence[Guid], waiting: Waiting) -> Collected:
        """Ask for shares on somebody's behalf; raises ``PeerUnreachableError`` at once while it is left alone."""
        self._refuse_while_paused()
        self._collecting.append(waiting)
        try:
            return await self.ask(guids, waiting.deadline)
        finally:
            self._collecting.remove(waiting)

    async def ask(self, guids: Sequence[Guid], deadline: float) -> Collected:
        """Ask for shares, whether the keystore is left alone or not."""
        wanted = Collect([guid.octets for guid in guids])
        collected = await self.call(COLLECT_PATH, wanted, Collected, deadline)
        refuse_other_number(self.name, len(collected.outcomes), len(guids))
        refuse_other_number(self.name, len(collected.shares), len(guids))
        return collected

    @property
    def is_prompt(self) -> bool:
        """Whether it is neither slow nor left alone."""
        return not self.is_slow and trio.current_time() >= self._paused_until

    @property
    def is_slow(self) -> bool:
        """Whether so many calls run on at it that nobody waits for any more."""
        return sum(waiting.is_over for waiting in self._collecting) >= MAX_LAGGARDS

    def _refuse_while_paused(self) -> None:
        left = self._paused_until - trio.current_time()
        if left > 0:
            message = f"it did not answer, and is asked again in {left:.1f} s"
            raise PeerUnreachableError(message)

    def _note_outage(self, begun: float, error: MdmfsError) -> None:
        now = trio.current_time()
        was_hasty = isinstance(error, PeerTimedOutError) and now - begun < PATIENCE
        # calls that were under way together fail together: that is one outage
        if begun <= self._paused_at or was_hasty:
            return
        OUTAGES.labels(self.name).inc()
        self._paused_at = now
        self._paused_until = now + pause_after(self._failures, FIRST_PAUSE, LONGEST_PAUSE)
        self._failures += 1

    def _note_life(self) -> None:
        self._failures = 0
        self._paused_until = float("-inf")


def refuse_other_number(keystore: str, got: int, asked: int) -> None:
    """Raise ``MalformedMessageError`` where a keystore did not answer each item of a batch once."""
    if got != asked:
        message = f"the keystore {keystore} gave {got} answers to a batch of {asked}"
        raise MalformedMessageError(message)
