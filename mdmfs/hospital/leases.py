"""Leases: which mounts may still serve what they hold, and up to where each has heard of the changes (decision 16)."""

from __future__ import annotations

import dataclasses
from typing import Final

import trio

from mdmfs.model.identity import Principal

MAX_MOUNTS: Final = 100_000
SILENCE: Final = 60.0
"""Seconds without a question after which a mount that holds no lease is forgotten: twice as long as one may wait."""
REPORTS: Final = 1024
"""Reports of a mount that are told apart: what was opened by those whom others followed may come after theirs."""
LOOK_SECONDS: Final = 1.0
"""Between two searches for mounts to forget: a thousand that come back together cost one."""


@dataclasses.dataclass(slots=True)
class Lease:
    """What is known of one mount."""

    principal: Principal
    address: str
    applied: int
    """The version of the feed that it has applied."""
    heard: float
    """When it asked last, on trio's clock."""
    until: float = float("-inf")
    """On trio's clock; the mount itself counts from when it asked, which is earlier."""
    is_given_back: bool = False
    """Then no question of that mount that was under way gets another one."""


@dataclasses.dataclass(slots=True)
class _Reports:
    """Which reports of one mount are written down, whoever it spoke for: they may come in another order."""

    latest: int = 0
    seen: int = 0
    """Bit k: that with the number ``latest - k``."""

    def note(self, number: int) -> bool:
        """Note a report; False where it was noted before, or may have been."""
        if number > self.latest:
            self.seen = self.seen << min(number - self.latest, REPORTS) & (1 << REPORTS) - 1
            self.latest = number
        age = self.latest - number
        if age >= REPORTS or self.seen >> age & 1:
            return False
        self.seen |= 1 << age
        return True

    def take_back(self, number: int) -> None:
        """Know that a report which was noted has not been written down."""
        self.seen &= ~(1 << min(self.latest - number, REPORTS))


class Leases:
    """The mounts that hold a lease. After a start there may be others, until the longest lease has passed."""

    def __init__(self, room: int = MAX_MOUNTS) -> None:
        """Know of no mount; of ``room`` at most."""
        self._room = room
        self._leases: dict[tuple[str, bytes], Lease] = {}
        self._reported: dict[bytes, _Reports] = {}
        """By mount, whoever it speaks for by now: what one has opened is no other's."""
        self._look_again = float("-inf")
        self._unknown_until = float("-inf")

    def begin(self, longest: float) -> None:
        """Reckon with mounts that an earlier process granted a lease of up to so many seconds."""
        self._unknown_until = trio.current_time() + longest

    def hear(self, mount: bytes, principal: Principal, address: str, applied: int) -> None:
        """Note up to where a mount has applied the feed."""
        key, now = (str(principal.dn), mount), trio.current_time()
        lease = self._leases.get(key)
        if lease is None:
            self._forget_silent(now)
            if len(self._leases) < self._room:
                self._leases[key] = Lease(principal, address, applied, now)
            return
        lease.principal, lease.address, lease.heard, lease.applied = principal, address, now, applied

    def grant(self, mount: bytes, principal: Principal, seconds: float) -> float:
        """Grant a lease from now on, and give its seconds; 0 without room for it, or after one was given back."""
        lease = self._leases.get((str(principal.dn), mount))
        if lease is None or lease.is_given_back:
            return 0.0
        lease.until = max(lease.until, trio.current_time() + seconds)
        return seconds

    def give_back(self, mount: bytes, principal: Principal) -> None:
        """Know that a mount has ended, by its own word; who names another principal's changes nothing."""
        lease = self._leases.get((str(principal.dn), mount))
        if lease is not None:
            lease.until, lease.is_given_back = float("-inf"), True

    def reported(self, mount: bytes, principal: Principal, number: int) -> bool:
        """Note that a mount's report is being written down; False where it has been."""
        if (str(principal.dn), mount) not in self._leases:
            return True
        return self._reported.setdefault(mount, _Reports()).note(number)

    def unreport(self, mount: bytes, number: int) -> None:
        """Know that it could not be written down."""
        if mount in self._reported:
            self._reported[mount].take_back(number)

    def behind(self, version: int) -> list[Lease]:
        """Give the mounts that hold a lease and have not applied a version of the feed."""
        now = trio.current_time()
        return [lease for lease in self._leases.values() if lease.applied < version and lease.until >= now]

    def seconds_unknown(self) -> float:
        """Tell for how long there may be mounts that are not known here."""
        return max(0.0, self._unknown_until - trio.current_time())

    def _forget_silent(self, now: float) -> None:
        """Forget who holds no lease and does not ask for one: not who has just come, and is to be granted one."""
        if now < self._look_again:
            return
        self._look_again = now + LOOK_SECONDS
        for key in [key for key, one in self._leases.items() if max(one.until, one.heard + SILENCE) < now]:
            del self._leases[key]
        mounts = {mount for _, mount in self._leases}
        self._reported = {mount: reports for mount, reports in self._reported.items() if mount in mounts}
