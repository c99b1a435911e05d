"""The hospital on the wire: one client of it, and readers' daemons beside it that are asked first."""

from __future__ import annotations

import contextlib
import re
import urllib.parse
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeVar

import msgspec
import structlog
import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.model.errors import MalformedMessageError, MdmfsError
from mdmfs.model.names import Guid, Lfn
from mdmfs.sealing.layout import SALT_SIZE
from mdmfs.wire.bundle import Bundle
from mdmfs.wire.client import Client, Download
from mdmfs.wire.messages.acls import READ_ACL_PATH, AclTexts, ReadAcl
from mdmfs.wire.messages.files import (
    CHANGES_PATH,
    DESCRIBE_PATH,
    GENERATION_HEADER,
    GIVE_BACK_PATH,
    HEADERS_PATH,
    LIST_PATH,
    LOCATE_PATH,
    REASON_HEADER,
    SEALED_PATH,
    SINCE_HEADER,
    THRESHOLD_HEADER,
    TOTALS_PATH,
    TRANSFERS_PATH,
    AskBundle,
    AskChanges,
    AskHeaders,
    AskTotals,
    AskTransfers,
    Changes,
    Describe,
    DirectoryPage,
    FileDescription,
    FilePlace,
    GiveBack,
    GivenBack,
    ListDirectory,
    Locate,
    Located,
    OpensReport,
    SealedHeader,
    SealedHeaders,
    Totals,
    Transfers,
)
from mdmfs.wire.messages.message import Message
from mdmfs.wire.messages.names import (
    CHANGE_NAME_PATH,
    READ_COMMENT_PATH,
    ChangedName,
    ChangeName,
    Comment,
    ReadComment,
)
from mdmfs.worker.hospital.outage import OUTAGES
from mdmfs.worker.hospital.port import Beginning, Hear, SealedDownload
from mdmfs.worker.hospital.staging import MAX_FILES, Stages, path_of_guid
from mdmfs.worker.memory import WINDOW, Memory

M = TypeVar("M", bound=Message)
D = TypeVar("D")

log = structlog.get_logger(__name__)

_PARTIAL: Final = 206
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
LATE: Final = (2.0, 10.0)
READER_SECONDS: Final = 10.0
"""For a daemon that is not the one that works to begin an answer."""
READERS_REST_SECONDS: Final = 15.0
"""So long they are not asked where one has failed."""
STATFS_SECONDS: Final = 5.0
"""``df`` looks at every mount of a node and must not hang at ours."""


async def _end_when_closed(client: Client, nursery: trio.Nursery) -> None:
    await client.closed.wait()
    nursery.cancel_scope.cancel()


def nobody() -> None:
    """Give no client: there is only the daemon that works."""


class RemoteHospital:
    """A hospital over mutual TLS."""

    def __init__(  # noqa: PLR0913 what its user has configured, and whom he speaks with
        self,
        client: Callable[[], Client],
        *,
        deadline: float,
        purpose: str = "",
        mount: bytes = b"",
        root: Lfn | None = None,
        readers: Callable[[], Client | None] = nobody,
        memory: Memory | None = None,
    ) -> None:
        """``client`` gives the client of the moment: a renewed proxy makes a new one. ``deadline`` is in seconds.

        ``purpose`` is what the user says he reads for; the hospital records it. ``mount`` are 16 bytes that name the
        mount to whom leases are granted, ``root`` is what it shows. ``readers`` gives the client of daemons of this
        hospital that follow the one that works: they are asked first for what is only read. They must know of what has
        been heard from that one, and where they refuse or fail, it is asked itself. ``memory`` is that of the mount,
        its own without one: what bundles are received into counts there.
        """
        self._leaving = 0
        """How many have left whom another has followed."""
        self._memory = memory or Memory()
        self._readers = readers
        self._known = 0
        """The latest version of the feed that is known here."""
        self._rest_readers_until = float("-inf")
        self._purpose = purpose
        self._reason = {REASON_HEADER: urllib.parse.quote(purpose, safe=" ")} if purpose else {}
        self._mount = mount
        self._root = "" if root is None else str(root)
        self._client = client
        self._deadline = deadline

    async def list_directory(self, lfn: Lfn, after: str) -> DirectoryPage:
        """Ask for a page; raises ``NoSuchFileError`` and what a call can raise."""
        question = ListDirectory(str(lfn), after)
        return await self._read(LIST_PATH, question, DirectoryPage)

    async def stage(self, guids: Sequence[Guid]) -> None:
        """Make requests over the Tape REST API; raises ``NoSuchFileError``, ``AccessDeniedError`` for none of them."""
        stages = Stages(self._client, deadline=self._deadline)
        for start in range(0, len(guids), MAX_FILES):
            await stages.submit([path_of_guid(guid) for guid in guids[start : start + MAX_FILES]])

    async def describe(self, guid: Guid) -> FileDescription:
        """Ask for a description; raises ``NoSuchFileError`` and what a call can raise."""
        question = Describe(guid.octets)
        return await self._read(DESCRIBE_PATH, question, FileDescription)

    async def changes(
        self, since: int, wait: float, report: OpensReport | None = None, groups: Sequence[str] = ()
    ) -> Changes:
        """Ask for changes; an answer that is late is taken for an outage, the sooner the shorter the lease is.

        With another credential it is asked anew: news for one person are none for another. What one has opened, is not
        reported by the next.
        """
        purpose = self._purpose if report else ""
        question = AskChanges(since, wait, self._mount, self._root, report, purpose, list(groups))
        leaving = self._leaving
        while True:
            client, deadline = self._client(), trio.current_time() + wait + min(max(wait, LATE[0]), LATE[1])
            if self._leaving != leaving:
                question = msgspec.structs.replace(question, report=None, purpose="")
            async with open_plain_nursery() as nursery:
                if not client.closed.is_set():  # else the call says so
                    nursery.start_soon(_end_when_closed, client, nursery)
                changes = await client.call(CHANGES_PATH, question, Changes, deadline=deadline)
                nursery.cancel_scope.cancel()
                self._known = changes.version
                return changes

    async def give_back(self) -> None:
        """Give the lease back that was granted to whoever speaks for this mount now."""
        await self._client().call(GIVE_BACK_PATH, GiveBack(self._mount), GivenBack, deadline=self._until())

    def as_before(self, client: Client) -> RemoteHospital:
        """Give this hospital as he is known to it who leaves: by a client of his own, which is closed with this."""
        self._leaving += 1
        return RemoteHospital(
            lambda: client,
            deadline=self._deadline,
            purpose=self._purpose,
            mount=self._mount,
            root=Lfn.parse(self._root) if self._root else None,
        )

    async def aclose(self) -> None:
        """Close the client of the moment."""
        await self._client().aclose()

    async def totals(self, lfn: Lfn) -> Totals:
        """Ask for the totals, with little patience."""
        deadline = trio.current_time() + min(STATFS_SECONDS, self._deadline)
        return await self._client().call(TOTALS_PATH, AskTotals(str(lfn)), Totals, deadline=deadline)

    async def acl(self, lfn: Lfn) -> list[str]:
        """Ask for an ACL; raises ``NoSuchFileError`` and what a call can raise."""
        question = ReadAcl(str(lfn))
        return (await self._client().call(READ_ACL_PATH, question, AclTexts, deadline=self._until())).texts

    async def change_name(self, change: ChangeName) -> ChangedName:
        """Ask for a change; raises what refuses it, and what a call can raise."""
        return await self._client().call(CHANGE_NAME_PATH, change, ChangedName, deadline=self._until())

    async def comment(self, lfn: Lfn) -> str:
        """Ask for a comment; raises ``NoSuchFileError`` and what a call can raise."""
        question = ReadComment(str(lfn))
        return (await self._client().call(READ_COMMENT_PATH, question, Comment, deadline=self._until())).text

    async def locate(self, guids: Sequence[Guid]) -> list[FilePlace | None]:
        """Ask for names; raises ``MalformedMessageError`` for another number than was asked for."""
        question = Locate([guid.octets for guid in guids])
        places = (await self._read(LOCATE_PATH, question, Located)).places
        if len(places) != len(guids):
            message = f"the hospital gave {len(places)} places where {len(guids)} were asked for"
            raise MalformedMessageError(message)
        return places

    async def headers(self, guids: Sequence[Guid]) -> list[SealedHeader]:
        """Ask for prefix objects; raises ``MalformedMessageError`` for another number than was asked for."""
        question = AskHeaders([guid.octets for guid in guids], self._purpose)
        answer = await self._client().call(HEADERS_PATH, question, SealedHeaders, deadline=self._until())
        if len(answer.headers) != len(guids):
            message = f"the hospital gave {len(answer.headers)} headers where {len(guids)} were asked for"
            raise MalformedMessageError(message)
        return answer.headers

    def doubt(self, guid: Guid) -> bool:
        """Know no other place to fetch it from."""
        del guid
        return False

    async def transfers(self, guids: Sequence[Guid], avoided: Sequence[str], *, are_ahead: bool) -> Transfers:
        """Ask where replicas of up to ``MAX_BUNDLE`` files are, elsewhere than at some storage elements."""
        question = AskTransfers([guid.octets for guid in guids], self._purpose, are_ahead, list(avoided))
        answer = await self._read(TRANSFERS_PATH, question, Transfers)
        if len(answer.transfers) != len(guids):
            message = f"the hospital gave {len(answer.transfers)} transfers where {len(guids)} were asked for"
            raise MalformedMessageError(message)
        return answer

    async def fetch_all(self, guids: Sequence[Guid], hear: Hear) -> None:
        """Ask for the sealed objects; deadline as that of ``fetch``."""
        asked = AskBundle([guid.octets for guid in guids])
        async with contextlib.AsyncExitStack() as stack:
            room = stack.enter_context(self._memory.window(WINDOW))

            def ask(client: Client, told: dict[str, str], until: float) -> AbstractAsyncContextManager[Bundle]:
                return client.ask_bundle(asked, headers=self._reason | told, deadline=until, room=room)

            bundle = await self._entered(stack, ask)
            while (said := await bundle.next()) is not None:
                await trio.lowlevel.checkpoint()  # much of it may be here already
                await hear(*said)

    @contextlib.asynccontextmanager
    async def fetch(self, guid: Guid, *, beginning: Beginning | None = None) -> AsyncIterator[SealedDownload]:
        """Ask for the sealed object; the deadline is for the first byte, after it the stream must not stall."""
        headers = dict(self._reason)
        if beginning is not None:
            headers |= {"range": f"bytes={beginning.length}-", "if-range": f'"{beginning.salt.hex()}"'}
        async with contextlib.AsyncExitStack() as stack:

            def ask(client: Client, told: dict[str, str], until: float) -> AbstractAsyncContextManager[Download]:
                return client.get(SEALED_PATH + str(guid), headers=headers | told, deadline=until)

            yield _RemoteDownload(await self._entered(stack, ask), beginning)

    async def _read(self, path: str, question: Message, reply: type[M]) -> M:
        """Ask something that changes nothing."""
        reader = self._reader()
        if reader is not None:
            try:
                told = {SINCE_HEADER: str(self._known)}
                return await reader.call(path, question, reply, deadline=self._soon(), headers=told)
            except MdmfsError as error:
                self._note(error)
        return await self._client().call(path, question, reply, deadline=self._until())

    async def _entered(
        self,
        stack: contextlib.AsyncExitStack,
        ask: Callable[[Client, dict[str, str], float], AbstractAsyncContextManager[D]],
    ) -> D:
        """Ask for something long, and give what comes of it, until the stack ends."""
        reader = self._reader()
        if reader is not None:
            try:
                told = {SINCE_HEADER: str(self._known)}
                entered = await stack.enter_async_context(ask(reader, told, self._soon()))
            except MdmfsError as error:
                self._note(error)
            else:
                stack.push(self._note_cut)
                return entered
        return await stack.enter_async_context(ask(self._client(), {}, self._until()))

    def _reader(self) -> Client | None:
        return None if trio.current_time() < self._rest_readers_until else self._readers()

    def _note_cut(self, _: object, error: BaseException | None, __: object) -> bool:
        """Hear how what a reader's daemon sent has ended; what was cut is asked of the one that works."""
        if isinstance(error, MdmfsError):
            self._note(error)
        return False

    def _note(self, error: MdmfsError) -> None:
        """Leave readers alone for a while that do not answer; what they refuse, the one that works decides."""
        if isinstance(error, OUTAGES):
            self._rest_readers_until = trio.current_time() + READERS_REST_SECONDS
            log.warning("the hospital itself is asked, a daemon beside it fails", reason=error.told_here)

    def _soon(self) -> float:
        return min(self._until(), trio.current_time() + READER_SECONDS)

    def _until(self) -> float:
        return trio.current_time() + self._deadline


class _RemoteDownload:
    def __init__(self, download: Download, beginning: Beginning | None) -> None:
        self._download = download
        self.begin = beginning.length if beginning is not None and download.status == _PARTIAL else 0
        self.length = self.begin + download.length
        self.salt = salt_of(download.etag)
        self.generation = _number_of(download, GENERATION_HEADER)
        self.threshold = _number_of(download, THRESHOLD_HEADER)
        if not self.threshold:
            message = "the hospital says that no share is needed for a key"
            raise MalformedMessageError(message)
        if download.status == _PARTIAL and not self._follows(beginning):
            message = "the hospital sent a part of a sealed object that nobody asked for"
            raise MalformedMessageError(message)

    async def receive_into(self, buffer: memoryview) -> int:
        return await self._download.receive_into(buffer)

    def _follows(self, beginning: Beginning | None) -> bool:
        """Whether a part is of the sealing that was asked for, and begins where its beginning ends."""
        told = self._download.headers.get("content-range", "")
        is_there = told == f"bytes {self.begin}-{self.length - 1}/{self.length}"
        return beginning is not None and beginning.salt == self.salt and is_there


def _number_of(download: Download, name: str) -> int:
    text = download.headers.get(name, "")
    if not _NUMBER.fullmatch(text):
        message = f"the hospital's answer has no number in {name}"
        raise MalformedMessageError(message)
    return int(text)


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
