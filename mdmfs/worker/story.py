"""How one open went: what was done when, for whoever asks where the time goes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

MAX_STORIES: Final = 10_000
MAX_STEPS: Final = 16
"""A file that is mended again and again has no endless story."""


class Story:
    """The steps of one open, by the seconds since it began."""

    def __init__(self, begun: float) -> None:
        self._begun = begun
        self._steps: list[tuple[str, float]] = []

    def note(self, step: str, now: float) -> None:
        """Note that a step is done; times are of one clock."""
        if len(self._steps) < MAX_STEPS:
            self._steps.append((step, now - self._begun))

    def told(self) -> str:
        """Write what was done, each with the seconds since the open began."""
        return ", ".join(f"{step} at {seconds:.3f} s" for step, seconds in self._steps)


class Stories:
    """How the last open of each file went that had to wait for something, by inode."""

    def __init__(self) -> None:
        """Nothing has been opened."""
        self._stories: OrderedDict[int, Story] = OrderedDict()

    def begin(self, inode: int, now: float) -> None:
        """Begin to tell of an open, in place of the one before."""
        self._stories[inode] = Story(now)
        if len(self._stories) > MAX_STORIES:
            self._stories.popitem(last=False)

    def note(self, inode: int, step: str, now: float) -> None:
        """Note that a step of it is done."""
        story = self._stories.get(inode)
        if story is not None:
            story.note(step, now)

    def told(self, inode: int) -> str:
        """Write its steps; nothing where none had to wait."""
        story = self._stories.get(inode)
        return "" if story is None else story.told()
