"""A probe of a storage element: whether what the hospital does there with replicas goes through."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from typing import Final

from mdmfs.hospital.storage.port import StorageElement, StorageError

SIZE: Final = 4096
"""Bytes of the probe object, random ones under a random name: it looks like any other."""


def probe(element: StorageElement) -> None:
    """Put an object, find it, delete it, and look whether it is gone.

    Raises ``StorageError`` that says which of that fails, why, what may be the reason, and whether the object stays.
    """
    name, octets = secrets.token_hex(32), secrets.token_bytes(SIZE)
    may_stay = f"{element.surl(name)} may stay"
    try:
        with _telling("put", f"is the bucket or collection there, and may the hospital write to it? {may_stay}"):
            element.put(name, lambda: iter((octets,)), len(octets))
        with _telling("found", f"may the hospital look (HEAD) at what it has put? {may_stay}"):
            _find(element, name, len(octets))
    except StorageError:
        with contextlib.suppress(StorageError):
            element.delete(name)
        raise
    with _telling("deleted", f"may the hospital delete there? Delete {element.surl(name)} by hand"):
        element.delete(name)
        if element.size(name) is not None:
            message = "it is still there: does the storage element keep versions, or forbid to delete?"
            raise StorageError(message)


def _find(element: StorageElement, name: str, length: int) -> None:
    found = element.size(name)
    if found != length:
        message = f"it has {found} bytes of {length}"
        raise StorageError(message)


@contextlib.contextmanager
def _telling(what: str, hint: str) -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        message = f"a probe object cannot be {what}: {error}; {hint}"
        raise StorageError(message) from error
