"""Rows of a file of records, CSV or JSON: read one after another, so that a file may be of any length."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol, TextIO

from mdmfs.model.errors import ConfigurationError
from mdmfs.wire.messages.records import PatientRecord

MAX_CHARACTERS: Final = 8 * 2**20
"""Of one value in CSV, and of one object in JSON: an attachment of 4 MiB in Base64, and what stands beside it."""
BATCH: Final = 500
BATCH_CHARACTERS: Final = 6 * 2**20
"""After so many in one batch it ends: a message has a bound."""
_PIECE: Final = 2**16
_BLANK: Final = re.compile(r"[ \t\r\n]*")
_DECODE: Final = json.JSONDecoder().raw_decode


class Columns(Protocol):
    """What is needed of ``mdmfs.cli.record.CollectionFile``."""

    @property
    def patient(self) -> str:
        """The column with the Patient ID."""

    @property
    def issuer(self) -> str:
        """Of all Patient IDs."""


class Row(NamedTuple):
    """One row of a file; its repr must not be printed."""

    number: int
    """Of the line, or of the object in its list, from 1."""
    record: PatientRecord | None
    """None where it names no patient."""


def read_rows(source: TextIO, form: str, collection: Columns, columns: Mapping[str, str]) -> Iterator[Row]:
    """Read rows; ``columns`` gives the attribute of each column. Raises ``ConfigurationError``, never with a value."""
    row = 0
    try:
        for number, values in _objects(source) if form == "json" else _lines(source):
            row = number
            patient = values.get(collection.patient)
            if not isinstance(patient, str | int) or isinstance(patient, bool) or not str(patient).strip():
                yield Row(number, None)
                continue
            known = {columns[name]: value for name, value in values.items() if name in columns and value is not None}
            yield Row(number, PatientRecord(str(patient).strip(), collection.issuer, known))
    except (csv.Error, ValueError, RecursionError) as error:
        message = f"the file is no {form.upper()} that can be read, behind row {row}; rows before it were taken"
        if isinstance(error, _FileError):
            message = f"{error}; rows before it were taken"
        raise ConfigurationError(message, what_to_do="mend the file there, and import it again") from None


def batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Put rows together as far as one message can hold them."""
    batch: list[Row] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += _size(row)
        if len(batch) == BATCH or characters > BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _size(row: Row) -> int:
    values = () if row.record is None else row.record.values.values()
    return sum(len(value) for value in values if isinstance(value, str))


class _FileError(ValueError):
    """A file that cannot be read, in words that hold nothing of it."""


def _lines(source: TextIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    csv.field_size_limit(MAX_CHARACTERS)
    reader = csv.DictReader(source, strict=True)
    for values in reader:
        yield reader.line_num, {name: value for name, value in values.items() if name and isinstance(value, str)}


def _objects(source: TextIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    text = _Text(source)
    if text.sign() != "[":
        message = "a JSON file holds a list of objects"
        raise _FileError(message)
    for number in itertools.count(1):
        if number == 1 and text.sign(but="]") == "]":
            return
        one = text.value(number)
        if not isinstance(one, dict) or not all(isinstance(v, str | int | float | bool | None) for v in one.values()):
            message = f"element {number} is no object of texts, numbers and truth values"
            raise _FileError(message)
        yield number, one
        following = text.sign()
        if following == "]":
            return
        if following != ",":
            message = f"behind element {number} of the list follows neither a comma nor the end"
            raise _FileError(message)


class _Text:
    """The text of a file, of which only what is being read is held."""

    def __init__(self, source: TextIO) -> None:
        self._source = source
        self._held = ""
        self._position = 0

    def sign(self, but: str = "") -> str:
        """Take the next character that is not blank, or leave it where it is not ``but``; empty at the end."""
        while True:
            place = _BLANK.match(self._held, self._position)
            self._position = place.end() if place else self._position
            if self._position < len(self._held):
                break
            if not self._more():
                return ""
        found = self._held[self._position]
        self._position += not but or found == but
        return found

    def value(self, number: int) -> object:
        """Take the next value; raises ``ValueError`` where it does not end, within what one may be long."""
        self.sign(but="\0")
        while True:
            found, end = None, len(self._held)
            with contextlib.suppress(json.JSONDecodeError):
                found, end = _DECODE(self._held, self._position)
            if end < len(self._held):  # a number that ends with what is held may go on
                self._position = end
                return found
            if len(self._held) - self._position > MAX_CHARACTERS:
                message = f"element {number} has more than {MAX_CHARACTERS} characters"
                raise _FileError(message)
            if not self._more(at_least=len(self._held) - self._position):
                message = f"element {number} does not end, or is no JSON"
                raise _FileError(message)

    def _more(self, at_least: int = 0) -> bool:
        """Hold more, twice as much where one value needs it; what was taken goes."""
        piece = self._source.read(max(_PIECE, at_least))
        self._held, self._position = self._held[self._position :] + piece, 0
        return bool(piece)
