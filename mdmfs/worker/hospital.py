"""The port to the hospital: what a worker may ask of it; and the port's implementation on the wire."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import trio

from mdmfs.model.errors import MalformedMessageError
from mdmfs.model.names import Guid, Lfn
from mdmfs.sealing.layout import SALT_SIZE
from mdmfs.wire.client import Client, Download
from mdmfs.wire.messages import (
    CHANGES_PATH,
    DESCRIBE_PATH,
    LIST_PATH,
    SEALED_PATH,
    TOTALS_PATH,
    AskChanges,
    AskTotals,
    Changes,
    Describe,
    DirectoryPage,
    FileDescription,
    ListDirectory,
    Totals,
)

STATFS_SECONDS: Final = 5.0
"""``df`` looks at every mount of a node and must not hang at ours."""


class SealedDownload(Protocol):
    """A sealed object on its way."""

    @property
    def length(self) -> int:
        """Of the sealed object, in bytes, exact."""

    @property
    def salt(self) -> bytes:
        """Of this sealing: the first 24 bytes of the object must be the same."""

    async def receive_into(self, buffer: memoryview) -> int:
        """Fill some of a buffer and give the number of bytes; 0 at the true end only, a cut one raises."""


class Hospital(Protocol):
    """What a worker asks of a hospital; every error is an ``MdmfsError``."""

    async def list_directory(self, lfn: Lfn, after: str) -> DirectoryPage:
        """Give the page of a directory that follows the name ``after``; the first follows the empty one."""

    async def describe(self, guid: Guid) -> FileDescription:
        """Give all that may be known of a file."""

    async def changes(self, since: int, wait: float) -> Changes:
        """Wait up to ``wait`` seconds for something newer than version ``since``."""

    async def totals(self, lfn: Lfn) -> Totals:
        """Count what lies below a directory."""

    def fetch(self, guid: Guid) -> AbstractAsyncContextManager[SealedDownload]:
        """Ask for a file's sealed object: the hospital decides, recalls and seals."""


class RemoteHospital:
    """A hospital over mutual TLS."""

    def __init__(self, client: Callable[[], Client], *, deadline: float) -> None:
        """``client`` gives the client of the moment: a renewed proxy makes a new one. ``deadline`` is in seconds."""
        self._client = client
        self._deadline = deadline

    async def list_directory(self, lfn: Lfn, after: str) -> DirectoryPage:
        """Ask for a page; raises ``NoSuchFileError`` and what a call can raise."""
        question = ListDirectory(str(lfn), after)
        return await self._client().call(LIST_PATH, question, DirectoryPage, deadline=self._until())

    async def describe(self, guid: Guid) -> FileDescription:
        """Ask for a description; raises ``NoSuchFileError`` and what a call can raise."""
        question = Describe(guid.octets)
        return await self._client().call(DESCRIBE_PATH, question, FileDescription, deadline=self._until())

    async def changes(self, since: int, wait: float) -> Changes:
        """Ask for changes; an answer that is 10 s late is taken for an outage."""
        deadline = trio.current_time() + wait + 10
        return await self._client().call(CHANGES_PATH, AskChanges(since, wait), Changes, deadline=deadline)

    async def totals(self, lfn: Lfn) -> Totals:
        """Ask for the totals, with little patience."""
        deadline = trio.current_time() + min(STATFS_SECONDS, self._deadline)
        return await self._client().call(TOTALS_PATH, AskTotals(str(lfn)), Totals, deadline=deadline)

    @contextlib.asynccontextmanager
    async def fetch(self, guid: Guid) -> AsyncIterator[SealedDownload]:
        """Ask for the sealed object; the deadline is for the first byte, after it the stream must not stall."""
        async with self._client().get(SEALED_PATH + str(guid), deadline=self._until()) as download:
            yield _RemoteDownload(download)

    def _until(self) -> float:
        return trio.current_time() + self._deadline


class _RemoteDownload:
    def __init__(self, download: Download) -> None:
        self._download = download
        self.length = download.length
        self.salt = salt_of(download.etag)

    async def receive_into(self, buffer: memoryview) -> int:
        return await self._download.receive_into(buffer)


def salt_of(etag: str) -> bytes:
    """Read the salt that an entity tag names; raises ``MalformedMessageError``."""
    try:
        salt = bytes.fromhex(etag)
    except ValueError:
        salt = b""
    if len(salt) != SALT_SIZE:
        message = f"the hospital's ETag is not the salt of a sealed object in {2 * SALT_SIZE} hexadecimal digits"
        raise MalformedMessageError(message)
    return salt
