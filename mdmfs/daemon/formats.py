"""Formats of stores: each carries the number of its own; an older one is brought up step by step, a newer one refused.

A step and the mark of the format that it leads to become durable in one transaction; where a store has none, as a
folder of files, the mark follows, and a step takes no offence at what it did before. A step that changes more rows than
one transaction should hold is taken in parts, and keeps in the store how far it is. So a kill in the middle leaves a
store that says truly how far it is, and the next start goes on from there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from mdmfs.daemon.backup import appearing
from mdmfs.model.errors import OutOfSpaceError, StoreError

S = TypeVar("S")
MARK: Final = "format"
"""The file in a folder that holds its format's number."""
_MAX_MARK: Final = 20


class Format(Generic[S]):
    """The format of one kind of store, as this program writes it, and how to come to it from each before."""

    def __init__(self, what: str, *steps: Callable[[S], bool | None], oldest: int = 1, remedy: str = "") -> None:
        """Name the kind of store; the first step leads from ``oldest`` to the number after it, the next one on.

        A step gives True where only a part of it is done. ``remedy`` says what else can be done about a store that is
        newer.
        """
        self._what = what
        self._steps = steps
        self._oldest = oldest
        self._remedy = remedy

    @property
    def number(self) -> int:
        """What this program writes."""
        return self._oldest + len(self._steps)

    @property
    def mark(self) -> bytes:
        """The number as a store carries it."""
        return b"%d" % self.number

    @property
    def oldest(self) -> bytes:
        """The mark of the oldest one that this program knows: that of a store which carries none."""
        return b"%d" % self._oldest

    def advance(self, mark: bytes, store: S, where: object) -> bytes | None:
        """Take the next step of a store with this mark, and give the mark to write with it; None where there is none.

        After a part of a step it is the same mark.
        ``where`` names the store in messages. Raises ``StoreError`` for a store that this program cannot read, which is
        left as it is.
        """
        number = self.number_of(mark, where)
        if number == self.number:
            return None
        is_partial = self._steps[number - self._oldest](store)
        return mark if is_partial else b"%d" % (number + 1)

    def refuse_other(self, mark: bytes, where: object) -> None:
        """Raise ``StoreError`` unless a store can be read as it is, by a program that may not change it."""
        if self.number_of(mark, where) != self.number:
            message = f"{where} is a {self._what} of format {mark.decode()}, this program reads {self.number}"
            raise StoreError(message, what_to_do="start the service that it belongs to, which brings it up to date")

    def number_of(self, mark: bytes, where: object) -> int:
        """Read a mark; raises ``StoreError`` for that of a store which can neither be read nor brought up to date."""
        if not mark.isdigit() or len(mark) >= _MAX_MARK:
            message = f"{where} is no {self._what}, or is damaged: nothing tells its format"
            raise StoreError(message, what_to_do=f"restore it from its backup{self._remedy}")
        number = int(mark)
        if number > self.number:
            message = (
                f"{where} is a {self._what} of format {number}, this program knows none after {self.number}:"
                " nothing in it was changed"
            )
            raise StoreError(message, what_to_do=f"use the mdmfs that wrote it, or a newer one{self._remedy}")
        if number < self._oldest:
            message = f"{where} is a {self._what} of format {number}, this program knows none before {self._oldest}"
            raise StoreError(message, what_to_do="open it once with an older mdmfs that knows both")
        return number


def bring_up_folder(store: Format[Path], folder: Path) -> None:
    """Bring a folder of files up to date, which is there; one without a mark, new or not, is of the oldest format.

    Raises ``StoreError``, and ``OutOfSpaceError`` where there is no room for the mark of another.
    """
    try:
        before = _mark_of(folder)
        mark = before or store.oldest
        while (reached := store.advance(mark, folder, folder)) is not None:
            mark = _write_mark(folder, reached)
        if not before and mark == store.oldest:
            with contextlib.suppress(OutOfSpaceError):  # without a mark it is taken for what it is
                _write_mark(folder, mark)
    except OSError as error:
        message = f"{folder} cannot be used: {error.strerror}"
        raise StoreError(message) from error


def _mark_of(folder: Path) -> bytes:
    try:
        descriptor = os.open(folder / MARK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_MAX_MARK).strip() or b"?"


def _write_mark(folder: Path, mark: bytes) -> bytes:
    with appearing(folder / MARK, may_replace=True) as file:
        file.write(mark + b"\n")
    return mark
