"""How many bytes of a folder several processes take together: a number of each in one small file, added up by all.

``account`` has ``SLOTS`` signed 64-bit numbers, little-endian. A process holds one of them by a lock on its bytes that
ends with it (fcntl(2), open file description locks), and alone writes it: what it has added, less what it has taken
away, be it another's. What a killed one leaves stays in the sum, and the next one to count what is really there
puts its own number so that the sum is right. As many numbers follow: what of each is taken and no file yet, so that who
counts takes it for no file that is gone. Nobody waits for a lock but who counts, for a moment, for another who does.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mdmfs.model.errors import ConfigurationError

SLOTS: Final = 256
NAME: Final = "account"
_NUMBERS: Final = struct.Struct(f"<{2 * SLOTS}q")
_NUMBER: Final = struct.Struct("<q")
_FLOCK: Final = struct.Struct("@hhqqi")
"""``struct flock``: kind, whence, begin, length, process."""
TRIES: Final = 3
"""To count while nobody else changes anything; then what is a little off will do."""


class Account:
    """One process's number, and the sum of all. Its methods are short; whoever opens it closes it."""

    def __init__(self, folder: Path) -> None:
        """Take a number that nobody holds; raises ``OSError``, and ``ConfigurationError`` where all are held."""
        self._descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(self._descriptor).st_size < _NUMBERS.size:
                os.posix_fallocate(self._descriptor, 0, _NUMBERS.size)
            self._writing = threading.Lock()
            self._seen: tuple[int, ...] = (0,) * 2 * SLOTS
            self._begin = self._hold_one() * _NUMBER.size
            self._number = self._numbers()[self._begin // _NUMBER.size]
            self.promised = 0
            """Bytes that are taken by this process and no file yet."""
            self.promise(0)  # who had this number was killed
        except BaseException:
            self.close()
            raise

    def is_in(self, folder: Path) -> bool:
        """Ask whether the folder still has the file that this is a number of."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(folder / NAME, follow_symlinks=False))  # noqa: PTH116 beside its sister
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Let the number go; a second time changes nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    @property
    def total(self) -> int:
        """The sum, in bytes."""
        return max(0, sum(self._numbers()[:SLOTS]))

    def add(self, count: int) -> None:
        """Count bytes that are taken from now on, or, below 0, are free again."""
        with self._writing:
            self._number += count
            self._write(self._number, self._begin)

    def promise(self, count: int) -> None:
        """Say that so much of what is taken is no file yet, or, below 0, that it is one or has been given back."""
        self.promised += count
        self._write(self.promised, self._begin + SLOTS * _NUMBER.size)

    def correct(self, count: Callable[[], int]) -> bool:
        """Count what is there, and make the sum right, in a worker thread; False where another does just that."""
        if not self._lock(_NUMBERS.size, 1):
            return False
        try:
            excess = 0
            for _ in range(TRIES):
                before = self._numbers()
                excess = sum(before[:SLOTS]) - sum(before[SLOTS:]) - count()
                if self._numbers() == before:
                    break
            self.add(-excess)
        finally:
            self._lock(_NUMBERS.size, 1, fcntl.F_UNLCK)
        return True

    def _write(self, number: int, begin: int) -> None:
        with contextlib.suppress(OSError):  # a disk that fails; the next write says all that this one would have
            os.pwrite(self._descriptor, _NUMBER.pack(number), begin)

    def _numbers(self) -> tuple[int, ...]:
        with contextlib.suppress(OSError):  # as above: what was read last is near enough
            # what is missing where somebody has cut the file is written again by whoever it is of
            octets = os.pread(self._descriptor, _NUMBERS.size, 0).ljust(_NUMBERS.size, b"\0")
            self._seen = _NUMBERS.unpack(octets)
        return self._seen

    def _hold_one(self) -> int:
        for slot in range(SLOTS):
            if self._lock(slot * _NUMBER.size, _NUMBER.size):
                return slot
        message = f"{SLOTS} mounts use this cache directory, more cannot: give this one a cache.directory of its own"
        raise ConfigurationError(message)

    def _lock(self, begin: int, length: int, kind: int = fcntl.F_WRLCK) -> bool:
        """Lock some bytes, be they there or not; tells whether nobody else has."""
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, begin, length, 0))
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                raise
            return False
        return True
