"""Files that are at hand without anybody having them open: closed a moment ago, or opened next.

Programs open a file several times, and the files of a directory one after the other. Who opens what is kept needs
neither key nor disk. It counts as a reader of the file and goes with the lease and with a revocation, as what is open
does; and it is held no longer than the shares that opened it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final, NamedTuple

from mdmfs.worker.memory import Held, Memory
from mdmfs.worker.reading.open_file import OpenFile

MAX_WHOLE: Final = 64
"""Each is an open descriptor."""
HEADERS_PART: Final = 2
"""One such part of the budget is for files open by their header: more would take the room of what is still sealed.
Those kept first stay, for a scan of more that begins again would find none of the others."""
ITEM_BYTES: Final = 4 * 2**10
"""What keeping one takes beside the plaintext of its header."""


class _Kept(NamedTuple):
    file: OpenFile
    until: float
    held: Held
    octets: int
    kind: dict[int, None]
    """All of its kind, the one kept first first."""


class KeptFiles:
    """By inode, the one kept first leaving first."""

    def __init__(self, leave: Callable[[OpenFile], None], memory: Memory, clock: Callable[[], float]) -> None:
        """``leave`` counts a reader out; ``clock`` is that of the shares."""
        self._leave = leave
        self._clock = clock
        self._first_end = float("inf")
        """Nothing that is kept ends before."""
        self._memory = memory
        self._kept: dict[int, _Kept] = {}
        self._whole: dict[int, None] = {}
        self._headers: dict[int, None] = {}
        self._header_octets = 0

    def __contains__(self, file: OpenFile) -> bool:
        kept = self._kept.get(file.inode)
        return kept is not None and kept.file is file

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, file: OpenFile, until: float, *, is_next: bool = False) -> None:
        """Take over one reader's count of a file, until a time by the clock; or count him out.

        For one that is probably opened next there is always room: what was kept last makes it.
        """
        self.drop(file.inode)
        octets = ITEM_BYTES + (0 if file.beginning is None else file.beginning.octets)
        kind = self._headers if file.is_header_only else self._whole
        if kind is self._headers:
            if not self._make_room(octets, is_next=is_next):
                self._leave(file)
                return
            self._header_octets += octets
        drop = functools.partial(self.drop, file.inode)
        held = self._memory.hold(octets, drop, has_window=file.is_in_memory)
        self._kept[file.inode] = _Kept(file, until, held, octets, kind)
        kind[file.inode] = None
        self._first_end = min(self._first_end, until)
        if len(self._whole) > MAX_WHOLE:
            self.drop(next(iter(self._whole)))

    def take(self, file: OpenFile) -> bool:
        """Give the reader's count of a file back, where it is kept."""
        if file not in self:
            return False
        self._release(self._kept.pop(file.inode))
        return True

    def drop(self, inode: int) -> None:
        """Let a file go, where it is kept."""
        kept = self._kept.pop(inode, None)
        if kept is not None:
            self._release(kept)
            self._leave(kept.file)

    def drop_outlived(self, inode: int) -> None:
        """Let a file go that was kept long enough."""
        kept = self._kept.get(inode)
        if kept is not None and kept.until <= self._clock():
            self.drop(inode)

    def expire(self) -> None:
        """Let go what was kept long enough."""
        now = self._clock()
        if now < self._first_end:
            return
        for inode in [inode for inode, kept in self._kept.items() if kept.until <= now]:
            self.drop(inode)
        self._first_end = min((kept.until for kept in self._kept.values()), default=float("inf"))

    def clear(self) -> None:
        """Let everything go."""
        for inode in list(self._kept):
            self.drop(inode)

    def clear_whole(self) -> bool:
        """Let everything go that takes room on the disk; tells whether there was anything."""
        inodes = [inode for inode in self._whole if not self._kept[inode].file.is_in_memory]
        for inode in inodes:
            self.drop(inode)
        return bool(inodes)

    def _make_room(self, octets: int, *, is_next: bool) -> bool:
        """Have room for one more header; False where there is none."""
        room = self._memory.limit // HEADERS_PART - octets
        while self._header_octets > room and is_next and self._headers:
            self.drop(next(reversed(self._headers)))
        return self._header_octets <= room or is_next

    def _release(self, kept: _Kept) -> None:
        del kept.kind[kept.file.inode]
        if kept.kind is self._headers:
            self._header_octets -= kept.octets
        self._memory.release(kept.held)
