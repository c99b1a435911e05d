"""Files of a cache on their way: each is locked by who writes it, and what nobody has locked was left by a crash."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

READ_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""The last one since nobody knows what has been put there: a FIFO would be waited for."""


def create_locked(path: str, length: int) -> int:
    """Make a file of so many bytes, and lock it; raises ``OSError``, and the file may be there then.

    Others who count see what it will take.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                os.ftruncate(descriptor, length)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # another mount that starts has found it before it was locked


def drop_unlocked(path: Path) -> bool:
    """Remove a file, unless somebody is writing it."""
    try:
        arriving = os.open(path, READ_FLAGS)
    except FileNotFoundError:
        return True  # it has arrived, or has been given up
    try:
        fcntl.flock(arriving, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(arriving)
    return True


def drop_all_unlocked(folder: Path) -> Iterator[int]:
    """Remove files that nobody is writing any more, and give the lengths of the others."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in folder.iterdir():
            if not drop_unlocked(path):
                with contextlib.suppress(FileNotFoundError):
                    yield path.stat().st_size
