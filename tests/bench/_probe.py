"""A reader that never stops: ``python -m tests.bench._probe FILE NOTES``, with the last time that each way worked.

``NOTES`` is a file of doubles, one for each way in ``WAYS``: when it last gave what is right, on the monotonic clock.
The mapping is read by another process, ``... FILE NOTES mapped``: a page fault that waits holds up every thread.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

WAYS = ("name", "stat", "open", "handle", "cached page", "mmap", "key")
PAUSE = 0.02
PAGE = 4096


def main(file: str, notes: str, *options: str) -> None:
    """Read until killed."""
    descriptor = os.open(notes, os.O_RDWR)
    noted = mmap.mmap(descriptor, 8 * len(WAYS))
    path, folder, name = Path(file), os.path.dirname(file), os.path.basename(file)  # noqa: PTH119, PTH120 many times
    opened = os.open(path, os.O_RDONLY)
    size = os.fstat(opened).st_size
    good = os.pread(opened, PAGE, 0)
    end = os.pread(opened, PAGE, size - PAGE)

    def of_handle() -> bool:
        os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(opened, PAGE, 0) == good

    def of_mapping() -> bool:
        return view[size - PAGE : size] == end

    ways: dict[str, Callable[[], bool]] = {
        "name": lambda: name in os.listdir(folder),  # noqa: PTH208 as quick as can be
        "stat": lambda: path.stat().st_size == size,
        "open": lambda: os.close(os.open(path, os.O_RDONLY)) is None,
        "handle": of_handle,
        "cached page": lambda: os.pread(opened, PAGE, size - PAGE) == end,
    }
    if options:
        view = mmap.mmap(opened, size, prot=mmap.PROT_READ)
        ways = {"mmap": of_mapping}

    def run(way: str, use: Callable[[], bool]) -> None:
        while True:
            begun = time.monotonic()
            try:
                if use():
                    struct.pack_into("d", noted, 8 * WAYS.index(way), begun)
            except OSError:
                pass
            time.sleep(PAUSE)

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in ways.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
