"""Who asks, and which files he is answered from: the port between the requests of a mount and its principals."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from mdmfs.model.errors import AccessDeniedError
from mdmfs.worker.port import Files

ABSENT_SECONDS: Final = 1.0
"""Nobody tells of names that come."""


class Seat(NamedTuple):
    """Where a caller is served: his files, and who he is on this machine."""

    files: Files
    uid: int
    gid: int
    seconds_absent: float = 0.0
    """For how long it may be remembered that a name is not there."""


class Callers(Protocol):
    """All who may ask."""

    def at_once(self, uid: int, *, is_harmless: bool = False) -> Seat | None:
        """Give a caller's seat; None where it has to be looked for.

        What is ``is_harmless`` is answered to everybody. Raises ``AccessDeniedError``.
        """

    async def find(self, uid: int, gid: int, tid: int) -> Seat:
        """Look for the seat of whoever asks as ``uid`` in the thread ``tid``; raises ``CredentialRefusedError``."""

    @property
    def doorman(self) -> Seat:
        """Who answers everybody for the mount point itself."""

    def of_handle(self, handle: int) -> Seat:
        """Give the seat at which a handle was opened."""

    def forget(self, inode: int, lookups: int) -> None:
        """Take lookups back."""


class OwnerOnly:
    """One user has mounted, and nobody else is served: there is no other credential. The kernel agrees."""

    def __init__(self, files: Files, uid: int, gid: int) -> None:
        self.doorman = Seat(files, uid, gid, ABSENT_SECONDS)

    def at_once(self, uid: int, *, is_harmless: bool = False) -> Seat:
        """Give the only seat."""
        if uid != self.doorman.uid and not is_harmless:
            message = f"uid {uid} is not the owner of this mount"
            raise AccessDeniedError(message)
        return self.doorman

    async def find(self, uid: int, gid: int, tid: int) -> Seat:  # noqa: ARG002 those of the port
        """Give the only seat."""
        return self.at_once(uid)

    def of_handle(self, handle: int) -> Seat:  # noqa: ARG002 that of the port
        """Give the only seat."""
        return self.doorman

    def forget(self, inode: int, lookups: int) -> None:
        """Take lookups back."""
        self.doorman.files.forget(inode, lookups)
