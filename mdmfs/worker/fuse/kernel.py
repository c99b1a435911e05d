"""What the kernel remembers on our behalf: plaintext pushed into its page cache, and what it must forget again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Final, cast

import pyfuse3
import trio
from pyfuse3 import FileNameT, InodeT

NAMES_AT_ONCE: Final = 1000

_forgetting = trio.CapacityLimiter(2)
"""A forgetting may wait for a request that is being answered; it must not hold the threads that answer it."""


class KernelCaches:
    """The caches of one mount. Those that push and invalidate pages are for worker threads.

    The kernel throws pages away as it likes, and may not know an inode any more; no error of it matters here.
    """

    def __init__(self) -> None:
        self._idle = threading.Condition()
        self._calls = 0
        self._is_shut = False

    def store(self, inode: int, offset: int, octets: memoryview) -> None:
        """Push plaintext; waits behind a pending READ of the same pages."""
        with contextlib.suppress(OSError), self._calling() as is_open:
            if is_open:
                pyfuse3.notify_store(InodeT(inode), offset, cast("bytes", octets))  # any buffer will do

    def invalidate(self, inode: int) -> None:
        """Take back the pages and attributes of an inode; waits behind its pending READs."""
        with contextlib.suppress(OSError), self._calling() as is_open:
            if is_open:
                pyfuse3.invalidate_inode(InodeT(inode))

    async def forget_names(self, directory: int, names: list[bytes]) -> None:
        """Let the kernel look these names up again, and the directory's own attributes."""
        for begin in range(0, len(names), NAMES_AT_ONCE):
            await trio.to_thread.run_sync(
                self._forget_names, directory, names[begin : begin + NAMES_AT_ONCE], limiter=_forgetting
            )
        await trio.to_thread.run_sync(self._forget_attributes, directory, limiter=_forgetting)

    def shut(self, patience: float = 5.0) -> None:
        """Let no call begin any more and wait for those under way: they use the session that is freed next."""
        with self._idle:
            self._is_shut = True
            self._idle.wait_for(lambda: not self._calls, patience)

    @contextlib.contextmanager
    def _calling(self) -> Iterator[bool]:
        with self._idle:
            is_open = not self._is_shut
            self._calls += 1
        try:
            yield is_open
        finally:
            with self._idle:
                self._calls -= 1
                self._idle.notify_all()

    def _forget_names(self, directory: int, names: list[bytes]) -> None:
        for name in names:
            with contextlib.suppress(OSError), self._calling() as is_open:
                if is_open:
                    pyfuse3.invalidate_entry(InodeT(directory), FileNameT(name))

    def _forget_attributes(self, inode: int) -> None:
        with contextlib.suppress(OSError), self._calling() as is_open:
            if is_open:
                pyfuse3.invalidate_inode(InodeT(inode), attr_only=True)
