"""A hospital without network or PACS: a tree of synthetic bytes, sealed for real; it can be dead, slow or damaged."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import hashlib
import itertools
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

import trio

from mdmfs.model.errors import MdmfsError, NoSuchFileError, PeerUnreachableError, ReadOnlyError
from mdmfs.model.locality import Locality
from mdmfs.model.names import Guid, Lfn
from mdmfs.sealing.header import FileKey, ObjectContext, Role
from mdmfs.sealing.layout import prefix_pieces
from mdmfs.sealing.seal import seal
from mdmfs.wire.bundle import Event, Piece
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.messages.files import (
    Changes,
    DirectoryPage,
    FileDescription,
    FilePlace,
    Node,
    NodeKind,
    OpensReport,
    SealedBeginning,
    SealedHeader,
    Totals,
)
from mdmfs.wire.messages.keystores import KeyEntry
from mdmfs.wire.messages.names import ChangedName, ChangeName
from mdmfs.worker.hospital.port import Beginning, Hear
from tests.twins.keystores import HOSPITAL, TwinKeystore, principal, shares_of
from tests.twins.octets import octets

KEYSTORES = ("k1", "k2", "k3")
ROOT = Lfn.parse("/grid/medical")
HEADER_LENGTH = 1000
REGISTERED = 1_500_000_000.25


@dataclasses.dataclass
class TwinFile:
    """One registered file."""

    guid: Guid
    inode: int
    plaintext: bytes
    key: bytes
    generation: int = 0


@dataclasses.dataclass
class TwinDirectory:
    """One directory."""

    inode: int
    entries: dict[str, TwinDirectory | TwinFile] = dataclasses.field(default_factory=dict)
    modified: float = REGISTERED
    _order: tuple[tuple[str, ...], list[bytes]] = ((), [])

    def names_after(self, after: str) -> list[str]:
        """Give the names behind one, in the order of their bytes; that is made once for many pages."""
        names = tuple(self.entries)
        if names != self._order[0]:
            self._order = names, sorted(name.encode() for name in names)
        order = self._order[1]
        return [name.decode() for name in order[bisect.bisect_right(order, after.encode()) :]]


class TwinDownload:
    """A sealed object on its way, with what shall go wrong with it."""

    def __init__(self, hospital: TwinHospital, file: TwinFile, sealed: bytes, begin: int) -> None:
        self._hospital = hospital
        self._sealed = memoryview(hospital.damage(sealed))
        self._given = begin
        self.begin = begin
        self.length = len(sealed)
        self.salt = sealed[:24]
        self.generation = file.generation
        self.threshold = 2

    async def receive_into(self, buffer: memoryview) -> int:
        """Give a piece, after a while; a cut stream raises, as the client on the wire does."""
        await trio.sleep(self._hospital.pause)
        if self._hospital.stops_after is not None and self._given >= self._hospital.stops_after:
            await self._hospital.goes_on.wait()
        count = min(len(buffer), len(self._sealed) - self._given, self._hospital.piece)
        if not count and self._given < self.length:
            message = "the stream ended before its end"
            raise PeerUnreachableError(message)
        buffer[:count] = self._sealed[self._given : self._given + count]
        self._given += count
        return count


class TwinBundle:
    """Several sealed objects on their way, one after the other, with what shall go wrong with them."""

    def __init__(self, hospital: TwinHospital, guids: Sequence[Guid]) -> None:
        self._hospital = hospital
        self._events = self._all(guids)

    async def next(self) -> tuple[int, Event] | None:
        """Give what is said next."""
        return await anext(self._events, None)

    async def aclose(self) -> None:
        """Say nothing more."""
        await self._events.aclose()

    async def _all(self, guids: Sequence[Guid]) -> AsyncGenerator[tuple[int, Event]]:
        for place, guid in enumerate(guids):
            file = self._hospital.files.get(guid)
            if file is None:
                yield place, NoSuchFileError(f"there is no file {guid}")
                continue
            download = TwinDownload(self._hospital, file, self._hospital.sealed(guid), 0)
            yield place, SealedBeginning(download.length, download.generation, download.threshold, download.salt)
            buffer, left = memoryview(bytearray(2**20)), download.length
            while left:
                count = await download.receive_into(buffer)
                yield place, Piece(buffer[:count])
                left -= count


class TwinHospital:
    """``mdmfs.worker.hospital.Hospital`` in memory, with three keystores beside it."""

    def __init__(self, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        """``random`` makes GUIDs and keys: one that is begun anew makes the same ones again."""
        self._random = random
        self.root = TwinDirectory(1)
        self.files: dict[Guid, TwinFile] = {}
        self.keystores = {name: TwinKeystore() for name in KEYSTORES}
        self.version = 1
        self.applied = 0
        """Up to which version a mount says that it has applied all changes."""
        self.page_size = 10_000
        self.failure: Callable[[], MdmfsError] | None = None
        """What every question is answered with."""
        self.refusal: Callable[[], MdmfsError] | None = None
        """What every fetch is answered with."""
        self.recall_seconds = 0.0
        self.padding_seconds = 0.0
        """So long a fetch goes on behind a whole object."""
        self.pause = 0.0
        """Before each piece of a stream."""
        self.piece = 2**20
        self.stops_after: int | None = None
        """After so many bytes a stream brings nothing more, until it goes on."""
        self.goes_on = trio.Event()
        self.damage: Callable[[bytes], bytes] = bytes
        """What becomes of each object on its way."""
        self.staged: dict[Guid, bytes] | None = None
        """What was sealed, where it is kept: another fetch gives the same sealing again, or the rest of it."""
        self.beginnings: list[Beginning | None] = []
        """What each fetch said to have already."""
        self.prefetched: list[Guid] = []
        """What was fetched before anybody asked for it."""
        self.fetches = 0
        self.brought_online: list[Guid] = []
        """What was asked to be brought online."""
        self.has_headers = False
        """Whether prefix objects were made at registration."""
        self.swapped_headers: dict[Guid, Guid] = {}
        """Whose prefix object is given for another's."""
        self.header_questions: list[list[Guid]] = []
        self.reports: list[OpensReport] = []
        """What mounts said that they had opened by themselves."""
        self.given_back: list[int] = []
        """After how many reported opens the lease was given back, each time."""
        self.listings = 0
        self.descriptions = 0
        self._inodes = itertools.count(2)
        self._log: list[tuple[int, list[int], list[int]]] = []
        self._news = trio.Event()
        self.reset = False
        self.lease = 3600.0

    # What tests arrange

    def add_file(self, lfn: str, plaintext: bytes) -> TwinFile:
        """Register a file, with the directories above it, and tell the feed."""
        path = Lfn.parse(lfn)
        directory = self.make_directory(path.parent)
        file = TwinFile(Guid.from_random(self._random(16)), next(self._inodes), plaintext, self._random(32))
        directory.entries[path.name] = file
        self.files[file.guid] = file
        self.note([directory.inode], [])
        return file

    def add_sibling_files(self, folder: str, count: int, size: int) -> list[TwinFile]:
        """Register files ``0001.dcm``, ``0002.dcm``, ... of one size."""
        return [self.add_file(f"{folder}/{n:04}.dcm", octets(size, f"{folder}{n}")) for n in range(1, count + 1)]

    def holds(self, folder: Lfn, guid: Guid) -> bool:
        """Ask whether a folder has a file at or below it."""
        directory: TwinDirectory | TwinFile | None = self.root
        for part in folder.parts:
            directory = directory.entries.get(part) if isinstance(directory, TwinDirectory) else None
        below = [directory]
        while below:
            entry = below.pop()
            if isinstance(entry, TwinFile) and entry.guid == guid:
                return True
            if isinstance(entry, TwinDirectory):
                below += entry.entries.values()
        return False

    def make_directory(self, lfn: Lfn) -> TwinDirectory:
        """Make a directory and those above it."""
        directory = self.root
        for part in lfn.parts:
            child = directory.entries.get(part)
            if child is None:
                child = directory.entries[part] = TwinDirectory(next(self._inodes))
                self.note([directory.inode], [])
            assert isinstance(child, TwinDirectory)
            directory = child
        return directory

    def guids_in(self, lfn: str) -> dict[str, Guid]:
        """Name the files of a directory, and their GUIDs."""
        entries = self.make_directory(Lfn.parse(lfn)).entries
        return {name: entry.guid for name, entry in entries.items() if isinstance(entry, TwinFile)}

    def remove(self, lfn: str) -> None:
        """Take a name away, and tell the feed."""
        path = Lfn.parse(lfn)
        directory = self.make_directory(path.parent)
        gone = directory.entries.pop(path.name)
        self.note([directory.inode], [gone.inode])

    def note(self, directories: list[int], files: list[int]) -> None:
        """Write a change into the feed."""
        self.version += 1
        self._log.append((self.version, directories, files))
        news, self._news = self._news, trio.Event()
        with contextlib.suppress(RuntimeError):  # before trio runs nobody waits
            news.set()

    async def open_keystores(self, nursery: trio.Nursery, *, reader: str | None = None) -> Keystores:
        """Deposit all keys, and give the keystores as a reader sees them: one without a right, unless None."""
        owner = Keystores(
            {name: twin.as_seen_by(principal(HOSPITAL)) for name, twin in self.keystores.items()}, nursery
        )
        await self.deposit(owner, *self.files.values())
        if reader is None:
            return owner
        return Keystores({name: twin.as_seen_by(principal(reader)) for name, twin in self.keystores.items()}, nursery)

    async def deposit(self, keystores: Keystores, *files: TwinFile) -> None:
        """Split the keys of files among the keystores."""
        split = [shares_of(file.guid, file.key, generation=file.generation) for file in files]
        for name, shares in zip(KEYSTORES, zip(*split, strict=True), strict=False):
            entries = [KeyEntry(share.encode(), []) for share in shares]
            await keystores.register(name, entries, deadline=trio.current_time() + 60)

    def sealed(self, guid: Guid) -> bytes:
        """Give what is staged of a file, or seal it anew, under a fresh salt."""
        if self.staged is not None and guid in self.staged:
            return self.staged[guid]
        file = self.files[guid]
        context = ObjectContext(Role.BODY, guid, file.generation, len(file.plaintext))
        with FileKey(file.key) as key:
            sealed = seal(file.plaintext, key, context, secrets.token_bytes(24))
        if self.staged is not None:
            self.staged[guid] = sealed
        return sealed

    # The port

    async def list_directory(self, lfn: Lfn, after: str) -> DirectoryPage:
        """See ``Hospital``."""
        self.listings += 1
        await self._answer()
        directory = self._find(lfn)
        names = directory.names_after(after)
        page = [_node(name, directory.entries[name]) for name in names[: self.page_size]]
        return DirectoryPage(_node(lfn.name, directory), page, len(names) <= self.page_size, self.version)

    async def describe(self, guid: Guid) -> FileDescription:
        """See ``Hospital``."""
        self.descriptions += 1
        await self._answer()
        file = self.files.get(guid)
        if file is None:
            message = f"there is no file {guid}"
            raise NoSuchFileError(message)
        return FileDescription(
            guid=guid.octets,
            inode=file.inode,
            size=len(file.plaintext),
            header_length=min(HEADER_LENGTH, len(file.plaintext)),
            sha256=hashlib.sha256(file.plaintext).digest(),
            generation=file.generation,
            threshold=2,
            locality=Locality.NEARLINE,
            replicas=[f"srm://hospital.example.org:8443/mdm/{guid}"],
        )

    async def changes(
        self,
        since: int,
        wait: float,
        report: OpensReport | None = None,
        groups: Sequence[str] = (),  # noqa: ARG002 nobody loses any here
    ) -> Changes:
        """See ``Hospital``."""
        if report is not None and self.failure is None:
            self.reports.append(report)
        self.applied = max(self.applied, since)
        await self._answer()
        if self.reset:
            self.reset = False
            return Changes(self.version, [], [], is_reset=True, lease=self.lease)
        with trio.move_on_after(wait):
            while self.version <= since:
                await self._news.wait()
                await self._answer()
        newer = [entry for entry in self._log if entry[0] > since]
        directories = [inode for _, inodes, _ in newer for inode in inodes]
        files = [inode for _, _, inodes in newer for inode in inodes]
        return Changes(self.version, directories, files, lease=self.lease)

    async def give_back(self) -> None:
        """See ``Hospital``."""
        await self._answer()
        told = {report.number: report for report in self.reports}  # one whose answer was lost is told again
        self.given_back.append(sum(one.count for report in told.values() for one in report.opens))

    async def change_name(self, change: ChangeName) -> ChangedName:
        """Refuse: this hospital's names are made by tests."""
        await self._answer()
        message = f"{change.lfn} cannot be changed"
        raise ReadOnlyError(message)

    async def comment(self, lfn: Lfn) -> str:
        """Give none."""
        await self._answer()
        self._find(lfn)
        return ""

    async def locate(self, guids: Sequence[Guid]) -> list[FilePlace | None]:
        """See ``Hospital``."""
        await self._answer()
        return [self._place(self.root, ROOT, [], guid) for guid in guids]

    def _place(self, directory: TwinDirectory, lfn: Lfn, above: list[int], guid: Guid) -> FilePlace | None:
        above = [*above, directory.inode]
        for name, entry in directory.entries.items():
            if isinstance(entry, TwinDirectory):
                found = self._place(entry, lfn / name, above, guid)
                if found is not None:
                    return found
            elif entry.guid == guid:
                return FilePlace(_node(name, entry), str(lfn / name), above)
        return None

    def doubt(self, guid: Guid) -> bool:
        """Know no other place."""
        del guid
        return False

    async def totals(self, lfn: Lfn) -> Totals:
        """See ``Hospital``."""
        await self._answer()
        self._find(lfn)
        return Totals(len(self.files), sum(len(file.plaintext) for file in self.files.values()))

    async def stage(self, guids: Sequence[Guid]) -> None:
        """See ``Hospital``."""
        await self._answer()
        self.brought_online += guids

    async def acl(self, lfn: Lfn) -> list[str]:
        """See ``Hospital``."""
        await self._answer()
        return [f"# file: {lfn}\nuser::rwxa-\n"]

    async def headers(self, guids: Sequence[Guid]) -> list[SealedHeader]:
        """See ``Hospital``."""
        self.header_questions.append(list(guids))
        await self._answer()
        return [self._header(self.files.get(self.swapped_headers.get(guid, guid))) for guid in guids]

    def _header(self, file: TwinFile | None) -> SealedHeader:
        if file is None or not self.has_headers or self.refusal is not None:
            return SealedHeader()
        pieces = prefix_pieces(len(file.plaintext), min(HEADER_LENGTH, len(file.plaintext)))
        octets_ = b"".join(file.plaintext[piece.offset : piece.offset + piece.length] for piece in pieces)
        context = ObjectContext(Role.PREFIX, file.guid, file.generation, len(octets_))
        with FileKey(file.key) as key:
            return SealedHeader(seal(octets_, key, context, secrets.token_bytes(24)), file.generation, 2)

    @contextlib.asynccontextmanager
    async def fetch(self, guid: Guid, *, beginning: Beginning | None = None) -> AsyncIterator[TwinDownload]:
        """See ``Hospital``."""
        self.fetches += 1
        self.beginnings.append(beginning)
        await self._answer()
        if self.refusal is not None:
            raise self.refusal()
        file = self.files.get(guid)
        if file is None:
            message = f"there is no file {guid}"
            raise NoSuchFileError(message)
        await trio.sleep(self.recall_seconds)
        sealed = self.sealed(guid)
        is_same = beginning is not None and beginning.salt == sealed[:24] and beginning.length < len(sealed)
        yield TwinDownload(self, file, sealed, beginning.length if beginning is not None and is_same else 0)
        await trio.sleep(self.padding_seconds)

    async def fetch_all(self, guids: Sequence[Guid], hear: Hear) -> None:
        """See ``Hospital``."""
        async with self.bundle(guids) as bundle:
            while (said := await bundle.next()) is not None:
                await hear(*said)

    @contextlib.asynccontextmanager
    async def bundle(self, guids: Sequence[Guid]) -> AsyncIterator[TwinBundle]:
        """Give what it says of several files."""
        self.fetches += 1
        self.prefetched += guids
        await self._answer()
        if self.refusal is not None:
            raise self.refusal()
        await trio.sleep(self.recall_seconds)
        bundle = TwinBundle(self, guids)
        try:
            yield bundle
        finally:
            await bundle.aclose()

    async def _answer(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure()

    def _find(self, lfn: Lfn) -> TwinDirectory:
        directory: TwinDirectory | TwinFile | None = self.root
        for part in lfn.parts:
            directory = directory.entries.get(part) if isinstance(directory, TwinDirectory) else None
        if not isinstance(directory, TwinDirectory):
            message = f"there is no directory {lfn}"
            raise NoSuchFileError(message)
        return directory


def unreachable() -> MdmfsError:
    """Be a hospital whose machine is off."""
    return PeerUnreachableError("the hospital does not answer")


def _node(name: str, entry: TwinDirectory | TwinFile) -> Node:
    if isinstance(entry, TwinDirectory):
        return Node(name, entry.inode, NodeKind.DIRECTORY, 0, entry.modified)
    return Node(name, entry.inode, NodeKind.FILE, len(entry.plaintext), REGISTERED, entry.guid.octets)
