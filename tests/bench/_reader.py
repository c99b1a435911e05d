"""A reader of many files: ``python -m tests.bench._reader SEED``; the first line of stdin names the files.

It is a JSON object of paths and their SHA-256. Says ``reading`` when the first file was read, goes on until stdin ends,
and then says how many readings there were, how many of them failed, and how long the longest one took, in seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import threading
import time


def main(seed: str) -> None:
    """Read, list and look at random, past the page cache."""
    digests: dict[str, str] = json.loads(sys.stdin.readline())
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    draw, paths = random.Random(seed), [*digests]  # noqa: S311 no secret
    done = failed = 0
    longest = 0.0
    while not ended.is_set():
        path, begun = draw.choice(paths), time.monotonic()
        try:
            name = os.path.basename(path)  # noqa: PTH119 as programs do
            assert name in os.listdir(os.path.dirname(path))  # noqa: PTH120, PTH208 as programs do
            os.getxattr(path, "user.mdmfs.locality")
            with open(path, "rb") as file:  # noqa: PTH123 as programs do
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                failed += hashlib.sha256(file.read()).hexdigest() != digests[path]
            done += 1
        except OSError as error:
            failed += 1
            print(f"{path} after {time.monotonic() - begun:.1f} s: {error.strerror}", file=sys.stderr)  # noqa: T201
        longest = max(longest, time.monotonic() - begun)
        if done + failed == 1:
            print("reading", flush=True)  # noqa: T201 for who waits for it
        time.sleep(draw.uniform(0, 0.2))
    print(json.dumps([done, failed, longest]), flush=True)  # noqa: T201 for who waits for it


if __name__ == "__main__":
    main(*sys.argv[1:])
