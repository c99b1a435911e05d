"""The control files of FUSE connections: their limits, and the cut (Linux, Documentation/filesystems/fuse.rst).

Usually they are mounted, by systemd. Where they are not, root opens that file system without mounting it anywhere
(fsopen(2) and fsmount(2), Linux 5.2): it is gone again when it is closed, and nobody else sees it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CONNECTIONS: Final = Path("/sys/fs/fuse/connections")
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_CLOSE_ON_EXEC: Final = 1
_CREATE: Final = 6

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def connections(usual: Path = CONNECTIONS) -> Iterator[Path]:
    """Give the folder that has one for each connection, for a block; where it is not to be had, ``usual`` has none."""
    opened = -1
    if not usual.is_mount():
        with contextlib.suppress(OSError):
            opened = _open_unmounted()
    try:
        yield usual if opened < 0 else Path(f"/proc/self/fd/{opened}")
    finally:
        if opened >= 0:
            os.close(opened)


def are_reached() -> bool:
    """Ask whether this user reaches control files at all."""
    with connections() as folder:
        return folder != CONNECTIONS or folder.is_mount()


def _open_unmounted() -> int:
    """Open the file system; raises ``OSError`` for whoever may not mount."""
    made = _call(_FSOPEN, b"fusectl", _CLOSE_ON_EXEC)
    try:
        _call(_FSCONFIG, made, _CREATE, None, None, 0)
        return _call(_FSMOUNT, made, _CLOSE_ON_EXEC, 0)
    finally:
        os.close(made)


def _call(number: int, *arguments: object) -> int:
    """Call the kernel; these numbers are the same on every architecture that has Python."""
    answer: int = _libc.syscall(number, *arguments)
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return answer
