"""How long to leave a peer alone that has failed."""

from __future__ import annotations

import math
from typing import Final

MAX_DOUBLINGS: Final = 16
"""A peer may be away for days, and fail as often as there are seconds: no number has so many digits."""


def pause_after(failures: int, first: float, longest: float) -> float:
    """Tell the seconds of a pause: ``first``, doubled with each failure, ``longest`` at most."""
    return min(math.ldexp(first, min(failures, MAX_DOUBLINGS)), longest)
