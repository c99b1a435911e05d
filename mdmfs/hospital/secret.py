"""A key that a hospital makes for itself, and that outlives a power cut: its content is synced, then its name."""

from __future__ import annotations

import os
import pathlib
import secrets
from typing import Final

from mdmfs.journal.durable import sync_directory
from mdmfs.model.errors import StoreError

SECRET_SIZE: Final = 32


def own_secret(path: pathlib.Path) -> bytes:
    """Read a key of 32 bytes, or make it at the first start, mode 0600; raises ``StoreError``."""
    try:
        return _read_key(path) or _make_key(path)
    except OSError as error:
        message = f"{path} cannot be used: {error.strerror}"
        raise StoreError(message) from error


def _read_key(path: pathlib.Path) -> bytes:
    try:
        octets = path.read_bytes()
    except FileNotFoundError:
        return b""
    if len(octets) != SECRET_SIZE:
        message = f"{path} does not hold a key of {SECRET_SIZE} bytes"
        raise StoreError(message, what_to_do="restore it from the backup")
    return octets


def _make_key(path: pathlib.Path) -> bytes:
    octets = secrets.token_bytes(SECRET_SIZE)
    draft = path.with_suffix(".new")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.write(octets)
        stream.flush()
        os.fsync(file)
    draft.rename(path)
    sync_directory(path.parent)
    return octets
