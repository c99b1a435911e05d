"""The port to a storage element: what the hospital asks of a place that keeps sealed objects and knows no keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from mdmfs.sealing.layout import Buffer

Content = Callable[[], Iterator[Buffer]]
"""Gives the bytes of an object from their beginning, as often as it is called."""


class StorageError(Exception):
    """A storage element does not do what it was asked; readers are told nothing of it, they get the bytes from us."""


class BrokenOffError(StorageError):
    """It has not answered to the end: what it was asked may be done, or will yet be."""


class StorageElement(Protocol):
    """One storage element. Every method but ``turl`` and ``surl`` blocks and runs in a thread.

    All raise ``StorageError``; ``BrokenOffError`` where nobody knows whether it was done. Names are opaque: 64
    hexadecimal digits.
    """

    @property
    def name(self) -> str:
        """What the hospital's configuration calls it."""

    @property
    def padding(self) -> int:
        """Sizes are rounded up to multiples of so many bytes; 0 and 1 leave them."""

    def put(self, name: str, content: Content, length: int) -> None:
        """Keep an object of ``length`` bytes, whole or not at all."""

    def size(self, name: str) -> int | None:
        """Give how many bytes it keeps under a name; None where there is no such object."""

    def delete(self, name: str) -> None:
        """Take an object away; one that is not there is no error."""

    def turl(self, name: str, seconds: float) -> str:
        """Give a URL by which an object can be fetched for at least that long."""

    def surl(self, name: str) -> str:
        """Give the URL that names an object, and lets nobody in by itself."""
