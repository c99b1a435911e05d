"""Names that outlive a power cut: a file's content is synced by whoever writes it, its name by its directory."""

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
