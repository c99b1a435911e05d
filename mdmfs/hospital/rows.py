"""How records are kept in rows: their keys, counters, values that many repeat."""

from __future__ import annotations

import hashlib
from typing import Final, Generic, TypeVar

import msgspec

from mdmfs.model.errors import StoreError
from mdmfs.rows.port import Rows

DIGEST_KEY_SIZE: Final = 16
NUMBER_SIZE: Final = 8
INTERNED_KEY_SIZE: Final = 4

R = TypeVar("R")


class Stored(Generic[R]):
    """How one kind of record is kept: a byte with the version of its format, then MessagePack."""

    def __init__(self, kind: type[R], version: int = 1) -> None:
        self._name = kind.__name__.lstrip("_")
        self._version = version
        self._mark = bytes([version])
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._encoder = msgspec.msgpack.Encoder()

    def encode(self, record: R) -> bytes:
        """Write a record."""
        return self._mark + self._encoder.encode(record)

    def decode(self, octets: bytes) -> R:
        """Read a record; raises ``StoreError`` if it is damaged or of a version that this program does not know."""
        if octets[:1] != self._mark:
            found = octets[0] if octets else "none"
            message = (
                f"a {self._name} is stored as version {found}; this program reads {self._version}: use a newer one"
            )
            raise StoreError(message)
        try:
            return self._decoder.decode(memoryview(octets)[1:])
        except (msgspec.DecodeError, ValueError) as error:
            message = f"a stored {self._name} is damaged: restore the store from its backup"
            raise StoreError(message) from error


def digest_key(*parts: str) -> bytes:
    """Give 16 bytes for texts of any length, since keys are short; different texts, different bytes."""
    return hashlib.sha256(msgspec.msgpack.encode(parts)).digest()[:DIGEST_KEY_SIZE]


def number_key(number: int) -> bytes:
    """Give 8 bytes that sort as the number does."""
    return number.to_bytes(NUMBER_SIZE, "big")


def counted(rows: Rows, key: bytes) -> int:
    """Read a counter; 0 where there is none."""
    return int.from_bytes(rows.get(key) or b"", "big")


def add_to(rows: Rows, key: bytes, amount: int = 1) -> int:
    """Move a counter and give where it stands; at 0 it takes no room."""
    number = counted(rows, key) + amount
    if number:
        rows.put(key, number_key(number))
    else:
        rows.delete(key)
    return number


class Numbers:
    """Numbers of a counter, none of which is given twice: read once in a transaction, and written at its end."""

    def __init__(self, rows: Rows, counter: bytes) -> None:
        self._rows = rows
        self._counter = counter
        self._last: int | None = None
        self._has_given = False

    def next(self) -> int:
        """Give another number."""
        self._last, self._has_given = self.last() + 1, True
        return self._last

    def last(self) -> int:
        """Give the number that was given last; 0 before the first."""
        return counted(self._rows, self._counter) if self._last is None else self._last

    def write(self) -> None:
        """Write where it stands, if a number was given."""
        if self._has_given:
            self._rows.put(self._counter, number_key(self.last()))


class Interned:
    """Long values that many records repeat, kept once under a number of 4 bytes that is never given twice."""

    def __init__(self, rows: Rows, *, numbers: bytes, values: bytes, counter: bytes) -> None:
        self._rows = rows
        self._numbers = numbers
        self._values = values
        self._counter = counter
        self._known: dict[bytes, int] = {}

    def number_of(self, value: bytes) -> int:
        """Give the number of a value, a new one where it has none."""
        known = self.known(value)
        return self._keep(value) if known is None else known

    def known(self, value: bytes) -> int | None:
        """Give the number of a value; None where it has none."""
        if value not in self._known:
            found = self._rows.get(self._number_key(value))
            if found is None:
                return None
            self._known[value] = int.from_bytes(found, "big")
        return self._known[value]

    def value_of(self, number: int) -> bytes:
        """Give the value of a number; raises ``StoreError`` where there is none."""
        value = self._rows.get(self._values + interned_key(number))
        if value is None:
            message = "a record refers to a value that is not in the store: restore the store from its backup"
            raise StoreError(message)
        return value

    def forget(self, number: int) -> None:
        """Let a value go to which nothing refers any more."""
        value = self.value_of(number)
        self._known.pop(value, None)
        self._rows.delete(self._number_key(value))
        self._rows.delete(self._values + interned_key(number))

    def _keep(self, value: bytes) -> int:
        number = add_to(self._rows, self._counter)
        self._rows.put(self._number_key(value), interned_key(number))
        self._rows.put(self._values + interned_key(number), value)
        self._known[value] = number
        return number

    def _number_key(self, value: bytes) -> bytes:
        return self._numbers + hashlib.sha256(value).digest()[:DIGEST_KEY_SIZE]


def interned_key(number: int) -> bytes:
    """Give the 4 bytes of an interned value's number."""
    return number.to_bytes(INTERNED_KEY_SIZE, "big")
