"""Currency: which hospitals have told this keystore everything they decided, and until when that may be relied on.

After a start nothing is current: the shelf may be a backup of yesterday's, and only the hospital knows what it decided
since. It says so in answer to a nonce, and what it says holds for some minutes from when the nonce was drawn: an answer
that was held up on its way cannot make an old shelf look new.
"""

from __future__ import annotations

import collections
import dataclasses
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Final

CURRENT_SECONDS: Final = 300.0
"""How long a hospital may be out of touch before shares of its keys are held back."""
NONCE_SIZE: Final = 16
MAX_NONCES: Final = 16


def uptime() -> float:
    """Give seconds that count on while the machine sleeps, and that nobody sets back."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclasses.dataclass(slots=True)
class _Hospital:
    nonces: collections.deque[tuple[bytes, float]]
    current_until: float = float("-inf")


class Currency:
    """What is known about each hospital, by its DN; in memory only, because a restart must forget it."""

    def __init__(self, clock: Callable[[], float] = uptime) -> None:
        """Begin with no hospital current. ``clock`` gives seconds and never goes back."""
        self._clock = clock
        self._hospitals: dict[str, _Hospital] = {}

    def draw_nonce(self, owner: str) -> bytes:
        """Give what the hospital must name when it confirms; the newest few are remembered."""
        nonce = secrets.token_bytes(NONCE_SIZE)
        self._hospital(owner).nonces.append((nonce, self._clock()))
        return nonce

    def take_nonce(self, owner: str, nonce: bytes) -> float | None:
        """Tell when a nonce was drawn, and forget it; None for one that is not known."""
        nonces = self._hospital(owner).nonces
        for drawn, when in nonces:
            if hmac.compare_digest(drawn, nonce):
                nonces.remove((drawn, when))
                return when
        return None

    def confirm(self, owner: str, when: float) -> None:
        """Rely on the shelf for ``CURRENT_SECONDS`` from ``when``, at which the nonce of the confirmation was drawn."""
        hospital = self._hospital(owner)
        hospital.current_until = max(hospital.current_until, when + CURRENT_SECONDS)

    def seconds_left(self, owner: str) -> float:
        """Tell for how long the shelf may be relied on for this hospital's keys; 0 where it may not."""
        hospital = self._hospitals.get(owner)
        return 0.0 if hospital is None else max(0.0, hospital.current_until - self._clock())

    def is_current(self, owner: str) -> bool:
        """Ask whether shares of this hospital's keys may be given."""
        return self.seconds_left(owner) > 0

    def _hospital(self, owner: str) -> _Hospital:
        return self._hospitals.setdefault(owner, _Hospital(collections.deque(maxlen=MAX_NONCES)))
