"""How much each principal may ask of a server: so many requests a second, and a part of its connections.

A principal is a DN: many workers with proxies of one user are one. Whoever asks faster waits his turn, so that a
program that asks too fast becomes slow, and nobody else does; only who is far ahead of his turn is refused.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import trio

from mdmfs.model.errors import BusyError
from mdmfs.model.identity import Dn

SHORTEST_WAIT: Final = 1e-3
"""Seconds that are worth a sleep."""
MAX_REMEMBERED: Final = 10_000
"""Principals whose turn is remembered; who has asked nothing for a while is forgotten first."""


class Allowances:
    """The turns of all principals of one server (GCRA, the virtual scheduling algorithm of ITU-T I.371)."""

    def __init__(self, rate: float, burst: int, patience: float, connections: int) -> None:
        """Allow ``rate`` requests a second after ``burst`` at once; a request waits ``patience`` seconds at most.

        A rate of 0 is no limit. ``connections`` may be open at once.
        """
        self._interval = 1 / rate if rate else 0.0
        self._rate = rate
        self._slack = burst * self._interval
        self._patience = patience
        self._connections = connections
        self._turns: dict[Dn, float] = {}
        """When the next request of a principal is due, if he asked evenly."""
        self._open: Counter[Dn] = Counter()

    @property
    def remembered(self) -> int:
        """How many principals have a turn."""
        return len(self._turns)

    async def wait(self, dn: Dn) -> None:
        """Wait until it is a principal's turn; raises ``BusyError`` where that is too long."""
        if not self._interval:
            return
        now = trio.current_time()
        turn = max(self._turns.get(dn, 0.0), now)
        ahead = turn - now - self._slack
        if ahead > self._patience:
            message = f"{dn} asks more than {self._rate:g} requests a second: ask again in {ahead:.0f} s"
            raise BusyError(message)
        if len(self._turns) >= MAX_REMEMBERED and dn not in self._turns:
            self._forget(now)
        self._turns[dn] = turn + self._interval
        if ahead > SHORTEST_WAIT:
            await trio.sleep(ahead)

    def enter(self, dn: Dn) -> bool:
        """Count a connection; False where the principal has as many as he may. Whoever got in leaves."""
        if self._open[dn] >= self._connections:
            return False
        self._open[dn] += 1
        return True

    def leave(self, dn: Dn) -> None:
        """Count a connection no longer."""
        self._open[dn] -= 1
        if self._open[dn] <= 0:
            del self._open[dn]

    def _forget(self, now: float) -> None:
        """Forget those who may ask at once anyway; where all are busy, the one whose turn is next."""
        over = [dn for dn, turn in self._turns.items() if turn <= now]
        for dn in over or [min(self._turns, key=self._turns.__getitem__)]:
            del self._turns[dn]
