"""Siblings: programs open the files of a directory in bursts, in order; what comes next is fetched before it is opened.

Only ciphertext is fetched, and the hospital decides about each file as always. Who opens one of them joins the fetch;
whether he may have its key, the keystores decide then.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog
import trio

from mdmfs.model.errors import BusyError, MdmfsError, OutOfSpaceError
from mdmfs.wire.messages.files import MAX_BUNDLE, Node, NodeKind

FIRST_WINDOW: Final = 4
"""Files ahead of the second open of a burst; twice as many with each one that follows."""
UNPROVEN_WINDOW: Final = 64
"""As far as this for who has not opened so many in order yet."""
LARGEST_WINDOW: Final = 128
"""Half of it is asked for in one question, as many files as one may name."""
BUNDLES: Final = 4
"""Asked of the hospital at once."""
AHEAD_BYTES: Final = 64 * 2**20
"""Of plaintext, of all bursts together: what may be under way or waiting to be opened."""
LARGEST_FILE: Final = 8 * 2**20
"""A larger file is long enough to be fetched while it is read."""
MAX_SKIPPED: Final = 2
"""So many files may be left out, and the order is still that of the directory."""
IDLE_SECONDS: Final = 5.0
"""A burst of which nothing was opened for so long is over."""
BUSY_SECONDS: Final = 60.0
"""Without a burst after the hospital said that nothing may be fetched ahead, in its PACS's clinical hours; and after
there was no room for what was."""
MAX_BURSTS: Final = 8

log = structlog.get_logger(__name__)


class Fetcher(Protocol):
    """What is needed of ``mdmfs.worker.opening.Opener``."""

    def has(self, node: Node) -> bool:
        """Ask whether the ciphertext of a file is here, or on its way."""

    async def prefetch(self, nodes: Sequence[Node]) -> None:
        """Bring them here; raises why one does not come. Cancelled, it stops, but for those opened meanwhile."""


class Burst:
    """One directory that is read in order: what was opened last, and how far ahead of it is fetched."""

    def __init__(self, position: int, now: float) -> None:
        self.begun = now
        self.last_open = now
        self.expected = position + 1
        """Where the next open is."""
        self.window = 0
        """Files."""
        self.opened = 0
        """In order."""
        self.frontier = position + 1
        """What lies before it has been opened or asked for."""
        self.sizes: dict[int, int] = {}
        """By position, of the files that were asked for and not opened yet."""
        self.is_watched = False
        """Whether somebody looks at how long it has been idle."""
        self.scopes: set[trio.CancelScope] = set()

    def follows(self, position: int) -> bool:
        """Ask whether an open is in order; programs open the same file several times."""
        return self.expected - 1 <= position <= self.expected + MAX_SKIPPED

    def advance(self, position: int, now: float) -> None:
        """Note an open in order."""
        self.last_open = now
        if position >= self.expected:
            self.opened += 1
            largest = LARGEST_WINDOW if self.opened > UNPROVEN_WINDOW else UNPROVEN_WINDOW
            self.window = min(max(2 * self.window, FIRST_WINDOW), largest)
            self.expected = position + 1
            self.frontier = max(self.frontier, self.expected)
        for behind in [other for other in self.sizes if other < self.expected]:
            del self.sizes[behind]


class SiblingPrefetch:
    """All bursts of a mount, under one budget of bytes and bundles."""

    def __init__(
        self, fetcher: Fetcher, nursery: trio.Nursery, *, budget: Callable[[], int] = lambda: AHEAD_BYTES
    ) -> None:
        """``budget`` is in bytes, and may change. The nursery outlives all bursts."""
        self._fetcher = fetcher
        self._nursery = nursery
        self._budget = budget
        self._bursts: OrderedDict[int, Burst] = OrderedDict()
        self._places = trio.CapacityLimiter(BUNDLES)
        self._not_before = float("-inf")

    def note_open(self, directory: int, nodes: Sequence[Node], position: int) -> None:
        """Hear of an open of one of a directory's entries, which are given in the order of the directory."""
        now = trio.current_time()
        if now < self._not_before:
            return
        burst = self._bursts.get(directory)
        if burst is None or not burst.follows(position):
            self.stop(directory)
            self._begin(directory, Burst(position, now))
            return
        self._bursts.move_to_end(directory)
        burst.advance(position, now)
        if not burst.is_watched:
            burst.is_watched = True
            self._nursery.start_soon(self._watch, directory, burst)
        self._fill(directory, burst, nodes)

    def note_closed(self, directory: int, opened: float) -> None:
        """Hear that a handle of a directory was closed: whoever went through it with that one has finished."""
        burst = self._bursts.get(directory)
        if burst is not None and opened < burst.begun:
            self.stop(directory)

    def stop(self, directory: int) -> None:
        """End a burst, and what is under way for it."""
        burst = self._bursts.pop(directory, None)
        if burst is not None:
            for scope in burst.scopes:
                scope.cancel()

    def _begin(self, directory: int, burst: Burst) -> None:
        self._bursts[directory] = burst
        if len(self._bursts) > MAX_BURSTS:
            self.stop(next(iter(self._bursts)))

    def _fill(self, directory: int, burst: Burst, nodes: Sequence[Node]) -> None:
        """Ask for what lies within the window and the budget, many at once: the PACS then sends them in one go."""
        if burst.frontier > burst.expected + burst.window // 2:
            return
        end = min(burst.expected + burst.window, len(nodes))
        wanted: list[Node] = []
        while burst.frontier < end and len(wanted) < MAX_BUNDLE:
            node = nodes[burst.frontier]
            is_wanted = node.kind is NodeKind.FILE and node.size <= LARGEST_FILE and not self._fetcher.has(node)
            if is_wanted and self._ahead() + node.size > self._budget():
                break
            if is_wanted:
                burst.sizes[burst.frontier] = node.size
                wanted.append(node)
            burst.frontier += 1
        if wanted:
            self._nursery.start_soon(self._bring, directory, burst, wanted)

    def _ahead(self) -> int:
        return sum(sum(burst.sizes.values()) for burst in self._bursts.values())

    async def _bring(self, directory: int, burst: Burst, nodes: Sequence[Node]) -> None:
        """Fetch some files; one that cannot be had ends the burst, since the others would meet the same."""
        scope = trio.CancelScope()
        burst.scopes.add(scope)
        try:
            with scope:
                async with self._places:
                    await self._fetcher.prefetch(nodes)
        except MdmfsError as error:
            if isinstance(error, BusyError | OutOfSpaceError):
                self._not_before = trio.current_time() + BUSY_SECONDS
            log.debug("a burst ends, a sibling cannot be fetched ahead", code=error.code)
            if self._bursts.get(directory) is burst:
                self.stop(directory)
        finally:
            burst.scopes.discard(scope)

    async def _watch(self, directory: int, burst: Burst) -> None:
        """End a burst that nobody follows any more."""
        while self._bursts.get(directory) is burst:
            if trio.current_time() >= burst.last_open + IDLE_SECONDS:
                self.stop(directory)
                return
            await trio.sleep_until(burst.last_open + IDLE_SECONDS)
