"""Requests to stage files as rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mdmfs.hospital import tables
from mdmfs.hospital.rows import Stored
from mdmfs.hospital.tape.records import StageFile, StageRequest
from mdmfs.rows.port import Rows

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
