"""A disk that fails under a file that is open."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import structlog

from mdmfs.worker.cache.ciphertext import Ciphertext


@contextlib.contextmanager
def no_room_behind(file: Path) -> Iterator[None]:
    """Put ``/dev/full`` in the place of every descriptor that this process has of a file."""
    here = Path("/proc/self/fd")
    descriptors = [int(one.name) for one in here.iterdir() if one.exists() and one.resolve() == file.resolve()]
    kept = {descriptor: os.dup(descriptor) for descriptor in descriptors}
    full = os.open("/dev/full", os.O_WRONLY | os.O_APPEND)
    for descriptor in descriptors:
        os.dup2(full, descriptor, inheritable=False)
    os.close(full)
    try:
        yield
    finally:
        for descriptor, original in kept.items():
            os.dup2(original, descriptor, inheritable=False)
            os.close(original)


@contextlib.contextmanager
def no_locks() -> Iterator[None]:
    """Let no file be locked in the block, as on a disk whose server has run out of locks (flock(2), ENOLCK)."""
    _listen()
    _refused.add("fcntl.flock")
    try:
        yield
    finally:
        _refused.clear()


def let_stick() -> None:
    """Let no thread's read of ciphertext end any more, in this process: as on a disk whose server has gone."""
    read_into = Ciphertext.read_into

    def wait_for_ever(ciphertext: Ciphertext, offset: int, buffer: memoryview) -> None:
        if threading.current_thread() is threading.main_thread():  # the loop reads what is in memory
            read_into(ciphertext, offset, buffer)
            return
        structlog.get_logger().warning("stuck")
        threading.Event().wait()

    Ciphertext.read_at_once = lambda *_: None  # type: ignore[method-assign,assignment]
    Ciphertext.read_into = wait_for_ever  # type: ignore[method-assign]


_refused: set[str] = set()
"""Events of Python's audit that fail just now."""


@functools.cache
def _listen() -> None:
    """Listen to Python's audit: once, since what listens there cannot be taken away again."""

    def refuse(event: str, _: object) -> None:
        if event in _refused:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    sys.addaudithook(refuse)
