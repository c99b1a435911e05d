"""Files that are at hand without anybody having them open: closed a moment ago, or opened next.

Programs open a file several times, and the files of a directory one after the other. Who opens what is kept needs
neither key nor disk. It counts as a reader of the file and goes with the lease and with a revocation, as what is open
does; and it is held no longer than the shares that opened it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import trio

from mdmfs.worker.open_file import OpenFile

MAX_KEPT: Final = 64
"""Each is an open descriptor."""


class KeptFiles:
    """By inode, the one kept first leaving first."""

    def __init__(self, leave: Callable[[OpenFile], None]) -> None:
        """``leave`` counts a reader out."""
        self._leave = leave
        self._kept: OrderedDict[int, tuple[OpenFile, float]] = OrderedDict()

    def __contains__(self, file: OpenFile) -> bool:
        kept = self._kept.get(file.inode)
        return kept is not None and kept[0] is file

    def keep(self, file: OpenFile, until: float) -> None:
        """Take over one reader's count of a file, until a time on trio's clock."""
        self.drop(file.inode)
        self._kept[file.inode] = file, until
        if len(self._kept) > MAX_KEPT:
            self.drop(next(iter(self._kept)))

    def take(self, file: OpenFile) -> bool:
        """Give the reader's count of a file back, where it is kept."""
        if file not in self:
            return False
        del self._kept[file.inode]
        return True

    def drop(self, inode: int) -> None:
        """Let a file go, where it is kept."""
        kept = self._kept.pop(inode, None)
        if kept is not None:
            self._leave(kept[0])

    def drop_outlived(self, inode: int) -> None:
        """Let a file go that was kept long enough."""
        kept = self._kept.get(inode)
        if kept is not None and kept[1] <= trio.current_time():
            self.drop(inode)

    def expire(self) -> None:
        """Let go what was kept long enough."""
        now = trio.current_time()
        for inode in [inode for inode, (_, until) in self._kept.items() if until <= now]:
            self.drop(inode)

    def clear(self) -> None:
        """Let everything go."""
        for inode in list(self._kept):
            self.drop(inode)
