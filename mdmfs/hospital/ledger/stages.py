"""Requests to stage files: what is kept of each, and its rows; nothing in it points to a patient."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final

import msgspec

from mdmfs.hospital import tables
from mdmfs.hospital.rows import Stored
from mdmfs.rows.port import Rows

REQUEST_ID_SIZE: Final = 16


class StageState(enum.IntEnum):
    """Where a file of a request is; the names are those that the API tells."""

    SUBMITTED = 1
    STARTED = 2
    COMPLETED = 3
    FAILED = 4
    CANCELLED = 5

    @property
    def is_over(self) -> bool:
        """Whether nothing more is going to be done for it."""
        return self >= StageState.COMPLETED


class StageRequest(msgspec.Struct, frozen=True, array_like=True):
    """One request; the times are seconds since the epoch."""

    id: bytes
    dn: str
    fqans: list[str]
    address: str
    """Of who asked."""
    created: float
    count: int
    """How many files."""
    left: int
    """How many of them are not over."""


class StageFile(msgspec.Struct, frozen=True, array_like=True):
    """One file of a request."""

    number: int
    """Its place in the request."""
    path: str
    """As it was asked for."""
    guid: bytes
    """Empty where it was refused at once."""
    size: int
    """Of the sealed object."""
    lifetime: float
    """For how many seconds it stays, once it is staged."""
    state: StageState
    started: float = 0.0
    finished: float = 0.0
    error: str = ""
    is_released: bool = False
    """Whether it need not stay any longer."""
    element: str = ""
    """The storage element at which a replica is wanted; then it need not stay at the hospital."""


_REQUESTS: Final = Stored(StageRequest)
_FILES: Final = Stored(StageFile)
_OF_REQUEST: Final = tables.STAGES + b"q"
_OF_FILE: Final = tables.STAGES + b"f"
_NUMBER_SIZE: Final = 4


class Stages:
    """The requests that are remembered, each with its files.

    ``wq`` + id: the request. ``wf`` + id + number, 4 bytes: the file.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def put(self, request: StageRequest, files: Iterable[StageFile] = ()) -> None:
        """Keep a request, and these of its files, in place of what was kept of them."""
        self._rows.put(_OF_REQUEST + request.id, _REQUESTS.encode(request))
        for file in files:
            self._rows.put(_key(request.id, file.number), _FILES.encode(file))

    def get(self, request_id: bytes) -> StageRequest | None:
        """Give a request, or None."""
        value = self._rows.get(_OF_REQUEST + request_id)
        return None if value is None else _REQUESTS.decode(value)

    def all(self) -> list[StageRequest]:
        """Give all requests."""
        return [_REQUESTS.decode(value) for _, value in self._rows.scan(_OF_REQUEST)]

    def file(self, request_id: bytes, number: int) -> StageFile | None:
        """Give one file of a request, or None."""
        value = self._rows.get(_key(request_id, number))
        return None if value is None else _FILES.decode(value)

    def files(self, request_id: bytes) -> list[StageFile]:
        """Give the files of a request, in its order."""
        return [_FILES.decode(value) for _, value in self._rows.scan(_OF_FILE + request_id)]

    def remove(self, request_id: bytes) -> bool:
        """Forget a request with its files; False where there was none."""
        for number in [key for key, _ in self._rows.scan(_OF_FILE + request_id)]:
            self._rows.delete(_OF_FILE + request_id + number)
        return self._rows.delete(_OF_REQUEST + request_id)


def _key(request_id: bytes, number: int) -> bytes:
    return _OF_FILE + request_id + number.to_bytes(_NUMBER_SIZE, "big")
