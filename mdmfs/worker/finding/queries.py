"""Queries as directories: ``.find/<query>/`` lists the series that the caller finds, as links to where they are."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

import trio

from mdmfs.model.errors import MalformedNameError, MalformedQueryError, NoSuchFileError, PeerTimedOutError
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.metadata import EXPLAIN_PATH, FIND_PATH, Explain, Explanation, Find, FoundLevel, FoundPage
from mdmfs.worker.finding.federation import Federation, Found, Row, told_silence
from mdmfs.worker.finding.names import alias_of, lfn_of_alias, query_of, target_of
from mdmfs.worker.finding.virtual import Directory, Entry, Link, Text

FIND: Final = b".find"
INCOMPLETE: Final = b"INCOMPLETE"
"""The entry that says which hospitals did not answer; it stands last, and in no directory that is whole."""
KNOWN_SECONDS: Final = 60.0
"""For so long a query that was understood is taken for one."""
CHUNK: Final = 500
"""Entries at a time."""
_DEPTH: Final = 2
"""Of a link below the mount point."""


class FindDirectory:
    """``.find``: has every query as an entry, and lists none."""

    def __init__(self, federation: Federation, nursery: trio.Nursery, root: Lfn) -> None:
        """Ask in ``nursery``; links lead to what a mount of ``root`` shows."""
        self.modified = time.time()
        self._federation = federation
        self._nursery = nursery
        self._root = root
        self._known: dict[bytes, tuple[float, QueryDirectory]] = {}

    async def look_up(self, name: bytes) -> Directory:
        """Give the directory of a query that at least one hospital understands; raises ``MalformedQueryError``."""
        known = self._known.get(name)
        now = trio.current_time()
        if known is not None and now < known[0]:
            return known[1]
        query = query_of(name)
        answers, silent = await self._federation.ask_all(EXPLAIN_PATH, Explain(query), Explanation)
        if not answers:
            raise told_silence(silent)
        self._known = {one: kept for one, kept in self._known.items() if now < kept[0]}
        found = QueryDirectory(query, self._federation, self._nursery, self._root)
        self._known[name] = now + KNOWN_SECONDS, found
        return found

    def open(self) -> FixedPages:
        """List nothing."""
        return FixedPages({})


class QueryDirectory:
    """One query: what its hospitals find at the moment of looking."""

    def __init__(self, query: str, federation: Federation, nursery: trio.Nursery, root: Lfn) -> None:
        self.modified = time.time()
        self._query = query
        self._federation = federation
        self._nursery = nursery
        self._root = root
        self.silent: Mapping[str, str] = {}
        """Who did not answer when it was last read to the end, and why."""

    def open(self) -> FoundPages:
        """Ask everyone."""
        return FoundPages(self, self._federation.begin(self._query, self._nursery, is_bare=True))

    async def look_up(self, name: bytes) -> Entry:
        """Find out whether one series is among what is found: each hospital looks at it alone."""
        if name == INCOMPLETE and self.silent:
            return told_incomplete(self.silent)
        try:
            lfn = lfn_of_alias(name)
        except MalformedNameError as error:
            raise _nothing() from error
        question = Find(self._query, FoundLevel.SERIES, limit=1, within=str(lfn), is_bare=True)
        answers, failures = await self._federation.ask(FIND_PATH, question, FoundPage)
        if any(page.paths == [str(lfn)] for page in answers.values()):
            is_limited = any(page.limit is not None for page in answers.values())
            if not is_limited or await self._is_among_first(name):
                return self.link(lfn)
            raise _nothing()
        silent = {n: str(error) for n, error in failures.items() if not isinstance(error, MalformedQueryError)}
        if silent:
            raise _unsure(silent)
        raise _nothing()

    def link(self, lfn: Lfn) -> Link:
        """Lead to a series."""
        return Link(target_of(lfn, self._root, _DEPTH))

    async def _is_among_first(self, name: bytes) -> bool:
        """Go through all that a query with a limit finds: the limit counts over all hospitals."""
        pages = self.open()
        try:
            while some := await pages.more():
                if any(name == one for one, _ in some):
                    return True
        finally:
            pages.close()
        return False


class FoundPages:
    """What is found, in the query's order, with the silent named behind it."""

    def __init__(self, directory: QueryDirectory, found: Found) -> None:
        self._directory = directory
        self._found = found
        self._given: set[bytes] = set()
        self._unnamed = 0
        self._is_over = False

    async def more(self) -> Sequence[tuple[bytes, Entry]]:
        """Give the next entries; raises ``MalformedQueryError``, and ``PeerTimedOutError`` where nobody answers."""
        some: list[tuple[bytes, Entry]] = []
        while not self._is_over and len(some) < CHUNK:
            row = await anext(self._found, None)
            if row is None:
                some += self._end()
            else:
                some += self._entry(row)
        return some

    def close(self) -> None:
        """Ask no further."""
        self._is_over = True
        self._found.end()

    def _entry(self, row: Row) -> list[tuple[bytes, Entry]]:
        try:
            name = alias_of(row.lfn).encode()
        except MalformedNameError:
            self._unnamed += 1
            return []
        if name in self._given:
            return []
        self._given.add(name)
        return [(name, self._directory.link(row.lfn))]

    def _end(self) -> list[tuple[bytes, Entry]]:
        self._is_over = True
        silent = dict(self._found.silent)
        if silent and not self._found.has_answers:
            raise told_silence(silent)
        if self._unnamed:
            silent["this mount"] = f"{self._unnamed} series have a path too long for one name: use mdmfs find"
        self._directory.silent = silent
        return [(INCOMPLETE, told_incomplete(silent))] if silent else []


class FixedPages:
    """A directory whose entries are all here."""

    def __init__(self, entries: Mapping[bytes, Entry]) -> None:
        self._entries = list(entries.items())

    async def more(self) -> Sequence[tuple[bytes, Entry]]:
        """Give all of them, once."""
        await trio.lowlevel.checkpoint()
        some, self._entries = self._entries, []
        return some

    def close(self) -> None:
        """Nothing is held."""


def told_incomplete(silent: Mapping[str, str]) -> Text:
    """Write down who did not answer."""
    lines = [f"{name} did not answer, what it has is missing: {reason}\n" for name, reason in sorted(silent.items())]
    return Text("".join(lines).encode())


def _unsure(silent: Mapping[str, str]) -> PeerTimedOutError:
    told = "; ".join(f"{name}: {reason}" for name, reason in silent.items())
    return PeerTimedOutError(f"whether it is found is not known, since not every hospital answered; {told}")


def _nothing() -> NoSuchFileError:
    return NoSuchFileError("this series is not found by the query, or it is not for this identity")
