"""What the kernel remembers on our behalf: plaintext pushed into its page cache, and what it must forget again."""

from __future__ import annotations

import os
import select
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, cast

import pyfuse3
import trio
from prometheus_client import Counter
from pyfuse3 import FileNameT, InodeT

PUSHED: Final = Counter("mdmfs_pushed_bytes", "Plaintext that was put into the page cache.")
NAMES_AT_ONCE: Final = 1000
AT_ONCE: Final = 100e-6
"""Seconds. A program that has a file open looks for what is in it after 30 us; the next one it opens after 300."""
_SELECTABLE: Final = 1024
"""FD_SETSIZE. Only ``select`` counts less than a millisecond."""
_DESCRIPTORS: Final = "/proc/self/fd"
_NOTICE: Final = struct.Struct("=IiQQqq")
"""Length, code, 0; inode, offset, length (Linux include/uapi/linux/fuse.h)."""
_INVALIDATE: Final = 2

_forgetting = trio.CapacityLimiter(2)
"""A forgetting may wait for a request that is being answered; it must not hold the threads that answer it."""


class KernelCaches:
    """The caches of one mount. Those that push and invalidate pages are for worker threads.

    The kernel throws pages away as it likes, and may not know an inode any more; no error of it matters here.
    """

    def __init__(self, device: int | None = None) -> None:
        """``device``: the descriptor that the mount is served over; None to look for the one of this process."""
        self._calls = _Calls()
        self._device = device
        self._is_asked = False
        """Whether anybody tells of moments without requests."""
        self._work: dict[Callable[[], None], bool] = {}
        """Of each who asks for some, in order; with whether it has still to give way."""

    def store(self, inode: int, offset: int, octets: memoryview) -> None:
        """Push plaintext; waits behind a pending READ of the same pages."""
        with self._calls as is_open:
            if is_open:
                pyfuse3.notify_store(InodeT(inode), offset, cast("bytes", octets))  # any buffer will do
                PUSHED.inc(len(octets))

    def invalidate(self, inode: int, begin: int = 0, end: int | None = None) -> None:
        """Take back the pages and attributes of an inode; waits behind the pending READs of what is taken back."""
        with self._calls as is_open:
            if is_open and begin == 0 and end is None:
                pyfuse3.invalidate_inode(InodeT(inode))
            elif is_open and (end is None or end > begin):
                # pyfuse3 knows no ranges; the notice is one write of 40 bytes (fuse_notify_inval_inode_out)
                length = 0 if end is None else end - begin
                os.write(self._descriptor(), _NOTICE.pack(_NOTICE.size, _INVALIDATE, 0, inode, begin, length))

    def meanwhile(self, work: Callable[[], None], *, gives_way: bool = False) -> None:
        """See ``Pages``; where nobody tells of moments without requests, at once."""
        if self._is_asked:
            self._work[work] = gives_way
        else:
            work()

    def do_meanwhile(self) -> bool:
        """Do one thing that waits for a moment without requests; tells whether to look for requests again."""
        self._is_asked = True
        work = next(iter(self._work), None)
        if work is None:
            return False
        gives_way, self._work[work] = self._work[work], False
        if gives_way and self._is_asked_again():
            return True
        del self._work[work]
        work()
        return True

    def _is_asked_again(self) -> bool:
        """Wait for what a program asks as soon as it was answered: Python for a terminal, once it has opened a file."""
        device = self._descriptor()
        return device < _SELECTABLE and bool(select.select([device], [], [], AT_ONCE)[0])

    async def forget_names(self, directory: int, names: list[bytes]) -> None:
        """Let the kernel look these names up again, and the directory's own attributes."""
        for begin in range(0, len(names), NAMES_AT_ONCE):
            await trio.to_thread.run_sync(
                self._forget_names, directory, names[begin : begin + NAMES_AT_ONCE], limiter=_forgetting
            )
        await trio.to_thread.run_sync(self._forget_attributes, directory, limiter=_forgetting)

    def is_gone(self) -> bool:
        """Ask whether the kernel has unmounted: nobody waits for an answer any more."""
        device = select.poll()
        device.register(self._descriptor(), 0)
        return any(events & (select.POLLERR | select.POLLNVAL) for _, events in device.poll(0))

    def _descriptor(self) -> int:
        """Find the device that this process serves its mount over."""
        if self._device is None:
            found = (int(name) for name in os.listdir(_DESCRIPTORS) if _leads_to_fuse(name))  # noqa: PTH208 numbers
            self._device = next(found)
        return self._device

    def shut(self, patience: float = 5.0) -> None:
        """Let no call begin any more and wait for those under way: they use the session that is freed next."""
        self._calls.shut(patience)

    def _forget_names(self, directory: int, names: list[bytes]) -> None:
        for name in names:
            with self._calls as is_open:
                if is_open:
                    pyfuse3.invalidate_entry(InodeT(directory), FileNameT(name))

    def _forget_attributes(self, inode: int) -> None:
        with self._calls as is_open:
            if is_open:
                pyfuse3.invalidate_inode(InodeT(inode), attr_only=True)


class _Calls:
    """Calls of the kernel that are under way, each one such block, out of which no ``OSError`` comes.

    Not a generator, since each header that is opened is two of them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._count = 0
        self._is_shut = False

    def __enter__(self) -> bool:
        """Tell whether the call may be made."""
        with self._lock:
            self._count += 1
            return not self._is_shut

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        with self._lock:
            self._count -= 1
            if self._is_shut:
                self._ended.notify_all()
        return isinstance(error, OSError)

    def shut(self, patience: float) -> None:
        """Let none begin any more, and wait for those under way."""
        with self._lock:
            self._is_shut = True
            self._ended.wait_for(lambda: not self._count, patience)


def _leads_to_fuse(name: str) -> bool:
    try:
        return str(Path(_DESCRIPTORS, name).readlink()) == "/dev/fuse"
    except OSError:
        return False
