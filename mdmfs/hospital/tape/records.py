"""What is kept of a request to stage files; nothing in it points to a patient."""

from __future__ import annotations

import enum
from typing import Final

import msgspec

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
