"""One budget of memory for all that a mount keeps, of whichever principal and hospital: what was used longest ago goes.

Kept are headers, shares, listings of directories, and files at hand after their last close. Windows, into which what is
on its way to the disk is received or what is read ahead from it comes, go before all that.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

MEMORY: Final = 256 * 2**20
PUSHED: Final = 4 * 2**20
WINDOW: Final = 2**20
"""Of a transfer, at most: in larger pieces it is no faster."""
SMALLEST_WINDOW: Final = 64 * 2**10


class Held:
    """Something that is kept, as its keeper and the budget both know it."""

    __slots__ = ("drop", "octets")

    def __init__(self, octets: int, drop: Callable[[], None]) -> None:
        """``drop`` lets it go; the budget has forgotten it by then."""
        self.octets = octets
        self.drop = drop


class Memory:
    """What may be kept, and what is; one thing counts as half of that at most, so that none drives out all else."""

    def __init__(self, limit: int = MEMORY, *, pushed: int = PUSHED) -> None:
        """``limit`` is in bytes."""
        self.limit = limit
        self.pushed = pushed
        """Up to which size in bytes files are pushed whole before their open returns."""
        self._held: OrderedDict[Held, None] = OrderedDict()
        self._windowed: dict[Held, None] = {}
        """Those with a window, the one kept first first."""
        self._kept = 0
        self._windows = 0

    @property
    def used(self) -> int:
        """Bytes that are kept, or are windows."""
        return self._kept + self._windows

    def resize(self, limit: int) -> None:
        """Keep so much from now on."""
        self.limit = limit
        for held in self._held:
            held.octets = min(held.octets, limit // 2)
        self._kept = sum(held.octets for held in self._held)
        self._make_room()

    def hold(self, octets: int, drop: Callable[[], None], *, has_window: bool = False) -> Held:
        """Count something that is kept from now on, until ``release``, or until it is dropped for what is used more.

        With ``has_window`` it has taken a window besides, and goes as well where another one needs the room.
        """
        held = Held(min(octets, self.limit // 2), drop)
        self._held[held] = None
        if has_window:
            self._windowed[held] = None
        self._kept += held.octets
        self._make_room()
        return held

    def touch(self, held: Held) -> None:
        """Know that something is used now."""
        self._held.move_to_end(held)

    def spare(self, held: Held) -> None:
        """Know that something can go before all else: what it is needed for is kept in another way."""
        self._held.move_to_end(held, last=False)

    def release(self, held: Held) -> None:
        """Know that something is not kept any more; what was dropped is known already."""
        if held in self._held:
            del self._held[held]
            self._windowed.pop(held, None)
            self._kept -= held.octets

    @contextlib.contextmanager
    def window(self, wanted: int) -> Iterator[int]:
        """Give how many bytes may be received at once, for as long as the block runs: few, where many receive.

        Nobody waits for a window: the smallest is given in any case.
        """
        free = max(self.limit // 2 - self._windows, SMALLEST_WINDOW)
        given = min(wanted, WINDOW, free)
        self._windows += given
        self._make_room()
        try:
            yield given
        finally:
            self._windows -= given

    def has_room(self, octets: int) -> bool:
        """Ask whether half of the budget has room for windows that are held for long."""
        return self._windows + octets <= self.limit // 2

    def take(self, octets: int) -> bool:
        """Count a window that is held for long, until ``give``; False where there is no room for it."""
        if not self.has_room(octets) and not self._drop_windows(octets):
            return False
        self._windows += octets
        self._make_room()
        return True

    def give(self, octets: int) -> None:
        """Know that such a window has gone."""
        self._windows -= octets

    def _drop_windows(self, octets: int) -> bool:
        """Drop what has windows and is only kept, the one kept first first, until another has room."""
        for held in list(self._windowed):
            self.release(held)
            held.drop()
            if self.has_room(octets):
                return True
        return False

    def _make_room(self) -> None:
        """Drop what was used longest ago; what was used last stays."""
        while self.used > self.limit and len(self._held) > 1:
            held = next(iter(self._held))
            self.release(held)
            held.drop()
