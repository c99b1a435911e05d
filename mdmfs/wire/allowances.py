"""How much each principal may ask of a server: so many requests a second, a part of its connections and its memory.

A principal is a DN: many workers with proxies of one user are one. Whoever asks faster waits his turn, so that a
program that asks too fast becomes slow, and nobody else does; only who is far ahead of his turn is refused.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Final

import trio

from mdmfs.model.errors import BusyError
from mdmfs.model.identity import Dn

SHORTEST_WAIT: Final = 1e-3
"""Seconds that are worth a sleep."""
MAX_REMEMBERED: Final = 10_000
"""Principals whose turn is remembered; who has asked nothing for a while is forgotten first."""


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """How much a peer may ask of a server, in connections, seconds and bytes."""

    connections: int = 4096
    """Of peers whose certificate we know: two or three for each mount."""
    connections_of_a_principal: int = 3072
    """A DN may stand for a thousand workers, and never for all."""
    requests_a_second: float = 1000.0
    """Of one principal, on average; 0 for no limit."""
    burst: int = 5000
    """Requests that a principal may send at once."""
    patience_seconds: float = 5.0
    """For how long a request of a principal who asks too fast, or a long one too many, waits before it is refused."""
    long_messages_of_a_principal: int = 8
    """At once; all others are short, or would fill the memory over three thousand connections."""
    newcomers: int = 8192
    """Connections that have not shaken hands yet, waiting or under way."""
    newcomers_of_a_host: int = 3072
    """A cluster may stand behind one address, and come back all at once."""
    handshakes_of_a_host: int = 256
    """That are under way at once; the others of the host wait for them."""
    farewells: int = 256
    """Peers who are told that there is no place for them, at once; of more, those go who came first."""
    handshake_seconds: float = 10.0
    idle_seconds: float = 75.0
    head_seconds: float = 10.0
    """From the first byte of a request to the end of its head."""
    message_seconds: float = 30.0
    """For the whole body of a request."""
    stall_seconds: float = 60.0
    """For the peer to take 256 KiB of an answer."""
    head_bytes: int = 32 * 2**10
    look_seconds: float = 1.0
    """How often the files of trust are looked at for the sake of those who are connected already."""


class Allowances:
    """The turns of all principals of one server (GCRA, the virtual scheduling algorithm of ITU-T I.371)."""

    def __init__(self, limits: Limits) -> None:
        """Begin with nobody."""
        self._limits = limits
        self._interval = 1 / limits.requests_a_second if limits.requests_a_second else 0.0
        self._slack = limits.burst * self._interval
        self._turns: dict[Dn, float] = {}
        """When the next request of a principal is due, if he asked evenly."""
        self._open: Counter[Dn] = Counter()
        self._places: dict[Dn, trio.Semaphore] = {}
        """Of those whose long messages are under way."""

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
        if ahead > self._limits.patience_seconds:
            rate = self._limits.requests_a_second
            message = f"{dn} asks more than {rate:g} requests a second: ask again in {ahead:.0f} s"
            raise BusyError(message)
        if len(self._turns) >= MAX_REMEMBERED and dn not in self._turns:
            self._forget(now)
        self._turns[dn] = turn + self._interval
        if ahead > SHORTEST_WAIT:
            await trio.sleep(ahead)

    def enter(self, dn: Dn) -> bool:
        """Count a connection; False where the principal has as many as he may. Whoever got in leaves."""
        if self._open[dn] >= self._limits.connections_of_a_principal:
            return False
        self._open[dn] += 1
        return True

    def leave(self, dn: Dn) -> None:
        """Count a connection no longer."""
        self._open[dn] -= 1
        if self._open[dn] <= 0:
            del self._open[dn]

    async def begin_long(self, dn: Dn) -> None:
        """Wait until a principal may send a long message; raises ``BusyError`` where that is too long, else it ends."""
        places = self._places.setdefault(dn, trio.Semaphore(self._limits.long_messages_of_a_principal))
        with trio.move_on_after(self._limits.patience_seconds) as scope:
            await places.acquire()
        if scope.cancelled_caught:
            most = self._limits.long_messages_of_a_principal
            message = f"{dn} sends more than {most} long messages at once: send them one after the other"
            raise BusyError(message)

    def end_long(self, dn: Dn) -> None:
        """Let the next one begin: of this one nothing is kept any more."""
        self._places[dn].release()
        if self._places[dn].value == self._limits.long_messages_of_a_principal:
            del self._places[dn]

    def _forget(self, now: float) -> None:
        """Forget those who may ask at once anyway; where all are busy, the one whose turn is next."""
        over = [dn for dn, turn in self._turns.items() if turn <= now]
        for dn in over or [min(self._turns, key=self._turns.__getitem__)]:
            del self._turns[dn]
