"""Readers of a few files of one size on a mount, as many and as unlike as there are; and what memory its daemon has."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

PIECE = 128 * 2**10
HEAD = 24_576


def read_by_turns(paths: Sequence[Path], size: int, handles: int, rounds: int, chance: random.Random) -> Iterator[int]:
    """Read from so many handles in order and from as many at random, a piece from each in a round; gives its bytes.

    After each round what the kernel has of the files is dropped.
    """
    with contextlib.ExitStack() as stack:
        opened = []
        for number in range(2 * handles):
            descriptor = os.open(paths[number % len(paths)], os.O_RDONLY)
            stack.callback(os.close, descriptor)
            if number >= handles:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            opened.append(descriptor)
        for turn in range(rounds):
            count = 0
            for number, descriptor in enumerate(opened):
                offset = turn * PIECE if number < handles else chance.randrange(size - PIECE)
                count += len(os.pread(descriptor, PIECE, offset))
            for descriptor in opened[: len(paths)]:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            yield count


def call_at_random(paths: Sequence[Path], size: int, chance: random.Random) -> None:
    """Read a file whole, its begin, or pieces of it, or list its folder; then the kernel has nothing of it."""
    path = chance.choice(paths)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        match chance.randrange(4):
            case 0:
                assert len(path.read_bytes()) == size
            case 1:
                assert len(os.pread(descriptor, HEAD, 0)) == HEAD
            case 2:
                for _ in range(10):
                    assert len(os.pread(descriptor, PIECE, chance.randrange(size - PIECE))) == PIECE
            case _:
                assert len([one.stat() for one in path.parent.iterdir()]) == len(paths)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def resident_mib(pid: int) -> float:
    """Tell how much memory a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
