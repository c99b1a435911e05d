"""Currency: which hospitals have told a service everything they decided, and until when that may be relied on.

Keystores and metadata services decide by what hospitals tell them. After a start nothing is current: the store may be
a backup of yesterday's, and only the hospital knows what it decided since. It says so in answer to a nonce, and what it
says holds for some minutes from when the nonce was drawn: an answer that was held up on its way cannot make an old
store look new.
"""

from __future__ import annotations

import collections
import dataclasses
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import structlog
import trio

from mdmfs.model.errors import MalformedMessageError
from mdmfs.wire.messages.keystores import AskEpoch, ConfirmEpoch, EpochHeld

CURRENT_SECONDS: Final = 300.0
"""How long a hospital may be out of touch before shares of its keys are held back."""
NONCE_SIZE: Final = 16
MAX_NONCES: Final = 16
MAX_EPOCH: Final = 2**63 - 1
MAX_MARK_SIZE: Final = 64
LONGEST_WAIT: Final = 300.0


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


class KnownEpoch(NamedTuple):
    """Up to where a hospital's changes are known."""

    epoch: int
    mark: bytes


NOTHING_KNOWN: Final = KnownEpoch(0, b"")


class Hearing:
    """Answers a hospital that asks up to where its changes are known, and that says that there are no more."""

    def __init__(
        self,
        currency: Currency,
        read: Callable[[str], Awaitable[KnownEpoch]],
        write: Callable[[str, KnownEpoch], Awaitable[None]],
    ) -> None:
        """``read`` and ``write`` remember durably what is known of an owner's changes."""
        self._currency = currency
        self._read = read
        self._write = write
        self._log: Any = structlog.get_logger("mdmfs.currency")

    async def epoch(self, owner: str, message: AskEpoch) -> EpochHeld:
        """Tell up to where changes are known; waits as ``AskEpoch`` says."""
        await trio.sleep(min(LONGEST_WAIT, self._currency.seconds_left(owner), max(0.0, message.wait)))  # nan: 0
        return await self._held(owner)

    async def confirm(self, owner: str, message: ConfirmEpoch) -> EpochHeld:
        """Believe that all changes up to an epoch have been told; from here on the owner is current.

        Raises ``MalformedMessageError`` for a nonce that is not known: then the hospital asks again.
        """
        if not 0 <= message.epoch <= MAX_EPOCH or len(message.mark) > MAX_MARK_SIZE:
            reason = f"an epoch is between 0 and {MAX_EPOCH}, and its mark has at most {MAX_MARK_SIZE} bytes"
            raise MalformedMessageError(reason)
        drawn = self._currency.take_nonce(owner, message.nonce)
        if drawn is None:
            reason = "the nonce is not known here, or was used: ask for the epoch again"
            raise MalformedMessageError(reason)
        known = KnownEpoch(message.epoch, message.mark)
        if await self._read(owner) != known:
            await self._write(owner, known)
        if not self._currency.is_current(owner):
            self._log.info("current", dn=owner, epoch=message.epoch)
        self._currency.confirm(owner, drawn)
        return await self._held(owner)

    async def _held(self, owner: str) -> EpochHeld:
        known = await self._read(owner)
        return EpochHeld(known.epoch, known.mark, self._currency.is_current(owner), self._currency.draw_nonce(owner))
