"""Answers that hold for a moment: what a thousand mounts ask in the same one is worked out once."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any, Final, TypeVar, cast

from mdmfs.hospital.store import Store
from mdmfs.model.identity import Principal

T = TypeVar("T")
MAX_KNOWN: Final = 256
"""Answers that are remembered: whoever asks for something else each time must not fill the memory."""


class Answers:
    """The answers of one moment; with the next all of them are forgotten."""

    def __init__(self, most: int = MAX_KNOWN, weight: Callable[[Any], int] = lambda _: 1) -> None:
        """Know none, and of one moment never much more than ``most`` by the ``weight`` of each."""
        self._most = most
        self._weight = weight
        self._weighs = 0
        self._moment: Hashable = None
        self._known: dict[Hashable, Any] = {}

    def of(self, moment: Hashable, question: Hashable, answer: Callable[[], T]) -> T:
        """Give the answer to a question at a moment, by ``answer`` where it has not been given yet."""
        if moment != self._moment or self._weighs >= self._most:
            self._moment, self._known, self._weighs = moment, {}, 0
        if question not in self._known:
            self._known[question] = answer()
            self._weighs += self._weight(self._known[question])
        return cast("T", self._known[question])

    def of_this_second(
        self, principal: Principal, question: Hashable, now: float, store: Store, answer: Callable[[float], T]
    ) -> T:
        """Give the answer for a principal while the store and the second stay; ``answer`` is told as of when.

        It is decided as of the second's end: an entry that ends within it has ended. For a credential that does,
        nothing is remembered, and the instant ``now`` counts.
        """
        end = math.floor(now) + 1.0
        if principal.not_after <= end:
            return answer(now)
        return self.of((store.version(), end), (principal, question), lambda: answer(end))
