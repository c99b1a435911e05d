"""Answers that hold for a moment: what a thousand mounts ask in the same one is worked out once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")
MAX_KNOWN: Final = 256
"""Answers that are remembered: whoever asks for something else each time must not fill the memory."""


class Answers:
    """The answers of one moment; with the next all of them are forgotten."""

    def __init__(self) -> None:
        """Know none."""
        self._moment: Hashable = None
        self._known: dict[Hashable, Any] = {}

    def of(self, moment: Hashable, question: Hashable, answer: Callable[[], T]) -> T:
        """Give the answer to a question at a moment, by ``answer`` where it has not been given yet."""
        if moment != self._moment or len(self._known) >= MAX_KNOWN:
            self._moment, self._known = moment, {}
        if question not in self._known:
            self._known[question] = answer()
        return cast("T", self._known[question])
