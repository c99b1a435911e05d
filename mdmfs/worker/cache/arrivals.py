"""Which files others move into a folder, as the kernel tells it: what was there before is not told of (inotify(7))."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from pathlib import Path
from typing import Final

_MOVED_TO: Final = 0x80
_ONLY_A_FOLDER: Final = 0x0100_0000
_EVENT: Final = struct.Struct("@iIII")
"""``struct inotify_event``: watch, kind, cookie, length of the name that follows."""
_BUFFER: Final = 2**16

_libc = ctypes.CDLL(None, use_errno=True)


class Arrivals:
    """Tells of a folder; whoever opens it closes it. What comes while too much waits to be told of is not told of."""

    def __init__(self, folder: Path) -> None:
        """Listen from now on; raises ``OSError``, as where this user listens in too many places already."""
        self._descriptor = _told(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            _told(_libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _MOVED_TO | _ONLY_A_FOLDER))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Listen no more; a second time changes nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def names(self) -> list[str]:
        """Give the names that came since it was asked last, one's own among them."""
        names: list[str] = []
        with contextlib.suppress(BlockingIOError):
            while self._descriptor >= 0:
                names += _names(os.read(self._descriptor, _BUFFER))
        return names


def _names(events: bytes) -> list[str]:
    names, begin = [], 0
    while begin < len(events):
        *_, kind, _, length = _EVENT.unpack_from(events, begin)
        begin += _EVENT.size
        if kind & _MOVED_TO:
            names.append(os.fsdecode(events[begin : begin + length].rstrip(b"\0")))
        begin += length
    return names


def _told(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer
