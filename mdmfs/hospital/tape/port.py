"""The port of the requests to stage files: what a storage engine has to offer, inside one transaction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from mdmfs.hospital.tape.records import StageFile, StageRequest


class Stages(Protocol):
    """The requests that are remembered, each with its files."""

    def put(self, request: StageRequest, files: Iterable[StageFile] = ()) -> None:
        """Keep a request, and these of its files, in place of what was kept of them."""

    def get(self, request_id: bytes) -> StageRequest | None:
        """Give a request, or None."""

    def all(self) -> list[StageRequest]:
        """Give all requests."""

    def file(self, request_id: bytes, number: int) -> StageFile | None:
        """Give one file of a request, or None."""

    def files(self, request_id: bytes) -> list[StageFile]:
        """Give the files of a request, in its order."""

    def remove(self, request_id: bytes) -> bool:
        """Forget a request with its files; False where there was none."""
