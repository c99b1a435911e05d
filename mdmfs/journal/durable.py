"""Names that outlive a power cut: durable is a name once its directory is synced, whatever was done to its file."""

from __future__ import annotations

import os
import pathlib


def sync_directory(directory: pathlib.Path) -> None:
    """Make the names in a directory durable; raises ``OSError``."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def make_directory(path: pathlib.Path) -> None:
    """Make a directory, mode 0700, and those above it, where there are none; their names are durable, too.

    Raises ``OSError``.
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for one in missing:
        sync_directory(one.parent)
