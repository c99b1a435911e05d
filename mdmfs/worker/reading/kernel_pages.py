"""Which pages of files the kernel has, or may have, and how they are taken back."""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator, Mapping
from typing import Final

import trio

from mdmfs.worker.reading.pages import Pages

PAGE: Final = mmap.PAGESIZE

_forgetting = trio.CapacityLimiter(64)
"""Apart from all others: each may wait for a read that waits for the lease, or for a thread."""


class KernelPages:
    """What is known of the kernel's pages, by inode."""

    def __init__(self, port: Pages) -> None:
        self.port = port
        """Where they are put."""
        self._whole: set[int] = set()
        self._some: set[int] = set()

    def note_some(self, inode: int) -> None:
        """Know that the kernel may have pages of an inode from now on."""
        self._some.add(inode)

    def note_whole(self, inode: int) -> None:
        """Know that all pages of an inode were pushed."""
        self._whole.add(inode)

    def has_whole(self, inode: int) -> bool:
        """Tell whether all pages of an inode were pushed, and none has been asked for since."""
        return inode in self._whole

    def note_asked(self, inode: int) -> None:
        """Know that a page is asked for: so the kernel has not all of them."""
        self._whole.discard(inode)

    def forget(self, inode: int) -> None:
        """Know that the kernel has dropped an inode and its pages."""
        self.note_asked(inode)
        self._some.discard(inode)

    def forget_whole(self) -> None:
        """Take it that the kernel has all pages of no file."""
        self._whole.clear()

    async def take_back(self, inode: int, piece: tuple[int, int | None] | tuple[()] = ()) -> None:
        """Take back the pages of an inode, or of a piece of it; waits for a read of any of them."""
        await trio.to_thread.run_sync(self.port.invalidate, inode, *piece, limiter=_forgetting)

    async def take_all_back(self, reads: Mapping[int, Collection[range]]) -> None:
        """Take back the pages of every file that was opened, around the reads of each that wait.

        What is taken back in one step waits for a read of any of it, so it is done piece by piece between those reads.
        """
        self.forget_whole()
        async with trio.open_nursery() as nursery:
            for inode in list(self._some):
                for piece in pieces_between(reads.get(inode, ())):
                    nursery.start_soon(self.take_back, inode, piece)


def pieces_between(reads: Collection[range]) -> Iterator[tuple[int, int | None]]:
    """Give the ranges of a file, at the edges of pages, that no read touches; the last one has no end."""
    begin = 0
    for read in sorted(reads, key=lambda read: read.start):
        end = read.start // PAGE * PAGE
        if end > begin:
            yield begin, end
        begin = max(begin, -(-read.stop // PAGE) * PAGE)
    yield begin, None
