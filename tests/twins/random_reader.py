"""A reader that does what programs may do to read, in random order, and compares each byte (fsx for those who read).

``python -m tests.twins.random_reader SEED COUNT FILE COPY ...`` does so in a process of its own; each file is compared
with a plain copy.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

EDGES: Final = (0, 1, 4095, 4096, 16383, 16384, 131_072, 262_144, 2**20)
LONGEST: Final = 2**21


class RandomReader:
    """One file that is open in several ways at once."""

    def __init__(self, path: Path, expected: bytes, chance: random.Random) -> None:
        self._expected = expected
        self._chance = chance
        self._descriptors = [os.open(path, os.O_RDONLY), os.open(path, os.O_RDONLY | os.O_DIRECT)]
        self._mapped = mmap.mmap(self._descriptors[0], 0, mmap.MAP_SHARED, mmap.PROT_READ) if expected else None
        self._out = tempfile.TemporaryFile(dir="/var/tmp")  # noqa: SIM115 ``close`` does
        self._ways: list[Callable[[int, int], bytes]] = [
            self._pread,
            self._pread,
            self._seek_and_read,
            self._readv,
            self._read_directly,
            self._read_mapped,
            self._sendfile,
            self._splice,
        ]

    def close(self) -> None:
        """Close all of it."""
        if self._mapped is not None:
            self._mapped.close()
        self._out.close()
        for descriptor in self._descriptors:
            os.close(descriptor)

    def step(self) -> None:
        """Read one range in one way; now and then let the kernel forget what it has."""
        size = len(self._expected)
        offset = self._chance.choice([self._chance.randrange(size + 1), self._chance.choice(EDGES), max(0, size - 100)])
        length = self._chance.choice([self._chance.randrange(LONGEST), self._chance.choice(EDGES), 1])
        if self._chance.random() < 0.1:
            os.posix_fadvise(self._descriptors[0], offset & ~4095, length, os.POSIX_FADV_DONTNEED)
        way = self._chance.choice(self._ways)
        found = way(offset, length)
        if found != self._expected[offset : offset + length]:
            message = f"{way.__name__} gave {len(found)} bytes at {offset} of {length} that are not the file's"
            raise AssertionError(message)

    def _pread(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptors[0], length, offset)

    def _seek_and_read(self, offset: int, length: int) -> bytes:
        os.lseek(self._descriptors[0], offset, os.SEEK_SET)
        return os.read(self._descriptors[0], length)

    def _readv(self, offset: int, length: int) -> bytes:
        cut = self._chance.randrange(length + 1)
        rooms = [bytearray(cut), bytearray(length - cut)]
        count = os.preadv(self._descriptors[0], rooms, offset)
        return b"".join(rooms)[:count]

    def _read_directly(self, offset: int, length: int) -> bytes:
        with mmap.mmap(-1, max(1, length)) as room:
            with memoryview(room)[:length] as wanted:
                count = os.preadv(self._descriptors[1], [wanted], offset)
            return room[:count]

    def _read_mapped(self, offset: int, length: int) -> bytes:
        return b"" if self._mapped is None else self._mapped[offset : offset + length]

    def _sendfile(self, offset: int, length: int) -> bytes:
        self._out.seek(0)
        self._out.truncate()
        sent = 0
        while sent < length:
            count = os.sendfile(self._out.fileno(), self._descriptors[0], offset + sent, length - sent)
            if not count:
                break
            sent += count
        return os.pread(self._out.fileno(), sent, 0)

    def _splice(self, offset: int, length: int) -> bytes:
        near, far = os.pipe()
        try:
            count = os.splice(self._descriptors[0], far, min(length, 32_768), offset_src=offset) if length else 0
            found = os.read(near, count) if count else b""
        finally:
            os.close(near)
            os.close(far)
        # a splice may stop at the end of a page or when the pipe is full
        rest = self._pread(offset + len(found), length - len(found)) if len(found) < length else b""
        return found + rest


def read_at_random(files: list[tuple[Path, bytes]], seed: int, count: int) -> None:
    """Take so many steps over some files; raises ``AssertionError`` at the first byte that is wrong."""
    chance = random.Random(seed)  # noqa: S311 no secret
    with contextlib.ExitStack() as stack:
        readers = []
        for path, expected in files:
            reader = RandomReader(path, expected, chance)
            stack.callback(reader.close)
            readers.append(reader)
        for _ in range(count):
            chance.choice(readers).step()


if __name__ == "__main__":
    names = [Path(name) for name in sys.argv[3:]]
    pairs = [(path, copy.read_bytes()) for path, copy in zip(names[::2], names[1::2], strict=True)]
    read_at_random(pairs, int(sys.argv[1]), int(sys.argv[2]))
