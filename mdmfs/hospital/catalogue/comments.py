"""Comments as rows: what users say of what stands under a name."""

from __future__ import annotations

from collections.abc import Iterator

from mdmfs.hospital import tables
from mdmfs.hospital.rows import NUMBER_SIZE, number_key
from mdmfs.rows.port import Rows


class CommentTable:
    """``h`` + parent + name: what users say of what is there. With the name, so that a new rendition keeps it."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def get(self, parent: int, name: str) -> str:
        """Give a comment; empty where there is none."""
        return (self._rows.get(_comment_key(parent, name)) or b"").decode()

    def set(self, parent: int, name: str, text: str) -> None:
        """Keep a comment in place of the one before; an empty one is none."""
        if text:
            self._rows.put(_comment_key(parent, name), text.encode())
        else:
            self.drop(parent, name)

    def drop(self, parent: int, name: str) -> None:
        """Forget a comment, where there is one."""
        self._rows.delete(_comment_key(parent, name))

    def move(self, old: tuple[int, str], new: tuple[int, str]) -> None:
        """Take a comment along with its name."""
        text = self.get(*old)
        self.drop(*old)
        self.set(*new, text)

    def names(self, parent: int, start: bytes = b"") -> Iterator[bytes]:
        """Go through the names in a directory that have one, in the order of their bytes."""
        return (name for name, _ in self._rows.scan(tables.COMMENTS + number_key(parent), start))

    def all(self) -> Iterator[tuple[int, str]]:
        """Go through all that have one: the directory's number, the name in it."""
        for key, _ in self._rows.scan(tables.COMMENTS):
            yield int.from_bytes(key[:NUMBER_SIZE], "big"), key[NUMBER_SIZE:].decode()


class Ahead:
    """Ordered names that are asked for one after the other, in their order."""

    def __init__(self, names: Iterator[bytes]) -> None:
        self._names = names
        self._next = next(names, None)

    def holds(self, name: bytes) -> bool:
        """Ask whether a name is among them; it comes after those asked for before."""
        while self._next is not None and self._next < name:
            self._next = next(self._names, None)
        return self._next == name


def _comment_key(parent: int, name: str) -> bytes:
    return tables.COMMENTS + number_key(parent) + name.encode()
