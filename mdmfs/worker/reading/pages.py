"""The port to the page cache of whoever reads through us: worker threads push plaintext there and take it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Pages(Protocol):
    """A page cache by inode.

    Both calls may wait for a pending read of the same pages. Tasks leave them to threads, unless nobody has the file
    open.
    """

    def store(self, inode: int, offset: int, octets: memoryview) -> None:
        """Put plaintext there. It may be thrown away at any time, or be refused: reads then come to us."""

    def invalidate(self, inode: int, begin: int = 0, end: int | None = None) -> None:
        """Take back what is there of an inode, all of it or a range of bytes at the edges of pages."""

    def meanwhile(self, work: Callable[[], None], *, gives_way: bool = False) -> None:
        """Do this in the loop as soon as no request waits for it, once, however often it is asked for until then.

        ``gives_way``: what the program just answered asks at once comes before it. It raises nothing, and is done
        before anybody sleeps.
        """
