"""Which files come into some folders and go from them, as the kernel tells it: not what was there (inotify(7))."""

from __future__ import annotations

import ctypes
import os
import select
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_MOVED_TO: Final = 0x80
_DELETED: Final = 0x200
_IGNORED: Final = 0x8000
"""A folder is watched no more: it was removed, or its disk unmounted."""
_ONLY_A_FOLDER: Final = 0x0100_0000
_EVENT: Final = struct.Struct("@iIII")
"""``struct inotify_event``: watch, kind, cookie, length of the name that follows."""
_BUFFER: Final = 2**16

_libc = ctypes.CDLL(None, use_errno=True)


class FolderWatch:
    """Watches folders; whoever opens it closes it. What happens while too much waits to be told of is not told of.

    One for all of a process: a user may have few, and other programs of his want some.
    """

    def __init__(self) -> None:
        """Watch nothing yet; raises ``OSError``, as where this user has too many already."""
        self._descriptor = _told(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._news = select.poll()
        self._news.register(self._descriptor, select.POLLIN)
        self._folders: dict[int, Path] = {}
        self.lost: set[Path] = set()
        """Folders that are watched no more, until somebody takes them out of here."""

    def add(self, folder: Path) -> None:
        """Watch a folder from now on; raises ``OSError``."""
        kinds = _MOVED_TO | _DELETED | _ONLY_A_FOLDER
        self._folders[_told(_libc.inotify_add_watch(self._descriptor, os.fsencode(folder), kinds))] = folder

    def close(self) -> None:
        """Watch no more; a second time changes nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def news(self) -> list[tuple[Path, str, bool]]:
        """Give what happened since it was asked last, one's own doings too: folder, name, and whether it came or went.

        Of very much it is the oldest part, some 600 of them, so that nobody waits for it; the rest is given next time.
        """
        if self._descriptor < 0 or not self._news.poll(0):  # each open asks, and mostly there is nothing
            return []
        return list(self._parse(os.read(self._descriptor, _BUFFER)))

    def _parse(self, events: bytes) -> Iterator[tuple[Path, str, bool]]:
        begin = 0
        while begin < len(events):
            watch, kind, _, length = _EVENT.unpack_from(events, begin)
            begin += _EVENT.size
            if kind & _IGNORED:
                self.lost.add(self._folders.pop(watch))
            elif kind & (_MOVED_TO | _DELETED):
                name = os.fsdecode(events[begin : begin + length].rstrip(b"\0"))
                yield self._folders[watch], name, bool(kind & _MOVED_TO)
            begin += length


def _told(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer
