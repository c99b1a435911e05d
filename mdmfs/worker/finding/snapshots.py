"""Snapshots as directories: ``.snapshots/NAME`` shows the files that a query found then, by their GUIDs.

A file reads as the bytes that it was frozen with, or not at all: what has become of it is its error, and stands in the
manifest. Names, numbers and sizes come from the hospital, which alone says where a file is.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import trio

from mdmfs.model.errors import (
    AccessDeniedError,
    InstanceLostError,
    MalformedMessageError,
    MalformedNameError,
    MdmfsError,
    NoSuchFileError,
    PeerUnreachableError,
)
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.files import FilePlace
from mdmfs.wire.messages.metadata import (
    SNAPSHOTS_PATH,
    AskSnapshots,
    FrozenFile,
    FrozenState,
    Snapshot,
    Snapshots,
)
from mdmfs.worker.finding.cohort import Cohort, Whereabouts
from mdmfs.worker.finding.federation import Federation, told_silence
from mdmfs.worker.finding.names import alias_of, lfn_of_alias
from mdmfs.worker.finding.queries import INCOMPLETE, FixedPages, told_incomplete
from mdmfs.worker.finding.virtual import Directory, Entry, Gone, PlacedNode, Text

SNAPSHOTS: Final = b".snapshots"
ABOUT: Final = b"ABOUT.json"
SERIES: Final = b"series"
MANIFEST: Final = b"manifest"
_SUFFIX: Final = ".tsv"
_HEAD: Final = "name\tguid\tsha256\tsize\tpolicy\tstate\n"
TOLD: Final = {
    FrozenState.THERE: "",
    FrozenState.HIDDEN: "its hospital does not show it at the moment",
    FrozenState.REPLACED: "another rendition has its name now, and its key is destroyed",
    FrozenState.GONE: "its hospital has taken it away: its name, its key and its ciphertext",
    FrozenState.DENIED: "it is no longer for this identity",
}


class SnapshotsDirectory:
    """``.snapshots``: the snapshots of the caller's own."""

    modified = 0.0

    def __init__(self, federation: Federation, places: Whereabouts) -> None:
        self._federation = federation
        self._places = places

    async def look_up(self, name: bytes) -> Directory:
        """Give the directory of a snapshot."""
        parts, silent = await self._parts()
        mine = {hospital: one for hospital, told in parts.items() for one in told if one.name.encode() == name}
        if mine:
            return SnapshotDirectory(
                mine, silent, Cohort(self._federation, next(iter(mine.values())).name, self._places)
            )
        if silent:
            raise told_silence(silent)
        message = f"there is no snapshot {name.decode(errors='replace')} of this identity"
        raise NoSuchFileError(message)

    def open(self) -> LatePages:
        """List those of all hospitals."""
        return LatePages(self._entries)

    async def _entries(self) -> list[tuple[bytes, Entry]]:
        parts, silent = await self._parts()
        by_name: dict[str, dict[str, Snapshot]] = {}
        for hospital, told in parts.items():
            for one in told:
                by_name.setdefault(one.name, {})[hospital] = one
        entries: list[tuple[bytes, Entry]] = [
            (name.encode(), SnapshotDirectory(mine, silent, Cohort(self._federation, name, self._places)))
            for name, mine in sorted(by_name.items())
        ]
        return [*entries, (INCOMPLETE, told_incomplete(silent))] if silent else entries

    async def _parts(self) -> tuple[dict[str, list[Snapshot]], dict[str, str]]:
        answers, silent = await self._federation.ask_all(SNAPSHOTS_PATH, AskSnapshots(), Snapshots)
        for name, answer in list(answers.items()):
            if not all(_is_name(one.name) for one in answer.snapshots):  # listed with the others, it would hide them
                silent[name] = "it tells of a snapshot with a name that no directory can hold"
                del answers[name]
        if not answers:
            raise told_silence(silent)
        return {name: answer.snapshots for name, answer in answers.items()}, silent


class SnapshotDirectory:
    """One snapshot: what it is, its series, and what each file was."""

    def __init__(self, parts: dict[str, Snapshot], silent: dict[str, str], cohort: Cohort) -> None:
        """``parts`` are what the hospitals have of it, by their names."""
        self.modified = min(part.created for part in parts.values())
        self._entries: dict[bytes, Entry] = {
            ABOUT: Text(told_about(parts)),
            MANIFEST: ManifestDirectory(cohort, self.modified),
            SERIES: FrozenSeriesDirectory(cohort, self.modified),
        }
        if silent:
            self._entries[INCOMPLETE] = told_incomplete(silent)

    async def look_up(self, name: bytes) -> Entry:
        """Give one of the few."""
        await trio.lowlevel.checkpoint()
        found = self._entries.get(name)
        if found is None:
            raise _nothing()
        return found

    def open(self) -> FixedPages:
        """List them."""
        return FixedPages(self._entries)


class FrozenSeriesDirectory:
    """``series``: a directory for each series of a snapshot."""

    def __init__(self, cohort: Cohort, modified: float) -> None:
        self.modified = modified
        self._cohort = cohort

    async def look_up(self, name: bytes) -> Directory:
        """Give the directory of one series."""
        lfn = _lfn_of(name)
        if not await self._cohort.files(str(lfn)):
            raise _nothing()
        return SeriesDirectory(self._cohort, str(lfn), self.modified)

    def open(self) -> SeriesPages:
        """List the series."""
        return SeriesPages(self._cohort, self._entries)

    async def _entries(self, paths: Sequence[str]) -> list[tuple[bytes, Entry]]:
        await trio.lowlevel.checkpoint()
        return [(_alias_told(path).encode(), SeriesDirectory(self._cohort, path, self.modified)) for path in paths]


class ManifestDirectory:
    """``manifest``: for each series of a snapshot a table of its files, and what has become of them."""

    def __init__(self, cohort: Cohort, modified: float) -> None:
        self.modified = modified
        self._cohort = cohort

    async def look_up(self, name: bytes) -> Text:
        """Give the table of one series."""
        if not name.endswith(_SUFFIX.encode()):
            raise _nothing()
        files = await self._cohort.files(str(_lfn_of(name.removesuffix(_SUFFIX.encode()))))
        if not files:
            raise _nothing()
        return told_manifest(files)

    def open(self) -> SeriesPages:
        """List the tables."""
        return SeriesPages(self._cohort, self._entries)

    async def _entries(self, paths: Sequence[str]) -> list[tuple[bytes, Entry]]:
        files = await self._cohort.files_between(paths[0], paths[-1])
        return [
            (f"{_alias_told(path)}{_SUFFIX}".encode(), told_manifest(files[path])) for path in paths if path in files
        ]


class SeriesDirectory:
    """One series of a snapshot: its files as they were."""

    def __init__(self, cohort: Cohort, path: str, modified: float) -> None:
        self.modified = modified
        self._cohort = cohort
        self._path = path

    async def look_up(self, name: bytes) -> Entry:
        """Give a file."""
        files = [file for file in await self._cohort.files(self._path) if file.name.encode() == name]
        if not files:
            raise _nothing()
        return (await self._placed(files))[0][1]

    def open(self) -> LatePages:
        """List the files."""
        return LatePages(self._entries)

    async def _entries(self) -> list[tuple[bytes, Entry]]:
        return await self._placed(await self._cohort.files(self._path))

    async def _placed(self, files: Sequence[FrozenFile]) -> list[tuple[bytes, Entry]]:
        there = [file for file in files if file.state is FrozenState.THERE]
        places = dict(zip((file.guid for file in there), await self._cohort.places(self._path, there), strict=True))
        return [(file.name.encode(), _entry_of(file, places.get(file.guid))) for file in files if _is_name(file.name)]


class LatePages:
    """A directory whose entries are asked for when it is read."""

    def __init__(self, ask: Callable[[], Awaitable[list[tuple[bytes, Entry]]]]) -> None:
        self._ask = ask
        self._is_over = False

    async def more(self) -> Sequence[tuple[bytes, Entry]]:
        """Give all of them, once."""
        if self._is_over:
            return ()
        self._is_over = True
        return await self._ask()

    def close(self) -> None:
        """Ask no further."""
        self._is_over = True


class SeriesPages:
    """Entries for the series of a snapshot, a page at a time."""

    def __init__(
        self, cohort: Cohort, entries: Callable[[Sequence[str]], Awaitable[list[tuple[bytes, Entry]]]]
    ) -> None:
        """``entries`` is asked for one page of series, of which there is at least one."""
        self._cohort = cohort
        self._entries = entries
        self._after = ""
        self._is_over = False

    async def more(self) -> Sequence[tuple[bytes, Entry]]:
        """Give the next ones."""
        if self._is_over:
            return ()
        paths, self._is_over = await self._cohort.series(self._after)
        self._after = paths[-1] if paths else self._after
        return await self._entries(paths) if paths else ()

    def close(self) -> None:
        """Ask no further."""
        self._is_over = True


def told_about(parts: dict[str, Snapshot]) -> bytes:
    """Write down what a snapshot is, as JSON."""
    first = min(parts.values(), key=lambda part: part.created)
    told = {
        "name": first.name,
        "query": first.query,
        "created": _time(first.created),
        "author": first.author,
        "hospitals": {
            hospital: {
                "created": _time(part.created),
                "files": part.files,
                "not readable any more": part.gone,
                "policies": [policy.hex() for policy in part.policies],
            }
            for hospital, part in sorted(parts.items())
        },
    }
    return json.dumps(told, indent=2, ensure_ascii=False).encode() + b"\n"


def told_manifest(files: Iterable[FrozenFile]) -> Text:
    """Write down the files of a series, a line each."""
    lines = (
        f"{file.name}\t{uuid.UUID(bytes=file.guid)}\t{file.sha256.hex()}\t{file.size}\t{file.policy.hex()}"
        f"\t{file.state.value}{': ' if TOLD[file.state] else ''}{TOLD[file.state]}\n"
        for file in files
    )
    return Text((_HEAD + "".join(lines)).encode())


def _entry_of(file: FrozenFile, place: FilePlace | None) -> Entry:
    if place is not None and (place.node.guid, place.node.size) == (file.guid, file.size) and place.above:
        node = place.node
        return PlacedNode(
            file.name,
            node.inode,
            node.kind,
            node.size,
            node.modified,
            node.guid,
            lfn=place.lfn,
            above=tuple(place.above),
        )
    return Gone(file.size, _why(file))


def _why(file: FrozenFile) -> MdmfsError:
    guid = Guid(file.guid)
    match file.state:
        case FrozenState.THERE:
            return PeerUnreachableError(f"{guid} is not at the hospital that this mount shows, or no longer")
        case FrozenState.DENIED:
            return AccessDeniedError(f"{guid}: {TOLD[file.state]}")
        case _:
            return InstanceLostError(f"{guid}: {TOLD[file.state]}")


def _is_name(name: str) -> bool:
    try:
        Lfn((name,))
    except MalformedNameError:
        return False
    return True


def _alias_told(path: str) -> str:
    try:
        return alias_of(Lfn.parse(path))
    except MalformedNameError as error:
        message = "a metadata service tells of a series that no directory can hold"
        raise MalformedMessageError(message) from error


def _lfn_of(name: bytes) -> Lfn:
    try:
        return lfn_of_alias(name)
    except MalformedNameError as error:
        raise _nothing() from error


def _time(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")


def _nothing() -> NoSuchFileError:
    return NoSuchFileError("the snapshot has no such entry")
