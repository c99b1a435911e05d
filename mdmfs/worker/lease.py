"""The lease: for how long what is here may be served without a word from the hospital (docs/adr/0010).

A lease that lapses is no revocation. Keys and pages go; who reads, opens or looks waits, and goes on when the hospital
is heard again. EACCES comes only from a decision that was received.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

import structlog
import trio

from mdmfs.model.errors import AccessDeniedError, MdmfsError, PeerTimedOutError, PeerUnreachableError, again

LOOK_SECONDS: Final = 0.1
MARGIN: Final = 0.05
"""Of a lease: so early before its end pages begin to go, while every read is still answered. What goes then need not
wait for reads that wait."""
AGAIN: Final = 0.1
ASK_AGAIN: Final = 0.5
"""Seconds between two tries to reach the hospital, for somebody who waits for it."""
WAIT: Final = 120.0
LONGEST_POLL: Final = 30.0

T = TypeVar("T")

log = structlog.get_logger(__name__)


def boottime() -> float:
    """Tell the seconds since the machine started, those included that it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Tenant(Protocol):
    """Who holds what the lease is for."""

    def suspend(self) -> None:
        """Let keys go, and no page come."""

    def resume(self) -> None:
        """Get keys again for those who wait; the keystores decide anew."""

    async def forget_pages(self) -> None:
        """Take back what the kernel has of any file."""

    async def forget_everything(self) -> None:
        """Take back pages and names."""


class Lease:
    """One mount's lease, and the gate that everyone passes who wants something of a file or a name."""

    def __init__(
        self, clock: Callable[[], float] = boottime, *, wait: float = WAIT, patience: float | None = None
    ) -> None:
        """``clock`` counts on while the machine sleeps; ``wait`` is how many seconds somebody waits at the gate.

        ``patience`` is for how many he waits who, under a lease, needs a hospital that cannot be reached; as long,
        unless it is given.
        """
        self.clock = clock
        self.patience = wait if patience is None else patience
        self._wait = wait
        self._until = float("-inf")
        self._seconds = 0.0
        self._refusal: MdmfsError | None = None
        self._failure: MdmfsError | None = None
        self._is_lapsed = True
        """Until ``keep`` has seen it: what was held before goes first."""
        self._was_held = False
        self._has_ended = False
        self._lapses = 0
        self._asking: set[trio.CancelScope] = set()
        """Who was let through, and has not got yet what he wants."""
        self._change = trio.Event()

    @property
    def is_held(self) -> bool:
        """Whether something may be served at this instant."""
        return not self._is_lapsed and self._refusal is None and self.clock() < self._until

    @property
    def health(self) -> str:
        """In one line, whether the hospital is heard, and why not."""
        if self.is_held:
            return f"heard, the lease runs for {self.seconds_left():.0f} s more"
        reason = self._refusal or self._failure
        return "not heard yet" if reason is None else str(reason)

    def seconds_left(self) -> float:
        """Tell for how long what is told now may be remembered."""
        return max(0.0, self._until - self.clock()) if self.is_held else 0.0

    def seconds_to_ask(self) -> float:
        """Tell how long a question may wait for changes, so that its answer renews the lease in good time."""
        return min(LONGEST_POLL, self._seconds / 3) if self.is_held else 0.0

    def grant(self, sent: float, seconds: float) -> None:
        """Take a lease that was asked for at ``sent``, by ``clock``."""
        if self._has_ended:
            return
        self._seconds, self._until = seconds, sent + seconds
        self._refusal = self._failure = None
        if not self._was_held:
            self._was_held, self._is_lapsed = True, False
        self._tell()

    def fail(self, error: MdmfsError) -> None:
        """Know that there was no answer. Who waits goes on waiting, unless there never was a lease."""
        self._failure = error
        self._tell()

    def refuse(self, error: MdmfsError) -> None:
        """Take a decision: this identity gets no lease any more."""
        self._refusal = error
        self._tell()

    def end(self) -> None:
        """Serve nothing any more, whatever is granted later: it is given back."""
        self._has_ended = True
        self.refuse(AccessDeniedError("the mount has ended"))

    async def held(self, ask: Callable[[], Awaitable[T]], *, patience: float | None = None) -> T:
        """Ask while the lease is held, and give what came if it still is; else wait, and ask again.

        A hospital that cannot be reached is asked again for a while: it may just be starting. ``patience`` is for
        whoever sees to that himself. Raises ``PeerTimedOutError`` after ``wait`` seconds without a lease, what a
        refusal said, and what ``ask`` raises.
        """
        patience = self.patience if patience is None else patience
        give_up_at = float("inf")
        while True:
            await self.wait()
            asked, lapses = trio.current_time(), self._lapses
            try:
                found = await self._ask(ask)
            except PeerUnreachableError:
                give_up_at = min(give_up_at, asked + patience)
                if trio.current_time() >= give_up_at:
                    raise
                with trio.move_on_after(ASK_AGAIN):
                    await self._change.wait()
                continue
            except PeerTimedOutError:
                if lapses == self._lapses or self._is_given_up:
                    raise
                continue  # it was asked of a hospital that has gone since
            if self.is_held:
                return found

    async def _ask(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask, and wait for the answer no longer than without a lease anybody waits."""
        with trio.CancelScope() as scope:
            self._asking.add(scope)
            try:
                return await ask()
            finally:
                self._asking.discard(scope)
        self._refuse()
        raise self._not_heard()

    async def wait(self) -> None:
        """Wait until the lease is held."""
        if self.is_held:
            return
        with trio.move_on_after(self._wait):
            while not self.is_held:
                self._refuse()
                # it may lapse by the clock alone, and nobody tells of that
                with trio.move_on_after(LOOK_SECONDS if not self._is_lapsed else self._wait):
                    await self._change.wait()
            return
        self._refuse()
        raise self._not_heard()

    async def keep(self, tenant: Tenant, nursery: trio.Nursery) -> None:
        """Make the tenant let go when the lease ends, and go on when it is held again; for ever."""
        is_warned = False
        while True:
            change, now = self._change, self.clock()
            is_over = self._was_held and (now >= self._until or self._refusal is not None)
            if self._is_lapsed and self._was_held and not is_over:
                log.info("the hospital is heard again")
                tenant.resume()
                self._is_lapsed = is_warned = False
                self._tell()
            elif is_over and not self._is_lapsed:
                log.warning("the lease has lapsed: who reads waits", is_refused=self._refusal is not None)
                self._is_lapsed = True
                self._lapses += 1
                tenant.suspend()
                self._tell()
                nursery.start_soon(_forget, tenant, self._refusal is not None)
            elif not is_warned and not self._is_lapsed and now >= self._ends_soon_at:
                is_warned = True
                nursery.start_soon(tenant.forget_pages)
            elif now < self._ends_soon_at:
                is_warned = False
            if self._is_lapsed and self._is_given_up_at(now):
                for asking in self._asking:
                    asking.cancel()
            with trio.move_on_after(self._seconds_to_rest(now, is_warned=is_warned)):
                await change.wait()

    def look_again(self) -> None:
        """Look at the clock now: it went on while the machine slept, and nothing that waits has seen that."""
        self._tell()

    def _seconds_to_rest(self, now: float, *, is_warned: bool) -> float:
        """Tell for how long nothing is to be done, unless something changes; what was due ``now`` has been done."""
        ends = self._until if is_warned else self._ends_soon_at
        due = self._until + self._wait if self._is_lapsed else ends
        return due - now if due > now else float("inf")

    @property
    def _ends_soon_at(self) -> float:
        return self._until - MARGIN * self._seconds

    @property
    def _is_given_up(self) -> bool:
        """Whether nobody waits any more who has waited since the lease lapsed."""
        return self._is_given_up_at(self.clock())

    def _is_given_up_at(self, now: float) -> bool:
        return self._refusal is not None or now >= self._until + self._wait

    def _refuse(self) -> None:
        """Raise what is decided, or, where there never was a lease, why there is none."""
        error = self._refusal or (None if self._was_held else self._failure)
        if error is not None:
            raise again(error) from error

    def _not_heard(self) -> PeerTimedOutError:
        message = f"the hospital was not heard for {self._wait:g} s, and nothing may be served without a lease from it"
        return PeerTimedOutError(message)

    def _tell(self) -> None:
        self._change.set()
        self._change = trio.Event()


async def _forget(tenant: Tenant, is_refused: bool) -> None:  # noqa: FBT001 the one thing that is asked
    """Take back what is there, twice: a read that was answered at the last moment may have brought a page since."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tenant.forget_everything if is_refused else tenant.forget_pages)
        await trio.sleep(AGAIN)
        nursery.start_soon(tenant.forget_pages)
