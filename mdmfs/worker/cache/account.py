"""How many bytes of a folder several processes take together: a number of each in one small file, added up by all.

``account`` has ``SLOTS`` signed 64-bit numbers, little-endian. A process holds one of them by a lock on its bytes that
ends with it (fcntl(2), open file description locks), and alone writes it: what it has added, less what it has taken
away, be it another's. What a killed one leaves stays in the sum, and the next one to count what is really there
puts its own number so that the sum is right. No lock is waited for, so the sum may be off: who counts does not see
what another has taken and not made a file of yet. It stays off, by so much, until a mount starts that finds nobody at
that. To count whenever room is looked for would be worse: then the folder is full, and all are just taking.
``cache.free`` holds all the same, since it looks at the disk.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mdmfs.model.errors import ConfigurationError

SLOTS: Final = 256
NAME: Final = "account"
_NUMBERS: Final = struct.Struct(f"<{SLOTS}q")
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
            self._begin = self._hold_one() * _NUMBER.size
            self._number = _NUMBER.unpack(os.pread(self._descriptor, _NUMBER.size, self._begin))[0]
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
        return max(0, sum(self._numbers()))

    def add(self, count: int) -> None:
        """Count bytes that are taken from now on, or, below 0, are free again."""
        self._number += count
        os.pwrite(self._descriptor, _NUMBER.pack(self._number), self._begin)

    def correct(self, count: Callable[[], int]) -> None:
        """Count what is there, and make the sum right."""
        for _ in range(TRIES):
            before = self._numbers()
            excess = sum(before) - count()
            if self._numbers() == before:
                break
        else:
            excess = sum(self._numbers()) - count()
        self.add(-excess)

    def _numbers(self) -> tuple[int, ...]:
        return _NUMBERS.unpack(os.pread(self._descriptor, _NUMBERS.size, 0))

    def _hold_one(self) -> int:
        for slot in range(SLOTS):
            wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, slot * _NUMBER.size, _NUMBER.size, 0)
            try:
                fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, wanted)
            except OSError as error:
                if error.errno not in {errno.EAGAIN, errno.EACCES}:
                    raise
            else:
                return slot
        message = f"{SLOTS} mounts use this cache directory, more cannot: give this one a cache.directory of its own"
        raise ConfigurationError(message)
