"""What a hospital answers on the grid: listings, descriptions, sealed objects, changes; to its own people, harvests."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable
from typing import Final

import msgspec

from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.staged import StagedObject
from mdmfs.hospital.moment import Answers
from mdmfs.hospital.outward import speaking_for_the_inside
from mdmfs.hospital.own_people import for_own_people
from mdmfs.hospital.registration.harvest import Harvests
from mdmfs.hospital.release.arrivals import Bringing, Released
from mdmfs.hospital.release.bundles import frames
from mdmfs.hospital.release.octets import StagedOctets
from mdmfs.hospital.release.purpose import printable
from mdmfs.hospital.release.release import release, release_all, release_headers, stage_all
from mdmfs.hospital.replicas.face import locality_anywhere, surls_of
from mdmfs.hospital.replicas.transfers import release_transfers
from mdmfs.hospital.rights.telling import is_within, tell
from mdmfs.hospital.sight import Passed, Sight
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import (
    MalformedMessageError,
    NoSuchFileError,
    NotADirectoryFileError,
)
from mdmfs.model.names import Guid, Lfn, Surl
from mdmfs.wire.messages.administration import HARVEST_PATH, HARVEST_PROGRESS_PATH, AskHarvest, StartHarvest
from mdmfs.wire.messages.files import (
    BUNDLE_PATH,
    CHANGES_PATH,
    DESCRIBE_PATH,
    GENERATION_HEADER,
    GIVE_BACK_PATH,
    HEADERS_PATH,
    LIST_PATH,
    LOCATE_PATH,
    MAX_BUNDLE,
    MAX_HEADERS,
    REASON_HEADER,
    SEALED_PATH,
    STAGED_PATH,
    THRESHOLD_HEADER,
    TOTALS_PATH,
    TRANSFERS_PATH,
    AskBundle,
    AskChanges,
    AskHeaders,
    AskTotals,
    AskTransfers,
    Describe,
    DirectoryPage,
    FileDescription,
    GiveBack,
    GivenBack,
    ListDirectory,
    Locate,
    Located,
    NodeKind,
    SealedHeaders,
    Totals,
    Transfers,
)
from mdmfs.wire.messages.message import MAX_BATCH
from mdmfs.wire.service import Reply, Request, Respond, Service, StreamReply
from mdmfs.wire.stream import Address

READ_BESIDE: Final = frozenset(
    {LIST_PATH, DESCRIBE_PATH, LOCATE_PATH, TOTALS_PATH, SEALED_PATH, BUNDLE_PATH, TRANSFERS_PATH}
)
_RANGE: Final = re.compile(r"bytes=([0-9]{1,18})-")
_WHOLE, _PARTIAL = 200, 206
MAX_LISTED: Final = 50_000
"""Entries of directories that are remembered, as they were listed in this second; some 15 MiB."""

_SHOWN: Final = {FileState.VISIBLE, FileState.SUPERSEDED}


class HospitalFace:
    """The hospital as the grid sees it: every question is answered for the principal that asks it."""

    def __init__(self, hospital: Hospital, recalls: Bringing, harvests: Harvests, public: Address) -> None:
        """Speak for a hospital that SURLs name ``public``."""
        self._hospital = hospital
        self._recalls = recalls
        self._harvests = harvests
        self._public = public
        self._pages = Answers(MAX_LISTED, lambda page: 1 + len(page.entries))
        self._passed = Answers()

    def service(self) -> Service:
        """Give the routes."""
        routes: dict[tuple[str, str], Respond] = {
            ("POST", LIST_PATH): self._list,
            ("POST", DESCRIBE_PATH): self._describe,
            ("POST", LOCATE_PATH): self._locate,
            ("POST", TOTALS_PATH): self._totals,
            ("POST", CHANGES_PATH): self._changes,
            ("POST", GIVE_BACK_PATH): self._give_back,
            ("GET", SEALED_PATH): self._sealed,
            ("POST", BUNDLE_PATH): self._bundle,
            ("POST", HEADERS_PATH): self._headers,
            ("POST", TRANSFERS_PATH): self._transfers,
            ("POST", STAGED_PATH): for_own_people(self._hospital, self._staged),
            ("POST", HARVEST_PATH): for_own_people(self._hospital, self._start_harvest),
            ("POST", HARVEST_PROGRESS_PATH): for_own_people(self._hospital, self._harvest_progress),
        }
        return Service("hospital", routes)

    def reading(self) -> dict[tuple[str, str], Respond]:
        """Give the routes that a daemon can answer which only follows another one's store."""
        routes = self.service().routes
        return {route: respond for route, respond in routes.items() if route[1] in READ_BESIDE}

    async def _list(self, request: Request) -> Reply:
        asked = await request.read(ListDirectory)
        lfn = Lfn.parse(asked.lfn)
        limit = min(max(asked.limit, 1), MAX_BATCH)

        def page_as_of(_: float) -> DirectoryPage:
            def read(tx: Transaction) -> DirectoryPage:
                sight = sight_in(tx)
                directory = sight.node(lfn)
                if directory.kind is NodeKind.FILE:
                    message = f"{lfn} is a file, not a directory"
                    raise NotADirectoryFileError(message)
                entries, is_last = sight.entries(directory.inode, asked.after, limit, with_aliases=True)
                return DirectoryPage(directory, entries, is_last, version)

            # before anything is decided: what the page shows at least, whatever is committed meanwhile
            version = self._hospital.store.read(lambda tx: tx.feed.version())
            sight_in = self._sight(request)
            return self._hospital.store.read(read)

        # after a change all mounts that hold the directory list it anew
        question = lfn, asked.after, limit
        page = self._pages.of_this_second(
            request.principal, question, self._hospital.clock(), self._hospital.store, page_as_of
        )
        return Reply(page)

    async def _describe(self, request: Request) -> Reply:
        asked = await request.read(Describe)
        guid = Guid(asked.guid)

        def read(tx: Transaction) -> FileDescription:
            file = tx.catalogue.file(guid)
            if file is None or file.state not in _SHOWN or not sight_in(tx).may_know(file):
                message = f"there is no file {guid}, or it is not for this identity"
                raise NoSuchFileError(message)
            return FileDescription(
                guid=guid.octets,
                inode=file.inode,
                size=file.rendition.size,
                header_length=file.rendition.header_length,
                sha256=file.rendition.sha256,
                generation=file.generation,
                threshold=file.threshold,
                locality=locality_anywhere(tx, self._hospital, file).value,
                replicas=[str(Surl(self._public.host, self._public.port, guid)), *surls_of(tx, self._hospital, file)],
            )

        sight_in = self._sight(request)
        return Reply(self._hospital.store.read(read))

    async def _locate(self, request: Request) -> Reply:
        asked = await request.read(Locate)
        if len(asked.guids) > MAX_BATCH:
            message = f"one question asks for at most {MAX_BATCH} places"
            raise MalformedMessageError(message)
        guids = [Guid(octets) for octets in asked.guids]

        def read(tx: Transaction) -> Located:
            sight = sight_in(tx)
            return Located([sight.place(guid) for guid in guids])

        sight_in = self._sight(request)
        return Reply(self._hospital.store.read(read))

    async def _totals(self, request: Request) -> Reply:
        """Count by projects: those whose directory the caller may traverse and that lie within what he asks for."""
        lfn = Lfn.parse((await request.read(AskTotals)).lfn)

        def read(tx: Transaction) -> Totals:
            files = octets = 0
            sight = sight_in(tx)
            for project in self._hospital.projects.values():
                if is_within(project.lfn, lfn) and sight.may_traverse(project.lfn):
                    totals = tx.catalogue.totals(project.name)
                    files, octets = files + totals.files, octets + totals.octets
            return Totals(files, octets)

        sight_in = self._sight(request)
        return Reply(self._hospital.store.read(read))

    async def _changes(self, request: Request) -> Reply:
        asked = await request.read(AskChanges)
        return Reply(await tell(request.principal, request.peer.host, asked, self._hospital))

    async def _give_back(self, request: Request) -> Reply:
        asked = await request.read(GiveBack)
        self._hospital.leases.give_back(asked.mount, request.principal)
        return Reply(GivenBack())

    async def _sealed(self, request: Request) -> StreamReply:
        guid = Guid.parse(request.path.removeprefix(SEALED_PATH))
        with speaking_for_the_inside(guid):
            staged, threshold = await self._release(request, guid)
        reader, begin = staged.open(), _begin_of(request, staged)
        headers = {GENERATION_HEADER: str(staged.generation), THRESHOLD_HEADER: str(threshold)}
        if begin:
            headers["content-range"] = f"bytes {begin}-{staged.size - 1}/{staged.size}"
        return StreamReply(
            length=staged.size - begin,
            etag=staged.salt.hex(),
            chunks=StagedOctets(reader, begin, staged.size),
            headers=headers,
            status=_PARTIAL if begin else _WHOLE,
        )

    async def _bundle(self, request: Request) -> StreamReply:
        _, guids = await _read_bundle(request)
        released = release_all(
            request.principal,
            guids,
            self._hospital,
            self._recalls,
            address=request.peer.host,
            purpose=_reason_of(request),
            are_ahead=True,
            is_over=request.has_hung_up,
        )
        return StreamReply(None, "", frames(released, guids))

    async def _staged(self, request: Request) -> StreamReply:
        asked, guids = await _read_bundle(request)
        staged = stage_all(
            guids,
            self._hospital,
            self._recalls,
            address=request.peer.host,
            are_ahead=asked.ahead,
            is_over=request.has_hung_up,
        )
        return StreamReply(None, "", frames(staged, guids))

    async def _headers(self, request: Request) -> Reply:
        asked = await request.read(AskHeaders)
        if len(asked.guids) > MAX_HEADERS:
            message = f"one question asks for at most {MAX_HEADERS} headers"
            raise MalformedMessageError(message)
        guids = [Guid(octets) for octets in asked.guids]
        headers = await release_headers(
            request.principal, guids, self._hospital, address=request.peer.host, purpose=printable(asked.purpose)
        )
        return Reply(SealedHeaders(headers))

    async def _transfers(self, request: Request) -> Reply:
        asked = await request.read(AskTransfers)
        if len(asked.guids) > MAX_BUNDLE:
            message = f"one question asks for at most {MAX_BUNDLE} transfers"
            raise MalformedMessageError(message)
        asked = msgspec.structs.replace(asked, purpose=printable(asked.purpose))
        transfers = await release_transfers(request.principal, asked, self._hospital, address=request.peer.host)
        return Reply(Transfers(transfers, bool(self._hospital.replicas.elements)))

    async def _release(self, request: Request, guid: Guid) -> Released:
        """Bring a file online."""
        return await release(
            request.principal,
            guid,
            self._hospital,
            self._recalls,
            address=request.peer.host,
            purpose=_reason_of(request),
        )

    async def _start_harvest(self, request: Request) -> Reply:
        asked = await request.read(StartHarvest)
        return Reply(await self._harvests.start(asked.project, pacs=asked.pacs, is_dry=asked.is_dry))

    async def _harvest_progress(self, request: Request) -> Reply:
        asked = await request.read(AskHarvest)
        return Reply(await self._harvests.end(asked.project, within=asked.wait))

    def _sight(self, request: Request) -> Callable[[Transaction], Sight]:
        """See as of this second's end, by what was decided for this principal in it already.

        Taken before the transaction is begun: what is decided in one must not be kept for a commit after it.
        """
        principal, now = request.principal, self._hospital.clock()
        when, passed = self._passed.of_this_second(
            principal, None, now, self._hospital.store, lambda when: (when, Passed.nothing())
        )
        return lambda tx: Sight(tx, principal, when, passed=passed)


async def _read_bundle(request: Request) -> tuple[AskBundle, list[Guid]]:
    asked = await request.read(AskBundle)
    if not 0 < len(asked.guids) <= MAX_BUNDLE:
        message = f"a bundle holds from one file to {MAX_BUNDLE}"
        raise MalformedMessageError(message)
    return asked, [Guid(octets) for octets in asked.guids]


def _reason_of(request: Request) -> str:
    """Read what a user says he reads for: printable, and of bounded length, as it goes to the audit log."""
    return printable(urllib.parse.unquote(request.headers.get(REASON_HEADER, "")))


def _begin_of(request: Request, staged: StagedObject) -> int:
    """Find where an answer begins: further on only where the caller has the bytes before of this very sealing."""
    asked = _RANGE.fullmatch(request.headers.get("range", ""))
    if asked is None or request.headers.get("if-range") != f'"{staged.salt.hex()}"':
        return 0
    begin = int(asked[1])
    return begin if begin < staged.size else 0
