"""How one open went: what was done when, for whoever asks where the time goes."""

from __future__ import annotations

from typing import Final

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
