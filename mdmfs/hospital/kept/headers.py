"""Headers: of each file its prefix object, sealed at registration, served without a recall.

They are a convenience, and bounded: what was registered longest ago makes room, and where there is none for a file, its
opening causes a recall, which makes it anew if there is room: the disk may have been full at registration. They lie in
an LMDB environment of their own, so that a full disk here costs the store nothing.
Of a file that is gone, or has a new key, none is served from the moment on which that is decided; the row goes soon
after. Ciphertext only.
"""

from __future__ import annotations

import itertools
import pathlib
import secrets
import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import lmdb
import structlog
import trio

from mdmfs.daemon.formats import Format, bring_up_folder
from mdmfs.hospital.catalogue.records import FileRecord
from mdmfs.hospital.kept.known import Origin
from mdmfs.model.errors import StoreError
from mdmfs.model.names import Guid
from mdmfs.rows.environment import make_table_of_readers
from mdmfs.sealing.header import FileKey, ObjectContext, Role
from mdmfs.sealing.layout import PAGE_SIZE, SALT_SIZE, SEGMENT_SIZE, Buffer, prefix_pieces
from mdmfs.sealing.seal import Sealer, seal

HEADERS_FORMAT: Final[Format[pathlib.Path]] = Format(
    "store of headers", remedy=", or delete it: headers are made again"
)
SPARE_BYTES: Final = 64 * 2**20
"""Of the map, beyond the limit: LMDB writes anew what it changes."""
EVICTED_AT_ONCE: Final = 256
ROOM: Final = 1 / 16
"""Of the limit: with less left, what is missing is what has made room."""
_GENERATION: Final = struct.Struct(">I")
_NUMBER: Final = struct.Struct(">Q")
_ORIGIN: Final = struct.Struct(">II32s")
"""Generation of the key, length and digest."""

log = structlog.get_logger()


class Beginning:
    """Keeps, of a plaintext that goes by in segments, what its prefix object holds."""

    def __init__(self) -> None:
        self._front = b""
        self._last_page = b""

    def feed(self, segment: memoryview, header_length: int) -> None:
        """Take the next segment; the header's length is known with the first."""
        if not self._front:
            front, *_ = prefix_pieces(2 * SEGMENT_SIZE, header_length)
            self._front = bytes(segment[: front.length])
        self._last_page = bytes(segment[(len(segment) - 1) // PAGE_SIZE * PAGE_SIZE :])

    def octets(self, size: int, header_length: int) -> bytes:
        """Give the plaintext of the prefix object; empty where the header is too long to be kept."""
        front, *last = prefix_pieces(size, header_length)
        if front.length > len(self._front):
            return b""
        return self._front[: front.length] + (self._last_page[-last[0].length :] if last else b"")


def seal_beginning(octets: Buffer, key: FileKey, guid: Guid, generation: int) -> bytes:
    """Seal what ``Beginning`` kept."""
    context = ObjectContext(Role.PREFIX, guid, generation, len(octets))
    return seal(octets, key, context, secrets.token_bytes(SALT_SIZE))


class KeptHeader(NamedTuple):
    """What is kept of one file."""

    guid: Guid
    generation: int
    """Of the file's key."""
    sealed: bytes
    """The prefix object."""
    origin: Origin | None = None
    """By what its header is known when it arrives again."""


class Resealing:
    """Makes the prefix object of a file anew while its plaintext goes by; the key may be closed meanwhile."""

    def __init__(self, file: FileRecord, key: FileKey) -> None:
        self._file = file
        pieces = prefix_pieces(file.rendition.size, file.rendition.header_length)
        size = sum(piece.length for piece in pieces)
        context = ObjectContext(Role.PREFIX, file.guid, file.generation, size)
        self._sealer = Sealer(key, context, secrets.token_bytes(SALT_SIZE))
        self._beginning = Beginning()

    def feed(self, segment: memoryview) -> None:
        """Take the next segment."""
        self._beginning.feed(segment, self._file.rendition.header_length)

    def finish(self, origin: Origin | None) -> KeptHeader:
        """Give what is to be kept, once the whole file has gone by and was what is registered."""
        octets = self._beginning.octets(self._file.rendition.size, self._file.rendition.header_length)
        sealed = self._sealer.header + bytes(self._sealer.seal(octets)) if octets else b""
        return KeptHeader(self._file.guid, self._file.generation, sealed, origin)


class Headers:
    """All prefix objects of a hospital, by GUID and key generation."""

    def __init__(
        self, directory: pathlib.Path, limit: int, headers_format: Format[pathlib.Path] = HEADERS_FORMAT
    ) -> None:
        """Open a directory of mode 0700 for ``limit`` bytes of them; raises ``StoreError``."""
        self._limit = limit
        self._gone: set[Guid] = set()
        self._is_failing = False
        """Whether the last write has failed: of a full disk the log tells once."""
        self._news = trio.Event()
        self._threads = trio.CapacityLimiter(1)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
            bring_up_folder(headers_format, directory)
            make_table_of_readers(directory)
            self._environment = lmdb.open(
                str(directory), map_size=limit + limit // 4 + SPARE_BYTES, max_dbs=3, mode=0o600, metasync=False
            )
            self._objects = self._environment.open_db(b"objects")
            self._order = self._environment.open_db(b"order")
            self._origins = self._environment.open_db(b"origins")
        except (OSError, lmdb.Error) as error:
            message = f"the headers in {directory} cannot be opened: {error}"
            raise StoreError(message, what_to_do="delete them: they are made anew") from error

    async def put(self, headers: Sequence[KeptHeader]) -> None:
        """Keep objects with the generations of their keys, and drop older ones for them.

        Where that fails, they are not kept, and the log says why.
        """
        wanted = [one for one in headers if one.sealed]
        if wanted:
            await self._write(wanted)

    async def find(self, wanted: Sequence[tuple[Guid, int]]) -> list[bytes]:
        """Give the objects of these files and generations; an empty one where there is none."""
        found = await trio.to_thread.run_sync(self._find, wanted)
        return [b"" if guid in self._gone else octets for (guid, _), octets in zip(wanted, found, strict=True)]

    def origin(self, guid: Guid, generation: int) -> tuple[Origin, bytes] | None:
        """Give by what a file's header is known when it arrives again, and its prefix object; None: not known."""
        if guid in self._gone:
            return None
        with self._environment.begin(db=self._objects) as rows:
            row, sealed = rows.get(guid.octets, db=self._origins), rows.get(guid.octets)
        if row is None or sealed is None or row[: _GENERATION.size] != sealed[: _GENERATION.size]:
            return None
        of_generation, length, digest = _ORIGIN.unpack(row)
        return (Origin(length, digest), sealed[_GENERATION.size :]) if of_generation == generation else None

    def page(self, limit: int, after: Guid | None = None) -> list[tuple[Guid, int]]:
        """Give some of the files of which an object is kept, with the generations of their keys."""
        try:
            with self._environment.begin(db=self._objects, buffers=True) as rows, rows.cursor() as cursor:
                is_any = cursor.first() if after is None else cursor.set_range(after.octets + b"\0")
                found = itertools.islice(cursor, limit) if is_any else ()
                return [(Guid(bytes(guid)), _GENERATION.unpack_from(value)[0]) for guid, value in found]
        except lmdb.Error as error:
            message = f"the headers cannot be read: {error}"
            raise StoreError(message, what_to_do="delete them: they are made anew") from error

    def lacks(self, guid: Guid, generation: int) -> bool:
        """Ask whether nothing is kept under this generation of a file's key, and nothing is about to be deleted."""
        return guid not in self._gone and not any(self._find([(guid, generation)]))

    def has_room(self) -> bool:
        """Ask whether what is missing need not stay so: others that come do not drive it out again."""
        return self._used() <= (1 - ROOM) * self._limit

    def count(self) -> int:
        """Count what is kept."""
        with self._environment.begin() as rows:
            return int(rows.stat(self._objects)["entries"])

    def discard(self, guid: Guid) -> None:
        """Serve no object of a file any more; its row goes as soon as ``run`` comes to it."""
        self._gone.add(guid)
        self._news.set()

    async def forget(self, guids: Iterable[Guid]) -> None:
        """Delete the objects of files that are about to be destroyed: a kill afterwards would leave them for ever."""
        self._gone.update(guids)
        await self.flush()

    async def run(self) -> None:
        """Delete what was discarded, for ever."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            await self.flush()

    async def flush(self) -> None:
        """Delete what was discarded, now."""
        gone = set(self._gone)
        if await self._write((), gone):
            self._gone -= gone

    def close(self) -> None:
        """Close the environment."""
        self._environment.close()

    async def _write(self, headers: Sequence[KeptHeader], gone: Iterable[Guid] = ()) -> bool:
        try:
            await trio.to_thread.run_sync(self._change, headers, gone, limiter=self._threads)
        except lmdb.Error as error:
            if not self._is_failing:
                log.warning("headers cannot be kept or deleted", path=self._environment.path(), reason=str(error))
            self._is_failing = True
            return False
        if self._is_failing:
            log.info("headers are kept again")
        self._is_failing = False
        return True

    def _find(self, wanted: Sequence[tuple[Guid, int]]) -> list[bytes]:
        found = []
        with self._environment.begin(db=self._objects) as rows:
            for guid, generation in wanted:
                value = rows.get(guid.octets) or b""
                is_it = value[: _GENERATION.size] == _GENERATION.pack(generation)
                found.append(value[_GENERATION.size :] if is_it else b"")
        return found

    def _change(self, headers: Sequence[KeptHeader], gone: Iterable[Guid]) -> None:
        with self._environment.begin(write=True) as rows:
            for guid in gone:
                rows.delete(guid.octets, db=self._objects)
                rows.delete(guid.octets, db=self._origins)
            with rows.cursor(self._order) as cursor:
                number = _NUMBER.unpack(cursor.key())[0] if cursor.last() else 0
            for place, (guid, generation, sealed, origin) in enumerate(headers, number + 1):
                rows.put(guid.octets, _GENERATION.pack(generation) + sealed, db=self._objects)
                rows.put(_NUMBER.pack(place), guid.octets, db=self._order, append=True)
                if origin is not None:
                    rows.put(guid.octets, _ORIGIN.pack(generation, *origin), db=self._origins)
        while self._used() > self._limit and self._evict():
            pass

    def _used(self) -> int:
        with self._environment.begin() as rows:
            stat = rows.stat(self._objects)
        return int(stat["psize"]) * int(stat["overflow_pages"] + stat["leaf_pages"] + stat["branch_pages"])

    def _evict(self) -> bool:
        """Drop those registered longest ago; False where none is left."""
        with self._environment.begin(write=True) as rows, rows.cursor(self._order) as cursor:
            is_any = bool(cursor.first())
            for _ in range(EVICTED_AT_ONCE):
                if not cursor.key():
                    break
                rows.delete(cursor.value(), db=self._objects)
                rows.delete(cursor.value(), db=self._origins)
                cursor.delete()
        return is_any
