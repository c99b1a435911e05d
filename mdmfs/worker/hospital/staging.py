"""Staging as a worker asks for it: files below a name, requests to the hospital, and how far they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec
import trio

from mdmfs.model.errors import MalformedMessageError, NoSuchFileError, NotADirectoryFileError
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.client import Client
from mdmfs.wire.messages.files import DirectoryPage, Node, NodeKind

DISCOVERY_PATH: Final = "/.well-known/wlcg-tape-rest-api"
STAGE_PATH: Final = "/api/v1/stage"
RELEASE_PATH: Final = "/api/v1/release/"
SEALED_SUFFIX: Final = ".sealed"
"""Ends the path of a sealed object, which is what is staged."""
MAX_FILES: Final = 10_000
"""Of one request."""
OVER: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED"})

B = TypeVar("B", bound=msgspec.Struct)


class Lists(Protocol):
    """Whoever lists directories: a hospital."""

    async def list_directory(self, lfn: Lfn, after: str) -> DirectoryPage:
        """Give the page of a directory that follows the name ``after``."""


class FileProgress(msgspec.Struct, frozen=True, rename="camel"):
    """How far one file is."""

    path: str
    state: str
    on_disk: bool = False
    size: int = 0
    """Of the sealed object, in bytes."""
    error: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more is going to be done for it."""
        return self.state in OVER


class RequestProgress(msgspec.Struct, frozen=True):
    """How far a request is."""

    id: str
    files: list[FileProgress]
    reason: str = ""
    """Why it waits, where something hinders it."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more is going to be done for any of its files."""
        return all(file.is_over for file in self.files)


class RequestSummary(msgspec.Struct, frozen=True, rename="camel"):
    """A request among others."""

    id: str
    created_at: float
    count: int
    left: int


class _Discovery(msgspec.Struct, frozen=True):
    sitename: str


class _Requests(msgspec.Struct, frozen=True):
    requests: list[RequestSummary]


class Submitted(msgspec.Struct, frozen=True, rename="camel"):
    """A request that was made."""

    request_id: str
    disk_lifetime: str = ""
    """For how long it stays at most, a duration of ISO 8601; a hospital may grant less than it was asked for."""


class FoundFile(NamedTuple):
    """A file below a name."""

    lfn: Lfn
    node: Node

    @property
    def path(self) -> str:
        """The path of its sealed object."""
        return str(self.lfn) + SEALED_SUFFIX


class Stages:
    """The requests of one caller at one hospital; every error is an ``MdmfsError``."""

    def __init__(self, client: Callable[[], Client], *, deadline: float) -> None:
        """``client`` gives the client of the moment: a renewed proxy makes a new one. ``deadline`` is in seconds."""
        self._client = client
        self._deadline = deadline

    async def submit(self, paths: Sequence[str], lifetime: str = "", element: str = "") -> Submitted:
        """Ask for at most ``MAX_FILES`` files; gives the request. ``lifetime`` is a duration of ISO 8601.

        With an ``element``, replicas are wanted at that storage element of the hospital.
        """
        besides: dict[str, object] = {"diskLifetime": lifetime} if lifetime else {}
        if element:
            site = (await self._ask("GET", DISCOVERY_PATH, None, _Discovery)).sitename
            besides["targetedMetadata"] = {site: {"replica": element}}
        files = [{"path": path, **besides} for path in paths]
        return await self._ask("POST", STAGE_PATH, {"files": files}, Submitted)

    async def progress(self, request_id: str) -> RequestProgress:
        """Ask how far a request is."""
        return await self._ask("GET", f"{STAGE_PATH}/{request_id}", None, RequestProgress)

    async def requests(self) -> list[RequestSummary]:
        """Ask which requests there are, the latest first."""
        return (await self._ask("GET", STAGE_PATH, None, _Requests)).requests

    async def cancel(self, request_id: str) -> None:
        """Give up what is not staged yet of a request."""
        paths = [file.path for file in (await self.progress(request_id)).files]
        await self._send("POST", f"{STAGE_PATH}/{request_id}/cancel", {"paths": paths})

    async def release(self, request_id: str) -> None:
        """Let the files of a request make room again."""
        paths = [file.path for file in (await self.progress(request_id)).files]
        await self._send("POST", RELEASE_PATH + request_id, {"paths": paths})

    async def _ask(self, method: str, path: str, body: object, kind: type[B]) -> B:
        told = await self._send(method, path, body)
        try:
            return msgspec.json.decode(told, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            message = f"the hospital answered {path} with something that is no {kind.__name__.lstrip('_')}"
            raise MalformedMessageError(message) from error

    async def _send(self, method: str, path: str, body: object) -> bytes:
        octets = b"" if body is None else msgspec.json.encode(body)
        return await self._client().ask(method, path, octets, deadline=trio.current_time() + self._deadline)


def path_of_guid(guid: Guid) -> str:
    """Give the path of a SURL, which names a file by its GUID."""
    return f"/mdm/{guid}"


async def files_below(hospital: Lists, lfn: Lfn) -> list[FoundFile]:
    """Find the file of a name, or all files below it, directory by directory.

    Raises ``NoSuchFileError`` for a name that is not there, and what listing raises.
    """
    try:
        return [found async for found in _walk(hospital, lfn)]
    except NotADirectoryFileError:
        siblings = [found async for found in _pages(hospital, lfn.parent) if found.lfn == lfn]
        if not siblings:
            raise
        return siblings


async def _walk(hospital: Lists, lfn: Lfn) -> AsyncIterator[FoundFile]:
    """Give each file below a directory once, and what the aliases below it lead to, as far as this hospital has it."""
    directories, seen = [lfn], {lfn}
    """Where to go yet; what has been come upon."""
    named: dict[Lfn, set[str]] = {}
    """What aliases lead to, by directory: so many aliases lead to few directories."""
    while directories or named:
        if directories:
            directory, wanted = directories.pop(0), None
        else:
            directory, wanted = named.popitem()
        async for found in _pages_there(hospital, directory, is_sure=directory == lfn):
            if found.lfn in seen or (wanted is not None and found.node.name not in wanted):
                continue
            seen.add(found.lfn)
            match found.node.kind:
                case NodeKind.FILE:
                    yield found
                case NodeKind.DIRECTORY:
                    directories.append(found.lfn)
                case NodeKind.LINK:
                    target = Lfn.parse(found.node.target)
                    named.setdefault(target.parent, set()).add(target.name)


async def _pages_there(hospital: Lists, lfn: Lfn, *, is_sure: bool) -> AsyncIterator[FoundFile]:
    """Go through a directory; one that an alias leads to may not be there, or be no directory."""
    try:
        async for found in _pages(hospital, lfn):
            yield found
    except (NoSuchFileError, NotADirectoryFileError):
        if is_sure:
            raise


async def _pages(hospital: Lists, lfn: Lfn) -> AsyncIterator[FoundFile]:
    after, is_last = "", False
    while not is_last:
        page = await hospital.list_directory(lfn, after)
        for node in page.entries:
            yield FoundFile(lfn / node.name, node)
        is_last, after = page.is_last, page.entries[-1].name if page.entries else after
