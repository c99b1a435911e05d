"""The port to the hospital: what a worker may ask of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.bundle import Event
from mdmfs.wire.messages.files import (
    Changes,
    DirectoryPage,
    FileDescription,
    FilePlace,
    OpensReport,
    SealedHeader,
    Totals,
)
from mdmfs.wire.messages.names import (
    ChangedName,
    ChangeName,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Beginning:
    """What a transfer that was cut has brought: the salt of the sealing, and how many bytes of it."""

    salt: bytes
    length: int


class SealedDownload(Protocol):
    """A sealed object on its way."""

    @property
    def length(self) -> int:
        """Of the whole sealed object, in bytes, exact."""

    @property
    def begin(self) -> int:
        """Where the bytes begin: at 0, or where the beginning ends that was told of, if it is the same sealing."""

    @property
    def salt(self) -> bytes:
        """Of this sealing: the first 24 bytes of the object must be the same."""

    @property
    def generation(self) -> int:
        """Of the file key."""

    @property
    def threshold(self) -> int:
        """How many shares make the key."""

    async def receive_into(self, buffer: memoryview) -> int:
        """Fill some of a buffer and give the number of bytes; 0 at the true end only, a cut one raises."""


Hear = Callable[[int, Event], Awaitable[None]]
"""Hears of several sealed objects on their way: the place of a file in the question, and what is said of it.

Of one file it hears in order, and of several at once where it waits. A failure is told in its place.
"""


class Hospital(Protocol):
    """What a worker asks of a hospital; every error is an ``MdmfsError``."""

    async def list_directory(self, lfn: Lfn, after: str) -> DirectoryPage:
        """Give the page of a directory that follows the name ``after``; the first follows the empty one."""

    async def describe(self, guid: Guid) -> FileDescription:
        """Give all that may be known of a file."""

    async def changes(
        self, since: int, wait: float, report: OpensReport | None = None, groups: Sequence[str] = ()
    ) -> Changes:
        """Say that version ``since`` is applied, and wait up to ``wait`` seconds for something newer and a lease.

        A ``report`` of opens that the hospital did not see is on record when there is an answer. ``groups`` are those
        of the answer that was applied last: where the caller has lost one of them, all is to be forgotten.
        """

    async def give_back(self) -> None:
        """Say that this mount has ended and nobody can read through it any more: it is granted no lease again."""

    async def totals(self, lfn: Lfn) -> Totals:
        """Count what lies below a directory."""

    async def locate(self, guids: Sequence[Guid]) -> list[FilePlace | None]:
        """Say under which name each of up to ``MAX_BATCH`` files is; None where it is not there for the caller."""

    async def headers(self, guids: Sequence[Guid]) -> list[SealedHeader]:
        """Give the prefix objects of up to ``MAX_HEADERS`` files; an empty one where there is none for the caller."""

    async def acl(self, lfn: Lfn) -> list[str]:
        """Give the ACL of a name as text; of a directory also the one that its files share."""

    async def change_name(self, change: ChangeName) -> ChangedName:
        """Change a name; asked again under the same token, it is done once."""

    async def comment(self, lfn: Lfn) -> str:
        """Give the comment on a name; empty where there is none."""

    async def stage(self, guids: Sequence[Guid]) -> None:
        """Have files brought online and kept there for a while; returns when that is asked for, not when it is done."""

    def fetch(self, guid: Guid, *, beginning: Beginning | None = None) -> AbstractAsyncContextManager[SealedDownload]:
        """Ask for a file's sealed object, or for what follows a beginning: the hospital decides, recalls and seals."""

    async def fetch_all(self, guids: Sequence[Guid], hear: Hear) -> None:
        """Ask for files that nobody has opened yet, ``MAX_BUNDLE`` at most; raises where the whole answer is cut."""

    def doubt(self, guid: Guid) -> bool:
        """Say that what came of a file is not what was sealed; True where the next fetch comes from somewhere else."""
