"""The files of a journal: ``NAME.jsonl`` is written to, ``NAME.N.jsonl`` are full and begin with record N."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterator
from typing import Final

from mdmfs.journal.chain import BEGINNING, Head, Line
from mdmfs.model.errors import StoreError

MAX_LINE: Final = 2**20


def files_of(path: pathlib.Path) -> list[pathlib.Path]:
    """List the files of a journal in the order of their records; those that are there."""
    full = re.compile(re.escape(path.stem) + r"\.(\d{12})" + re.escape(path.suffix))
    found = sorted(file for file in path.parent.iterdir() if full.fullmatch(file.name))
    return [*found, path] if path.exists() else found


def full_name(path: pathlib.Path, first: int) -> pathlib.Path:
    """Give the name of a full file that begins with this record."""
    return path.with_name(f"{path.stem}.{first:012}{path.suffix}")


def lines_of(path: pathlib.Path) -> Iterator[bytes]:
    """Go through all lines, without newlines, oldest first; a last line without one is being written, and left out.

    Raises ``StoreError``.
    """
    try:
        for file in files_of(path):
            with file.open("rb") as stream:
                for line in stream:
                    if line.endswith(b"\n") or file != path:
                        yield line.removesuffix(b"\n")
    except OSError as error:
        message = f"the journal {path} cannot be read: {error.strerror}"
        raise StoreError(message) from error


def first_line(file: pathlib.Path) -> Line | None:
    """Read the first line of a file, if it is one."""
    with file.open("rb") as stream:
        return Line.parse(stream.readline(MAX_LINE).removesuffix(b"\n"))


def end_of(path: pathlib.Path) -> tuple[Head, int]:
    """Find where a journal ends, and how many bytes of its current file are whole lines.

    A crash leaves at most one torn line, which was never said to be durable. Raises ``StoreError`` for what is no
    journal, ``OSError`` for what cannot be read.
    """
    whole = 0
    for file in reversed(files_of(path)):
        line, length = _last_line(file)
        if file == path:
            whole = length
        if line is not None:
            return line.head, whole
    return BEGINNING, 0


def _last_line(file: pathlib.Path) -> tuple[Line | None, int]:
    """Read the last whole line of a file, None where there is none, and the length of all whole lines."""
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        start = max(0, size - 2 * MAX_LINE)
        stream.seek(start)
        tail = stream.read(size - start)
    end = tail.rfind(b"\n") + 1
    if not end:
        return None, 0
    octets = tail[tail.rfind(b"\n", 0, end - 1) + 1 : end - 1]
    line = Line.parse(octets)
    if line is None:
        message = f"{file} does not end with a record of a journal"
        raise StoreError(message, what_to_do="see what happened to it, and move it away")
    return line, start + end
